"""The configuration's words lead to the right source, or to an error that names the right word."""

import pytest

from project.data.cache import Cache
from project.data.demo import PHOTOGRAPHS
from project.data.sources import find_entries, partners
from workbench.errors import UserError


def find(tmp_path, source="demo", root=None, target_root=None):
    return find_entries(source, root, target_root, Cache(tmp_path / "cache"))


def test_demo(tmp_path):
    assert len(find(tmp_path)) == len(PHOTOGRAPHS)


@pytest.mark.parametrize("source", ["demo", "folder", "CIFAR10"])
def test_a_root_wins_over_every_source(tmp_path, source):
    (tmp_path / "a.png").touch()
    assert [entry.name for entry in find(tmp_path, source, str(tmp_path))] == ["a.png"]
    assert [entry.name for entry in find(tmp_path, source, [str(tmp_path)])] == ["a.png"]


def test_a_class_path(tmp_path, monkeypatch):
    (tmp_path / "own_pictures.py").write_text(
        "from project.data.images import Entry\n"
        "class Mine:\n"
        "    def find(self):\n"
        "        return [Entry('/somewhere/a.png', 'a.png')]\n"
        "class Other: pass\n"
        "class Pairs(Mine):\n"
        "    paired = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [entry.name for entry in find(tmp_path, "own_pictures.Mine")] == ["a.png"]
    assert partners("own_pictures.Mine", None, None) is None
    assert partners("own_pictures.Pairs", None, None) == "data.source own_pictures.Pairs"
    assert partners("own_pictures.Pairs", "pictures", None) is None
    with pytest.raises(UserError, match="no find"):
        find(tmp_path, "own_pictures.Other")
    with pytest.raises(UserError, match=r"own_pictures.Nothing cannot be made"):
        find(tmp_path, "own_pictures.Nothing")
    with pytest.raises(UserError, match=r"no_such_module.X cannot be made"):
        find(tmp_path, "no_such_module.X")


@pytest.mark.parametrize(
    ("typo", "meant"), [("CIFAR1O", "CIFAR10"), ("flowers102", "Flowers102"), ("dem", "demo"), ("Drawing", "drawings")]
)
def test_a_typo_gets_the_nearest_name(tmp_path, typo, meant):
    with pytest.raises(UserError, match=rf"--data.source {typo} is unknown; did you mean {meant}\?"):
        find(tmp_path, typo)


def test_which_key_gives_the_partners():
    assert partners("demo", None, None) is None
    assert partners("CIFAR10", None, None) is None
    assert partners("drawings", None, None) == "data.source drawings"
    assert partners("drawings", "pictures", None) is None
    assert partners("drawings", "pictures", "colors") == "data.target_root"


def test_impossible_combinations_name_their_keys(tmp_path):
    with pytest.raises(UserError, match=r"--data.source folder needs --data.root"):
        find(tmp_path, "folder")
    with pytest.raises(UserError, match=r"--data.target_root needs --data.root"):
        find(tmp_path, "demo", target_root=str(tmp_path))
    with pytest.raises(UserError, match="not with several"):
        find(tmp_path, "folder", [str(tmp_path), str(tmp_path / "b")], str(tmp_path))


@pytest.mark.parametrize(("root", "target_root"), [("", None), ([], None), (["here", ""], None), ("here", "")])
def test_an_empty_name_is_no_folder(tmp_path, root, target_root):
    """Such as a shell's unset variable: neither the demo's images nor the working directory's."""
    with pytest.raises(UserError, match="an empty name was given"):
        find(tmp_path, root=root, target_root=target_root)
