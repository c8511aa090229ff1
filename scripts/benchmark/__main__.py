"""How much time and memory the project takes, against doing the same by hand.

    python scripts/benchmark                  step (denoiser and GAN), monitors, loader and start
    python scripts/benchmark step --config configs/denoise.yaml --steps 200 --rounds 5
    python scripts/benchmark monitors --steps 300 --rounds 5
    python scripts/benchmark loader
    python scripts/benchmark start
    python scripts/benchmark inference --ckpt_path CKPT [--side 256] [--large]

Both sides of every comparison run in turns, in one go on one machine. Printed are medians over the rounds of wall time
and of the CPU time of all threads, and the medians of the ratios round by round.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PARTS = ("all", "step", "monitors", "loader", "start", "inference")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python scripts/benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("part", nargs="?", choices=PARTS, default="all")
    add("--config", action="append", help="configuration to time; may be given twice")
    add("--steps", type=int, default=100, help="step, monitors: timed steps a round")
    add("--rounds", type=int, default=3, help="rounds of both sides, in turns")
    add("--pictures", type=int, default=300, help="loader: number of photographs (ten times the icons)")
    add("--ckpt_path", help="inference: the checkpoint to time")
    add("--side", type=int, default=256, help="inference: pixels along the images")
    large = "inference: the memory of an image of so many megapixels too; 24 takes minutes"
    add("--large", type=float, nargs="?", const=24.0, default=0.0, metavar="MEGAPIXELS", help=large)
    given, rest = parser.parse_known_args()
    if given.part == "inference" and given.ckpt_path is None:
        parser.error("inference needs --ckpt_path: runs/NAME/latest/checkpoints/best.ckpt")
    paths = [str(REPOSITORY), str(REPOSITORY / "scripts")]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    from inference import compare_inference
    from loader import compare_loaders
    from training import compare_monitors, compare_starts, compare_steps

    from workbench.errors import UserError

    parts = ("step", "monitors", "loader", "start") if given.part == "all" else (given.part,)
    configs = given.config or [str(REPOSITORY / "configs" / name) for name in ("denoise.yaml", "colorize.yaml")]
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"{os.cpu_count()} cores; load before: {load}")
    for part in parts:
        if part == "loader":
            compare_loaders(given.pictures, given.rounds)
        elif part == "inference":
            try:
                compare_inference(given.ckpt_path, given.side, given.rounds, given.large)
            except UserError as error:
                parser.error(str(error))
        for config in configs:
            if part == "step":
                compare_steps(config, given.steps, given.rounds, rest)
            elif part == "monitors":
                compare_monitors(config, given.steps, given.rounds, rest)
            elif part == "start":
                compare_starts(config, given.rounds, rest)


if __name__ == "__main__":
    main()
