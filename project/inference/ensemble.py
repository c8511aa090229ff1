"""``python -m project ensemble``: average several checkpoints, or one with test-time augmentation.

    python -m project ensemble --ckpts A.ckpt B.ckpt C.ckpt                     # score each member beside the ensemble
    python -m project ensemble --ckpts A.ckpt --tta true                        # one model, flips and quarter turns
    python -m project ensemble --ckpts A.ckpt B.ckpt --input photos --output restored --min_confidence 0.98

Beside each output goes a map of its uncertainty. Outputs that are certain enough become pseudo-labels, pairs to train
on. Networks that color take hints as ``predict`` does (--hints, --palette, --size).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jsonargparse import Namespace
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from project.data.extra import INPUTS, MANIFEST, TARGETS, kind_of
from project.data.images import content_digest
from project.data.pairs import Coloring
from project.inference.common import command_parser, digest, input_channels, load_image_model, open_data
from project.inference.hints import parse_request
from project.inference.image_files import ImageFile, InferenceItem, list_inputs, on_white, read_image, write_image
from project.inference.pipeline import coloring_of, make_pipeline
from project.inference.predict import add_image_options, process_all
from project.inference.tiles import choose_device
from project.models.metrics import PSNR, SSIM, ColorfulnessRatio, Scores
from workbench.checkpoint import Checkpoint, atomic_write_text, read_checkpoint
from workbench.console import silence_warnings
from workbench.errors import UserError
from workbench.parser import read_options, split_data_args

GAIN = 10  # an uncertainty of 1 / 10 of the range is white in the map
COLUMNS = {"psnr": ("PSNR (dB)", ".3f"), "ssim": ("SSIM", ".4f"), "colorfulness": ("colors / truth's", ".2f")}


class Ensemble(nn.Module):
    """Members whose images are averaged.

    Args:
        members: Each takes (B, C, H, W) and returns images (B, c, H, W) around [0, 1].
        tta: Average every member's outputs on all eight flips and quarter turns of the image.
    """

    extra_channels = 2
    """The uncertainty, the members' standard deviation (root mean square over channels), times GAIN and as it is: in 8
    bits the one shows small values, the other large ones."""

    def __init__(self, members: Sequence[nn.Module], tta: bool = False) -> None:
        super().__init__()
        self.members, self.tta = nn.ModuleList(members), tta

    def outputs(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> every image on its own, (members, or members x 8, B, c, H, W) in [0, 1]."""
        found = []
        for member in self.members:
            for position in range(8 if self.tta else 1):
                image = member(d4_transform(x, position)).float().clamp(0, 1)
                found.append(d4_inverse(image, position))
        return torch.stack(found)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, c + 2, H, W): images in [0, 1] and the extra channels."""
        outputs = self.outputs(x)
        spread = outputs.var(dim=0, correction=0).mean(dim=1, keepdim=True).sqrt()
        return torch.cat([outputs.mean(dim=0), GAIN * spread, spread], dim=1)


def d4_transform(x: Tensor, position: int) -> Tensor:
    """One of the eight symmetries of a square: quarter turns (0 to 3), and the same mirrored (4 to 7)."""
    x = x.flip(-1) if position >= 4 else x
    return torch.rot90(x, position % 4, (-2, -1))


def d4_inverse(x: Tensor, position: int) -> Tensor:
    """Undo :func:`d4_transform`."""
    x = torch.rot90(x, -(position % 4), (-2, -1))
    return x.flip(-1) if position >= 4 else x


def main(argv: Sequence[str]) -> int:
    """Run the command; ``argv`` starts with ``ensemble``. The exit code is 1 where an image failed."""
    options, data_words = _parse(list(argv[1:]))
    silence_warnings()
    device = choose_device(options.device)
    checkpoints = [read_checkpoint(path) for path in options.ckpts]
    models = [load_image_model(checkpoint, "ensemble").to(device) for checkpoint in checkpoints]
    tasks = [_task(checkpoint, model) for checkpoint, model in zip(checkpoints, models, strict=True)]
    if len(set(tasks)) > 1:
        listed = "\n".join(f"  {one.path}: {task}" for one, task in zip(checkpoints[:8], tasks, strict=False))
        raise UserError(f"The checkpoints were not trained for one task:\n{listed}")
    ensemble = Ensemble(models, options.tta).eval().to(device)
    if options.input is not None:
        return _predict(ensemble, checkpoints, options, device)
    _score(ensemble, checkpoints, data_words, device)
    return 0


def _parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """The options, and the words that change the data settings of the first checkpoint's run."""
    description = "Average several checkpoints, or one with test-time augmentation. Without --input they are scored "
    description += "on the test images of the first one's run, each member beside the ensemble."
    parser = command_parser("ensemble", description, checkpoint=False)
    add = parser.add_argument
    add("--ckpts", type=str, nargs="+", required=True, help="of several runs, or the snapshots of one")
    add("--tta", type=bool, default=False, help="test-time augmentation: all eight flips and quarter turns")
    add_image_options(parser, required=False)
    certain = "write outputs whose confidence (1 - mean uncertainty) is at least this as pairs, into OUTPUT/pairs"
    add("--min_confidence", type=float | None, default=None, help=certain)
    add("--data.KEY", type=str | None, default=None, help="any key of the run's data settings, such as --data.root")
    own, data_words = split_data_args(arguments)
    options = read_options(parser, own)
    if len(options.ckpts) < 2 and not options.tta:
        raise UserError("One checkpoint is no ensemble: give several to --ckpts, or average its flips: --tta true")
    names = ("input", "output", "hints", "palette", "size", "min_confidence")
    given = [name for name in names if options[name] is not None]
    if given and not {"input", "output"} <= set(given):
        raise UserError(f"--{given[0]} needs --input and --output; without, the ensemble is scored on test images.")
    return options, data_words


def _task(checkpoint: Checkpoint, model: nn.Module) -> str:
    pairs = coloring_of(checkpoint)
    hints = "" if pairs is None else f", {type(pairs.hints).__name__}"
    return f"{input_channels(model, checkpoint.config.get('data') or {})} channels ({kind_of(pairs)}{hints})"


def _score(ensemble: Ensemble, checkpoints: list[Checkpoint], words: list[str], device: torch.device) -> None:
    """Print the scores on the test images of each member, of the ensemble, and of doing nothing."""
    config = checkpoints[0].config
    seed = config.get("seed_everything")
    own = type(seed) is int and not config["data"].get("seed")  # the noise of the run's own test
    data = open_data(checkpoints[0], [*(["--data.seed", str(seed)] if own else []), *words])
    metrics = {"psnr": PSNR(), "ssim": SSIM()}
    if isinstance(data.pairs, Coloring):
        metrics["colorfulness"] = ColorfulnessRatio()
    scores = [Scores(metrics).to(device) for _ in range(len(checkpoints) + 1)]
    for raw in data.evaluation_dataloader("test"):
        batch = data.make_batch(data.transfer_batch_to_device(raw, device, 0))
        with torch.inference_mode():
            outputs = ensemble.outputs(batch.input)
            alone = outputs[:: 8 if ensemble.tta else 1]
            for score, image in zip(scores, [*alone, outputs.mean(dim=0)], strict=True):
                score.update(image, batch.target, batch.baseline)
    found = [score.compute() for score in scores]
    found.append({name: found[0][f"{name}_baseline"] for name in metrics})
    table = Table(title="test images", title_justify="left")
    table.add_column("", overflow="fold")
    for name in metrics:
        table.add_column(COLUMNS[name][0], justify="right")
    rows = [*(str(Path(*one.path.parts[-4:])) for one in checkpoints), "ensemble", "baseline"]
    for row, values in zip(rows, found, strict=True):
        cells = (format(float(values[name]), COLUMNS[name][1]) for name in metrics)
        table.add_row(row, *cells, style="bold" if row == "ensemble" else None)
    Console(soft_wrap=True).print(table)


def _predict(ensemble: Ensemble, checkpoints: list[Checkpoint], options: Namespace, device: torch.device) -> int:
    """Restore or color the images of ``--input``; the exit code."""
    output, least = Path(options.output).expanduser(), options.min_confidence
    items = list_inputs(Path(options.input).expanduser(), output, "uncertainty")
    request = parse_request(options, [item.name for item in items])
    how = {"device": device, "tile": options.tile, "overlap": options.overlap}
    pipeline = make_pipeline(ensemble, checkpoints[0], request, **how)
    pairs, kept = output / "pairs", []

    def work(item: InferenceItem) -> None:
        image = read_image(item.source)
        layers = pipeline(image.pixels, image.alpha, request.of(item.name))
        found, fine, coarse = (np.ascontiguousarray(part) for part in np.split(layers, [-2, -1], axis=2))
        confidence = 1 - float(np.where(fine < 255, fine / (255 * GAIN), coarse / 255).mean())
        write_image(item.target, found, image)
        Image.fromarray(fine[..., 0]).save(item.beside)
        print(f"{item.name}: confidence {confidence:.4f}")
        if least is None or confidence < least:
            return
        name = Path(item.name).with_suffix(".png").as_posix()
        for part, pixels in ((INPUTS, image.pixels), (TARGETS, found)):
            seen = on_white(pixels, image.alpha)  # as the data module would load transparency
            write_image(pairs / part / name, seen, ImageFile(seen))
        origin = {"from": str(item.source.absolute()), "digest": content_digest(item.source.read_bytes())}
        kept.append({"file": name, **origin, "confidence": confidence})

    _, _, code = process_all(items, work, output, pipeline.verb)
    if least is not None:
        members = [{"checkpoint": str(one.path.absolute()), "sha256": digest(one.path)} for one in checkpoints]
        kind = kind_of(coloring_of(checkpoints[0]))
        manifest = {"members": members, "kind": kind, "min_confidence": least, "pairs": kept}
        pairs.mkdir(exist_ok=True)
        atomic_write_text(pairs / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        print(f"{len(kept)} of {len(items)} images are pairs to train on: --data.extra_pairs {pairs}")
    return code
