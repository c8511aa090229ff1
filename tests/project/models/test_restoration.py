import copy
from functools import partial

import lightning.pytorch.cli
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from torch import nn
from torch.optim import lr_scheduler as lrs

from project.models import Charbonnier, ImageRestorer, WarmupCosine
from project.models.schedules import warmup_cosine
from project.networks import BackboneUNet, Normalized, UNet
from workbench.errors import UserError

SGD = partial(torch.optim.SGD, lr=0.1)
STILL = partial(torch.optim.SGD, lr=0.0)
ADAM = partial(torch.optim.Adam, lr=0.01)


def tiny(**options) -> UNet:
    torch.manual_seed(0)
    return UNet(**{"widths": [4, 8], "norm": "none", "residual": True, **options})


def plain_loop(network, data, make_optimizer, steps=6, l2=0.0, rate=None, loss=nn.functional.l1_loss):
    """What the restorer has to equal: a loop as one writes it by hand."""
    network = copy.deepcopy(network)
    network.normalize_input.set(*data.normalization["input"])
    network.normalize_output.set(*data.normalization["target"])
    optimizer = make_optimizer(network.parameters())
    base = optimizer.param_groups[0]["lr"]
    losses = []
    for step in range(steps):
        batch = data.batches[step % len(data.batches)]
        if rate is not None:
            optimizer.param_groups[0]["lr"] = base * rate(step)
        value = loss(network(batch.input), batch.target)
        losses.append(value.item())
        kernels = [p for n, p in network.named_parameters() if n.endswith("weight")]
        value = value + l2 * sum((p**2).sum() for p in kernels) / 2
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return network, losses


@pytest.mark.parametrize(
    ("options", "loop"),
    [
        ({"optimizer": partial(SGD, momentum=0.9)}, {}),
        ({"optimizer": ADAM}, {}),
        ({"optimizer": SGD, "l2": 0.01}, {"l2": 0.01}),
        ({"optimizer": partial(torch.optim.Adagrad, lr=0.01), "loss": nn.MSELoss()}, {"loss": nn.functional.mse_loss}),
        (
            {"optimizer": partial(torch.optim.RMSprop, lr=0.01),
             "scheduler": partial(lrs.StepLR, step_size=1, gamma=0.5)},
            {"rate": lambda step: 0.5 ** (step // 2)},
        ),
        (
            {"optimizer": partial(torch.optim.AdamW, lr=0.01), "scheduler": partial(WarmupCosine, warmup=0.3)},
            {"rate": lambda step: warmup_cosine(step / 6, 0.3, 0.001)},
        ),
    ],
    ids=["sgd", "adam", "penalty", "adagrad-mse", "per-epoch", "per-step"],
)  # fmt: skip
@pytest.mark.parametrize("channels_last", [True, False])
def test_training_equals_a_plain_loop(make_trainer, data, options, loop, channels_last):
    # In float64: Adam and RMSprop divide by the gradient's size, and so enlarge the last bits that differ by processor.
    data.batches = [b._replace(input=b.input.double(), target=b.target.double()) for b in data.batches[:2]]
    network = tiny().double()
    expected, losses = plain_loop(network, data, options["optimizer"], **loop)
    model = ImageRestorer(network, channels_last=channels_last, **options)
    trainer = make_trainer(max_epochs=3, limit_val_batches=0)
    trainer.fit(model, data)
    for (name, value), other in zip(model.network.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-9, rtol=1e-7, msg=lambda m, name=name: f"{name}: {m}")
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(losses[-1], abs=1e-6)  # logged as float32


def test_penalties_of_the_trainable_kernels_are_logged_apart_from_the_loss(make_trainer, data):
    network = tiny(activation="prelu")
    network.encoder.requires_grad_(False)
    kernels = [p.detach().clone() for p in network.parameters() if p.ndim == 4 and p.requires_grad]
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(ImageRestorer(network, optimizer=STILL, l1=0.1, l2=0.2), data)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["train/l1_penalty"] == pytest.approx(0.1 * sum(k.abs().sum().item() for k in kernels), rel=1e-4)
    assert logged["train/l2_penalty"] == pytest.approx(0.1 * sum((k**2).sum().item() for k in kernels), rel=1e-4)
    parts = logged["train/loss"] + logged["train/l1_penalty"] + logged["train/l2_penalty"]
    assert logged["train/total"] == pytest.approx(parts, rel=1e-5)
    assert not trainer.progress_bar_metrics, "Lightning turns what the bar shows into numbers at every step"


def test_test_scores_equal_numpy(make_trainer, data):
    model = ImageRestorer(tiny())
    scores = make_trainer().test(model, data, verbose=False)[0]
    psnrs, baselines, losses = [], [], []
    for batch in data.batches:
        output = model(batch.input).detach().numpy().astype(np.float64)
        target = batch.target.numpy().astype(np.float64)
        saved = (output.clip(0, 1) * 255).round() / 255
        psnrs += list(10 * np.log10(1 / ((saved - target) ** 2).mean(axis=(1, 2, 3))))
        baselines += list(10 * np.log10(1 / ((batch.baseline.numpy() - target) ** 2).mean(axis=(1, 2, 3))))
        losses.append(np.abs(output - target).mean())
    assert scores["test/psnr"] == pytest.approx(np.mean(psnrs), abs=1e-3)
    assert scores["test/psnr_baseline"] == pytest.approx(np.mean(baselines), abs=1e-3)
    assert scores["test/loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert {"test/ssim", "test/ssim_baseline"} < scores.keys()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tiny(in_channels=4), "in_channels is 4: set in_channels: 3"),
        # Its encoder has a normalization of its own: what it takes is known by in_channels alone.
        (lambda: BackboneUNet("mobilenet_v3_small", "none", 4, stages=2), "in_channels is 4: set in_channels: 3"),
        (lambda: Normalized(nn.Conv2d(3, 2, 1), 3, 2), "out_channels is 2: set out_channels: 3"),
    ],
)
def test_statistics_of_other_channels_are_refused(make_trainer, data, make, words):
    with pytest.raises(UserError, match=words):
        make_trainer(max_steps=1).fit(ImageRestorer(make()), data)


def test_restore_and_predict_give_images(make_trainer, data):
    model = ImageRestorer(tiny())
    images = torch.linspace(-1, 2, 2 * 3 * 7 * 5).view(2, 3, 7, 5)
    restored = model.restore(images)
    assert restored.shape == (2, 3, 7, 5) and restored.min() >= 0 and restored.max() <= 1
    assert torch.equal(model.predict_step(images), restored)
    predicted = make_trainer().predict(model, data)
    assert torch.equal(predicted[1], model.restore(data.batches[1].input))


def test_padding_batches_are_predicted_and_not_counted(make_trainer, data):
    model = ImageRestorer(tiny())
    (expected,) = make_trainer().validate(model, data, verbose=False)
    predicted = []
    model.network.register_forward_hook(lambda *_: predicted.append(1))
    batches = len(data.batches)
    data.batches.append(data.batches[0]._replace(input=data.batches[0].input * 3, is_padding=torch.tensor([True])))
    (found,) = make_trainer().validate(model, data, verbose=False)
    assert found == expected and len(predicted) == batches + 1


# Checkpoints


def test_checkpoints_of_modules_given_in_python_hold_plain_values(make_trainer, data, tmp_path):
    network = tiny()
    model = ImageRestorer(network, Charbonnier(), ADAM, WarmupCosine, l2=0.5)
    trainer = make_trainer(max_steps=2, limit_val_batches=0)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    saved = checkpoint["hyper_parameters"]
    assert saved["l2"] == 0.5 and not {"network", "loss", "optimizer", "scheduler"} & saved.keys()
    loaded = ImageRestorer.load_from_checkpoint(tmp_path / "a.ckpt", network=UNet(widths=[4, 8], norm="none"))
    assert torch.equal(loaded.network.tail.weight, network.tail.weight) and loaded.l2 == 0.5


@pytest.mark.parametrize("scheduler", [WarmupCosine, partial(lrs.OneCycleLR, max_lr=0.1), lrs.ReduceLROnPlateau])
def test_a_resumed_run_ends_as_an_uninterrupted_one(make_trainer, data, tmp_path, scheduler):
    whole, resumed = (ImageRestorer(tiny(), optimizer=ADAM, scheduler=scheduler) for _ in range(2))
    saving = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_epochs=1, filename="{epoch}")
    options = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 1}
    make_trainer(callbacks=[saving], enable_checkpointing=True, **options).fit(whole, data)
    make_trainer(**options).fit(resumed, data, ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_init_from_loads_weights_and_a_resumed_run_does_not_need_the_file(make_trainer, data, tmp_path):
    source = ImageRestorer(tiny())
    trainer = make_trainer(max_steps=3, limit_val_batches=0)
    trainer.fit(source, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    tuned = ImageRestorer(UNet(widths=[4, 8], norm="none"), init_from=str(tmp_path / "a.ckpt"), optimizer=STILL)
    other = make_trainer(max_steps=1, limit_val_batches=0)
    other.fit(tuned, data)
    assert torch.equal(tuned.network.head.weight, source.network.head.weight)
    other.save_checkpoint(tmp_path / "b.ckpt")
    (tmp_path / "a.ckpt").unlink()
    make_trainer(max_steps=1, limit_val_batches=0).fit(tuned, data)
    again = ImageRestorer.load_from_checkpoint(tmp_path / "b.ckpt", network=tiny(), optimizer=STILL)
    make_trainer(max_steps=2, limit_val_batches=0).fit(again, data, ckpt_path=tmp_path / "b.ckpt")


# Plateaus, mistakes


def test_a_plateau_scheduler_steps_after_every_validation_and_at_no_other_time(make_trainer, data):
    rates = []

    def note(trainer, *_):
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    plateau = partial(lrs.ReduceLROnPlateau, patience=0, factor=0.5, threshold=100.0, threshold_mode="abs")
    model = ImageRestorer(tiny(), optimizer=partial(SGD, lr=0.08), scheduler=plateau)
    # Validations after steps 4, 8 and 12; epochs end in between.
    run = {"max_steps": 14, "check_val_every_n_epoch": None, "val_check_interval": 4}
    make_trainer(**run, callbacks=[LambdaCallback(on_train_batch_start=note)]).fit(model, data)
    assert len(data.batches) not in (1, 2, 4)
    assert rates == [0.08] * 8 + [0.04] * 4 + [0.02] * 2


def test_mistakes_are_named(make_trainer, data):
    unknown = partial(lightning.pytorch.cli.ReduceLROnPlateau, monitor="val/psmr")
    with pytest.raises(UserError, match=r"val/psmr.*not logged"):
        make_trainer(max_epochs=1).fit(ImageRestorer(tiny(), scheduler=unknown), data)
    with pytest.raises(UserError, match="schedule_every"):
        ImageRestorer(tiny(), schedule_every="stp")
