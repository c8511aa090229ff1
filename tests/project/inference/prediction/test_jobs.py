"""Names, places and what is done."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.inference.prediction.jobs import plan
from workbench.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    """Some images at several depths, and a file that is none."""
    root = tmp_path / "in"
    for name in ("b.JPG", "a.png", "deep/er/a.webp", "deep/c.gif"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 5, 3), dtype=np.uint8)).save(root / name)
    (root / "read.txt").write_text("words")
    return root


def targets(folder, output, **options):
    return {job.name: job.target.relative_to(output).as_posix() for job in plan(folder, output, **options)}


def test_names_and_folders_are_kept_and_only_foreign_formats_become_png(folder, tmp_path):
    assert targets(folder, tmp_path / "out") == {
        "a.png": "a.png",
        "b.JPG": "b.JPG",
        "deep/c.gif": "deep/c.png",
        "deep/er/a.webp": "deep/er/a.webp",
    }


def test_everything_as_png(folder, tmp_path):
    assert targets(folder, tmp_path / "out", as_png=True)["b.JPG"] == "b.png"


def test_only_the_folder_itself(folder, tmp_path):
    assert list(targets(folder, tmp_path / "out", recursive=False)) == ["a.png", "b.JPG"]


def test_a_single_file(folder, tmp_path):
    (job,) = plan(folder / "deep/c.gif", tmp_path / "out", noise=True)
    assert (job.name, job.source) == ("c.gif", folder / "deep/c.gif")
    assert job.target == tmp_path / "out/c.png"
    assert job.noisy == tmp_path / "out/c.noisy.png"


def test_an_output_folder_inside_is_left_aside(folder):
    output = folder / "deep" / "out"
    before = targets(folder, output)
    output.mkdir()
    Image.fromarray(np.zeros((4, 5, 3), dtype=np.uint8)).save(output / "a.png")
    assert targets(folder, output) == before


def refusal(*arguments, **options):
    with pytest.raises(UserError) as caught:
        plan(*arguments, **options)
    assert len(str(caught.value).splitlines()) <= 10
    return str(caught.value)


def test_the_pictures_themselves_are_never_overwritten(folder):
    assert "overwritten" in refusal(folder, folder)
    assert "overwritten" in refusal(folder / "a.png", folder)
    assert "overwritten" in refusal(folder, folder / "deep" / "..")


def test_an_answer_never_takes_the_place_of_another_picture(folder, tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), dtype=np.uint8)).save(folder / "deep/b.JPG")
    (folder / "deep/deep").mkdir()
    Image.fromarray(np.zeros((4, 5, 3), dtype=np.uint8)).save(folder / "deep/deep/b.JPG")
    message = refusal(folder / "deep", folder)
    assert "would overwrite" in message
    assert "deep/b.JPG" in message


def test_two_pictures_never_become_one(folder, tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), dtype=np.uint8)).save(folder / "a.jpg")
    assert len(plan(folder, tmp_path / "out")) == 5
    message = refusal(folder, tmp_path / "out", as_png=True)
    assert "a.jpg and a.png would both become" in message


def test_missing_things_are_told_with_the_nearest_name(folder, tmp_path):
    assert "Did you mean" in refusal(folder / "deeper", tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no image" in refusal(empty, tmp_path / "out")
    assert "is a file" in refusal(folder, folder / "read.txt")
    assert "looks like a file" in refusal(folder / "a.png", tmp_path / "out.png")


def test_done_is_whole_and_no_older_than_the_picture_and_the_checkpoint(folder, tmp_path):
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    job = plan(folder / "a.png", tmp_path / "out")[0]
    noisy = plan(folder / "a.png", tmp_path / "out", noise=True)[0]
    assert not job.is_done(checkpoint)
    job.target.parent.mkdir()
    job.target.touch()
    assert not job.is_done(checkpoint)
    job.target.write_bytes(b"pixels")
    assert job.is_done(checkpoint)
    assert not noisy.is_done(checkpoint)
    noisy.noisy.write_bytes(b"pixels")
    assert noisy.is_done(checkpoint)
    later = job.target.stat().st_mtime + 10
    for newer in (folder / "a.png", checkpoint):
        before = newer.stat()
        os.utime(newer, (later, later))
        assert not job.is_done(checkpoint)
        os.utime(newer, (before.st_atime, before.st_mtime))
