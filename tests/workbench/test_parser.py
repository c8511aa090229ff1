"""Command lines: what need not be typed, what the end-to-end tests of the errors leave out, the help."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from project.__main__ import main
from workbench.errors import UserError
from workbench.parser import expand_args, read_options, split_data_args
from workbench.run import point_latest_at, start_run

CONFIG = {"name": "sharp", "model": {"class_path": "a.B"}, "trainer": {"devices": 8}, "data": {"crop": 24}}


def write(**files: str) -> None:
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text)


def added_config(words: list[str]) -> dict:
    return yaml.safe_load(words[words.index("--config") + 1])


def test_what_a_config_adds():
    write(one="{}", two="{}")
    argv = ["fit", "--config", "one.yaml", "--config=two.yaml"]
    assert expand_args(argv) == ["fit", "--name", "one", *argv[1:]], "the first config names the run"
    assert expand_args([*argv, "--name", "mine"]) == [*argv, "--name", "mine"]
    assert expand_args([*argv, "--data.root", "help"])[1:3] == ["--name", "one"], "a value may be called help"
    assert expand_args([argv[0], "--profile", *argv[1:]])[3] == "--profile.steps=50"
    assert expand_args(["fit", "-h"]) == ["fit", "-h"]


@pytest.mark.parametrize("data", [{"crop": 24}, {"class_path": "a.Data", "init_args": {"crop": 24}}])
def test_a_checkpoint_brings_its_configuration_without_the_trainer(data):
    config = {**CONFIG, "data": data}
    torch.save({"state_dict": {}, "config": yaml.safe_dump(config)}, "best.ckpt")
    for command in ("test", "validate"):
        argv = [command, "--ckpt_path", "best.ckpt", "--data.crop", "32"]
        words = expand_args(argv)
        assert words[-4:] == argv[1:], "what is typed comes last, and wins"
        assert added_config(words) == {key: value for key, value in config.items() if key != "trainer"}
    assert added_config(expand_args(["fit", "--ckpt_path=best.ckpt"])) == config


def test_a_config_for_a_machine_does_not_replace_the_runs_own():
    write(ddp="trainer: {devices: 2}")
    torch.save({"state_dict": {}, "config": yaml.safe_dump(CONFIG)}, "best.ckpt")
    run = start_run("runs", "sharp")
    run.last_checkpoint.parent.mkdir()
    run.last_checkpoint.write_bytes(b"")
    point_latest_at(run)
    for part in ([], ["--config", "ddp.yaml"]):
        for version in ("latest", run.version):
            words = expand_args(["fit", "--name", "sharp", "--resume", version, *part])
            assert words[:3] == ["fit", "--config", str((run.folder / "config.yaml").absolute())]
        words = expand_args(["test", "--ckpt_path", "best.ckpt", *part])
        assert added_config(words)["name"] == "sharp" and (not part or words[-2:] == part)


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(prog="project predict", exit_on_error=False)
    parser.add_argument("--size.batch", type=int)
    parser.add_argument("--size.crop", type=int)
    return parser


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--size.bach", "3"], r"Unknown option: --size\.bach\nDid you mean size\.batch\?\n.*predict --help"),
        (["--size.xyzzy", "3"], r"Unknown option: --size\.xyzzy\n.*predict --help"),
        (["--size.batch", "many"], r"--size\.batch: expected int. Got value: many"),
    ],
)
def test_options_of_other_commands(parser, words, expected):
    assert read_options(parser, ["--size.batch", "3"]).size.batch == 3
    with pytest.raises(UserError, match=expected):
        read_options(parser, words)


def test_data_arguments_are_split_off():
    words = ["--a", "1", "--data.root", "x", "--b", "--data.crop=3", "--data.seed"]
    assert split_data_args(words) == (["--a", "1", "--b"], ["--data.root", "x", "--data.crop=3", "--data.seed"])


def printed_help(capsys, *words: str) -> list[str]:
    with pytest.raises(SystemExit) as stop:
        main([*words])
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_the_help_of_a_command_is_short(capsys):
    lines = printed_help(capsys, "fit", "--help")
    text = "\n".join(lines)
    for key in ("config", "resume", "data.root", "trainer.max_steps", "early_stopping.patience", "ema.decay"):
        assert text.count(f"  --{key} ") == 1, key
    assert "images, of any depth" in text and "[0.999]" in text, "a docstring and a default"
    assert "==SUPPRESS==" not in text
    assert len(lines) < 190 and max(map(len, lines)) <= 120
    lines = printed_help(capsys, "fit", "--model.help", "project.models.ImageRestorer")
    assert len(lines) < 100, "without a list of every class that could be named"
    assert "--model.init_args.l1" in "\n".join(lines) or "--model.l1" in "\n".join(lines)
