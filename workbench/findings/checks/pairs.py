"""Whether input and target belong together, and whether the target holds what is to be learned."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.subject import Subject
from workbench.findings.rule import Level

SIDE = 64


class PairMisaligned(Check):
    """A target that shows another image than its input, or the same one turned, mirrored or moved.

    Compared are the edges, whatever their colors: by the best correlation over all shifts, for the target as it is,
    turned and mirrored, and for other images' targets.
    """

    code = "pair-misaligned"
    floor = Level.DATA
    follows = frozenset({"input-nonfinite", "input-range", "input-constant"})
    limit = 0.8
    """How often, at least, a true pair is closer than a shuffled one; 0.5 is chance."""
    turned = 0.15
    """The share of pairs that fit better turned, mirrored or moved, above which that is no coincidence."""
    margin = 0.1
    """By how much the correlation has to be better."""
    enough = 4
    floor = 0.3
    """And that high, at least: among thousands of shifts some noise fits by chance."""
    busy = 1.3
    """How unevenly edges are spread, at least: deviation against mean, in units of what noise has. Noise has edges
    everywhere: their strength over n channels follows a chi distribution of 2n, whose ratio is near 0.5 / sqrt(n)."""
    near = 3
    """Pixels of 64 that input and target may be apart."""

    def look(self, seen: Subject) -> Outcome:
        inputs, targets = self._edges(seen)
        if len(inputs) < self.enough:
            return self.skipped("too few images with edges to compare")
        surface = correlation(inputs, targets)
        own = self._at_home(surface)
        others = torch.stack([self._at_home(correlation(inputs, targets.roll(n, 0))) for n in self._shuffles(inputs)])
        closer = (own > others).float().mean().item()
        where, apart = self._moved(inputs, targets, own, surface)
        if apart > self.turned:
            return self._fault(f"{apart:.0%} of the pairs", f"fit better {where}", f"at most {self.turned:.0%}")
        if closer < self.limit:
            spread = inputs.flatten(1).std(1) / inputs.flatten(1).mean(1).clamp_min(1e-8)
            uneven = spread.median().item() * 2 * seen.picture_channels**0.5
            if uneven < self.busy:
                return self.skipped("the inputs are too noisy to compare their edges")
            return self._fault("training pairs", closer, self.limit)
        return self.passed(closer, self.limit)

    def _fault(self, where: str, value: float | str, limit: float | str) -> Outcome:
        return self.fault(
            0,
            where,
            value,
            limit,
            "Input and target do not show the same. Give both files of a pair the same name under --data.root and "
            "--data.target_root, and move both together in a pair maker (data.pairs) or augmentation of your own.",
        )

    def _edges(self, seen: Subject) -> tuple[Tensor, Tensor]:
        """Maps of the edges of inputs and targets, (N, 64, 64); images next to without edges are left out."""
        found: list[tuple[Tensor, Tensor]] = []
        for pair in seen.pairs:
            sides = (pair.input[:, : seen.picture_channels], pair.target)
            found.append(tuple(edges(side.float()) for side in sides))
            if sum(len(one) for one, _ in found) >= 96:
                break
        inputs, targets = (torch.cat(sides)[:96] for sides in zip(*found, strict=True))
        strength = targets.flatten(1).std(1)
        kept = (strength > 0.3 * strength.median()) & (strength > 1e-4)
        return inputs[kept], targets[kept]

    @staticmethod
    def _shuffles(inputs: Tensor) -> Iterator[int]:
        yield from range(1, min(len(inputs), 6))

    def _at_home(self, surface: Tensor) -> Tensor:
        """The correlation where both lie upon each other, but for a few pixels."""
        near = [*range(self.near + 1), *range(-self.near, 0)]
        return surface[:, near][:, :, near].flatten(1).amax(1)

    def _moved(self, inputs: Tensor, targets: Tensor, own: Tensor, surface: Tensor) -> tuple[str, float]:
        """How the target has to be changed so that more pairs fit, and how many then fit better."""
        changes = {"moved": surface.flatten(1).amax(1)}
        for name, turned in (
            ("mirrored", targets.flip(2)),
            ("upside down", targets.flip(1)),
            ("turned by 180 degrees", targets.flip(1, 2)),
            ("turned by 90 degrees", targets.rot90(1, (1, 2))),
            ("turned by 270 degrees", targets.rot90(3, (1, 2))),
            ("transposed", targets.transpose(1, 2)),
        ):
            changes[name] = self._at_home(correlation(inputs, turned))
        best = torch.stack(list(changes.values()))
        better = (best > own + self.margin) & (best > self.floor)
        number = int(better.float().mean(1).argmax())
        apart = better.any(0).float().mean().item()
        return list(changes)[number], apart


def edges(picture: Tensor) -> Tensor:
    """(B, C, H, W) -> the strength of the edges, (B, 64, 64), whatever their direction and color."""
    small = F.interpolate(picture, (SIDE, SIDE), mode="area")
    small = F.avg_pool2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    across = small[:, :, :, 2:] - small[:, :, :, :-2]
    down = small[:, :, 2:] - small[:, :, :-2]
    across, down = F.pad(across, (1, 1, 0, 0)), F.pad(down, (0, 0, 1, 1))
    return (across.square() + down.square()).sum(1).sqrt()


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of two maps (N, S, S), at every shift that wraps around: (N, S, S), from -1 to 1, shift 0 first."""
    one, other = (m - m.mean((1, 2), keepdim=True) for m in (one, other))
    product = torch.fft.irfft2(torch.fft.rfft2(one) * torch.fft.rfft2(other).conj(), s=one.shape[-2:])
    return product / (one.flatten(1).norm(dim=1) * other.flatten(1).norm(dim=1)).clamp_min(1e-8)[:, None, None]


class TargetGray(Check):
    """A task in colors whose targets have next to none."""

    code = "target-grey"
    floor = Level.DATA
    follows = frozenset({"input-nonfinite", "input-range", "input-constant"})
    limit = 0.02
    """Of an image: the mean difference of its largest and its smallest channel, on the scale of 0 to 1."""
    share = 0.2

    def look(self, seen: Subject) -> Outcome:
        target = seen.pairs[0].target
        if not seen.colors or target.shape[1] != 3:
            return self.skipped("the task is not to give colors")
        chroma = torch.cat([(p.target.amax(1) - p.target.amin(1)).flatten(1).mean(1) for p in seen.pairs])
        median, gray = chroma.median().item(), (chroma < self.limit).float().mean().item()
        if median >= self.limit and gray <= self.share:
            return self.passed(median, self.limit)
        say = self.fault if median < self.limit else self.note
        return say(
            0,
            f"{gray:.0%} of the targets",
            median,
            self.limit,
            "These targets have next to no color, and gray is what will be learned. Point --data.root (of a pair: "
            "--data.target_root) at images in color, or leave gray ones out: --data.exclude FILE.",
        )
