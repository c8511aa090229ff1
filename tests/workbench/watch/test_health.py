from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from torch import nn
from torch.utils.data import DataLoader

from project.data.batch import Batch
from project.models import FineTuning, ImageRestorer
from project.models.finetune import stages_of
from project.networks import UNet
from workbench.errors import UserError
from workbench.findings.finding import read
from workbench.watch.activations import Activations
from workbench.watch.dead_units import DeadUnits
from workbench.watch.gradient_flow import GradientFlow
from workbench.watch.health import Health
from workbench.watch.recorder import Recorder
from workbench.watch.update_ratio import UpdateRatio


class Pictures(L.LightningDataModule):
    """Smooth waves of two colors, and noise: enough for a small network to learn something in some dozens of steps."""

    normalization = {"input": ([0.5] * 3, [0.25] * 3), "target": ([0.5] * 3, [0.25] * 3)}  # noqa: RUF012

    def __init__(self, steps: int, spoil=lambda pair, step: pair) -> None:
        super().__init__()
        self.steps, self.spoil = steps, spoil

    def _pair(self, seed: int, count: int = 4, size: int = 24) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        angle, phase = torch.rand(2, count, 3, 1, 1, generator=generator) * 6.28
        place = torch.arange(size) / size * 6.28
        target = 0.5 + 0.4 * torch.sin(place[:, None] * angle.cos() + place * angle.sin() + phase)
        noisy = target + 0.1 * torch.randn(target.shape, generator=generator)
        return Batch(noisy, target, noisy, *[torch.arange(count)] * 2)

    def train_dataloader(self):
        return DataLoader([self.spoil(self._pair(n), n) for n in range(self.steps)], batch_size=None)

    def val_dataloader(self):
        return DataLoader([self.spoil(self._pair(10**6 + n), -1) for n in range(4)], batch_size=None)


def unet(**more):
    torch.manual_seed(more.pop("seed", 1))
    return UNet(**{"widths": [8, 16], "norm": "none", "skip": "add", "stage_residual": True, "residual": True, **more})


def restorer(network=None, lr=2e-3, optimizer=torch.optim.Adam, **more):
    options = more.pop("options", {})
    return ImageRestorer(network or unet(), optimizer=lambda p: optimizer(p, lr=lr, **options), **more)


class Watched:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, model, steps=80, spoil=lambda pair, step: pair, callbacks=(), on_fault="continue", **options):
        monitors = [GradientFlow(), UpdateRatio(), DeadUnits(), Activations()]
        self.health = Health(on_fault=on_fault)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
        quiet |= {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False, "val_check_interval": 40}
        quiet["logger"] = CSVLogger(self.folder, name="", version="run")
        self.trainer = L.Trainer(callbacks=[*monitors, *callbacks, self.health], **{**quiet, **options})
        self.trainer.fit(model, Pictures(steps, spoil))
        self.findings = read(self.folder / "run" / "findings.jsonl") if self.trainer.logger else self.health.findings
        return [finding.code for finding in self.findings if finding.is_fault]


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


# Healthy runs


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"norm": "batch", "residual": False, "stage_residual": False, "skip": "concat"},
        {"activation": "leaky_relu", "norm": "group"},
        {"activation": "gelu", "widths": [6, 12, 24]},
        {"dropout": 0.1, "activation": "silu"},
    ],
)
def test_a_network_that_learns_has_no_faults(watched, network):
    assert watched(restorer(unet(**network))) == []
    assert (watched.folder / "run" / "findings.jsonl").is_file()


@pytest.mark.parametrize("lr", [6e-4, 6e-3])
def test_nor_has_one_at_a_third_or_three_times_the_rate(watched, lr):
    assert watched(restorer(lr=lr)) == []


def test_nor_with_frozen_layers_a_tail_of_zeros_accumulation_and_bfloat16(watched):
    network = unet()
    network.head.requires_grad_(False)
    nn.init.zeros_(network.tail.weight)
    assert watched(restorer(network), precision="bf16-mixed", accumulate_grad_batches=2) == []


# Planted faults


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_rate_a_thousand_times_too_high(watched, optimizer):
    lr = 2.0 if optimizer is torch.optim.Adam else 1000.0
    assert watched(restorer(lr=lr, optimizer=optimizer))[0] == "learning-rate-high"


def test_a_rate_a_thousand_times_too_low(watched):
    assert watched(restorer(lr=1e-6)) == ["learning-rate-low"]


def test_units_killed_by_their_biases(watched):
    network = unet(norm="none")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "middle" in name and name.endswith("bias"):
                parameter.fill_(-10.0)
    codes = watched(restorer(network))
    assert codes[0] == "dead-units"
    assert watched.findings[0].where.startswith("network.middle")


def test_gradients_set_to_zero(watched):
    class Zero(L.Callback):
        def on_after_backward(self, trainer, pl_module):
            for parameter in pl_module.network.parameters():
                parameter.grad.zero_()

    assert watched(restorer(), callbacks=[Zero()]) == ["parameters-unchanged"]


def test_a_part_that_no_optimiser_holds(watched):
    class Half(ImageRestorer):
        def configure_optimizers(self):
            return torch.optim.Adam([p for n, p in self.network.named_parameters() if "decoder" not in n], lr=2e-3)

    assert watched(Half(unet())) == ["parameters-unchanged"]
    assert "decoder" in watched.findings[0].where


class DecoderOnly(ImageRestorer):
    """Its encoder is unfrozen in the second epoch, and its optimizer was never told."""

    def configure_optimizers(self):
        encoder = {id(p) for stage in stages_of(self.network) for part in stage for p in part.parameters()}
        return torch.optim.Adam([p for p in self.network.parameters() if id(p) not in encoder], lr=2e-3)


def test_a_part_that_no_optimiser_holds_once_it_is_to_learn(watched):
    model = DecoderOnly(unet(), finetune=FineTuning("all", unfreeze={1: 1}))
    assert watched(model, steps=40, max_epochs=2) == ["parameters-unchanged"]
    assert watched.findings[0].step >= 40 and "no optimizer holds it" in watched.findings[0].advice
    assert watched.findings[0].where.startswith(("encoder.1.", "down.", "middle."), len("network."))


@pytest.mark.parametrize("unfreeze", [{1: 0}, {1: 1, 2: 2}, {2: 0}])
def test_what_is_unfrozen_or_frozen_again_is_no_fault(watched, unfreeze):
    model = restorer(finetune=FineTuning("all", unfreeze=unfreeze))
    assert watched(model, steps=15, max_epochs=4, val_check_interval=15) == []


def test_gradients_that_nobody_clears(watched):
    class Forgetful(ImageRestorer):
        def optimizer_zero_grad(self, *_):
            pass

    assert watched(Forgetful(unet(), optimizer=lambda p: torch.optim.Adam(p, lr=2e-3)))[0] == "gradients-not-cleared"


def test_not_a_number_in_the_data(watched):
    def spoil(pair, step):
        return pair._replace(input=pair.input * math.nan) if step == 33 else pair

    assert watched(restorer(), spoil=spoil) == ["nonfinite-loss"]
    assert watched.findings[0].step == 33


def test_targets_that_do_not_belong_to_the_inputs(watched):
    def spoil(pair, step):
        return pair._replace(target=torch.rand_like(pair.target))

    assert watched(restorer(), spoil=spoil, steps=300) == ["loss-flat"]


def test_a_penalty_that_outweighs_the_data(watched):
    assert watched(restorer(l2=3.0), steps=160)[0] == "regularization-dominates"


# What is done about it


def test_stop_ends_the_run_and_keeps_a_checkpoint(watched, capsys):
    watched(restorer(lr=2.0), on_fault="stop")
    assert watched.trainer.global_step in (10, 20)
    assert (watched.folder / "run" / "checkpoints" / "last.ckpt").is_file()
    out = capsys.readouterr().out
    assert out.count("FAULT learning-rate-high") == 1
    assert "The run ends at step" in out and "docs/faults.md#learning-rate-high" in out


def test_a_checkpoint_callback_saves_the_stopped_run_itself(watched, tmp_path):
    saving = ModelCheckpoint(tmp_path / "own", save_top_k=1, every_n_train_steps=1)
    watched(restorer(lr=2.0), on_fault="stop", callbacks=[saving], enable_checkpointing=True)
    assert list((tmp_path / "own").glob("*.ckpt"))
    assert not (watched.folder / "run" / "checkpoints" / "last.ckpt").exists()


def test_an_alert_goes_to_weights_and_biases(watched, monkeypatch):
    alerts = []
    logger = object.__new__(WandbLogger)
    monkeypatch.setattr(WandbLogger, "experiment", SimpleNamespace(alert=lambda **given: alerts.append(given)))
    health = Health()
    health.recorder = Recorder(nn.Linear(1, 1))
    finding = health.judge.rules[0].fault(3, "network", 1.0, 0.0, "Mend it.")
    trainer = SimpleNamespace(loggers=[logger], is_global_zero=False, progress_bar_callback=None)
    health._tell(trainer, [finding])
    assert alerts == [{"title": finding.code, "text": finding.sentence(), "level": "WARN"}]


def test_a_resumed_run_repeats_nothing():
    health, resumed = Health(), Health()
    health.judge.faults.append("loss-flat")
    resumed.load_state_dict(health.state_dict())
    assert resumed.judge.faults == ["loss-flat"] and resumed.state_dict() == health.state_dict()


def test_switched_off_it_writes_nothing(watched):
    class Off(Health):
        def __init__(self, **more):
            super().__init__(every_n_steps=0)

    trainer = L.Trainer(
        callbacks=[Off()], logger=CSVLogger(watched.folder, name="", version="off"), max_steps=3, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(restorer(), Pictures(3))
    assert not (watched.folder / "off" / "findings.jsonl").exists()


@pytest.mark.parametrize("options", [{"on_fault": "explode"}, {"every_n_steps": -1}])
def test_impossible_options_are_told(options):
    with pytest.raises(UserError, match="health"):
        Health(**options)


def test_the_command_stops_at_a_fault_with_everything_kept(small, capsys):
    run = small("stopped", "--model.init_args.optimizer.init_args.lr", "30", "--health.on_fault", "stop")
    out = capsys.readouterr().out
    assert out.count("FAULT ") == 1 and "FAULT learning-rate-high" in out
    step = int(re.search(r"The run ends at step (\d+) because of that fault", out)[1])
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == step < 18
    assert [finding.code for finding in read(run / "findings.jsonl")] == ["learning-rate-high"]


def test_profile_names_the_parts_of_a_step_in_one_table(small, capsys):
    run = small("timed", "--profile")
    out = capsys.readouterr().out
    assert out.count("A step takes") == 1
    for part in ("forward", "backward", "optimizer", "data: waiting for the loader", "rest: logging, Lightning"):
        assert f"  {part} " in out
    assert "A step takes" in (run / "profile.txt").read_text()
    assert (run / "findings.jsonl").is_file()
