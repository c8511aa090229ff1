"""``python -m project ensemble``: several checkpoints, or one in eight positions, answer together.

    python -m project ensemble --ckpts A.ckpt B.ckpt C.ckpt                     # score each member beside the ensemble
    python -m project ensemble --ckpts A.ckpt --turns true                      # one model, eight positions
    python -m project ensemble --ckpts A.ckpt B.ckpt --input photos --output restored --min_confidence 0.98

Networks that color take hints as ``predict`` does (--hints, --palette, --size).

Beside each image goes a map of where the members disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from project.inference.ensemble.options import parse
from workbench.errors import UserError

if TYPE_CHECKING:  # torch takes seconds, which `--help` and a typing error need not wait for
    import torch
    from jsonargparse import Namespace
    from lightning.pytorch import LightningModule
    from torchmetrics import Metric

    from project.inference.ensemble.average import Ensemble
    from workbench.checkpoint import Checkpoint


COLUMNS = {"psnr": ("PSNR (dB)", ".3f"), "ssim": ("SSIM", ".4f"), "colorfulness": ("colors / truth's", ".2f")}
"""Score -> its heading, and how it is written."""


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: ``ensemble`` and what follows it on the command line.

    Returns:
        The exit code: 0, or 1 where an image failed.

    Raises:
        UserError: Wrong options, checkpoints that are none or do not go together, no images.
    """
    options, words = parse(list(argv[1:]))
    from project.inference.ensemble.average import Ensemble
    from project.inference.prediction.tiled import choose_device
    from workbench.checkpoint import read_checkpoint
    from workbench.console import silence_warnings

    silence_warnings()
    device = choose_device(options.device)
    checkpoints = [read_checkpoint(path) for path in options.ckpts]
    models = _load(checkpoints, device)
    scores = None
    if options.average == "score":
        plain = Ensemble(models)
        scores = [found["psnr"] for found in _scores(plain, checkpoints[0], words, "val", device)[: len(models)]]
    ensemble = Ensemble(models, options.average, scores, options.turns).eval().to(device)
    if options.input is not None:
        from project.inference.ensemble.predicting import predict

        return predict(ensemble, checkpoints, options, device)
    _tell(options, _scores(ensemble, checkpoints[0], words, options.split, device))
    return 0


def _load(checkpoints: list[Checkpoint], device: torch.device) -> list[LightningModule]:
    from project.inference.export.answer import input_channels
    from workbench.checkpoint import load_model

    models = [load_model(checkpoint).to(device) for checkpoint in checkpoints]
    takes = []
    for checkpoint, model in zip(checkpoints, models, strict=True):
        if not hasattr(model, "restore"):
            raise UserError(f"{checkpoint.path}: {type(model).__name__} does not answer images with images.")
        takes.append(input_channels(model, checkpoint.config.get("data") or {}))
    tasks = [_task(checkpoint) for checkpoint in checkpoints]
    for checkpoint, channels, task in zip(checkpoints, takes, tasks, strict=True):
        if channels != takes[0] or task != tasks[0]:
            raise UserError(
                f"{checkpoint.path} takes {channels} channels ({task}), and {checkpoints[0].path} takes {takes[0]} "
                f"({tasks[0]}): they were not trained for one task, and cannot answer together."
            )
    return models


def _task(checkpoint: Checkpoint) -> str:
    """In a few words what a checkpoint takes."""
    from project.data.extra import kind_of
    from project.inference.prediction.trained import coloring_of

    pairs = coloring_of(checkpoint)
    return kind_of(pairs) if pairs is None else f"{kind_of(pairs)}, {type(pairs.hints).__name__}"


def _scores(
    ensemble: Ensemble, checkpoint: Checkpoint, words: list[str], split: str, device: torch.device
) -> list[dict[str, float]]:
    """PSNR and SSIM of each member as it is, of the ensemble, and of doing nothing; of colors how strong they are."""
    import torch

    from project.data.pairs import Coloring
    from project.inference.inspection.data import open_data
    from project.models.metrics import PSNR, SSIM, ColorfulnessRatio, Scores

    seed = checkpoint.config.get("seed_everything")
    own = ["--data.seed", str(seed)] if type(seed) is int and not checkpoint.config["data"].get("seed") else []
    data = open_data(checkpoint, [*own, *words])  # the noise of the run's own test
    metrics: dict[str, Metric] = {"psnr": PSNR(), "ssim": SSIM()}
    if isinstance(data.pairs, Coloring):
        metrics["colorfulness"] = ColorfulnessRatio()
    counted = [Scores(metrics).to(device) for _ in range(len(ensemble.members) + 1)]
    each = 8 if ensemble.turns else 1
    for raw in data.evaluation_dataloader(split):
        batch = type(raw)(*(part if part is None else part.to(device) for part in raw))
        pair = data.make_pair(batch)
        with torch.inference_mode():
            answers = ensemble.answers(pair.input)
            alone, together = ensemble.pictures(answers[::each], pair.input), ensemble.combine(answers, pair.input)
            for scores, answer in zip(counted, [*alone, together], strict=True):
                scores.update(answer, pair.target, pair.baseline)
    found = [{name: float(value) for name, value in scores.compute().items()} for scores in counted]
    nothing = {name.removesuffix("_baseline"): value for name, value in found[0].items() if name.endswith("_baseline")}
    return [*found, nothing]


def _tell(options: Namespace, found: list[dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    how = {"plain": "the mean", "score": "weighted by score", "agreement": "weighted by agreement"}[options.average]
    names = [*map(str, options.ckpts), f"ensemble, {how}{', in eight positions' * options.turns}", "doing nothing"]
    table = Table(title=f"{options.split} images", title_justify="left")
    table.add_column("", overflow="fold")
    shown = {name: column for name, column in COLUMNS.items() if name in found[0]}
    for heading, _ in shown.values():
        table.add_column(heading, justify="right")
    for name, scores in zip(names, found, strict=True):
        style = "bold" if name.startswith("ensemble,") else None
        table.add_row(_short(name), *(f"{scores[key]:{form}}" for key, (_, form) in shown.items()), style=style)
    Console(soft_wrap=True).print(table)


def _short(name: str) -> str:
    """A checkpoint's run and name."""
    return str(Path(*Path(name).parts[-4:])) if name.endswith(".ckpt") else name
