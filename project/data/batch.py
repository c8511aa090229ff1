"""What a batch is, on both sides of the transfer to the device."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RawBatch(NamedTuple):
    """What the workers send: pixels still uint8, a quarter of the bytes of float32.

    Attributes:
        image: uint8, (B, C, H, W). The clean image, or the input image of a folder pair.
        target: uint8, (B, C', H, W), the partner image of a folder pair; None where there is one folder only. Fewer
            than B are those of the last images: extra pairs (data.extra_pairs) beside images without partners.
        index: int64, (B,). The image's own number in its split.
        seed: int64, (B,). In training another number for every draw; in evaluation the image's own number, from which
            follows whatever is random there.
        is_padding: Not None where, in evaluation, a rank has this batch only because others have one more: it counts in
            no metric.
    """

    image: Tensor
    target: Tensor | None
    index: Tensor
    seed: Tensor
    is_padding: Tensor | None = None


class Batch(NamedTuple):
    """What a model sees, on the device.

    Attributes:
        input: float32, (B, C, H, W), around [0, 1] (noise is not clipped); further channels (noise map, color hints)
            come last.
        target: float32, (B, C', H, W) in [0, 1].
        baseline: float32, like target: the do-nothing answer, which every result is shown beside. Not clipped.
        index: int64, (B,). The image's own number in its split.
        seed: int64, (B,). As in `RawBatch`; None where nothing is drawn from it.
        is_padding: As in `RawBatch`.
    """

    input: Tensor
    target: Tensor
    baseline: Tensor
    index: Tensor
    seed: Tensor | None = None
    is_padding: Tensor | None = None
