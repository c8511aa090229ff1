"""A study: trials that several threads, processes and machines share through a database, and rounds of them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import UserError, one_line
from workbench.parser import values
from workbench.tune.process import Failed, Interrupted, TrialRun, error_in, run_process
from workbench.tune.rounds import Result, Round, Settings, next_round
from workbench.tune.space import Space, Values

if TYPE_CHECKING:
    import optuna

HEARTBEAT, GRACE = 10, 45  # seconds: how often a running trial says so, and after how long without it is gone


def import_optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise UserError("Sweeps need Optuna: make setup, or pip install -e '.[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(url: str | None, name: str, folder: Path, mode: str, described: dict[str, Any]) -> optuna.Study:
    """The study of that name, made if it is not there; UserError where another sweep has the name, or it is damaged."""

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
        point = self.space.first()
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
            text = error_in(folder / "log.txt")
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

    return (datetime.now() - trial.datetime_start).total_seconds() if trial.datetime_start else 0.0


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}").items()}
    return {prefix.lstrip("."): tree}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
