"""What is listed below a folder, by names alone: the files here hold nothing."""

import os
from pathlib import Path

import pytest

from project.data import folder as folder_module
from project.data.folder import Folder, walk
from workbench.errors import UserError


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def names(entries):
    return [entry.name for entry in entries]


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(folder_module, "tell", lines.append)
    return lines


def test_any_depth_any_case_any_letters_sorted(tmp_path):
    make(tmp_path, "b.JPG", "a.jpeg", "deep/er/ü ß.WebP", "deep/日本.tiff", "c.bmp")
    assert names(Folder(str(tmp_path)).find()) == ["a.jpeg", "b.JPG", "c.bmp", "deep/er/ü ß.WebP", "deep/日本.tiff"]


def test_other_files_are_left_aside_with_a_count_and_hidden_ones_without(tmp_path, said):
    make(
        tmp_path, "a.png", "notes.txt", "more.txt", "x.json", ".DS_Store", "Thumbs.db", ".git/b.png", ".c.png", "README"
    )
    assert names(Folder(str(tmp_path)).find()) == ["a.png"]
    assert len(said) == 1
    assert "4 files that are no images" in said[0]
    assert "2 .txt" in said[0]


def test_tags_are_the_first_folders(tmp_path):
    make(tmp_path, "a.png", "cat/b.png", "dog/young/c.png")
    assert [entry.tag for entry in Folder(str(tmp_path)).find()] == ["", "cat", "dog"]


def test_several_folders_are_merged_under_their_names(tmp_path):
    one = make(tmp_path / "x" / "cats", "a.png", "deep/b.png")
    two = make(tmp_path / "dogs", "a.png")
    entries = Folder([one, two]).find()
    assert names(entries) == ["cats/a.png", "cats/deep/b.png", "dogs/a.png"]
    assert [entry.tag for entry in entries] == ["cats", "cats", "dogs"]


def test_folders_of_the_same_name_are_told_apart_by_their_parents(tmp_path):
    roots = [make(tmp_path / "x" / "pictures", "a.png"), make(tmp_path / "y" / "pictures", "a.png")]
    assert names(Folder(roots).find()) == ["x/pictures/a.png", "y/pictures/a.png"]
    with pytest.raises(UserError, match="the same folder twice"):
        Folder([roots[0], roots[0]]).find()


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_ready_made_parts(tmp_path, val, said):
    make(tmp_path, "train/cat/a.png", "train/b.png", f"{val}/cat/c.png", "test/d.png", "extra/e.png", "f.png")
    entries = Folder(str(tmp_path)).find()
    assert {entry.name: (entry.part, entry.tag) for entry in entries} == {
        "train/cat/a.png": ("train", "cat"),
        "train/b.png": ("train", ""),
        f"{val}/cat/c.png": ("val", "cat"),
        "test/d.png": ("test", ""),
    }
    assert "2 images beside them were left aside" in said[0]


def test_ready_made_parts_in_capitals(tmp_path):
    make(tmp_path, "Train/a.png", "TEST/b.png")
    assert [entry.part for entry in Folder(str(tmp_path)).find()] == ["test", "train"]


def test_an_empty_train_folder_beside_test_is_not_mixed_with_it(tmp_path):
    (tmp_path / "train").mkdir()
    make(tmp_path, "test/b.png")
    assert [entry.part for entry in Folder(str(tmp_path)).find()] == ["test"]


def test_a_train_or_test_folder_alone_is_no_ready_made_part(tmp_path):
    make(tmp_path, "train/a.png", "other/b.png")
    assert {entry.part for entry in Folder(str(tmp_path)).find()} == {"all"}


def test_pairs_match_by_path_without_extension(tmp_path):
    inputs = make(tmp_path / "in", "a.png", "deep/b.png", "dot.s.png")
    targets = make(tmp_path / "out", "a.jpg", "deep/b.PNG", "dot.s.png")
    entries = Folder(inputs, targets).find()
    assert [entry.problem for entry in entries] == ["", "", ""]
    assert [os.path.relpath(entry.target_path, targets) for entry in entries] == [
        "a.jpg", str(Path("deep/b.PNG")), "dot.s.png",
    ]  # fmt: skip


def test_pairs_that_do_not_match_carry_their_problem(tmp_path):
    inputs = make(tmp_path / "in", "a.png", "two.png", "twin.png", "twin.jpg", "only.png")
    targets = make(tmp_path / "out", "a.png", "two.png", "two.jpg", "twin.png", "alone.png")
    problems = {entry.name: entry.problem for entry in Folder(inputs, targets).find()}
    assert problems["a.png"] == ""
    assert "no partner" in problems["only.png"]
    assert "without an input" in problems["alone.png"]
    assert all("no single partner" in problems[name] for name in ("two.png", "twin.png", "twin.jpg"))


def test_missing_and_empty_folders_say_the_way_out(tmp_path):
    with pytest.raises(UserError, match=r"--data.root .*nowhere does not exist"):
        Folder(str(tmp_path / "nowhere")).find()
    (tmp_path / "file.png").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        Folder(str(tmp_path / "file.png")).find()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        Folder(str(tmp_path / "empty")).find()
    make(tmp_path / "texts", "a.txt", "b.txt")
    with pytest.raises(UserError, match=r"holds no image, only other files \(2 .txt\)"):
        Folder(str(tmp_path / "texts")).find()
    with pytest.raises(UserError, match=r"--data.target_root .*nowhere"):
        Folder(make(tmp_path / "in", "a.png"), str(tmp_path / "nowhere")).find()


def link(target, place, folder=True):
    try:
        place.symlink_to(target, target_is_directory=folder)
    except OSError:
        pytest.skip("this system makes no symbolic links")


def test_links_are_followed_and_circles_end(tmp_path):
    make(tmp_path / "elsewhere", "far.png")
    root = tmp_path / "root"
    make(root, "a.png", "sub/b.png")
    link(root, root / "sub" / "circle")
    link(tmp_path / "elsewhere", root / "linked")
    link(root / "sub", root / "again")  # a second name of a folder inside: listed under its real place alone
    link(root / "me.png", root / "me.png", folder=False)
    link(root / "nothing.png", root / "dangling.png", folder=False)
    found = [name for name, _, _ in walk(root, "--data.root")]
    assert found == ["a.png", "dangling.png", "linked/far.png", "me.png", "sub/b.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions bind no administrator")
def test_a_folder_that_cannot_be_opened_is_listed_with_its_problem(tmp_path):
    make(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    try:
        assert {entry.name: bool(entry.problem) for entry in Folder(str(tmp_path)).find()} == {
            "a.png": False,
            "closed": True,
        }
    finally:
        (tmp_path / "closed").chmod(0o700)
