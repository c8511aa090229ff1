"""How long a trained network takes for an image, in PyTorch and in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from timing import compare, timed
from torch import Tensor

from project.inference.common import input_channels
from project.inference.export import ExportNetwork, write_onnx
from workbench.checkpoint import load_model, read_checkpoint

CALLS, SIDE = 5, 256


def compare_inference(path: str, rounds: int) -> None:
    """Print the time of an image of 256 x 256 pixels, alone and in batches of 8."""
    checkpoint = read_checkpoint(path)
    network = ExportNetwork(load_model(checkpoint)).eval()
    channels = input_channels(network.network, checkpoint.config.get("data") or {})
    with tempfile.TemporaryDirectory() as folder:
        onnx = write_onnx(network, torch.rand(2, channels, 66, 90), Path(folder, "network.onnx"))
    for batch in (1, 8):
        x = torch.rand(batch, channels, SIDE, SIDE)
        functions = {"ONNX Runtime": onnx, "PyTorch": network}
        sides = {name: partial(timed, partial(_call, function, x)) for name, function in functions.items()}
        title = f"an image of {SIDE} x {SIDE}, batches of {batch}, CPU, {torch.get_num_threads()} threads"
        compare(title, sides, rounds, "ms", 1000)


@torch.inference_mode()
def _call(function: Callable[[Tensor], Tensor], x: Tensor) -> int:
    for _ in range(CALLS):
        function(x)
    return CALLS * len(x)
