import math
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Timer

from workbench.callbacks.progress import RunProgress
from workbench.errors import UserError


def trainer(step: int, elapsed: float | None = None, world_size: int = 1) -> SimpleNamespace:
    """With a clock of 100 seconds, unless ``elapsed`` is None; broadcasting halves a value."""
    clock = Timer({"seconds": 100})
    clock.load_state_dict({"time_elapsed": {"train": elapsed}})
    callbacks, strategy = [clock] if elapsed is not None else [], SimpleNamespace(broadcast=lambda value: value / 2)
    return SimpleNamespace(callbacks=callbacks, global_step=step, world_size=world_size, strategy=strategy)


@pytest.mark.parametrize(
    ("elapsed", "steps", "expected"), [(None, 100, 0.3), (50, 100, 0.5), (10, 100, 0.3), (25, math.inf, 0.25)]
)
def test_progress_is_the_further_of_steps_and_time(elapsed, steps, expected):
    assert RunProgress(trainer(30, elapsed), steps)() == pytest.approx(expected)


def test_a_run_without_an_end_is_refused():
    with pytest.raises(UserError, match="max_time"):
        RunProgress(trainer(0), math.inf)


def test_several_processes_follow_one_clock_and_look_at_it_seldom():
    run = trainer(0, 50, world_size=2)
    progress = RunProgress(run, math.inf)
    assert progress() == pytest.approx(0.25)
    progress.timer.load_state_dict({"time_elapsed": {"train": 80}})
    for run.global_step, expected in ((19, 0.25), (20, 0.4)):
        assert progress() == pytest.approx(expected)
