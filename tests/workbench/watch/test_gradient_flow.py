from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn

from workbench.watch.gradient_flow import GradientFlow


def plain_gradients(network, batches):
    """What a loop of plain PyTorch finds: the norm of each tensor's gradient, before each step."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    found = {name: [] for name, _ in network.named_parameters()}
    for batch in batches:
        optimizer.zero_grad()
        (network(batch.input) - batch.target).square().mean().backward()
        for name, parameter in network.named_parameters():
            found[name].append(parameter.grad.square().sum().sqrt().item())
        optimizer.step()
    return found


def test_norms_are_those_of_a_plain_loop(fit, make_restorer, make_loader, convs):
    history = fit(make_restorer(convs()), GradientFlow(4))
    expected = plain_gradients(convs(), make_loader(0, 12).dataset)
    steps = [*range(10), 11]  # the first ten, then every fourth, counted from 1: the twelfth
    for name, norms in expected.items():
        series = history.table("gradient")[f"network.{name}"]
        assert series.steps == steps
        assert series.values == pytest.approx([norms[s] for s in steps], rel=1e-4)
    totals = [sum(norms[s] ** 2 for norms in expected.values()) ** 0.5 for s in steps]
    assert history["gradient/network"].values == pytest.approx(totals, rel=1e-4)
    ratios = [expected["0.weight"][s] / expected["2.weight"][s] for s in steps]
    assert history["grad/network_first_to_last"].values == pytest.approx(ratios, rel=1e-4)


def test_norms_are_those_before_clipping_and_of_whole_accumulated_steps(fit, make_restorer, convs):
    history = fit(make_restorer(convs(), lr=0.0), GradientFlow(1), gradient_clip_val=1e-6, accumulate_grad_batches=3)
    series = history["gradient/network"]
    assert series.steps == [0, 1, 2, 3] and min(series.values) > 1e-3


def test_cleared_gradients_are_known_as_such(fit, make_restorer, convs):
    for options in ({}, {"accumulate_grad_batches": 2}):
        carried = fit(make_restorer(convs()), GradientFlow(1), **options).table("carried")["network"]
        assert len(carried) >= 4 and not any(carried.values)


def test_uncleared_gradients_are_seen(fit, make_restorer, convs):
    class Forgetful(make_restorer):
        def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
            pass

    carried = fit(Forgetful(convs()), GradientFlow(1), limit_val_batches=0).table("carried")["network"]
    assert len(carried) >= 8 and all(value > 0 for value in carried.values)


def test_cleared_in_place_counts_as_cleared(fit, make_restorer, convs):
    class InPlace(make_restorer):
        def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
            optimizer.zero_grad(set_to_none=False)

    assert not any(fit(InPlace(convs()), GradientFlow(1)).table("carried")["network"].values)


def test_tensors_without_a_gradient_are_listed(fit, make_restorer, convs):
    network = convs()
    network.spare = nn.Linear(2, 2)
    network.forward = lambda x: network[2](network[1](network[0](x)))
    history = fit(make_restorer(network), GradientFlow(1))
    assert set(history.table("missing")) == {"network.spare.weight", "network.spare.bias"}
    assert "network.spare.weight" not in history.table("gradient")


def test_where_a_gradient_is_no_number_first(fit, make_restorer, convs):
    """The root of 0 between two layers: what comes before it in the network has no number for a gradient."""

    class Root(nn.Module):
        def forward(self, x):
            return (x * 0).sqrt() + x

    history = fit(make_restorer(convs(Root())), GradientFlow(1))
    assert history.nonfinite_gradient[0] == 0
    assert history.nonfinite_gradient[1].startswith("network.0.")


class GANMonitor(L.LightningModule):
    def __init__(self, convs, leak=False, joint=False, clear=True):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = convs(seed=1), convs(seed=2)
        self.leak, self.joint, self.clear = leak, joint, clear

    def training_step(self, batch, batch_idx):
        g, d = self.optimizers()
        fake = self.generator(batch.input)
        if self.joint:
            g.zero_grad()
            d.zero_grad()
            loss = self.discriminator(fake.detach()).square().mean() - self.discriminator(batch.target).mean()
            self.manual_backward(loss + (fake - batch.target).square().mean())
            d.step()
            g.step()
            return
        if self.clear:
            d.zero_grad()
        seen = self.generator(batch.input) if self.leak else fake.detach()
        for loss in (self.discriminator(seen).square().mean(), (self.discriminator(batch.target) - 1).square().mean()):
            self.manual_backward(loss)
        d.step()
        g.zero_grad()
        self.manual_backward(-self.discriminator(fake).mean() + (fake - batch.target).square().mean())
        g.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.generator, self.discriminator)]


@pytest.mark.parametrize("joint", [False, True])
def test_a_healthy_game_neither_leaks_nor_carries(fit, convs, joint):
    history = fit(GANMonitor(convs, joint=joint), GradientFlow(1), limit_val_batches=0)
    assert not any(value for series in history.table("leaked").values() for value in series.values)
    assert set(history.table("carried")) == {"generator", "discriminator"}
    assert not any(value for series in history.table("carried").values() for value in series.values)


def test_a_leak_is_seen_in_the_generator_alone(fit, convs):
    leaked = fit(GANMonitor(convs, leak=True), GradientFlow(1), limit_val_batches=0).table("leaked")
    assert list(leaked) == ["generator"]
    assert len(leaked["generator"]) >= 10 and all(value > 0 for value in leaked["generator"].values)


def test_a_discriminator_whose_gradients_are_never_cleared(fit, convs):
    carried = fit(GANMonitor(convs, clear=False), GradientFlow(1), limit_val_batches=0).table("carried")
    assert all(value > 0 for value in carried["discriminator"].values)
    assert not any(carried["generator"].values)
