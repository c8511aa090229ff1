"""The checks before training that know images: broken, doubled, leaking and odd files, ranges, pairs and colors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from project.data.cache import Cache
from project.data.index import validate_images
from project.data.pixels import PixelStore
from project.data.thumbnails import Thumbnails
from workbench.findings.checks.context import CheckContext, judge, listed
from workbench.findings.checks.data import UNUSABLE_INPUT, input_constant, input_not_centered, reaching
from workbench.findings.checks.learning import PIXELS, SAMPLES, cannot_overfit
from workbench.findings.engine import Finding, Found, Level, Passed, Result, Rule, Skipped


def prepare_for_check(data: Any) -> Finding | None:
    """Have unusable files and gray images become findings where a fit would end; returns the former's, or None."""
    settings, cache = data.settings, Cache(data.cache_dir)
    entries, excluded = settings.find(cache)
    options = {"min_size": settings.min_size, "masks": settings.target == "mask", "excluded": excluded}
    _, bad = validate_images(entries, cache=cache, **options)
    data.unreadable = (bad, settings.on_bad_image == "skip")
    data.pairs.check = lambda *_: None
    if not bad:
        return None
    data.settings = replace(settings, on_bad_image="skip")
    advice = "Too few images are left without these. Fix them, or choose others: --data.root."
    return UNREADABLE.finding(Found(listed(bad), len(bad), 0, advice))


def is_colorization(context: CheckContext) -> bool:
    pairs = context.data.pairs
    return hasattr(context.model, "space") or hasattr(pairs, "hints") or bool(getattr(pairs, "keeps_lightness", False))


def thumbnails_of(context: CheckContext) -> Thumbnails:
    """Those of the data module, made once."""
    if not hasattr(context, "thumbnails"):
        context.thumbnails = Thumbnails.of(context.data)
    return context.thumbnails


def unreadable_image(context: CheckContext) -> Result:
    """Files that cannot be used: fit stops at them, or leaves them out where data.on_bad_image is skip."""
    advice = "These files cannot be used. Fix or remove them, or leave them out: --data.on_bad_image skip."
    bad, skipped = context.data.unreadable
    return Found(listed(bad), len(bad), 0, advice, is_fault=not skipped) if bad else Passed(0, 0)


def duplicate_images(context: CheckContext) -> Result:
    """Images that are in the training split more than once."""
    limit = 0.1  # the share of copies among the training images, below which they do no harm
    advice = (
        "These show the same as another image of their split, and count twice in training. List the copies in a file, "
        "one name a line, and leave them out: --data.exclude FILE."
    )
    images = thumbnails_of(context)
    inside = [(one, other) for one, other in images.copies if one[1] == other[1]]
    if not inside:
        return Passed(0.0, limit)
    extra = {other for _, other in inside if other[1] == "train"}
    share = images.share(extra, "train")
    names = listed([f"{one[0]} = {other[0]}" for one, other in inside])
    return Found(names, share, limit, advice, is_fault=share > limit and len(extra) > 1)


def split_leak(context: CheckContext) -> Result:
    """The same image in two splits: what is tested was trained on."""
    limit = 0.01  # the share of a split's images; real collections are seldom without any
    advice = (
        "These images lie in two splits, so scores are too good. Leave one of each two out: --data.exclude FILE; or "
        "keep images of one scene together in folders train, val and test."
    )
    images = thumbnails_of(context)
    across = [(one, other) for one, other in images.copies if one[1] != other[1]]
    if not across:
        return Passed(0.0, limit)
    leaking = {name for copy in across for name in copy}
    share = max(images.share(leaking, split) for split in ("val", "test"))
    names = listed([" = ".join(f"{name} ({split})" for name, split in copy) for copy in across])
    return Found(names, share, limit, advice, is_fault=share > limit)


def outlier_images(context: CheckContext) -> Result:
    """Images unlike all others: dark, bright, flat, blurred, tiny, odd in shape."""
    limit = 6.0  # robust standard deviations (1.4826 times the median absolute deviation) from the median
    enough = 8
    advice = "These images are nothing like the others. Look at them; --data.exclude FILE leaves out those it lists."
    images = thumbnails_of(context)
    if len(images.names) < enough:
        return Skipped(f"fewer than {enough} images have no outliers")
    measures = {  # words for low and high values, the values, and the least that counts as one deviation
        ("dark", "bright"): (images.small.mean((1, 2, 3)), 0.06),
        ("flat", "rich in contrast"): (np.log(images.contrast + 0.01), 0.25),
        ("blurred", "noisy"): (np.log(images.sharpness + 0.01), 0.25),
        ("tiny", "huge"): (np.log(images.area), 0.2),
        ("tall", "wide"): (np.log(images.aspect), 0.12),
    }
    found: dict[str, tuple[float, str]] = {}
    for words, (values, least) in measures.items():
        away = values - np.median(values)
        scores = away / max(least, 1.4826 * float(np.median(np.abs(away))))
        for (name, _), score in zip(images.names, scores.tolist(), strict=True):
            found[name] = max(found.get(name, (0.0, "")), (abs(score), words[score > 0]))
    worst = sorted(found.items(), key=lambda entry: -entry[1][0])
    odd = [f"{name} ({word})" for name, (score, word) in worst if score > limit]
    most = worst[0][1][0]
    return Found(listed(odd), most, limit, advice, is_fault=False) if odd else Passed(most, limit)


MOST_APART = 0.003  # on the scale of pixels in [0, 1], where all training images are measured
MEASURED = 500  # images


def statistics_not_from_train(context: CheckContext) -> Result:
    """Mean and standard deviation, as the data module or the network has them, against the training images."""
    advice = (
        "Mean or standard deviation are not those of the training images. Leave them to the data module: "
        "--data.input_range standardize; delete the cache (--data.cache_dir) where files were replaced."
    )
    data = context.data
    store = data.dataset("train").store
    own = sum(not image.origin for image in data.images["train"])  # extra pairs come last, and are not measured
    measured = _buffers(context)
    for side, kept in (("input", data.statistics), ("target", data.target_statistics)):
        if side == "input" or store.has_targets:
            (mean, std), allowed = _measure(store, own, side)
            apart = max(np.abs(kept.mean.numpy() - mean).max(), np.abs(kept.std.numpy() - std).max())
            measured.append((float(apart), f"data.statistics of the {side}", allowed))
    return judge(*max(measured, key=lambda entry: entry[0] / entry[2]), advice)


def _measure(store: PixelStore, total: int, side: str) -> tuple[tuple[Any, Any], float]:
    """Mean and standard deviation of some of the first images, and how far off those of all may be."""
    moments = []
    for number in np.linspace(0, total - 1, min(total, MEASURED)).astype(int).tolist():
        image = (store[number] if side == "input" else store.target(number)).reshape(-1, store.channels)
        values = image.astype(np.float64) / 255
        moments.append((len(values), values.mean(0), (values**2).mean(0)))
    sizes, means, squares = map(np.array, zip(*moments, strict=True))
    mean, square = np.average(means, 0, sizes), np.average(squares, 0, sizes)
    # A sample's mean is off by the images' own differences; five standard errors are next to impossible.
    error = 5 * float(means.std(0).max()) / len(means) ** 0.5 if len(means) < total else 0.0
    return (mean, np.sqrt(np.maximum(square - mean**2, 0))), MOST_APART + error


def _buffers(context: CheckContext) -> list[tuple[float, str, float]]:
    """How far the network's own statistics are from the data module's; those never set are another fault."""
    found, wanted = [], np.array(context.data.normalization["input"])
    for name, part in context.main.module.named_modules():
        if context.starts_from_others or name.rpartition(".")[2] != "normalize_input":
            continue
        own = torch.stack([part.mean, part.std]).flatten(1).cpu().numpy()
        if own.shape == wanted.shape and not ((own[0] == 0).all() and (own[1] == 1).all()):
            found.append((float(np.abs(own - wanted).max()), context.main.full_name(name), MOST_APART))
    return found


def _outside(images: list[Tensor], margin: float = 0.25) -> tuple[float, float, str]:
    """How much of the images lies outside [0, 1], by means over their sixteenths, which noise that is not clipped
    averages out in: the share beyond the margin, the furthest, and the range."""
    coarse = torch.cat([F.adaptive_avg_pool2d(image.float(), 4).flatten() for image in images])
    outside = torch.maximum(-coarse, coarse - 1).clamp_min(0)
    return (outside > margin).float().mean().item(), outside.max().item(), f"{coarse.min():.3g} to {coarse.max():.3g}"


def input_range(context: CheckContext) -> Result:
    """Images in [0, 1] are what is declared: 255 times as much, or as little, is a scaling too few or too many."""
    most_outside = 0.02  # the share
    dark = 0.02  # a brightest value below it was divided by 255 twice
    advice = (
        "Images are declared to lie in [0, 1]: they were never divided by 255, or twice, or moved to [-1, 1]. Leave "
        "the scaling to the data module (--data.input_range standardize), and give [0, 1] in a data.pairs of your own."
    )
    worst = 0.0
    targets = [batch.target for batch in context.batches if batch.target.is_floating_point()]
    inputs = [context.signal(batch.input, batch) for batch in context.batches]
    for name, images in {"target": targets, "input": inputs}.items():
        if not images:
            continue
        share, furthest, span = _outside(images)
        worst = max(worst, furthest)
        if share > most_outside:
            return Found(f"the batches' {name}", span, "0 to 1", advice)
        brightest = max(image.abs().max().item() for image in images)
        if 0 < brightest < dark:
            return Found(f"the batches' {name}", f"at most {brightest:.3g}", "0 to 1", advice)
    return Passed(worst, 0.25)


def blank_images(context: CheckContext) -> Result:
    """One value in a whole image, batch, or channel of all images."""
    result = input_constant(context)
    if isinstance(result, Found):
        advice = (
            "One value only: nothing can be learned from it. Look at the files and data.pairs; --data.channels 1 is "
            "for gray images, --data.exclude FILE leaves blank ones out, a larger --data.crop sees more than one patch."
        )
        return result._replace(advice=advice)
    images, limit = thumbnails_of(context), 0.05  # the share of blank images that is more than a few slips
    blank = [name for (name, _), contrast in zip(images.names, images.contrast, strict=True) if contrast < 1e-4]
    if not blank:
        return result
    share = len(blank) / len(images.names)
    advice = "These have one value only. List them in a file, one name a line, and leave them out: --data.exclude FILE."
    return Found(listed(blank), share, limit, advice, is_fault=share >= limit)


def image_input_not_centered(context: CheckContext) -> Result:
    """The same with what images declare: [-1, 1], and line art, whose white paper lies far from the images' gray."""
    declared = context.data.input_range == "minus_one_one" or is_colorization(context)
    result = input_not_centered(context, **({"far": 4.0, "least": 0.1, "most": math.inf} if declared else {}))
    if not isinstance(result, Found):
        return result
    advice = (
        "What the first layer gets is not centered on 0 with a spread of 1. Set --data.input_range standardize, and "
        "wrap a network of your own in project.networks.normalize.Normalized."
    )
    if not result.is_fault:
        advice = (
            "What the first layer gets is a little off: statistics go by pixels, batches by images. Where their sizes "
            "differ much, bring them to one: --data.resize 256. [-1, 1], strong noise and white paper do it too."
        )
    return result._replace(advice=advice)


def pretrained_range(context: CheckContext) -> Result:
    """What reaches the normalization of pretrained weights: images in [0, 1]."""
    limit = 0.02  # the share outside
    advice = (
        "The weights were trained with images in [0, 1], which the network normalizes by itself, with their own "
        "statistics. Take it out of project.networks.Normalized, and leave scalings of your own out."
    )
    found = reaching(context, lambda name, module: name.rpartition(".")[2] == "normalize_encoder")
    if found is None:
        return Skipped("no network whose weights bring a normalization of their own")
    outside, _, span = _outside(found[1])
    return Found(found[0], span, "0 to 1", advice) if outside > limit else Passed(span, "0 to 1")


def pair_misaligned(context: CheckContext) -> Result:
    """A target that shows another image than its input, or the same one rotated, mirrored or shifted.

    Compared are the edges, whatever their colors, by their correlation: fine ones over all shifts, and for the target
    rotated and mirrored; fine and coarse ones, which stand out of noise, against other images' targets.
    """
    limit = 0.8  # how often, at least, a true pair is closer than a shuffled one; 0.5 is chance
    legible = 0.75  # the same of an input's even and odd columns, below which its noise buries its edges
    most_changed = 0.15  # the share of pairs that may fit better rotated, mirrored or shifted by coincidence
    enough, most = 4, 96  # images
    batches = [batch for batch in context.batches if batch.target.ndim == 4]
    if not batches:
        return Skipped("the targets are no images")
    inputs = [context.signal(batch.input, batch).float() for batch in batches]
    targets = [batch.target.float() for batch in batches]
    fine = edges(targets)[:most]
    strength = fine.flatten(1).std(1)
    kept = (strength > 0.3 * strength.median()) & (strength > 1e-4)  # the others are next to without edges
    if int(kept.sum()) < enough:
        return Skipped("too few images with edges to compare")

    def edges_of(images: list[Tensor], blur: int) -> Tensor:
        return edges(images, blur)[:most][kept]

    advice = "Input and target do not show the same. In an augmentation or data.pairs of your own, move both together."
    if context.data.settings.target_root:
        advice = "Give both files of a pair the same name under --data.root and --data.target_root."
    how, share = _changed(edges_of(inputs, FINE), fine[kept])
    if share > most_changed:
        return Found(f"{share:.0%} of the pairs", f"fit better {how}", f"at most {most_changed:.0%}", advice)
    closer = max(closer_than_shuffled(edges_of(inputs, blur), edges_of(targets, blur)) for blur in (FINE, COARSE))
    if closer >= limit:
        return Passed(closer, limit)
    halves = [[image[..., start::2] for image in inputs] for start in (0, 1)]
    if closer_than_shuffled(*(edges_of(half, COARSE) for half in halves)) < legible:
        return Skipped("the inputs are too noisy to compare their edges")
    return Found("training pairs", closer, limit, advice)


def _changed(inputs: Tensor, targets: Tensor) -> tuple[str, float]:
    """Which change of the target makes the most pairs fit better, and how many fit better by any."""
    surface = correlation(inputs, targets)
    own, fits = in_place(surface), {"shifted": surface.flatten(1).amax(1)}
    for mirrored in (False, True):
        for turns in range(4):
            how = " and ".join(["mirrored"] * mirrored + [f"rotated by {90 * turns} degrees"] * (turns > 0))
            changed = (targets.flip(2) if mirrored else targets).rot90(turns, (1, 2))
            fits[how] = in_place(correlation(inputs, changed))
    best = torch.stack(list(fits.values()))
    better = (best > own + 0.1) & (best > 0.3)  # of thousands of shifts some noise fits
    return list(fits)[int(better.float().mean(1).argmax())], better.any(0).float().mean().item()


FINE, COARSE = 3, 13  # pixels of 64 that are averaged before edges are looked for


def edges(batches: list[Tensor], blur: int = FINE, side: int = 64) -> Tensor:
    """Batches (B, C, H, W), N images in all -> the strength of their edges in any direction and color, (N, 64, 64)."""
    small = torch.cat([F.interpolate(images, (side, side), mode="area") for images in batches])
    small = F.avg_pool2d(F.pad(small, 4 * [blur // 2], mode="replicate"), blur, stride=1)
    across = F.pad(small[:, :, :, 2:] - small[:, :, :, :-2], (1, 1, 0, 0))
    down = F.pad(small[:, :, 2:] - small[:, :, :-2], (0, 0, 1, 1))
    return (across.square() + down.square()).sum(1).sqrt()


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of two maps (N, S, S), at every shift that wraps around: (N, S, S), from -1 to 1, shift 0 first."""
    one, other = (m - m.mean((1, 2), keepdim=True) for m in (one, other))
    product = torch.fft.irfft2(torch.fft.rfft2(one) * torch.fft.rfft2(other).conj(), s=one.shape[-2:])
    return product / (one.flatten(1).norm(dim=1) * other.flatten(1).norm(dim=1)).clamp_min(1e-8)[:, None, None]


def in_place(surface: Tensor, near: int = 3) -> Tensor:
    """The correlation where both lie upon each other, but for a few pixels of 64."""
    shifts = [*range(near + 1), *range(-near, 0)]
    return surface[:, shifts][:, :, shifts].flatten(1).amax(1)


def closer_than_shuffled(inputs: Tensor, targets: Tensor) -> float:
    """How often an image is closer to its own target than to another's; 0.5 is chance."""
    own = in_place(correlation(inputs, targets))
    others = [in_place(correlation(inputs, targets.roll(n, 0))) for n in range(1, min(len(inputs), 6))]
    return (own > torch.stack(others)).float().mean().item()


def target_gray(context: CheckContext) -> Result:
    """A colorization whose targets have next to no color."""
    limit = 0.02  # of an image: the mean difference of its largest and its smallest channel, on the scale of 0 to 1
    advice = (
        "These targets have next to no color, and gray is what will be learned. Point --data.root (of a pair: "
        "--data.target_root) at images in color, or leave gray ones out: --data.exclude FILE."
    )
    if not is_colorization(context) or context.batches[0].target.shape[1] != 3:
        return Skipped("the task is no colorization")
    chroma = torch.cat([(b.target.amax(1) - b.target.amin(1)).flatten(1).mean(1) for b in context.batches])
    median, gray = chroma.median().item(), (chroma < limit).float().mean().item()
    if median >= limit and gray <= 0.2:
        return Passed(median, limit)
    return Found(f"{gray:.0%} of the targets", median, limit, advice, is_fault=median < limit)


def images_cannot_be_overfit(context: CheckContext) -> Result:
    """The same with a second try: L1 is content for hundreds of steps with sparse noise as it is.

    There the task is one that any loss learns soon: the targets, given themselves at half the contrast.
    """
    result = cannot_overfit(context)
    batch = context.batch_of(SAMPLES, PIXELS)
    is_fault = isinstance(result, Found) and result.is_fault
    if not is_fault or is_colorization(context) or batch.target.shape != getattr(batch.baseline, "shape", None):
        return result
    easy, maps = 0.25 + 0.5 * batch.target, batch.input[:, batch.target.shape[1] :]
    other = cannot_overfit(context, batch._replace(input=torch.cat([easy.to(batch.input), maps], 1), baseline=easy))
    return result if isinstance(other, Skipped) else other


UNREADABLE = Rule("unreadable-image", unreadable_image, Level.DATA, harms_learning=False)
CHECKS = (
    UNREADABLE,
    Rule("input-range", input_range, Level.DATA, {"input-nonfinite"}),
    Rule("input-constant", blank_images, Level.DATA, {"input-nonfinite"}),
    Rule("statistics-not-from-train", statistics_not_from_train, Level.DATA, harms_learning=False),
    Rule("input-not-centred", image_input_not_centered, Level.DATA, UNUSABLE_INPUT | {"statistics-not-from-train"}),
    Rule("pretrained-range", pretrained_range, Level.DATA, UNUSABLE_INPUT),
    Rule("duplicate-images", duplicate_images, Level.DATA, harms_learning=False),
    Rule("split-leak", split_leak, Level.DATA, harms_learning=False),
    Rule("outlier-images", outlier_images, Level.DATA, harms_learning=False),
    Rule("pair-misaligned", pair_misaligned, Level.DATA, UNUSABLE_INPUT),
    Rule("target-grey", target_gray, Level.DATA, UNUSABLE_INPUT),
    Rule("cannot-overfit", images_cannot_be_overfit, Level.SYMPTOM, {"initial-loss", "unreadable-image"}),
)
"""Causes before what follows from them; a fault of files does not show in how a network learns."""
