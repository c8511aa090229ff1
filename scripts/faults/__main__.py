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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NOTES = {"outlier-images"}
"""Codes that are never more than a note."""


@dataclass
class Row:
    """How often one planted fault was found."""

    code: str
    name: str
    seeds: int = 0
    found: int = 0
    first: int = 0
    others: list[str] = field(default_factory=list)

    def count(self, faults: list[str], notes: list[str]) -> None:
        """One more run of it."""
        if self.code in NOTES and not faults:
            faults = [code for code in notes if code == self.code]
        self.seeds += 1
        self.found += bool(faults)
        self.first += faults[:1] == [self.code]
        if faults[:1] != [self.code]:
            self.others.append(faults[0] if faults else "-")

    def line(self) -> str:
        """For the table."""
        others = f"   else: {', '.join(sorted(set(self.others)))}" if self.others else ""
        return f"{self.code:<27}{self.name:<62}{self.found:>4}/{self.seeds}{self.first:>6}/{self.seeds}{others}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python scripts/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each planted fault")
    parser.add_argument("--first-seed", type=int, default=1, help="the seed of the first of them")
    parser.add_argument("--only", default="", help="faults and runs with this in their name or code")
    parser.add_argument("--part", choices=("all", "checks", "planted", "healthy"), default="all")
    given = parser.parse_args()
    sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    rows: list[Row] = []
    alarms = 0
    print(f"{'fault':<27}{'planted as':<62}{'found':>6}{'first':>8}", flush=True)
    if given.part in ("all", "checks"):
        rows += before_training(seeds, given.only)
    if given.part in ("all", "planted"):
        rows += while_training(seeds, given.only)
    tell_sums(rows)
    if given.part in ("all", "checks"):
        alarms += tell_alarms("models and data with nothing wrong", healthy_checks(given.first_seed, given.only))
    if given.part in ("all", "healthy"):
        alarms += tell_alarms("healthy runs", healthy_runs(given.first_seed, given.only))
    return int(alarms > 0 or any(row.first < row.seeds for row in rows))


def before_training(seeds: Iterable[int], only: str) -> list[Row]:
    """A row for each fault that a test of the checks plants."""
    from before import looks

    rows: dict[tuple[str, str], Row] = {}
    for seed in seeds:
        for code, name, faults, notes in looks("planted", seed, only):
            rows.setdefault((code, name), Row(code, name)).count(faults, notes)
    for row in rows.values():
        print(row.line(), flush=True)
    return list(rows.values())


def while_training(seeds: Iterable[int], only: str) -> list[Row]:
    """Train with each fault, and print its row."""
    from plants import PLANTS

    rows = []
    for plant in PLANTS:
        if only not in f"{plant.code} {plant.name}":
            continue
        rows.append(row := Row(plant.code, plant.name))
        for seed in seeds:
            found = plant.run(seed)
            row.count([f.code for f in found if f.is_fault], [f.code for f in found if not f.is_fault])
        print(row.line(), flush=True)
    return rows


def tell_sums(rows: list[Row]) -> None:
    """For each code, and over all."""
    if not rows:
        return
    print(f"\n{'code':<27}{'ways':>6}{'planted':>9}{'found':>7}{'first':>7}")
    codes = {row.code: [other for other in rows if other.code == row.code] for row in rows}
    for code, found in {**codes, "all": rows}.items():
        seeds, seen, first = (sum(getattr(row, name) for row in found) for name in ("seeds", "found", "first"))
        print(f"{code:<27}{len(found):>6}{seeds:>9}{seen:>7}{first:>7}")
    print(f"{seen / seeds:.1%} found, {first / seeds:.1%} named first, {len(codes)} codes")


def healthy_checks(seed: int, only: str) -> Iterable[tuple[str, list[str]]]:
    """Name and faults of each."""
    from before import looks

    return ((name, faults) for _, name, faults, _ in looks("healthy", seed, only))


def healthy_runs(seed: int, only: str) -> Iterable[tuple[str, list[str]]]:
    """Name and faults of each."""
    from healthy import runs

    def faults(run: Callable) -> list[str]:
        return [finding.code for finding in run() if finding.is_fault]

    return ((name, faults(run)) for name, run in runs(seed) if only in name)


def tell_alarms(what: str, looks: Iterable[tuple[str, list[str]]]) -> int:
    """Print the false alarms; their number."""
    alarms = count = 0
    for name, faults in looks:
        count, alarms = count + 1, alarms + bool(faults)
        if faults:
            print(f"  false alarm: {name}: {', '.join(faults)}", flush=True)
    print(f"{count} {what}, {alarms} with a fault")
    return alarms


if __name__ == "__main__":
    sys.exit(main())
