from __future__ import annotations

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from workbench.callbacks.checkpoints import Checkpoints
from workbench.callbacks.progress import Progress


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        self.log("train/loss", loss := self.weight.sum())
        return loss

    def validation_step(self, batch, batch_idx):
        self.log_dict({"val/a": 0.25, "val/b": 28.41})

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder, *callbacks, **options):
    return L.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_model_summary": False, **options},
        callbacks=[Progress(), *callbacks], enable_checkpointing=bool(callbacks), default_root_dir=folder,
    )  # fmt: skip


def loader():
    return DataLoader(torch.zeros(4, 1))


def test_without_a_terminal_every_validation_is_a_line(capsys, tmp_path):
    trainer(tmp_path).fit(Model(), loader(), loader())
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("step ")]
    assert lines[0].startswith("step 4  loss 0.7  val/a 0.25   50%  left 00:0"), out
    assert lines[1].startswith("step 8  loss 0.3  val/a 0.25  100%  left 00:00"), out
    trainer(tmp_path, Checkpoints("val/b")).fit(Model(), loader(), loader())
    assert "val/b 28.41" in capsys.readouterr().out, "the monitored metric instead of the first"


def test_time_left_follows_the_share_done_since_the_start(monkeypatch):
    progress = Progress()
    progress._started, progress._share_at_start, progress._progress = 100.0, 0.5, lambda: 0.75  # a resumed run
    monkeypatch.setattr("time.monotonic", lambda: 160.0)
    assert progress._time_left() == "01:00"
    progress._progress = lambda: 0.5
    assert progress._time_left() == "?"


@pytest.mark.parametrize("options", [{}, {"max_epochs": -1, "max_steps": 8}, {"max_time": {"minutes": 9}}])
def test_a_terminal_shows_one_bar_for_the_run(monkeypatch, capsys, tmp_path, options):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("workbench.callbacks.progress.REFRESH_SECONDS", 0.0)
    model, run = Model(), trainer(tmp_path, **options)
    run.fit(model, loader(), loader())
    out = capsys.readouterr().out
    assert "val/a=0.25" in out and "Epoch" not in out
    assert "100%" in out or "max_time" in options
    for command in (run.validate, run.test):
        command(model, loader(), verbose=False)
        assert "DataLoader 0:  100%" in capsys.readouterr().out
