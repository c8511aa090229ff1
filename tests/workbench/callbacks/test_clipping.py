"""Clipping against plain loops; at the end bf16-mixed against 32 by the real command."""

import contextlib
import math
import re
import types

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from tests.workbench.toys import convs, gan_section, quiet_trainer, read_column, section
from workbench.callbacks.clipping import GradientClipping
from workbench.errors import UserError


class One(L.LightningModule):
    """One network under automatic optimization."""

    parts, rate = ("network",), 0.2

    def __init__(self) -> None:
        super().__init__()
        for number, name in enumerate(self.parts):
            setattr(self, name, convs(seed=number + 1, width=3))

    def loss(self, name, batch):
        return (self.network(batch) - batch.flip(-1)).square().mean()

    def training_step(self, batch, batch_idx):
        return self.loss("network", batch)

    def configure_optimizers(self):
        return [torch.optim.SGD(getattr(self, name).parameters(), lr=self.rate) for name in self.parts]


class Two(One):
    """Two networks under manual optimization."""

    parts, rate = ("generator", "discriminator"), 0.05

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def loss(self, name, batch):
        fake = self.generator(batch)
        if name == "generator":
            return -self.discriminator(fake).mean() + (fake - batch.flip(-1)).abs().mean()
        return (self.discriminator(fake.detach()) + 1).square().mean() + (self.discriminator(batch) - 1).square().mean()

    def training_step(self, batch, batch_idx):
        for name, optimizer in zip(self.parts, self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(self.loss(name, batch))
            optimizer.step()


class Memory(DummyLogger):
    """{name: {batches that stepped before: value}}."""

    def __init__(self):
        super().__init__()
        self.columns = {}

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            self.columns.setdefault(name, {})[step] = value


def images(count=6):
    generator = torch.Generator().manual_seed(0)
    return [(0.5 + n % 6 / 5) * torch.rand(2, 1, 7, 10, generator=generator) for n in range(count)]


def fit(model, *callbacks, batches=None, **options):
    """Returns the columns of what was logged."""
    memory = Memory()
    trainer = quiet_trainer(*callbacks, logger=memory, **{"log_every_n_steps": 1, **options})
    trainer.fit(model, DataLoader(images() if batches is None else batches, batch_size=None))
    return memory.columns


def plain(model, batches, limit, accumulate=1):
    """Train in a plain loop; returns the norm of each network before each step."""
    norms = {name: [] for name in model.parts}
    optimizers = model.configure_optimizers()
    for number, batch in enumerate(batches):
        for name, optimizer in zip(model.parts, optimizers, strict=True):
            if number % accumulate == 0:
                optimizer.zero_grad()
            (model.loss(name, batch) / accumulate).backward()
            if (number + 1) % accumulate == 0:
                norms[name].append(clip_grad_norm_(getattr(model, name).parameters(), limit).item())
                optimizer.step()
    return norms


class Scaled(MixedPrecision):
    """Loss scaling as under 16-mixed, without its 16 bits: a power of two leaves no trace."""

    def __init__(self):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**12))

    def forward_context(self):
        return contextlib.nullcontext()


def assert_close(one: nn.Module, other: nn.Module, **tolerance) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize(
    ("make", "limit", "accumulate", "every", "plugin"),
    [(One, 0.7, 1, 1, Scaled()), (One, 0.7, 3, 2, None), (Two, 1.2, 1, 1, None), (Two, 0.8, 1, 1, Scaled())],
)
def test_clipped_and_logged_are_the_gradients_of_a_plain_loop(make, limit, accumulate, every, plugin):
    """Each network's own, once a step; of the steps between two logs the share that was clipped is logged."""
    model, expected, batches = make(), make(), images(12)
    options = {"plugins": plugin, "log_every_n_steps": every}
    options |= {"accumulate_grad_batches": accumulate} if accumulate > 1 else {}
    columns = fit(model, GradientClipping(limit), batches=batches, **options)
    norms = plain(expected, batches, limit, accumulate)
    assert_close(model, expected)
    every_norm = [norm for network in norms.values() for norm in network]
    assert min(every_norm) < limit < max(every_norm)
    for name, values in norms.items():
        logged = range(every - 1, len(values), every)
        clipped = {step: sum(norm > limit for norm in values[step - every + 1 : step + 1]) / every for step in logged}
        assert columns[f"grad/{name}_norm"] == pytest.approx({step: values[step] for step in logged}, rel=1e-4)
        assert columns[f"grad/{name}_clipped"] == clipped


@pytest.mark.parametrize(("norm", "clipped"), [(0.3, True), (1e6, False), (None, False)])
def test_weights_are_those_of_lightning_bit_by_bit(norm, clipped):
    models = One(), One()
    columns = fit(models[0], GradientClipping(norm), max_epochs=2)
    fit(models[1], gradient_clip_val=0.3 if clipped else None, max_epochs=2)
    assert_close(*models, rtol=0, atol=0)
    assert any(columns.get("grad/network_clipped", {}).values()) == clipped


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("plugin", [None, Scaled()])
def test_a_step_without_finite_gradients_is_not_taken_and_counted(bad, plugin):
    batches = images(4)
    batches[1] = batches[1].clone()
    batches[1][0, 0, 2, 3] = bad
    model, expected = One(), One()
    columns = fit(model, GradientClipping(0.5), batches=batches, log_every_n_steps=4, plugins=plugin)
    plain(expected, batches[:1] + batches[2:], 0.5)
    assert_close(model, expected)
    assert plugin is not None or columns["grad/network_dropped"] == {3: 0.25}


def test_what_is_outside_any_network_frozen_or_unfrozen_later():
    class Thawing(One):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

        def training_step(self, batch, batch_idx):
            return (self.gain * self.network(batch) - batch.flip(-1)).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD([*self.network[2].parameters(), self.gain], lr=0.2)

        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 1:
                self.trainer.optimizers[0].add_param_group({"params": list(self.network[0].parameters())})

        def on_train_batch_end(self, *_):
            seen.append([float(p.grad.norm()) for p in self.network.parameters()])

        def optimizer_zero_grad(self, *_):
            pass

    seen = []
    columns = fit(Thawing(), GradientClipping(1e-4), batches=images(2))
    assert math.hypot(*seen[0][2:]) == pytest.approx(1e-4, rel=1e-3) and math.hypot(*seen[0][:2]) > 1e-3
    assert math.hypot(*seen[1]) == pytest.approx(1e-4, rel=1e-3) and min(seen[1]) > 0
    assert columns["grad/model_norm"][0] > 0, "of the module's own parameters"


class NoWaiting(TorchDispatchMode):
    """Fails where a number is read back from the device, which waits for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read back"
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device():
    class Watched(GradientClipping):
        def on_before_optimizer_step(self, *args):
            with NoWaiting():
                super().on_before_optimizer_step(*args)

        def on_train_batch_end(self, *args):
            with NoWaiting():
                super().on_train_batch_end(*args)

    with pytest.raises(AssertionError, match="read back"), NoWaiting():
        torch.ones(1).item()
    assert fit(Two(), Watched(0.5))["grad/generator_norm"]


SGD = torch.optim.SGD([nn.Parameter(torch.ones(1))])
FUSED = torch.optim.Adam([nn.Parameter(torch.ones(1))], fused=True)


@pytest.mark.parametrize(
    ("norm", "given", "message"),
    [
        (0.0, {}, "gradient_clipping.norm is 0.0: it must be above 0"),
        (math.nan, {}, "gradient_clipping.norm is nan: it must be above 0"),
        (1.0, {"gradient_clip_val": 0.5}, "--trainer.gradient_clip_val null"),
        (1.0, {"strategy": FSDPStrategy()}, "--trainer.strategy ddp"),
        (1.0, {"optimizers": [FUSED], "precision_plugin": Scaled()}, "fused: false"),  # it unscales by itself
        (1.0, {"optimizers": [FUSED]}, None),
        (1.0, {"precision_plugin": Scaled()}, None),
    ],
)
def test_what_makes_clipping_impossible_is_an_error(norm, given, message):
    trainer = {"strategy": SingleDeviceStrategy("cpu"), "optimizers": [SGD], "precision_plugin": None}
    trainer = types.SimpleNamespace(**{**trainer, "gradient_clip_val": None, **given})
    with pytest.raises(UserError, match=re.escape(message)) if message else contextlib.nullcontext():
        GradientClipping(norm).on_train_start(trainer, One())


@pytest.fixture
def small_model():
    network = section("project.networks.UNet", widths=[4, 6], norm="batch")
    sgd = section("torch.optim.SGD", lr=0.02, momentum=0.9)
    return gan_section(network, sgd, {"norm": "batch"}, adversarial=section("project.models.LeastSquares"))


def test_a_gan_in_bf16_mixed_trains_as_in_32(small):
    runs = [
        small(name, "--gradient_clipping.norm", "0.05", "--trainer.precision", name)
        for name in ("32-true", "bf16-mixed")
    ]
    first, second = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"] for run in runs
    )
    assert all(second[name].dtype == value.dtype and second[name].isfinite().all() for name, value in first.items())
    assert not all(torch.equal(second[name], value) for name, value in first.items()), "nothing was in bfloat16"
    keys = ("train/loss", "val/psnr", "val/psnr_baseline")
    keys += tuple(f"grad/{name}_{value}" for name in Two.parts for value in ("norm", "clipped"))
    one, other = ({key: read_column(run, key) for key in keys} for run in runs)
    for name in Two.parts:  # above the limit in every step: a step's length is the limit's
        assert other[f"grad/{name}_norm"][0] == pytest.approx(one[f"grad/{name}_norm"][0], rel=0.05)
        assert min(one[f"grad/{name}_norm"]) > 0.05
        assert set(other[f"grad/{name}_clipped"]) == {1.0}
    assert other["train/loss"] == pytest.approx(one["train/loss"], rel=0.05)
    assert other["val/psnr"] == pytest.approx(one["val/psnr"], abs=0.3)
    assert other["val/psnr_baseline"] == one["val/psnr_baseline"], "scores are computed in 32"
