"""How much time and memory the project takes, against doing the same by hand.

    python scripts/benchmark                  all four parts: step (denoiser and GAN), monitors, loader, start
    python scripts/benchmark step --config configs/denoise.yaml --steps 200 --rounds 5
    python scripts/benchmark monitors --steps 300 --rounds 5
    python scripts/benchmark loader
    python scripts/benchmark start
    python scripts/benchmark inference --ckpt_path CKPT [--side 256] [--large]   not part of "all"

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
    parser.add_argument("part", nargs="?", choices=PARTS, default="all")
    parser.add_argument("--config", action="append", help="configuration to time; may be given twice")
    parser.add_argument("--steps", type=int, default=100, help="step, monitors: timed steps a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both sides, in turns")
    parser.add_argument("--pictures", type=int, default=300, help="loader: number of photographs (ten times the icons)")
    parser.add_argument("--ckpt_path", help="inference: the checkpoint to time")
    parser.add_argument("--side", type=int, default=256, help="inference: pixels along the images")
    help = "inference: the memory of an image of so many megapixels too; 24 takes minutes"
    parser.add_argument("--large", type=float, nargs="?", const=24.0, default=0.0, metavar="MEGAPIXELS", help=help)
    given, rest = parser.parse_known_args()
    if given.part == "inference" and given.ckpt_path is None:
        parser.error("inference needs --ckpt_path: runs/NAME/latest/checkpoints/best.ckpt")
    sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    configs = given.config or [str(REPOSITORY / "configs" / name) for name in ("denoise.yaml", "colorize.yaml")]
    print(f"{os.cpu_count()} cores; load before: {_load()}")
    if given.part in ("all", "step"):
        from step import compare_steps

        for config in configs:
            compare_steps(config, given.steps, given.rounds, rest)
    if given.part in ("all", "monitors"):
        from monitors import compare_monitors

        for config in configs:
            compare_monitors(config, given.steps, given.rounds, rest)
    if given.part in ("all", "loader"):
        from loader import compare_loaders

        compare_loaders(given.pictures, given.rounds)
    if given.part in ("all", "start"):
        from start import compare_starts

        for config in configs:
            compare_starts(config, given.rounds, rest)
    if given.part == "inference":
        from inference import compare_inference

        from workbench.errors import UserError

        try:
            compare_inference(given.ckpt_path, given.side, given.rounds, given.large)
        except UserError as error:
            parser.error(str(error))


def _load() -> str:
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


if __name__ == "__main__":
    main()
