from functools import partial
from types import SimpleNamespace

import pytest
import torch
from project.models.optimization import Schedule, configure_scheduler, step_schedules
from torch.optim import lr_scheduler as lrs

from project.models import WarmupCosine
from workbench.errors import UserError
from workbench.run_progress import NEVER


def configure(make, every="auto", steps=40, key="scheduler", **trainer):
    run = {"estimated_stepping_batches": steps, "callbacks": [], "global_step": 0, "world_size": 1}
    run |= {"check_val_every_n_epoch": 1, "val_check_batch": 7, **trainer}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    return configure_scheduler(make, optimizer, SimpleNamespace(**run), every, "val/psnr", True, key)


@pytest.mark.parametrize(
    ("make", "interval"),
    [
        (partial(lrs.OneCycleLR, max_lr=0.1), "step"),
        (partial(lrs.CyclicLR, base_lr=0.01, max_lr=0.1), "step"),
        (WarmupCosine, "step"),
        (partial(lrs.StepLR, step_size=2), "epoch"),
        (partial(lrs.CosineAnnealingLR, T_max=5), "epoch"),
        (partial(lrs.ExponentialLR, gamma=0.9), "epoch"),
        (lrs.ReduceLROnPlateau, "epoch"),
    ],
)
def test_each_scheduler_steps_as_it_is_meant_or_as_told(make, interval):
    assert configure(make)["interval"] == interval
    other = {"step": "epoch", "epoch": "step"}[interval]
    assert configure(make, every=other)["interval"] == other


def test_one_cycle_gets_the_length_of_the_run_unless_it_has_one():
    assert configure(partial(lrs.OneCycleLR, max_lr=0.1))["scheduler"].total_steps == 40
    assert configure(partial(lrs.OneCycleLR, max_lr=0.1, total_steps=None))["scheduler"].total_steps == 40
    assert configure(partial(lrs.OneCycleLR, max_lr=0.1, total_steps=9))["scheduler"].total_steps == 9
    assert configure(partial(lrs.OneCycleLR, max_lr=0.1, epochs=2, steps_per_epoch=3))["scheduler"].total_steps == 6
    with pytest.raises(UserError, match="WarmupCosine"):
        configure(partial(lrs.OneCycleLR, max_lr=0.1), steps=float("inf"))


def test_warmup_cosine_follows_the_run_unless_it_has_a_length():
    assert configure(WarmupCosine)["scheduler"].progress.total_steps == 40
    assert configure(partial(WarmupCosine, total_steps=9))["scheduler"].progress is None


def test_plateau_waits_for_a_rise_of_the_psnr():
    description = configure(partial(lrs.ReduceLROnPlateau, patience=0), every="epoch", check_val_every_n_epoch=3)
    assert description["scheduler"].mode == "max"
    assert description["scheduler"].patience == 0
    assert (description["monitor"], description["frequency"]) == ("val/psnr", 3)
    assert configure(lrs.ReduceLROnPlateau, every="step")["frequency"] == 7


def test_what_a_class_refuses_is_told():
    with pytest.raises(UserError, match=r"model.scheduler cannot be built: .*pct_start"):
        configure(partial(lrs.OneCycleLR, max_lr=0.1, total_steps=5, pct_start=2.0))


def test_mistakes_are_told_by_the_key_of_the_scheduler():
    with pytest.raises(UserError, match=r"model.generator_scheduler cannot be built: .*pct_start"):
        configure(partial(lrs.OneCycleLR, max_lr=0.1, total_steps=5, pct_start=2.0), key="generator_scheduler")
    with pytest.raises(UserError, match=r"model.generator_scheduler.init_args.total_steps"):
        configure(partial(lrs.OneCycleLR, max_lr=0.1), steps=float("inf"), key="generator_scheduler")


def test_schedules_of_manual_optimisation_step_when_their_interval_ends():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule = Schedule.of({"scheduler": lrs.StepLR(optimizer, 1, gamma=0.5), "interval": "epoch", "frequency": 2})
    optimizer.step()
    rates = []
    for done in range(1, 5):
        step_schedules([schedule], "step", done)
        step_schedules([schedule], "epoch", done)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("every", ["auto", "epoch", "step"])
def test_a_plateau_is_left_to_the_validations_whatever_was_told(every):
    schedule = Schedule.of(configure(lrs.ReduceLROnPlateau, every))
    assert (schedule.frequency, schedule.monitor) == (NEVER, "val/psnr")
