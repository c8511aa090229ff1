import contextlib
import math
import os
import subprocess
import sys
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

from project.networks import UNet
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
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.generator, self.discriminator)]


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

    def log_metrics(self, metrics, step=None):
        self.rows.setdefault(step, {}).update(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass

    def column(self, name):
        return {step: row[name] for step, row in self.rows.items() if name in row}


def pictures(count=6, height=7, width=10):
    generator = torch.Generator().manual_seed(0)
    return [(0.5 + n % 6 / 5) * torch.rand(2, 1, height, width, generator=generator) for n in range(count)]


def fit(model, *callbacks, batches=None, **options):
    options = {"max_epochs": 1, "accelerator": "cpu", "logger": Memory(), "log_every_n_steps": 1, **options}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(callbacks=list(callbacks), **quiet, **options)
    trainer.fit(model, DataLoader(pictures() if batches is None else batches, batch_size=None))
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


def test_by_norm_equals_a_plain_loop():
    model = One()
    fit(model, GradientClipping(norm=0.5))
    network, norms = plain(pictures(), by_norm(0.5))
    same(model.network, network)
    assert min(norms) < 0.5 < max(norms)


def test_by_value_equals_a_plain_loop():
    model = One()
    trainer = fit(model, GradientClipping(value=0.2))
    shares = []

    def clip(network):
        shares.append(max(p.grad.abs().max().item() for p in network.parameters()) > 0.2)
        clip_grad_value_(network.parameters(), 0.2)

    same(model.network, plain(pictures(), clip)[0])
    assert trainer.logger.column("grad/network_clipped") == dict(enumerate(map(float, shares)))
    assert 0 < sum(shares) < 6


def plain_gan(batches, limits):
    networks = {"generator": convs(1), "discriminator": convs(2)}
    optimizers = {name: torch.optim.Adam(network.parameters(), lr=0.01) for name, network in networks.items()}
    norms = {name: [] for name in networks}
    for batch in batches:
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            gan_loss(name, *networks.values(), batch).backward()
            norms[name].append(clip_grad_norm_(networks[name].parameters(), limits[name]).item())
            optimizer.step()
    return networks, norms


def test_each_network_of_a_gan_has_its_own_limit_under_manual_optimization():
    model = Two()
    trainer = fit(model, GradientClipping(norm=1.35, networks={"discriminator": 0.8}))
    networks, norms = plain_gan(pictures(), {"generator": 1.35, "discriminator": 0.8})
    for name, network in networks.items():
        same(getattr(model, name), network)
        logged = trainer.logger.column(f"grad/{name}_norm")
        assert logged == pytest.approx(dict(enumerate(norms[name])), rel=1e-4)
        limit = 1.35 if name == "generator" else 0.8
        assert min(norms[name]) < limit < max(norms[name])
        clipped = trainer.logger.column(f"grad/{name}_clipped")
        assert clipped == {step: float(norm > limit) for step, norm in enumerate(norms[name])}


def test_a_network_may_be_left_out():
    model = Two()
    trainer = fit(model, GradientClipping(norm=1.2, networks={"generator": None}))
    networks, _ = plain_gan(pictures(), {"generator": math.inf, "discriminator": 1.2})
    for name, network in networks.items():
        same(getattr(model, name), network)
    assert not trainer.logger.column("grad/generator_clipped")
    assert len(trainer.logger.column("grad/generator_norm")) == 6


def test_limits_of_networks_alone_are_norms():
    model = Two()
    fit(model, GradientClipping(networks={"generator": 0.8}))
    networks, _ = plain_gan(pictures(), {"generator": 0.8, "discriminator": math.inf})
    for name, network in networks.items():
        same(getattr(model, name), network)


def test_accumulated_gradients_are_clipped_and_logged_once_a_step():
    model = One()
    trainer = fit(
        model, GradientClipping(norm=0.7), accumulate_grad_batches=3, log_every_n_steps=2, batches=pictures(12)
    )
    network, norms = plain(pictures(12), by_norm(0.7), accumulate=3)
    same(model.network, network)
    share = [sum(norm > 0.7 for norm in pair) / 2 for pair in (norms[:2], norms[2:])]
    assert 0 < sum(share) < 2
    assert trainer.logger.column("grad/network_clipped") == {1: share[0], 3: share[1]}
    assert trainer.logger.column("grad/network_norm") == pytest.approx({1: norms[1], 3: norms[3]}, rel=1e-4)


def test_bf16_mixed_equals_a_plain_loop():
    model = One()
    fit(model, GradientClipping(norm=0.5), precision="bf16-mixed")
    network, norms = plain(pictures(), by_norm(0.5), autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    same(model.network, network)
    assert max(norms) > 0.5


def scaled(scale=2.0**12):
    """Loss scaling as under 16-mixed, without its 16 bits: a power of two leaves no trace."""

    class Scaled(MixedPrecision):
        def forward_context(self):
            return contextlib.nullcontext()

    return Scaled("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


def test_gradients_are_clipped_and_logged_unscaled():
    model = One()
    trainer = fit(model, GradientClipping(norm=0.5), plugins=[scaled()])
    network, norms = plain(pictures(), by_norm(0.5))
    same(model.network, network)
    assert trainer.logger.column("grad/network_norm") == pytest.approx(dict(enumerate(norms)), rel=1e-4)

    gan = Two()
    fit(gan, GradientClipping(norm=1.2), plugins=[scaled()])
    for name, network in plain_gan(pictures(), {"generator": 1.2, "discriminator": 1.2})[0].items():
        same(getattr(gan, name), network)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("limit", [{"norm": 0.5}, {"value": 0.2}])
def test_a_step_without_finite_gradients_is_not_taken_and_counted(limit, bad):
    batches = pictures(4)
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


def test_of_a_gradient_that_is_infinite_in_one_place_nothing_is_taken():
    class Burst(One):
        def on_after_backward(self):
            if self.trainer.global_step == 1:
                self.network[0].weight.grad[0, 0, 1, 1] = math.inf

    model = Burst()
    batches = pictures(3)
    fit(model, GradientClipping(value=0.2), batches=batches)
    same(model.network, plain(batches[:1] + batches[2:], lambda n: clip_grad_value_(n.parameters(), 0.2))[0])


def test_without_a_limit_it_measures_and_touches_nothing():
    model, other = One(), One()
    trainer = fit(model, GradientClipping(), log_every_n_steps=2)
    fit(other)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    norms, firsts, lasts = [], [], []

    def look(network):
        norms.append(clip_grad_norm_(network.parameters(), math.inf).item())
        firsts.append(network[0].weight.grad.norm().item())
        lasts.append(network[2].weight.grad.norm().item())

    plain(pictures(), look)
    for name, values in {"norm": norms, "first_layer": firsts, "last_layer": lasts}.items():
        expected = {step: values[step] for step in (1, 3, 5)}
        assert trainer.logger.column(f"grad/network_{name}") == pytest.approx(expected, rel=1e-4)
    assert not trainer.logger.column("grad/network_clipped")


@pytest.mark.parametrize(("limit", "looks"), [({}, 1 + 3), ({"norm": 0.5}, 6)])
def test_without_a_limit_it_looks_at_the_first_step_and_those_that_are_logged(limit, looks, monkeypatch):
    calls, norm = [], torch._foreach_norm
    monkeypatch.setattr(torch, "_foreach_norm", lambda *args: calls.append(1) or norm(*args))
    fit(One(), GradientClipping(**limit), log_every_n_steps=2)
    assert len(calls) == looks


def test_the_norm_is_that_before_clipping():
    trainer = fit(One(), GradientClipping(norm=0.01), batches=pictures(1))
    norm = plain(pictures(1), by_norm(math.inf))[1][0]
    assert trainer.logger.column("grad/network_norm") == pytest.approx({0: norm}, rel=1e-4)
    assert norm > 0.01


def test_a_network_that_never_steps_in_a_logged_batch_is_logged():
    trainer = fit(Two(discriminator_every=2), GradientClipping(), log_every_n_steps=2, max_epochs=2)
    assert set(trainer.logger.column("grad/discriminator_norm")) == {1, 3, 5, 7, 9, 11}
    assert set(trainer.logger.column("grad/generator_norm")) == {1, 3, 5, 7, 9, 11}


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

    trainer = fit(Own(), GradientClipping(norm=1.0), batches=pictures(1))
    row = trainer.logger.rows[0]
    assert row["grad/model_norm"] > 0 and "grad/model_first_layer" not in row
    assert row["grad/network_first_layer"] == row["grad/network_last_layer"] > 0


def test_layers_that_are_unfrozen_later_are_clipped_too():
    class Thawing(One):
        def configure_optimizers(self):
            return torch.optim.SGD(self.network[2].parameters(), lr=0.2)

        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 1:
                self.trainer.optimizers[0].add_param_group({"params": list(self.network[0].parameters())})

    trainer = fit(Thawing(), GradientClipping(norm=1e-4), batches=pictures(2))
    logged = trainer.logger.rows
    assert logged[0]["grad/network_first_layer"] == logged[0]["grad/network_last_layer"]
    assert logged[1]["grad/network_first_layer"] != logged[1]["grad/network_last_layer"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_skip_connections_do_for_the_first_layer_shows(seed):
    logged = {}
    for skip in ("concat", "none"):
        torch.manual_seed(seed)
        network = UNet(in_channels=1, out_channels=1, widths=[4] * 6, norm="none", skip=skip)
        row = fit(One(network), GradientClipping(), batches=pictures(1, 40, 33)).logger.rows[0]
        for where, kernel in (("first_layer", network.head.weight), ("last_layer", network.tail.weight)):
            assert row[f"grad/network_{where}"] == pytest.approx(kernel.grad.norm().item(), rel=1e-4)
        logged[skip] = row
    share = {skip: row["grad/network_first_layer"] / row["grad/network_norm"] for skip, row in logged.items()}
    assert share["concat"] > 5 * share["none"]
    assert logged["concat"]["grad/network_first_layer"] > 10 * logged["none"]["grad/network_first_layer"]


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
    gradients = [
        torch.randn(3, 5),
        torch.randn(7),
        torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    ]
    if bad is not None:
        gradients[1][2] = bad
    found = []
    for near in (True, False):
        monkeypatch.setattr(clipping, "is_near", lambda value, near=near: near)
        network = clipping._Network("one", next(iter(limit.values())), by_value="value" in limit)
        network.parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for parameter, gradient in zip(network.parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        network.look({})
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
        ({"norm": 0.0}, "gradient_clipping.norm must be above 0"),
        ({"value": -1.0}, "gradient_clipping.value must be above 0"),
        ({"norm": math.nan}, "gradient_clipping.norm must be above 0"),
        ({"networks": {"generator": 0.0}}, "gradient_clipping.networks.generator must be above 0"),
        ({"norm": 1.0, "value": 1.0}, "set one of them to null"),
    ],
)
def test_faulty_limits_are_told(options, message):
    with pytest.raises(UserError, match=message):
        GradientClipping(**options)


def test_an_unknown_network_is_told_with_those_there_are():
    with pytest.raises(UserError) as error:
        fit(Two(), GradientClipping(networks={"discriminater": 1.0}))
    assert "Did you mean 'discriminator'?" in str(error.value) and "generator" in str(error.value)


def test_clipping_twice_is_told_with_the_key():
    with pytest.raises(UserError, match=r"--trainer\.gradient_clip_val null"):
        fit(One(), GradientClipping(value=1.0), gradient_clip_val=0.5)


def test_beside_the_trainers_own_clipping_it_measures():
    model = One()
    trainer = fit(model, GradientClipping(), gradient_clip_val=0.5)
    network, norms = plain(pictures(), by_norm(0.5))
    same(model.network, network)
    assert trainer.logger.column("grad/network_norm") == pytest.approx(dict(enumerate(norms)), rel=1e-4)


def start(callback, model, strategy, optimizer, plugin=None):
    trainer = types.SimpleNamespace(strategy=strategy, optimizers=[optimizer], precision_plugin=plugin)
    callback.on_train_start(trainer, model)


def test_sharded_gradients_are_told_or_left_alone():
    model, callback = One(), GradientClipping()
    optimizer = model.configure_optimizers()
    with pytest.raises(UserError, match=r"FSDPStrategy.*\n.*--trainer.strategy ddp"):
        start(GradientClipping(norm=1.0), model, FSDPStrategy(), optimizer)
    start(callback, model, FSDPStrategy(), optimizer)
    callback.on_before_optimizer_step(None, model, optimizer)
    callback.on_train_batch_end(None, model)


def test_an_optimiser_that_unscales_by_itself_is_told():
    model = One()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    strategy = SingleDeviceStrategy("cpu")
    with pytest.raises(UserError, match="fused: false"):
        start(GradientClipping(norm=1.0), model, strategy, optimizer, scaled())
    start(GradientClipping(norm=1.0), model, strategy, optimizer, None)
    start(GradientClipping(norm=1.0), model, strategy, model.configure_optimizers(), scaled())


DISTRIBUTED = """
import lightning as L, torch
from torch import nn
from torch.utils.data import DataLoader
from project.callbacks import clipping
from workbench.callbacks.clipping import GradientClipping

class One(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(3, 2)
        nn.init.ones_(self.network.weight), nn.init.zeros_(self.network.bias)
    def training_step(self, batch, batch_idx):
        return self.network(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
    def on_train_end(self):
        torch.save(self.network.state_dict(), f"rank{self.global_rank}.pt")

if __name__ == "__main__":
    data = DataLoader(torch.arange(12.0).reshape(4, 3) / 12)
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=1, **quiet,
                        callbacks=[GradientClipping(norm=0.5)])
    trainer.fit(One(), data)
"""


@pytest.mark.slow
def test_all_processes_clip_the_averaged_gradient(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, check=True, timeout=300)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    # Lightning's sampler shuffles no data without a shuffling loader: rank 0 has rows 0 and 2, rank 1 rows 1 and 3.
    rows = torch.arange(12.0).reshape(4, 3) / 12
    weight, bias = torch.ones(2, 3, requires_grad=True), torch.zeros(2, requires_grad=True)
    for step in (0, 2):
        loss = (rows[step : step + 2] @ weight.T + bias).square().mean()
        gradients = torch.autograd.grad(loss, [weight, bias])
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert norm > 0.5
        with torch.no_grad():
            weight -= 0.1 * gradients[0] * 0.5 / norm
            bias -= 0.1 * gradients[1] * 0.5 / norm
    torch.testing.assert_close(ranks[0]["weight"], weight.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ranks[0]["bias"], bias.detach(), atol=1e-5, rtol=1e-4)
