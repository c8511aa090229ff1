import math
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Timer

from workbench.errors import UserError
from workbench.run_progress import RunProgress


def trainer(step: int, timer: Timer | None = None, world_size: int = 1) -> SimpleNamespace:
    strategy = SimpleNamespace(broadcast=lambda value: value / 2)
    callbacks = [timer] if timer else []
    return SimpleNamespace(callbacks=callbacks, global_step=step, world_size=world_size, strategy=strategy)


def timer(elapsed: float, duration: float) -> Timer:
    clock = Timer({"seconds": duration})
    clock.load_state_dict({"time_elapsed": {"train": elapsed}})
    return clock


def test_progress_is_the_further_of_steps_and_time():
    assert RunProgress(trainer(30), 100)() == pytest.approx(0.3)
    assert RunProgress(trainer(30, timer(50, 100)), 100)() == pytest.approx(0.5)
    assert RunProgress(trainer(30, timer(10, 100)), 100)() == pytest.approx(0.3)
    assert RunProgress(trainer(30, timer(25, 100)), math.inf)() == pytest.approx(0.25)


def test_a_run_without_an_end_is_refused():
    with pytest.raises(UserError, match="max_time"):
        RunProgress(trainer(0), math.inf)


def test_several_processes_follow_one_clock_and_look_at_it_seldom():
    run = trainer(0, timer(50, 100), world_size=2)
    progress = RunProgress(run, math.inf)
    assert progress() == pytest.approx(0.25)
    progress.timer.load_state_dict({"time_elapsed": {"train": 80}})
    run.global_step = 19
    assert progress() == pytest.approx(0.25)
    run.global_step = 20
    assert progress() == pytest.approx(0.4)
