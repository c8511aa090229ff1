"""The checks before training that know images: broken, doubled, leaking and odd files, ranges, pairs and colors."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from project.callbacks.histogram import InputHistogram
from project.callbacks.pictures import grid, middle, to_image, zoom_for
from project.data.augment import Augment, Augmenter
from project.data.batch import Batch
from project.data.cache import Cache
from project.data.exclusions import read_exclusions
from project.data.index import validate_images
from project.data.loader import usable_cores
from project.data.pixels import PixelStore
from project.data.sources import find_entries
from project.networks.normalize import input_normalization
from workbench.errors import UserError
from workbench.findings.checks.check import Check, Level, Outcome, Passed, listed
from workbench.findings.checks.context import CheckContext
from workbench.findings.checks.data import UNUSABLE_INPUT, InputConstant, InputNotCentered, reaching
from workbench.findings.checks.learning import CannotOverfit
from workbench.findings.finding import Finding

THUMBNAIL = 32
"""Pixels a side."""
COMPARED = 16
"""Pixels a side that images are compared at: what a lossy format does to edges and colors is averaged out."""
MAX_THUMBNAILS, MAX_SECONDS = 2500, 25.0
COPY_DISTANCE = (0.05, 0.2)
"""Least and largest distance (root mean square, against the contrast) below which two images are taken for copies:
between these a quarter of what the third nearest neighbor of an image is away, the median over all images. Drawings
and digits resemble each other more than photographs do."""
SHOWN, SIDE = 6, 192
"""Of check's four PNGs: images, and pixels of the middle of larger ones."""


def image_checks() -> list[Check]:
    """One of each; causes before what follows from them."""
    return [
        UnreadableImage(),
        InputRange(),
        BlankImages(),
        StatisticsNotFromTrain(),
        ImageInputNotCentered(),
        PretrainedRange(),
        DuplicateImages(),
        SplitLeak(),
        OutlierImages(),
        PairMisaligned(),
        TargetGray(),
        CannotOverfitImages(),
    ]


# Before the data module is set up


def prepare_for_check(data: Any) -> Finding | None:
    """Have files that cannot be used, and gray images, become findings where a fit would end; the former's finding."""
    settings, cache = data.settings, Cache(data.cache_dir)
    settings.check()
    entries = find_entries(settings.source, settings.root, settings.target_root, cache)
    excluded = read_exclusions(settings.exclude, entries) if settings.exclude else set()
    workers = usable_cores() if data.num_workers is None else max(data.num_workers, 1)
    _, bad = validate_images(entries, cache=cache, min_size=settings.min_size, workers=workers, excluded=excluded)
    data.unreadable = (bad, settings.on_bad_image == "skip")
    data.pairs.check = lambda *_: None
    if not bad:
        return None
    data.settings = replace(settings, on_bad_image="skip")
    advice = "Too few images are left without these. Fix them, or choose others: --data.root."
    return UnreadableImage().found(True, listed(bad), len(bad), 0, advice)


def signal_channels(data: Any) -> int:
    """Leading channels of the input that show an image; maps and hints come behind them."""
    given, hints = len(data.normalization["input"][0]), getattr(getattr(data.pairs, "hints", None), "channels", 0)
    return given - hints if hints else min(given, data.settings.channels)


def is_colorization(context: CheckContext) -> bool:
    pairs = context.data.pairs
    return hasattr(context.model, "space") or hasattr(pairs, "hints") or bool(getattr(pairs, "keeps_lightness", False))


# Files


class Copy(NamedTuple):
    """Two images that show the same, as (name, split)."""

    one: tuple[str, str]
    other: tuple[str, str]


@dataclass
class Thumbnails:
    """Small versions of the images, enough to recognize copies and outliers.

    Attributes:
        names: (name, split) of the images that were looked at.
        small: float32, (N, C, 32, 32), in [0, 1]; of a folder pair the input's channels, then the target's.
        contrast: float32, (N,), standard deviation of the image's liveliest channel; the smaller of a pair's two.
        sharpness: float32, (N,), see :func:`sharpness`.
        area: Pixels of each file.
        aspect: Width by height of each file.
        copies: Images that show the same: byte for byte, or as far as a person can see.
    """

    names: list[tuple[str, str]]
    small: np.ndarray
    contrast: np.ndarray
    sharpness: np.ndarray
    area: np.ndarray
    aspect: np.ndarray
    copies: list[Copy]


def thumbnails_of(context: CheckContext) -> Thumbnails:
    """Thumbnails of at most 2500 images, taken in at most 25 seconds, and digests of all; made once."""
    if not hasattr(context, "thumbnails"):
        context.thumbnails = _make_thumbnails(context.data)
    return context.thumbnails


def _make_thumbnails(data: Any) -> Thumbnails:
    everything = [(split, number) for split, images in data.images.items() for number in range(len(images))]
    digests = defaultdict(list)
    for split, number in everything:
        image = data.images[split][number]
        digests[image.digest].append((image.name, split))
    copies = [Copy(group[0], other) for group in digests.values() for other in group[1:]]
    deadline = time.monotonic() + MAX_SECONDS
    stores = {split: data.dataset(split).store for split, images in data.images.items() if images}
    names, small, rows = [], [], []
    # In a scattered order, so that a time that runs out leaves no split unseen.
    for position in np.random.default_rng(0).permutation(len(everything))[:MAX_THUMBNAILS]:
        split, number = everything[position]
        store, image = stores[split], data.images[split][number]
        sides = [store[number], *([store.target(number)] if store.has_targets else [])]
        names.append((image.name, split))
        small.append(np.concatenate([thumbnail(side) for side in sides]))
        contrast = min(float(side[::2, ::2].std((0, 1)).max()) / 255 for side in sides)
        rows.append((contrast, sharpness(sides[0]), image.width * image.height, image.width / image.height))
        if time.monotonic() > deadline:
            break
    pixels = np.stack(small)
    known = {frozenset(copy) for copy in copies}
    for one, other in _near(pixels):
        if frozenset((names[one], names[other])) not in known and _same_tone(pixels[one], pixels[other]):
            copies.append(Copy(names[one], names[other]))
    return Thumbnails(names, pixels, *np.array(rows, np.float32).T, copies)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) -> float32 (C, 32, 32) in [0, 1], each pixel the mean of an area."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    how = Image.Resampling.BOX if min(image.size) >= THUMBNAIL else Image.Resampling.BILINEAR
    small = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), how), np.float32)
    return small.reshape(THUMBNAIL, THUMBNAIL, -1).transpose(2, 0, 1) / 255


def sharpness(pixels: np.ndarray) -> float:
    """The mean absolute Laplacian of the middle, at most 512 pixels a side, against its standard deviation."""
    rows, columns = middle(pixels[..., 0], 512)
    gray = pixels[rows, columns].mean(2, dtype=np.float32)
    if min(gray.shape) < 3:
        return 0.0
    laplacian = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1] - 4 * gray[1:-1, 1:-1]
    return float(np.abs(laplacian).mean() / max(float(gray.std()), 1.0))


def _near(small: np.ndarray) -> list[tuple[int, int]]:
    """Pairs whose patterns of light and color differ by next to nothing."""
    total, step = len(small), THUMBNAIL // COMPARED
    if total < 2:
        return []
    rows = small.reshape(total, -1, COMPARED, step, COMPARED, step).mean((3, 5)).reshape(total, -1)
    rows = rows - rows.mean(1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    found, thirds, third = [], [], min(3, total - 1)
    for start in range(0, total, 256):
        # Of two vectors of length 1, c apart in correlation: the distance is sqrt(2 - 2c).
        distance = np.sqrt(np.maximum(2 - 2 * (rows[start : start + 256] @ rows.T), 0))
        thirds.append(np.partition(distance, third, axis=1)[:, third])
        ones, others = np.nonzero(distance < COPY_DISTANCE[1])
        found += [(distance[one, other], start + one, other) for one, other in zip(ones, others, strict=True)]
    limit = float(np.clip(np.median(np.concatenate(thirds)) / 4, *COPY_DISTANCE))
    return [(int(one), int(other)) for distance, one, other in found if one < other and distance < limit]


def _same_tone(one: np.ndarray, other: np.ndarray) -> bool:
    low, high = sorted((float(one.std()), float(other.std())))
    if low < 0.02:  # blank ones are alike, and copies of nothing
        return False
    return high < 1.5 * low and bool(np.abs(one.mean((1, 2)) - other.mean((1, 2))).max() < 0.04)


class UnreadableImage(Check):
    """Files that cannot be used: fit stops at them, or leaves them out where data.on_bad_image is skip."""

    code = "unreadable-image"
    level = Level.DATA
    harms_learning = False
    advice = "These files cannot be used. Fix or remove them, or leave them out: --data.on_bad_image skip."

    def evaluate(self, context: CheckContext) -> Outcome:
        bad, skipped = context.data.unreadable
        return self.found(not skipped, listed(bad), len(bad), 0) if bad else self.passed(0, 0)


class DuplicateImages(Check):
    """Images that are in the training split more than once."""

    code = "duplicate-images"
    level = Level.DATA
    harms_learning = False
    limit = 0.1
    """The share of copies among the training images: below it they do no harm."""

    def evaluate(self, context: CheckContext) -> Outcome:
        found = thumbnails_of(context)
        inside = [copy for copy in found.copies if copy.one[1] == copy.other[1]]
        if not inside:
            return self.passed(0.0, self.limit)
        extra = {copy.other for copy in inside if copy.other[1] == "train"}
        share = min(1.0, len(extra) / max(1, sum(split == "train" for _, split in found.names)))
        advice = (
            f"{len(inside)} images show the same as another of their split, and count twice in training. List the "
            "copies in a file, one name a line, and leave them out: --data.exclude FILE."
        )
        names = listed([f"{copy.one[0]} = {copy.other[0]}" for copy in inside])
        return self.found(share > self.limit and len(extra) > 1, names, share, self.limit, advice)


class SplitLeak(Check):
    """The same image in two splits: what is tested was trained on."""

    code = "split-leak"
    level = Level.DATA
    harms_learning = False
    limit = 0.01
    """The share of a split's images that lie in another one as well: real collections are seldom without any."""

    def evaluate(self, context: CheckContext) -> Outcome:
        found = thumbnails_of(context)
        across = [copy for copy in found.copies if copy.one[1] != copy.other[1]]
        if not across:
            return self.passed(0.0, self.limit)
        share = 0.0
        for split in ("val", "test"):
            leaked = {end for copy in across for end in copy if end[1] == split}
            share = max(share, len(leaked) / max(1, sum(where == split for _, where in found.names)))
        advice = (
            f"{len(across)} images lie in two splits, so their scores are too good. Leave one of each two out: "
            "--data.exclude FILE; or keep images of one scene together in folders train, val and test."
        )
        names = listed([" = ".join(f"{name} ({split})" for name, split in copy) for copy in across])
        return self.found(share > self.limit, names, share, self.limit, advice)


class OutlierImages(Check):
    """Images unlike all others: dark, bright, flat, blurred, tiny, odd in shape."""

    code = "outlier-images"
    level = Level.DATA
    harms_learning = False
    limit = 6.0
    """Robust standard deviations (1.4826 times the median absolute deviation) from the median."""
    enough = 8

    def evaluate(self, context: CheckContext) -> Outcome:
        images = thumbnails_of(context)
        if len(images.names) < self.enough:
            return self.skipped(f"fewer than {self.enough} images have no outliers")
        measures = {  # words for low and high values, the values, and the least that counts as one deviation
            ("dark", "bright"): (images.small.mean((1, 2, 3)), 0.06),
            ("flat", "rich in contrast"): (np.log(images.contrast + 0.01), 0.25),
            ("blurred", "noisy"): (np.log(images.sharpness + 0.01), 0.25),
            ("tiny", "huge"): (np.log(images.area), 0.2),
            ("tall", "wide"): (np.log(images.aspect), 0.12),
        }
        found: dict[str, tuple[float, str]] = {}
        most = 0.0
        for words, (values, least) in measures.items():
            median = float(np.median(values))
            scores = (values - median) / max(least, 1.4826 * float(np.median(np.abs(values - median))))
            most = max(most, float(np.abs(scores).max()))
            for position in np.flatnonzero(np.abs(scores) > self.limit):
                score, name = float(scores[position]), images.names[position][0]
                found[name] = max(found.get(name, (0.0, "")), (abs(score), words[score > 0]))
        if not found:
            return self.passed(most, self.limit)
        worst = sorted(found.items(), key=lambda entry: -entry[1][0])
        advice = (
            f"{len(found)} images are nothing like the others, in robust standard deviations. Look at them; "
            "--data.exclude FILE leaves out those that a file lists."
        )
        names = listed([f"{name} ({word})" for name, (_, word) in worst])
        return self.found(False, names, worst[0][1][0], self.limit, advice)


class StatisticsNotFromTrain(Check):
    """Mean and standard deviation, as the data module or the network has them, against the training images."""

    code = "statistics-not-from-train"
    level = Level.DATA
    harms_learning = False
    limit = 0.003
    """On the scale of pixels in [0, 1], where all training images are measured."""
    everything = 60_000_000
    """Pixels up to which they are."""
    sample = 500
    advice = (
        "Mean or standard deviation are not those of the training images. Leave them to the data module: "
        "--data.input_range standardize, --data.statistics_images null; delete the cache (--data.cache_dir) where "
        "files were replaced."
    )

    def evaluate(self, context: CheckContext) -> Outcome:
        data = context.data
        store = data.dataset("train").store
        own = sum(not image.origin for image in data.images["train"])  # extra pairs come last, and are not measured
        measured = []
        for side, kept in (("input", data.statistics), ("target", data.target_statistics)):
            if side == "input" or store.has_targets:
                mean, std, allowed = self._measure(store, own, side, data.settings.statistics_images)
                apart = max(np.abs(kept.mean.numpy() - mean).max(), np.abs(kept.std.numpy() - std).max())
                measured.append((float(apart), allowed, f"data.statistics of the {side}"))
        measured += self._buffers(context)
        apart, limit, where = max(measured, key=lambda entry: entry[0] / entry[1])
        return self.passed(apart, limit) if apart <= limit else self.found(True, where, apart, limit)

    def _measure(self, store: PixelStore, total: int, side: str, most: int | None) -> tuple[Any, Any, float]:
        """Mean and standard deviation of the first images, and how far off those of all ``total`` may be, of which
        ``most`` are measured."""
        whole = sum(store.width(number) * store.height(number) for number in range(total)) <= self.everything
        chosen = range(total) if whole else np.linspace(0, total - 1, self.sample).astype(int).tolist()
        sums, squares, means, count = 0.0, 0.0, [], 0
        for number in chosen:
            image = (store[number] if side == "input" else store.target(number)).reshape(-1, store.channels)
            values = image.astype(np.float32) / 255
            sums, squares = sums + values.sum(0, dtype=np.float64), squares + (values**2).sum(0, dtype=np.float64)
            means.append(values.mean(0))
            count += len(values)
        mean = sums / count
        # A sample's mean is off by the images' own differences; five standard errors are next to impossible.
        fewest = min(len(means) if not whole else total, most or total)
        error = 0.0 if fewest == total else 5 * float(np.std(means, axis=0).max()) / fewest**0.5
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0)), self.limit + error

    def _buffers(self, context: CheckContext) -> list[tuple[float, float, str]]:
        """How far the network's own statistics are from the data module's; those never set are another fault."""
        if context.starts_from_others:
            return []
        found, wanted = [], [np.array(values) for values in context.data.normalization["input"]]
        for name, part in context.main.module.named_modules():
            mean, std = getattr(part, "mean", None), getattr(part, "std", None)
            if name.rpartition(".")[2] != "normalize_input" or mean is None or std is None:
                continue
            mean, std = mean.flatten().cpu().numpy(), std.flatten().cpu().numpy()
            if len(mean) == len(wanted[0]) and not ((mean == 0).all() and (std == 1).all()):
                apart = max(np.abs(mean - wanted[0]).max(), np.abs(std - wanted[1]).max())
                found.append((float(apart), self.limit, f"{context.main.name}.{name}"))
        return found


# Values


def _outside(images: list[Tensor], margin: float = 0.25) -> tuple[float, float, str]:
    """How much of the images lies outside [0, 1], by means over their sixteenths, which noise that is not clipped
    averages out in: the share beyond the margin, the furthest, and the range."""
    coarse = torch.cat([F.adaptive_avg_pool2d(image.float(), 4).flatten() for image in images])
    outside = torch.maximum(-coarse, coarse - 1).clamp_min(0)
    return (outside > margin).float().mean().item(), outside.max().item(), f"{coarse.min():.3g} to {coarse.max():.3g}"


class InputRange(Check):
    """Images in [0, 1] are what is declared: 255 times as much, or as little, is a scaling too few or too many."""

    code = "input-range"
    level = Level.DATA
    implied_by = frozenset({"input-nonfinite"})
    share = 0.02
    dark = 0.02
    """The brightest value of all images, below which they were divided by 255 twice."""
    advice = (
        "Images are declared to lie in [0, 1]: they were never divided by 255, or twice, or moved to [-1, 1]. Leave "
        "the scaling to the data module (--data.input_range standardize), and give [0, 1] in a data.pairs of your own."
    )

    def evaluate(self, context: CheckContext) -> Outcome:
        worst = 0.0
        targets = [batch.target for batch in context.batches if batch.target.is_floating_point()]
        for name, images in ("target", targets), ("input", [context.signal(b.input, b) for b in context.batches]):
            if not images:
                continue
            share, furthest, told = _outside(images)
            worst = max(worst, furthest)
            brightest = max(image.abs().max().item() for image in images)
            if share > self.share or 0 < brightest < self.dark:
                told = told if share > self.share else f"at most {brightest:.3g}"
                return self.found(True, f"the batches' {name}", told, "0 to 1")
        return self.passed(worst, 0.25)


class BlankImages(InputConstant):
    """One value in a whole image, batch, or channel of all images."""

    limit_blank = 0.05
    """The share of blank images that is more than a few slips."""
    advice = (
        "One value only: nothing can be learned from it. Look at the files and data.pairs; --data.channels 1 is for gray "
        "images, --data.exclude FILE leaves blank ones out, a larger --data.crop sees more than one patch."
    )

    def evaluate(self, context: CheckContext) -> Outcome:
        outcome = super().evaluate(context)
        images = thumbnails_of(context)
        blank = [name for (name, _), contrast in zip(images.names, images.contrast, strict=True) if contrast < 1e-4]
        if not isinstance(outcome, Passed) or not blank:
            return outcome
        share = len(blank) / len(images.names)
        advice = (
            f"{len(blank)} images have one value only. List them in a file, one name a line, and leave them out: "
            "--data.exclude FILE."
        )
        return self.found(share >= self.limit_blank, listed(blank), share, self.limit_blank, advice)


class ImageInputNotCentered(InputNotCentered):
    """The same with what images declare: [-1, 1], and line art, whose white paper lies far from the images' gray."""

    far = 4.0
    advice = (
        "What the first layer gets is not centered on 0 with a spread of 1. Set --data.input_range standardize, and "
        "wrap a network of your own in project.networks.normalize.Normalized."
    )
    advice_tolerable = (
        "What the first layer gets is a little off: statistics go by pixels, batches by images. Where their sizes "
        "differ much, bring them to one: --data.resize 256. [-1, 1], strong noise and white paper do it too."
    )

    def is_tolerable(self, context: CheckContext, mean: float, std: float) -> bool:
        if context.data.input_range == "minus_one_one" or is_colorization(context):
            return abs(mean) <= self.far and std >= 0.1
        return super().is_tolerable(context, mean, std)


class PretrainedRange(Check):
    """What reaches the normalization of pretrained weights: images in [0, 1], not too unlike those of before."""

    code = "pretrained-range"
    level = Level.DATA
    implied_by = UNUSABLE_INPUT
    share = 0.02
    unlike = 1.5
    """In standard deviations of what the weights were trained with; photographs lie within half of one."""
    advice = (
        "The weights were trained with images in [0, 1], which the network normalizes by itself, with their own "
        "statistics. Take it out of project.networks.Normalized, and leave scalings of your own out."
    )
    advice_unlike = (
        "These images are darker or lighter than those that the weights were trained with, as drawings on white paper "
        "are. Let all of the encoder learn (finetune.freeze_stages: 0, freeze_norms: false)."
    )
    advice_range = "It does nothing here: the network normalizes [0, 1] as its weights need. Leave it out."

    def evaluate(self, context: CheckContext) -> Outcome:
        found = reaching(context, lambda name, module: name.rpartition(".")[2] == "normalize_encoder")
        if found is None:
            return self.skipped("no network whose weights bring a normalization of their own")
        name, images = found
        outside, _, told = _outside(images)
        if outside > self.share:
            return self.found(True, name, told, "0 to 1")
        normalize, mean = context.model.get_submodule(name), torch.stack([image.mean((0, 2, 3)) for image in images])
        theirs, spread = (v.flatten()[: mean.shape[1]].cpu() for v in (normalize.mean, normalize.std))
        apart = ((mean.mean(0) - theirs) / spread).abs().max().item()
        if apart > self.unlike:
            return self.found(False, name, apart, self.unlike, self.advice_unlike)
        if context.data.input_range == "minus_one_one":
            return self.found(False, name, "data.input_range: minus_one_one", "standardize", self.advice_range)
        return self.passed(f"{told}, {apart:.2g} std off", f"0 to 1, {self.unlike} std")


# Pairs


class PairMisaligned(Check):
    """A target that shows another image than its input, or the same one rotated, mirrored or shifted.

    Compared are the edges, whatever their colors: by the best correlation over all shifts, for the target as it is,
    rotated and mirrored, and for other images' targets.
    """

    code = "pair-misaligned"
    level = Level.DATA
    implied_by = UNUSABLE_INPUT
    limit = 0.8
    """How often, at least, a true pair is closer than a shuffled one; 0.5 is chance."""
    changed = 0.15
    """The share of pairs that fit better rotated, mirrored or shifted, above which that is no coincidence."""
    margin = 0.1
    """By how much the correlation has to be better."""
    least = 0.3
    """And that high, at least: among thousands of shifts some noise fits by chance."""
    busy = 1.3
    """How unevenly edges are spread, at least: deviation against mean, in units of what noise has. Noise has edges
    everywhere: their strength over n channels follows a chi distribution of 2n, whose ratio is near 0.5 / sqrt(n)."""
    near = 3
    """Pixels of 64 that input and target may be apart."""
    enough, most = 4, 96
    """Images."""
    advice = (
        "Input and target do not show the same. Give both files of a pair the same name under --data.root and "
        "--data.target_root, and move both together in an augmentation or data.pairs of your own."
    )

    def evaluate(self, context: CheckContext) -> Outcome:
        inputs, targets = self._edges(context)
        if len(inputs) < self.enough:
            return self.skipped("too few images with edges to compare")
        surface = correlation(inputs, targets)
        own = self._at_home(surface)
        shuffled = [correlation(inputs, targets.roll(n, 0)) for n in range(1, min(len(inputs), 6))]
        closer = (own > torch.stack([self._at_home(other) for other in shuffled])).float().mean().item()
        how, share = self._changed(inputs, targets, own, surface)
        if share > self.changed:
            return self.found(True, f"{share:.0%} of the pairs", f"fit better {how}", f"at most {self.changed:.0%}")
        if closer < self.limit:
            spread = inputs.flatten(1).std(1) / inputs.flatten(1).mean(1).clamp_min(1e-8)
            if spread.median().item() * 2 * context.data.signal_channels**0.5 < self.busy:
                return self.skipped("the inputs are too noisy to compare their edges")
            return self.found(True, "training pairs", closer, self.limit)
        return self.passed(closer, self.limit)

    def _edges(self, context: CheckContext) -> tuple[Tensor, Tensor]:
        """Maps of the edges of inputs and targets, (N, 64, 64); images next to without edges are left out."""
        found: list[tuple[Tensor, Tensor]] = []
        for batch in context.batches:
            if batch.target.ndim == 4:
                found.append((edges(context.signal(batch.input, batch).float()), edges(batch.target.float())))
            if sum(len(one) for one, _ in found) >= self.most:
                break
        if not found:
            return torch.empty(0), torch.empty(0)
        inputs, targets = (torch.cat(sides)[: self.most] for sides in zip(*found, strict=True))
        strength = targets.flatten(1).std(1)
        kept = (strength > 0.3 * strength.median()) & (strength > 1e-4)
        return inputs[kept], targets[kept]

    def _at_home(self, surface: Tensor) -> Tensor:
        """The correlation where both lie upon each other, but for a few pixels."""
        near = [*range(self.near + 1), *range(-self.near, 0)]
        return surface[:, near][:, :, near].flatten(1).amax(1)

    def _changed(self, inputs: Tensor, targets: Tensor, own: Tensor, surface: Tensor) -> tuple[str, float]:
        """Which change of the target makes the most pairs fit better, and how many fit better by any."""
        changes = {
            "mirrored": targets.flip(2),
            "upside down": targets.flip(1),
            "rotated by 180 degrees": targets.flip(1, 2),
            "rotated by 90 degrees": targets.rot90(1, (1, 2)),
            "rotated by 270 degrees": targets.rot90(3, (1, 2)),
            "transposed": targets.transpose(1, 2),
        }
        fits = {"shifted": surface.flatten(1).amax(1)}
        fits |= {name: self._at_home(correlation(inputs, changed)) for name, changed in changes.items()}
        best = torch.stack(list(fits.values()))
        better = (best > own + self.margin) & (best > self.least)
        return list(fits)[int(better.float().mean(1).argmax())], better.any(0).float().mean().item()


def edges(images: Tensor, side: int = 64) -> Tensor:
    """(B, C, H, W) -> the strength of the edges, (B, 64, 64), whatever their direction and color."""
    small = F.interpolate(images, (side, side), mode="area")
    small = F.avg_pool2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    across = F.pad(small[:, :, :, 2:] - small[:, :, :, :-2], (1, 1, 0, 0))
    down = F.pad(small[:, :, 2:] - small[:, :, :-2], (0, 0, 1, 1))
    return (across.square() + down.square()).sum(1).sqrt()


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of two maps (N, S, S), at every shift that wraps around: (N, S, S), from -1 to 1, shift 0 first."""
    one, other = (m - m.mean((1, 2), keepdim=True) for m in (one, other))
    product = torch.fft.irfft2(torch.fft.rfft2(one) * torch.fft.rfft2(other).conj(), s=one.shape[-2:])
    return product / (one.flatten(1).norm(dim=1) * other.flatten(1).norm(dim=1)).clamp_min(1e-8)[:, None, None]


class TargetGray(Check):
    """A colorization whose targets have next to no color."""

    code = "target-grey"
    level = Level.DATA
    implied_by = UNUSABLE_INPUT
    limit = 0.02
    """Of an image: the mean difference of its largest and its smallest channel, on the scale of 0 to 1."""
    share = 0.2
    advice = (
        "These targets have next to no color, and gray is what will be learned. Point --data.root (of a pair: "
        "--data.target_root) at images in color, or leave gray ones out: --data.exclude FILE."
    )

    def evaluate(self, context: CheckContext) -> Outcome:
        if not is_colorization(context) or context.batches[0].target.shape[1] != 3:
            return self.skipped("the task is no colorization")
        chroma = torch.cat([(b.target.amax(1) - b.target.amin(1)).flatten(1).mean(1) for b in context.batches])
        median, gray = chroma.median().item(), (chroma < self.limit).float().mean().item()
        if median >= self.limit and gray <= self.share:
            return self.passed(median, self.limit)
        return self.found(median < self.limit, f"{gray:.0%} of the targets", median, self.limit)


class CannotOverfitImages(CannotOverfit):
    """The same on images that are not augmented, with noise and hints as in evaluation: equal at every step."""

    def few_samples(self, context: CheckContext) -> Batch:
        dataset = context.data.dataset("train", training=True)
        dataset.augmenter = Augmenter(Augment(hflip=False, vflip=False, quarter_turns=False), context.data.crop)
        first = dataset[0]
        height, width = first.image.shape[-2:]
        count = max(1, min(self.samples, len(dataset), self.pixels // (height * width)))
        numbers = torch.linspace(0, len(dataset) - 1, count).long().tolist()
        try:
            raw = dataset.__getitems__(numbers)
        except UserError:  # whole images of several sizes
            raw = first
        return context.prepare(raw, training=False)


# The four PNGs


def draw_batches(context: CheckContext, folder: Path) -> list[Path]:
    """Write ``batch.png``, ``second_batch.png``, ``train_and_val.png`` and ``input_histogram.png``."""
    normalize = input_normalization(context.main.module)
    two = context.batches[:2]
    if len(two) < 2:
        two += [context.prepare(raw) for raw in context.raw_batches(1, most=1)]
    images = {name: _draw_batch(batch, normalize, context) for name, batch in zip(("batch", "second_batch"), two)}
    images["train_and_val"] = _draw_splits(context)
    paths = [folder / f"{name}.png" for name in (*images, "input_histogram")]
    for path, image in zip(paths, images.values(), strict=False):
        image.save(path)
    views = {"pixels": two[0].input}
    if normalize is not None:
        with torch.no_grad():
            views["as the network sees them"] = normalize(two[0].input)
    hints = two[0].input.shape[1] - context.data.signal_channels
    InputHistogram().draw(views, hints if hints % 4 == 0 else 0, paths[-1])
    return paths


def _draw_batch(batch: Batch, normalize: Any, context: CheckContext) -> Image.Image:
    """A row for each image: as the network gets it (-2 black, 2 white), the same de-normalized, and its target."""
    batch = Batch(*[None if values is None else values[:SHOWN] for values in batch])
    with torch.no_grad():
        inside = batch.input if normalize is None else normalize(batch.input)
        outside = batch.input if normalize is None else normalize.inverse(inside)
    columns = {"as the network sees it, -2 to 2": _shown(inside, context) / 4 + 0.5}
    columns["de-normalized"] = _shown(outside, context)
    views = context.data.pairs.views(batch)
    columns |= {name: view for name, view in views.items() if name not in ("input", "condition")}
    columns["target"] = batch.target
    seen = inside[:, : context.data.signal_channels]
    captions = [[f"mean {x.mean():.2f}, std {x.std():.2f}", *[""] * (len(columns) - 1)] for x in seen]
    rows = [[_thumb(column[number]) for column in columns.values()] for number in range(len(seen))]
    return grid(rows, list(columns), captions)


def _draw_splits(context: CheckContext) -> Image.Image:
    """Training images beside validation images: input and target of each."""
    found = []
    try:
        for raw in context.data.val_dataloader():
            found.append(context.prepare(raw, training=False))
            if sum(len(batch.input) for batch in found) >= SHOWN:
                break
    except UserError:  # no validation split
        pass
    sides = {"training": context.batches[:1], **({"validation": found} if found else {})}
    rows = [
        [[_thumb(x), _thumb(y)] for batch in side for x, y in zip(_shown(batch.input, context), batch.target)]
        for side in sides.values()
    ]
    joined = [sum(row, []) for row in zip(*rows)][:SHOWN]
    headings = [f"{split} {what}" for split in sides for what in ("input", "target")]
    return grid(joined, headings, [[""] * len(headings)] * len(joined))


def _shown(values: Tensor, context: CheckContext) -> Tensor:
    """The image in an input: one channel, or the first three; its hints and maps are left out."""
    return values[:, : 3 if context.data.signal_channels >= 3 else 1]


def _thumb(image: Tensor) -> Image.Image:
    """The middle of an image, enlarged where it is small; of a mask (H, W) the classes as gray."""
    image = image[None] / max(int(image.max()), 1) if image.ndim == 2 else image
    rows, columns = middle(image, SIDE)
    cut = image[:, rows, columns]
    return to_image(cut, zoom_for(*cut.shape[-2:]))
