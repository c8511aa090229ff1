from __future__ import annotations

import math

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from tests.workbench.toys import Restorer, convs, loader, read_rows
from workbench.callbacks.clipping import GradientClipping
from workbench.watch.recorder import sample

STEPS = [*range(10), 11]  # what is measured of twelve steps: the first ten, then every fourth or sixth, counted from 1


def plain_loop(network, batches, optimizer):
    """What a loop of plain PyTorch finds: the norm of each tensor's gradient, and |step| / |weight|."""
    norms, ratios = ({name: [] for name, _ in network.named_parameters()} for _ in range(2))
    for batch in batches:
        before = {name: p.detach().clone().numpy() for name, p in network.named_parameters()}
        optimizer.zero_grad()
        (network(batch.input) - batch.target).square().mean().backward()
        optimizer.step()
        for name, p in network.named_parameters():
            norms[name].append(p.grad.square().sum().sqrt().item())
            ratios[name].append(np.linalg.norm(p.detach().numpy() - before[name]) / np.linalg.norm(before[name]))
    return norms, ratios


@pytest.mark.parametrize(("optimizer", "lr", "every"), [(torch.optim.SGD, 0.01, 4), (torch.optim.Adam, 1e-3, 6)])
def test_gradients_and_updates_are_those_of_a_plain_loop(fit, optimizer, lr, every):
    history = fit(Restorer(convs(), lr=lr, optimizer=optimizer), every_n_steps=every)
    network = convs()
    size = network[0].weight.abs().mean().item()
    norms, ratios = plain_loop(network, loader(0, 12).dataset, optimizer(network.parameters(), lr=lr))
    for table, expected in (("gradient", norms), ("update", ratios)):
        for name, values in expected.items():
            series = history.table(table)[f"network.{name}"]
            assert series.steps == STEPS
            assert series.values == pytest.approx([values[s] for s in STEPS], rel=1e-3)
    totals = [sum(values[s] ** 2 for values in norms.values()) ** 0.5 for s in STEPS]
    assert history["gradient/network"].values == pytest.approx(totals, rel=1e-4)
    first_to_last = [norms["0.weight"][s] / norms["2.weight"][s] for s in STEPS]
    assert history["grad/network_first_to_last"].values == pytest.approx(first_to_last, rel=1e-4)
    lower = [min(ratios["0.weight"][s], ratios["2.weight"][s]) for s in STEPS]
    assert history["update/network"].values == pytest.approx(lower, rel=1e-3)
    assert all(history.table("moved")["network.0.weight"].values)
    assert history.table("scale")["network.0.weight"].values[0] == pytest.approx(size, rel=1e-5)
    assert history["lr/network"].values == [lr] * 12
    rows = read_rows(fit.folder / "metrics.csv")
    logged = {row["step"]: float(row["lr/network"]) for row in rows if row["lr/network"]}
    assert logged.keys() >= {"2", "5", "8", "11"} and set(logged.values()) == {lr}


def test_norms_are_those_before_clipping_and_of_whole_accumulated_steps(fit):
    history = fit(Restorer(convs(), lr=0.0), gradient_clip_val=1e-6, accumulate_grad_batches=3)
    series = history["gradient/network"]
    assert series.steps == [0, 1, 2, 3] and min(series.values) > 1e-3
    assert not any(history.table("carried")["network"].values), "accumulated, not left behind"


def test_the_callback_that_clips_gets_the_gradients_as_they_were(fit):
    networks = [convs() for _ in range(2)]
    for network, measured in zip(networks, (1, 0), strict=True):
        fit(Restorer(network), (GradientClipping(0.01),), every_n_steps=measured, every_n_validations=0)
    assert all(torch.equal(*pair) for pair in zip(*(network.parameters() for network in networks), strict=True))


@pytest.mark.parametrize("set_to_none", [False, None])
def test_gradients_that_are_not_cleared_are_seen(fit, set_to_none):
    class Model(Restorer):
        def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
            if set_to_none is not None:
                optimizer.zero_grad(set_to_none)

    carried = fit(Model(convs()), limit_val_batches=0).table("carried")["network"]
    assert len(carried) >= 4 and all((value > 0) == (set_to_none is None) for value in carried.values)


def test_tensors_without_a_gradient_and_without_a_ratio(fit):
    network = convs()
    network.spare = nn.Linear(2, 2)
    nn.init.zeros_(network[2].weight)
    network.forward = lambda x: network[2](network[1](network[0](x)))
    history = fit(Restorer(network))
    assert set(history.table("missing")) == {"network.spare.weight", "network.spare.bias"}
    assert "network.spare.weight" not in history.table("gradient")
    ratios = history.table("update")["network.2.weight"].values
    assert np.isnan(ratios[0]) and np.isfinite(ratios[1:]).all()


def test_where_a_gradient_is_not_finite_first(fit):
    """The root of 0 between two layers: what comes before it in the network has NaN for a gradient."""

    class Root(nn.Module):
        def forward(self, x):
            return (x * 0).sqrt() + x

    step, name = fit(Restorer(convs(Root()))).nonfinite_gradient
    assert step == 0 and name.startswith("network.0.")


class Joint(L.LightningModule):
    """A GAN that gets the gradients of both networks from one sum of losses."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = convs(seed=1), convs(seed=2)

    def training_step(self, batch, batch_idx):
        fake = self.generator(batch.input)
        loss = self.discriminator(fake.detach()).square().mean() - self.discriminator(batch.target).mean()
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss + (fake - batch.target).square().mean())
        for optimizer in reversed(self.optimizers()):
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.generator, self.discriminator)]


def test_one_backward_pass_for_both_networks_of_a_gan_leaks_nothing(fit):
    history = fit(Joint(), limit_val_batches=0, every_n_validations=0)
    for table in ("carried", "leaked"):
        assert not any(value for series in history.table(table).values() for value in series.values)
    assert set(history.table("carried")) == {"generator", "discriminator"}


def test_what_stays_is_seen_to_stay(fit):
    class Stubborn(torch.optim.SGD):
        def step(self, closure=None):
            return closure()

    history = fit(Restorer(convs(), optimizer=Stubborn))
    assert not any(value for series in history.table("moved").values() for value in series.values)
    assert fit(Restorer(convs(), lr=0.0)).table("moved") == {}, "a rate of 0 moves nothing"


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_decay_against_the_data(fit, optimizer):
    """After one step, by hand: the pull is decay x weight; the data asks for its gradient, or Adam's step."""
    decay, lr = 0.3, 1e-3
    history = fit(Restorer(convs(), lr=lr, optimizer=optimizer, weight_decay=decay))
    network, batch = convs(), loader(0, 1).dataset[0]
    (network(batch.input) - batch.target).square().mean().backward()
    pull = decay * torch.cat([p.detach().flatten() for p in network.parameters()]).norm()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
    data = gradient.norm() if optimizer is torch.optim.SGD else (gradient / (gradient.abs() + 1e-8)).norm()
    # AdamW's step and its decay are taken for unrelated, which they are only about.
    near = 1e-3 if optimizer is torch.optim.SGD else 0.2
    assert history["decay/network"].values[0] == pytest.approx((pull / data).item(), rel=near)


def test_statistics_of_every_tensor_are_written_at_validations(fit):
    network = convs()
    fit(Restorer(network, lr=0.0))
    rows = read_rows(fit.folder / "measurements.csv")
    rows = {(row["measure"], row["layer"]): float(row["value"]) for row in rows}
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
    assert sample(weight[:, ::2], 100).shape == weight[:, ::2].shape, "no dense block of memory"


@pytest.mark.parametrize("shape", [(512, 256, 3, 3), (64, 210, 5, 5), (96, 64, 7, 7), (4, 3, 2, 2)])
def test_a_sample_meets_every_tap_of_a_kernel(shape):
    taps = math.prod(shape[2:])
    taken = sample(torch.arange(math.prod(shape)).view(shape), 4096).flatten() % taps
    assert set(taken.tolist()) == set(range(taps))
    assert min(4096, math.prod(shape)) <= len(taken) <= 2 * 4096
