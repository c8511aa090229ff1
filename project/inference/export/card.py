"""What a person has to know of an exported network: where it comes from, how good it is, what it takes."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import yaml

from workbench.callbacks.metadata import environment
from workbench.checkpoint import Checkpoint

SHOWN = ("psnr", "ssim", "loss", "acc_2", "acc_5", "lpips", "fid")


def write_card(
    file: Path, checkpoint: Checkpoint, shapes: tuple[int, int], difference: float | None, license: str
) -> Path:
    """Write a Markdown card beside an exported file.

    Args:
        file: What was exported.
        checkpoint: Where from.
        shapes: Channels in and out.
        difference: The largest to PyTorch, of images in [0, 1].
        license: The terms that the weights may be used by.

    Returns:
        The card.
    """
    card = file.with_suffix(f"{file.suffix}.md")
    card.write_text(
        "\n".join(
            [
                f"# {file.stem}",
                "",
                *_facts(file, checkpoint, shapes, difference, license),
                "",
                "## Images",
                "",
                *_pictures(checkpoint),
                "",
                "## Scores",
                "",
                *_scores(checkpoint.path.parent.parent / "metrics.csv"),
                "",
                "## Configuration",
                "",
                "```yaml",
                yaml.safe_dump(checkpoint.config, sort_keys=False).rstrip(),
                "```",
                "",
            ]
        ),
        encoding="utf-8",
    )
    return card


def _facts(
    file: Path, checkpoint: Checkpoint, shapes: tuple[int, int], difference: float | None, license: str
) -> list[str]:
    facts = environment()
    rows = {
        "License": license,
        "File": f"{file.name}, {file.stat().st_size:,} bytes, SHA-256 {_digest(file)}",
        "Takes": f"float32 (batch, {shapes[0]}, height, width) in [0, 1], any size; the normalization is inside",
        "Gives": f"float32 (batch, {shapes[1]}, height, width) in [0, 1]",
        "Checkpoint": f"{checkpoint.path.name}, SHA-256 {_digest(checkpoint.path)}",
        "Versions": ", ".join(f"{name} {version}" for name, version in facts["packages"].items()),
        "Commit": str(facts["commit"]),
    }
    if difference is not None:
        rows["Largest difference to PyTorch"] = f"{difference:.2g}"
    return [f"- {name}: {value}" for name, value in rows.items()]


def _pictures(checkpoint: Checkpoint) -> list[str]:
    data = checkpoint.config.get("data") or {}
    lines = [f"- Source: {data.get('source', 'demo')}" + (f", {data['root']}" if data.get("root") else "")]
    for part, found in checkpoint.splits.items():
        lines.append(f"- {part}: {found['pictures']} images, fingerprint {found['fingerprint']}")
        if extra := found.get("extra_pairs"):
            members = ", ".join(f"{member['checkpoint']} (SHA-256 {member['sha256']})" for member in extra["members"])
            lines.append(f"  - {extra['pictures']} of them are answers of {members}, from {extra['folder']}")
    return lines


def _scores(path: Path) -> list[str]:
    """The last value of each score in a run's metrics."""
    if not path.is_file():
        return ["The run's metrics.csv does not lie beside its checkpoints."]
    last: dict[str, str] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            last |= {
                key: value for key, value in row.items() if value and key and key.partition("/")[0] in ("val", "test")
            }
    names = dict.fromkeys(
        key.partition("/")[2] for key in last if key.partition("/")[2].removesuffix("_baseline") in SHOWN
    )
    table = ["| | val | test |", "| --- | --- | --- |"]
    for name in names:
        cells = [f"{float(last[key]):.4g}" if (key := f"{part}/{name}") in last else "" for part in ("val", "test")]
        table.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return table if names else ["None were logged."]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
