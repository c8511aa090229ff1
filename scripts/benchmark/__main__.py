"""How much time and memory the project takes, against doing the same by hand.

    python scripts/benchmark                  step (denoiser and GAN), monitors, loader and start: under 4 minutes
    python scripts/benchmark step --config configs/denoise.yaml --steps 200 --rounds 5
    python scripts/benchmark monitors --steps 300 --rounds 5
    python scripts/benchmark loader
    python scripts/benchmark start
    python scripts/benchmark inference --ckpt_path CKPT

The sides of a comparison are warmed up, then take turns on one machine. Printed are medians over the rounds of wall
time and of the CPU time of all threads, their spread (largest - smallest, over the median), and the median of the
ratios, round by round, to the last side. Where the spread is too large, it says so: such numbers mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))
os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
import comparisons  # noqa: E402

from workbench.errors import UserError  # noqa: E402

CONFIGS = [str(REPOSITORY / "configs" / name) for name in ("denoise.yaml", "colorize.yaml")]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python scripts/benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("part", nargs="?", choices=("all", "step", "monitors", "loader", "start", "inference"), default="all")
    add("--config", action="append", help="configuration to time; may be given twice")
    add("--steps", type=int, help="timed steps a round [step: 25, monitors: 40]")
    add("--rounds", type=int, default=3, help="rounds of all sides, in turns [3]")
    add("--ckpt_path", help="inference: the checkpoint to time")
    options, rest = parser.parse_known_args()
    if options.part == "inference" and options.ckpt_path is None:
        parser.error("inference needs --ckpt_path: runs/NAME/latest/checkpoints/best.ckpt")
    steps, rounds = options.steps, options.rounds
    print(f"{os.cpu_count()} cores; load before: {os.getloadavg()[0]:.2f}", flush=True)
    if options.part in ("all", "step"):
        for config in options.config or CONFIGS:
            comparisons.compare_steps(config, steps or 25, rounds, rest)
    for config in options.config or CONFIGS[:1]:
        if options.part in ("all", "monitors"):
            comparisons.compare_monitors(config, steps or 40, rounds, rest)
        if options.part in ("all", "start"):
            comparisons.compare_starts(config, rounds, rest)
    if options.part in ("all", "loader"):
        comparisons.compare_loaders(rounds)
    if options.part == "inference":
        comparisons.compare_inference(options.ckpt_path, rounds)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
