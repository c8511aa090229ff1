"""Flips and turns are Albumentations' own, number by number."""

from itertools import product
from random import Random

import numpy as np
import pytest

from project.data.symmetries import Symmetries

CHANCES = (0.0, 0.3, 1.0)


def albumentations(hflip, vflip, quarter_turns, random):
    import albumentations as A

    flips = [kind(p=p) for kind, p in ((A.HorizontalFlip, hflip), (A.VerticalFlip, vflip)) if p]
    turns = [A.RandomRotate90(p=1.0)] if quarter_turns else []
    pipeline = A.Compose(flips + turns, additional_targets={"target": "image"})
    pipeline.set_random_state(np.random.default_rng(0), random)
    return pipeline


@pytest.mark.parametrize(
    ("hflip", "vflip", "quarter_turns"),
    [case for case in product(CHANCES, CHANCES, (False, True)) if any(case)],
)
def test_the_same_changes_as_albumentations_from_the_same_numbers(hflip, vflip, quarter_turns):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (5, 8, 3), np.uint8)
    target = generator.integers(0, 256, (5, 8, 1), np.uint8)
    image.flags.writeable = target.flags.writeable = False
    ours, theirs = Random(), Random()
    change, reference = (
        Symmetries(hflip, vflip, quarter_turns, ours),
        albumentations(hflip, vflip, quarter_turns, theirs),
    )
    for seed in range(40):
        ours.seed(seed), theirs.seed(seed)
        found, expected = change(image=image, target=target), reference(image=image, target=target)
        assert found.keys() == expected.keys()
        for name, pixels in expected.items():
            np.testing.assert_array_equal(found[name], pixels)
        assert ours.getstate() == theirs.getstate()  # what comes next draws the same too
