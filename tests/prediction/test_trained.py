"""What a checkpoint says about its network."""

from pathlib import Path

import pytest

from project.data.pairs import GreyToColour, LinesToColour, PaletteHints, SpatialHints
from project.errors import UserError
from project.models.checkpoint import Checkpoint
from project.prediction.hints_file import Hint
from project.prediction.trained import check_wishes, colouring_of, working_size
from project.prediction.wishes import Wishes

POINT = Hint(0, 0, (255, 0, 0))
NOTHING, HINTS, PALETTE = Wishes(), Wishes(hints={}), Wishes(palette=(POINT,) * 3)


def checkpoint(pairs, **data):
    return Checkpoint(Path("best.ckpt"), {"model": {}, "data": {"pairs": pairs, **data}}, {})


def test_the_pair_maker_comes_from_the_configuration():
    palette = {"class_path": "project.data.pairs.PaletteHints", "init_args": {"colours": 3}}
    pairs = colouring_of(
        checkpoint({"class_path": "project.data.pairs.LinesToColour", "init_args": {"hints": palette}})
    )
    assert isinstance(pairs, LinesToColour)
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
def test_other_pair_makers_do_not_colour_and_need_not_be_there(pairs):
    assert colouring_of(checkpoint(pairs)) is None


def test_two_folders_win_where_the_pair_maker_has_no_use_for_the_second():
    described = {"class_path": "project.data.pairs.GreyToColour", "init_args": {"hints": None}}
    assert isinstance(colouring_of(checkpoint(described)), GreyToColour)
    assert colouring_of(checkpoint(described, target_root="colours")) is None
    assert colouring_of(checkpoint(described, source="drawings")) is None
    assert isinstance(colouring_of(checkpoint(described, source="drawings", root="photos")), GreyToColour)


def test_a_pair_maker_that_has_changed_is_told():
    with pytest.raises(UserError, match=r"best\.ckpt: its pair maker .*GreyToColour cannot be built") as caught:
        colouring_of(checkpoint({"class_path": "project.data.pairs.GreyToColour", "init_args": {"tints": 3}}))
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
    for pairs in (None, GreyToColour(), GreyToColour(SpatialHints()), GreyToColour(PaletteHints(colours=3))):
        check_wishes(pairs, NOTHING)
    check_wishes(GreyToColour(), Wishes(size=0))
    check_wishes(GreyToColour(SpatialHints()), HINTS)
    check_wishes(GreyToColour(PaletteHints(colours=3)), PALETTE)


@pytest.mark.parametrize(
    ("pairs", "wishes", "told"),
    [
        (None, HINTS, "--hints is for networks that colour"),
        (None, PALETTE, "--palette is for networks that colour"),
        (None, Wishes(size=0), "--size is for networks that colour"),
        (GreyToColour(), HINTS, "colours on its own. Leave --hints out"),
        (GreyToColour(), PALETTE, "colours on its own. Leave --palette out"),
        (GreyToColour(SpatialHints()), PALETTE, "--hints FILE"),
        (GreyToColour(PaletteHints(colours=3)), HINTS, "palettes (at most 3 colours, without places)"),
        (GreyToColour(PaletteHints(colours=2)), PALETTE, "has 3 colours, and this network was trained with at most 2"),
    ],
)
def test_other_wishes_are_refused_with_what_the_network_takes(pairs, wishes, told):
    with pytest.raises(UserError) as caught:
        check_wishes(pairs, wishes)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10
