"""What is wrong with the batches, as the loader, the pair maker and the network's normalization make them."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.images import listed
from workbench.findings.checks.subject import Subject
from workbench.findings.rule import Level


class InputNonfinite(Check):
    """NaN or infinite values in what the model gets."""

    code = "input-nonfinite"
    floor = Level.DATA

    def look(self, seen: Subject) -> Outcome:
        for number, pair in enumerate(seen.pairs):
            for name in ("input", "target", "baseline"):
                values = getattr(pair, name, None)
                if not isinstance(values, Tensor):
                    continue
                share = 1 - torch.isfinite(values).float().mean().item()
                if share > 0:
                    bad = (~torch.isfinite(values).flatten(1).all(1)).nonzero()[0, 0]
                    return self.fault(
                        0,
                        f"{name} of training batch {number}, {_name(seen, pair, int(bad))}",
                        share,
                        0.0,
                        "NaN or infinite values reach the network. Look at that image, and for a division by 0 or a "
                        "logarithm in the pair maker (data.pairs); --data.exclude FILE leaves the image out.",
                    )
        return self.passed(0.0, 0.0)


class InputRange(Check):
    """Images in [0, 1] are what is declared: 255 times as much, or as little, is a scaling too few or too many."""

    code = "input-range"
    floor = Level.DATA
    follows = frozenset({"input-nonfinite"})
    margin = 0.25
    """How far the means of an image's sixteenths may lie outside [0, 1]: noise that is not clipped averages out."""
    share = 0.02
    dark = 0.02
    """The brightest value of all images, below which they were divided by 255 twice."""

    def look(self, seen: Subject) -> Outcome:
        worst = 0.0
        for name in ("target", "input"):
            channels = seen.picture_channels if name == "input" else None
            parts = [self._coarse(getattr(pair, name)[:, :channels].float()) for pair in seen.pairs]
            values = torch.cat(parts)
            outside = torch.maximum(-values, values - 1).clamp_min(0)
            share = (outside > self.margin).float().mean().item()
            worst = max(worst, outside.max().item())
            low, high = values.min().item(), values.max().item()
            if share > self.share:
                return self._fault(name, f"{low:.3g} to {high:.3g}")
            brightest = max(getattr(pair, name)[:, :channels].abs().max().item() for pair in seen.pairs)
            if 0 < brightest < self.dark:
                return self._fault(name, f"{low:.3g} to {brightest:.3g}")
        return self.passed(worst, self.margin)

    def _fault(self, name: str, value: str) -> Outcome:
        return self.fault(
            0,
            f"the pairs' {name}",
            value,
            "0 to 1",
            "Images are declared to lie in [0, 1]: they were never divided by 255, or twice, or moved to [-1, 1]. "
            "Leave the scaling to the data module (--data.input_range standardize), and give [0, 1] in a pair maker "
            "of your own (data.pairs).",
        )

    @staticmethod
    def _coarse(picture: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(picture, 4).flatten()


class InputConstant(Check):
    """Nothing to see: one value in a whole image, or in a channel of all of them."""

    code = "input-constant"
    floor = Level.DATA
    follows = frozenset({"input-nonfinite"})
    limit = 0.05
    """The share of blank images that is more than a few slips."""
    flat = 1e-4

    def look(self, seen: Subject) -> Outcome:
        for name in ("input", "target"):
            channels = seen.picture_channels if name == "input" else None
            values = [getattr(pair, name)[:, :channels].transpose(0, 1).flatten(1) for pair in seen.pairs]
            std = torch.cat(values, dim=1).float().std(dim=1)
            if bool((std < self.flat).any()):
                number = int(std.argmin())
                return self.fault(
                    0,
                    f"channel {number} of the pairs' {name}",
                    std.min().item(),
                    self.flat,
                    "This channel has one value in all images, so nothing can be learned from it. Set --data.channels "
                    "1 for gray images, or look at the files and the pair maker (data.pairs).",
                )
            whole = [part.float().flatten().std().item() for pair in seen.pairs for part in [getattr(pair, name)]]
            if min(whole) < self.flat:
                return self.fault(
                    0,
                    f"the {name} of a whole batch",
                    min(whole),
                    self.flat,
                    "A batch of training crops has one value only. Look at the files; --data.exclude FILE leaves blank "
                    "ones out, a larger --data.crop sees more than one patch.",
                )
        gallery = seen.gallery
        blank = [name for name, spread in zip(gallery.names, gallery.spread, strict=True) if spread < self.flat]
        if not blank:
            return self.passed(0.0, self.limit)
        share = len(blank) / len(gallery.names)
        say = self.fault if share >= self.limit else self.note
        return say(
            0,
            listed(blank),
            share,
            self.limit,
            f"{len(blank)} images have one value only. List them in a file, one name a line, and leave them out: "
            "--data.exclude FILE.",
        )


class BatchRepeated(Check):
    """The same images again and again, in the same order, or with the same noise."""

    code = "batch-repeated"
    floor = Level.DATA
    follows = frozenset({"input-constant"})
    enough = 6
    """Draws in an epoch, at least: two short orders may agree by chance."""

    def look(self, seen: Subject) -> Outcome:
        first = [(digests(raw), order(raw)) for raw in seen.epoch(0)]
        second = [(digests(raw), order(raw)) for raw in seen.epoch(1)]
        # Blank crops and single images of a few may well come twice.
        several = [tuple(sorted(parts)) for parts, _ in first if len(set(parts)) > 1]
        again = len(several) - len(set(several))
        if again > 0:
            return self._fault("training batches of one epoch", f"{again} of {len(several)}")
        draws = [draw for _, numbers in first for draw in numbers]
        if len(draws) >= self.enough and len(set(draws)) > 2:
            if [parts for parts, _ in first] == [parts for parts, _ in second]:
                return self._fault("epochs 0 and 1", "the same pixels in the same order")
            if draws == [draw for _, numbers in second for draw in numbers]:
                return self._fault("epochs 0 and 1", "the same order")
        noise = self._noise(seen)
        return noise or self.passed(0, 0)

    def _noise(self, seen: Subject) -> Outcome | None:
        """What the pair maker adds, where two batches get the very same."""
        pairs = [pair for pair in seen.pairs[:4] if pair.input.shape == seen.pairs[0].input.shape]
        channels = seen.picture_channels
        residuals = [
            pair.input[:, :channels].float() - pair.target.float()
            for pair in pairs
            if pair.input[:, :channels].shape == pair.target.shape
        ]
        for one, other in itertools.pairwise(residuals):
            if one.std() > 1e-3 and (one - other).abs().max() < 1e-5:
                return self._fault("the noise of two training batches", "the same")
        return None

    def _fault(self, where: str, value: str) -> Outcome:
        return self.fault(
            0,
            where,
            value,
            "each batch its own",
            "Batches come again as they were. Leave the order to the data module, draw from the given seed and never "
            "from NumPy's global generator; more crops of each image: --data.crops_per_image 16.",
        )


def digests(raw: Any) -> tuple[bytes, ...]:
    """A hash of each image's pixels."""
    images = np.ascontiguousarray(_first(raw).cpu().numpy())
    return tuple(hashlib.blake2b(picture.tobytes(), digest_size=8).digest() for picture in images)


def order(raw: Any) -> tuple[Any, ...]:
    """Which images a batch holds: their numbers, or else their pixels."""
    index = getattr(raw, "index", None)
    return tuple(index.tolist()) if isinstance(index, Tensor) else digests(raw)


def _first(raw: Any) -> Tensor:
    return raw if isinstance(raw, Tensor) else next(part for part in raw if isinstance(part, Tensor))


def _name(seen: Subject, pair: Any, position: int) -> str:
    index = getattr(pair, "index", None)
    pictures = seen.pictures.get("train", [])
    number = int(index[position]) if isinstance(index, Tensor) else -1
    return pictures[number].name if 0 <= number < len(pictures) else f"image {position}"
