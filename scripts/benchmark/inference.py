"""How long a trained network takes for an image, in PyTorch and in ONNX Runtime; and the memory of a large one."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from timing import print_comparison, take_turns, timed
from torch import Tensor

from project.inference.common import input_channels
from project.inference.export import ExportNetwork, write_onnx
from workbench.checkpoint import load_model, read_checkpoint

CALLS = 5


def compare_inference(path: str, side: int, rounds: int, large: float) -> None:
    """Print the time of an image of ``side`` pixels along, and the most memory that `predict` takes for one of
    ``large`` megapixels (0: none; minutes for 24)."""
    checkpoint = read_checkpoint(path)
    network = ExportNetwork(load_model(checkpoint)).eval()
    channels = input_channels(network.network, checkpoint.config.get("data") or {})
    with tempfile.TemporaryDirectory() as folder:
        onnx = write_onnx(network, torch.rand(2, channels, 66, 90), Path(folder, "network.onnx"))
        for x in (torch.rand(batch, channels, side, side) for batch in (1, 8)):
            sides = {"ONNX Runtime": _timer(onnx, x), "PyTorch": _timer(network, x)}
            title = f"an image of {side} x {side}, batches of {len(x)}, CPU, {torch.get_num_threads()} threads"
            print_comparison(title, take_turns(sides, rounds), "ms", 1000)
        if large > 0:
            _print_memory(path, large, Path(folder))


def _timer(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> int:
        for _ in range(CALLS):
            function(x)
        return CALLS * len(x)

    return lambda: timed(run)


def _print_memory(path: str, megapixels: float, folder: Path) -> None:
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    image = folder / "large.png"
    Image.effect_noise((round(1.5 * height), height), 60).convert("RGB").save(image)
    for name, tile in (("tiles of 512", 512), ("without tiles", 0)):  # the smaller first: children's maximum is kept
        words = ["predict", "--ckpt_path", path, "--input", str(image), "--output", str(folder / name)]
        command = [sys.executable, "-m", "project", *words, "--tile", str(tile), "--device", "cpu"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"{megapixels:g} megapixels, {name}: {kilobytes / 1024:.0f} MB at most", flush=True)
