"""The command: builds what ``fit`` would, lets every check look, prints and writes what was found."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from workbench.check.building import Building, TooFewLeft, prepare
from workbench.check.pictures import draw_pictures
from workbench.check.table import print_table
from workbench.check.trainable import describe_trainable
from workbench.console import silence_warnings
from workbench.findings.checks import Check, Outcome, Passed, all_checks, examine
from workbench.findings.checks.images import UnreadableImage, listed
from workbench.findings.finding import Finding, append
from workbench.parser import expand_args
from workbench.run import Run
from workbench.signals import STOP


def main(argv: list[str]) -> int:
    """Run ``check``.

    Returns:
        1 where a fault was found, else 0.

    Raises:
        UserError: For a mistake in the configuration or the command line.
    """
    silence_warnings()
    started = time.monotonic()
    with STOP.handled():
        words = expand_args(["fit", *argv[1:]])
        built = Building(words, command=argv[0])
        try:
            subject = prepare(built.model, built.datamodule, built.trainer, built.plain_config())
        except TooFewLeft as error:
            return _only_bad_files(built.open_run(), *error.args)
        run = built.open_run()
        pictures = draw_pictures(subject, run.folder)
        outcomes = list(examine(all_checks(), subject, _say))
    told = {**describe_trainable(subject), "Pictures": ", ".join(path.name for path in pictures)}
    return _report(outcomes, run, started, told)


def _only_bad_files(run: Run, bad: list[str]) -> int:
    """What is left to say where no good image is."""
    finding = UnreadableImage().fault(
        0, listed(bad), len(bad), 0, "Too few images are left without these. Mend them, or give others: --data.root."
    )
    return _report([finding], run, time.monotonic(), {})


def _say(check: Check) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[Kchecking {check.code} ...", end="", file=sys.stderr, flush=True)


def _report(outcomes: Sequence[Outcome], run: Run, started: float, facts: dict[str, object]) -> int:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    findings = [outcome for outcome in outcomes if isinstance(outcome, Finding)]
    append(run.folder / "findings.jsonl", findings)
    faults = sum(finding.is_fault for finding in findings)
    passed = sum(isinstance(outcome, Passed) for outcome in outcomes)
    seconds = time.monotonic() - started
    result = f"{faults} faults, {len(findings) - faults} notes, {passed} passed in {seconds:.0f} s"
    facts |= {"Result": result, "Folder": run.folder}
    print_table(outcomes, facts, title=f"{run.name} before the first step")
    return 1 if faults else 0
