"""The demo needs no network, and its list agrees with what the wheel carries."""

import importlib.util
from types import SimpleNamespace

import pytest

from project.data import demo
from project.data.cache import Cache
from project.data.demo import PHOTOGRAPHS, Demo
from project.data.images import decode
from project.data.index import index_pictures
from workbench.errors import UserError


def test_every_photograph_is_there_and_good(tmp_path):
    pictures = index_pictures(Demo().find(), cache=Cache(tmp_path), min_size=256, workers=2)
    assert [picture.name for picture in pictures] == [photo.file for photo in PHOTOGRAPHS]
    assert len({picture.digest for picture in pictures}) == 12


def test_the_terms_are_public_domain_or_cc0():
    assert {photo.term for photo in PHOTOGRAPHS} == {"public domain", "CC0"}
    assert all(photo.credit for photo in PHOTOGRAPHS)


def test_six_are_in_color_and_listed_first():
    colorful = [bool((decode(entry.path, 3).std(axis=2) > 1).any()) for entry in Demo().find()]
    assert colorful == [True] * 6 + [False] * 6


def test_an_installation_without_them_says_the_way_out(monkeypatch, tmp_path):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"--data.root FOLDER"):
        Demo().find()


def test_an_installation_with_fewer_says_so(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "camera.png").touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: spec)
    with pytest.warns(UserWarning, match="1 of the 12"):
        assert [entry.name for entry in Demo().find()] == ["camera.png"]
