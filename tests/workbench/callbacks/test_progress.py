from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from workbench.callbacks.progress import Progress, _clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-:--"), (0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")]
)
def test_time_left_reads_like_a_clock(seconds, text):
    assert _clock(seconds) == text


def test_without_a_terminal_every_validation_is_a_line(capsys):
    progress = Progress(metrics=("val/psnr",))
    progress._progress = lambda: 0.25
    progress._started -= 10
    trainer = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        global_step=50,
        state=SimpleNamespace(fn="fit"),
        callback_metrics={"train/loss": torch.tensor(0.125), "val/psnr": torch.tensor(28.4)},
    )
    progress.on_validation_end(trainer, None)
    line = capsys.readouterr().out
    assert all(part in line for part in ("step 50", "25%", "loss 0.1250", "val/psnr 28.40"))

    progress._progress = lambda: 1.02  # a run by the clock ends a moment late
    progress.on_validation_end(trainer, None)
    assert "100%  left 0:00" in capsys.readouterr().out

    progress.disable()
    progress.on_validation_end(trainer, None)
    assert capsys.readouterr().out == ""


def test_time_left_follows_the_share_done_since_the_start(monkeypatch):
    progress = Progress()
    progress._started, progress._share_at_start = 100.0, 0.5  # a resumed run
    monkeypatch.setattr("time.monotonic", lambda: 160.0)
    assert progress._time_left(0.75) == pytest.approx(60.0)
    assert progress._time_left(0.5) is None
