"""How long a trained network takes for an image: eager, compiled, in ONNX Runtime; and the memory of a large one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from timing import Moment
from torch import Tensor

BATCHES = (1, 8)
CALLS = 5
LARGE = """
import resource, sys
import numpy as np
import torch
from workbench.checkpoint import load_model, read_checkpoint
from project.inference.pipeline import RestorationPipeline
checkpoint = read_checkpoint(sys.argv[1])
data, cpu = checkpoint.config["data"], torch.device("cpu")
restore = RestorationPipeline(load_model(checkpoint), data, device=cpu, tile=int(sys.argv[2]))
height = round((float(sys.argv[3]) * 1e6 / 1.5) ** 0.5)
pixels = np.random.default_rng(0).integers(0, 255, (height, round(1.5 * height), 3), dtype=np.uint8)
restore(pixels)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def compare_inference(checkpoint: str, side: int, rounds: int, large: float) -> None:
    """Print a table of milliseconds an image, and the most memory that a large image takes.

    Args:
        checkpoint: Of a run.
        side: Pixels along the images.
        rounds: In turns; the fastest counts.
        large: Megapixels of the image whose memory is measured, which takes minutes for 24; 0: none.
    """
    from project.inference.common import input_channels
    from project.inference.export import ExportNetwork
    from workbench.checkpoint import load_model, read_checkpoint

    read = read_checkpoint(checkpoint)
    answer = ExportNetwork(load_model(read)).eval()
    channels = input_channels(answer.network, read.config.get("data") or {})
    functions = _functions(answer, channels)
    print(f"milliseconds an image of {side} x {side}, CPU, {torch.get_num_threads()} threads, best of {rounds} rounds")
    print(f"  {'batch':<16}" + "".join(f"{batch:>10}" for batch in BATCHES))
    best = {name: [float("inf")] * len(BATCHES) for name in functions}
    with torch.inference_mode():
        for _ in range(rounds):
            for place, batch in enumerate(BATCHES):
                x = torch.rand(batch, channels, side, side)
                for name, function in functions.items():
                    best[name][place] = min(best[name][place], _time(function, x))
    for name, times in best.items():
        print(f"  {name:<16}" + "".join(f"{time:>10.1f}" for time in times))
    if large > 0:
        for name, tile in (("tiles of 512", 512), ("without tiles", 0)):
            print(f"  {large:g} megapixels, {name}: {_memory(checkpoint, tile, large)}", flush=True)


def _functions(answer: torch.nn.Module, channels: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """What is there of the three; the others are left out with a word."""
    from project.inference.export import write_onnx
    from workbench.errors import UserError

    functions = {"eager": answer, "channels_last": lambda x: answer(x.contiguous(memory_format=torch.channels_last))}
    compiled = torch.compile(answer)
    try:
        with torch.inference_mode():
            compiled(torch.rand(1, channels, 64, 64))
        functions["compiled"] = compiled
    except Exception as error:  # without a compiler, say
        print(f"  not compiled: {str(error).splitlines()[0][:100]}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            functions["ONNX Runtime"] = write_onnx(
                answer, torch.rand(2, channels, 66, 90), Path(folder, "network.onnx")
            )
    except UserError as error:
        print(f"  no ONNX Runtime: {str(error).splitlines()[0][:100]}")
    return functions


def _time(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Milliseconds an image, after one call to warm up."""
    function(x)
    start = Moment.now()
    for _ in range(CALLS):
        function(x)
    return Moment.now().since(start, CALLS * len(x)).wall * 1000


def _memory(checkpoint: str, tile: int, megapixels: float) -> str:
    """The most memory that a process of its own held."""
    words = [checkpoint, str(tile), str(megapixels)]
    done = subprocess.run([sys.executable, "-c", LARGE, *words], capture_output=True, text=True)
    if done.returncode != 0:
        return f"failed ({(done.stderr.strip().splitlines() or ['killed'])[-1][:160]})"
    return f"{int(done.stdout) / 1024:.0f} MB at most"
