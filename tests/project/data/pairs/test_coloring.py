"""Pairs of condition and colors: what is in which channel, and what it depends on."""

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from skimage import color

from project.data import ImageDataModule
from project.data.pairs import (
    AdaptiveThreshold,
    Coloring,
    GrayToColor,
    LinesToColor,
    NoHints,
    PairMaker,
    PaletteHints,
    Point,
    SpatialHints,
    XDoG,
)
from project.data.statistics import Statistics
from workbench.errors import UserError

INDEX = torch.arange(4)
SEED = torch.tensor([11, 12, 13, 2**62])
MAKERS = [
    GrayToColor(),
    GrayToColor(SpatialHints(position="gaussian")),
    LinesToColor(PaletteHints(5)),
    LinesToColor(SpatialHints(), XDoG()),
    LinesToColor(SpatialHints(), AdaptiveThreshold()),
]


def hwc(batch):
    return batch.permute(0, 2, 3, 1).double().numpy()


def test_gray_photographs_are_lightness(pictures):
    image = pictures()
    pair = GrayToColor()(image, None, INDEX, SEED, True)
    lab = color.rgb2lab(hwc(image))
    assert pair.target is image and pair.seed is SEED and pair.index is INDEX
    assert pair.input.shape == (4, 1, 40, 56)
    assert np.allclose(pair.input[:, 0].numpy() * 100, lab[..., 0], atol=5e-3)
    lab[..., 1:] = 0
    assert np.allclose(hwc(pair.baseline), color.lab2rgb(lab), atol=1e-3)
    assert GrayToColor.keeps_lightness and not LinesToColor.keeps_lightness


def test_lines_of_a_folder_pair(pictures):
    image, target = pictures(1), pictures(2)
    pair = LinesToColor(SpatialHints())(image, target, INDEX, SEED, False)
    assert pair.target is target and pair.input.shape == (4, 5, 40, 56)
    expected = [Image.fromarray((one * 255).round().astype(np.uint8)).convert("L") for one in hwc(image)]
    assert np.allclose(pair.input[:, 0].numpy(), np.stack(expected) / 255, atol=0.51 / 255)
    assert torch.equal(pair.baseline, pair.input[:, :1].expand(-1, 3, -1, -1))
    assert torch.equal(pair.input[:, 1:], SpatialHints().exact(target, SEED, 10))  # the answer's colors


def test_lines_of_one_folder_are_drawn(pictures):
    image = pictures()
    maker = LinesToColor()
    pair = maker(image, None, INDEX, SEED, False)
    assert pair.target is image and isinstance(maker.lines, XDoG) and isinstance(maker.hints, NoHints)
    for position in range(4):
        generator = torch.Generator().manual_seed(int(SEED[position]))
        assert torch.equal(pair.input[position, None], XDoG()(image[position, None], generator))


@pytest.mark.parametrize("maker", MAKERS)
def test_evaluation_follows_from_picture_and_number_alone(pictures, maker):
    image = pictures()
    whole = maker(image, None, INDEX, SEED, False).input
    torch.rand(7)
    assert torch.equal(maker(image, None, INDEX, SEED, False).input, whole)  # epoch after epoch
    reverse = torch.tensor([3, 2, 1, 0])
    # A matrix product of another size may round its last bit otherwise, so may lightness.
    shuffled = maker(image[reverse], None, INDEX, SEED[reverse], False).input
    assert torch.allclose(shuffled, whole[reverse], rtol=0, atol=1e-6)
    for position in range(4):
        alone = maker(image[position, None], None, INDEX[:1] + 70, SEED[position, None], False).input
        assert torch.allclose(alone[0], whole[position], rtol=0, atol=1e-6)


@pytest.mark.parametrize("maker", MAKERS)
def test_training_follows_from_the_devices_generator(pictures, maker):
    torch.manual_seed(3)
    first = maker(pictures(), None, INDEX, SEED, True).input
    torch.manual_seed(3)
    assert torch.equal(maker(pictures(), None, INDEX, SEED + 1, True).input, first)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("training", [True, False])
def test_no_gradients_are_kept(pictures, maker, training):
    image = pictures().requires_grad_()
    pair = maker(image, None, INDEX, SEED, training)
    assert not pair.input.requires_grad and not pair.baseline.requires_grad


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("partner", [True, False])
def test_training_asks_the_device_for_nothing(pictures, blind, maker, partner):
    image, target = pictures(1), pictures(2) if partner and maker.partner == "may" else None
    with pytest.raises(AssertionError, match="looks at a value"), blind:
        image.max().item()
    with blind:
        pair = maker(image, target, INDEX, SEED, True)
    assert pair.input.shape == (4, 1 + maker.hints.channels, 40, 56)


@pytest.mark.parametrize("maker", [maker for maker in MAKERS if maker.hints.channels])
def test_the_same_pair_with_other_hints(pictures, maker):
    pair = maker(pictures(), None, INDEX, SEED, False)
    same = maker.with_hints(pair, maker.hints.eval_count)
    assert torch.equal(same.input, pair.input) and same.target is pair.target
    none, few, many = (maker.with_hints(pair, count).input for count in (0, 2, 5))
    assert not none[:, 1:].any()
    assert torch.equal(none[:, :1], pair.input[:, :1]) and torch.equal(many[:, :1], pair.input[:, :1])
    masks = [planes[:, 4::4].amax((2, 3)) if maker.hints.slots else planes[:, 4] for planes in (few, many)]
    assert (masks[1] >= masks[0]).all() and masks[1].sum() > masks[0].sum()


def test_hints_do_not_follow_the_lines_chance(pictures):
    """Both come from one number; were it one row of chance, squares would lie where strokes are broad."""
    generator = torch.Generator().manual_seed(11)
    top = SpatialHints().exact(pictures(), SEED, 1)[0, 3].nonzero()[0]
    drawn = torch.rand(128, 2, generator=generator)[0] * torch.tensor([35, 51])
    assert not torch.equal(top, drawn.long())


def test_input_from_a_users_picture(pictures):
    picture = pictures(count=1)
    point = Point(20, 30, (0.0, 1.0, 0.5))
    maker = GrayToColor(SpatialHints())
    found = maker.input_from(picture, [point])
    assert found.shape == (1, 5, 40, 56)
    assert np.allclose(found[0, 0].numpy() * 100, color.rgb2lab(hwc(picture))[0, ..., 0], atol=5e-3)
    assert torch.equal(found[:, 1:], SpatialHints().given(40, 56, [point]))
    gray = picture[:, :1]
    assert torch.allclose(maker.input_from(gray, []), maker.input_from(gray.expand(-1, 3, -1, -1), []))
    lines = LinesToColor()
    assert torch.equal(lines.input_from(gray, []), gray)
    with pytest.raises(UserError, match="outside the image"):
        maker.input_from(picture, [Point(56, 3, (0, 0, 0))])
    with pytest.raises(UserError, match="no color hints"):
        lines.input_from(picture, [point])


def test_what_a_person_looks_at(pictures):
    image = pictures()
    bare, hinted = GrayToColor(), GrayToColor(SpatialHints())
    pair = bare(image, None, INDEX, SEED, False)
    assert list(bare.views(pair)) == ["condition"]
    assert bare.views(pair)["condition"] is pair.baseline
    pair = hinted(image, None, INDEX, SEED, False)
    shown = hinted.views(pair)
    assert list(shown) == ["condition", "hints"]
    assert torch.equal(shown["hints"], hinted.hints.view(pair.input[:, 1:], pair.input[:, :1]))
    assert shown["hints"].shape == image.shape


def test_normalization():
    mean, std = GrayToColor(PaletteHints(2)).normalization([0.5, 0.4, 0.3], [0.2, 0.1, 0.3])
    assert mean == pytest.approx([0.299 * 0.5 + 0.587 * 0.4 + 0.114 * 0.3] + [0.0] * 8)
    assert std == pytest.approx([0.299 * 0.2 + 0.587 * 0.1 + 0.114 * 0.3] + [0.15] * 8)
    assert LinesToColor().normalization([0.5], [0.25]) == ([0.5], [0.25])
    picture_as_it_is = LinesToColor(SpatialHints()).normalization([0.0] * 3, [1.0] * 3)
    assert picture_as_it_is == ([0.0] * 5, pytest.approx([1.0] + [0.15] * 4))


def test_hint_planes_are_standardized():
    """Ten exact hints of bright colors on 128 x 128, as most networks see them in the test."""
    pictures = torch.rand(4, 3, 1, 1).expand(-1, -1, 128, 128).clamp_min(0.7)
    planes = SpatialHints().exact(pictures, torch.arange(4), 10)
    _, std = LinesToColor(SpatialHints()).normalization([0.5], [0.25])
    assert 0.5 < float(planes.std(dim=(0, 2, 3)).mean()) / std[-1] < 2


def test_a_coloring_of_ones_own_is_two_methods(pictures):
    class RedToColor(Coloring):
        def condition(self, image, target, seed, training):
            return self.condition_of(image)

        def condition_of(self, picture):
            return picture[:, :1]

    pair = RedToColor()(pictures(), None, INDEX, SEED, True)
    assert torch.equal(pair.baseline[:, 2], pictures()[:, 0])


def statistics(mean, std):
    return Statistics(torch.tensor(mean), torch.tensor(std), 100)


GREY, COLOR, ONE = statistics([0.4] * 3, [0.2] * 3), statistics([0.4, 0.4, 0.41], [0.2] * 3), statistics([0.4], [0.2])


@pytest.mark.parametrize("maker", [GrayToColor(), LinesToColor()])
def test_pictures_without_color_are_refused(maker):
    maker.check(COLOR, COLOR)
    maker.check(GREY, COLOR)  # lines are gray
    for found, said in ((GREY, r"All training images are gray[\s\S]*--data\.root"), (ONE, r"--data\.channels 3")):
        with pytest.raises(UserError, match=said):
            maker.check(COLOR, found)


def folder(path, gray=False, count=10):
    path.mkdir()
    generator = np.random.default_rng(1 if gray else 2)
    for number in range(count):
        pixels = generator.integers(0, 256, (20, 26) if gray else (20, 26, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{number}.png")
    return str(path)


def module(tmp_path, **options):
    options = {
        "crop": 16,
        "batch_size": 3,
        "num_workers": 0,
        "seed": 1,
        "pairs": GrayToColor(SpatialHints()),
        **options,
    }
    data = ImageDataModule(cache_dir=str(tmp_path / "cache"), **options)
    data.prepare_data()
    data.setup("fit")
    return data


def test_a_data_module_of_gray_pictures_says_so(tmp_path):
    gray, color = folder(tmp_path / "gray", gray=True), folder(tmp_path / "color")
    with pytest.raises(UserError, match=r"All training images are gray.*GrayToColor"):
        module(tmp_path, root=gray)
    with pytest.raises(UserError, match=r"--data\.channels 3"):
        module(tmp_path, root=color, channels=1)
    with pytest.raises(UserError, match=r"--data\.target_root"):
        module(tmp_path, root=color, target_root=gray, pairs=LinesToColor())
    module(tmp_path, root=gray, pairs=None)  # noise can be taken off gray images


@pytest.mark.parametrize("input_range", ["standardize", "zero_one"])
def test_through_the_data_module(tmp_path, input_range):
    lines, color = folder(tmp_path / "lines", gray=True), folder(tmp_path / "color")
    data = module(tmp_path, root=lines, target_root=color, input_range=input_range, pairs=LinesToColor(SpatialHints()))
    raw = next(iter(data.train_dataloader()))
    pair = data.make_batch(raw, training=True)
    assert pair.input.shape == (3, 5, 16, 16) and pair.target.shape == (3, 3, 16, 16)
    assert torch.equal(pair.target, raw.target / 255) and torch.equal(pair.seed, raw.seed)
    mean, std = data.normalization["input"]
    assert len(mean) == len(std) == 5 and mean[1:] == [0.0] * 4 and std[1:] == [0.15] * 4
    expected = data.statistics.mean[0].item() if input_range == "standardize" else 0.0
    assert mean[0] == pytest.approx(expected, abs=1e-6)


def test_chosen_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--pairs", type=PairMaker)
    hints = {"class_path": "SpatialHints", "init_args": {"patch": [2, 5], "drop": [0.2, 0.9], "none": 0.5}}
    lines = {"class_path": "project.data.pairs.XDoG", "init_args": {"sigma": [0.3, 0.6]}}
    tree = {"class_path": "LinesToColor", "init_args": {"hints": hints, "lines": lines}}
    config = parser.parse_object({"pairs": tree})
    assert config.pairs.class_path == "project.data.pairs.LinesToColor"
    assert config.pairs.init_args.hints.class_path == "project.data.pairs.SpatialHints"
    maker = parser.instantiate_classes(config).pairs
    assert isinstance(maker, LinesToColor) and maker.hints.law.sides == (2, 5) and maker.lines.sigma == (0.3, 0.6)
    assert parser.parse_object({"pairs": {"class_path": "project.data.pairs.GaussianNoise"}})
