"""Images that an ensemble answers, with maps of its disagreement, and the surest of them as pairs to train on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jsonargparse import Namespace
from PIL import Image

from project.data.extra import INPUTS, MANIFEST, TARGETS, kind_of
from project.data.images import content_digest
from project.inference.ensemble.average import Ensemble
from project.inference.ensemble.together import ColoringTogether, RestoringTogether
from project.inference.prediction.colorist import on_white
from project.inference.prediction.jobs import Job, plan
from project.inference.prediction.pictures import Opened, open_picture, save_picture
from project.inference.prediction.trained import check_wishes, coloring_of, working_size
from project.inference.prediction.wishes import read_wishes
from workbench.checkpoint import Checkpoint
from workbench.checkpoint_io import atomic_write_text

Answer = Callable[[Job, Opened], tuple[np.ndarray, np.ndarray, float]]
"""An image -> the answer, uint8 (H, W, C), the map of disagreement, uint8 (H, W), and the confidence."""


def predict(ensemble: Ensemble, checkpoints: list[Checkpoint], options: Namespace, device: torch.device) -> int:
    """Restore or color the images of ``--input``.

    Returns:
        1 where an image failed, else 0.

    Raises:
        UserError: No images, or hints of a kind that the members were not trained with.
    """
    output = Path(options.output).expanduser()
    jobs = plan(Path(options.input), output)
    answer = _answering(ensemble, checkpoints[0], options, jobs, device)
    output.mkdir(parents=True, exist_ok=True)
    failed, kept = {}, []
    for job in jobs:
        try:
            confidence = _write(job, answer, options.min_confidence, output)
        except Exception as error:  # one image must not stop the others, whatever is wrong with it
            failed[job.name] = job.problem or " ".join(str(error).split())[:300] or type(error).__name__
            continue
        print(f"{job.name}: confidence {confidence:.4f}")
        if options.min_confidence is not None and confidence >= options.min_confidence:
            digest = content_digest(job.source.read_bytes())
            origin = {"from": str(job.source.absolute()), "digest": digest}
            kept.append({"file": _pair_name(job), **origin, "confidence": confidence})
    if options.min_confidence is not None:
        _write_manifest(output / "pairs", kept, checkpoints, options)
        print(f"{len(kept)} of {len(jobs)} images are pairs to train on: --data.extra_pairs {output / 'pairs'}")
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}")
    return 1 if failed else 0


def _answering(
    ensemble: Ensemble, checkpoint: Checkpoint, options: Namespace, jobs: list[Job], device: torch.device
) -> Answer:
    data, pairs = checkpoint.config.get("data") or {}, coloring_of(checkpoint)
    wishes = read_wishes(options.hints, options.palette, options.size, jobs)
    check_wishes(pairs, wishes)
    how = {"device": device, "tile": options.tile, "overlap": options.overlap}
    if pairs is None:
        restorer = RestoringTogether(ensemble, data, **how)
        return lambda job, opened: restorer.both(opened.pixels)
    size, why = working_size(data, wishes.size)
    print(f"Colors are found at {f'{size} pixels along the shorter side' if size else 'full size'} ({why}).")
    colorist = ColoringTogether(ensemble, pairs, size, **how)
    return lambda job, opened: colorist.both(opened.pixels, wishes.of(job.name), opened.alpha)


def _write(job: Job, answering: Answer, least: float | None, output: Path) -> float:
    """Write the answer, the map, and the pair where it is sure enough; the confidence."""
    opened = open_picture(job.source)
    answer, apart, confidence = answering(job, opened)
    save_picture(job.target, answer, opened)
    Image.fromarray(apart).save(job.target.with_name(f"{job.target.stem}.disagreement.png"))
    if least is not None and confidence >= least:
        for part, pixels in ((INPUTS, opened.pixels), (TARGETS, answer)):
            path = output / "pairs" / part / _pair_name(job)
            path.parent.mkdir(parents=True, exist_ok=True)
            seen = on_white(pixels, opened.alpha)  # as the data module would load transparency
            Image.fromarray(seen.squeeze(2) if seen.shape[2] == 1 else seen).save(path)
    return confidence


def _pair_name(job: Job) -> str:
    return Path(job.name).with_suffix(".png").as_posix()


def _write_manifest(folder: Path, kept: list[dict], checkpoints: list[Checkpoint], options: Namespace) -> None:
    """Where the pairs come from, and for which task they are."""
    folder.mkdir(parents=True, exist_ok=True)
    members = [
        {"checkpoint": str(one.path.absolute()), "sha256": hashlib.sha256(one.path.read_bytes()).hexdigest()}
        for one in checkpoints
    ]
    asked = ("average", "turns", "min_confidence", "hints", "palette", "size")
    how = {"kind": kind_of(coloring_of(checkpoints[0])), **{name: options[name] for name in asked}}
    atomic_write_text(folder / MANIFEST, json.dumps({"members": members, **how, "pairs": kept}, indent=2) + "\n")
