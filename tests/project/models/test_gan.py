"""GANColorizer against plain PyTorch loops, written out here with losses of their own."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from project.models.alternation import frozen
from torch import nn

from project.models import GANColorizer, Hinge, LeastSquares, Standard, WassersteinGP
from project.networks import PatchGAN, UNet
from project.networks.space import Lab

SGD = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
SLOW = partial(torch.optim.SGD, lr=0.001)
WEIGHTS = {"adversarial_weight": 0.5, "reconstruction_weight": 3.0}


def networks(colors=3, seed=0, **options):
    torch.manual_seed(seed)
    generator = UNet(in_channels=5, out_channels=colors, width=4, depth=1, norm="none")
    discriminator = PatchGAN(5 + colors, **{"width": 4, "layers": 2, "norm": "none", **options})
    with torch.no_grad():
        for kernel in (p for p in discriminator.parameters() if p.ndim == 4):
            kernel.mul_(6)  # so that its say in the generator's loss is well above the tolerances
    return generator, discriminator


def with_statistics(generator, discriminator, data, answer=None):
    generator, discriminator = copy.deepcopy(generator), copy.deepcopy(discriminator)
    mean, std = data.normalization["input"]
    answer = data.normalization["target"] if answer is None else answer
    generator.normalize_input.set(mean, std)
    generator.normalize_output.set(*answer)
    discriminator.normalize_input.set(mean + answer[0], std + answer[1])
    return generator, discriminator


def bce(logits, label):
    share = torch.sigmoid(logits.double()).float()
    return -(label * share.log() + (1 - label) * (1 - share).log()).mean()


LOSSES = {  # ours, the discriminator's and the generator's written out
    "standard": (Standard(), lambda r, f: bce(r, 1) + bce(f, 0), lambda f: bce(f, 1)),
    "smoothed": (Standard(0.9), lambda r, f: bce(r, 0.9) + bce(f, 0), lambda f: bce(f, 1)),
    "least squares": (
        LeastSquares(),
        lambda r, f: 0.5 * ((r - 1) ** 2).mean() + 0.5 * (f**2).mean(),
        lambda f: 0.5 * ((f - 1) ** 2).mean(),
    ),
    "hinge": (
        Hinge(),
        lambda r, f: (1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean(),
        lambda f: -f.mean(),
    ),
    "wasserstein": (WassersteinGP(4.0), lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
}


def slope_penalty(discriminator, condition, real, fake, weight, seed):
    torch.manual_seed(seed)
    share = torch.rand(len(real), 1, 1, 1)
    between = (share * real + (1 - share) * fake).requires_grad_()
    logits = discriminator(torch.cat([condition, between], 1))
    total = torch.stack([picture.mean() for picture in logits]).sum()
    (slope,) = torch.autograd.grad(total, between, create_graph=True)
    lengths = torch.stack([picture.pow(2).sum().sqrt() for picture in slope])
    return weight * ((lengths - 1) ** 2).mean()


class Seeded(Callback):
    """So that what is drawn in a step does not depend on what was drawn before."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.manual_seed(trainer.global_step)


def plain_loop(
    generator,
    discriminator,
    data,
    epochs=2,
    loss="standard",
    generator_epochs=0,
    critic_epochs=0,
    generator_steps=1,
    matching=0.0,
    optimizer=SGD,
    reconstruct=nn.functional.l1_loss,
    encode=lambda rgb: rgb,
):
    """Forward; the discriminator's step; the generator's step. Nothing is frozen: what is not wanted is thrown away."""
    _, judge, please = LOSSES[loss]
    g_optimizer, d_optimizer = optimizer(generator.parameters()), optimizer(discriminator.parameters())
    losses = []
    step = 0
    for epoch in range(epochs):
        alone = epoch < generator_epochs
        critic = generator_epochs <= epoch < generator_epochs + critic_epochs
        for batch in data.batches:
            condition, real = batch.input, encode(batch.target)
            fake = generator(condition)
            if not alone and (critic or (step + 1) % generator_steps == 0):
                d_optimizer.zero_grad()
                r, f = (discriminator(torch.cat([condition, y], 1)) for y in (real, fake.detach()))
                d_loss = judge(r, f)
                if loss == "wasserstein":
                    d_loss = d_loss + slope_penalty(discriminator, condition, real, fake.detach(), 4.0, step)
                d_loss.backward()
                d_optimizer.step()
                losses.append(d_loss.item())
            if not critic:
                total = 3.0 * reconstruct(fake, real)
                if not alone:
                    *features, logits = discriminator.features(torch.cat([condition, fake], 1))
                    total = total + 0.5 * please(logits)
                    if matching:
                        *wanted, _ = discriminator.features(torch.cat([condition, real], 1))
                        distances = [(a - b.detach()).abs().mean() for a, b in zip(features, wanted, strict=True)]
                        total = total + matching * sum(distances) / len(distances)
                g_optimizer.zero_grad()
                total.backward()
                g_optimizer.step()
                losses.append(total.item())
            step += 1
    return losses


def same(model, generator, discriminator, **tolerance):
    tolerance = {"atol": 1e-5, "rtol": 1e-4, **tolerance}
    for ours, theirs in ((model.generator, generator), (model.discriminator, discriminator)):
        for (name, value), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(value, other, **tolerance, msg=lambda m, name=name: f"{name}: {m}")


def colorizer(generator, discriminator, **options):
    defaults = {"space": "rgb", "generator_optimizer": SGD, "discriminator_optimizer": SGD, **WEIGHTS}
    defaults["metrics"] = {}
    return GANColorizer(generator, discriminator, **{**defaults, **options})


def train(make_trainer, data, generator, discriminator, trainer=(), **options):
    model = colorizer(generator, discriminator, **options)
    fitted = make_trainer(**{"max_epochs": 2, "limit_val_batches": 0, "callbacks": [Seeded()], **dict(trainer)})
    fitted.fit(model, data)
    return model, fitted


CASES = {
    "standard": ({}, {}, {}),
    "smoothed": ({"loss": "smoothed"}, {}, {}),
    "least squares": ({"loss": "least squares"}, {}, {}),
    "hinge, spectral norm": ({"loss": "hinge"}, {"spectral_norm": True}, {}),
    "wasserstein": ({"loss": "wasserstein", "optimizer": SLOW}, {"norm": "instance"}, {}),
    "batch norm": ({}, {"norm": "batch"}, {}),
    "feature matching": ({"matching": 2.0}, {}, {"feature_matching_weight": 2.0}),
    "mean squared error": ({"reconstruct": nn.functional.mse_loss}, {}, {"reconstruction": nn.MSELoss()}),
    "two steps of the generator": ({"generator_steps": 2, "epochs": 3}, {}, {"generator_steps": 2}),
    "the generator alone": ({"generator_epochs": 9}, {}, {"generator_epochs": 9}),
    "the critic alone": ({"critic_epochs": 9}, {}, {"critic_epochs": 9}),
    "stages": (
        {"generator_epochs": 1, "critic_epochs": 1, "epochs": 4},
        {},
        {"generator_epochs": 1, "critic_epochs": 1},
    ),
    "stages, two steps": (
        {"generator_epochs": 1, "critic_epochs": 1, "epochs": 4, "generator_steps": 2},
        {},
        {"generator_epochs": 1, "critic_epochs": 1, "generator_steps": 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channels_last", [True, False])
def test_training_equals_a_plain_loop(make_trainer, color_data, case, channels_last):
    loop, kind, options = CASES[case]
    ours = networks(**kind)
    theirs = with_statistics(*ours, color_data)
    losses = plain_loop(*theirs, color_data, **loop)
    epochs = loop.get("epochs", 2)
    optimizer = loop.get("optimizer", SGD)
    options = {"generator_optimizer": optimizer, "discriminator_optimizer": optimizer, **options}
    options = {"adversarial": LOSSES[loop.get("loss", "standard")][0], "channels_last": channels_last, **options}
    model, trainer = train(make_trainer, color_data, *ours, trainer={"max_epochs": epochs}, **options)
    same(model, *theirs)
    assert trainer.global_step == epochs * len(color_data.batches)
    last = trainer.callback_metrics["train/discriminator" if "critic" in case else "train/loss"]
    assert last.item() == pytest.approx(losses[-1], abs=1e-4)


def test_training_equals_a_plain_loop_with_adam(make_trainer, color_data):
    adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999))
    ours = networks()
    theirs = with_statistics(*ours, color_data)
    plain_loop(*theirs, color_data, optimizer=adam)
    model, _ = train(make_trainer, color_data, *ours, generator_optimizer=adam, discriminator_optimizer=adam)
    same(model, *theirs, atol=1e-4)


def test_the_colors_of_lab_are_compared_and_judged_as_they_are_predicted(make_trainer, color_data):
    ours = networks(colors=2)
    theirs = with_statistics(*ours, color_data, answer=([0.0, 0.0], [0.15, 0.15]))
    plain_loop(*theirs, color_data, encode=Lab().encode)
    model, _ = train(make_trainer, color_data, *ours, space="lab")
    same(model, *theirs)


def test_without_a_discriminator_it_is_plain_regression(make_trainer, color_data):
    ours = networks()
    theirs = with_statistics(*ours, color_data)
    plain_loop(*theirs, color_data, generator_epochs=9)
    model = colorizer(ours[0], None)
    trainer = make_trainer(max_epochs=2, limit_val_batches=0)
    trainer.fit(model, color_data)
    for value, other in zip(model.generator.state_dict().values(), theirs[0].state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-5, rtol=1e-4)
    assert set(trainer.callback_metrics) == {"train/loss", "train/reconstruction"}
    assert not any(name.startswith("discriminator") for name in model.state_dict())


def test_the_perceptual_loss_compares_pictures(make_trainer, color_data):
    class Squares(nn.Module):
        def forward(self, output, target):
            assert output.shape == target.shape == (3, 3, 13, 22)
            return (output - target).square().mean()

    ours = networks(colors=2)
    model, trainer = train(
        make_trainer,
        color_data,
        *ours,
        space="lab",
        perceptual=Squares(),
        perceptual_weight=7.0,
        generator_optimizer=partial(torch.optim.SGD, lr=0.0),
        discriminator_optimizer=partial(torch.optim.SGD, lr=0.0),
    )
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    batch = color_data.batches[-1]
    assert logged["train/perceptual"] == pytest.approx(
        (model(batch.input) - batch.target).square().mean().item(), rel=1e-4
    )
    parts = 3.0 * logged["train/reconstruction"] + 0.5 * logged["train/adversarial"] + 7.0 * logged["train/perceptual"]
    assert logged["train/loss"] == pytest.approx(parts, rel=1e-5)


# Who learns from what


class Watch(Callback):
    """What gradients there are when a network is about to step, and after the batch."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append((trainer.optimizers.index(optimizer), *self.gradients(pl_module)))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.seen.append((None, *self.gradients(pl_module)))
        assert all(p.requires_grad for p in pl_module.parameters())

    def gradients(self, model):
        for network in (model.generator, model.discriminator):
            found = [p.grad for p in network.parameters()]
            assert len({gradient is None for gradient in found}) == 1
            yield None if found[0] is None else torch.cat([gradient.flatten() for gradient in found]).clone()


def test_no_step_leaves_gradients_in_the_other_network(make_trainer, color_data):
    watch = Watch()
    train(
        make_trainer,
        color_data,
        *networks(),
        trainer={"max_steps": 2, "callbacks": [watch]},
        feature_matching_weight=1.0,
    )
    assert [who for who, *_ in watch.seen] == [1, 0, None] * 2
    d_step, g_step, end = watch.seen[:3]
    assert d_step[1] is None and d_step[2] is not None  # the first: the generator has none yet
    assert g_step[1] is not None and torch.equal(g_step[2], d_step[2])
    assert torch.equal(end[1], g_step[1]) and torch.equal(end[2], d_step[2])
    assert torch.equal(watch.seen[3][1], g_step[1])  # the next discriminator's step leaves the generator's alone


def test_frozen_gives_back_what_was_trained_also_after_an_error():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    with pytest.raises(ZeroDivisionError), frozen(network):
        assert not any(p.requires_grad for p in network.parameters())
        x = torch.rand(1, 2, requires_grad=True)
        network(x).sum().backward()
        assert x.grad is not None and all(p.grad is None for p in network.parameters())
        raise ZeroDivisionError
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]


def test_what_is_logged(make_trainer, color_data):
    _, trainer = train(
        make_trainer, color_data, *networks(norm="instance"), adversarial=WassersteinGP(), feature_matching_weight=1.0
    )
    names = {"loss", "reconstruction", "adversarial", "feature_matching", "discriminator", "gradient_penalty"}
    assert set(trainer.callback_metrics) == {f"train/{n}" for n in (*names, "score_real", "score_fake")}
    _, trainer = train(make_trainer, color_data, *networks(), critic_epochs=2)
    assert set(trainer.callback_metrics) == {"train/discriminator", "train/score_real", "train/score_fake"}


def test_logs_are_written_at_the_steps_that_lightning_writes_and_callbacks_get_every_batch(
    make_trainer, color_data, tmp_path
):
    class Record(Callback):
        def __init__(self):
            self.fake = []

        def on_train_batch_end(self, trainer, pl_module, outputs, *_):
            assert not any(value.requires_grad for value in outputs.values())
            self.fake.append((outputs["loss"].item(), outputs["score_fake"].item()))

    record, logger = Record(), CSVLogger(tmp_path)
    trainer = {"callbacks": [record], "logger": logger, "log_every_n_steps": 2, "max_epochs": 3}
    train(make_trainer, color_data, *networks(), trainer=trainer)
    logger.save()
    rows = np.genfromtxt(tmp_path / "lightning_logs" / "version_0" / "metrics.csv", delimiter=",", names=True)
    assert rows["step"].tolist() == [1, 3, 5, 7]
    written = list(zip(rows["trainloss"].tolist(), rows["trainscore_fake"].tolist(), strict=True))
    assert len(record.fake) == 9
    assert written == [pytest.approx(pair) for pair in record.fake[1::2]]


def test_scores_are_the_discriminators_mean_logits(make_trainer, color_data):
    ours = networks()
    color_data.batches = color_data.batches[:1]
    generator, discriminator = with_statistics(*ours, color_data)
    _, trainer = train(make_trainer, color_data, *ours, trainer={"max_epochs": 1})
    batch = color_data.batches[0]
    for name, colors in (("real", batch.target), ("fake", generator(batch.input))):
        expected = discriminator(torch.cat([batch.input, colors], 1)).mean().item()
        assert trainer.callback_metrics[f"train/score_{name}"].item() == pytest.approx(expected, abs=1e-6)


# Lower precision


class Types(Standard):
    """Which types the losses see."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def discriminator(self, real, fake):
        self.seen |= {real.dtype, fake.dtype}
        return super().discriminator(real, fake)

    def generator(self, fake):
        self.seen.add(fake.dtype)
        return super().generator(fake)


def mixed_loop(generator, discriminator, data, dtype, scaler, epochs=2):
    g_optimizer, d_optimizer = SGD(generator.parameters()), SGD(discriminator.parameters())
    for batch in data.batches * epochs:
        with torch.autocast("cpu", dtype, cache_enabled=False):
            fake = generator(batch.input).float()
            r, f = (discriminator(torch.cat([batch.input, y], 1)).float() for y in (batch.target, fake.detach()))
        d_loss = ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2
        d_optimizer.zero_grad()
        scaler.scale(d_loss).backward()
        scaler.step(d_optimizer)
        scaler.update()
        with torch.autocast("cpu", dtype, cache_enabled=False):
            logits = discriminator(torch.cat([batch.input, fake], 1)).float()
        total = 3 * (fake - batch.target).abs().mean() + 0.5 * ((logits - 1) ** 2).mean() / 2
        g_optimizer.zero_grad()
        scaler.scale(total).backward()
        scaler.step(g_optimizer)
        scaler.update()


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_equals_a_plain_loop(make_trainer, color_data, precision):
    half = precision == "16-mixed"
    scaler = torch.amp.GradScaler("cpu", enabled=half, init_scale=1024.0, growth_interval=3)
    ours = networks()
    theirs = with_statistics(*ours, color_data)
    mixed_loop(*theirs, color_data, torch.float16 if half else torch.bfloat16, scaler)
    own = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) if half else None
    plugin = MixedPrecision(precision, "cpu", own)
    model, trainer = train(
        make_trainer, color_data, *ours, trainer={"plugins": [plugin]}, adversarial=LeastSquares(), channels_last=False
    )
    same(model, *theirs, atol=1e-4, rtol=1e-3)
    assert trainer.global_step == 6
    if half:
        assert own.get_scale() == scaler.get_scale() > 1024


def test_losses_are_float32_under_autocast(make_trainer, color_data):
    types = Types()
    _, trainer = train(
        make_trainer, color_data, *networks(), trainer={"precision": "bf16-mixed"}, adversarial=types,
        feature_matching_weight=1.0,
    )  # fmt: skip
    assert types.seen == {torch.float32}
    assert {value.dtype for value in trainer.callback_metrics.values()} == {torch.float32}


def test_the_gradient_penalty_is_float32_under_autocast(make_trainer, color_data):
    class Critic(PatchGAN):
        def forward(self, x):
            logits = super().forward(x)
            self.seen.append(logits.dtype)
            return logits

    generator, _ = networks()
    critic = Critic(8, width=4, layers=2, norm="none")
    critic.seen = []
    train(
        make_trainer,
        color_data,
        generator,
        critic,
        trainer={"precision": "bf16-mixed", "max_steps": 1},
        adversarial=WassersteinGP(),
    )
    half, full = torch.bfloat16, torch.float32
    assert critic.seen == [half, half, full, half]  # real, fake, penalty; the generator's step
