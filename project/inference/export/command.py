"""``python -m project export``: a checkpoint as one file for other programs.

    python -m project export --ckpt_path runs/denoise/latest/checkpoints/best.ckpt --format onnx
    python -m project export ... --format torchscript --output restorer.ts --license "CC BY 4.0"

The file takes and gives images in [0, 1]. It is compared with PyTorch at once, on odd sizes, and the largest
difference is printed. Beside it goes a card: data, scores, configuration, versions, license.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from project.inference.export.options import ENDINGS, parse
from workbench.errors import UserError

if TYPE_CHECKING:  # torch takes seconds, which `--help` and a typing error need not wait for
    from jsonargparse import Namespace
    from lightning.pytorch import LightningModule

LIMIT = 1e-2
"""A larger difference than this, of images in [0, 1], is no rounding."""


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: ``export`` and what follows it on the command line.

    Returns:
        The exit code, 0.

    Raises:
        UserError: Wrong options, no usable checkpoint, packages that are not there, a network that cannot be exported,
            or a file that does not answer as PyTorch does.
    """
    options = parse(list(argv[1:]))
    from project.inference.export.card import write_card
    from workbench.checkpoint import load_model, read_checkpoint
    from workbench.console import silence_warnings

    silence_warnings()
    checkpoint = read_checkpoint(options.ckpt_path)
    path = _place(options, checkpoint.config.get("name") or "network")
    model = load_model(checkpoint)
    try:
        shapes, difference = _write(options.format, model, checkpoint.config, path)
        card = write_card(path, checkpoint, shapes, difference, options.license)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
    print(f"{'File':<19} {path} ({path.stat().st_size / 1e6:.1f} MB)\n{'Card':<19} {card}")
    print(f"{'Maximum difference':<19} {difference:.2g} to PyTorch, of images in [0, 1]")
    return 0


def _place(options: Namespace, name: str) -> Path:
    checkpoint = Path(options.ckpt_path).expanduser()
    if options.output is not None:
        path = Path(options.output).expanduser()
    else:
        path = checkpoint.parent.parent / "export" / f"{name}{ENDINGS[options.format]}"
        if not (checkpoint.parent.parent / "config.yaml").is_file():
            raise UserError(
                f"{checkpoint} does not lie in a run's folder (runs/NAME/VERSION/checkpoints/).\n"
                "Say where the file goes: --output FILE"
            )
    if path.is_dir():
        raise UserError(f"--output {path} is a folder; name the file.")
    if path.exists() and path.samefile(checkpoint):
        raise UserError(f"--output {path} is the checkpoint itself; name another file.")
    was_updated = not path.exists()
    try:  # now, and not after the half minute that a network takes to be exported
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror}.") from error
    if was_updated:
        path.unlink()
    return path


def _write(format: str, model: LightningModule, config: dict[str, Any], path: Path) -> tuple[tuple[int, int], float]:
    """Write, and compare; channels in and out, and the largest difference."""
    import torch

    from project.inference.export.answer import Answer, input_channels
    from project.inference.export.formats import read_state_dict, write_onnx, write_state_dict, write_torchscript
    from project.inference.export.verify import largest_difference

    answer = Answer(model).eval()
    channels = input_channels(answer.network, config.get("data") or {})
    x = torch.rand(2, channels, 66, 90)
    if format == "state_dict":
        arguments = config["model"].get("init_args") or {}
        described = next((arguments[key] for key in ("network", "generator") if key in arguments), {})
        write_state_dict(answer, described, path)
        function = read_state_dict(answer, path)
    else:
        function = {"onnx": write_onnx, "torchscript": write_torchscript}[format](answer, x, path)
    difference = largest_difference(answer, function, channels)
    if not difference <= LIMIT:
        path.unlink()
        raise UserError(
            f"The file does not answer as PyTorch does: they are {difference:.2g} apart (images in [0, 1]).\n"
            "Its network does something that the format does not keep; --format state_dict always works."
        )
    with torch.inference_mode():
        return (channels, answer(x).shape[1]), difference
