"""No hints, and what all hints have in common."""

import pytest
import torch

from project.data.pairs import Hints, NoHints, PaletteHints, Point, SpatialHints
from workbench.errors import UserError

SEED = torch.tensor([11, 12, 13, 2**62])
ALL = [NoHints(), SpatialHints(), SpatialHints(position="gaussian", misalign=2), PaletteHints(), PaletteHints(3)]


def test_no_hints(pictures):
    image, hints = pictures(), NoHints()
    assert hints.channels == 0 and hints.slots == 0
    assert hints(image, SEED, True).shape == hints.exact(image, SEED, 5).shape == (4, 0, 40, 56)
    assert hints.given(7, 9, []).shape == (1, 0, 7, 9)
    with pytest.raises(UserError, match="no color hints"):
        hints.given(7, 9, [Point(1, 2, (0, 0, 0))])
    condition = torch.rand(2, 1, 5, 7)
    assert torch.equal(hints.view(torch.empty(2, 0, 5, 7), condition), condition.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("hints", ALL)
@pytest.mark.parametrize("size", [(40, 56), (5, 3)])
def test_planes_have_the_pictures_sides_and_range(pictures, hints, size):
    image = pictures(size=size)
    for planes in (hints(image, SEED, True), hints(image, SEED, False), hints.exact(image, SEED, 30)):
        assert planes.shape == (4, hints.channels, *size) and planes.dtype == torch.float32
        assert not planes.requires_grad
        assert ((planes >= 0) & (planes <= 1)).all()
    shown = hints.view(hints.exact(image, SEED, 3), image[:, :1])
    assert shown.shape == image.shape and ((shown >= 0) & (shown <= 1)).all()
    assert hints.given(*size, []).shape == (1, hints.channels, *size) and not hints.given(*size, []).any()


@pytest.mark.parametrize("hints", ALL[1:])
def test_evaluation_follows_from_picture_and_number_alone(pictures, hints):
    image = pictures()
    whole = hints(image, SEED, False)
    torch.rand(7)  # the global generator plays no part
    assert torch.equal(hints(image, SEED, False), whole)
    reverse = torch.tensor([3, 2, 1, 0])
    assert torch.equal(hints(image[reverse], SEED[reverse], False), whole[reverse])
    for position in range(4):
        assert torch.equal(hints(image[position, None], SEED[position, None], False)[0], whole[position])
    other = hints(image, SEED + 1, False)
    assert not any(torch.equal(other[position], whole[position]) for position in range(4))
    assert torch.equal(hints.exact(image, SEED, hints.eval_count), whole)


@pytest.mark.parametrize("hints", ALL[1:])
def test_evaluation_takes_no_number_from_trainings_generator(pictures, hints):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    hints(pictures(), SEED, False)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("hints", ALL[1:])
def test_training_follows_from_the_devices_generator(pictures, hints):
    torch.manual_seed(3)
    first, second = hints(pictures(), SEED, True), hints(pictures(), SEED, True)
    torch.manual_seed(3)
    assert torch.equal(hints(pictures(), SEED, True), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("hints", ALL)
def test_training_asks_the_device_for_nothing(pictures, hints):
    """On this device there are no values: whoever wants to see one, or shapes that depend on one, raises."""
    planes = hints(pictures(device="meta"), SEED.to("meta"), True)
    assert planes.shape == (4, hints.channels, 40, 56) and planes.is_meta


def test_hints_of_ones_own_are_a_few_methods(pictures):
    class MeanColor(Hints):
        channels = 3

        def drawn(self, picture):
            return picture.mean((2, 3), keepdim=True).expand_as(picture)

        def exact(self, picture, seed, count):
            return self.drawn(picture)

        def given(self, height, width, points):
            return torch.zeros(1, 3, height, width)

        def view(self, planes, condition):
            return planes

    planes = MeanColor()(pictures(), SEED, True)
    assert torch.allclose(planes[1, 2], pictures()[1, 2].mean().expand(40, 56))


@pytest.mark.parametrize("hints", ALL[1:])
@pytest.mark.parametrize("color", [(0.1, 0.2), (0.1, 0.2, 1.5), (255, 0, 0), (-0.1, 0, 0)])
def test_colors_that_are_none(hints, color):
    with pytest.raises(UserError, match="Hint 2 has the color"):
        hints.given(20, 30, [Point(1, 2, (0, 1, 0.5)), Point(3, 4, color)])
