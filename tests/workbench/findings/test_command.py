"""The command from end to end: its exit codes, its table, and what it leaves in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from project.__main__ import main
from project.data.checks import CHECKS
from workbench.findings import training_rules
from workbench.findings.checks import all_checks, learning

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path, make_images, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty images, and a tiny network that learns them."""
    monkeypatch.setattr(learning, "PIXELS", 4 * 24 * 24)
    unet = {"widths": [8, 12], "norm": "none", "residual": True}
    model = {
        "network": {"class_path": "project.networks.UNet", "init_args": unet},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}},
        "scheduler": {"class_path": "project.models.WarmupCosine"},
    }
    tree = {
        "model": {"class_path": "project.models.ImageRestorer", "init_args": model},
        "data": {"root": str(make_images(20, 52, 41, "images")), "crop": 24, "batch_size": 4, "num_workers": 0},
        "trainer": {"accelerator": "cpu", "max_steps": 30},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _findings() -> list[dict]:
    (file,) = Path("runs/tiny").glob("*-check/findings.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_healthy_configuration_passes(config, capsys):
    assert main(["check", "--config", str(config), "--data.batch_size", "7"]) == 0  # more than are drawn
    printed = capsys.readouterr().out
    assert not [finding for finding in _findings() if finding["severity"] == "fault"]
    for check in all_checks(CHECKS):
        assert check.code in printed
    (folder,) = Path("runs/tiny").glob("*-check")
    images = {f"{name}.png" for name in ("batch", "second_batch", "train_and_val", "input_histogram")}
    assert {path.name for path in folder.iterdir()} == {"findings.jsonl", *images}
    assert str(folder) in printed.replace("\n", "")
    assert (folder / "batch.png").read_bytes() != (folder / "second_batch.png").read_bytes()
    assert not list(Path("runs/tiny").glob("*[0-9]"))  # no training run was begun


def test_a_fault_ends_with_exit_code_1_and_says_what_to_change(config, capsys):
    words = ["--model.init_args.network.init_args.activation", "identity"]
    assert main(["check", "--config", str(config), *words]) == 1
    (finding,) = [finding for finding in _findings() if finding["severity"] == "fault"]
    assert finding["code"] == "missing-nonlinearity"
    assert finding.keys() == {"code", "severity", "step", "where", "value", "limit", "advice"}
    assert "docs/faults.md#missing-nonlinearity" in finding["advice"]
    printed = capsys.readouterr().out
    assert "fault missing-nonlinearity" in printed and finding["advice"] in printed


def test_only_broken_images_are_a_fault_too(config, tmp_path, capsys):
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"none")
    assert main(["check", "--config", str(config)]) == 1
    assert [finding["code"] for finding in _findings()] == ["unreadable-image"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.crop", "0"], "data.crop is 0"),
        (["--data.croop", "24"], "Did you mean data.crop?"),
        (["--ckpt_path", "x.ckpt"], "check"),
        (["--data.root", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_of_the_user_ends_in_a_few_lines(config, capsys, words, message):
    assert main(["check", "--config", str(config), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not Path("runs").exists()


def test_every_rule_and_check_has_a_code_of_its_own_and_a_section_in_the_docs():
    text = (REPOSITORY / "docs" / "faults.md").read_text()
    codes = [rule.code for rule in (*training_rules(), *all_checks(CHECKS))]
    assert len(set(codes)) == len(codes) == 24 + 25
    assert [code for code in codes if f"### {code}\n" not in text] == []
