"""How well faults are found, before the first step and while a network trains, and how often there is a false alarm.

    python scripts/faults                     every planted fault, three seeds each, and every healthy run (minutes)
    python scripts/faults --only GAN          those with that in their name or code
    python scripts/faults --seeds 1 --part planted

Parts: checks (faults before the first step, and models with nothing wrong), planted (faults in small runs), healthy
(runs with nothing wrong). Printed is a row for each fault: on how many of its seeds a fault was found at all, on how
many it was named first, and what was named first instead; then the sums, and the false alarms.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))
import healthy  # noqa: E402
import plants  # noqa: E402

HEALTHY = "healthy"
NOTES = ("outlier-images",)  # codes that are never more than a note
Case = tuple[str, str, list[list[str]]]
"""Code of what is planted, or HEALTHY; its name; for each seed the codes of the faults found, in order."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python scripts/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each planted fault")
    parser.add_argument("--first-seed", type=int, default=1, help="the seed of the first of them")
    parser.add_argument("--only", default="", help="faults and runs with this in their name or code")
    parser.add_argument("--part", choices=("all", "checks", "planted", "healthy"), default="all")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cases: list[Case] = []
    for part, find in (("checks", before_training), ("planted", while_training), ("healthy", healthy_runs)):
        for case in find(seeds, options.only) if options.part in ("all", part) else ():
            print_case(*case)
            cases.append(case)
    return print_sums(cases)


def before_training(seeds: range, only: str) -> Iterator[Case]:
    """What the tests of the checks plant, and what they leave healthy."""
    outcomes: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    for kind, numbers in (("planted", seeds), (HEALTHY, seeds[:1])):
        for case in (case for seed in numbers for case in run_tests(kind, seed)):
            found = {p.get("name"): p.get("value", "") for p in case.iter("property")}
            code, name = found.get("planted", HEALTHY), case.get("name", "").removeprefix("test_").replace("_", " ")
            notes = [note for note in found.get("notes", "").split() if note == code and note in NOTES]
            if only in f"{code} {name}":
                outcomes[code, name].append(found.get("faults", "").split() or notes)
    return ((*case, runs) for case, runs in outcomes.items())


def run_tests(kind: str, seed: int) -> list[ElementTree.Element]:
    """Run the tests of the checks that are marked ``planted`` or ``healthy``; the report of each."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", kind, "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = {**os.environ, "FAULTS_SEED": str(seed)}
        command.append("tests/workbench/findings/checks")
        subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
        return list(ElementTree.parse(report).iter("testcase"))


def while_training(seeds: range, only: str) -> Iterator[Case]:
    for code, name, run in plants.PLANTS:
        if only in f"{code} {name}":
            yield code, name, [[finding.code for finding in run(seed) if finding.is_fault] for seed in seeds]


def healthy_runs(seeds: range, only: str) -> Iterator[Case]:
    for name, run in healthy.runs(seeds.start):
        if only in name:
            yield HEALTHY, name, [[finding.code for finding in run() if finding.is_fault]]


def print_case(code: str, name: str, runs: list[list[str]]) -> None:
    """A row for a planted fault; of healthy runs only false alarms."""
    first = sum(found[:1] == [code] for found in runs)
    others = ", ".join(sorted({found[0] if found else "-" for found in runs if found[:1] != [code]}))
    if code != HEALTHY:
        row = f"{code:<27}{name:<62} found {sum(map(bool, runs))}/{len(runs)}  first {first}/{len(runs)}"
        print(row + (f"  else: {others}" if others else ""), flush=True)
    elif any(runs):
        print(f"false alarm: {name}: {others}", flush=True)


def print_sums(cases: list[Case]) -> int:
    """Over all; returns 1 where a fault was missed or named second, or an alarm was false."""
    planted = [(code, found) for code, _, runs in cases if code != HEALTHY for found in runs]
    healthy_runs = [found for code, _, runs in cases if code == HEALTHY for found in runs]
    found, alarms = sum(bool(found) for _, found in planted), sum(map(bool, healthy_runs))
    first = sum(found[:1] == [code] for code, found in planted)
    if planted:
        ways = sum(code != HEALTHY for code, *_ in cases)
        print(f"\n{len({code for code, _ in planted})} codes, planted in {ways} ways, {len(planted)} runs")
        print(f"{found} found ({found / len(planted):.1%}), {first} named first ({first / len(planted):.1%})")
    print(f"{len(healthy_runs)} healthy runs, {alarms} with a fault")
    return int(first < len(planted) or alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
