from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from workbench.callbacks.progress import Progress, _clock


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")])
def test_time_left_reads_like_a_clock(seconds, text):
    assert _clock(seconds) == text


def test_without_a_terminal_every_validation_is_a_line(capsys):
    progress = Progress()
    progress._progress = lambda: 0.25
    trainer = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        global_step=50,
        state=SimpleNamespace(fn="fit"),
        checkpoint_callback=None,
        callback_metrics={"train/loss": torch.tensor(0.125), "val/a": torch.tensor(28.4), "val/b": torch.tensor(0.5)},
    )
    progress.on_validation_end(trainer, None)
    line = capsys.readouterr().out
    assert all(part in line for part in ("step 50", "25%", "loss 0.1250", "val/a 28.40")) and "val/b" not in line
    trainer.checkpoint_callback = SimpleNamespace(monitor="val/b")
    progress._progress = lambda: 1.02  # a run by the clock ends a moment late
    progress.on_validation_end(trainer, None)
    line = capsys.readouterr().out
    assert "100%  left 0:00" in line and "val/b 0.5000" in line and "val/a" not in line
    progress.disable()
    progress.on_validation_end(trainer, None)
    assert capsys.readouterr().out == ""


def test_time_left_follows_the_share_done_since_the_start(monkeypatch):
    progress = Progress()
    progress._started, progress._share_at_start = 100.0, 0.5  # a resumed run
    monkeypatch.setattr("time.monotonic", lambda: 160.0)
    assert progress._time_left(0.75) == "1:00"
    assert progress._time_left(0.5) == "-:--"


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/score", 0.25)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_terminal_shows_one_bar_for_each_part(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, callbacks=[Progress()], enable_checkpointing=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    loader, model = DataLoader(torch.zeros(4, 1)), Model()
    trainer.fit(model, loader, loader)
    assert "val/score 0.2500" in capsys.readouterr().out
    trainer.validate(model, loader)
    assert "validating" in capsys.readouterr().out
    trainer.test(model, loader)
    assert "testing" in capsys.readouterr().out
