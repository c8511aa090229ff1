"""Inputs and targets that do not belong together, and targets without colors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from project.data.pairs import GrayToColor, LinesToColor, PairedInput, SpatialHints
from project.networks import UNet


@pytest.mark.planted("pair-misaligned")
@pytest.mark.parametrize(
    "change",
    {
        "mirrored": lambda x, y: (x.flip(3), y),
        "upside-down": lambda x, y: (x, y.flip(2)),
        "moved": lambda x, y: (x.roll(7, 3), y),
        "turned": lambda x, y: (x.rot90(1, (2, 3)), y),
        "now-and-then": lambda x, y: (torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x), y),
        "shuffled": lambda x, y: (x, y.roll(1, 0)),
    }.items(),
    ids=lambda entry: entry[0],
)
def test_one_side_that_is_changed_alone(look, kit, change):
    found = kit.faults(look(pairs=kit.Spoilt(change[1]), crops_per_image=8))
    assert found[0] == "pair-misaligned"


@pytest.fixture
def two_folders(make_scenes, kit):
    """Gray images and the same in color: two_folders(order) gives the colors other names."""

    def make(order=lambda names: names) -> dict[str, str]:
        colors = make_scenes(24, "sources")
        names = sorted(path.name for path in colors.iterdir())
        gray, target = colors.with_name("gray"), colors.with_name("color")
        gray.mkdir(), target.mkdir()
        for name, other in zip(names, order(names), strict=True):
            Image.open(colors / name).convert("L").save(gray / name)
            Image.open(colors / other).save(target / name)
        return {"root": str(gray), "target_root": str(target)}

    return make


@pytest.mark.planted("pair-misaligned")
def test_files_that_were_paired_in_another_order(look, kit, two_folders):
    folders = two_folders(lambda names: names[1:] + names[:1])
    assert kit.faults(look(kit.small_unet(residual=False), pairs=PairedInput(), **folders))[0] == "pair-misaligned"


@pytest.mark.healthy
def test_files_that_belong_together(look, kit, two_folders):
    found = look(kit.small_unet(residual=False), pairs=PairedInput(), **two_folders())
    assert kit.faults(found) == []


@pytest.mark.planted("target-grey")
@pytest.mark.parametrize("tint", [0, 2])
def test_targets_without_colors(look, kit, tmp_path, tint):
    root = tmp_path / "gray"
    root.mkdir()
    for number in range(16):
        gray = kit.scene(number)[..., :1].astype(int) + np.array([0, tint, 0])
        Image.fromarray(np.uint8(gray.clip(0, 255))).save(root / f"{number}.png")
    model = kit.colorizer(generator=UNet(1, 2, widths=[8, 12]), discriminator=None, space="lab")
    assert kit.faults(look(model=model, root=str(root), pairs=GrayToColor()))[0] == "target-grey"


@pytest.mark.healthy
def test_a_healthy_game_of_lines_hints_and_colors(look, kit):
    found = look(model=kit.colorizer(), pairs=LinesToColor(hints=SpatialHints()), input_range="standardize")
    assert kit.faults(found) == []


@pytest.mark.healthy
def test_noise_that_buries_all_edges_is_no_other_pair(look, kit):
    assert kit.faults(look(pairs=kit.Spoilt(lambda x, y: (x, y), sigma=150.0), crops_per_image=8)) == []
