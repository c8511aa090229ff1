"""What is listed below a folder, by names alone: the files here hold nothing."""

import os
from pathlib import Path

import pytest

from project.data.folder import find_images, walk
from workbench.errors import UserError


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def names(entries):
    return [entry.name for entry in entries]


def test_any_depth_any_case_any_letters_sorted_and_other_files_counted(tmp_path, capsys):
    images = ["a.jpeg", "b.JPG", "c.bmp", "deep/er/ü ß.WebP", "deep/日本.tiff"]
    make(tmp_path, *images[::-1], "notes.txt", "more.txt", "x.json", "README")
    make(tmp_path, ".DS_Store", ".git/b.png", ".c.png")
    assert names(find_images(str(tmp_path))) == images
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "4 files that are no images" in printed and "2 .txt" in printed


def test_tags_are_the_first_folders(tmp_path):
    make(tmp_path, "a.png", "cat/b.png", "dog/young/c.png")
    assert [entry.tag for entry in find_images(str(tmp_path))] == ["", "cat", "dog"]


def test_several_folders_are_merged_under_their_names(tmp_path):
    one = make(tmp_path / "x" / "cats", "a.png", "deep/b.png")
    two = make(tmp_path / "dogs", "a.png")
    entries = find_images([one, two])
    assert names(entries) == ["cats/a.png", "cats/deep/b.png", "dogs/a.png"]
    assert [entry.tag for entry in entries] == ["cats", "cats", "dogs"]
    other = make(tmp_path / "y" / "cats", "a.png")
    assert names(find_images([one, other])) == ["x/cats/a.png", "x/cats/deep/b.png", "y/cats/a.png"]
    with pytest.raises(UserError, match="the same folder twice"):
        find_images([one, one])


@pytest.mark.parametrize(("train", "val", "test"), [("train", "val", "test"), ("Train", "valid", "TEST")])
def test_ready_made_splits(tmp_path, train, val, test, capsys):
    make(tmp_path, f"{train}/cat/a.png", f"{train}/b.png", f"{val}/cat/c.png", f"{test}/d.png", "extra/e.png", "f.png")
    assert [(entry.name, entry.part, entry.tag) for entry in find_images(str(tmp_path))] == sorted([
        (f"{train}/b.png", "train", ""), (f"{train}/cat/a.png", "train", "cat"),
        (f"{val}/cat/c.png", "val", "cat"), (f"{test}/d.png", "test", ""),
    ])  # fmt: skip
    assert "2 images beside them were ignored" in capsys.readouterr().out


def test_a_train_folder_makes_ready_made_splits_beside_test_even_if_empty_and_not_alone(tmp_path):
    (tmp_path / "one" / "train").mkdir(parents=True)
    assert [entry.part for entry in find_images(make(tmp_path / "one", "test/b.png"))] == ["test"]
    assert {entry.part for entry in find_images(make(tmp_path / "two", "train/a.png", "other/b.png"))} == {"all"}


def test_pairs_match_by_path_without_extension_or_carry_their_problem(tmp_path):
    inputs = make(tmp_path / "in", "a.png", "deep/b.png", "dot.s.png", "two.png", "twin.png", "twin.jpg", "only.png")
    targets = make(tmp_path / "out", "a.jpg", "deep/b.PNG", "dot.s.png", "two.png", "two.jpg", "twin.png", "alone.png")
    entries = find_images(inputs, targets)
    found = [os.path.relpath(entry.target_path, targets) for entry in entries if not entry.problem]
    assert found == ["a.jpg", str(Path("deep/b.PNG")), "dot.s.png"]
    problems = {entry.name: entry.problem for entry in entries}
    assert "no target" in problems["only.png"]
    assert "without an input" in problems["alone.png"]
    assert all("no single target" in problems[name] for name in ("two.png", "twin.png", "twin.jpg"))


def test_missing_and_empty_folders_name_the_way_out(tmp_path):
    (tmp_path / "file.png").touch()
    (tmp_path / "empty").mkdir()
    for name, message in {
        "nowhere": r"--data.root .*nowhere does not exist",
        "file.png": "is a file, not a folder",
        "empty": r"holds no image\.",
    }.items():
        with pytest.raises(UserError, match=message):
            find_images(str(tmp_path / name))
    with pytest.raises(UserError, match=r"--data.target_root .*nowhere"):
        find_images(make(tmp_path / "in", "a.png"), str(tmp_path / "nowhere"))


def test_links_are_followed_and_circles_end(tmp_path):
    make(tmp_path / "elsewhere", "far.png")
    root = tmp_path / "root"
    make(root, "a.png", "sub/b.png")
    (root / "sub" / "circle").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "sub")  # a second name of a folder inside: listed under its real place alone
    (root / "me.png").symlink_to(root / "me.png")
    (root / "dangling.png").symlink_to(root / "nothing.png")
    found = [name for name, _ in walk(root, "--data.root")]
    assert found == ["a.png", "dangling.png", "linked/far.png", "me.png", "sub/b.png"]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=f"--data.root {tmp_path} cannot be opened: Permission denied"):
        find_images(str(tmp_path))
