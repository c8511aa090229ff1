"""``python -m project export``: a checkpoint as one file for other programs.

    python -m project export --ckpt_path runs/denoise/latest/checkpoints/best.ckpt --format onnx
    python -m project export ... --format state_dict --output restorer.pt --license "CC BY 4.0"

The file takes and gives images in [0, 1], of any size and number. It is compared with PyTorch at once, on odd sizes,
and the largest difference is printed. Beside it goes a card: data, scores, configuration, versions, license.
"""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from project.inference.common import command_parser, digest, input_channels, load_image_model, main_network, run_folder
from workbench.callbacks.metadata import environment
from workbench.checkpoint import Checkpoint, read_checkpoint
from workbench.console import silence_warnings
from workbench.errors import UserError, one_line
from workbench.parser import read_options

Function = Callable[[Tensor], Tensor]
SUFFIXES = {"onnx": ".onnx", "state_dict": ".pt"}
OPSET = 18
MAX_DIFFERENCE = 1e-2  # of images in [0, 1]: more is no rounding
SIZES = ((1, 33, 70), (3, 64, 47), (2, 101, 9), (1, 1, 1))  # batch, height, width that files are compared on


class ExportNetwork(nn.Module):
    """A model's network and what makes an image of its output, without anything of the training."""

    def __init__(self, model: LightningModule) -> None:
        super().__init__()
        self.network = main_network(model)
        self.space = getattr(model, "space", None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W) in [0, 1]."""
        y = self.network(x)
        return (y if self.space is None else self.space.decode(y, x)).clamp(0, 1)


def main(argv: Sequence[str]) -> int:
    """Run the command: ``export`` and what follows it on the command line."""
    description = "Write a trained network as one file that takes and gives images in [0, 1], of any size and number, "
    parser = command_parser("export", description + "check it against PyTorch, and write a card beside it.")
    add = parser.add_argument
    add("--format", type=Literal[tuple(SUFFIXES)], default="onnx", help="what to write; state_dict: the weights alone")
    add("--output", type=str | None, default=None, help="file to write; default: export/NAME in the run's folder")
    add("--license", type=str, default="not stated", help="for the card: the terms that the weights may be used by")
    options = read_options(parser, list(argv[1:]))
    silence_warnings()
    checkpoint = read_checkpoint(options.ckpt_path)
    name = f"{checkpoint.config.get('name') or 'network'}{SUFFIXES[options.format]}"
    path = Path(options.output).expanduser() if options.output else run_folder(checkpoint) / "export" / name
    if path.exists() and path.samefile(checkpoint.path):
        raise UserError(f"--output {path} is the checkpoint itself; name another file.")
    network = ExportNetwork(load_image_model(checkpoint, "export")).eval()
    channels = input_channels(network.network, checkpoint.config.get("data") or {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if options.format == "onnx":
            exported = write_onnx(network, torch.rand(2, channels, 66, 90), path)
        else:
            exported = write_state_dict(network, checkpoint.config["model"].get("init_args") or {}, path)
        difference = largest_difference(network, exported, channels)
        if not difference <= MAX_DIFFERENCE:
            path.unlink()
            raise UserError(
                f"The file's output differs from PyTorch's by {difference:.2g} (images in [0, 1]).\n"
                "Its network does something that the format does not keep; --format state_dict always works."
            )
        card = write_card(path, checkpoint, channels, difference, options.license)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
    print(f"{'File':<19} {path} ({path.stat().st_size / 1e6:.1f} MB)\n{'Card':<19} {card}")
    print(f"{'Maximum difference':<19} {difference:.2g} to PyTorch, of images in [0, 1]")
    return 0


def write_onnx(network: ExportNetwork, x: Tensor, path: Path) -> Function:
    """One ONNX file with free batch, height and width, traced on x (B, C, H, W); returns it in ONNX Runtime on the CPU.

    Raises:
        UserError: the packages are missing, or the network cannot be exported.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 torch.onnx needs it
    except ImportError as error:
        raise UserError(
            f"--format onnx needs a package that is not installed ({error.name}): pip install '.[export]'\n"
            "Without it: --format state_dict"
        ) from error
    options = {"dynamo": True, "opset_version": OPSET, "external_data": False, "verbose": False}
    sizes = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    names = {"input_names": ["input"], "output_names": ["output"]}
    try:
        torch.onnx.export(network, (x,), str(path), dynamic_shapes=sizes, **names, **options)
    except OSError:
        raise
    except Exception as error:
        raise UserError(
            f"{type(network.network).__name__} cannot be written as onnx: {one_line(error)}\n"
            "Networks whose control flow depends on pixel values cannot. --format state_dict always works."
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(session.run(None, {"input": given.numpy()})[0])


def write_state_dict(network: ExportNetwork, arguments: dict[str, Any], path: Path) -> Function:
    """Weights, normalization included, and what the network is built from (of the model's arguments).

    It is read without running code. Returns the file's weights in a copy of the network.
    """
    described = next((arguments[key] for key in ("network", "generator") if key in arguments), {})
    content = io.BytesIO()
    torch.save({"state_dict": network.network.state_dict(), "network": described}, content)
    path.write_bytes(content.getvalue())  # torch's own writing does not say that a disk is full
    twin = copy.deepcopy(network)
    twin.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    return twin


def largest_difference(network: nn.Module, other: Function, channels: int) -> float:
    """The largest difference of two functions' outputs for random images of several sizes."""
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    with torch.inference_mode():
        for batch, height, width in SIZES:
            x = torch.rand(batch, channels, height, width, generator=generator)
            expected, found = network(x), other(x)
            if expected.shape != found.shape:
                return float("inf")
            largest = max(largest, (expected - found).abs().max().item())
    return largest


def write_card(file: Path, checkpoint: Checkpoint, channels: int, difference: float, license: str) -> Path:
    """Write a card (YAML) beside an exported file that takes so many channels."""
    facts = environment()
    card = {
        "license": license,
        "file": {"name": file.name, "sha256": digest(file)},
        "checkpoint": {"name": checkpoint.path.name, "sha256": digest(checkpoint.path)},
        "input": f"float32 (batch, {channels}, height, width) in [0, 1], any size; the normalization is inside",
        "output": "float32 (batch, channels, height, width) in [0, 1]",
        "largest_difference_to_pytorch": difference,
        "versions": facts["packages"],
        "commit": facts["commit"],
        "scores": _scores(checkpoint.path.parent.parent / "metrics.csv"),
        "splits": checkpoint.splits,
        "config": checkpoint.config,
    }
    path = file.with_suffix(f"{file.suffix}.yaml")
    path.write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return path


def _scores(path: Path) -> dict[str, float]:
    """The last value of each metric of a run's validation and test, where its ``metrics.csv`` is at hand."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        key: float(value)
        for row in rows
        for key, value in row.items()
        if value and key and key.startswith(("val/", "test/"))
    }
