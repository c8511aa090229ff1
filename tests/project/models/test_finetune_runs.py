"""The commands on a network with a frozen, pretrained encoder, whose weights lie in a file that is made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from torchvision.models import get_model

from project.__main__ import main
from workbench.findings.checks import learning

NAME = "mobilenet_v3_small"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    torch.save(get_model(NAME, weights=None).state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def config(tmp_path: Path, make_images, weights: Path) -> Path:
    network = {"backbone": NAME, "weights": str(weights), "stages": 2, "widths": [4, 6, 8], "residual": True}
    model = {
        "network": {"class_path": "project.networks.BackboneUNet", "init_args": network},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}},
        "scheduler": {"class_path": "project.models.WarmupCosine"},
        "finetune": {"freeze_stages": "all", "unfreeze": {2: 1}, "encoder_rate": 0.1},
    }
    data = {"root": str(make_images(10, 52, 41)), "crop": 24, "batch_size": 4, "crops_per_image": 4}
    trainer = {"accelerator": "cpu", "max_steps": 18, "check_val_every_n_epoch": None, "val_check_interval": 6}
    path = tmp_path / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "model": {"class_path": "project.models.ImageRestorer", "init_args": model},
                "data": {**data, "num_workers": 0},
                "trainer": {**trainer, "log_every_n_steps": 1},
            }
        )
    )
    return path


def fit(config: Path, *words: str) -> Path:
    assert main(["fit", "--config", str(config), "--wandb", "off", *words]) == 0
    return Path("runs/tiny/latest").resolve()


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_declared_freeze_is_no_fault_and_a_checkpoint_needs_no_weights_file(config, weights, tmp_path, capsys):
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
    assert "its optimizer held other parameters" in capsys.readouterr().err
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
    monkeypatch.setattr(learning.CannotOverfit, "pixels", 4 * 24 * 24)
    assert main(["check", "--config", str(config)]) in (0, 1)
    printed = " ".join(capsys.readouterr().out.split())
    (folder,) = Path("runs/tiny").glob("*-check")
    codes = [json.loads(line)["code"] for line in (folder / "findings.jsonl").read_text().splitlines()]
    assert not {"frozen-parameters", "parameters-not-optimized", "pretrained-range", "input-not-centred"} & set(codes)
    assert "parameters are trained: detail, lateral, up, join, decoder, tail; frozen: encoder" in printed
    assert "Rates rest 0.005, stage 2 0.0005 " in printed
