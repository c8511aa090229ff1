import math
import time
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from project.models.schedules import WarmupCosine, warmup_cosine
from workbench.errors import UserError
from workbench.run_progress import RunProgress


def optimizer(lr: float = 0.5) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)


def test_shape():
    assert warmup_cosine(0.0, 0.1, 0.01) == pytest.approx(0.01)
    assert warmup_cosine(0.05, 0.1, 0.01) == pytest.approx(0.505)
    assert warmup_cosine(0.1, 0.1, 0.01) == pytest.approx(1)
    assert warmup_cosine(0.55, 0.1, 0.2) == pytest.approx(0.6)
    assert warmup_cosine(1.0, 0.1, 0.2) == warmup_cosine(1.3, 0.1, 0.2) == pytest.approx(0.2)
    assert warmup_cosine(0.0, 0.0, 0.0) == 1


def test_cycles_fall_and_start_again_and_the_end_is_the_end_of_the_last():
    # Huang et al. 2017, equation 2, with the start of each cycle at 0, 0.25, 0.5 and 0.75.
    for progress in (0.0, 0.1, 0.25, 0.3, 0.6, 0.99):
        expected = (math.cos(math.pi * math.fmod(progress, 0.25) / 0.25) + 1) / 2
        assert warmup_cosine(progress, 0.0, 0.0, cycles=4) == pytest.approx(expected)
    assert warmup_cosine(1.0, 0.0, 0.1, cycles=4) == warmup_cosine(1.2, 0.0, 0.1, cycles=4) == pytest.approx(0.1)
    # The warm-up comes once; the rest is shared out.
    assert warmup_cosine(0.1, 0.2, 0.0, cycles=2) == pytest.approx(0.505)
    assert warmup_cosine(0.4, 0.2, 0.0, cycles=2) == pytest.approx(0.5)
    assert warmup_cosine(0.6001, 0.2, 0.0, cycles=2) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(UserError, match="at least 1"):
        WarmupCosine(optimizer(), cycles=0)


def test_rates_of_a_run_by_the_formula():
    sgd = optimizer(0.5)
    schedule = WarmupCosine(sgd, warmup=0.25, final=0.1, total_steps=8)
    rates = []
    for _ in range(9):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * (s / 8 - 0.25) / 0.75)) / 2 for s in range(2, 9)]
    assert rates == pytest.approx([0.5 * f for f in (0.01, 0.505, *falling)])


def test_length_must_be_known():
    sgd = optimizer()
    schedule = WarmupCosine(sgd)
    sgd.step()
    with pytest.raises(UserError, match="total_steps"):
        schedule.step()
    with pytest.raises(UserError, match="warmup"):
        WarmupCosine(sgd, warmup=1.0)


def test_state_is_plain_and_goes_on_where_it_was(tmp_path):
    sgd = optimizer()
    schedule = WarmupCosine(sgd)
    schedule.progress = lambda: 0.5
    sgd.step()
    schedule.step()
    torch.save(schedule.state_dict(), tmp_path / "state.pt")
    other = WarmupCosine(optimizer())
    other.progress = lambda: 0.6
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.last_epoch == 1
    assert other.progress() == 0.6


def trainer(step: int, timer: Timer | None = None, world_size: int = 1) -> SimpleNamespace:
    broadcast = SimpleNamespace(broadcast=lambda value: value / 2)
    return SimpleNamespace(
        callbacks=[timer] if timer else [], global_step=step, world_size=world_size, strategy=broadcast
    )


def timer(elapsed: float, duration: float) -> Timer:
    clock = Timer({"seconds": duration})
    clock.load_state_dict({"time_elapsed": {"train": elapsed}})
    return clock


def test_progress_is_the_further_of_steps_and_time():
    assert RunProgress(trainer(30), 100)() == pytest.approx(0.3)
    assert RunProgress(trainer(30, timer(50, 100)), 100)() == pytest.approx(0.5)
    assert RunProgress(trainer(30, timer(10, 100)), 100)() == pytest.approx(0.3)
    assert RunProgress(trainer(30, timer(25, 100)), math.inf)() == pytest.approx(0.25)


def test_a_running_clock_moves_on():
    clock = timer(0, 0.01)
    progress = RunProgress(trainer(0, clock), math.inf)
    clock.on_train_start(None, None)
    time.sleep(0.02)
    assert progress() >= 1


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
