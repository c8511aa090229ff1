"""How long a trained network takes for an image: eager, compiled, in ONNX Runtime; and the memory of a large one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from timing import Moment
from torch import Tensor

from project.inference.common import input_channels
from project.inference.export import ExportNetwork, write_onnx
from workbench.checkpoint import load_model, read_checkpoint
from workbench.errors import UserError

BATCHES = (1, 8)
CALLS = 5
# Run in a process of its own, whose memory it prints: checkpoint, tile, megapixels.
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
restore(np.random.default_rng(0).integers(0, 255, (height, round(1.5 * height), 3), dtype=np.uint8))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def compare_inference(path: str, side: int, rounds: int, large: float) -> None:
    """Print milliseconds an image of ``side`` pixels along, the fastest of the rounds, and the most memory that an
    image of ``large`` megapixels takes (minutes for 24; 0: none)."""
    checkpoint = read_checkpoint(path)
    network = ExportNetwork(load_model(checkpoint)).eval()
    channels = input_channels(network.network, checkpoint.config.get("data") or {})
    functions = _functions(network, channels)
    print(f"milliseconds an image of {side} x {side}, CPU, {torch.get_num_threads()} threads, best of {rounds} rounds")
    print(f"  {'batch':<16}" + "".join(f"{batch:>10}" for batch in BATCHES))
    best: dict[tuple[str, int], float] = defaultdict(lambda: float("inf"))
    with torch.inference_mode():
        for _ in range(rounds):
            for batch in BATCHES:
                x = torch.rand(batch, channels, side, side)
                for name, function in functions.items():
                    best[name, batch] = min(best[name, batch], _time(function, x))
    for name in functions:
        print(f"  {name:<16}" + "".join(f"{best[name, batch]:>10.1f}" for batch in BATCHES))
    for name, tile in (("tiles of 512", 512), ("without tiles", 0)) if large > 0 else ():
        print(f"  {large:g} megapixels, {name}: {_memory(path, tile, large)}", flush=True)


def _functions(network: ExportNetwork, channels: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """What there is of the ways to run it; a line for each that there is not."""
    functions = {"eager": network, "channels_last": lambda x: network(x.contiguous(memory_format=torch.channels_last))}
    compiled = torch.compile(network)
    try:
        with torch.inference_mode():
            compiled(torch.rand(1, channels, 64, 64))
        functions["compiled"] = compiled
    except Exception as error:  # without a compiler, say
        print(f"  not compiled: {str(error).splitlines()[0][:100]}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            x = torch.rand(2, channels, 66, 90)
            functions["ONNX Runtime"] = write_onnx(network, x, Path(folder, "network.onnx"))
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
    words = [checkpoint, str(tile), str(megapixels)]
    done = subprocess.run([sys.executable, "-c", LARGE, *words], capture_output=True, text=True)
    if done.returncode != 0:
        return f"failed ({(done.stderr.strip().splitlines() or ['killed'])[-1][:160]})"
    return f"{int(done.stdout) / 1024:.0f} MB at most"
