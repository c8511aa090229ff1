"""How well faults are found, before the first step and while a network trains, and how often the rules cry wolf.

    python scripts/faults                     every planted fault, three seeds each, and every healthy run (minutes)
    python scripts/faults --only GAN          those with that in their name or code
    python scripts/faults --seeds 1 --part planted

Parts: checks (faults before the first step, and models with nothing wrong), planted (faults in small runs), healthy
(runs with nothing wrong). Printed is a row for each fault: on how many of its seeds a fault was found at all, on how
many it was named first, and what was named first instead; then the sums for each code, and the false alarms.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NOTES = {"outlier-images"}
"""Codes that are never more than a note."""
Outcomes = dict[tuple[str, str], list[list[str]]]
"""Code and name of a planted fault -> for each seed the codes of what was found, in order."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python scripts/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each planted fault")
    parser.add_argument("--first-seed", type=int, default=1, help="the seed of the first of them")
    parser.add_argument("--only", default="", help="faults and runs with this in their name or code")
    parser.add_argument("--part", choices=("all", "checks", "planted", "healthy"), default="all")
    given = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    checks, planted, healthy = (given.part in ("all", part) for part in ("checks", "planted", "healthy"))
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    outcomes: Outcomes = {}
    print(f"{'fault':<27}{'planted as':<62}{'found':>6}{'first':>8}", flush=True)
    if checks:
        outcomes |= before_training(seeds, given.only)
    if planted:
        outcomes |= while_training(seeds, given.only)
    if outcomes:
        print_sums(outcomes)
    alarms = 0
    if checks:
        alarms += print_alarms("models and data with nothing wrong", healthy_checks(given.first_seed, given.only))
    if healthy:
        alarms += print_alarms("healthy runs", healthy_runs(given.first_seed, given.only))
    missed = any(found[:1] != [code] for (code, _), runs in outcomes.items() for found in runs)
    return int(alarms > 0 or missed)


def before_training(seeds: Iterable[int], only: str) -> Outcomes:
    """The faults that tests of the checks plant."""
    from before import looks

    outcomes: Outcomes = defaultdict(list)
    for seed in seeds:
        for code, name, faults, notes in looks("planted", seed, only):
            outcomes[code, name].append(faults or [note for note in notes if note == code and note in NOTES])
    for (code, name), runs in outcomes.items():
        print_row(code, name, runs)
    return outcomes


def while_training(seeds: Iterable[int], only: str) -> Outcomes:
    """Train with each fault."""
    from plants import PLANTS

    outcomes: Outcomes = {}
    for code, name, run in PLANTS:
        if only in f"{code} {name}":
            outcomes[code, name] = [[f.code for f in run(seed) if f.is_fault] for seed in seeds]
            print_row(code, name, outcomes[code, name])
    return outcomes


def count(code: str, runs: list[list[str]]) -> tuple[int, int]:
    """On how many runs a fault was found at all, and on how many it was named first."""
    return sum(map(bool, runs)), sum(found[:1] == [code] for found in runs)


def print_row(code: str, name: str, runs: list[list[str]]) -> None:
    found, first = count(code, runs)
    others = sorted({codes[0] if codes else "-" for codes in runs if codes[:1] != [code]})
    instead = f"   else: {', '.join(others)}" if others else ""
    print(f"{code:<27}{name:<62}{found:>4}/{len(runs)}{first:>6}/{len(runs)}{instead}", flush=True)


def print_sums(outcomes: Outcomes) -> None:
    """For each code, and over all."""
    print(f"\n{'code':<27}{'ways':>6}{'planted':>9}{'found':>7}{'first':>7}")
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * 4)
    for (code, _), runs in outcomes.items():
        for place, number in enumerate((1, len(runs), *count(code, runs))):
            sums[code][place] += number
    total = [sum(column) for column in zip(*sums.values(), strict=True)]
    for code, (ways, planted, found, first) in [*sums.items(), ("all", total)]:
        print(f"{code:<27}{ways:>6}{planted:>9}{found:>7}{first:>7}")
    print(f"{found / planted:.1%} found, {first / planted:.1%} named first, {len(sums)} codes")


def healthy_checks(seed: int, only: str) -> Iterator[tuple[str, list[str]]]:
    """Name and faults of each."""
    from before import looks

    return ((name, faults) for _, name, faults, _ in looks("healthy", seed, only))


def healthy_runs(seed: int, only: str) -> Iterator[tuple[str, list[str]]]:
    """Name and faults of each."""
    from healthy import runs

    return ((name, [f.code for f in run() if f.is_fault]) for name, run in runs(seed) if only in name)


def print_alarms(what: str, looks: Iterable[tuple[str, list[str]]]) -> int:
    """Print the false alarms; their number."""
    number = alarms = 0
    for name, faults in looks:
        number, alarms = number + 1, alarms + bool(faults)
        if faults:
            print(f"  false alarm: {name}: {', '.join(faults)}", flush=True)
    print(f"{number} {what}, {alarms} with a fault")
    return alarms


if __name__ == "__main__":
    sys.exit(main())
