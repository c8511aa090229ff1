"""The process of one trial, seen from the sweep: started, looked at, started again where it is killed."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.main import PROGRAM
from workbench.run import Run

if TYPE_CHECKING:
    import optuna

    from workbench.tune.study import Sweep

MAX_KILLS = 3  # of a trial, one after the other without a validation between, before it counts as failed
DISK_FULL = "disk is full"
MIN_FREE = 2**20  # bytes
STOPPED = (130, 143)  # exit codes at Ctrl-C and SIGTERM, after a checkpoint is saved
ALIVE = 10  # seconds between two looks at whether the study still has the trial as running


class Failed(Exception):
    """A trial that gives no result, with the reason."""


class Interrupted(Exception):
    """A trial that the sweep stopped: another attempt continues it."""


class TrialRun:
    """The process of a trial, started again where it is killed, and what it has logged so far.

    Runs that are in its folder already are set aside where the trial is to start ``fresh``, and continued otherwise.
    """

    def __init__(self, sweep: Sweep, trial: optuna.Trial, name: str, fresh: bool) -> None:
        self.sweep, self.trial, self.name = sweep, trial, name
        self.folder = sweep.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.curve: list[list[float]] = []  # step, seconds, objective
        for run in self._runs() if fresh else ():
            run.rename(run.with_name(f"earlier-{run.name}"))
        if not fresh:
            earlier = [t.user_attrs for t in sweep.trials() if t.user_attrs.get("index") == trial.user_attrs["planned"]]
            self.curve = next((attributes["curve"] for attributes in reversed(earlier) if "curve" in attributes), [])
        self.seconds = self.curve[-1][1] if self.curve else 0.0
        self._modified, self._alive_at = 0.0, 0.0

    def _runs(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("2*") if path.is_dir())

    @property
    def run_folder(self) -> Path:
        """Of the newest run."""
        return (self._runs() or [self.folder / "none"])[-1]

    def finish(self, words: list[str]) -> float:
        """Run to the end; the best of the objective. Raises Failed, Interrupted or TrialPruned."""
        sweep, settings, log = self.sweep, self.sweep.settings, self.folder / "log.txt"
        words = [*words, *settings.words, "--evaluate=false", f"--runs_dir={sweep.folder}", f"--name={self.name}"]
        kills = 0
        while True:
            resume = [f"--resume={self.run_folder.name}"] if self._has_checkpoint() else []
            validations, started, before = len(self.curve), time.monotonic(), self.seconds
            start = log.stat().st_size if log.is_file() else 0

            def look(started: float = started, before: float = before) -> None:
                self.seconds = before + time.monotonic() - started
                self._read()

            code, stopped = run_process([*words, *resume], log, sweep.environment, sweep.stopping, look)
            self._modified = 0.0
            look()
            if code == 0:
                break
            if stopped:
                raise Interrupted
            error = error_in(log, start)
            if DISK_FULL in error or shutil.disk_usage(self.folder).free < MIN_FREE:
                sweep.stopped_by = "The disk is full.\nFree some space; then the same command continues the sweep."
                sweep.stopping.set()
                raise Interrupted
            kills = 1 if len(self.curve) > validations else kills + 1
            if (code > 0 and code not in STOPPED) or kills == MAX_KILLS:
                memory = " (out of memory?)" if code == -9 else ""
                cause = f"killed by signal {-code}{memory}, {kills} times" if code < 0 else f"exit code {code}"
                raise Failed(f"{error or cause}\nLog: {log}")
        values = [value for _, _, value in self.curve if math.isfinite(value)]
        if not values:
            raise Failed(f"diverged: {settings.objective} was never finite\nLog: {log}")
        self._keep_facts()
        return (max if settings.mode == "max" else min)(values)

    def _has_checkpoint(self) -> bool:
        return bool(Run(self.sweep.folder, self.name, self.run_folder.name).checkpoints)

    def _keep_facts(self) -> None:
        """Record what the report says of a run."""
        facts = {"run": str(self.run_folder), "seconds": round(self.seconds, 1)}
        with suppress(OSError, ValueError):
            environment = json.loads((self.run_folder / "environment.json").read_text("utf-8"))
            facts["parameters"] = environment.get("parameters")
        rows = read_rows(self.run_folder / "metrics.csv")
        epochs = [int(row["epoch"]) for row in rows if (row.get("epoch") or "").isdigit()]
        facts |= {"epochs": max(epochs, default=0) + 1, "steps": self.curve[-1][0]}
        for key, value in facts.items():
            self.trial.set_user_attr(key, value)

    def _read(self) -> None:
        """Note validations that are new in ``metrics.csv``; raises TrialPruned, or Interrupted where it is lost."""
        from optuna.exceptions import TrialPruned

        if time.monotonic() - self._alive_at > ALIVE:
            self._alive_at = time.monotonic()
            if not self.sweep.is_running(self.trial):
                raise Interrupted
        path, objective = self.run_folder / "metrics.csv", self.sweep.settings.objective
        with suppress(OSError):
            modified = path.stat().st_mtime
            if modified == self._modified:
                return
            self._modified = modified
        found = []
        for row in read_rows(path):
            with suppress(KeyError, TypeError, ValueError):  # other rows, and one that is being written
                found.append((int(float(row["step"])) + 1, float(row[objective])))  # Lightning counts from 0
        known = {step: seconds for step, seconds, _ in self.curve}
        curve = [[step, round(known.get(step, self.seconds), 1), value] for step, value in found]
        if not curve or curve == self.curve:
            return
        self.curve = curve
        self.trial.set_user_attr("curve", curve)
        if self.sweep.settings.prune:
            for step, _, value in curve:
                if step not in known and math.isfinite(value):
                    self.trial.report(value, step)
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


def error_in(log: Path, start: int = 0) -> str:
    """The last error in a trial's log from a byte on: what a user reads of it, or the last line of a trace."""
    lines = log.read_bytes()[start:].decode("utf-8", "replace").splitlines()
    found = [i for i, line in enumerate(lines) if line.startswith(("error: ", "Traceback"))]
    if not found:
        return ""
    lines = [line for line in lines[found[-1] :] if line.strip()]
    return lines[-1][:500] if lines[0].startswith("Traceback") else "\n".join(lines)[len("error: ") :][:1000]
