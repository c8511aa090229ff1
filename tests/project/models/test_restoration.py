import copy
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.optim import lr_scheduler as lrs
from torchmetrics.image import UniversalImageQualityIndex

from project.models import PSNR, Charbonnier, ImageRestorer, WarmupCosine
from project.models.schedules import warmup_cosine
from project.networks import BackboneUNet, Normalized, UNet
from workbench.errors import UserError


def tiny(**options) -> UNet:
    torch.manual_seed(0)
    return UNet(**{"width": 4, "depth": 1, "norm": "none", "residual": True, **options})


def plain_loop(network, data, make_optimizer, steps=5, l1=0.0, l2=0.0, rate=None, loss=nn.functional.l1_loss):
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
        value = value + l1 * sum(p.abs().sum() for p in kernels) + l2 * sum((p**2).sum() for p in kernels) / 2
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return network, losses


@pytest.mark.parametrize(
    ("options", "loop"),
    [
        ({"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}, {}),
        ({"optimizer": partial(torch.optim.Adam, lr=0.01)}, {}),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1), "l1": 0.001, "l2": 0.01}, {"l1": 0.001, "l2": 0.01}),
        ({"optimizer": partial(torch.optim.Adagrad, lr=0.01), "loss": nn.MSELoss()}, {"loss": nn.functional.mse_loss}),
        (
            {
                "optimizer": partial(torch.optim.RMSprop, lr=0.01),
                "scheduler": partial(lrs.StepLR, step_size=1, gamma=0.5),
            },
            {"rate": lambda step: 0.5 ** (step // 2)},
        ),
        (
            {"optimizer": partial(torch.optim.AdamW, lr=0.01), "scheduler": partial(WarmupCosine, warmup=0.3)},
            {"rate": lambda step: warmup_cosine(step / 6, 0.3, 0.001)},
        ),
    ],
    ids=["sgd", "adam", "penalties", "adagrad-mse", "per-epoch", "per-step"],
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_training_equals_a_plain_loop(make_trainer, data, options, loop, channels_last):
    data.batches = data.batches[:2]
    network = tiny()
    expected, losses = plain_loop(network, data, options["optimizer"], steps=6, **loop)
    model = ImageRestorer(network, channels_last=channels_last, **options)
    trainer = make_trainer(max_epochs=3, limit_val_batches=0)
    trainer.fit(model, data)
    for (name, value), other in zip(model.network.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, atol=2e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(losses[-1], abs=1e-5)


def test_penalties_are_logged_apart_from_the_loss(make_trainer, data):
    network = tiny()
    kernels = [p.detach().clone() for n, p in network.named_parameters() if n.endswith("weight")]
    model = ImageRestorer(network, optimizer=partial(torch.optim.SGD, lr=0.0), l1=0.1, l2=0.2)
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, data)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["train/l1_penalty"] == pytest.approx(0.1 * sum(k.abs().sum().item() for k in kernels), rel=1e-4)
    assert logged["train/l2_penalty"] == pytest.approx(0.1 * sum((k**2).sum().item() for k in kernels), rel=1e-4)
    parts = logged["train/loss"] + logged["train/l1_penalty"] + logged["train/l2_penalty"]
    assert logged["train/total"] == pytest.approx(parts, rel=1e-5)


def test_without_penalties_only_the_loss_is_logged(make_trainer, data):
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(ImageRestorer(tiny()), data)
    assert set(trainer.callback_metrics) == {"train/loss"}


def test_test_scores_equal_numpy(make_trainer, data):
    model = ImageRestorer(tiny())
    scores = make_trainer().test(model, data, verbose=False)[0]
    figures, baselines, losses = [], [], []
    for batch in data.batches:
        output = model(batch.input).detach().numpy().astype(np.float64)
        target = batch.target.numpy().astype(np.float64)
        saved = (output.clip(0, 1) * 255).round() / 255
        figures += list(10 * np.log10(1 / ((saved - target) ** 2).mean(axis=(1, 2, 3))))
        baselines += list(10 * np.log10(1 / ((batch.baseline.numpy() - target) ** 2).mean(axis=(1, 2, 3))))
        losses.append(np.abs(output - target).mean())
    assert scores["test/psnr"] == pytest.approx(np.mean(figures), abs=1e-3)
    assert scores["test/psnr_baseline"] == pytest.approx(np.mean(baselines), abs=1e-3)
    assert scores["test/loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert {"test/ssim", "test/ssim_baseline"} < scores.keys()


def test_validation_learns_and_logs(make_trainer, data):
    model = ImageRestorer(tiny(), optimizer=partial(torch.optim.Adam, lr=0.01))
    trainer = make_trainer(max_epochs=10, check_val_every_n_epoch=5)
    trainer.fit(model, data)
    logged = trainer.callback_metrics
    assert {"val/loss", "val/psnr", "val/ssim", "val/psnr_baseline", "val/ssim_baseline"} < logged.keys()
    assert logged["val/psnr"] > logged["val/psnr_baseline"] + 2


def test_statistics_reach_the_network_and_any_wrapped_one(make_trainer, data):
    wrapped = Normalized(nn.Conv2d(3, 3, 1))
    for network in (tiny(), wrapped):
        make_trainer(max_steps=1, limit_val_batches=0).fit(ImageRestorer(network), data)
        assert network.normalize_input.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
        assert network.normalize_output.std.flatten().tolist() == pytest.approx([0.25] * 3)


def test_statistics_of_other_channels_are_told(make_trainer, data):
    with pytest.raises(UserError, match="3 channels, but the network is made for 4"):
        make_trainer(max_steps=1).fit(ImageRestorer(tiny(in_channels=4)), data)
    # Its encoder has a normalization of its own: what it takes is said by in_channels alone.
    network = BackboneUNet("mobilenet_v3_small", "none", in_channels=4, stages=2)
    with pytest.raises(UserError, match="3 channels, but the network is made for 4"):
        make_trainer(max_steps=1).fit(ImageRestorer(network), data)
    with pytest.raises(UserError, match="target images have 3 channels, but the network is made for 2"):
        make_trainer(max_steps=1).fit(ImageRestorer(BackboneUNet("mobilenet_v3_small", "none", 3, 2, 2)), data)


def test_frozen_parameters_stay(make_trainer, data):
    network = tiny()
    network.encoder.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    make_trainer(max_steps=2, limit_val_batches=0).fit(ImageRestorer(network), data)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert "tail.weight" in changed and not [name for name in changed if name.startswith("encoder")]


def test_restore_and_predict_give_pictures(make_trainer, data):
    model = ImageRestorer(tiny())
    pictures = torch.rand(2, 3, 7, 5) * 3 - 1
    restored = model.restore(pictures)
    assert restored.shape == (2, 3, 7, 5) and restored.min() >= 0 and restored.max() <= 1
    assert torch.equal(model.predict_step(pictures), restored)
    predicted = make_trainer().predict(model, data)
    assert torch.equal(predicted[1], model.restore(data.batches[1].input))


def test_metrics_by_name_replace_the_default(make_trainer, data):
    model = ImageRestorer(tiny(), metrics={"db": PSNR(), "uqi": UniversalImageQualityIndex()}, monitor="val/db")
    scores = make_trainer(limit_test_batches=1).test(model, data, verbose=False)[0]
    assert set(scores) == {f"test/{n}" for n in ("loss", "db", "db_baseline", "uqi", "uqi_baseline")}


def test_checkpoints_of_modules_given_in_python_hold_plain_values(make_trainer, data, tmp_path):
    network = tiny()
    model = ImageRestorer(network, Charbonnier(), partial(torch.optim.Adam, lr=0.01), WarmupCosine, l2=0.5)
    trainer = make_trainer(max_steps=2, limit_val_batches=0)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["l2"] == 0.5
    assert not {"network", "loss", "optimizer", "scheduler"} & checkpoint["hyper_parameters"].keys()
    loaded = ImageRestorer.load_from_checkpoint(tmp_path / "a.ckpt", network=UNet(width=4, depth=1, norm="none"))
    assert torch.equal(loaded.network.tail.weight, network.tail.weight)
    assert loaded.l2 == 0.5


@pytest.mark.parametrize("scheduler", [WarmupCosine, partial(lrs.OneCycleLR, max_lr=0.1), lrs.ReduceLROnPlateau])
def test_a_resumed_run_ends_as_an_uninterrupted_one(make_trainer, data, tmp_path, scheduler):
    def model():
        return ImageRestorer(tiny(), optimizer=partial(torch.optim.Adam, lr=0.01), scheduler=scheduler)

    whole = model()
    saving = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_epochs=1, filename="{epoch}")
    options = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 1}
    make_trainer(callbacks=[saving], enable_checkpointing=True, **options).fit(whole, data)
    resumed = model()
    make_trainer(**options).fit(resumed, data, ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_init_from_takes_weights_and_a_resumed_run_does_not_need_the_file(make_trainer, data, tmp_path):
    source = ImageRestorer(tiny())
    trainer = make_trainer(max_steps=3, limit_val_batches=0)
    trainer.fit(source, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    tuned = ImageRestorer(
        UNet(width=4, depth=1, norm="none", residual=True),
        init_from=str(tmp_path / "a.ckpt"),
        optimizer=partial(torch.optim.SGD, lr=0.0),
    )
    other = make_trainer(max_steps=1, limit_val_batches=0)
    other.fit(tuned, data)
    assert torch.equal(tuned.network.head.weight, source.network.head.weight)
    other.save_checkpoint(tmp_path / "b.ckpt")
    (tmp_path / "a.ckpt").unlink()
    make_trainer(max_steps=1, limit_val_batches=0).fit(tuned, data)
    sgd = partial(torch.optim.SGD, lr=0.0)
    again = ImageRestorer.load_from_checkpoint(tmp_path / "b.ckpt", network=tiny(), optimizer=sgd)
    make_trainer(max_steps=2, limit_val_batches=0).fit(again, data, ckpt_path=tmp_path / "b.ckpt")


def test_compiling_trains_the_same_and_leaves_the_names_in_the_checkpoint_alone(make_trainer, data, monkeypatch):
    calls = []

    def compiler(graph, inputs):
        calls.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    compiled, plain = (ImageRestorer(tiny(), compile=on) for on in (True, False))
    for model in (compiled, plain):
        make_trainer(max_steps=2, limit_val_batches=1).fit(model, data)
    assert calls
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(compiled.network.tail.weight, plain.network.tail.weight)


def test_a_failing_compiler_is_told_with_the_way_out(make_trainer, data, monkeypatch):
    def compiler(graph, inputs):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    with pytest.raises(UserError, match=r"no C\+\+ compiler\n.*--model.compile false"):
        make_trainer(max_steps=1).fit(ImageRestorer(tiny(), compile=True), data)


@pytest.mark.parametrize("options", [{"schedule_every": "stp"}, {"l1": -1.0}])
def test_faulty_options_are_told(options):
    with pytest.raises(UserError):
        ImageRestorer(tiny(), **options)


CONFIG = """
model:
  network:
    class_path: project.networks.UNet
    init_args: {width: 4, depth: 1, norm: none, residual: true}
  loss: {class_path: project.models.Charbonnier, init_args: {eps: 0.01}}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.01, betas: [0.9, 0.99]}}
  scheduler: {class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 0.01}}
  metrics:
    db: {class_path: project.models.PSNR}
"""


def test_a_checkpoint_of_the_command_line_is_plain_and_needs_nothing_else(data, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    cli = LightningCLI(
        ImageRestorer, run=False, args=["--config", str(tmp_path / "config.yaml")], save_config_callback=None
    )
    trainer = L.Trainer(
        max_steps=2, limit_val_batches=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(cli.model, data)
    assert cli.model.lr_schedulers().total_steps == 2
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["network"]["class_path"] == "project.networks.UNet"
    loaded = ImageRestorer.load_from_checkpoint(tmp_path / "a.ckpt")
    assert isinstance(loaded.loss, Charbonnier) and loaded.loss.eps == 0.01
    x = torch.rand(1, 3, 7, 5)
    assert torch.equal(loaded.restore(x), cli.model.restore(x))


def test_a_plateau_scheduler_steps_after_every_validation_and_at_no_other_time(make_trainer, data):
    rates = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    plateau = partial(lrs.ReduceLROnPlateau, patience=0, factor=0.5, threshold=100.0, threshold_mode="abs")
    model = ImageRestorer(tiny(), optimizer=partial(torch.optim.SGD, lr=0.08), scheduler=plateau)
    # Validations after steps 4, 8 and 12; epochs end in between.
    run = make_trainer(max_steps=14, check_val_every_n_epoch=None, val_check_interval=4, callbacks=[Watch()])
    run.fit(model, data)
    assert len(data.batches) not in (1, 2, 4)
    assert rates == [0.08] * 8 + [0.04] * 4 + [0.02] * 2


def test_a_plateau_scheduler_of_an_unknown_value_is_told(make_trainer, data):
    model = ImageRestorer(tiny(), scheduler=lrs.ReduceLROnPlateau, monitor="val/psmr")
    with pytest.raises(UserError, match=r"val/psmr.*not logged"):
        make_trainer(max_epochs=1).fit(model, data)


def test_no_training_step_waits_for_the_device(make_trainer, data):
    model = ImageRestorer(tiny(), l1=1e-6, l2=1e-6)
    run = make_trainer(max_steps=3, limit_val_batches=0)
    run.fit(model, data)
    assert {"train/loss", "train/total"} <= run.callback_metrics.keys()
    assert not run.progress_bar_metrics, "Lightning turns what the bar shows into numbers at every step"


def test_pictures_that_only_fill_up_are_answered_and_not_counted(make_trainer, data):
    model = ImageRestorer(tiny(), optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = make_trainer()
    (expected,) = trainer.validate(model, data, verbose=False)
    answered = []
    model.network.register_forward_hook(lambda *_: answered.append(1))
    batches = len(data.batches)
    data.batches.append(data.batches[0]._replace(input=data.batches[0].input * 3, is_padding=torch.tensor([True])))
    (found,) = trainer.validate(model, data, verbose=False)
    assert found == expected
    assert len(answered) == batches + 1
