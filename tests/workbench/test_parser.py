"""Command lines: what need not be typed, what the end-to-end tests of the errors leave out, the help."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from project.__main__ import main
from workbench.errors import UserError
from workbench.parser import MAX_LINES, expand_args, explain, known_keys, read_options, split_data_args, values
from workbench.run import point_latest_at, start_run

CONFIG = {"name": "sharp", "model": {"class_path": "a.B"}, "trainer": {"devices": 8}, "data": {"crop": 24}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    torch.save({"state_dict": {}, "config": yaml.safe_dump(CONFIG)}, tmp_path / "best.ckpt")
    return str(tmp_path / "best.ckpt")


@pytest.fixture
def saved_run():
    run = start_run("runs", "sharp")
    run.last_checkpoint.parent.mkdir()
    run.last_checkpoint.write_bytes(b"")
    point_latest_at(run)
    return run


def added_config(words: list[str]) -> dict:
    return yaml.safe_load(words[words.index("--config") + 1])


def test_values_in_both_spellings():
    words = ["--name", "a", "--other", "x", "--name=b=c", "--named", "d"]
    assert values(words, "--name") == ["a", "b=c"]


def test_profile_alone_times_some_steps(tmp_path):
    (tmp_path / "one.yaml").write_text("{}")
    argv = ["fit", "--config", "one.yaml", "--name", "mine"]
    assert expand_args([*argv, "--profile"])[-1] == "--profile.steps=50"
    assert expand_args([argv[0], "--profile", *argv[1:]])[1] == "--profile.steps=50"
    assert expand_args([*argv, "--profile", "own.yaml"])[-2:] == ["--profile", "own.yaml"]


def test_the_first_config_names_the_run_unless_a_name_is_given(tmp_path):
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("{}")
    argv = ["fit", "--config", "one.yaml", "--config=two.yaml"]
    assert expand_args(argv) == ["fit", "--name", "one", *argv[1:]]
    assert expand_args([*argv, "--name", "mine"]) == [*argv, "--name", "mine"]
    assert expand_args([*argv, "--data.root", "help"])[1:3] == ["--name", "one"], "a value may be called help"


@pytest.mark.parametrize("class_path", [None, "a.Data"])
def test_a_checkpoint_brings_its_configuration_without_the_trainer(tmp_path, class_path):
    data = CONFIG["data"] if class_path is None else {"class_path": class_path, "init_args": CONFIG["data"]}
    config = {**CONFIG, "data": data}
    torch.save({"state_dict": {}, "config": yaml.safe_dump(config)}, tmp_path / "best.ckpt")
    for command in ("test", "validate"):
        argv = [command, "--ckpt_path", "best.ckpt", "--data.crop", "32"]
        words = expand_args(argv)
        assert words[-4:] == argv[1:], "what is typed comes last, and wins"
        assert added_config(words) == {key: value for key, value in config.items() if key != "trainer"}
    assert added_config(expand_args(["fit", "--ckpt_path=best.ckpt"])) == config


def test_a_config_for_a_machine_does_not_replace_the_runs_own(saved_run, checkpoint, tmp_path):
    (tmp_path / "ddp.yaml").write_text("trainer: {devices: 2}")
    for part in ([], ["--config", "ddp.yaml"]):
        for version in ("latest", saved_run.version):
            words = expand_args(["fit", "--name", "sharp", "--resume", version, *part])
            assert words[:3] == ["fit", "--config", str(saved_run.folder / "config.yaml")]
        words = expand_args(["test", "--ckpt_path", checkpoint, *part])
        assert added_config(words)["name"] == "sharp" and (not part or words[-2:] == part)


@pytest.mark.parametrize("argv", [["fit", "-h"], ["fit", "--help"], ["fit", "--model.help", "a.B"]])
def test_help_needs_nothing(argv):
    assert expand_args(argv) == argv


def test_without_anything_to_start_from_the_configs_are_listed(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sharpen.yaml").write_text("{}")
    with pytest.raises(UserError, match=r"'test' needs --config FILE or --ckpt_path FILE.\n.*sharpen.yaml"):
        expand_args(["test"])


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(prog="project predict", exit_on_error=False)
    parser.add_argument("--size.batch", type=int)
    parser.add_argument("--size.crop", type=int)
    return parser


def test_known_keys_include_those_of_the_commands(parser):
    outer = ArgumentParser()
    outer.add_argument("--seed", type=int)
    outer.add_subcommands().add_subcommand("fit", parser)
    assert {"seed", "size.batch", "size.crop"} <= set(known_keys(outer))


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("size.xyzzy", {}, "Unknown option: --size.xyzzy\nThere are: batch, crop."),
        (
            "size.croop",
            {"good": "size: {crop: 3}", "bad": "size: {croop: 3}"},
            "Unknown option: bad: size.croop\nDid you mean size.crop?",
        ),
    ],
)
def test_an_unknown_key_gets_its_file_and_the_nearest_key(parser, tmp_path, name, files, expected):
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    words = [word for file in files for word in ("--config", file)] or [f"--{name}", "3"]
    assert explain(f"Option '{name}' is not accepted", parser, words) == expected


def test_long_messages_are_cut_and_broken_configs_do_not_hide_them(parser, tmp_path):
    lines = explain("\n".join(["x" * 1000] * 50), parser, []).splitlines()
    assert len(lines) == MAX_LINES and max(map(len, lines)) == 300
    (tmp_path / "bad.yaml").write_text("a: [")
    assert explain("Something else", parser, ["--config", "bad.yaml"]) == "Something else"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--size.bach", "3"],
            r"Unknown option: --size\.bach\nDid you mean size\.batch\?\n.*predict --help",
        ),
        (["--size.batch", "many"], r"size\.batch: expected a value of type int, got many"),
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
        assert f"  --{key} " in text or f"  --{key}\n" in text, key
    assert "images, of any depth" in text, "the text of a docstring"
    assert "[0.999]" in text, "a default"
    assert "==SUPPRESS==" not in text
    assert len(lines) < 180 and max(map(len, lines)) <= 120
    assert len(printed_help(capsys, "fit", "--help", "--all")) > 2 * len(lines)


def test_the_help_of_a_class_names_its_arguments(capsys):
    lines = printed_help(capsys, "fit", "--model.help", "project.models.ImageRestorer")
    assert len(lines) < 100, "without a list of every class that could be named"
    assert "--model.init_args.l1" in "\n".join(lines) or "--model.l1" in "\n".join(lines)
