"""Whole runs of GANColorizer: steps that count, schedules, averages, checkpoints, resuming, several processes."""

from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback, LearningRateMonitor, ModelCheckpoint
from torch.optim import lr_scheduler as lrs

from project.models import GANColorizer, ImageRestorer, VGGPerceptual, WarmupCosine
from project.models.schedules import warmup_cosine
from project.networks import PatchGAN, UNet
from workbench.callbacks.ema import EMA
from workbench.errors import UserError

SGD = partial(torch.optim.SGD, lr=0.01)
ADAM = partial(torch.optim.Adam, lr=1e-3)


def colorizer(**options) -> GANColorizer:
    torch.manual_seed(0)
    generator = UNet(in_channels=5, out_channels=3, widths=[4, 8], norm="none")
    discriminator = PatchGAN(8, width=4, layers=2, norm="instance")
    defaults = {"space": "rgb", "metrics": {}, "generator_optimizer": ADAM, "discriminator_optimizer": ADAM}
    return GANColorizer(generator, discriminator, **{**defaults, **options})


PHASES = {"generator_epochs": 1, "critic_epochs": 1, "generator_steps": 2}


# One batch is one step


@pytest.mark.parametrize("options", [{}, {"generator_steps": 2}, PHASES, {"critic_epochs": 9}])
def test_one_batch_is_one_step_in_every_phase_and_checkpoints_are_written_at_theirs(
    make_trainer, color_data, options, tmp_path
):
    class Count(Callback):
        batches = 0

        def on_train_batch_end(self, trainer, *_):
            self.batches += 1
            assert trainer.global_step == self.batches

    saving = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_train_steps=4, filename="{step}")
    count, model = Count(), colorizer(**options)
    model.make_schedulers = {"generator": WarmupCosine, "discriminator": partial(lrs.StepLR, step_size=1)}
    run = {"enable_checkpointing": True, "logger": True, "log_every_n_steps": 1, "limit_val_batches": 0}
    trainer = make_trainer(max_steps=9, callbacks=[count, saving, LearningRateMonitor("step")], **run)
    trainer.fit(model, color_data)
    assert trainer.global_step == count.batches == 9
    assert set(trainer.callback_metrics) >= {"lr-generator", "lr-discriminator"}
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=4.ckpt", "step=8.ckpt"]
    checkpoint = torch.load(tmp_path / "step=8.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8 and len(checkpoint["optimizer_states"]) == 2
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"generator", "discriminator"}
    saved = checkpoint["hyper_parameters"]
    assert saved["critic_epochs"] == options.get("critic_epochs", 0) and "generator" not in saved


# Schedules


@pytest.mark.parametrize("options", [{}, PHASES])
def test_schedules_step_after_every_step_or_epoch_as_they_are_meant(make_trainer, color_data, options):
    schedules = {
        "generator_scheduler": partial(WarmupCosine, warmup=0.3),
        "discriminator_scheduler": partial(lrs.StepLR, step_size=1, gamma=0.5),
    }
    rates = []

    def note(trainer, *_):
        rates.append(tuple(optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers))

    optimizers = {"generator_optimizer": SGD, "discriminator_optimizer": partial(torch.optim.SGD, lr=0.02)}
    trainer = make_trainer(max_epochs=3, limit_val_batches=0, callbacks=[LambdaCallback(on_train_batch_start=note)])
    trainer.fit(colorizer(**optimizers, **schedules, **options), color_data)
    expected = [(0.01 * warmup_cosine(step / 9, 0.3, 0.001), 0.02 * 0.5 ** (step // 3)) for step in range(9)]
    assert rates == [pytest.approx(pair) for pair in expected]


# Checkpoints


@pytest.mark.parametrize("options", [{}, PHASES])
def test_a_resumed_run_ends_as_an_uninterrupted_one(make_trainer, color_data, tmp_path, options):
    def model():
        schedules = {
            "generator_scheduler": WarmupCosine,
            "discriminator_scheduler": partial(lrs.ExponentialLR, gamma=0.5),
        }
        return colorizer(**schedules, **options)

    whole, resumed = model(), model()
    saving = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_train_steps=1, filename="{step}")
    run = {"max_epochs": 4, "limit_val_batches": 1}
    make_trainer(**run, callbacks=[EMA(0.9), saving], enable_checkpointing=True).fit(whole, color_data)
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()
    trainer = make_trainer(**run, callbacks=[EMA(0.9)])
    trainer.fit(resumed, color_data, ckpt_path=tmp_path / "step=6.ckpt", weights_only=True)
    assert trainer.global_step == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_pretrained_loss_stays_out_of_checkpoint_optimizer_and_average(make_trainer, color_data, vgg, monkeypatch):
    monkeypatch.setattr("project.models.losses.VGG_WEIGHTS", {1: 1.0})  # all of them need larger images
    perceptual = VGGPerceptual(str(vgg))
    model = colorizer(perceptual=perceptual, perceptual_weight=7.0, adversarial_weight=0.5, metrics=None)
    trainer = make_trainer(max_epochs=1, limit_val_batches=1, callbacks=[EMA(0.9)])
    trainer.fit(model, color_data)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["train/perceptual"] > 0
    parts = zip((100, 0.5, 7), ("reconstruction", "adversarial", "perceptual"), strict=True)
    assert logged["train/loss"] == pytest.approx(sum(weight * logged[f"train/{name}"] for weight, name in parts))
    names = {"psnr", "ssim", "acc_2", "acc_5", "colorfulness", "colorfulness_ratio"}
    wanted = {f"val/{name}{kind}" for name in names for kind in ("", "_baseline")}
    assert {name for name in logged if name.startswith("val/")} == {*wanted, "val/loss"}
    assert torch.equal(perceptual.load()[1].weight, torch.load(vgg)["features.0.weight"])
    assert not [name for name in model.state_dict() if "perceptual" in name]
    counts = [sum(len(group["params"]) for group in optimizer.param_groups) for optimizer in trainer.optimizers]
    assert counts == [len(list(n.parameters())) for n in (model.generator, model.discriminator)]
    vgg.unlink()
    missing = colorizer(perceptual=VGGPerceptual(str(vgg)))
    make_trainer().test(missing, color_data, verbose=False)
    with pytest.raises(UserError, match=r"vgg.pth"):
        make_trainer(max_steps=1).fit(missing, color_data)


def test_it_starts_from_a_gan_or_from_a_network_that_was_trained_alone(make_trainer, color_data, tmp_path):
    source = colorizer()
    trainer = make_trainer(max_steps=3, limit_val_batches=0)
    trainer.fit(source, color_data)
    trainer.save_checkpoint(tmp_path / "gan.ckpt")
    frozen = {"generator_optimizer": partial(SGD, lr=0.0), "discriminator_optimizer": partial(SGD, lr=0.0)}
    tuned = colorizer(init_from=str(tmp_path / "gan.ckpt"), **frozen)
    make_trainer(max_steps=1, limit_val_batches=0).fit(tuned, color_data)
    for name, value in source.state_dict().items():
        assert torch.equal(value, tuned.state_dict()[name]), name
    torch.save({"state_dict": ImageRestorer(source.generator).state_dict()}, tmp_path / "alone.ckpt")
    fresh, tuned = colorizer(), colorizer(init_from=str(tmp_path / "alone.ckpt"), **frozen)
    make_trainer(max_steps=1, limit_val_batches=0).fit(tuned, color_data)
    assert torch.equal(tuned.generator.head.weight, source.generator.head.weight)
    assert torch.equal(tuned.discriminator.tail.weight, fresh.discriminator.tail.weight)
