from __future__ import annotations

import math

import torch
from torch import nn

from workbench.watch.recorder import Recorder, recorder_of


def test_everything_comes_back_under_its_name_and_in_order():
    recorder = Recorder(nn.Linear(1, 1))
    recorder.put(["a"], torch.tensor(1.0), 0)
    recorder.put(["x", "y"], torch.tensor([2.0, 3.0], dtype=torch.bfloat16), 0, table="t")
    recorder.put(["a"], torch.tensor([True]), 1)
    assert not recorder.history.scalars, "nothing is fetched before it has to be"
    recorder.flush()
    recorder.put(["a"], torch.tensor(4), 2)
    recorder.flush()
    recorder.flush()
    assert list(recorder.history["a"]) == [(0, 1.0), (1, 1.0), (2, 4.0)]
    assert recorder.history.table("t")["y"].last == 3.0


def test_the_first_loss_that_is_no_number_is_remembered():
    recorder = Recorder(nn.Linear(1, 1))
    for step, value in enumerate((1.0, math.nan, math.inf)):
        recorder.put(["val/loss"], torch.tensor(math.nan), step)
        recorder.put(["loss"], torch.tensor(value), step)
    recorder.put(["first", "last"], torch.tensor([math.nan, math.nan]), 2, table="gradient")
    recorder.flush()
    assert recorder.history.nonfinite == (1, "loss")
    assert recorder.history.nonfinite_gradient == (2, "last")


def test_one_recorder_a_run():
    class Trainer:
        pass

    trainer, model = Trainer(), nn.Linear(1, 1)
    recorder = recorder_of(trainer, model)
    assert recorder_of(trainer, model) is recorder
    assert recorder_of(trainer, nn.Linear(1, 1)) is not recorder
    assert recorder_of(Trainer(), model) is not recorder
