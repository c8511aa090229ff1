"""What the end-to-end tests of the errors leave out."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from workbench.parser import MOST_LINES, explain, known_keys


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("--data.batch_size", type=int)
    parser.add_argument("--data.crop", type=int)
    return parser


def test_known_keys_go_down_into_the_commands(parser):
    outer = ArgumentParser()
    outer.add_argument("--seed", type=int)
    outer.add_subcommands().add_subcommand("fit", parser)
    assert {"seed", "data.batch_size", "data.crop"} <= set(known_keys(outer))


def test_a_key_unlike_any_other_gets_its_neighbors(parser):
    text = explain("Option 'data.xyzzy' is not accepted", parser, ["--data.xyzzy", "3"])
    assert text == "Unknown option: --data.xyzzy\nThere are: batch_size, crop."


def test_a_long_message_is_cut_in_both_directions(parser):
    lines = explain("\n".join(["x" * 1000] * 50), parser, []).splitlines()
    assert len(lines) == MOST_LINES
    assert max(map(len, lines)) == 300


def test_the_file_that_holds_the_mistake_is_named(parser, tmp_path):
    for name, text in (("good.yaml", "data: {crop: 3}"), ("bad.yaml", "data: {croop: 3}")):
        (tmp_path / name).write_text(text)
    text = explain("Option 'data.croop' is not accepted", parser, ["--config", "good.yaml", "--config=bad.yaml"])
    assert text == "Unknown option: bad.yaml: data.croop\nDid you mean data.crop?"


def test_a_config_that_is_no_yaml_does_not_hide_the_message(parser, tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [")
    assert explain("Something else", parser, ["--config", "bad.yaml"]) == "Something else"
