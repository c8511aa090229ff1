"""Clipping against plain loops; at the end bf16-mixed against 32 by the real command."""

import contextlib
import csv
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

from workbench.callbacks.clipping import GradientClipping
from workbench.errors import UserError


def convs(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1))


class One(L.LightningModule):
    """One network under automatic optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.network = convs(1)

    def training_step(self, batch, batch_idx):
        return restoration_loss(self.network, batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.2)


class Two(L.LightningModule):
    """Two networks under manual optimization; the discriminator is trained in every other batch, or in all."""

    def __init__(self, discriminator_every: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = convs(1), convs(2)
        self.discriminator_every = discriminator_every

    def training_step(self, batch, batch_idx):
        for name, optimizer in zip(("generator", "discriminator"), self.optimizers(), strict=True):
            if name == "generator" or batch_idx % self.discriminator_every == 0:
                optimizer.zero_grad()
                self.manual_backward(gan_loss(name, self.generator, self.discriminator, batch))
                optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in (self.generator, self.discriminator)]


def restoration_loss(network, batch):
    return (network(batch) - batch.flip(-1)).square().mean()


def gan_loss(name, generator, discriminator, batch):
    fake = generator(batch)
    if name == "generator":
        return -discriminator(fake).mean() + (fake - batch.flip(-1)).abs().mean()
    return (discriminator(fake.detach()) + 1).square().mean() + (discriminator(batch) - 1).square().mean()


class Memory(DummyLogger):
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
    """Returns what was logged: {name: {batches that stepped before: value}}."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"max_epochs": 1, "accelerator": "cpu", "log_every_n_steps": 1, **quiet, **options}
    memory = Memory()
    trainer = L.Trainer(callbacks=list(callbacks), logger=memory, **options)
    trainer.fit(model, DataLoader(images() if batches is None else batches, batch_size=None))
    return memory.columns


def plain(batches, limit, accumulate=1):
    """The same as One in a plain loop; returns the network and the norm before each step."""
    network = convs(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    norms = []
    for number, batch in enumerate(batches):
        (restoration_loss(network, batch) / accumulate).backward()
        if (number + 1) % accumulate == 0:
            norms.append(clip_grad_norm_(network.parameters(), limit).item())
            optimizer.step()
            optimizer.zero_grad()
    return network, norms


def plain_gan(batches, limit):
    networks = {"generator": convs(1), "discriminator": convs(2)}
    optimizers = {name: torch.optim.SGD(network.parameters(), lr=0.05) for name, network in networks.items()}
    norms = {name: [] for name in networks}
    for batch in batches:
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            gan_loss(name, *networks.values(), batch).backward()
            norms[name].append(clip_grad_norm_(networks[name].parameters(), limit).item())
            optimizer.step()
    return networks, norms


def scaled():
    """Loss scaling as under 16-mixed, without its 16 bits: a power of two leaves no trace."""

    class Scaled(MixedPrecision):
        def forward_context(self):
            return contextlib.nullcontext()

    return Scaled("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**12))


def assert_close(one: nn.Module, other: nn.Module, **tolerance) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def test_clipped_and_logged_are_the_gradients_of_a_plain_loop():
    model = One()
    columns = fit(model, GradientClipping(0.5), plugins=[scaled()])
    network, norms = plain(images(), 0.5)
    assert_close(model.network, network)
    assert columns["grad/network_norm"] == pytest.approx(dict(enumerate(norms)), rel=1e-4)
    assert min(norms) < 0.5 < max(norms)


@pytest.mark.parametrize(("norm", "clipped"), [(0.3, True), (1e6, False), (None, False)])
def test_weights_are_those_of_lightning_bit_by_bit(norm, clipped):
    models = One(), One()
    columns = fit(models[0], GradientClipping(norm), max_epochs=2)
    fit(models[1], gradient_clip_val=0.3 if clipped else None, max_epochs=2)
    assert_close(*models, rtol=0, atol=0)
    assert any(columns.get("grad/network_clipped", {}).values()) == clipped


@pytest.mark.parametrize(("limit", "is_scaled"), [(1.2, False), (0.8, True)])
def test_each_network_of_a_gan_is_clipped_by_itself_under_manual_optimization(limit, is_scaled):
    model = Two()
    columns = fit(model, GradientClipping(limit), plugins=[scaled()] if is_scaled else [])
    networks, norms = plain_gan(images(), limit)
    for name, network in networks.items():
        assert_close(getattr(model, name), network)
        assert columns[f"grad/{name}_norm"] == pytest.approx(dict(enumerate(norms[name])), rel=1e-4)
        assert columns[f"grad/{name}_clipped"] == {n: float(norm > limit) for n, norm in enumerate(norms[name])}
    every = norms["generator"] + norms["discriminator"]
    assert min(every) < limit < max(every)


def test_accumulated_gradients_are_clipped_and_logged_once_a_step():
    model = One()
    columns = fit(model, GradientClipping(0.7), accumulate_grad_batches=3, log_every_n_steps=2, batches=images(12))
    network, norms = plain(images(12), 0.7, accumulate=3)
    assert_close(model.network, network)
    share = [sum(norm > 0.7 for norm in pair) / 2 for pair in (norms[:2], norms[2:])]
    assert 0 < sum(share) < 2
    assert columns["grad/network_clipped"] == {1: share[0], 3: share[1]}
    assert columns["grad/network_norm"] == pytest.approx({1: norms[1], 3: norms[3]}, rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("plugin", [None, scaled()])
def test_a_step_without_finite_gradients_is_not_taken_and_counted(bad, plugin):
    batches = images(4)
    batches[1] = batches[1].clone()
    batches[1][0, 0, 2, 3] = bad
    model = One()
    columns = fit(model, GradientClipping(0.5), batches=batches, log_every_n_steps=4, plugins=plugin)
    assert_close(model.network, plain(batches[:1] + batches[2:], 0.5)[0])
    assert plugin is not None or columns["grad/network_dropped"] == {3: 0.25}


def test_a_resumed_run_logs_what_was_measured_before(tmp_path):
    """The discriminator steps in even batches, odd ones are logged; a checkpoint comes between the two."""

    class Resume(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                torch.save(trainer.callbacks[1].state_dict(), tmp_path / "state")
                trainer.callbacks[1] = GradientClipping(0.8)
                trainer.callbacks[1].load_state_dict(torch.load(tmp_path / "state", weights_only=True))
                trainer.callbacks[1].on_train_start(trainer, pl_module)

    uninterrupted, resumed = (
        fit(Two(discriminator_every=2), first, GradientClipping(0.8), log_every_n_steps=2)
        for first in (L.Callback(), Resume())
    )
    assert uninterrupted == resumed and resumed["grad/discriminator_norm"][3] > 0


def test_what_is_outside_any_network_frozen_or_unfrozen_later():
    class Thawing(One):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

        def training_step(self, batch, batch_idx):
            return restoration_loss(lambda x: self.gain * self.network(x), batch)

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
        (1.0, {"optimizers": [FUSED], "precision_plugin": scaled()}, "fused: false"),  # it unscales by itself
        (1.0, {"optimizers": [FUSED]}, None),
        (1.0, {"precision_plugin": scaled()}, None),
    ],
)
def test_what_makes_clipping_impossible_is_an_error(norm, given, message):
    trainer = {"strategy": SingleDeviceStrategy("cpu"), "optimizers": [SGD], "precision_plugin": None}
    trainer = types.SimpleNamespace(**{**trainer, "gradient_clip_val": None, **given})
    with pytest.raises(UserError, match=re.escape(message)) if message else contextlib.nullcontext():
        GradientClipping(norm).on_train_start(trainer, One())


@pytest.fixture
def small_model():
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "batch"}}
    judge = {"in_channels": 6, "width": 4, "layers": 2, "norm": "batch"}
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "momentum": 0.9}}
    options = {"space": "rgb", "generator": network, "generator_optimizer": sgd, "discriminator_optimizer": sgd}
    options["discriminator"] = {"class_path": "project.networks.PatchGAN", "init_args": judge}
    options["adversarial"] = {"class_path": "project.models.LeastSquares"}
    return {"class_path": "project.models.GANColorizer", "init_args": {**options, "reconstruction_weight": 5.0}}


def test_a_gan_in_bf16_mixed_trains_as_in_32(small):
    words = ["--gradient_clipping.norm", "0.05", "--trainer.precision"]
    states, tables = [], []
    for precision in ("32-true", "bf16-mixed"):
        run = small(precision, *words, precision)
        states.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"])
        rows = list(csv.DictReader((run / "metrics.csv").open(newline="")))
        tables.append({key: [float(row[key]) for row in rows if row[key]] for key in rows[0]})
    first, second = states
    assert all(second[name].dtype == value.dtype and second[name].isfinite().all() for name, value in first.items())
    assert not all(torch.equal(second[name], value) for name, value in first.items()), "nothing was in bfloat16"
    one, other = tables
    for name in ("generator", "discriminator"):  # above the limit in every step: a step's length is the limit's
        assert other[f"grad/{name}_norm"][0] == pytest.approx(one[f"grad/{name}_norm"][0], rel=0.05)
        assert min(one[f"grad/{name}_norm"]) > 0.05
        assert set(other[f"grad/{name}_clipped"]) == {1.0}
    assert other["train/loss"] == pytest.approx(one["train/loss"], rel=0.05)
    assert other["val/psnr"] == pytest.approx(one["val/psnr"], abs=0.3)
    assert other["val/psnr_baseline"] == one["val/psnr_baseline"], "scores are computed in 32"
