"""What a checkpoint says about its network."""

from pathlib import Path

import pytest

from project.data.pairs import GrayToColor, LinesToColor, PaletteHints, SpatialHints
from project.inference.prediction.hints_file import Hint
from project.inference.prediction.trained import check_wishes, coloring_of, working_size
from project.inference.prediction.wishes import Wishes
from workbench.checkpoint import Checkpoint
from workbench.errors import UserError

POINT = Hint(0, 0, (255, 0, 0))
NOTHING, HINTS, PALETTE = Wishes(), Wishes(hints={}), Wishes(palette=(POINT,) * 3)


def checkpoint(pairs, **data):
    return Checkpoint(Path("best.ckpt"), {"model": {}, "data": {"pairs": pairs, **data}}, {})


def test_the_pair_maker_comes_from_the_configuration():
    palette = {"class_path": "project.data.pairs.PaletteHints", "init_args": {"colors": 3}}
    pairs = coloring_of(checkpoint({"class_path": "project.data.pairs.LinesToColor", "init_args": {"hints": palette}}))
    assert isinstance(pairs, LinesToColor)
    assert isinstance(pairs.hints, PaletteHints)
    assert pairs.hints.slots == 3


@pytest.mark.parametrize(
    "pairs",
    [
        None,
        {"class_path": "project.data.pairs.GaussianNoise", "init_args": {"sigma": 25}},
        {"class_path": "GaussianNoise"},
        {"class_path": "no.longer.Here"},
        {"class_path": "project.data.pairs.Gone"},
        {},
    ],
)
def test_other_pair_makers_do_not_color_and_need_not_be_there(pairs):
    assert coloring_of(checkpoint(pairs)) is None


def test_two_folders_win_where_the_pair_maker_has_no_use_for_the_second():
    described = {"class_path": "project.data.pairs.GrayToColor", "init_args": {"hints": None}}
    assert isinstance(coloring_of(checkpoint(described)), GrayToColor)
    assert coloring_of(checkpoint(described, target_root="colors")) is None
    assert coloring_of(checkpoint(described, source="drawings")) is None
    assert isinstance(coloring_of(checkpoint(described, source="drawings", root="photos")), GrayToColor)


def test_a_pair_maker_that_has_changed_is_told():
    with pytest.raises(UserError, match=r"best\.ckpt: its pair maker .*GrayToColor cannot be built") as caught:
        coloring_of(checkpoint({"class_path": "project.data.pairs.GrayToColor", "init_args": {"tints": 3}}))
    assert "tints" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "wished", "size", "why"),
    [
        ({"resize": 128, "crop": 64}, None, 128, "data.resize"),
        ({"resize": None, "crop": 64}, None, 64, "data.crop"),
        ({"source": "drawings", "crop": 64}, None, 96, "data.source"),
        ({"source": "CIFAR10", "crop": 24, "resize": 48}, None, 48, "data.resize"),
        ({"source": "drawings", "root": "photos", "crop": 64}, None, 64, "data.crop"),
        ({"resize": None, "crop": None}, None, 256, "not known"),
        ({}, None, 256, "not known"),
        ({"resize": 128}, 0, 0, "--size"),
        ({"resize": 128}, 77, 77, "--size"),
    ],
)
def test_the_working_size_is_that_of_the_training(data, wished, size, why):
    found, said = working_size(data, wished)
    assert found == size
    assert why in said


def test_wishes_that_the_network_was_trained_for_pass():
    for pairs in (None, GrayToColor(), GrayToColor(SpatialHints()), GrayToColor(PaletteHints(colors=3))):
        check_wishes(pairs, NOTHING)
    check_wishes(GrayToColor(), Wishes(size=0))
    check_wishes(GrayToColor(SpatialHints()), HINTS)
    check_wishes(GrayToColor(PaletteHints(colors=3)), PALETTE)


@pytest.mark.parametrize(
    ("pairs", "wishes", "told"),
    [
        (None, HINTS, "--hints is for networks that color"),
        (None, PALETTE, "--palette is for networks that color"),
        (None, Wishes(size=0), "--size is for networks that color"),
        (GrayToColor(), HINTS, "colors on its own. Leave --hints out"),
        (GrayToColor(), PALETTE, "colors on its own. Leave --palette out"),
        (GrayToColor(SpatialHints()), PALETTE, "--hints FILE"),
        (GrayToColor(PaletteHints(colors=3)), HINTS, "palettes (at most 3 colors, without places)"),
        (GrayToColor(PaletteHints(colors=2)), PALETTE, "has 3 colors, and this network was trained with at most 2"),
    ],
)
def test_other_wishes_are_refused_with_what_the_network_takes(pairs, wishes, told):
    with pytest.raises(UserError) as caught:
        check_wishes(pairs, wishes)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10
