import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

from project.models import FineTuning, WarmupCosine
from project.models.schedules import configure_optimizer, warmup_cosine
from workbench.errors import UserError


@pytest.mark.parametrize(
    ("progress", "warmup", "final", "cycles", "factor"),
    [
        (0.0, 0.1, 0.01, 1, 0.01),
        (0.05, 0.1, 0.01, 1, 0.505),
        (0.1, 0.1, 0.01, 1, 1),
        (0.55, 0.1, 0.2, 1, 0.6),
        (1.0, 0.1, 0.2, 1, 0.2),
        (1.3, 0.1, 0.2, 4, 0.2),
        (0.0, 0.0, 0.0, 1, 1),
        # The warm-up comes once; what is left is divided among the cycles.
        (0.1, 0.2, 0.0, 2, 0.505),
        (0.4, 0.2, 0.0, 2, 0.5),
        (0.600001, 0.2, 0.0, 2, 1),
        # Huang et al. 2017, equation 2.
        *((t, 0.0, 0.0, 4, (math.cos(math.pi * math.fmod(t, 0.25) / 0.25) + 1) / 2) for t in (0.1, 0.25, 0.6, 0.99)),
    ],
)
def test_the_shape_of_warmup_cosine(progress, warmup, final, cycles, factor):
    assert warmup_cosine(progress, warmup, final, cycles) == pytest.approx(factor)


def test_impossible_arguments_are_refused():
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.5)
    schedule = WarmupCosine(sgd)
    sgd.step()
    for make, words in (
        (schedule.step, "total_steps"),
        (lambda: WarmupCosine(sgd, warmup=1.0), "warmup"),
        (lambda: WarmupCosine(sgd, cycles=0), "at least 1"),
    ):
        with pytest.raises(UserError, match=words):
            make()


# What a model's configure_optimizers returns


def describe(make, every="auto", steps=40, prefix=""):
    run = {"estimated_stepping_batches": steps, "callbacks": [], "global_step": 0, "world_size": 1}
    model = SimpleNamespace(trainer=SimpleNamespace(**run), schedule_every=every)
    model.automatic_optimization = True
    sgd = partial(torch.optim.SGD, lr=0.1)
    return configure_optimizer(model, nn.Conv2d(1, 1, 1), sgd, make, FineTuning(), prefix)["lr_scheduler"]


@pytest.mark.parametrize(
    ("make", "interval"),
    [
        (partial(lrs.OneCycleLR, max_lr=0.1), "step"),
        (WarmupCosine, "step"),
        (partial(lrs.StepLR, step_size=2), "epoch"),
    ],
)
def test_each_scheduler_steps_as_it_is_meant_or_as_configured(make, interval):
    assert describe(make)["interval"] == interval
    other = {"step": "epoch", "epoch": "step"}[interval]
    assert describe(make, every=other)["interval"] == other


def test_schedules_get_the_length_of_the_run_unless_they_have_one():
    assert describe(WarmupCosine)["scheduler"].progress.total_steps == 40
    assert describe(partial(WarmupCosine, total_steps=9))["scheduler"].progress is None
    one_cycle = partial(lrs.OneCycleLR, max_lr=0.1)
    for given, expected in (({}, 40), ({"total_steps": None}, 40), ({"total_steps": 9}, 9),
                            ({"epochs": 2, "steps_per_epoch": 3}, 6)):  # fmt: skip
        assert describe(partial(one_cycle, **given))["scheduler"].total_steps == expected
    with pytest.raises(UserError, match="OneCycleLR needs"):
        describe(one_cycle, steps=float("inf"), prefix="generator_")


@pytest.mark.parametrize("prefix", ["", "generator_"])
def test_what_a_class_refuses_is_reported_by_its_key(prefix):
    with pytest.raises(UserError, match=f"model.{prefix}scheduler cannot be built: .*pct_start"):
        describe(partial(lrs.OneCycleLR, max_lr=0.1, total_steps=5, pct_start=2.0), prefix=prefix)
