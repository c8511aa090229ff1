"""``python -m project export``: a checkpoint as one file for other programs.

    python -m project export --ckpt_path runs/denoise/latest/checkpoints/best.ckpt --format onnx
    python -m project export ... --format state_dict --output restorer.pt --license "CC BY 4.0"

The file takes and gives images in [0, 1], of any size and number. It is compared with PyTorch at once, on odd sizes,
and the largest difference is printed. Beside it goes a card: data, scores, configuration, versions, license.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import hashlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from project.inference.common import input_channels, load_image_model, main_network
from workbench.callbacks.metadata import environment
from workbench.checkpoint import Checkpoint, one_line, read_checkpoint
from workbench.console import silence_warnings
from workbench.errors import UserError
from workbench.parser import read_options

Function = Callable[[Tensor], Tensor]
SUFFIXES = {"onnx": ".onnx", "state_dict": ".pt"}
OPSET = 18
MAX_DIFFERENCE = 1e-2
"""Of images in [0, 1]: more is no rounding."""
SIZES = ((1, 33, 70), (3, 64, 47), (2, 101, 9), (1, 1, 1))
"""Batch, height, width that files are compared on: odd, even, small."""
CARD_METRICS = ("psnr", "ssim", "loss", "acc_2", "acc_5", "fid")


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
    options = read_options(_parser(), list(argv[1:]))
    silence_warnings()
    checkpoint = read_checkpoint(options.ckpt_path)
    path = _output_path(options, checkpoint.config.get("name") or "network")
    network = ExportNetwork(load_image_model(checkpoint, "export")).eval()
    channels = input_channels(network.network, checkpoint.config.get("data") or {})
    try:
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
    options = {"dynamo": True, "opset_version": OPSET, "external_data": False}
    sizes = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    names = {"input_names": ["input"], "output_names": ["output"]}
    try:
        with _silence():
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
    with torch.no_grad():
        for value in twin.network.state_dict().values():
            value.zero_()
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
    """Write a Markdown card beside an exported file that takes so many channels."""
    facts = environment()
    data = checkpoint.config.get("data") or {}
    lines = [
        f"# {file.stem}\n",
        f"- License: {license}",
        f"- File: {file.name}, {file.stat().st_size:,} bytes, SHA-256 {_digest(file)}",
        f"- Takes: float32 (batch, {channels}, height, width) in [0, 1], any size; the normalization is inside",
        "- Gives: float32 (batch, channels, height, width) in [0, 1]",
        f"- Checkpoint: {checkpoint.path.name}, SHA-256 {_digest(checkpoint.path)}",
        "- Versions: " + ", ".join(f"{name} {version}" for name, version in facts["packages"].items()),
        f"- Commit: {facts['commit']}",
        f"- Largest difference to PyTorch: {difference:.2g}",
        "\n## Images\n",
        f"- Source: {data.get('source', 'demo')}" + (f", {data['root']}" if data.get("root") else ""),
    ]
    for part, found in checkpoint.splits.items():
        lines.append(f"- {part}: {found.get('images')} images, fingerprint {found.get('fingerprint')}")
        if extra := found.get("extra_pairs"):
            members = ", ".join(f"{member['checkpoint']} (SHA-256 {member['sha256']})" for member in extra["members"])
            lines.append(f"  - {extra['images']} of them are pseudo-labels of {members}, from {extra['folder']}")
    lines += ["\n## Scores\n", *_scores(checkpoint.path.parent.parent / "metrics.csv")]
    lines += ["\n## Configuration\n", "```yaml", yaml.safe_dump(checkpoint.config, sort_keys=False).rstrip(), "```\n"]
    card = file.with_suffix(f"{file.suffix}.md")
    card.write_text("\n".join(lines), encoding="utf-8")
    return card


def _scores(path: Path) -> list[str]:
    """The last value of each score in a run's metrics, as a table."""
    if not path.is_file():
        return ["The run's metrics.csv is not beside its checkpoints."]
    last: dict[str, str] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            last |= {key: value for key, value in row.items() if value and key}
    table = ["| | val | test |", "| --- | --- | --- |"]
    for name in dict.fromkeys(key.partition("/")[2] for key in last if key.startswith(("val/", "test/"))):
        if name.removesuffix("_baseline") in CARD_METRICS:
            values = (last.get(f"{part}/{name}") for part in ("val", "test"))
            table.append(f"| {name} | {' | '.join('' if v is None else f'{float(v):.4g}' for v in values)} |")
    return table


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _output_path(options: Namespace, name: str) -> Path:
    """Where the file goes; found unwritable now, and not after the half minute that an export takes."""
    checkpoint = Path(options.ckpt_path).expanduser()
    run = checkpoint.parent.parent
    if options.output is None and not (run / "config.yaml").is_file():
        raise UserError(f"{checkpoint} is not in a run's folder (runs/NAME/VERSION/checkpoints/): set --output FILE")
    path = Path(options.output or run / "export" / f"{name}{SUFFIXES[options.format]}").expanduser()
    if path.exists() and path.samefile(checkpoint):
        raise UserError(f"--output {path} is the checkpoint itself; name another file.")
    is_new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror}.") from error
    if is_new:
        path.unlink()
    return path


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Leave out what the exporter reports about its internals."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _parser() -> ArgumentParser:
    description = "Write a trained network as one file that takes and gives images in [0, 1], of any size and number, "
    description += "check it against PyTorch, and write a card beside it."
    parser = ArgumentParser(prog="python -m project export", description=description, exit_on_error=False)
    add = parser.add_argument
    add("--ckpt_path", type=str, required=True, help="checkpoint, such as runs/NAME/latest/checkpoints/best.ckpt")
    add("--format", type=Literal[tuple(SUFFIXES)], default="onnx", help="what to write; state_dict: the weights alone")
    add("--output", type=str | None, default=None, help="file to write; default: export/NAME in the run's folder")
    add("--license", type=str, default="not stated", help="for the card: the terms that the weights may be used by")
    return parser
