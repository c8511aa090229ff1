"""What every pair maker is, and which one fits the folders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

from torch import Generator, Tensor

from project.data.batch import Batch
from project.data.statistics import Statistics
from workbench.errors import UserError


class PairMaker(ABC):
    """Makes a batch's `Batch`.

    Attributes:
        partner: what it does with the second folder of a folder pair (`data.target_root`): "never" looks at it, "may"
            use it, or "must" have it.
        keeps_lightness: whether the input's first channel is the target's lightness, CIELAB's L / 100, so that a model
            may copy it and answer with the colors alone.
    """

    partner: Literal["never", "may", "must"] = "never"
    keeps_lightness: bool = False

    @abstractmethod
    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        """Makes the pair.

        Args:
            image: float32 in [0, 1], (B, C, H, W).
            target: float32 in [0, 1], (B, C', H, W), the partner of a folder pair, or None.
            index: int64, (B,), the image's number in its split.
            seed: int64, (B,), not negative. In training another number for every draw; in evaluation the image's
                own number, which follows from its file and the seed: whatever is random then must follow from it alone.
            training: whether random numbers may come from the device's own generator.
        """

    def normalization(self, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the input's channels, from those of the image's."""
        return mean, std

    def check(self, statistics: Statistics, target_statistics: Statistics) -> None:  # noqa: B027 most can take any
        """Looks whether the images can serve at all, before anything is trained or tested with them.

        Args:
            statistics: of the training images.
            target_statistics: of their partners in the second folder; without one, the same as `statistics`.

        Raises:
            UserError: they cannot.
        """

    def views(self, pair: Batch) -> dict[str, Tensor]:
        """What a person wants to see of the input, beside output and target.

        Returns:
            By heading: (B, 1 or 3, H, W), images in [0, 1] or a little outside.
        """
        return {"input": pair.baseline}

    def benchmark(self, image: Tensor, index: Tensor) -> Batch:
        """The pair as the published test protocol (`data.protocol: kair`) makes it; only noise of one sigma has one."""
        raise UserError(f"data.protocol kair is defined for GaussianNoise, not for {type(self).__name__}.")


class Given(PairMaker):
    """Input and target as the two folders of a folder pair hold them; the do-nothing answer is the input."""

    partner = "must"

    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        if target is None:
            raise UserError("data.pairs Given wants two folders: set --data.target_root FOLDER as well.")
        return Batch(image, target, image, index, seed)


def each_alone(image: Tensor, seed: Tensor) -> Iterator[tuple[Tensor, Generator]]:
    """A batch's images one by one, for evaluation: no batch size, order or device then changes what is random.

    Args:
        image: (B, C, H, W), on any device.
        seed: int64, (B,), the images' own numbers.

    Yields:
        An image (1, C, H, W) on the CPU, and a generator that starts from its number.
    """
    for picture, number in zip(image.cpu(), seed.tolist(), strict=True):
        yield picture[None], Generator().manual_seed(number)
