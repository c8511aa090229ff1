"""``python -m project COMMAND ...``: the workbench's commands with images as the default data, and inference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from workbench.main import PROGRAM, main

CALLBACKS = {
    "samples": "project.callbacks.samples.Samples",
    "hints": "project.callbacks.hints.Hints",
}
COMMANDS = {
    "predict": ("project.inference.predict", "run a checkpoint on an image or a folder of images"),
    "ensemble": ("project.inference.ensemble", "average several checkpoints, or one over flips and rotations"),
    "export": ("project.inference.export", "write a checkpoint as ONNX or as plain weights"),
    "inspect": ("project.inference.inspect", "show a checkpoint's filters, features and worst samples"),
}
HEADINGS = {
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 4),
    "lpips": ("LPIPS", 4),
    "acc_2": ("pixels within 2 (%)", 1),
    "acc_5": ("pixels within 5 (%)", 1),
    "colorfulness": ("colorfulness", 1),
    "colorfulness_ratio": ("colorfulness / target's", 2),
    "loss": ("loss", 4),
}


def next_steps(folder: Path, checkpoint: Path, model: Any) -> dict[str, object]:
    """Where a run's images are, and the commands that use its checkpoints."""
    command = "python -m project"
    files = {"Samples": folder / "samples" / "latest.png", "Hint curve": folder / "hint_curve.png"}
    steps: dict[str, object] = {label: path for label, path in files.items() if path.is_file()}
    if not hasattr(model, "restore"):  # another task
        return steps
    if len(list(checkpoint.parent.glob("snapshot-*.ckpt"))) > 1:
        steps["Snapshots"] = f"{command} ensemble --ckpts {checkpoint.parent / 'snapshot-*.ckpt'}"
    predict = f"predict --ckpt_path {checkpoint} --input FOLDER --output {folder / 'predictions'}"
    return steps | {"Next": f"{command} {predict}"}


PROGRAM.name = "project"
PROGRAM.data = "project.data.ImageDataModule"
PROGRAM.commands, PROGRAM.callbacks = COMMANDS, CALLBACKS
PROGRAM.headings, PROGRAM.next_steps = HEADINGS, next_steps

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
