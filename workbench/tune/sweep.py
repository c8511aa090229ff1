"""``sweep``: a study of many trials, each of them a run of its own, which outlives whatever kills it."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt

from workbench.errors import UserError, choose, did_you_mean, one_line
from workbench.main import PROGRAM
from workbench.parser import read_options, values
from workbench.signals import STOP
from workbench.tune.rounds import Result, Round, Settings, next_round
from workbench.tune.space import Space, Values

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("grid", "jittered_grid", "random", "quasi_random", "tpe")
HEARTBEAT, GRACE = 10, 45  # seconds: how often a running trial says so, and after how long without it is gone
RESTARTS = 2  # of a trial whose process was killed, without the sweep
DISK_FULL = "disk is full"


class Failed(Exception):
    """A trial that gives no result, with the reason."""


class Interrupted(Exception):
    """A trial that the sweep stopped: the next one continues it."""


def main(argv: list[str]) -> int:
    """Run ``sweep``: 0 when the study is finished, 1 when none of its trials has a result."""
    from workbench.check import Builder
    from workbench.console import silence_warnings
    from workbench.monitor import monitor_mode
    from workbench.parser import expand_args
    from workbench.tune import report

    silence_warnings()
    options, words = read_arguments(argv)
    settings = read_settings(options.sweep, options.trials)
    space = Space(settings.space)
    if options.wandb_yaml:
        print(report.write_wandb_sweep(Path(options.wandb_yaml), settings, space, words))
        return 0
    import_optuna()
    with STOP.handled():
        first = space.words(next(iter(_examples(space)))[1])
        built = Builder(expand_args(["fit", *words, *first]), command="sweep")
        config = built.config["fit"]
        if config.trainer.max_time is not None:
            raise UserError(
                "trainer.max_time is set: trials that share a machine cannot be compared by the clock.\n"
                "Bound each by its steps instead: --trainer.max_time null --trainer.max_steps N"
            )
        mode = monitor_mode("sweep", settings.objective, settings.mode, built.model)
        settings = dataclasses.replace(settings, mode=mode)
        study_name = options.study or Path(options.sweep).stem
        folder = Path(config.runs_dir) / study_name
        described = {
            "settings": {k: v for k, v in dataclasses.asdict(settings).items() if k != "trials"},
            "config": _comparable(built),
        }
        del built
        study = open_study(options.storage, study_name, folder, mode, described)
        sweep = Sweep(study, settings, space, words, folder, options.jobs)
        if not sweep.finished():
            check_space(space, words)
            sweep.rehearse()
        if options.retry == "failed":
            sweep.retry_failed()
        try:
            sweep.run()
        finally:
            sweep.print_state()
    print(report.write(study, folder, with_config=True))
    return 0 if sweep.finished() else 1


def read_arguments(argv: list[str]) -> tuple[Any, list[str]]:
    """The sweep's own options, and the words that go to every trial."""
    parser = ArgumentParser(
        prog=f"python -m {PROGRAM.name} sweep",
        description="Search hyper-parameters: many runs of one configuration. Any further --key value, and --config, "
        "goes to every trial. The same command continues a sweep that was stopped or killed.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--sweep", type=str, required=True, help="YAML file with the space, such as configs/sweep/denoise.yaml")
    add("--study", type=str | None, default=None, help="name, and folder below runs; default: the sweep's file name")
    add("--trials", type=NonNegativeInt | None, default=None, help="points to try in the space, instead of the file's")
    add("--jobs", type=PositiveInt, default=1, help="trials at a time on this machine")
    add("--storage", type=str | None, default=None, help="database URL that several machines share; default: a file")
    add("--retry", type=Literal["failed"] | None, default=None, help="failed: try those again, from their first step")
    add("--wandb-yaml", type=str | None, default=None, help="write the space as a W&B sweep into this file, and stop")
    own: list[str] = []
    rest: list[str] = []
    known = {option for action in parser._actions for option in action.option_strings}
    words = iter(argv[1:])
    for word in words:
        if word.split("=")[0] not in known:
            rest.append(word)
        elif "=" in word or word in ("-h", "--help"):
            own.append(word)
        else:
            own += [word, *[value for value in [next(words, None)] if value is not None]]
    return read_options(parser, own), rest


def read_settings(path: str, trials: int | None) -> Settings:
    """A sweep's file; UserError where it cannot be read or has a key that no sweep has."""
    try:
        tree = yaml.safe_load(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        there = sorted(map(str, Path("configs/sweep").glob("*.yaml")))
        raise UserError(
            f"There is no file {path}.\nThere are: {', '.join(there) or 'none in configs/sweep'}."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {one_line(error)}") from None
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for key in tree if isinstance(tree, dict) else ["the whole file"]:
        if key not in fields:
            hint = did_you_mean(str(key), fields)
            raise UserError(f"{path}: {key} is not known.{hint}\nKnown: {', '.join(fields)}.")
    for key in ("space", "objective"):
        if not tree.get(key):
            raise UserError(f"{path}: {key} is missing.")
    for key, value in tree.items():
        kind = type(fields[key].default)
        if kind in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise UserError(f"{path}: {key} is {value!r}, not a number of at least 0.")
    settings = Settings(**tree) if trials is None else dataclasses.replace(Settings(**tree), trials=trials)
    settings = dataclasses.replace(settings, sampler=choose(f"{path}: sampler", settings.sampler, SAMPLERS))
    if settings.trials == 0 and settings.sampler not in ("grid", "jittered_grid"):
        raise UserError(f"{path}: trials 0 means every point of a grid; {settings.sampler} has no end: --trials 24")
    return settings


def import_optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise UserError("Sweeps need Optuna: make setup, or pip install -e '.[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(url: str | None, name: str, folder: Path, mode: str, described: dict[str, Any]) -> optuna.Study:
    """The study of that name, made if it is not there; UserError where another sweep has the name, or it is damaged."""
    import warnings

    optuna = import_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    file = folder / "study.db"
    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("trial-*")) and (not file.is_file() or file.stat().st_size == 0):
            raise UserError(
                f"{folder} holds trials, but its {file.name} is gone or empty.\nUse another name: --study NAME"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.RDBStorage(
                url or f"sqlite:///{file}",
                engine_kwargs={"connect_args": {"timeout": 60}} if url is None else {"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
            )
        direction = {"min": "minimize", "max": "maximize"}[mode]
        study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        known = study.user_attrs.get("sweep")
        if known is None:
            study.set_user_attr("sweep", json.dumps(described, sort_keys=True))
    except ModuleNotFoundError as error:
        raise UserError(f"--storage {url} needs the package {error.name}: pip install {error.name}") from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, ValueError) as error:
        what = (
            f"The database {url} does not answer" if url else f"{file} cannot be read as a study; it is left as it is"
        )
        raise UserError(f"{what}: {one_line(error.__cause__ or error, 200)}\nUse another: --study NAME") from None
    if known is not None:
        before, now = _flat(json.loads(known)), _flat(json.loads(json.dumps(described)))
        differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if differing:
            lines = [f"  {key}: {before.get(key)} -> {now.get(key)}"[:160] for key in differing[:5]]
            raise UserError(f"The study {name!r} is of another sweep:\n" + "\n".join(lines) + "\nUse: --study NAME")
    return study


def check_space(space: Space, words: list[str]) -> None:
    """Parse the configuration at every choice and both ends of each range; UserError with the key that is wrong."""
    from workbench.cli import CommandLine
    from workbench.parser import expand_args

    class Parsed(CommandLine):
        """The command line of ``fit``, which builds nothing."""

        def instantiate_classes(self) -> None: ...
        def _run_subcommand(self, subcommand: str) -> None: ...

    for name, point in _examples(space):
        try:
            Parsed(expand_args(["fit", *words, *space.words(point)]), command="sweep")
        except UserError as error:
            raise UserError(f"space.{name}: {error}") from None


def _examples(space: Space) -> Iterator[tuple[str, Values]]:
    """Points in which each parameter takes all of its choices, or the ends of its range."""
    first: Values = {}
    for parameter in space.active(first):
        first[parameter.name] = parameter.at(0)
    for parameter in space.parameters:
        base = dict(first)
        if parameter.when is not None:
            base[parameter.when[0]] = parameter.when[1]
        for value in parameter.choices or (parameter.low, parameter.high):
            point: Values = {}
            given = {**base, parameter.name: value}
            for other in space.active(point):
                point[other.name] = given.get(other.name, other.at(0))
            yield parameter.name, point


class Sweep:
    """Runs the trials of a study until its rounds are finished, together with other processes that do so.

    A trial's index counts those that were started, without the second attempts; round and point follow from it. So
    processes need not agree on who tries what. A trial that is found without a heartbeat failed, and is enqueued anew:
    it continues the run in its folder.
    """

    def __init__(
        self, study: optuna.Study, settings: Settings, space: Space, words: list[str], folder: Path, jobs: int
    ) -> None:
        self.study, self.settings, self.space, self.words, self.folder = study, settings, space, words, folder
        self.jobs = jobs
        self.stopping = threading.Event()
        self.stopped_by: str | None = None
        self._starting = threading.Lock()  # held until a trial that starts is counted
        self._started_at = time.monotonic()
        self._finished_here = 0
        self.planned: dict[int, Values] = {}  # trial's number -> what it tries
        cores = os.cpu_count() or 1
        self.environment = {
            "OMP_NUM_THREADS": str(max(1, cores // jobs)),
            "WANDB_RUN_GROUP": study.study_name,
            **os.environ,
        }

    # ------------------------------------------------------------------ what there is to do

    def trials(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    def rounds(self) -> list[Round]:
        return [Round(**round) for round in self.study.user_attrs.get("rounds", [])]

    def results(self) -> dict[int, Result]:
        """The finished trials by their index; the last attempt of each counts."""
        return {
            trial.user_attrs["index"]: Result(trial.user_attrs["index"], trial.user_attrs["values"], trial.value)
            for trial in self.trials()
            if "index" in trial.user_attrs and is_finished(trial)
        }

    def state(self) -> str:
        """``work``, ``wait`` (for what others run) or ``done``; a round that follows is added to the study."""
        import optuna

        optuna.storages.fail_stale_trials(self.study)
        trials = self.trials()
        self._requeue_lost(trials)
        if any(trial.state == optuna.trial.TrialState.WAITING for trial in self.trials()):
            return "work"
        rounds, results = self.rounds(), self.results()
        planned = sum(len(round.points) for round in rounds)
        if sum(is_new(trial) for trial in trials) < planned:
            return "work"
        if len(results) < planned:
            return "wait"
        following = next_round(self.settings, self.space, rounds, list(results.values()))
        if following is None:
            return "done"
        # Another process may write at the same time, and then it writes the same.
        self.study.set_user_attr("rounds", [dataclasses.asdict(round) for round in [*rounds, following]])
        return "work"

    def _requeue_lost(self, trials: list[Any]) -> None:
        """Enqueue what failed without a reason: its process or the sweep was killed or stopped."""
        from optuna.trial import TrialState

        continued = {trial.user_attrs.get("continues") for trial in trials}
        for trial in trials:
            lost = trial.state == TrialState.FAIL and "reason" not in trial.user_attrs
            if trial.state == TrialState.RUNNING and "index" not in trial.user_attrs and _age(trial) > GRACE:
                self.study.tell(trial.number, state=TrialState.FAIL)  # killed before its first heartbeat
                lost = True
            if lost and trial.number not in continued:
                self._enqueue(trial, fresh=False)

    def _enqueue(self, trial: Any, fresh: bool) -> None:
        index = trial.user_attrs.get("index", index_of(trial, self.trials()))
        attrs = {"continues": trial.number, "continues_index": index, "fresh": fresh}
        self.study.enqueue_trial({}, user_attrs=attrs)

    def retry_failed(self) -> None:
        """Enqueue the failed trials whose last attempt has a reason."""
        trials = self.trials()
        continued = {trial.user_attrs.get("continues") for trial in trials}
        failed = [t for t in trials if not t.state.is_finished() or "reason" in t.user_attrs]
        for trial in failed:
            if trial.state.is_finished() and trial.value is None and trial.number not in continued:
                self._enqueue(trial, fresh=True)

    def finished(self) -> bool:
        """Whether the study has its last round, and any result."""
        rounds, results = self.rounds(), self.results()
        complete = bool(rounds) and len(results) == sum(len(round.points) for round in rounds)
        scored = any(result.score is not None for result in results.values())
        return complete and scored and next_round(self.settings, self.space, rounds, list(results.values())) is None

    # ------------------------------------------------------------------ running

    def run(self) -> None:
        """Work until the study is done; on Ctrl-C the trials are saved and stopped first."""
        with ThreadPoolExecutor(self.jobs) as executor:
            workers = [executor.submit(self._work) for _ in range(self.jobs)]
            try:
                done, _ = wait(workers, return_when=FIRST_EXCEPTION)
            except BaseException:
                self.stopping.set()
                raise
            finally:
                if any(worker.done() and worker.exception() for worker in workers):
                    self.stopping.set()
        for worker in done:
            worker.result()
        if self.stopped_by:
            raise UserError(self.stopped_by)

    def _work(self) -> None:
        study = self.study
        sampler = make_sampler(self.settings, len(self.trials()), self.planned)
        study.sampler = sampler
        while not self.stopping.is_set():
            with self._counted() as release:
                state = self.state()
                if state == "work":
                    study.optimize(lambda trial: self._try(trial, release), n_trials=1, catch=(Failed, Interrupted))
            if state == "done":
                return
            if state == "wait":
                self.stopping.wait(2)

    @contextmanager
    def _counted(self) -> Iterator[Any]:
        """Let one thread at a time decide, until it releases: its trial is counted then."""
        self._starting.acquire()
        held = [True]

        def release() -> None:
            if held:
                held.clear()
                self._starting.release()

        try:
            yield release
        finally:
            release()

    def _try(self, trial: optuna.Trial, release: Any) -> float:
        """One trial: its point, its process, its result."""
        from optuna.exceptions import TrialPruned

        attrs = trial.user_attrs
        index = attrs.get("continues_index")
        if index is None:
            index = index_of(trial, self.trials())
        elif any(
            other.number < trial.number and other.user_attrs.get("continues") == attrs["continues"]
            for other in self.trials()
        ):
            trial.set_user_attr("reason", "enqueued twice")
            raise Failed
        while (place := self._place(index)) is None:  # others are ahead; a round that follows may have room
            if self.state() == "done" or self.stopping.is_set():
                trial.set_user_attr("reason", "no point was left")
                raise Failed
            time.sleep(1)
        round, number = place
        point = self._point(trial, index, round.points[number])
        trial.set_user_attr("values", point)
        trial.set_user_attr("kind", round.kind)
        trial.set_user_attr("index", index)
        release()
        name = f"trial-{index:04d}"
        words = [*self.words, *self.space.words(point)]
        if offset := round.seed_offsets[number]:
            words += [f"--seed_everything={int((values(self.words, '--seed_everything') or [42])[-1]) + offset}"]
        try:
            run = TrialRun(self, trial, name, words, resume=not attrs.get("fresh"))
            score = run.finish()
        except TrialPruned:
            trial.set_user_attr("reason", "pruned: worse than the median")
            raise
        except Failed as error:
            trial.set_user_attr("reason", str(error))
            self._report(index, point, None, str(error))
            raise
        self._report(index, point, score, "")
        return score

    def _place(self, index: int) -> tuple[Round, int] | None:
        """The round of a trial, and its number there."""
        for round in self.rounds():
            if index < len(round.points):
                return round, index
            index -= len(round.points)
        return None

    def _point(self, trial: optuna.Trial, index: int, point: Values | None) -> Values:
        """What a trial tries, registered with Optuna; of a trial that TPE chose, the earlier attempt's."""
        earlier = [t.user_attrs["values"] for t in self.trials() if t.user_attrs.get("index") == index]
        point = point or (earlier[-1] if earlier else None)
        if point is not None:
            self.planned[trial.number] = point
        found: Values = {}
        for parameter in self.space.active(found):
            if parameter.choices:
                value: Any = trial.suggest_categorical(parameter.name, list(parameter.choices))
            else:
                planned = [point[parameter.name]] if point is not None else []
                low, high = min([parameter.low, *planned]), max([parameter.high, *planned])
                suggest = trial.suggest_int if parameter.is_integer else trial.suggest_float
                value = suggest(parameter.name, low, high, log=parameter.log)
            found[parameter.name] = value
        return found

    def rehearse(self) -> None:
        """One step and one validation of the first point, before the first trial; UserError where that fails."""
        folder = self.folder / ".rehearsal"
        point = next(iter(_examples(self.space)))[1]
        words = [
            *self.words,
            *self.space.words(point),
            *("--trainer.max_steps=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"),
            *("--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1.0"),
            *("--evaluate=false", f"--checkpoint.monitor={self.settings.objective}", "--wandb=off"),
            *(f"--runs_dir={folder}", "--name=rehearsal"),
        ]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            code, _ = run_process(words, folder / "log.txt", self.environment, self.stopping)
        finally:
            text = _error_in(folder / "log.txt")
            shutil.rmtree(folder, ignore_errors=True)
        if code != 0 and not self.stopping.is_set():
            text = text.replace("checkpoint.monitor", "objective").partition("\nSet --objective")[0]
            raise UserError(f"The configuration fails at its first step:\n{text or f'exit code {code}'}")

    # ------------------------------------------------------------------ printing

    def _report(self, index: int, point: Values, score: float | None, reason: str) -> None:
        results = list(self.results().values())
        scored = [r.score for r in results if r.score is not None] + ([score] if score is not None else [])
        planned = sum(len(round.points) for round in self.rounds())
        best = (max if self.settings.mode == "max" else min)(scored, default=None)
        self._finished_here += 1
        each = (time.monotonic() - self._started_at) / self._finished_here
        left = max(0, planned - len(results) - 1) * each / 60
        shown = ", ".join(f"{name.rpartition('.')[2]} {_short(value)}" for name, value in point.items())
        what = reason.splitlines()[0][:120] if score is None else f"{self.settings.objective} {score:.5g}"
        tail = "" if best is None else f"; best {best:.5g}"
        print(
            f"[{len(results) + 1}/{planned}] trial {index}: {what} ({shown}){tail}; about {left:.0f} min left",
            flush=True,
        )

    def print_state(self) -> None:
        results = list(self.results().values())
        failed = sum(result.score is None for result in results)
        text = f"{len(results)} trials are finished" + (f", {failed} of them failed" if failed else "")
        if failed:
            text += " (--retry failed tries those again)"
        print(f"{text}. Study: {self.folder}", flush=True)


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
            error = _error_in(log)
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
        rows = _rows(self.run_folder / "metrics.csv")
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
        new = [(int(float(row["step"])), float(row[objective])) for row in _rows(path) if row.get(objective)]
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


def make_sampler(settings: Settings, finished: int, planned: dict[int, Values]) -> Any:
    """A sampler that gives planned trials their points; TPE chooses the others, from what has finished."""
    import optuna

    class Planned(optuna.samplers.TPESampler):
        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            if trial.number in planned:
                return planned[trial.number][name]
            return super().sample_independent(study, trial, name, distribution)

    # A sampler that starts with the same seed again repeats its first draws.
    return Planned(seed=settings.seed + finished, constant_liar=True, warn_independent_sampling=False)


def is_finished(trial: Any) -> bool:
    """Whether a trial has its result: a score, or the reason why there is none."""
    return trial.state.is_finished() and (trial.value is not None or "reason" in trial.user_attrs)


def is_new(trial: Any) -> bool:
    """Whether a trial is not another attempt at an earlier one."""
    return "continues" not in trial.user_attrs


def index_of(trial: Any, trials: list[Any]) -> int:
    """How many new trials were started before this one."""
    return sum(is_new(other) and other.number < trial.number for other in trials)


def _age(trial: Any) -> float:
    from datetime import datetime

    return (datetime.now() - trial.datetime_start).total_seconds() if trial.datetime_start else 0.0


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def _error_in(log: Path) -> str:
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


def _comparable(built: Any) -> dict[str, Any]:
    """Of a configuration, what two machines that share a study have in common."""
    from workbench.main import load

    config = built.plain_config()
    data = config.get("data") or {}
    arguments = dict(data.get("init_args") or {})
    if data.get("class_path"):
        for key in [*getattr(load(data["class_path"]), "path_arguments", ()), "num_workers"]:
            arguments.pop(key, None)
    return {"model": config["model"], "data": {"class_path": data.get("class_path"), "init_args": arguments}}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}").items()}
    return {prefix.lstrip("."): tree}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
