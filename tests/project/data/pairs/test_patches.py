"""Squares: where they may lie, their mean colors and their planes, against plain loops."""

import numpy as np
import pytest
import torch

from project.data.pairs.patches import LARGEST, Patches, mean_colors, moved, place, render

SIZE = (23, 37)


def squares(seed=0, batch=3, number=30, sides=(1, 9)):
    """Many squares that overlap, about a third of them not there."""
    generator = np.random.default_rng(seed)
    side = generator.integers(sides[0], sides[1] + 1, (batch, number))
    corners = [generator.integers(0, length - side + 1) for length in SIZE]
    there = generator.random((batch, number)) < 0.7
    return Patches(*map(torch.from_numpy, (*corners, side, there)), sides[1])


def loop(patches):
    """(image, number, rows, columns) of every square that is there."""
    for picture in range(len(patches.top)):
        for number in range(patches.top.shape[1]):
            if patches.there[picture, number]:
                top, left, side = (int(part[picture, number]) for part in patches[:3])
                yield picture, number, slice(top, top + side), slice(left, left + side)


def test_mean_colors_are_those_of_a_loop(pictures):
    image, patches = pictures(count=3, size=SIZE), squares()
    colors = mean_colors(image, patches)
    assert colors.shape == (3, 30, 3) and colors.dtype == torch.float32
    for picture, number, rows, columns in loop(patches):
        expected = image[picture, :, rows, columns].double().numpy().mean((1, 2))
        assert np.allclose(colors[picture, number].numpy(), expected, atol=1e-6)


def test_one_pixels_mean_is_the_pixel(pictures):
    image, patches = pictures(count=3, size=SIZE), squares(sides=(1, 1))
    colors = mean_colors(image, patches)
    for picture, number, rows, columns in loop(patches):
        assert torch.equal(colors[picture, number], image[picture, :, rows, columns].flatten())


def test_the_largest_square_of_white_is_white():
    side = torch.tensor([[LARGEST]])
    patches = Patches(torch.zeros_like(side), torch.zeros_like(side), side, side > 0, LARGEST)
    assert mean_colors(torch.ones(1, 3, LARGEST, LARGEST + 1), patches).tolist() == [[[1.0] * 3]]
    dark = torch.full((1, 3, LARGEST, LARGEST + 1), 0.6 / 65535)  # between two of its levels: to the nearer one
    assert torch.allclose(mean_colors(dark, patches) * 65535, torch.ones(1, 1, 3))


def test_the_later_square_lies_on_top():
    patches = squares()
    colors = torch.rand(3, 30, 3)
    expected = np.zeros((3, 4, *SIZE), np.float32)
    covered = 0
    for picture, number, rows, columns in loop(patches):
        covered += int(expected[picture, 3, rows, columns].sum())
        expected[picture, :3, rows, columns] = colors[picture, number].numpy()[:, None, None]
        expected[picture, 3, rows, columns] = 1
    planes = render(colors, patches, SIZE)
    assert covered > 100  # there was something to decide
    assert np.array_equal(planes.numpy(), expected)


def test_no_squares_are_empty_planes():
    planes = render(torch.empty(2, 0, 3), squares(batch=2, number=0), SIZE)
    assert planes.shape == (2, 4, *SIZE) and not planes.any()


def chances(count=20000, seed=0):
    return torch.rand(2, count // 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("law", ["uniform", "gaussian"])
@pytest.mark.parametrize("side", [1, 6, 23, 40])
def test_squares_lie_wholly_inside(law, side):
    sides = torch.full((2, 10000), side)
    chance = chances()
    chance[0, 0] = 0.0
    chance[0, 1] = 1 - 2**-24
    patches = place(chance, sides, sides > 0, side, SIZE, law)
    assert patches.top.dtype == patches.left.dtype == torch.int64
    assert torch.equal(patches.side, sides.clamp(max=23))  # a square that is too large takes the shorter side
    for start, length in zip(patches[:2], SIZE, strict=True):
        free = length - min(side, 23)
        assert start.min() == 0 and start.max() == free
    assert mean_colors(torch.rand(2, 3, *SIZE), patches).isfinite().all()


def test_uniform_squares_lie_anywhere_as_often():
    sides = torch.full((2, 10000), 6)
    patches = place(chances(), sides, sides > 0, 6, SIZE, "uniform")
    for start, length in zip(patches[:2], SIZE, strict=True):
        counts = torch.bincount(start.flatten(), minlength=length - 5).double()
        expected = 20000 / (length - 5)
        assert len(counts) == length - 5
        assert (counts - expected).abs().max() < 5 * expected**0.5


def test_gaussian_squares_lie_round_the_middle():
    """Against NumPy's own normal numbers, cut off at the edges as these are."""
    size = (400, 600)
    sides = torch.full((2, 10000), 1)
    patches = place(chances(), sides, sides > 0, 1, size, "gaussian")
    for start, length in zip(patches[:2], size, strict=True):
        normal = np.random.default_rng(5).normal(length / 2, length / 4, 200_000).clip(0, length - 1)
        assert start.double().mean().item() == pytest.approx(normal.mean(), abs=0.01 * length)
        assert start.double().std().item() == pytest.approx(normal.std(), rel=0.02)


def test_moved_as_far_as_the_picture_goes():
    patches = Patches(*(torch.tensor([[value]]) for value in (5, 6, 4)), torch.tensor([[True]]), 4)
    near = moved(patches, -2, 3, SIZE)
    assert (int(near.top), int(near.left), int(near.side)) == (3, 9, 4)
    far = moved(patches, torch.tensor([[-50]]), torch.tensor([[50]]), SIZE)
    assert (int(far.top), int(far.left)) == (0, 37 - 4)
