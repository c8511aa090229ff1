"""What is wrong with the files: broken ones, copies, odd ones, and figures that come from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from project.data.pixels import PixelStore
from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.gallery import Copy
from workbench.findings.checks.subject import Subject
from workbench.findings.rule import Level

SHOWN = 4


def listed(names: Sequence[str]) -> str:
    """The first names, and how many there are besides."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


class UnreadableImage(Check):
    """Files that cannot be used: fit stops at them, unless it is told to go on without."""

    code = "unreadable-image"
    floor = Level.DATA
    harms_learning = False

    def look(self, seen: Subject) -> Outcome:
        if not seen.pictures and not seen.bad:
            return self.skipped("the data module has no list of its images")
        if not seen.bad:
            return self.passed(0, 0)
        say = self.note if seen.skips_bad else self.fault
        return say(
            0,
            listed(seen.bad),
            len(seen.bad),
            0,
            "These files cannot be used. Mend or remove them, or go on without them: --data.on_bad_image skip.",
        )


class DuplicateImages(Check):
    """Images that are in the training split more than once."""

    code = "duplicate-images"
    floor = Level.DATA
    harms_learning = False
    limit = 0.1
    """The share of copies among the training images that were looked at: below it they do no harm."""

    def look(self, seen: Subject) -> Outcome:
        gallery = seen.gallery
        if gallery.total < 2:
            return self.skipped("there are no images to compare")
        inside = [copy for copy in gallery.copies() if copy.splits[0] == copy.splits[1]]
        extra = {copy.other for copy in inside if copy.splits[0] == "train"}
        looked = max(1, sum(split == "train" for split in gallery.splits))
        share = min(1.0, len(extra) / looked)
        if not inside:
            return self.passed(0.0, self.limit)
        say = self.fault if share > self.limit and len(extra) > 1 else self.note
        return say(
            0,
            listed([f"{copy.one} = {copy.other}" for copy in inside]),
            share,
            self.limit,
            f"{len(inside)} images show the same as another of their split, and count twice in training. List the "
            "copies in a file, one name a line, and leave them out: --data.exclude FILE.",
        )


class SplitLeak(Check):
    """The same image in two splits: what is tested was trained on."""

    code = "split-leak"
    floor = Level.DATA
    harms_learning = False
    limit = 0.01
    """The share of a split's images that lie in another one as well: real collections are seldom without any."""

    def look(self, seen: Subject) -> Outcome:
        gallery = seen.gallery
        if gallery.total < 2:
            return self.skipped("there are no images to compare")
        across = [copy for copy in gallery.copies() if copy.splits[0] != copy.splits[1]]
        share = max((self._share(across, seen, split) for split in ("val", "test")), default=0.0)
        if not across:
            return self.passed(0.0, self.limit)
        say = self.fault if share > self.limit else self.note
        pairs = [f"{copy.one} ({copy.splits[0]}) = {copy.other} ({copy.splits[1]})" for copy in across]
        return say(
            0,
            listed(pairs),
            share,
            self.limit,
            f"{len(across)} images lie in two splits, so their scores are too good. Leave one of each two out: "
            "--data.exclude FILE; or keep images of one scene together in folders train, val and test.",
        )

    @staticmethod
    def _share(across: list[Copy], seen: Subject, split: str) -> float:
        ends = [end for copy in across for end in zip((copy.one, copy.other), copy.splits, strict=True)]
        looked = seen.gallery.splits.count(split)
        return len({name for name, where in ends if where == split}) / looked if looked else 0.0


class OutlierImages(Check):
    """Images that are nothing like the rest: dark, bright, flat, blurred, tiny, odd in shape."""

    code = "outlier-images"
    floor = Level.DATA
    harms_learning = False
    limit = 6.0
    """Robust standard deviations (1.4826 times the median absolute deviation) from the median."""
    enough = 8

    def look(self, seen: Subject) -> Outcome:
        gallery = seen.gallery
        if len(gallery.names) < self.enough:
            return self.skipped(f"fewer than {self.enough} images tell nothing of the rest")
        light = gallery.small.mean((1, 2, 3))
        measures = {  # words for low and high values, the values, and the least that counts as one deviation
            ("dark", "bright"): (light, 0.06),
            ("flat", "rich in contrast"): (np.log(gallery.spread + 0.01), 0.25),
            ("blurred", "noisy"): (np.log(gallery.sharp + 0.01), 0.25),
            ("tiny", "huge"): (np.log(gallery.area), 0.2),
            ("tall", "wide"): (np.log(gallery.aspect), 0.12),
        }
        found: dict[str, tuple[float, str]] = {}
        most = 0.0
        for (low, high), (values, least) in measures.items():
            middle = float(np.median(values))
            deviation = max(least, 1.4826 * float(np.median(np.abs(values - middle))))
            scores = (values - middle) / deviation
            most = max(most, float(np.abs(scores).max()))
            for position in np.flatnonzero(np.abs(scores) > self.limit):
                score, name = float(abs(scores[position])), gallery.names[position]
                found[name] = max(found.get(name, (0.0, "")), (score, low if scores[position] < 0 else high))
        if not found:
            return self.passed(most, self.limit)
        worst = sorted(found.items(), key=lambda entry: -entry[1][0])
        return self.note(
            0,
            listed([f"{name} ({word})" for name, (_, word) in worst]),
            worst[0][1][0],
            self.limit,
            f"{len(found)} images are nothing like the rest, in robust standard deviations. Look at them; "
            "--data.exclude FILE leaves out those that a file lists.",
        )


class StatisticsNotFromTrain(Check):
    """Mean and standard deviation, as the data module or the network has them, against the training images."""

    code = "statistics-not-from-train"
    floor = Level.DATA
    harms_learning = False
    limit = 0.003
    """On the scale of pixels in [0, 1], where all training images are measured."""
    everything = 60_000_000
    """Pixels up to which they are."""
    sample = 500

    def look(self, seen: Subject) -> Outcome:
        statistics = getattr(seen.data, "statistics", None)
        if statistics is None or not seen.pictures.get("train"):
            return self.skipped("the data module has no statistics")
        store = seen.data.dataset("train").store
        own = sum(not picture.origin for picture in seen.pictures["train"])  # extra pairs come last, and count nothing
        worst, where, limit = 0.0, "data.statistics", self.limit
        for side, kept in (("input", statistics), ("target", getattr(seen.data, "target_statistics", None))):
            if kept is None or (side == "target" and not store.has_targets):
                continue
            mean, std, allowed = self._measure(store, own, side, getattr(seen.data.settings, "statistics_images", None))
            apart = max(float(np.abs(kept.mean.numpy() - mean).max()), float(np.abs(kept.std.numpy() - std).max()))
            if apart / allowed > worst / limit:
                worst, where, limit = apart, f"data.statistics of the {side}", allowed
        apart, name = self._buffers(seen)
        if apart > self.limit and worst <= limit:
            worst, where, limit = apart, name, self.limit
        if worst <= limit:
            return self.passed(worst, limit)
        return self.fault(
            0,
            where,
            worst,
            limit,
            "Mean or standard deviation are not those of the training images. Leave them to the data module: "
            "--data.input_range standardize; delete the cache (--data.cache_dir) where "
            "files were replaced.",
        )

    def _measure(
        self, store: PixelStore, total: int, side: str, most: int | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Mean and standard deviation of the first images, and how far off those of all ``total`` may be, of which
        ``most`` are measured."""
        pixels = sum(store.width(number) * store.height(number) for number in range(total))
        whole = pixels <= self.everything
        chosen = range(total) if whole else np.linspace(0, total - 1, self.sample).astype(int).tolist()
        sums, squares, means, count = 0.0, 0.0, [], 0
        for number in chosen:
            picture = (store[number] if side == "input" else store.target(number)).reshape(-1, store.channels)
            values = picture.astype(np.float32) / 255
            sums, squares = sums + values.sum(0, dtype=np.float64), squares + (values**2).sum(0, dtype=np.float64)
            means.append(values.mean(0))
            count += len(values)
        mean = sums / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        # A sample's mean is off by the images' own differences; five standard errors are next to impossible.
        fewest = min(len(means) if not whole else total, most or total)
        error = 0.0 if fewest == total else 5 * float(np.std(means, axis=0).max()) / fewest**0.5
        return mean, std, self.limit + error

    @staticmethod
    def _buffers(seen: Subject) -> tuple[float, str]:
        """How far the network's own figures are from the data module's; those that were never set are another fault."""
        wanted = getattr(seen.data, "normalization", None)
        if wanted is None or seen.starts_from_others or not seen.main:
            return 0.0, ""
        worst, where = 0.0, ""
        for name, part in getattr(seen.model, seen.main).named_modules():
            mean, std = getattr(part, "mean", None), getattr(part, "std", None)
            if name.rpartition(".")[2] != "normalize_input" or mean is None or std is None:
                continue
            mean, std = mean.flatten().cpu().numpy(), std.flatten().cpu().numpy()
            untouched = bool((mean == 0).all() and (std == 1).all())
            if untouched or len(mean) != len(wanted["input"][0]):
                continue
            apart = max(float(np.abs(mean - wanted["input"][0]).max()), float(np.abs(std - wanted["input"][1]).max()))
            if apart > worst:
                worst, where = apart, f"{seen.main}.{name}"
        return worst, where
