"""Whether pretrained weights get images such as they were trained with."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.entrance import reaching
from workbench.findings.checks.subject import Subject
from workbench.findings.rule import Level

ROLE = "normalize_encoder"
"""What a network calls the normalization that belongs to its weights."""


class PretrainedRange(Check):
    """What reaches the normalization of pretrained weights: images in [0, 1], not too unlike those of before."""

    code = "pretrained-range"
    floor = Level.DATA
    follows = frozenset({"input-nonfinite", "input-range", "input-constant"})
    margin = 0.25
    """How far the means of an image's sixteenths may lie outside [0, 1]: noise that is not clipped averages out."""
    share = 0.02
    unlike = 1.5
    """In standard deviations of what the weights were trained with; photographs lie within half of one."""

    def look(self, seen: Subject) -> Outcome:
        found = reaching(seen, lambda name, module: name.rpartition(".")[2] == ROLE)
        if found is None:
            return self.skipped("no network whose weights bring a normalization of their own")
        name, values = found
        normalize = seen.model.get_submodule(name)
        pictures = values[0].shape[1]
        coarse = torch.cat([F.adaptive_avg_pool2d(picture, 4).flatten() for picture in values])
        outside = (torch.maximum(-coarse, coarse - 1) > self.margin).float().mean().item()
        told = f"{coarse.min().item():.3g} to {coarse.max().item():.3g}"
        if outside > self.share:
            return self.fault(
                0,
                name,
                told,
                "0 to 1",
                "The weights were trained with images in [0, 1], which the network normalizes by itself, with their "
                "own statistics. Take it out of project.networks.Normalized, and leave scalings of your own out.",
            )
        mean = torch.stack([picture.mean(dim=(0, 2, 3)) for picture in values]).mean(0)
        theirs, spread = (v.flatten()[:pictures].cpu() for v in (normalize.mean, normalize.std))
        apart = ((mean - theirs) / spread).abs().max().item()
        if apart > self.unlike:
            return self.note(
                0,
                name,
                apart,
                self.unlike,
                "These images are darker or lighter than those that the weights were trained with, as drawings on "
                "white paper are. Let all of the encoder learn (finetune.freeze_stages: 0, freeze_norms: false).",
            )
        if getattr(seen.data, "input_range", "standardize") == "minus_one_one":
            return self.note(
                0,
                name,
                "data.input_range: minus_one_one",
                "standardize",
                "It does nothing here: the network takes [0, 1] and normalizes it as its weights need. Leave it out.",
            )
        return self.passed(f"{told}, {apart:.2g} std off", f"0 to 1, {self.unlike} std")
