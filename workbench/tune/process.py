"""The process of one trial, seen from the sweep: started, looked at, started again where it is killed."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.main import PROGRAM

if TYPE_CHECKING:
    import optuna

    from workbench.tune.study import Sweep

RESTARTS = 2  # of a trial whose process was killed, without the sweep
DISK_FULL = "disk is full"


class Failed(Exception):
    """A trial that gives no result, with the reason."""


class Interrupted(Exception):
    """A trial that the sweep stopped: the next one continues it."""


class TrialRun:
    """The process of a trial, started again where it is killed, and what it has logged so far."""

    def __init__(self, sweep: Sweep, trial: optuna.Trial, name: str, words: list[str], resume: bool) -> None:
        self.sweep, self.trial, self.name = sweep, trial, name
        self.folder = sweep.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        objective, patience = sweep.settings.objective, sweep.settings.patience
        self.words = [*words, "--evaluate=false", f"--runs_dir={sweep.folder}", f"--name={name}"]
        self.words += [f"--checkpoint.monitor={objective}", f"--checkpoint.mode={sweep.settings.mode}"]
        if patience:
            self.words += [f"--early_stopping.monitor={objective}", f"--early_stopping.patience={patience}"]
        self.resume = resume
        self.curve: list[list[float]] = []  # step, seconds, value
        self.seconds = 0.0
        if resume:
            self.curve = next((t.user_attrs["curve"] for t in reversed(sweep.trials()) if self._is_mine(t)), [])
            self.seconds = self.curve[-1][1] if self.curve else 0.0
        self._modified = 0.0

    def _is_mine(self, trial: Any) -> bool:
        same = trial.user_attrs.get("index") == self.trial.user_attrs["index"]
        return same and trial.number < self.trial.number and "curve" in trial.user_attrs

    @property
    def run_folder(self) -> Path:
        """Of the newest run."""
        found = sorted(path for path in self.folder.glob("2*") if path.is_dir())
        return found[-1] if found else self.folder / "none"

    def finish(self) -> float:
        """Run to the end; the best of the objective. Raises Failed, Interrupted or TrialPruned."""
        sweep, log = self.sweep, self.folder / "log.txt"
        for attempt in range(RESTARTS + 1):
            words = list(self.words)
            if self.resume and (self.run_folder / "checkpoints" / "last.ckpt").is_file():
                words += [f"--resume={self.run_folder.name}"]
            started, before = time.monotonic(), self.seconds

            def look(started: float = started, before: float = before) -> None:
                self.seconds = before + time.monotonic() - started
                self._read()

            code, killed_by_us = run_process(words, log, sweep.environment, sweep.stopping, look)
            self._modified = 0.0
            look()
            if code == 0:
                break
            if sweep.stopping.is_set() or killed_by_us:
                raise Interrupted
            error = error_in(log)
            if DISK_FULL in error:
                sweep.stopped_by = f"{error.splitlines()[0]}\nFree some space; then the same command continues."
                sweep.stopping.set()
                raise Interrupted
            if code > 0 or attempt == RESTARTS:
                cause = error or (f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else ""))
                raise Failed(f"{cause}\nLog: {log}")
            self.resume = True
        values = [value for _, _, value in self.curve if math.isfinite(value)]
        if not values:
            raise Failed(f"{sweep.settings.objective} was never finite: it diverged\nLog: {log}")
        self._keep_facts()
        return (max if sweep.settings.mode == "max" else min)(values)

    def _keep_facts(self) -> None:
        facts = {"run": str(self.run_folder), "seconds": round(self.seconds, 1)}
        with suppress(OSError, ValueError):
            environment = json.loads((self.run_folder / "environment.json").read_text("utf-8"))
            facts["parameters"] = environment.get("parameters")
        rows = read_rows(self.run_folder / "metrics.csv")
        epochs = [int(row["epoch"]) for row in rows if (row.get("epoch") or "").isdigit()]
        facts |= {"epochs": max(epochs, default=0) + 1, "steps": int(self.curve[-1][0]) if self.curve else 0}
        for key, value in facts.items():
            self.trial.set_user_attr(key, value)

    def _read(self) -> None:
        """Note validations that are new in ``metrics.csv``; raises TrialPruned."""
        from optuna.exceptions import TrialPruned

        path, objective = self.run_folder / "metrics.csv", self.sweep.settings.objective
        try:
            modified = path.stat().st_mtime
        except OSError:
            return
        if modified == self._modified:
            return
        self._modified = modified
        new = [(int(float(row["step"])), float(row[objective])) for row in read_rows(path) if row.get(objective)]
        known = {step: seconds for step, seconds, _ in self.curve}
        curve = [[step, round(known.get(step, self.seconds), 1), value] for step, value in new]
        if curve == self.curve:
            return
        self.curve = curve
        self.trial.set_user_attr("curve", curve)
        if self.sweep.settings.prune and math.isfinite(curve[-1][2]):
            self.trial.report(curve[-1][2], int(curve[-1][0]))
            if self.trial.should_prune():
                raise TrialPruned


def run_process(
    words: list[str], log: Path, environment: dict[str, str], stopping: threading.Event, look: Any = lambda: None
) -> tuple[int, bool]:
    """Run ``fit`` in a process of its own, looking at it each second; its exit code, and whether it was stopped."""
    command = [sys.executable, "-m", "workbench.tune.trial", PROGRAM.name, "fit", *words]
    with log.open("ab") as file:
        # Its own session: Ctrl-C reaches the sweep alone, which then stops it. The pipe ends when the sweep does.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        while True:
            try:
                return process.wait(timeout=1), False
            except subprocess.TimeoutExpired:
                look()
            if stopping.is_set():
                return _stop(process), True
    except BaseException:  # pruned, or a bug
        _stop(process)
        raise
    finally:
        process.stdin.close()


def _stop(process: subprocess.Popen) -> int:
    """Let it save and end; kill it if that takes longer than a minute."""
    process.terminate()
    try:
        return process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def error_in(log: Path) -> str:
    """The last error in a trial's log: what a user reads of it, or the last line of a trace."""
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()[-60:]
    except OSError:
        return ""
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    if starts:
        return "\n".join(lines[starts[-1] :])[len("error: ") :][:1000]
    traced = any(line.startswith("Traceback") for line in lines)
    return next((line for line in reversed(lines) if line.strip()), "")[:500] if traced else ""
