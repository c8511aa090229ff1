"""How well the rules that watch a training run find faults, and how often they cry wolf.

    python scripts/faults                     every planted fault, three seeds each, and every healthy run (minutes)
    python scripts/faults --only GAN          those with that in their name
    python scripts/faults --seeds 1 --part planted

Printed is a table: each fault, on how many of its seeds a fault was found at all, and on how many it was named first;
then the false alarms on runs in which nothing is wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python scripts/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each planted fault")
    parser.add_argument("--only", default="", help="faults and runs with this in their name or code")
    parser.add_argument("--part", choices=("all", "planted", "healthy"), default="all")
    given = parser.parse_args()
    sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]
    missed = 0
    if given.part != "healthy":
        missed += tell_planted(given.seeds, given.only)
    if given.part != "planted":
        missed += tell_healthy(given.only)
    return int(missed > 0)


def tell_planted(seeds: int, only: str) -> int:
    """Plant, and print a row for each fault; the number of runs in which it was not named first."""
    from plants import PLANTS

    plants = [plant for plant in PLANTS if only in f"{plant.code} {plant.name}"]
    print(f"{'fault':<28}{'planted as':<44}{'found':>8}{'first':>8}")
    whole = found = named = 0
    for plant in plants:
        codes = [[f.code for f in plant.run(seed) if f.is_fault] for seed in range(1, seeds + 1)]
        first = sum(bool(c) and c[0] == plant.code for c in codes)
        others = sorted({c[0] for c in codes if c and c[0] != plant.code})
        line = f"{plant.code:<28}{plant.name:<44}{sum(map(bool, codes)):>6}/{seeds}{first:>6}/{seeds}"
        print(line + (f"   else: {', '.join(others)}" if others else ""), flush=True)
        whole, found, named = whole + seeds, found + sum(map(bool, codes)), named + first
    if whole:
        print(f"{whole} planted, {found} found ({found / whole:.0%}), {named} named first ({named / whole:.0%})")
    return whole - named


def tell_healthy(only: str) -> int:
    """Train, and print the false alarms; their number."""
    from healthy import runs

    alarms = count = 0
    for name, run in runs():
        if only not in name:
            continue
        codes = [finding.code for finding in run() if finding.is_fault]
        count, alarms = count + 1, alarms + bool(codes)
        if codes:
            print(f"  false alarm: {name}: {', '.join(codes)}", flush=True)
    print(f"{count} healthy runs, {alarms} with a fault")
    return alarms


if __name__ == "__main__":
    sys.exit(main())
