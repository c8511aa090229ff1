"""What a fine-tuning freezes, unfreezes and slows down; the numbers are counted by hand or published ones."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import LambdaCallback
from torch import nn
from torch.optim import lr_scheduler as lrs
from torchvision.models import get_model

from project.__main__ import main
from project.models import FineTuning, GANColorizer, ImageRestorer
from project.models.finetune import freeze
from project.networks import BackboneUNet, PatchGAN, UNet
from workbench.errors import UserError
from workbench.findings.checks import learning


def tiny(**options) -> UNet:
    """Three stages with norms: head and first level, second level, middle."""
    torch.manual_seed(0)
    return UNet(**{"widths": [4, 6, 8], "norm": "batch", "residual": True, **options})


STAGES = [("head.", "encoder.0."), ("down.0.", "encoder.1."), ("down.1.", "middle.")]


def restorer(tuning: FineTuning, network: nn.Module | None = None, **options) -> ImageRestorer:
    options = {"optimizer": partial(torch.optim.Adam, lr=0.01), **options}
    return ImageRestorer(network or tiny(), finetune=tuning, **options)


def stage(number: int, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name.startswith(STAGES[number])}


def trained(model: L.LightningModule) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def changes(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


RESNET18 = 11_689_512 - 513_000
"""Parameters of torchvision's ResNet-18 as published, less those of its classifier."""


@pytest.mark.parametrize(
    ("tuning", "frozen"),
    [
        (FineTuning(), 0),
        (FineTuning(freeze_stages="all"), RESNET18),
        (FineTuning(freeze_stages=5), RESNET18),
        (FineTuning(freeze_stages=1), 64 * 3 * 7 * 7 + 2 * 64),
        (FineTuning(freeze_stages=2), 64 * 3 * 7 * 7 + 2 * 64 + 4 * (64 * 64 * 9 + 2 * 64)),
        (FineTuning(freeze_norms=True), 2 * (64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512)),
    ],
)
def test_the_number_of_trained_parameters(tuning, frozen):
    network = BackboneUNet("resnet18", "none", widths=[4] * 6)
    assert sum(p.numel() for p in network.encoder.parameters()) == RESNET18
    everything = sum(p.numel() for p in network.parameters())
    assert trained(restorer(tuning, network)) == everything - frozen


def test_what_is_frozen_stays_to_the_last_bit_and_the_rest_learns(make_trainer, data):
    model = restorer(FineTuning(freeze_stages=1, freeze_norms=True))
    before = copy.deepcopy(model.network.state_dict())
    make_trainer(max_epochs=2).fit(model, data)  # with validations, after which training goes on
    changed = changes(before, model.network.state_dict())
    norms = {n for n, m in model.network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    encoder = [name for number in range(3) for name in stage(number, before)]
    of_norms = {name for name in encoder if name.rpartition(".")[0] in norms}
    assert len(of_norms) == 5 * 2 * 3 and not of_norms & changed and not stage(0, before).keys() & changed
    learns = {name for name in before if name not in of_norms and not name.startswith(STAGES[0])}
    assert {name for name in learns if "normalize" not in name and not name.endswith("bias")} <= changed


def test_synchronized_norms_are_frozen_too():
    """Lightning puts them in the norms' places while everything that is ever to learn wants gradients."""
    tuning = FineTuning("all", unfreeze={1: 0})
    model = restorer(tuning, BackboneUNet("mobilenet_v3_small", "none", stages=2))
    freeze(model.network, tuning, None)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    encoder = model.network.encoder
    norms = [part for part in encoder.modules() if isinstance(part, nn.SyncBatchNorm)]
    assert len(norms) == 4 and all(norm.training and norm.weight.requires_grad for norm in norms)
    model.on_fit_start()
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    before = copy.deepcopy(encoder.state_dict())
    model.network(torch.rand(1, 3, 32, 48))
    assert not changes(before, encoder.state_dict())


def test_stages_are_unfrozen_at_their_epochs(make_trainer, data):
    with_gradients = {}

    def note(trainer: L.Trainer, *_) -> None:
        stages = (stage(number, dict(model.network.named_parameters())).values() for number in range(3))
        with_gradients[trainer.current_epoch] = [any(p.grad is not None for p in one) for one in stages]

    model = restorer(FineTuning("all", unfreeze={2: 1, 3: 0}))
    before = copy.deepcopy(model.network.state_dict())
    make_trainer(max_epochs=4, callbacks=[LambdaCallback(on_before_optimizer_step=note)]).fit(model, data)
    assert with_gradients == {0: [False] * 3, 1: [False] * 3, 2: [False, True, True], 3: [True] * 3}
    changed = {name for name in changes(before, model.network.state_dict()) if name.endswith("weight")}
    assert all(changed & stage(number, before).keys() for number in range(3)), "not optimized"


def test_each_stage_has_its_rate(make_trainer, data):
    model = restorer(FineTuning(encoder_rate=0.5, stage_decay=0.1), optimizer=partial(torch.optim.SGD, lr=0.1))
    data.batches = data.batches[:1]
    before = dict(copy.deepcopy(model.network).named_parameters())
    trainer = make_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(model, data)
    names = [group["name"] for group in trainer.optimizers[0].param_groups]
    assert names == ["rest", "stage 1", "stage 2", "stage 3"]
    for name, parameter in model.network.named_parameters():
        number = next((n for n in range(3) if name.startswith(STAGES[n])), None)
        rate = 0.1 if number is None else 0.1 * 0.5 * 0.1 ** (2 - number)
        torch.testing.assert_close(before[name] - rate * parameter.grad, parameter, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "scheduler",
    [
        partial(lrs.OneCycleLR, max_lr=0.02, total_steps=12, cycle_momentum=False),
        partial(lrs.StepLR, step_size=1),
    ],
)
def test_rates_keep_their_proportions_under_any_scheduler(make_trainer, data, scheduler):
    seen = []

    def note(trainer: L.Trainer, model: L.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        seen.append([group["lr"] for group in optimizer.param_groups])

    plain, scaled = (
        restorer(FineTuning(encoder_rate=rate), optimizer=partial(torch.optim.SGD, lr=0.02), scheduler=scheduler)
        for rate in (1.0, 0.25)
    )
    for model in (plain, scaled):
        callback = LambdaCallback(on_before_optimizer_step=note)
        make_trainer(max_epochs=2, limit_val_batches=0, callbacks=[callback]).fit(model, data)
    assert len({round(rate, 9) for (rate,) in seen[:12]}) > 1
    for (rate,), others in zip(seen[:12], seen[12:], strict=True):
        assert others == pytest.approx([rate, rate / 4, rate / 4, rate / 4])


def test_of_a_gan_the_generator_is_tuned(make_trainer, color_data):
    torch.manual_seed(0)
    generator = UNet(in_channels=5, out_channels=2, widths=[4, 6, 8], norm="batch")
    adversary = PatchGAN(in_channels=7, width=4, layers=1)
    model = GANColorizer(generator, adversary, finetune=FineTuning(1, encoder_rate=0.1))
    before = copy.deepcopy(model.state_dict())
    trainer = make_trainer(max_epochs=2)
    trainer.fit(model, color_data)
    changed = changes(before, model.state_dict())
    frozen = {f"generator.{name}" for name in stage(0, generator.state_dict())}
    assert frozen and not frozen & changed
    assert any(name.startswith("discriminator.") for name in changed)
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == pytest.approx([2e-4, 2e-5, 2e-5])
    assert [group["lr"] for group in trainer.optimizers[1].param_groups] == [2e-4]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FineTuning(freeze_stages=-1, encoder_rate=0.0), "(?s)must be at least 0.*must be above 0"),
        (lambda: FineTuning(unfreeze={0: 1}), "epochs from 1 on"),
        (lambda: restorer(FineTuning(freeze_stages=4)), "names 4 stages, and the encoder has 3"),
        (lambda: restorer(FineTuning("all"), nn.Conv2d(3, 3, 3)), r"encoder_stages\(\)"),
    ],
)
def test_a_mistake_is_named(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_what_shows_at_the_start_of_a_run_is_named(make_trainer, data):
    class Whole(nn.Conv2d):
        def encoder_stages(self) -> list[list[str]]:
            return [[""]]

    nothing_left = restorer(FineTuning("all"), Whole(3, 3, 3, padding=1))
    cyclic = restorer(FineTuning(encoder_rate=0.5), scheduler=partial(lrs.CyclicLR, base_lr=0.001, max_lr=0.02))
    for model, words in ((nothing_left, "Nothing of the network is left"), (cyclic, "CyclicLR sets all rates alike")):
        with pytest.raises(UserError, match=words):
            make_trainer(max_epochs=1).fit(model, data)


# The commands


@pytest.fixture
def config(tmp_path: Path, make_images) -> Path:
    weights = tmp_path / "weights.pth"
    torch.manual_seed(3)
    torch.save(get_model("mobilenet_v3_small", weights=None).state_dict(), weights)
    network = {"backbone": "mobilenet_v3_small", "weights": str(weights), "stages": 2, "widths": [4, 6, 8]}
    model = {
        "network": {"class_path": "project.networks.BackboneUNet", "init_args": {**network, "residual": True}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}},
        "scheduler": {"class_path": "project.models.WarmupCosine"},
        "finetune": {"freeze_stages": "all", "unfreeze": {2: 1}, "encoder_rate": 0.1},
    }
    data = {"root": str(make_images(10, 52, 41)), "crop": 24, "batch_size": 4, "crops_per_image": 4, "num_workers": 0}
    trainer = {"accelerator": "cpu", "max_steps": 18, "check_val_every_n_epoch": None, "val_check_interval": 6}
    model = {"class_path": "project.models.ImageRestorer", "init_args": model}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    return path


def fit(config: Path, *words: str) -> Path:
    assert main(["fit", "--config", str(config), "--wandb", "off", *words]) == 0
    return Path("runs/tiny/latest").resolve()


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_declared_freeze_is_no_fault_and_a_checkpoint_needs_no_weights_file(config, capsys):
    weights = config.parent / "weights.pth"
    run = fit(config, "--model.finetune.unfreeze", "{}")
    findings = [json.loads(line)["code"] for line in (run / "findings.jsonl").read_text().splitlines()]
    assert not {"frozen-parameters", "parameters-unchanged", "parameters-not-optimized"} & set(findings)
    before, after = torch.load(weights, weights_only=True), weights_of(run)
    encoder = {n.removeprefix("network.encoder."): v for n, v in after.items() if n.startswith("network.encoder.")}
    assert len(encoder) > 20 and all(torch.equal(value, before[name]) for name, value in encoder.items())

    weights.unlink()
    best = str(run / "checkpoints" / "best.ckpt")
    assert main(["test", "--ckpt_path", best]) == 0
    assert main(["validate", "--ckpt_path", best]) == 0
    assert main(["predict", "--ckpt_path", best, "--input", "pictures", "--output", "restored"]) == 0
    assert main(["inspect", "--ckpt_path", best, "--maps", "0"]) == 0
    resume = ["fit", "--name", "tiny", "--resume", "latest", "--trainer.max_steps", "20", "--wandb", "off"]
    assert main(resume) == 0
    assert main([*resume, "--model.finetune.freeze_stages", "1"]) == 2
    assert "its optimizer do not fit" in capsys.readouterr().err
    assert main(["fit", "--config", str(config), "--wandb", "off"]) == 2
    assert f"there is no file {weights}" in capsys.readouterr().err


def test_a_run_that_unfreezes_resumes_as_if_it_had_never_stopped(config):
    tree = yaml.safe_load(config.read_text())
    del tree["model"]["init_args"]["scheduler"]  # which would follow the run's length
    tree["model"]["init_args"]["finetune"]["unfreeze"] = {1: 1, 2: 0}
    config.write_text(yaml.safe_dump(tree))
    whole = weights_of(fit(config))
    part = fit(config, "--trainer.max_steps", "10")  # in the second of three epochs
    text = (part / "config.yaml").read_text().replace("max_steps: 10", "max_steps: 18")
    (part / "config.yaml").write_text(text)
    assert main(["fit", "--name", "tiny", "--resume", "latest", "--wandb", "off"]) == 0
    resumed = weights_of(part)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_check_says_what_is_trained(config, monkeypatch, capsys):
    monkeypatch.setattr(learning, "PIXELS", 4 * 24 * 24)
    assert main(["check", "--config", str(config)]) in (0, 1)
    printed = " ".join(capsys.readouterr().out.split())
    (folder,) = Path("runs/tiny").glob("*-check")
    codes = [json.loads(line)["code"] for line in (folder / "findings.jsonl").read_text().splitlines()]
    assert not {"frozen-parameters", "parameters-not-optimized", "pretrained-range", "input-not-centred"} & set(codes)
    assert "parameters are trained: detail, lateral, up, join, decoder, tail; frozen: encoder" in printed
    assert "Rates rest 0.005, stage 2 0.0005 " in printed
