"""GANColorizer against plain PyTorch loops, written out here with losses of their own; and what it refuses."""

import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from skimage import color
from torch import nn

from project.models import GANColorizer, Hinge, LeastSquares, Standard, WassersteinGP
from project.models.gan import Lab
from project.networks import Normalized, PatchGAN, UNet
from workbench.errors import UserError

SGD = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
SLOW = partial(torch.optim.SGD, lr=0.001)
STILL = partial(torch.optim.SGD, lr=0.0)
# The large eps keeps Adam from enlarging the last bits, which differ by processor.
ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999), eps=1e-2)


def networks(colors=3, seed=0, **options):
    torch.manual_seed(seed)
    generator = UNet(in_channels=5, out_channels=colors, widths=[4, 8], norm="none")
    discriminator = PatchGAN(5 + colors, **{"width": 4, "layers": 2, "norm": "none", **options})
    with torch.no_grad():
        for kernel in (p for p in discriminator.parameters() if p.ndim == 4):
            kernel.mul_(6)  # so that its share of the generator's loss is well above the tolerances
    return generator, discriminator


def with_statistics(generator, discriminator, data, colors=None):
    generator, discriminator = copy.deepcopy(generator), copy.deepcopy(discriminator)
    mean, std = data.normalization["input"]
    colors = data.normalization["target"] if colors is None else colors
    generator.normalize_input.set(mean, std)
    generator.normalize_output.set(*colors)
    discriminator.normalize_input.set(mean + colors[0], std + colors[1])
    return generator, discriminator


def bce(logits, label):
    share = torch.sigmoid(logits.double()).float()
    return -(label * share.log() + (1 - label) * (1 - share).log()).mean()


LOSSES = {  # ours, the discriminator's and the generator's written out
    "standard": (Standard(), lambda r, f: bce(r, 1) + bce(f, 0), lambda f: bce(f, 1)),
    "smoothed": (Standard(0.9), lambda r, f: bce(r, 0.9) + bce(f, 0), lambda f: bce(f, 1)),
    "least squares": (LeastSquares(), lambda r, f: 0.5 * ((r - 1) ** 2).mean() + 0.5 * (f**2).mean(),
                      lambda f: 0.5 * ((f - 1) ** 2).mean()),
    "hinge": (Hinge(), lambda r, f: (1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean(), lambda f: -f.mean()),
    "wasserstein": (WassersteinGP(4.0), lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
}  # fmt: skip


def slope_penalty(discriminator, condition, real, fake, weight, seed):
    torch.manual_seed(seed)
    share = torch.rand(len(real), 1, 1, 1)
    between = (share * real + (1 - share) * fake).requires_grad_()
    logits = discriminator(torch.cat([condition, between], 1))
    total = torch.stack([image.mean() for image in logits]).sum()
    (slope,) = torch.autograd.grad(total, between, create_graph=True)
    lengths = torch.stack([image.pow(2).sum().sqrt() for image in slope])
    return weight * ((lengths - 1) ** 2).mean()


# So that what is drawn in a step does not depend on what was drawn before.
SEEDED = LambdaCallback(on_train_batch_start=lambda trainer, *_: torch.manual_seed(trainer.global_step))


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
    dtype=None,
    scaler=None,
):
    """Forward; the discriminator's step; the generator's step. Nothing is frozen: gradients not wanted are dropped."""
    _, discriminate, please = LOSSES[loss]
    g_optimizer, d_optimizer = optimizer(generator.parameters()), optimizer(discriminator.parameters())
    losses, scores = [], {}
    step = 0
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)

    def run(function, *given):
        with torch.autocast("cpu", dtype, enabled=dtype is not None, cache_enabled=False):
            found = function(torch.cat(given, 1))
        return [one.float() for one in found] if isinstance(found, list) else found.float()

    for epoch in range(epochs):
        alone = epoch < generator_epochs
        critic = generator_epochs <= epoch < generator_epochs + critic_epochs
        for batch in data.batches:
            condition, real = batch.input, encode(batch.target)
            fake = run(generator, condition)
            if not alone and (critic or (step + 1) % generator_steps == 0):
                d_optimizer.zero_grad()
                r, f = (run(discriminator, condition, y) for y in (real, fake.detach()))
                d_loss = discriminate(r, f)
                scores = {"train/score_real": r.mean().item(), "train/score_fake": f.mean().item()}
                if loss == "wasserstein":
                    d_loss = d_loss + slope_penalty(discriminator, condition, real, fake.detach(), 4.0, step)
                scaler.scale(d_loss).backward()
                scaler.step(d_optimizer)
                scaler.update()
                losses.append(d_loss.item())
            if not critic:
                total = 3.0 * reconstruct(fake, real)
                if not alone:
                    *features, logits = run(discriminator.features, condition, fake)
                    total = total + 0.5 * please(logits)
                    if matching:
                        *wanted, _ = run(discriminator.features, condition, real)
                        distances = [(a - b.detach()).abs().mean() for a, b in zip(features, wanted, strict=True)]
                        total = total + matching * sum(distances) / len(distances)
                g_optimizer.zero_grad()
                scaler.scale(total).backward()
                scaler.step(g_optimizer)
                scaler.update()
                losses.append(total.item())
            step += 1
    return losses, scores


def same(model, generator, discriminator, **tolerance):
    tolerance = {"atol": 1e-5, "rtol": 1e-4, **tolerance}
    for ours, theirs in ((model.generator, generator), (model.discriminator, discriminator)):
        for (name, value), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(value, other, **tolerance, msg=lambda m, name=name: f"{name}: {m}")


def train(make_trainer, data, generator, discriminator, trainer=(), **options):
    defaults = {"space": "rgb", "generator_optimizer": SGD, "discriminator_optimizer": SGD, "metrics": {}}
    defaults |= {"adversarial_weight": 0.5, "reconstruction_weight": 3.0}
    model = GANColorizer(generator, discriminator, **{**defaults, **options})
    fitted = make_trainer(**{"max_epochs": 2, "limit_val_batches": 0, "callbacks": [SEEDED], **dict(trainer)})
    fitted.fit(model, data)
    return model, fitted


PHASES = {"generator_epochs": 1, "critic_epochs": 1}
CASES = {  # the plain loop's arguments, the discriminator's, the model's
    "standard": ({}, {}, {"channels_last": False}),
    "adam": ({"optimizer": ADAM}, {}, {}),
    "smoothed": ({"loss": "smoothed"}, {}, {}),
    "least squares": ({"loss": "least squares"}, {}, {}),
    "hinge, spectral norm": ({"loss": "hinge"}, {"spectral_norm": True}, {}),
    "wasserstein": ({"loss": "wasserstein", "optimizer": SLOW}, {"norm": "instance"}, {}),
    "batch norm": ({}, {"norm": "batch"}, {}),
    "feature matching": ({"matching": 2.0}, {}, {"feature_matching_weight": 2.0}),
    "mean squared error": ({"reconstruct": nn.functional.mse_loss}, {}, {"reconstruction": nn.MSELoss()}),
    "two steps of the generator": ({"generator_steps": 2}, {}, {"generator_steps": 2}),
    "the generator alone": ({"generator_epochs": 9}, {}, {"generator_epochs": 9}),
    "the critic alone": ({"critic_epochs": 9}, {}, {"critic_epochs": 9}),
    "phases": ({**PHASES, "epochs": 4}, {}, PHASES),
    "phases, two steps": ({**PHASES, "epochs": 4, "generator_steps": 2}, {}, {**PHASES, "generator_steps": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_training_equals_a_plain_loop(make_trainer, color_data, case):
    loop, kind, options = CASES[case]
    ours = networks(**kind)
    theirs = with_statistics(*ours, color_data)
    losses, scores = plain_loop(*theirs, color_data, **loop)
    epochs, optimizer = loop.get("epochs", 2), loop.get("optimizer", SGD)
    options = {"generator_optimizer": optimizer, "discriminator_optimizer": optimizer, **options}
    options["adversarial"] = LOSSES[loop.get("loss", "standard")][0]
    model, trainer = train(make_trainer, color_data, *ours, trainer={"max_epochs": epochs}, **options)
    same(model, *theirs)
    assert trainer.global_step == epochs * len(color_data.batches)
    last = trainer.callback_metrics["train/discriminator" if "critic" in case else "train/loss"]
    assert last.item() == pytest.approx(losses[-1], abs=1e-4)
    found = {name: trainer.callback_metrics[name].item() for name in scores}
    assert found == pytest.approx(scores, abs=1e-3)
    logged = {"discriminator", "score_real", "score_fake"} if scores else set()
    logged |= {"gradient_penalty"} if "wasserstein" in case else set()
    if "critic" not in case:
        logged |= {"loss", "reconstruction", *(["adversarial"] if scores else [])}
        logged |= {"feature_matching"} if "matching" in case else set()
    assert set(trainer.callback_metrics) == {f"train/{name}" for name in logged}


def test_the_colors_of_lab_are_compared_as_they_are_predicted(make_trainer, color_data):
    ours = networks(colors=2)
    theirs = with_statistics(*ours, color_data, colors=([0.0, 0.0], [0.15, 0.15]))
    plain_loop(*theirs, color_data, encode=Lab().encode)
    model, _ = train(make_trainer, color_data, *ours, space="lab")
    same(model, *theirs)  # the statistics included


def test_without_a_discriminator_it_is_plain_regression(make_trainer, color_data):
    generator, discriminator = networks()
    theirs, _ = with_statistics(generator, discriminator, color_data)
    plain_loop(theirs, discriminator, color_data, generator_epochs=9)
    model, trainer = train(make_trainer, color_data, generator, None)
    for value, other in zip(model.generator.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-5, rtol=1e-4)
    assert set(trainer.callback_metrics) == {"train/loss", "train/reconstruction"}
    assert not any(name.startswith("discriminator") for name in model.state_dict())


# Which network learns from what


class Gradients(Callback):
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
    found = Gradients()
    trainer = {"max_steps": 2, "callbacks": [found]}
    train(make_trainer, color_data, *networks(), trainer=trainer, feature_matching_weight=1.0)
    assert [who for who, *_ in found.seen] == [1, 0, None] * 2
    d_step, g_step, end = found.seen[:3]
    assert d_step[1] is None and d_step[2] is not None  # the first: the generator has none yet
    assert g_step[1] is not None and torch.equal(g_step[2], d_step[2])
    assert torch.equal(end[1], g_step[1]) and torch.equal(end[2], d_step[2])
    assert torch.equal(found.seen[3][1], g_step[1])  # the next discriminator's step leaves the generator's alone


def test_logs_are_written_when_lightning_writes_and_callbacks_get_every_batch(make_trainer, color_data, tmp_path):
    class Record(Callback):
        fake = ()

        def on_train_batch_end(self, trainer, pl_module, outputs, *_):
            assert not any(value.requires_grad for value in outputs.values())
            self.fake += ((outputs["loss"].item(), outputs["score_fake"].item()),)

    record, logger = Record(), CSVLogger(tmp_path)
    trainer = {"callbacks": [record], "logger": logger, "log_every_n_steps": 2, "max_epochs": 3}
    train(make_trainer, color_data, *networks(), trainer=trainer)
    logger.save()
    rows = np.genfromtxt(tmp_path / "lightning_logs" / "version_0" / "metrics.csv", delimiter=",", names=True)
    assert rows["step"].tolist() == [1, 3, 5, 7]
    written = list(zip(rows["trainloss"].tolist(), rows["trainscore_fake"].tolist(), strict=True))
    assert len(record.fake) == 9 and written == [pytest.approx(values) for values in record.fake[1::2]]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_equals_a_plain_loop(make_trainer, color_data, precision):
    half = precision == "16-mixed"
    scaler = torch.amp.GradScaler("cpu", enabled=half, init_scale=1024.0, growth_interval=3)
    ours = networks()
    theirs = with_statistics(*ours, color_data)
    dtype = torch.float16 if half else torch.bfloat16
    plain_loop(*theirs, color_data, loss="least squares", dtype=dtype, scaler=scaler)
    own = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) if half else None
    trainer = {"plugins": [MixedPrecision(precision, "cpu", own)]}
    options = {"adversarial": LeastSquares(), "channels_last": False}
    model, trainer = train(make_trainer, color_data, *ours, trainer=trainer, **options)
    same(model, *theirs, atol=1e-4, rtol=1e-3)
    assert trainer.global_step == 6
    if half:
        assert own.get_scale() == scaler.get_scale() > 1024


# What does not fit is refused before the first step, with the key and the number to set


def colorizer(takes=5, gives=3, sees=8, space="rgb", **options):
    generator = UNet(in_channels=takes, out_channels=gives, widths=[4, 8], norm="none")
    return GANColorizer(generator, PatchGAN(sees, width=4, layers=2), space, metrics={}, **options)


@pytest.fixture
def fit(make_trainer, color_data):
    return lambda model: make_trainer(max_steps=1, limit_val_batches=0).fit(model, color_data)


@pytest.fixture
def refusal(fit):
    def message(model):
        with pytest.raises(UserError) as error:
            fit(model)
        assert len(str(error.value).splitlines()) <= 10
        return str(error.value)

    return message


def test_lab_needs_pairs_that_keep_the_lightness_in_a_test_as_well(make_trainer, color_data, fit, refusal):
    color_data.pairs = SimpleNamespace(hints=SimpleNamespace(channels=4))
    message = refusal(colorizer(gives=2, sees=7, space="lab"))
    assert "model.init_args.space: rgb" in message and "data.pairs" in message and "GrayToColor" in message
    with pytest.raises(UserError, match="space lab"):
        make_trainer().test(colorizer(gives=2, sees=7, space="lab"), color_data, verbose=False)
    fit(colorizer())


def test_channels_that_do_not_fit_are_listed_with_what_they_should_be(color_data, fit, refusal):
    message = refusal(colorizer(takes=1, gives=3, sees=4, space="lab"))
    assert "model.init_args.generator.init_args.in_channels is 1: set in_channels: 5" in message
    assert "model.init_args.generator.init_args.out_channels is 3: set out_channels: 2" in message
    assert "model.init_args.discriminator.init_args.in_channels is 4: set in_channels: 7" in message
    # A network without those names is known by its normalization, or not at all.
    model = GANColorizer(Normalized(nn.Conv2d(4, 3, 1), in_channels=4), None, "rgb", metrics={})
    assert "generator.init_args.in_channels is 4: set in_channels: 5" in refusal(model)
    fit(GANColorizer(nn.Conv2d(5, 3, 1), None, "rgb", metrics={}))
    color_data.normalization["target"] = ([0.5], [0.5])
    assert "data.channels: 3" in refusal(colorizer())


def test_a_discriminator_too_deep_for_the_images_is_refused(color_data, fit, refusal):
    fit(colorizer())  # they are 13 x 22
    color_data.batches = [b._replace(input=b.input[:, :, :9], target=b.target[:, :, :9]) for b in color_data.batches]
    assert "needs 12 pixels a side, and they are 22 x 9" in refusal(colorizer())
    assert torch.isfinite(colorizer().restore(color_data.batches[0].input)).all()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"generator_steps": 0}, "generator_steps must be at least 1"),
        ({"space": "lba"}, "Did you mean 'lab'"),
        ({"schedule_every": "stp"}, "schedule_every"),
        ({"adversarial": WassersteinGP()}, "norm: instance"),
        ({"discriminator": None, "critic_epochs": 1, "feature_matching_weight": 1.0}, r"(?s)critic_epochs.*features"),
        ({"discriminator": nn.Conv2d(8, 1, 3), "feature_matching_weight": 1.0}, r"features\(x\), such as PatchGAN"),
    ],
)
def test_invalid_options_are_refused(options, key):
    given = {"discriminator": PatchGAN(8, width=4, layers=2), "space": "rgb", "metrics": {}, **options}
    with pytest.raises(UserError, match=key):
        GANColorizer(nn.Conv2d(5, 3, 1), **given)


def test_lab_is_the_color_and_takes_the_lightness_from_the_condition_and_nothing_else():
    def in_lab(image):
        return torch.from_numpy(color.rgb2lab(image.permute(0, 2, 3, 1).double().numpy()).transpose(0, 3, 1, 2))

    image = torch.rand(2, 3, 5, 9, generator=torch.Generator().manual_seed(0))
    lightness = (in_lab(image)[:, :1] / 100).float()
    condition = torch.cat([lightness, torch.rand(2, 4, 5, 9)], dim=1)
    y = Lab().encode(image)
    assert y.shape == (2, 2, 5, 9) and y.dtype == torch.float32
    np.testing.assert_allclose(y, in_lab(image)[:, 1:] / 110, atol=2e-3)
    torch.testing.assert_close(Lab().decode(y, condition), image, atol=5e-3, rtol=0)
    gray = Lab().decode(torch.zeros(2, 2, 5, 9), condition)
    torch.testing.assert_close(gray[:, 0], gray[:, 2], atol=2e-3, rtol=0)
    np.testing.assert_allclose(in_lab(gray)[:, :1] / 100, lightness, atol=2e-3)
    rough = y.bfloat16()  # as a generator gives it under autocast
    torch.testing.assert_close(Lab().decode(rough, condition), Lab().decode(rough.float(), condition))
