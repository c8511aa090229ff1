"""Flips and quarter turns, drawn as Albumentations draws them, without the second that its import takes."""

from __future__ import annotations

from random import Random

import numpy as np


class Symmetries:
    """The same as Albumentations' ``Compose([HorizontalFlip, VerticalFlip, RandomRotate90])``, number by number.

    What all its checks cost was half of what a small crop takes to be read and changed.

    Args:
        hflip: Chance of a mirror image, left and right; 0 for never.
        vflip: Chance of a mirror image, up and down; 0 for never.
        quarter_turns: Whether to turn by 0, 90, 180 or 270 degrees.
        random: Draws.
    """

    def __init__(self, hflip: float, vflip: float, quarter_turns: bool, random: Random) -> None:
        self.flips = [(axis, chance) for axis, chance in ((1, hflip), (0, vflip)) if chance > 0]
        self.quarter_turns = quarter_turns
        self.random = random

    def __call__(self, **sides: np.ndarray) -> dict[str, np.ndarray]:
        """Change images alike.

        Args:
            sides: By name, each (H, W, C).

        Returns:
            Views of them, (H, W, C) or (W, H, C).
        """
        random = self.random
        random.random()  # Compose draws whether to do anything at all
        for axis, chance in self.flips:
            if chance >= 1 or random.random() < chance:
                sides = {name: side[:, ::-1] if axis else side[::-1] for name, side in sides.items()}
        turns = random.randint(0, 3) if self.quarter_turns else 0
        return {name: np.rot90(side, turns) for name, side in sides.items()} if turns else sides
