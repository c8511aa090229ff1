"""The whole callback: healthy runs have no fault, planted faults are named, in any script and by the real command."""

from __future__ import annotations

import re
import runpy
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import nn
from torch.utils.data import DataLoader

import workbench
from project.data.batch import Batch
from project.models import FineTuning, ImageRestorer
from project.models.finetune import stages_of
from project.networks import UNet
from tests.workbench.toys import Restorer, convs, load, pair, read_rows
from workbench.findings import ModelInfo, read_findings
from workbench.findings.engine import Found
from workbench.watch.model_info import PENALTY, collect

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("fault", ["none", "dead", "rate", "frozen", "nan"])
def test_a_script_of_ones_own_names_its_fault_and_no_key_of_a_command_line(fault, monkeypatch, capsys):
    codes = {"dead": "dead-units", "rate": "learning-rate-high", "frozen": "parameters-unchanged"}
    script = REPOSITORY / "examples" / "watch_any_model.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--fault", fault])
    runpy.run_path(str(script), run_name="__main__")
    out = capsys.readouterr().out
    assert f"Faults: {codes.get(fault, 'nonfinite-loss' if fault == 'nan' else 'none')}" in out
    assert not any("--" in line for line in out.splitlines() if line.startswith("FAULT"))


# The project's models


def unet():
    torch.manual_seed(1)
    return UNet(widths=[8, 16], norm="none", skip="add", stage_residual=True, residual=True)


@pytest.fixture
def watched(fit):
    """Train, and return the codes of the faults as they stand in findings.jsonl."""

    def run(model, steps, val_check_interval, max_epochs):
        batches = [Batch(*pair(n, 4, (24, 24), channels=3), torch.arange(4)) for n in range(steps + 4)]
        loaders = [DataLoader(part, batch_size=None) for part in (batches[4:], batches[:4])]
        options = {"val_check_interval": val_check_interval, "max_epochs": max_epochs}
        fit(model, data=loaders, every_n_steps=10, log_every_n_steps=50, **options)
        run.findings = read_findings(fit.folder / "findings.jsonl")
        return [finding.code for finding in run.findings if finding.is_fault]

    return run


class DecoderOnly(ImageRestorer):
    """Its encoder is unfrozen in the second epoch, and its optimizer does not hold it."""

    def configure_optimizers(self):
        encoder = {id(p) for stage in stages_of(self.network) for part in stage for p in part.parameters()}
        return torch.optim.Adam([p for p in self.network.parameters() if id(p) not in encoder], lr=2e-3)


def test_a_part_that_no_optimizer_holds_once_it_is_unfrozen(watched):
    model = DecoderOnly(unet(), finetune=FineTuning("all", unfreeze={1: 1}))
    assert watched(model, 40, val_check_interval=40, max_epochs=2) == ["parameters-unchanged"]
    (finding,) = watched.findings
    assert finding.step >= 40 and "no optimizer holds it" in finding.advice
    assert finding.where.startswith(("encoder.1.", "down.", "middle."), len("network."))


@pytest.mark.parametrize("unfreeze", [{1: 1, 2: 2}, {2: 0}])
def test_what_is_unfrozen_or_frozen_again_is_no_fault(watched, unfreeze):
    adam = partial(torch.optim.Adam, lr=2e-3)
    model = ImageRestorer(unet(), optimizer=adam, finetune=FineTuning("all", unfreeze=unfreeze))
    assert watched(model, 15, val_check_interval=15, max_epochs=4) == []


# What is done about a fault


def test_an_alert_goes_to_weights_and_biases(monkeypatch):
    alerts = []
    logger = object.__new__(WandbLogger)
    monkeypatch.setattr(WandbLogger, "experiment", SimpleNamespace(alert=lambda **given: alerts.append(given)))
    watch = workbench.Watch()
    watch.recorder = SimpleNamespace(append=lambda *_: None)
    finding = watch.engine.rules[0].finding(Found("network", 1.0, 0.5, "Fix it."))
    watch._report(SimpleNamespace(loggers=[logger], progress_bar_callback=None), [finding])
    assert alerts == [{"title": finding.code, "text": finding.message(), "level": "WARN"}]


def test_the_command_stops_at_a_fault_with_everything_kept(small, capsys):
    run = small("stopped", "--model.init_args.optimizer.init_args.lr", "30", "--watch.on_fault", "stop")
    out = capsys.readouterr().out
    assert out.count("FAULT ") == 1 and "FAULT learning-rate-high" in out
    assert "--model.init_args.optimizer.init_args.lr 3" in out and "docs/faults.md#learning-rate-high" in out
    step = int(re.search(r"The run ends at step (\d+) because of that fault", out)[1])
    assert load(run)["global_step"] == step < 18
    assert [finding.code for finding in read_findings(run / "findings.jsonl")] == ["learning-rate-high"]


# What is known of a model


def info_of(model: L.LightningModule, *optimizers, command_line=True) -> ModelInfo:
    from lightning.pytorch.cli import SaveConfigCallback

    callbacks = [object.__new__(SaveConfigCallback)] if command_line else []
    trainer = SimpleNamespace(optimizers=list(optimizers), datamodule=None, ckpt_path=None, callbacks=callbacks)
    return collect(trainer, model)


def test_tensors_and_settings_of_a_restorer():
    network = UNet(widths=[4, 8], norm="batch")
    network.head.requires_grad_(False)
    model = ImageRestorer(network, l2=1e-4)
    model.perceptual = nn.Conv2d(3, 4, 3)
    model.backbone = nn.Conv2d(3, 4, 3).eval()
    held = [p for n, p in network.named_parameters() if "tail" not in n and p.requires_grad]
    info = info_of(model, torch.optim.AdamW(held, lr=3e-4, weight_decay=0.1))
    parameters = info.parameters
    assert "network.head.weight" not in parameters
    body = parameters["network.encoder.0.0.body.0.weight"]
    assert (body.network, body.role, body.fan_in, body.optimizer, body.helper) == ("network", "weight", 36, 0, False)
    assert parameters["network.up.0.weight"].fan_in == 8, "each output pixel sees one tap of a 2x2 kernel of stride 2"
    assert parameters["network.encoder.0.0.body.1.bias"].role == "gain"
    assert parameters["network.up.0.bias"].role == "bias"
    assert parameters["network.tail.weight"].optimizer is None
    assert parameters["perceptual.weight"].helper and parameters["backbone.weight"].helper
    assert info.networks() == ["network"] and not info.adversarial
    assert info.lower_rate("network") == "--model.init_args.optimizer.init_args.lr 3e-05"
    assert info.weight_decay["network"].value == 0.1 and info.decoupled == {"network"}
    assert info.penalties["train/l2_penalty"].set(1e-6) == "--model.init_args.l2 1e-06"
    assert info.higher_is_better == {"psnr": True, "ssim": True}
    for name in ("train/l1_penalty", "train/weight_decay", "train/kernel_regularization"):
        assert PENALTY.search(name)
    for name in ("train/gradient_penalty", "train/loss", "val/l1_penalty"):
        assert not PENALTY.search(name)


def test_networks_and_settings_of_a_gan_with_and_without_a_command_line():
    class GAN(L.LightningModule):
        def __init__(self, generator_optimizer=None, discriminator_optimizer=None):
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.discriminator = nn.Linear(2, 2), nn.Linear(2, 1)
            self.adversarial_weight = 2.0

    model = GAN()
    optimizers = [torch.optim.Adam(part.parameters(), lr=2e-4) for part in (model.generator, model.discriminator)]
    info = info_of(model, *optimizers)
    assert info.adversarial and info.discriminators == {"discriminator"}
    assert info.lower_rate("discriminator", 2) == "--model.init_args.discriminator_optimizer.init_args.lr 0.0001"
    assert info.losses["adversarial"].set(0.5) == "--model.init_args.adversarial_weight 0.5"
    assert info.clipping.set(0.1) == "--gradient_clipping.norm 0.1"
    info = info_of(model, *optimizers, command_line=False)
    assert info.lower_rate("discriminator", 2) == "the optimizer's lr = 0.0001"
    assert info.losses["adversarial"].set(0.5) == "adversarial_weight = 0.5"
    model.discriminators = {"generator"}
    assert info_of(model, *optimizers).discriminators == {"generator"}, "named by the module itself"


# Throughput


def test_samples_a_second_without_the_time_of_validations(fit, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("workbench.watch.watch.time", SimpleNamespace(perf_counter=lambda: clock.now))

    class Slow(Restorer):
        def training_step(self, batch, batch_idx):
            clock.now += 0.02
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            clock.now += 0.3

    fit(Slow(convs()), val_check_interval=4)
    rows = read_rows(fit.folder / "throughput.csv")
    speeds = [float(row["samples_per_second"]) for row in rows]
    assert speeds == pytest.approx([100.0] * 4)  # two images in 20 ms
    assert sys.platform == "win32" or 50 < float(rows[-1]["host_mib"]) < 50_000
