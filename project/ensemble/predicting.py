"""Pictures restored by an ensemble, with maps of its disagreement, and the surest of them as pairs to train on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from jsonargparse import Namespace
from PIL import Image
from torch import Tensor

from project.checkpoint_files import write_whole
from project.ensemble.average import Ensemble, disagreement
from project.errors import UserError
from project.models.checkpoint import Checkpoint
from project.prediction.jobs import Job, plan
from project.prediction.pictures import open_picture, save_picture
from project.prediction.restorer import Restorer
from project.prediction.trained import colouring_of

GAIN = 10
"""A disagreement of 1 / 10 of the range is white in the map."""


class Together(Restorer):
    """A restorer whose answers carry the members' disagreement as a last channel."""

    def __init__(self, ensemble: Ensemble, data: dict, **options) -> None:
        super().__init__(ensemble, data, **options)
        self.ensemble = ensemble
        self.grey_stays_grey, self.keeps_colour = not self.keeps_colour, True

    def _answer(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            answers = self.ensemble.answers(x)
            return torch.cat([self.ensemble.combine(answers), GAIN * disagreement(answers)], dim=1)

    def both(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A picture, uint8 (H, W, 1 or 3) -> the answer, likewise, and the map of disagreement, uint8 (H, W)."""
        found = self(pixels)
        answer, apart = found[..., :-1], found[..., -1]
        if pixels.shape[2] == 1 and self.grey_stays_grey and answer.shape[2] == 3:
            answer = np.rint(answer.mean(axis=2, keepdims=True)).astype(np.uint8)
        return answer, apart


def predict(ensemble: Ensemble, checkpoints: list[Checkpoint], options: Namespace, device: torch.device) -> int:
    """Restore the pictures of ``--input``.

    Returns:
        1 where a picture failed, else 0.

    Raises:
        UserError: No pictures, or members that colour.
    """
    if colouring_of(checkpoints[0]) is not None:
        raise UserError("ensemble --input is for networks that restore; those that colour can be scored: leave it out.")
    output = Path(options.output).expanduser()
    jobs = plan(Path(options.input), output)
    data = checkpoints[0].config.get("data") or {}
    restorer = Together(ensemble, data, device=device, tile=options.tile, overlap=options.overlap)
    output.mkdir(parents=True, exist_ok=True)
    failed, kept = {}, []
    for job in jobs:
        try:
            confidence = _restore(job, restorer, options.min_confidence, output)
        except Exception as error:  # one picture must not stop the others, whatever is wrong with it
            failed[job.name] = job.problem or " ".join(str(error).split())[:300] or type(error).__name__
            continue
        print(f"{job.name}: confidence {confidence:.4f}")
        if options.min_confidence is not None and confidence >= options.min_confidence:
            kept.append({"file": _pair_name(job), "from": str(job.source.absolute()), "confidence": confidence})
    if options.min_confidence is not None:
        _write_manifest(output / "pairs", kept, checkpoints, options)
        print(f"{len(kept)} of {len(jobs)} pictures are pairs to train on: --data.root {output / 'pairs' / 'inputs'} "
              f"--data.target_root {output / 'pairs' / 'targets'}")  # fmt: skip
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}")
    return 1 if failed else 0


def _restore(job: Job, restorer: Together, least: float | None, output: Path) -> float:
    """Write the answer, the map, and the pair where it is sure enough; the confidence."""
    opened = open_picture(job.source)
    answer, apart = restorer.both(opened.pixels)
    save_picture(job.target, answer, opened)
    Image.fromarray(apart).save(job.target.with_name(f"{job.target.stem}.disagreement.png"))
    confidence = 1 - float(apart.mean()) / 255 / GAIN
    if least is not None and confidence >= least:
        for part, pixels in (("inputs", opened.pixels), ("targets", answer)):
            path = output / "pairs" / part / _pair_name(job)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(path)
    return confidence


def _pair_name(job: Job) -> str:
    return Path(job.name).with_suffix(".png").as_posix()


def _write_manifest(folder: Path, kept: list[dict], checkpoints: list[Checkpoint], options: Namespace) -> None:
    """Where the pairs come from."""
    folder.mkdir(parents=True, exist_ok=True)
    members = [
        {"checkpoint": str(one.path.absolute()), "sha256": hashlib.sha256(one.path.read_bytes()).hexdigest()}
        for one in checkpoints
    ]
    how = {"average": options.average, "turns": options.turns, "min_confidence": options.min_confidence}
    write_whole(folder / "manifest.json", json.dumps({"members": members, **how, "pairs": kept}, indent=2) + "\n")
