from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from workbench.errors import UserError
from workbench.parser import differences, expand_args, values
from workbench.run import point_latest_at, start_run

CONFIG = {"name": "sharp", "model": {"class_path": "a.B"}, "trainer": {"devices": 8}, "data": {"crop": 24}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": {}, "config": yaml.safe_dump(CONFIG)}, path)
    return str(path)


def _added_config(words: list[str]) -> dict:
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


def test_the_first_config_names_the_run_before_what_the_configs_themselves_say(tmp_path):
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("{}")
    argv = ["fit", "--config", "one.yaml", "--config=two.yaml"]
    assert expand_args(argv) == ["fit", "--name", "one", *argv[1:]]
    argv += ["--name", "mine"]
    assert expand_args(argv) == argv


def test_a_checkpoint_brings_its_configuration_but_for_the_trainer_of_another_machine(checkpoint):
    for command in ("test", "validate"):
        argv = [command, "--ckpt_path", checkpoint, "--data.crop", "32"]
        words = expand_args(argv)
        assert words[-4:] == argv[1:], "what is typed comes last, and wins"
        assert _added_config(words) == {key: value for key, value in CONFIG.items() if key != "trainer"}
    argv = ["fit", f"--ckpt_path={checkpoint}"]
    assert _added_config(expand_args(argv)) == CONFIG


def test_a_resumed_run_brings_its_own_configuration():
    run = start_run("runs", "sharp")
    run.last_checkpoint.parent.mkdir()
    run.last_checkpoint.write_bytes(b"")
    point_latest_at(run)
    words = expand_args(["fit", "--name", "sharp", "--resume", "latest"])
    assert words[:3] == ["fit", "--config", str(run.folder / "config.yaml")]


def test_a_part_for_a_machine_does_not_hide_what_the_run_was(checkpoint, tmp_path):
    run = start_run("runs", "sharp")
    run.last_checkpoint.parent.mkdir()
    run.last_checkpoint.write_bytes(b"")
    (tmp_path / "ddp.yaml").write_text("trainer: {devices: 2}")
    part = ["--config", "ddp.yaml"]
    words = expand_args(["fit", "--name", "sharp", "--resume", run.version, *part])
    assert words[:3] == ["fit", "--config", str(run.folder / "config.yaml")] and words[-2:] == part
    words = expand_args(["test", "--ckpt_path", checkpoint, *part])
    assert _added_config(words)["name"] == "sharp" and words[-2:] == part


@pytest.mark.parametrize(
    "argv",
    [
        ["fit", "-h"],
        ["fit", "--help"],
        ["fit", "--model.help", "a.B"],
    ],
)
def test_help_needs_nothing(argv):
    assert expand_args(argv) == argv


def test_a_value_may_be_called_help(tmp_path):
    (tmp_path / "one.yaml").write_text("{}")
    assert expand_args(["fit", "--config", "one.yaml", "--data.root", "help"])[1:3] == ["--name", "one"]


def test_without_anything_to_go_by_the_configs_are_named(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sharpen.yaml").write_text("{}")
    with pytest.raises(UserError, match=r"'test' needs --config FILE or --ckpt_path FILE.\n.*sharpen.yaml"):
        expand_args(["test"])


def test_differences_name_changed_added_and_removed_keys():
    saved = {"data": {"a": 1, "b": [1, 2]}, "model": {"x": {"y": None}}, "trainer": {"devices": 1}}
    now = {"data": {"a": 2, "b": [1, 2], "c": 3}, "model": {"x": {"y": None}}, "trainer": {"devices": 2}}
    assert differences(saved, now) == ["data.a 1 -> 2", "data.c None -> 3"]
