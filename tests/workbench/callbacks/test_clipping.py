"""Clipping against plain loops; at the end bf16-mixed against 32 by the real command."""

import contextlib
import csv
import math
import types

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from workbench.callbacks import clipping
from workbench.callbacks.clipping import GradientClipping
from workbench.errors import UserError


def convs(seed: int, channels_in: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(channels_in, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1))


class One(L.LightningModule):
    """One network under automatic optimization."""

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = convs(1) if network is None else network

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
        optimizers = self.optimizers()
        for name, optimizer in zip(("generator", "discriminator"), optimizers, strict=True):
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


class Memory(Logger):
    """Keeps what is logged: {batches that stepped before: {name: value}}."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.rows = {}

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.setdefault(step, {}).update(metrics)

    def column(self, name):
        return {step: row[name] for step, row in self.rows.items() if name in row}


def images(count=6, height=7, width=10):
    generator = torch.Generator().manual_seed(0)
    return [(0.5 + n % 6 / 5) * torch.rand(2, 1, height, width, generator=generator) for n in range(count)]


def fit(model, *callbacks, batches=None, **options):
    options = {"max_epochs": 1, "accelerator": "cpu", "logger": Memory(), "log_every_n_steps": 1, **options}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(callbacks=list(callbacks), **quiet, **options)
    trainer.fit(model, DataLoader(images() if batches is None else batches, batch_size=None))
    return trainer


def plain(batches, clip, accumulate=1, autocast=contextlib.nullcontext):
    """The same as One in a plain loop; returns the network and what ``clip`` returned at each step."""
    network = convs(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    seen = []
    for number, batch in enumerate(batches):
        with autocast():
            loss = restoration_loss(network, batch) / accumulate
        loss.backward()
        if (number + 1) % accumulate == 0:
            seen.append(clip(network))
            optimizer.step()
            optimizer.zero_grad()
    return network, seen


def by_norm(limit):
    return lambda network: clip_grad_norm_(network.parameters(), limit).item()


def same(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_by_norm_equals_a_plain_loop(precision):
    model = One()
    fit(model, GradientClipping(norm=0.5), precision=precision)
    context = contextlib.nullcontext if precision == "32-true" else lambda: torch.autocast("cpu", torch.bfloat16)
    network, norms = plain(images(), by_norm(0.5), autocast=context)
    same(model.network, network)
    assert min(norms) < 0.5 < max(norms)


def test_by_norm_equals_the_clipping_of_lightning_bit_by_bit():
    models = One(), One()
    fit(models[0], GradientClipping(norm=0.3), max_epochs=2)
    fit(models[1], gradient_clip_val=0.3, max_epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_by_value_equals_a_plain_loop():
    model = One()
    trainer = fit(model, GradientClipping(value=0.2))
    shares = []

    def clip(network):
        shares.append(max(p.grad.abs().max().item() for p in network.parameters()) > 0.2)
        clip_grad_value_(network.parameters(), 0.2)

    same(model.network, plain(images(), clip)[0])
    assert trainer.logger.column("grad/network_clipped") == dict(enumerate(map(float, shares)))
    assert 0 < sum(shares) < 6


def plain_gan(batches, limits):
    networks = {"generator": convs(1), "discriminator": convs(2)}
    optimizers = {name: torch.optim.SGD(network.parameters(), lr=0.05) for name, network in networks.items()}
    norms = {name: [] for name in networks}
    for batch in batches:
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            gan_loss(name, *networks.values(), batch).backward()
            norms[name].append(clip_grad_norm_(networks[name].parameters(), limits[name]).item())
            optimizer.step()
    return networks, norms


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"norm": 1.1, "networks": {"discriminator": 0.8}}, {"generator": 1.1, "discriminator": 0.8}),
        ({"norm": 0.8, "networks": {"generator": None}}, {"generator": math.inf, "discriminator": 0.8}),
        ({"networks": {"generator": 1.1}}, {"generator": 1.1, "discriminator": math.inf}),
    ],
)
def test_each_network_of_a_gan_has_its_own_limit_under_manual_optimization(given, limits):
    model = Two()
    trainer = fit(model, GradientClipping(**given))
    networks, norms = plain_gan(images(), limits)
    for name, network in networks.items():
        same(getattr(model, name), network)
        logged = trainer.logger.column(f"grad/{name}_norm")
        assert logged == pytest.approx(dict(enumerate(norms[name])), rel=1e-4)
        clipped = trainer.logger.column(f"grad/{name}_clipped")
        if limits[name] == math.inf:
            assert not clipped
        else:
            assert min(norms[name]) < limits[name] < max(norms[name])
            assert clipped == {step: float(norm > limits[name]) for step, norm in enumerate(norms[name])}


def test_accumulated_gradients_are_clipped_and_logged_once_a_step():
    model = One()
    trainer = fit(model, GradientClipping(norm=0.7), accumulate_grad_batches=3, log_every_n_steps=2, batches=images(12))
    network, norms = plain(images(12), by_norm(0.7), accumulate=3)
    same(model.network, network)
    share = [sum(norm > 0.7 for norm in pair) / 2 for pair in (norms[:2], norms[2:])]
    assert 0 < sum(share) < 2
    assert trainer.logger.column("grad/network_clipped") == {1: share[0], 3: share[1]}
    assert trainer.logger.column("grad/network_norm") == pytest.approx({1: norms[1], 3: norms[3]}, rel=1e-4)


def scaled(scale=2.0**12):
    """Loss scaling as under 16-mixed, without its 16 bits: a power of two leaves no trace."""

    class Scaled(MixedPrecision):
        def forward_context(self):
            return contextlib.nullcontext()

    return Scaled("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


def test_gradients_are_clipped_and_logged_unscaled():
    model = One()
    trainer = fit(model, GradientClipping(norm=0.5), plugins=[scaled()])
    network, norms = plain(images(), by_norm(0.5))
    same(model.network, network)
    assert trainer.logger.column("grad/network_norm") == pytest.approx(dict(enumerate(norms)), rel=1e-4)

    gan = Two()
    fit(gan, GradientClipping(norm=1.2), plugins=[scaled()])
    for name, network in plain_gan(images(), {"generator": 1.2, "discriminator": 1.2})[0].items():
        same(getattr(gan, name), network)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("limit", [{"norm": 0.5}, {"value": 0.2}])
def test_a_step_without_finite_gradients_is_not_taken_and_counted(limit, bad):
    batches = images(4)
    batches[1] = batches[1].clone()
    batches[1][0, 0, 2, 3] = bad
    clip = by_norm(0.5) if "norm" in limit else lambda network: clip_grad_value_(network.parameters(), 0.2)
    expected = plain(batches[:1] + batches[2:], clip)[0]

    model = One()
    trainer = fit(model, GradientClipping(**limit), batches=batches, log_every_n_steps=4)
    same(model.network, expected)
    assert trainer.logger.column("grad/network_dropped") == {3: 0.25}

    model, plugin = One(), scaled()
    fit(model, GradientClipping(**limit), batches=batches, plugins=[plugin])
    same(model.network, expected)
    assert plugin.scaler.get_scale() == 2.0**11


def test_without_a_limit_it_measures_and_touches_nothing():
    model, other = One(), One()
    trainer = fit(model, GradientClipping(), log_every_n_steps=2)
    fit(other)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    _, norms = plain(images(), by_norm(math.inf))
    expected = {step: norms[step] for step in (1, 3, 5)}
    assert trainer.logger.column("grad/network_norm") == pytest.approx(expected, rel=1e-4)
    assert not trainer.logger.column("grad/network_clipped")


def test_a_network_that_never_steps_in_a_logged_batch_is_logged():
    trainer = fit(Two(discriminator_every=2), GradientClipping(), log_every_n_steps=2, max_epochs=2)
    assert set(trainer.logger.column("grad/discriminator_norm")) == {1, 3, 5, 7, 9, 11}
    assert set(trainer.logger.column("grad/generator_norm")) == {1, 3, 5, 7, 9, 11}


def test_a_resumed_run_logs_what_was_measured_before(tmp_path):
    """The discriminator steps in even batches, odd ones are logged; a checkpoint comes between the two."""

    class Resume(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                torch.save(trainer.callbacks[1].state_dict(), tmp_path / "state")
                trainer.callbacks[1] = GradientClipping(norm=0.8)
                trainer.callbacks[1].load_state_dict(torch.load(tmp_path / "state", weights_only=True))
                trainer.callbacks[1].on_train_start(trainer, pl_module)

    rows = [
        fit(Two(discriminator_every=2), first, GradientClipping(norm=0.8), log_every_n_steps=2).logger.rows
        for first in (L.Callback(), Resume())
    ]
    assert rows[0] == rows[1] and rows[0][3]["grad/discriminator_norm"] > 0


def test_parameters_outside_any_network_and_frozen_ones():
    class Own(One):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))
            self.network[0].requires_grad_(False)

        def training_step(self, batch, batch_idx):
            return restoration_loss(lambda x: self.gain * self.network(x), batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = fit(Own(), GradientClipping(norm=1.0), batches=images(1))
    row = trainer.logger.rows[0]
    assert row["grad/model_norm"] > 0 and row["grad/network_norm"] > 0


def test_layers_that_are_unfrozen_later_are_clipped_too():
    class Thawing(One):
        def configure_optimizers(self):
            return torch.optim.SGD(self.network[2].parameters(), lr=0.2)

        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 1:
                self.trainer.optimizers[0].add_param_group({"params": list(self.network[0].parameters())})

        def on_train_batch_end(self, *_):
            seen.append([float(p.grad.norm()) for p in self.network.parameters()])

        def optimizer_zero_grad(self, *_):
            pass

    seen = []
    fit(Thawing(), GradientClipping(norm=1e-4), batches=images(2))
    assert math.hypot(*seen[0][2:]) == pytest.approx(1e-4, rel=1e-3) and math.hypot(*seen[0][:2]) > 1e-3
    assert math.hypot(*seen[1]) == pytest.approx(1e-4, rel=1e-3) and min(seen[1]) > 0


class NoWaiting(TorchDispatchMode):
    """Fails where a number is read back from the device, which waits for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read back"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("limit", [{}, {"norm": 0.5}, {"value": 0.2}])
def test_nothing_waits_for_the_device(limit, monkeypatch):
    monkeypatch.setattr(clipping, "is_near", lambda value: False)

    class Watched(GradientClipping):
        def on_before_optimizer_step(self, *args):
            with NoWaiting():
                super().on_before_optimizer_step(*args)

        def on_train_batch_end(self, *args):
            with NoWaiting():
                super().on_train_batch_end(*args)

    with pytest.raises(AssertionError, match="read back"), NoWaiting():
        torch.ones(1).item()
    assert fit(Two(), Watched(**limit)).logger.column("grad/generator_norm")


@pytest.mark.parametrize("limit", [{"norm": 0.5}, {"norm": 1e6}, {"value": 0.2}])
@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_cpu_that_leaves_passes_out_clips_as_a_device_does(limit, bad, monkeypatch):
    torch.manual_seed(5)
    gradients = [torch.randn(3, 5), torch.randn(7), torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)]
    if bad is not None:
        gradients[1][2] = bad
    found = []
    for near in (True, False):
        monkeypatch.setattr(clipping, "is_near", lambda value, near=near: near)
        network = clipping._Network("one", next(iter(limit.values())), by_value="value" in limit)
        network.parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for parameter, gradient in zip(network.parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        network.measure_and_clip()
        found.append([parameter.grad for parameter in network.parameters])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    if bad is not None:
        assert not any(gradient.any() for gradient in found[0])
    elif limit == {"norm": 1e6}:
        assert all(torch.equal(one, other) for one, other in zip(found[0], gradients, strict=True))
    else:
        assert not any(torch.equal(one, other) for one, other in zip(found[0], gradients, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": 0.0}, "gradient_clipping.norm is .*: it must be above 0"),
        ({"value": -1.0}, "gradient_clipping.value is -1.0"),
        ({"norm": math.nan}, "gradient_clipping.norm is .*: it must be above 0"),
        ({"networks": {"generator": 0.0}}, "gradient_clipping.networks.generator is 0.0"),
        ({"norm": 1.0, "value": 1.0}, "set one of them to null"),
    ],
)
def test_faulty_limits_name_their_key(options, message):
    with pytest.raises(UserError, match=message):
        GradientClipping(**options)


def test_an_unknown_network_is_an_error_that_lists_them():
    with pytest.raises(UserError) as error:
        fit(Two(), GradientClipping(networks={"discriminater": 1.0}))
    assert "Did you mean 'discriminator'?" in str(error.value) and "generator" in str(error.value)


def test_clipping_twice_is_an_error():
    with pytest.raises(UserError, match=r"--trainer\.gradient_clip_val null"):
        fit(One(), GradientClipping(value=1.0), gradient_clip_val=0.5)
    fit(One(), GradientClipping(), gradient_clip_val=0.5)  # without a limit it only measures


def start(callback, model, strategy, optimizer, plugin=None):
    trainer = types.SimpleNamespace(strategy=strategy, optimizers=[optimizer], precision_plugin=plugin)
    callback.on_train_start(trainer, model)


def test_sharded_gradients_are_an_error_or_left_alone():
    model, callback = One(), GradientClipping()
    optimizer = model.configure_optimizers()
    with pytest.raises(UserError, match=r"FSDPStrategy.*\n.*--trainer.strategy ddp"):
        start(GradientClipping(norm=1.0), model, FSDPStrategy(), optimizer)
    start(callback, model, FSDPStrategy(), optimizer)
    callback.on_before_optimizer_step(None, model, optimizer)
    callback.on_train_batch_end(None, model)


def test_an_optimizer_that_unscales_by_itself_is_an_error():
    model = One()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    strategy = SingleDeviceStrategy("cpu")
    with pytest.raises(UserError, match="fused: false"):
        start(GradientClipping(norm=1.0), model, strategy, optimizer, scaled())
    start(GradientClipping(norm=1.0), model, strategy, optimizer, None)
    start(GradientClipping(norm=1.0), model, strategy, model.configure_optimizers(), scaled())


@pytest.fixture
def small_model():
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "batch"}}
    judge = {"in_channels": 6, "width": 4, "layers": 2, "norm": "batch"}
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "momentum": 0.9}}
    options = {"space": "rgb", "generator": network, "generator_optimizer": sgd, "discriminator_optimizer": sgd}
    options["discriminator"] = {"class_path": "project.networks.PatchGAN", "init_args": judge}
    options["adversarial"] = {"class_path": "project.models.adversarial.LeastSquares"}
    return {"class_path": "project.models.GANColorizer", "init_args": {**options, "reconstruction_weight": 5.0}}


def columns(run):
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows if row[key]] for key in rows[0]}


def test_a_gan_in_bf16_mixed_trains_as_in_32(small):
    words = ["--gradient_clipping.norm", "0.05", "--trainer.precision"]
    full, mixed = small("full", *words, "32-true"), small("mixed", *words, "bf16-mixed")
    first, second = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"] for run in (full, mixed)
    )
    assert all(second[name].dtype == value.dtype and second[name].isfinite().all() for name, value in first.items())
    assert not all(torch.equal(second[name], value) for name, value in first.items()), "nothing was in bfloat16"
    one, other = columns(full), columns(mixed)
    for name in ("generator", "discriminator"):  # above the limit in every step: a step's length is the limit's
        assert other[f"grad/{name}_norm"][0] == pytest.approx(one[f"grad/{name}_norm"][0], rel=0.05)
        assert min(one[f"grad/{name}_norm"]) > 0.05
        assert set(other[f"grad/{name}_clipped"]) == {1.0}
    assert other["train/loss"] == pytest.approx(one["train/loss"], rel=0.05)
    assert other["val/psnr"] == pytest.approx(one["val/psnr"], abs=0.3)
    assert other["val/psnr_baseline"] == one["val/psnr_baseline"], "scores are computed in 32"
