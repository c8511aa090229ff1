from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn


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
    history = fit(make_restorer(convs()), every_n_steps=4)
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
    history = fit(make_restorer(convs(), lr=0.0), gradient_clip_val=1e-6, accumulate_grad_batches=3)
    series = history["gradient/network"]
    assert series.steps == [0, 1, 2, 3] and min(series.values) > 1e-3


def test_the_callback_that_clips_gets_the_gradients_as_they_were(fit, make_restorer, convs):
    from workbench.callbacks.clipping import GradientClipping

    networks = [convs() for _ in range(2)]
    for network, measured in zip(networks, (1, 0), strict=True):
        fit(make_restorer(network), (GradientClipping(0.01),), every_n_steps=measured, every_n_validations=0)
    assert all(torch.equal(*pair) for pair in zip(*(network.parameters() for network in networks), strict=True))


class Forgetful:
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        pass


class InPlace:
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)


@pytest.mark.parametrize(
    ("mixin", "options", "expected"),
    [
        ((), {}, False),
        ((), {"accumulate_grad_batches": 2}, False),
        ((InPlace,), {}, False),
        ((Forgetful,), {"limit_val_batches": 0}, True),
    ],
)
def test_gradients_that_are_not_cleared_are_seen(fit, make_restorer, convs, mixin, options, expected):
    model = type("Model", (*mixin, make_restorer), {})(convs())
    carried = fit(model, **options).table("carried")["network"]
    assert len(carried) >= 4 and all((value > 0) == expected for value in carried.values)


def test_tensors_without_a_gradient_are_listed(fit, make_restorer, convs):
    network = convs()
    network.spare = nn.Linear(2, 2)
    network.forward = lambda x: network[2](network[1](network[0](x)))
    history = fit(make_restorer(network))
    assert set(history.table("missing")) == {"network.spare.weight", "network.spare.bias"}
    assert "network.spare.weight" not in history.table("gradient")


def test_where_a_gradient_is_not_finite_first(fit, make_restorer, convs):
    """The root of 0 between two layers: what comes before it in the network has NaN for a gradient."""

    class Root(nn.Module):
        def forward(self, x):
            return (x * 0).sqrt() + x

    step, name = fit(make_restorer(convs(Root()))).nonfinite_gradient
    assert step == 0 and name.startswith("network.0.")


class GAN(L.LightningModule):
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


@pytest.mark.parametrize("options", [{}, {"joint": True}, {"leak": True}, {"clear": False}])
def test_gradients_that_leak_or_stay_in_a_gan(fit, convs, options):
    history = fit(GAN(convs, **options), limit_val_batches=0, every_n_validations=0)
    carried, leaked = history.table("carried"), history.table("leaked").get("generator", ())
    assert set(carried) == {"generator", "discriminator"} and set(history.table("leaked")) <= {"generator"}
    assert not any(carried["generator"].values)
    assert all((value > 0) == ("clear" in options) for value in carried["discriminator"].values)
    assert all((value > 0) == ("leak" in options) for _, value in leaked)
    assert len(leaked) >= 10 or "joint" in options
