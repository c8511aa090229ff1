"""Faults of files: broken, twice there, in two splits, odd; and figures that come from elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.data.statistics import Statistics
from project.networks.normalize import Normalize
from project.data.checks import StatisticsNotFromTrain


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("this is no image")


@pytest.mark.planted("unreadable-image")
@pytest.mark.parametrize("spoil", [_cut, _empty, _text])
def test_a_file_that_cannot_be_used(look, kit, make_scenes, spoil):
    root = make_scenes(16)
    spoil(root / "004.png")
    found = look(root=str(root))
    assert kit.faults(found) == ["unreadable-image"]
    assert "004.png" in found[0].where
    assert "unreadable-image" in kit.notes(look(root=str(root), on_bad_image="skip"))


def _copies(root: Path, how: str) -> None:
    for number in range(6):
        source = Image.open(root / f"{number:03d}.png")
        if how == "bytes":
            shutil.copy(root / f"{number:03d}.png", root / f"copy{number}.png")
        elif how == "jpeg":
            source.save(root / f"copy{number}.jpg", quality=85)
        else:
            source.resize((78, 61), Image.Resampling.BICUBIC).save(root / f"copy{number}.png")


@pytest.mark.planted("duplicate-images")
@pytest.mark.parametrize("how", ["bytes", "jpeg", "resized"])
def test_pictures_that_are_there_twice(look, kit, make_scenes, how):
    root = make_scenes(24, "all/train")
    make_scenes(6, "all/val", start=100), make_scenes(6, "all/test", start=200)
    _copies(root, how)
    found = look(root=str(root.parent))
    assert kit.faults(found) == ["duplicate-images"]


@pytest.mark.planted("split-leak")
@pytest.mark.parametrize("how", ["bytes", "jpeg", "resized"])
def test_pictures_that_are_in_two_splits(look, kit, make_scenes, how):
    root = make_scenes(20, "all/train")
    val = make_scenes(6, "all/val", start=100)
    make_scenes(6, "all/test", start=200)
    picture = Image.open(root / "003.png")
    if how == "bytes":
        shutil.copy(root / "003.png", val / "seen.png")
    elif how == "jpeg":
        picture.save(val / "seen.jpg", quality=80)
    else:
        picture.resize((78, 61), Image.Resampling.BICUBIC).save(val / "seen.png")
    found = look(root=str(root.parent))
    assert kit.faults(found) == ["split-leak"]
    leak = next(one for one in found if one.code == "split-leak")
    assert "003.png" in leak.where and "seen" in leak.where


@pytest.mark.planted("outlier-images")
@pytest.mark.parametrize("how", ["black", "white", "blurred", "wide"])
def test_odd_pictures(look, kit, make_scenes, how):
    root = make_scenes(30)
    picture = kit.scene(77).astype(float)
    odd = {
        "black": picture * 0.02,
        "white": 255 - (255 - picture) * 0.02,
        "blurred": np.asarray(
            Image.fromarray(kit.scene(77))
            .resize((3, 2), Image.Resampling.BOX)
            .resize((52, 41), Image.Resampling.BICUBIC)
        ),
        "wide": np.tile(picture, (1, 14, 1)),
    }[how]
    Image.fromarray(np.uint8(odd)).save(root / "odd.png")
    found = look(root=str(root))
    assert kit.faults(found) == []
    outlier = next(one for one in found if one.code == "outlier-images")
    assert outlier.severity == "note" and "odd.png" in outlier.where


@pytest.mark.planted("input-constant")
def test_blank_pictures(look, kit, make_scenes):
    root = make_scenes(20)
    Image.new("RGB", (52, 41), "white").save(root / "blank.png")
    Image.new("RGB", (52, 41), (3, 90, 20)).save(root / "green.png")
    found = look(root=str(root))
    assert kit.faults(found)[0] == "input-constant"
    make_scenes(60)
    assert "input-constant" in kit.notes(look(root=str(root)))


@pytest.fixture
def subject(kit, make_data):
    return kit.seen_by(kit.restorer(), make_data())


def test_statistics_of_other_pictures(kit, subject):
    own = subject.data.statistics
    assert StatisticsNotFromTrain().evaluate(subject).value < 1e-6
    for mean, std in ((own.mean + 0.01, own.std), (own.mean, own.std * 1.1)):
        subject.data.statistics = Statistics(mean, std, own.pixels)
        finding = StatisticsNotFromTrain().evaluate(subject)
        assert finding.severity == "fault" and finding.limit == pytest.approx(0.003)


@pytest.mark.planted("statistics-not-from-train")
def test_statistics_of_all_splits(kit, make_data, tmp_path, make_scenes):
    train = make_scenes(12, "all/train")
    bright = make_scenes(4, "all/val", start=50)
    make_scenes(4, "all/test", start=60)
    for path in bright.iterdir():
        Image.open(path).point(lambda value: 155 + value * 0.4).save(path)
    everything = [np.asarray(Image.open(path)) for path in train.parent.rglob("*.png")]
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in everything]) / 255
    subject = kit.seen_by(kit.restorer(), make_data(root=str(train.parent)))
    import torch

    subject.data.statistics = Statistics(torch.tensor(pixels.mean(0)), torch.tensor(pixels.std(0)), len(pixels))
    assert "statistics-not-from-train" in kit.faults(kit.examined(subject))


@pytest.mark.planted("statistics-not-from-train")
def test_a_network_with_figures_of_its_own(kit, make_data):
    network = kit.small_unet()
    model = kit.restorer(network)
    model._take_normalization = lambda statistics: network.normalize_input.set(
        [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    found = kit.examined(kit.seen_by(model, make_data()))
    assert "statistics-not-from-train" in kit.faults(found)
    assert isinstance(network.normalize_input, Normalize)
