from __future__ import annotations

import csv
import statistics

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from workbench.watch.activations import Activations


class Keep(Callback):
    def __init__(self, monitor):
        self.monitor = monitor

    def on_validation_end(self, trainer, pl_module):
        self.batch = self.monitor.probe.batch


def test_both_sides_of_a_non_linearity_as_numpy_sees_them(fit, make_restorer, convs):
    network = convs(nn.Tanh())
    with torch.no_grad():
        network[0].bias[:2] = 3.0
    monitor = Activations()
    keep = Keep(monitor)
    history = fit(make_restorer(network, lr=0.0), monitor, keep)
    with torch.no_grad():
        before = network[0](keep.batch.input).numpy()
    after = np.tanh(before)
    height, width = before.shape[2:]
    inner = before[:, :, height // 8 : height - height // 8, width // 8 : width - width // 8]
    channels = inner.transpose(1, 0, 2, 3).reshape(6, -1)
    far = np.abs(channels.mean(1)) / channels.std(1)
    expected = {
        "before_mean": before.mean(),
        "before_std": before.std(),
        "after_mean": after.mean(),
        "after_std": after.std(),
        "off_center": (far > 1).mean(),
        "offset": statistics.median_low(far.tolist()),  # torch takes the lower one of the two in the middle
    }
    for measure, value in expected.items():
        assert history.table(measure)["network.1"].last == pytest.approx(float(value), rel=1e-3, abs=1e-6), measure
    with (fit.folder / "measurements.csv").open() as file:
        assert {row["measure"] for row in csv.DictReader(file)} == set(expected)


def test_padding_does_not_hide_that_everything_is_off_the_middle(fit, make_restorer, convs):
    """Of an input far from 0, zeros around the image are by far the largest spread."""
    network = convs(nn.ReLU())
    with torch.no_grad():
        network[0].weight.uniform_(0.1, 0.2)
        network[0].bias.zero_()

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network

        def forward(self, x):
            return self.body(x + 100)

    history = fit(make_restorer(Shifted(), lr=0.0), Activations())
    assert history.table("offset")["network.body.1"].last > 50


def test_the_error_beside_that_of_answers_that_need_no_network(fit, make_restorer, convs):
    network = convs()
    monitor = Activations()
    keep = Keep(monitor)
    history = fit(make_restorer(network, lr=0.0), monitor, keep)
    noisy, target = keep.batch.input.numpy(), keep.batch.target.numpy()
    with torch.no_grad():
        answer = network(keep.batch.input).numpy()
    assert history["probe/error"].last == pytest.approx(((answer - target) ** 2).mean(), rel=1e-4)
    assert history["probe/nothing"].last == pytest.approx(((noisy - target) ** 2).mean(), rel=1e-4)
    assert history["probe/mean"].last == pytest.approx(target.var(), rel=1e-4)
    assert history["probe/error"].steps[0] == 0, "and before the first step, on training images"


def test_histograms_reach_tensorboard(fit, make_restorer, convs):
    board = pytest.importorskip("lightning.pytorch.loggers").TensorBoardLogger(fit.folder, name="", version="tb")
    fit(make_restorer(convs()), Activations(), logger=board)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(fit.folder / "tb")).Reload()
    assert {"before/network.1", "after/network.1"} <= set(events.Tags()["histograms"])
    shown = events.Histograms("after/network.1")[-1].histogram_value
    assert shown.min == 0 and sum(shown.bucket) == shown.num > 1000
