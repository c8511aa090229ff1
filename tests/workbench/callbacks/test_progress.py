from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from tests.workbench.toys import OneWeight, quiet_trainer
from workbench.callbacks.checkpoints import Checkpoints
from workbench.callbacks.progress import Progress


class Model(OneWeight):
    def training_step(self, batch, batch_idx):
        self.log("train/loss", loss := super().training_step(batch, batch_idx))
        return loss

    def validation_step(self, batch, batch_idx):
        self.log_dict({"val/a": 0.25, "val/b": 28.41})

    test_step = validation_step


def trainer(folder, *callbacks, **options):
    options = {**({} if "max_steps" in options else {"max_epochs": 2}), "enable_progress_bar": True, **options}
    return quiet_trainer(Progress(), *callbacks, num_sanity_val_steps=2, default_root_dir=folder, **options)


def loader():
    return DataLoader(torch.zeros(4, 1))


class StopAt(Checkpoints):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 6


@pytest.mark.parametrize(
    ("callbacks", "options", "last"),
    [
        ([], {}, "step 8  loss 0.3  val/a 0.25  100%  done"),
        # The last validation is after step 6; the metric is the monitored one instead of the first.
        (
            [Checkpoints("val/b")],
            {"max_steps": 7, "val_check_interval": 2},
            "step 7  loss 0.4  val/b 28.41  100%  done",
        ),
        ([StopAt()], {}, "step 6  loss 0.5  val/a 0.25   75%  stopped early"),
    ],
)
def test_without_a_terminal_validations_and_the_end_are_a_line(capsys, tmp_path, callbacks, options, last):
    trainer(tmp_path, *callbacks, **options).fit(Model(torch.ones(1)), loader(), loader())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    share = " 50%" if not options else " 29%"
    assert f"{share}  left 00:0" in lines[0] and lines[-1] == last


@pytest.mark.parametrize("options", [{}, {"max_epochs": -1, "max_steps": 8}, {"max_time": {"minutes": 9}}])
def test_a_terminal_shows_one_bar_for_the_run(monkeypatch, capsys, tmp_path, options):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("workbench.callbacks.progress.REFRESH_SECONDS", 0.0)
    model, run = Model(torch.ones(1)), trainer(tmp_path, **options)
    run.fit(model, loader(), loader())
    out = capsys.readouterr().out
    assert "val/a=0.25" in out and "Epoch" not in out
    assert "100%" in out or "max_time" in options
    for command in (run.validate, run.test):
        command(model, loader(), verbose=False)
        assert "DataLoader 0:  100%" in capsys.readouterr().out
