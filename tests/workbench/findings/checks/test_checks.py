"""Faults of batches, weights, wiring and learning, planted one by one; and models with nothing wrong."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from project.data.loader import ResumableLoader, TrainingSampler
from project.data.pairs import GaussianNoise
from project.models import GANColorizer, ImageRestorer
from project.models.finetune import FineTuning
from project.models.losses import Charbonnier, Hinge, LeastSquares, PSNRLoss, WassersteinGP
from project.networks import UNet
from project.networks.normalize import Normalize, Normalized


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def convolutions(*last):
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 3), *last)


def zero(layer):
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Wired(nn.Module):
    """Normalization, three convolutions, and a residual; each step may be replaced by another."""

    def __init__(self, **steps) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False, momentum=0.5)
        self.one, self.two, self.three = conv(3, 8), conv(8, 8), conv(8, 3)
        self.steps = {"before": same, "within": F.relu, "after": F.relu, "last": same, "add": torch.add} | steps

    def forward(self, x):
        h = self.one(self.steps["before"](self.norm(x)))
        h = self.steps["after"](self.two(self.steps["within"](h)))
        return self.steps["add"](x, self.steps["last"](self.three(h)))


def same(h):
    return h


def alone(x, y):
    return y


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def block():
    return Residual(conv(8, 8), nn.ReLU(), zero(conv(8, 8)))


class Blind(nn.Sequential):
    """A network that sees only some channels of what it is given."""

    def forward(self, x):
        kept = torch.zeros_like(x)
        kept[:, self.channels] = x[:, self.channels]
        return super().forward(kept)


class Deaf(nn.Sequential):
    """A network whose output its weights do not move."""

    def forward(self, x):
        return super().forward(x).detach() + 0 * sum(p.sum() for p in self.parameters())


class Listed(nn.Module):
    """One of its layers is where torch does not find it, or is made by the first pass."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        self.norm, self.head, self.tail = nn.BatchNorm2d(3), conv(3, 8), conv(8, 3)
        middle, gain = conv(8, 8), torch.ones(1, 8, 1, 1, requires_grad=True)
        self.kept = {"list": [middle], "dict": {"one": middle}, "tensor": gain, "late": None}[kept]

    def forward(self, x):
        h = self.head(self.norm(x)).relu()
        if self.kept is None:
            self.kept = conv(8, 8)
        if isinstance(self.kept, torch.Tensor):
            return x + self.tail(h * self.kept)
        middle = self.kept["one"] if isinstance(self.kept, dict) else self.kept
        middle = middle[0] if isinstance(middle, list) else middle
        return x + self.tail(middle(h).relu())


class Summed(nn.Module):
    def forward(self, output, target):
        return (output - target).abs().flatten(1).mean(1).sum()


class Unmoved(ImageRestorer):
    """Its optimizer holds everything and never steps."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer_closure()
        self.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.increment_completed()


class Swapped(GANColorizer):
    def discriminator_step(self, condition, real, fake, counts):
        return super().discriminator_step(condition, fake, real, counts)


def with_step(step):
    """A model with another ``training_step``."""
    return type("Stepping", (ImageRestorer,), {"training_step": step})


def unet(kit, change, **options):
    """A UNet that a function has changed."""
    network = kit.small_unet(**options)
    with torch.no_grad():
        change(network)
    return network


def scaled(factors):
    return lambda network: [network.get_submodule(name).weight.mul_(factor) for name, factor in factors.items()]


def trained(wanted):
    return lambda network: [p.requires_grad_(wanted(name)) for name, p in network.named_parameters()]


def without_statistics(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None


def optimizing(model, part):
    """Its optimizer, or the first of several, holds no more than a part."""
    configure = model.configure_optimizers
    model.configure_optimizers = lambda: torch.optim.Adam(part.parameters()) if part else configure()[:1]
    return model


def changed_critic(kit, change):
    critic = kit.critic()
    change(critic.blocks)
    return kit.colorizer(discriminator=critic)


def blind(kit, network, first):
    at = {"generator": 1, "discriminator": 5}[network]  # behind the lines, behind the condition
    inner = UNet(in_channels=5, widths=[8, 12]) if network == "generator" else kit.critic()
    seeing = Blind(inner)
    seeing.channels = slice(0, at) if first else slice(at, None)
    return kit.colorizer(**{network: seeing})


def without_red(x, y):
    x = x.clone()
    x[:, 0] = 0.25
    return x, y


def same_noise(x, y):
    return y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(3)), y


BATCHES = {
    "input-nonfinite": {
        "hole": lambda x, y: (x.masked_fill(x > 0.9, float("nan")), y),
        "logarithm": lambda x, y: (torch.log(x), y),
        "division": lambda x, y: (x, y / (y > 0.1)),
    },
    "input-range": {
        "both-255": lambda x, y: (x * 255, y * 255),
        "input-255": lambda x, y: (x * 255, y),
        "twice": lambda x, y: (x / 255, y / 255),
        "target-twice": lambda x, y: (x, y / 255),
        "signed": lambda x, y: (x * 2 - 1, y * 2 - 1),
    },
    "input-constant": {"channel": without_red, "target": lambda x, y: (x, torch.full_like(y, 0.5))},
    "batch-repeated": {"noise": same_noise},
}
STARTS = {
    "constant": lambda w: nn.init.constant_(w, 0.02),
    "zero": nn.init.zeros_,
    "same-units": lambda w: w.data.copy_(w.data[:1].expand_as(w)),
    "ones": nn.init.ones_,
}
FIRST = "encoder.0.0.body.0"
LAST = {"sigmoid": nn.Sigmoid(), "relu": nn.ReLU(), "tanh": nn.Tanh()}
Multiplied = with_step(lambda self, batch, n: ImageRestorer.training_step(self, batch, n) * len(batch.input))
CANNOT_LEARN = {
    "Detached": with_step(lambda self, batch, n: self.loss(self(batch.input).detach(), batch.target).requires_grad_()),
    "Elsewhere": with_step(lambda self, batch, n: self.loss(self(batch.input), torch.rand_like(batch.target))),
    "Upwards": with_step(lambda self, batch, n: -ImageRestorer.training_step(self, batch, n)),
    "Unmoved": Unmoved,
}
NETWORKS = {
    "input-not-centred": {
        "none": lambda kit: Residual(nn.Identity(), *convolutions()),
        "spread": lambda kit: Residual(Normalize(3, 0.5, 0.01), *convolutions()),
        "mean": lambda kit: Residual(Normalize(3, 3.0, 0.25), *convolutions()),
    },
    "weights-constant": {
        **{
            name: lambda kit, start=start: unet(kit, lambda network: start(network.get_submodule(FIRST).weight))
            for name, start in STARTS.items()
        },
        "discriminator": lambda kit: changed_critic(kit, lambda blocks: nn.init.constant_(blocks[1][0].weight, 0.02)),
    },
    "weights-scale": {
        f"{name}-{factor}": lambda kit, name=name, factor=factor: unet(kit, scaled({name: factor}))
        for name in (FIRST, "up.0", "down.0")
        for factor in (30.0, 0.01)
    },
    "frozen-parameters": {
        "middle": lambda kit: unet(kit, trained(lambda name: "middle" not in name)),
        "all but the tail": lambda kit: unet(kit, trained(lambda name: "tail" in name)),
        "discriminator": lambda kit: changed_critic(kit, lambda blocks: blocks[0].requires_grad_(False)),
    },
    "parameters-not-optimized": {
        **{kept: lambda kit, kept=kept: Listed(kept) for kept in ("list", "dict", "tensor", "late")},
        "restorer": lambda kit: optimizing(model := kit.restorer(), model.network.encoder),
        "gan": lambda kit: optimizing(kit.colorizer(), None),
    },
    "eval-not-deterministic": {
        "dropped": lambda kit: Wired(after=lambda h: F.dropout(h.relu(), 0.1)),
        "noisy": lambda kit: Wired(last=lambda y: y + 0.01 * torch.randn_like(y)),
    },
    "input-ignored": {
        "overwritten": lambda kit: Wired(before=torch.ones_like, add=alone),
        "added alone": lambda kit: Wired(before=torch.zeros_like),
        "first channel alone": lambda kit: Wired(before=lambda h: torch.cat([h[:, :1]] * 3, 1), add=alone),
        **{
            f"{first}-{network}": lambda kit, first=first, network=network: blind(kit, network, first)
            for first in (True, False)
            for network in ("generator", "discriminator")
        },
    },
    "batch-mixing": {
        "batch mean": lambda kit: Wired(within=lambda h: h.relu() - h.relu().mean(0)),
        "reshaped": lambda kit: Wired(before=lambda h: h.transpose(0, 1).reshape(h.shape)),
        "batch statistics": lambda kit: Wired(within=lambda h: F.batch_norm(h, None, None, training=True).relu()),
        "norm in training mode": lambda kit: unet(kit, without_statistics, norm="batch"),
    },
    "missing-nonlinearity": {
        "two linear": lambda kit: Wired(within=same),
        "all linear": lambda kit: Wired(within=same, after=same),
        "one block": lambda kit: unet(
            kit, lambda network: setattr(network.decoder[0][0].body, "2", nn.Identity()), norm="group"
        ),
    },
    "output-range": {
        "squashed": lambda kit: Wired(last=lambda y: y.tanh() * 0.3, add=alone),
        "cut": lambda kit: Wired(last=lambda y: y.clamp(0.3, 0.6), add=alone),
        **{name: lambda kit, last=last: Normalized(convolutions(last)) for name, last in LAST.items()},
        "colors end too soon": lambda kit: kit.colorizer(
            generator=nn.Sequential(UNet(in_channels=5, widths=[8, 12]), nn.Sigmoid(), nn.Hardtanh(0.0, 0.5))
        ),
    },
    "loss-not-mean": {
        "mse": lambda kit: kit.restorer(loss=nn.MSELoss(reduction="sum")),
        "own": lambda kit: kit.restorer(loss=Summed()),
        "step": lambda kit: Multiplied(kit.small_unet()),
        "gan sum": lambda kit: kit.colorizer(reconstruction=nn.L1Loss(reduction="sum")),
    },
    "initial-loss": {
        "bias": lambda kit: unet(kit, lambda network: network.tail.bias.fill_(12.0), residual=False),
        # 7 times what the fan-in asks for: not yet a fault of scale
        "tail": lambda kit: unet(kit, scaled({"tail": 70, "head": 6}), residual=False),
    },
    "cannot-overfit": {
        **{name: lambda kit, kind=kind: kind(kit.small_unet(norm="batch")) for name, kind in CANNOT_LEARN.items()},
        "Deaf": lambda kit: Deaf(kit.small_unet()),
        "swapped": lambda kit: kit.colorizer(Swapped),
        "deaf": lambda kit: kit.colorizer(discriminator=Deaf(kit.critic())),
    },
}
WHERE = {
    **dict.fromkeys(STARTS, f"network.{FIRST}"),
    **{f"{name}-{factor}": name for name in (FIRST, "up.0", "down.0") for factor in (30.0, 0.01)},
    **{f"{first}-{network}": network for first in (True, False) for network in ("generator", "discriminator")},
    **{"restorer": "network.head", "gan": "discriminator", "one block": "decoder.0"},
    **dict.fromkeys(("swapped", "deaf"), "discriminator"),
}
"""What the finding has to name."""


def cases(table):
    return [pytest.param(code, case, id=name) for code, found in table.items() for name, case in found.items()]


@pytest.mark.planted
@pytest.mark.parametrize(("code", "change"), cases(BATCHES))
def test_spoilt_batches(look, code, change):
    assert look(change=change).faults == [code]


@pytest.mark.planted
@pytest.mark.parametrize(("code", "make"), cases(NETWORKS))
def test_a_network_or_model(look, kit, request, code, make):
    name = request.node.callspec.id
    steps = 120 if name in ("swapped", "deaf") else 40
    found = look(make(kit), overfit=steps if code == "cannot-overfit" else 0)
    assert found.faults == [code]
    assert WHERE.get(name, "") in found.of(code).where


@pytest.mark.planted("input-not-centred")
def test_the_range_zero_one_is_not_centered(look):
    assert look(input_range="zero_one").faults == ["input-not-centred"]


EPOCHS, PASSES = TrainingSampler.__iter__, ResumableLoader.__iter__
AGAIN = {
    "epoch": (TrainingSampler, "set_epoch", lambda self, epoch: None),
    "order": (TrainingSampler, "__iter__", lambda self: iter(sorted(EPOCHS(self)))),  # with other crops
    "batch": (ResumableLoader, "__iter__", lambda self: itertools.repeat(next(PASSES(self)), 5)),
}


@pytest.mark.planted("batch-repeated")
@pytest.mark.parametrize("how", AGAIN)
def test_batches_that_come_again(look, monkeypatch, how):
    monkeypatch.setattr(*AGAIN[how])
    assert look().faults == ["batch-repeated"]


UNETS = [
    *({"activation": name} for name in ("leaky_relu", "prelu", "silu", "gelu", "elu", "selu", "mish", "hardswish")),
    *({"activation": name, "norm": "batch"} for name in ("softplus", "tanh", "sigmoid")),
    *({"norm": name} for name in ("batch", "group", "layer", "instance", "none")),
    *({"down": name} for name in ("strided", "max", "average")),
    *({"up": name} for name in ("transposed", "bilinear", "pixel_shuffle")),
    *({"skip": name} for name in ("concat", "add", "none")),
    *({"init": name} for name in ("kaiming", "xavier", "orthogonal")),
    {"stage_residual": True, "last_activation": False, "convs": 3},
    {"stage_residual": False, "last_activation": False, "convs": 3},
    {"residual": False},
    {"residual": False, "stem": 2, "norm": "batch"},
    {"dropout": 0.2},
    {"widths": [6]},
    {"widths": [6, 8, 12, 16], "convs": 3, "kernel_size": 5},
]


WELL_MADE = {
    **{
        "-".join(f"{key}={value}" for key, value in options.items()): lambda kit, options=options: kit.small_unet(
            **options
        )
        for options in UNETS
    },
    **{
        f"{spectral}-{norm}": lambda kit, norm=norm, spectral=spectral: kit.colorizer(
            discriminator=kit.critic(norm=norm, spectral_norm=spectral)
        )
        for norm in ("batch", "group", "layer", "instance", "none")
        for spectral in (False, True)
    },
    **{
        type(loss).__name__: lambda kit, loss=loss: kit.restorer(loss=loss, l1=1e-4)
        for loss in (nn.MSELoss(), Charbonnier(), PSNRLoss(), nn.SmoothL1Loss())
    },
    "layers at zero": lambda kit: nn.Sequential(nn.BatchNorm2d(3), conv(3, 8), block(), block(), zero(conv(8, 3))),
    "tail at zero": lambda kit: unet(kit, lambda network: nn.init.zeros_(network.tail.weight)),
    "wired": lambda kit: Wired(),
    "covers all colors": lambda kit: nn.Sequential(Normalize(3, 0.45, 0.25), *convolutions(nn.Sigmoid())),
}


@pytest.mark.healthy
@pytest.mark.parametrize("name", WELL_MADE)
def test_models_made_well(look, kit, name):
    assert look(WELL_MADE[name](kit)).faults == []


CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=2e-3)
HEALTHY = {
    "plain": lambda kit: kit.restorer(),
    "decayed": lambda kit: kit.restorer(optimizer=partial(torch.optim.AdamW, lr=2e-3, weight_decay=30.0)),
    "penalized": lambda kit: kit.restorer(l2=10.0),
    "dropout": lambda kit: kit.restorer(kit.small_unet(dropout=0.5)),
    "direct": lambda kit: kit.restorer(kit.small_unet(residual=False, norm="batch"), loss=nn.MSELoss()),
    "scheduled": lambda kit: kit.restorer(scheduler=CYCLE),
    "gan": lambda kit: kit.colorizer(),
    "gan-alone": lambda kit: kit.colorizer(discriminator=None),
    "gan-stages": lambda kit: kit.colorizer(generator_epochs=2, critic_epochs=1),
    "gan-scheduled": lambda kit: kit.colorizer(generator_scheduler=CYCLE),
    **{
        f"gan-{name}": lambda kit, loss=loss: kit.colorizer(
            discriminator=kit.critic(norm="instance"), adversarial=loss()
        )
        for name, loss in {"hinge": Hinge, "squares": LeastSquares, "wasserstein": WassersteinGP}.items()
    },
}


@pytest.mark.healthy
@pytest.mark.parametrize("kind", HEALTHY)
def test_models_that_can_learn(look, kit, kind):
    found = look(HEALTHY[kind](kit), overfit=120)
    assert found.faults == []
    assert "cannot-overfit" not in found.notes


@pytest.mark.healthy
@pytest.mark.parametrize(
    "data",
    [
        *(
            {"change": lambda x, y: (x, y), "noise": sigma} for sigma in (0.0, 10.0, 75.0)
        ),  # not clipped: no other range
        {"input_range": "minus_one_one"},  # a choice
        *({"batch_size": 1}, {"batch_size": 20, "crop": 41}, {"crops_per_image": 8}),  # few and small, not repeated
    ],
)
def test_batches_that_only_look_odd(look, data):
    assert look(**data).faults == []


@pytest.mark.healthy
def test_noise_maps_and_stacked_pixels_are_not_taken_for_the_image(look, kit):
    assert look(kit.small_unet(in_channels=4, stem=2), pairs=GaussianNoise(150, noise_map=True)).faults == []


@pytest.mark.parametrize(
    "optimizer",
    [partial(torch.optim.SGD, lr=1e-6), partial(torch.optim.Adam, lr=1e-7), partial(torch.optim.Adam, lr=3.0)],
    ids=["sgd", "low", "high"],
)
def test_a_rate_that_is_far_off_is_a_note(look, kit, optimizer):
    found = look(kit.restorer(optimizer=optimizer), overfit=120)
    assert found.faults == [] and "cannot-overfit" in found.notes


@pytest.mark.parametrize("how", ["argument", "list"])
def test_a_freeze_that_is_declared(kit, make_data, how):
    network = unet(kit, lambda network: network.encoder.requires_grad_(False))
    model = kit.restorer(network)
    model.hparams.pop("init_from")  # or it is known that its weights are untrained
    if how == "list":
        network.declared_frozen = ["enc", "encoder"]
    context = kit.context_of(model, make_data())
    context.config = {"model": {"init_args": {"network": {"freeze_encoder": how == "argument"}}}}
    assert kit.check(context).faults == []
    network.down.requires_grad_(False)  # a list declares no more than what it names
    assert kit.check(context).faults == ([] if how == "argument" else ["frozen-parameters"])


@pytest.mark.parametrize("init_from", [None, "weights.ckpt"])
def test_fine_tuning_declares_what_it_freezes(look, kit, init_from):
    start = kit.small_unet()
    torch.save({f"network.{name}": value for name, value in start.named_parameters()}, "weights.ckpt")
    model = kit.restorer(start, finetune=FineTuning(freeze_stages=1), init_from=init_from)
    assert model.declared_frozen == ["network.head", "network.encoder.0", "network.down.0", "network.middle"]
    assert look(model).faults == ([] if init_from else ["frozen-parameters"])


def test_the_checks_leave_the_model_as_it_was(kit, make_data):
    context = kit.context_of(kit.restorer(kit.small_unet(norm="batch")), make_data())
    before = {name: value.clone() for name, value in context.model.state_dict().items()}
    kit.check(context, overfit=True)
    assert all(torch.equal(value, before[name]) for name, value in context.model.state_dict().items())
