"""One number, or a range to draw from."""

import pytest
import torch

from project.data.pairs.ranges import bounds, draw
from workbench.errors import UserError


def test_a_number_is_a_range_of_one():
    assert bounds(3, "sigma", 0, 10) == (3.0, 3.0)
    assert bounds([0, 10], "sigma", 0, 10) == (0.0, 10.0)


@pytest.mark.parametrize("value", [-1, 11, [3, 2], [0, 11], [1], [1, 2, 3]])
def test_impossible_ranges_name_their_key(value):
    with pytest.raises(UserError, match=r"data\.pairs\.lines\.sigma is .* between 0 and 10"):
        bounds(value, "lines.sigma", 0, 10)


def test_one_number_for_each_picture():
    image = torch.zeros(500, 3, 2, 5)
    assert torch.equal(draw((2.0, 2.0), image, None), torch.full((500, 1, 1, 1), 2.0))
    drawn = draw((2.0, 4.0), image, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, 1, 1, 1) and drawn.unique().numel() > 490
    assert drawn.min() >= 2 and drawn.max() < 4 and drawn.mean().item() == pytest.approx(3, abs=0.1)
