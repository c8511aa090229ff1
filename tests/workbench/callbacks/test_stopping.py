from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from workbench.callbacks.stopping import Patience

from workbench.callbacks.checkpoints import BestCheckpoint
from workbench.errors import UserError


def _trainer(**more):
    logged = {"val/psnr": torch.tensor(20.0), "val/mse": torch.tensor(0.01), "train/loss": torch.tensor(0.1)}
    state = SimpleNamespace(fn="fit")
    return SimpleNamespace(state=state, callback_metrics=logged, sanity_checking=False, fast_dev_run=True, **more)


@pytest.mark.parametrize(
    ("callback", "key"), [(Patience("val/psmr"), "early_stopping"), (BestCheckpoint("val/psmr"), "best_checkpoint")]
)
def test_a_monitor_that_is_not_logged_is_told(callback, key):
    with pytest.raises(UserError, match="val/psmr") as caught:
        callback.on_validation_end(_trainer(), None)
    assert "There are: val/mse, val/psnr." in str(caught.value)
    assert f"--{key}.monitor" in str(caught.value)


def test_patience_stops_after_so_many_validations_without_a_best():
    patience, stops = Patience(patience=2), []
    trainer = _trainer(should_stop=False, current_epoch=0)
    trainer.fast_dev_run = False
    trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    trainer.state.fn = "fit"
    patience._should_skip_check = lambda trainer: False
    for score in (20.0, 21.0, 20.5, 20.9):
        trainer.callback_metrics["val/psnr"] = torch.tensor(score)
        patience.on_validation_end(trainer, None)
        stops.append(trainer.should_stop)
    assert stops == [False, False, False, True]
