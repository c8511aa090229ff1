from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from torch import nn

from workbench.watch.recorder import sample


def plain_ratios(network, batches, lr):
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    found = {name: [] for name, _ in network.named_parameters()}
    for batch in batches:
        before = {name: p.detach().clone().numpy() for name, p in network.named_parameters()}
        optimizer.zero_grad()
        (network(batch.input) - batch.target).square().mean().backward()
        optimizer.step()
        for name, p in network.named_parameters():
            found[name].append(np.linalg.norm(p.detach().numpy() - before[name]) / np.linalg.norm(before[name]))
    return found


def test_ratios_are_those_of_a_plain_loop(fit, make_restorer, make_loader, convs):
    history = fit(make_restorer(convs(), lr=1e-3, optimizer=torch.optim.Adam), every_n_steps=6)
    expected = plain_ratios(convs(), make_loader(0, 12).dataset, 1e-3)
    steps = [*range(10), 11]
    for name, ratios in expected.items():
        series = history.table("update")[f"network.{name}"]
        assert series.steps == steps
        assert series.values == pytest.approx([ratios[s] for s in steps], rel=1e-3)
    lower = [min(expected["0.weight"][s], expected["2.weight"][s]) for s in steps]
    assert history["update/network"].values == pytest.approx(lower, rel=1e-3)
    assert all(history.table("moved")["network.0.weight"].values)
    assert history["lr/network"].values == [1e-3] * 12
    size = convs()[0].weight.abs().mean().item()
    assert history.table("scale")["network.0.weight"].values[0] == pytest.approx(size, rel=1e-5)


def test_what_stays_is_seen_to_stay(fit, make_restorer, convs):
    class Stubborn(torch.optim.SGD):
        def step(self, closure=None):
            return closure()

    history = fit(make_restorer(convs(), optimizer=Stubborn))
    assert not any(value for series in history.table("moved").values() for value in series.values)
    assert fit(make_restorer(convs(), lr=0.0)).table("moved") == {}, "a rate of 0 moves nothing"


def test_a_tensor_of_zeros_has_no_ratio(fit, make_restorer, convs):
    network = convs()
    nn.init.zeros_(network[2].weight)
    series = fit(make_restorer(network)).table("update")["network.2.weight"]
    assert np.isnan(series.values[0]) and np.isfinite(series.values[1:]).all()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_decay_against_the_data(fit, make_restorer, make_loader, convs, optimizer):
    """After one step, by hand: the pull is decay x weight; the data asks for its gradient, or Adam's step."""
    decay, lr = 0.3, 1e-3
    history = fit(make_restorer(convs(), lr=lr, optimizer=optimizer, weight_decay=decay))
    network, batch = convs(), make_loader(0, 1).dataset[0]
    (network(batch.input) - batch.target).square().mean().backward()
    pull = decay * torch.cat([p.detach().flatten() for p in network.parameters()]).norm()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
    data = gradient.norm() if optimizer is torch.optim.SGD else (gradient / (gradient.abs() + 1e-8)).norm()
    # AdamW's step and its decay are taken for unrelated, which they are only about.
    near = 1e-3 if optimizer is torch.optim.SGD else 0.2
    assert history["decay/network"].values[0] == pytest.approx((pull / data).item(), rel=near)


def test_statistics_of_every_tensor_are_written_at_validations(fit, make_restorer, convs):
    network = convs()
    fit(make_restorer(network, lr=0.0))
    with (fit.folder / "measurements.csv").open() as file:
        rows = {(row["measure"], row["layer"]): float(row["value"]) for row in csv.DictReader(file)}
    values = network[0].weight.detach().numpy()
    for name in ("mean", "std", "min", "max"):
        expected = float(getattr(values, name)())
        assert rows[f"weight_{name}", "network.0.weight"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert ("update", "network.2.bias") in rows and ("gradient", "network.2.bias") in rows


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_sample_is_a_view_spread_over_the_whole(memory_format):
    weight = torch.randn(64, 32, 3, 3, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format)
    values = sample(weight, 100)
    assert 100 <= len(values) <= 110
    assert values.data_ptr() == weight.data_ptr()
    assert set(values.tolist()) <= set(weight.flatten().tolist())
    assert sample(weight, 10**6).shape == weight.shape
    weight[0, 0, 0, 0] = 77.0
    assert values[0] == 77.0
    assert sample(weight[:, ::2], 100).shape == weight[:, ::2].shape, "no dense block of memory"


@pytest.mark.parametrize("shape", [(512, 256, 3, 3), (64, 210, 5, 5), (96, 64, 7, 7), (4, 3, 2, 2)])
def test_a_sample_meets_every_tap_of_a_kernel(shape):
    taps = math.prod(shape[2:])
    taken = sample(torch.arange(math.prod(shape)).view(shape), 4096).flatten() % taps
    assert set(taken.tolist()) == set(range(taps))
    assert min(4096, math.prod(shape)) <= len(taken) <= 2 * 4096
