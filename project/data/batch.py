"""A batch before and after its transfer to the device."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RawBatch(NamedTuple):
    """What the workers send: pixels stay uint8, a quarter of the bytes of float32.

    Attributes:
        image: uint8, (B, C, H, W): the clean image, or the input of a folder pair.
        target: uint8, (B, C', H, W), of a folder pair (masks: C' of 1), else None. Fewer than B belong to the last
            images: extra pairs beside images without targets.
        index: int64, (B,): the image's number in its split.
        seed: int64, (B,): new for each training draw; in evaluation the image's own, so that its noise never changes.
        is_padding: not None where a rank has this evaluation batch only because others have one more; in no metric.
    """

    image: Tensor
    target: Tensor | None
    index: Tensor
    seed: Tensor
    is_padding: Tensor | None = None


class Batch(NamedTuple):
    """What a model sees, on the device; index, seed and is_padding as in `RawBatch`.

    Attributes:
        input: float32, (B, C, H, W), around [0, 1] (noise is not clipped); further channels (noise map, hints) last.
        target: float32, (B, C', H, W) in [0, 1]; of masks int64, (B, H, W), class numbers.
        baseline: float32, like target: the do-nothing output, which metrics are shown beside; None for masks.
    """

    input: Tensor
    target: Tensor
    baseline: Tensor | None
    index: Tensor
    seed: Tensor | None = None
    is_padding: Tensor | None = None
