"""Time a training step with everything on against the same network in a bare PyTorch loop.

    python scripts/benchmark.py                                     configs/denoise.yaml, a few minutes
    python scripts/benchmark.py --steps 200 --rounds 5              longer and surer

Both run in this process in turns, with the same network, batch and patch size, on the same pictures. The bare loop
cuts crops out of arrays in memory, flips them, adds the noise and steps Adam: no logging, averaging or clipping.
Printed are medians over the rounds of the wall time and of the CPU time of all threads, and the ratios round by round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WARMUP = 15


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--config", default="configs/denoise.yaml", help="configuration to time")
    arguments.add_argument("--steps", type=int, default=100, help="timed steps a round")
    arguments.add_argument("--rounds", type=int, default=3, help="rounds of both, in turns")
    arguments.add_argument("rest", nargs="*", help="further options of `fit`, such as --data.batch_size=4")
    given, rest = arguments.parse_known_args()
    from project.cli import quieten

    quieten()
    rows = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as runs:
            full, cli = time_fit(given.config, given.steps, runs, [*given.rest, *rest])
        bare = time_bare(cli, given.steps)
        rows.append((full, bare))
        print(
            f"round {number + 1}: "
            + "   ".join(
                f"{n} {w:.1f} ms wall {c:.1f} ms CPU" for n, (w, c) in zip(("project", "bare"), rows[-1], strict=True)
            ),
            flush=True,
        )
    for what, column in (("wall", 0), ("CPU", 1)):
        full, bare = (statistics.median(row[side][column] for row in rows) for side in (0, 1))
        ratio = statistics.median(row[0][column] / row[1][column] for row in rows)
        print(f"{what:>4}: project {full:.1f} ms, bare loop {bare:.1f} ms a step, ratio {ratio:.3f} (medians)")


def time_fit(config: str, steps: int, runs: str, rest: list[str]) -> tuple[tuple[float, float], Any]:
    """Wall and CPU milliseconds a step of the real `fit`, all callbacks on; validation and start-up left out."""
    from lightning.pytorch import Callback

    from project.arguments import complete
    from project.cli import CommandLine

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx + 1 == WARMUP:
                self.start = (time.perf_counter(), time.process_time())
            elif batch_idx + 1 == WARMUP + steps:
                self.end = (time.perf_counter(), time.process_time())

    clock = Clock()

    class Timed(CommandLine):
        def instantiate_trainer(self, **kwargs: Any) -> Any:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(clock)
            return trainer

        def fit(self, model: Any, **kwargs: Any) -> None:
            self.trainer.fit(model, **kwargs)

    words = ["fit", "--config", config, "--runs_dir", runs, f"--trainer.max_steps={WARMUP + steps + 1}", *rest]
    cli = Timed(complete([*words, "--trainer.max_time=null", f"--trainer.val_check_interval={10**6}"]))
    wall, cpu = (1000 * (end - start) / steps for start, end in zip(clock.start, clock.end, strict=True))
    return (wall, cpu), cli


def time_bare(cli: Any, steps: int) -> tuple[float, float]:
    """The same of a loop of plain PyTorch over the same network, crops and noise."""
    import copy

    import torch

    data, network = cli.datamodule, copy.deepcopy(cli.model.network).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    batches = _crops(data.splits["train"], data.hparams.crop, data.hparams.batch_size)
    for step in range(WARMUP + steps):
        if step == WARMUP:
            start = (time.perf_counter(), time.process_time())
        target = next(batches).float() / 255
        noisy = target + torch.randn_like(target) * (25 / 255)
        loss = (network(noisy) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    end = (time.perf_counter(), time.process_time())
    wall, cpu = (1000 * (b - a) / steps for a, b in zip(start, end, strict=True))
    return wall, cpu


def _crops(paths: list[str], side: int, batch: int) -> Iterator[Any]:
    import numpy as np
    import torch
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    while True:
        crops = np.empty((batch, side, side, 3), np.uint8)
        for place in range(batch):
            picture = pictures[rng.integers(len(pictures))]
            y, x = (rng.integers(edge - side + 1) for edge in picture.shape[:2])
            crop = picture[y : y + side, x : x + side]
            crop = crop[:, ::-1] if rng.random() < 0.5 else crop
            crops[place] = crop[::-1] if rng.random() < 0.5 else crop
        yield torch.from_numpy(crops).permute(0, 3, 1, 2)  # channels last in memory, as the network likes it


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
