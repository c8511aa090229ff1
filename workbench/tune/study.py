"""A study: trials that several threads, processes and machines share through a database, and rounds of them."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import UserError, one_line
from workbench.tune.process import Failed, Interrupted, TrialRun, error_in, run_process
from workbench.tune.results import show
from workbench.tune.rounds import Result, Round, Settings, best_result, next_round
from workbench.tune.space import Space, Values

if TYPE_CHECKING:
    import optuna

HEARTBEAT, GRACE = 10, 45  # seconds: how often a running trial says so, and after how long without it is gone
FILE = "study.db"
CONTINUE = "The same command continues the sweep."


def import_optuna() -> Any:
    """Optuna, without its log; UserError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise UserError("Sweeps need Optuna: make setup, or pip install -e '.[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
    return optuna


def open_study(
    url: str | None, name: str, folder: Path, mode: str, described: dict[str, Any], sampler: Any
) -> optuna.Study:
    """The study of that name, made if it is not there; ``described`` is kept with it, and compared but for its words.

    Raises:
        UserError: Another sweep has the name, its file is damaged, or the database does not answer.
    """
    optuna = import_optuna()
    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
        _check_file(folder)
    direction = {"min": "minimize", "max": "maximize"}[mode]
    with explained(url, folder):
        storage = _storage(url, folder)
        study = optuna.create_study(
            storage=storage, study_name=name, direction=direction, load_if_exists=True, sampler=sampler
        )
        known, now = study.user_attrs.get("sweep"), json.dumps(described, sort_keys=True)
        if known is None:  # new; another process that starts at the same time sets the same
            study.set_user_attr("sweep", now)
            return study
        old, new = (_flat({**json.loads(text), "words": None}) for text in (known, now))
        if old != new and not study.get_trials(deepcopy=False):  # its sweep never started
            optuna.delete_study(study_name=name, storage=storage)
            study = optuna.create_study(storage=storage, study_name=name, direction=direction, sampler=sampler)
            study.set_user_attr("sweep", now)
            return study
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
        lines = [f"  {key}: {old.get(key)} -> {new.get(key)}"[:160] for key in differing[:5]]
        raise UserError(f"The study {name!r} is of another sweep:\n" + "\n".join(lines) + "\nUse: --study NAME")
    return study


def _storage(url: str | None, folder: Path) -> Any:
    import optuna
    from sqlalchemy.exc import OperationalError

    options = {"connect_args": {"timeout": 60}} if url is None else {"pool_pre_ping": True}
    for attempt in range(5):
        try:
            return optuna.storages.RDBStorage(
                url or f"sqlite:///{folder / FILE}",
                engine_kwargs=options,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
            )
        except RuntimeError as error:  # written by a newer version
            raise UserError(f"{one_line(error, 200)}\nUse another name: --study NAME") from None
        except OperationalError as error:  # another process makes the tables at this moment
            if "already exists" not in str(error) or attempt == 4:
                raise
            time.sleep(1)


def _check_file(folder: Path) -> None:
    """UserError where the study's file is damaged: SQLAlchemy would make its tables anew in an empty or cut one."""
    file = folder / FILE
    if not file.is_file() or file.stat().st_size == 0:
        if any(folder.glob("trial-*")):
            raise UserError(f"{folder} holds trials, but {FILE} is gone or empty.\nUse another name: --study NAME")
        return
    try:
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            fault = connection.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        fault = str(error)
    if fault != "ok":
        text = f"{file} is damaged, and left as it is: {one_line(ValueError(fault), 200)}"
        raise UserError(f"{text}\nUse another name: --study NAME")


@contextmanager
def explained(url: str | None, folder: Path) -> Iterator[None]:
    """Turn an error of the database into a UserError."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    where = _without_password(url) if url else str(folder / FILE)
    try:
        yield
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or "a driver"
        package = "'psycopg[binary]'" if package == "psycopg" else package
        raise UserError(f"--storage {where} needs a package: pip install {package}") from None
    except UserError:
        raise
    except Exception as error:
        causes: list[Any] = [error]  # Optuna hides the first behind an AssertionError of its own
        while following := causes[-1].__cause__ or getattr(causes[-1], "orig", None) or causes[-1].__context__:
            causes.append(following)
        if any(getattr(cause, "errno", None) == errno.ENOSPC or "disk is full" in str(cause) for cause in causes):
            raise UserError(f"The disk is full.\nFree some space. {CONTINUE}") from None
        found = [cause for cause in causes if isinstance(cause, SQLAlchemyError | StorageInternalError)]
        if not found:
            raise
        text = one_line(getattr(found[-1], "orig", None) or found[-1])
        raise UserError(f"The database {where} fails: {text}\n{CONTINUE}") from None


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string()
    except ArgumentError:
        return url


class Sweep:
    """Runs the trials of a study until its rounds are finished, together with other processes that do so.

    The trials of a round are enqueued; each has the number that its folder is named by, its index. One that fails
    without a reason was killed, stopped, or lost its heartbeat: it is enqueued as another attempt, which continues the
    run in its folder. Two processes may enqueue the same: then the first of them is run, and the second is dropped.
    """

    def __init__(
        self,
        study: optuna.Study,
        settings: Settings,
        space: Space,
        words: list[str],
        folder: Path,
        seed: int,
        jobs: int,
        url: str | None,
    ) -> None:
        self.study, self.settings, self.space, self.words, self.folder = study, settings, space, words, folder
        self.seed, self.jobs, self.url = seed, jobs, url
        self.stopping = threading.Event()
        self.stopped_by: str | None = None
        self._starting = threading.Lock()  # held while a thread looks for a trial, until it has its point
        self._started_at = time.monotonic()
        self._finished_here = 0
        self._busy: set[int] = set()  # threads that run a trial
        self._said_waiting = False
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        self.environment = {"OMP_NUM_THREADS": threads, "WANDB_RUN_GROUP": study.study_name, **os.environ}

    # ------------------------------------------------------------------ what there is to do

    def trials(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    def rounds(self) -> list[Round]:
        return [Round(**round) for round in self.study.user_attrs.get("rounds", [])]

    def results(self) -> dict[int, Result]:
        """The finished trials by their index; of each the last attempt counts."""
        last = {index: attempts[-1] for index, attempts in self._attempts().items()}
        return {i: Result(i, t.user_attrs["values"], score(t)) for i, t in last.items() if is_finished(t)}

    def finished(self) -> bool:
        """Whether nothing is left to do, and any trial has a result."""
        rounds, results = self.rounds(), self.results()
        if not rounds or len(results) < sum(len(round.points) for round in rounds):
            return False
        scored = any(result.score is not None for result in results.values())
        return scored and next_round(self.settings, self.space, rounds, list(results.values())) is None

    def state(self) -> str:
        """``work``, ``wait`` (for what others run) or ``done``; a round that follows is added to the study."""
        import optuna

        optuna.storages.fail_stale_trials(self.study)
        self._fail_unstarted()
        rounds, results = self.rounds(), self.results()
        if len(results) == sum(len(round.points) for round in rounds):
            following = next_round(self.settings, self.space, rounds, list(results.values()))
            if following is None:
                return "done"
            rounds.append(following)  # another process may do so at the same time: it adds the same
            self.study.set_user_attr("rounds", [dataclasses.asdict(round) for round in rounds])
        self._enqueue_missing(rounds)
        waiting = any(trial.state == optuna.trial.TrialState.WAITING for trial in self.trials())
        return "work" if waiting else "wait"

    def is_running(self, trial: optuna.Trial) -> bool:
        """Whether nobody has taken it for dead, as after this machine slept."""
        return not self.trials()[trial.number].state.is_finished()

    def _fail_unstarted(self) -> None:
        """Fail trials whose process was killed between taking them and their first heartbeat."""
        from optuna.trial import TrialState

        for trial in self.trials():
            if trial.state == TrialState.RUNNING and "index" not in trial.user_attrs:
                age = (datetime.now() - trial.datetime_start).total_seconds()
                if age > GRACE:
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _attempts(self) -> dict[int, list[Any]]:
        """The attempts at each planned trial, in order; those that were enqueued twice are left out."""
        found: dict[int, dict[int, Any]] = {}
        for trial in self.trials():
            if "planned" in trial.user_attrs:
                found.setdefault(trial.user_attrs["planned"], {}).setdefault(trial.user_attrs["attempt"], trial)
        return {index: [attempts[key] for key in sorted(attempts)] for index, attempts in found.items()}

    def _enqueue_missing(self, rounds: list[Round]) -> None:
        """Enqueue what the rounds plan and nobody has tried, and what failed without a reason."""
        attempts = self._attempts()
        points = [point for round in rounds for point in round.points]
        for index, point in enumerate(points):
            if index not in attempts:
                self._enqueue(index, 0, point)
                continue
            last = attempts[index][-1]
            if last.state.is_finished() and not is_finished(last):
                self._enqueue_again(index, attempts[index], fresh=False)

    def _enqueue_again(self, index: int, attempts: list[Any], fresh: bool) -> None:
        last = attempts[-1].user_attrs
        fresh = fresh or (last["fresh"] and "index" not in last)  # it did not come so far
        values = [trial.user_attrs["values"] for trial in attempts if "values" in trial.user_attrs]
        point = values[-1] if values else attempts[0].system_attrs["fixed_params"]
        self._enqueue(index, last["attempt"] + 1, point, fresh)

    def _enqueue(self, index: int, attempt: int, point: Values | None, fresh: bool = True) -> None:
        attributes = {"planned": index, "attempt": attempt, "fresh": fresh}
        self.study.enqueue_trial(point or {}, user_attrs=attributes)

    def retry_failed(self) -> None:
        """Enqueue the failed trials once more, from their first step."""
        from optuna.trial import TrialState

        for index, attempts in self._attempts().items():
            if attempts[-1].state == TrialState.FAIL and is_finished(attempts[-1]):
                self._enqueue_again(index, attempts, fresh=True)

    # ------------------------------------------------------------------ running

    def run(self) -> None:
        """Work until the study is done; on Ctrl-C the trials are saved and stopped first."""
        # Optuna's heartbeat threads print a trace where the database is away; the workers explain it.
        hook, threading.excepthook = threading.excepthook, lambda _: None
        try:
            with ThreadPoolExecutor(self.jobs) as executor, _stopping(self.stopping):
                workers = [executor.submit(self._work) for _ in range(self.jobs)]
                done, _ = wait(workers, return_when=FIRST_EXCEPTION)
                for worker in done:
                    worker.result()
        finally:
            threading.excepthook = hook
        if self.stopped_by:
            raise UserError(self.stopped_by)

    def _work(self) -> None:
        with explained(self.url, self.folder):
            while not self.stopping.is_set():
                with ExitStack() as stack:
                    stack.enter_context(self._starting)
                    state = self.state()
                    if state == "work":
                        self._try_next(stack.close)
                if state == "done":
                    return
                if state == "wait":
                    self._say_waiting()
                    self.stopping.wait(2)

    def _try_next(self, started: Callable[[], None]) -> None:
        """Run the next trial of the queue; ``started`` lets other threads look for theirs."""
        self._busy.add(threading.get_ident())
        try:
            # Heartbeats work only within `optimize`.
            self.study.optimize(lambda trial: self._try(trial, started), n_trials=1, catch=(Failed, Interrupted))
        except ValueError as error:
            if "Cannot tell" not in str(error):  # it was taken for dead, as after a machine slept, and failed
                raise
        finally:
            self._busy.discard(threading.get_ident())

    def _try(self, trial: optuna.Trial, started: Callable[[], None]) -> float:
        """One trial: its point, its process, its result."""
        from optuna.exceptions import TrialPruned

        attributes = trial.user_attrs
        if "planned" not in attributes:
            raise Failed("Another process took the last trial of the queue")
        index = attributes["planned"]
        known = self._attempts()[index][-1]
        if known.number != trial.number:
            raise Failed("It was enqueued twice")
        round, offset = self._place(index)
        run = TrialRun(self, trial, f"trial-{index:04d}", attributes["fresh"])
        point = self._point(trial, known.system_attrs["fixed_params"])
        for key, value in {"values": point, "kind": round.kind, "index": index}.items():
            trial.set_user_attr(key, value)
        started()
        words = [*self.words, *self.space.words(point)]
        if offset:
            words += [f"--seed_everything={self.seed + offset}"]
        try:
            result = run.finish(words)
        except TrialPruned:
            trial.set_user_attr("reason", "pruned: worse than the median")
            self._report(index, point, None, "pruned")
            raise
        except Failed as error:
            trial.set_user_attr("reason", str(error))
            self._report(index, point, None, str(error))
            raise
        self._report(index, point, result, "")
        return result

    def _place(self, index: int) -> tuple[Round, int]:
        """The round of a trial, and what is added to its seed."""
        for round in self.rounds():
            if index < len(round.points):
                return round, round.seed_offsets[index]
            index -= len(round.points)
        raise LookupError(index)

    def _point(self, trial: optuna.Trial, planned: Values) -> Values:
        """What a trial tries: the point that is enqueued with it, else one that the sampler chooses."""
        found: Values = {}
        for parameter in self.space.active(found):
            name = parameter.name
            if parameter.choices:
                found[name] = trial.suggest_categorical(name, list(parameter.choices))
            else:  # beyond the range, where the sweep was extended past its border
                low, high = (end(x, planned.get(name, x)) for end, x in ((min, parameter.low), (max, parameter.high)))
                suggest = trial.suggest_int if parameter.is_integer else trial.suggest_float
                found[name] = suggest(name, low, high, log=parameter.log)
        return found

    def rehearse(self) -> None:
        """One step and one validation of the first point, before the first trial; UserError where that fails."""
        words = [
            *self.words,
            *self.space.words(self.space.first()),
            *("--trainer.max_steps=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"),
            *("--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1.0"),
            *("--evaluate=false", f"--checkpoint.monitor={self.settings.objective}", "--wandb=off", "--name=rehearsal"),
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=self.folder) as folder, _stopping(self.stopping):
            log = Path(folder, "log.txt")
            code, _ = run_process([*words, f"--runs_dir={folder}"], log, self.environment, self.stopping)
            text = error_in(log)
        if code != 0:
            text = text.replace("checkpoint.monitor", "objective").partition("\nSet --objective")[0]
            raise UserError(f"The configuration fails at its first step:\n{text or f'exit code {code}'}")

    # ------------------------------------------------------------------ printing

    def _report(self, index: int, point: Values, value: float | None, reason: str) -> None:
        """Print what a trial came to; it is the study's after this."""
        results = self.results() | {index: Result(index, point, value)}
        planned = sum(len(round.points) for round in self.rounds())
        best = best_result(list(results.values()), self.settings.mode)
        self._finished_here += 1
        each = (time.monotonic() - self._started_at) / self._finished_here
        left = max(0, planned - len(results)) * each / 60
        shown = ", ".join(f"{name.rpartition('.')[2]} {show(value)}" for name, value in point.items())
        what = reason.splitlines()[0][:120] if value is None else f"{self.settings.objective} {value:.5g}"
        tail = f"; best {best.score:.5g}, trial {best.index}" if best else ""
        text = f"[{len(results)}/{planned}] trial {index}: {what} ({shown}){tail}; about {left:.0f} min left"
        print(text, flush=True)

    def _say_waiting(self) -> None:
        if not self._busy and not self._said_waiting:
            self._said_waiting = True
            print(f"Waiting for trials that other processes run, or did until {GRACE} seconds ago ...", flush=True)

    def print_state(self) -> None:
        """Print how many trials have a result."""
        results = list(self.results().values())
        without = sum(result.score is None for result in results)
        text = f"{len(results)} trials are finished"
        if without:
            text += f", {without} of them without a result (--retry failed tries failed ones again)"
        print(f"{text}. Study: {self.folder}", flush=True)


def make_sampler(seed: int) -> Any:
    """TPE whose draws for a trial follow from the seed and the trial's number.

    A seeded sampler of Optuna's repeats its first draws after a restart, and in another process.
    """
    optuna = import_optuna()

    class Sampler(optuna.samplers.BaseSampler):
        def before_trial(self, study: Any, trial: Any) -> None:
            index = trial.user_attrs.get("planned", 0)
            self._tpe = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + index) % 2**32)

        def infer_relative_search_space(self, *arguments: Any) -> Any:
            return self._tpe.infer_relative_search_space(*arguments)

        def sample_relative(self, *arguments: Any) -> Any:
            return self._tpe.sample_relative(*arguments)

        def sample_independent(self, *arguments: Any) -> Any:
            return self._tpe.sample_independent(*arguments)

    return Sampler()


def is_finished(trial: Any) -> bool:
    """Whether a trial has its result: a score, or the reason why there is none."""
    if not trial.state.is_finished() or "index" not in trial.user_attrs:
        return False
    return score(trial) is not None or "reason" in trial.user_attrs


def score(trial: Any) -> float | None:
    """The objective of a trial that was trained to its end."""
    return trial.value if trial.state.name == "COMPLETE" else None


@contextmanager
def _stopping(event: threading.Event) -> Iterator[None]:
    """Set the event where the block raises."""
    try:
        yield
    except BaseException:
        event.set()
        raise


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}").items()}
    return {prefix.lstrip("."): tree}
