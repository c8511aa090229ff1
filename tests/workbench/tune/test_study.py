"""What a sweep does with the results of its trials, whose processes are made up here; and studies that are no good."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from workbench.errors import UserError
from workbench.tune import process, trial
from workbench.tune.report import load_study
from workbench.tune.rounds import Settings
from workbench.tune.space import Space
from workbench.tune.study import Sweep, make_sampler, open_study
from workbench.tune.sweep import read_arguments, read_settings

LR = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}
LR_AND_CHOICE = {**LR, "c": ["a", None, 3]}


class Fake:
    """Trials whose objective is a function of their options; each writes the ``metrics.csv`` of a run."""

    def __init__(self, objective: Callable[[dict[str, Any]], float | int]) -> None:
        self.objective, self.started = objective, []

    def __call__(
        self, words: list[str], log: Path, environment: dict[str, str], stopping: threading.Event, look: Any
    ) -> tuple[int, bool]:
        given = {key.lstrip("-"): value for key, _, value in (word.partition("=") for word in words)}
        self.started.append(given)
        name = given.get("resume", f"20260101-{len(self.started):06d}")
        folder = Path(given["runs_dir"], given["name"], name)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        values = self.objective(given)
        if isinstance(values, int):
            log.write_text("error: planted\nmore\n" if values > 0 else "")
            return values, False
        rows = [f"{step},0,{value}\n" for step, value in enumerate(values, 1)]
        (folder / "metrics.csv").write_text("".join(["step,epoch,val/loss\n", *rows, "9,0,\n"]))
        look()
        return 0, False


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Sweep]:
    """Makes the sweep of an objective: sweep(objective, space, trials=10)."""

    def make(objective: Callable[[dict[str, Any]], Any], space: dict[str, Any], **options: Any) -> Sweep:
        settings = Settings(space, "val/loss", mode="min", **options)
        described = {k: v for k, v in dataclasses.asdict(settings).items() if k != "trials"}
        folder = tmp_path / "runs" / "s"
        study = open_study(None, "s", folder, "min", described, make_sampler(settings.seed))
        made = Sweep(study, settings, Space(space), [], folder, 42, 1, None)
        made.fake = Fake(objective)
        monkeypatch.setattr(process, "run_process", made.fake)
        return made

    return make


def parabola(given: dict[str, Any]) -> list[float]:
    return [9.0, math.log10(float(given["lr"]) / 1e-3) ** 2]


@pytest.mark.parametrize("sampler", ["jittered_grid", "quasi_random", "tpe"])
def test_every_sampler_finds_the_best_and_repeats_nothing(sweep: Callable[..., Sweep], sampler: str) -> None:
    made = sweep(parabola, LR_AND_CHOICE, sampler=sampler, trials=0 if "grid" in sampler else 11, refine=3.0)
    made.run()
    assert made.finished()
    rounds = made.rounds()
    assert rounds[0].kind == "search" and [round.kind for round in rounds[-2:]] == ["refine", "repeat"]
    points = [json.dumps(t.user_attrs["values"]) for t in made.trials() if t.user_attrs["kind"] != "repeat"]
    assert len(set(points)) == len(points)
    best = made.study.best_trial
    assert abs(math.log10(best.user_attrs["values"]["lr"] / 1e-3)) < 0.25
    seeds = [given.get("seed_everything") for given in made.fake.started]
    assert seeds == [None] * (len(seeds) - 2) + ["43", "44"]
    assert {trial.user_attrs["index"]: trial.value for trial in made.trials()} == {
        index: result.score for index, result in made.results().items()
    }


def test_a_sweep_that_is_continued_tries_what_it_would_have_tried(sweep: Callable[..., Sweep]) -> None:
    whole = sweep(parabola, LR_AND_CHOICE, trials=13)
    whole.run()
    expected = [trial.user_attrs["values"] for trial in whole.trials()]
    optuna.delete_study(study_name="s", storage=whole.study._storage)

    def stop(given: dict[str, Any]) -> list[float]:
        if len(part.fake.started) == 12:
            part.stopping.set()
        return parabola(given)

    part = sweep(stop, LR_AND_CHOICE, trials=13)
    part.run()
    assert len(part.results()) == 12 and not part.finished()
    rest = sweep(parabola, LR_AND_CHOICE, trials=13)
    rest.run()
    assert [trial.user_attrs["values"] for trial in rest.trials()] == expected
    assert len(rest.fake.started) == len(expected) - 12


def test_tpe_continues_beyond_a_border(sweep: Callable[..., Sweep]) -> None:
    def objective(given: dict[str, Any]) -> list[float]:
        return [-math.log10(float(given["lr"]))]

    made = sweep(objective, LR, trials=11, extend=2)
    made.run()
    more = sweep(objective, LR, trials=14, extend=2)
    more.run()
    searched = [t.user_attrs["values"]["lr"] for t in more.trials() if t.user_attrs["kind"] == "search"]
    assert len(set(searched)) == 14 and all(1e-4 <= lr <= 1e-2 for lr in searched)
    assert more.study.best_trial.user_attrs["values"]["lr"] == pytest.approx(0.01 * 3**4)  # two steps after each search


def test_failures_have_their_reason_and_are_tried_again(sweep: Callable[..., Sweep]) -> None:
    codes = {"1": 1, "2": -9, "3": [math.nan, math.nan], "4": [5.0]}
    made = sweep(lambda given: codes[given["n"]], {"n": [1, 2, 3, 4]}, sampler="grid", trials=0)
    made.run()
    reasons = {t.user_attrs["values"]["n"]: t.user_attrs.get("reason", "").split("\n")[0] for t in made.trials()}
    assert reasons[1] == "planted"
    assert reasons[2] == "killed by signal 9 (out of memory?), 3 times"
    assert reasons[3] == "diverged: val/loss was never finite"
    assert [given["n"] for given in made.fake.started].count("2") == 3
    before = made.fake.started
    assert all("resume" not in given for given in before if given["n"] != "2")
    codes |= {"1": [1.0], "3": [2.0]}
    again = sweep(lambda given: codes[given["n"]], {"n": [1, 2, 3, 4]}, sampler="grid", trials=0)
    again.retry_failed()
    again.run()
    first = next(given for given in again.fake.started if given["n"] == "1")
    assert "resume" not in first  # from its first step, in the same folder
    assert first["name"] == next(given["name"] for given in before if given["n"] == "1")
    scores = {result.values["n"]: result.score for result in again.results().values() if result.index < 4}
    assert scores == {1: 1.0, 2: None, 3: 2.0, 4: 5.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        ("step 3\nstep 4\n", ""),
        ("step 3\nerror: The disk is full.\nFree some space.\n\n", "The disk is full.\nFree some space."),
        ("Traceback (most recent call last):\n" + "  File x\n" * 200 + "ValueError: no\n\n", "ValueError: no"),
        ("error: old\n" + "Traceback (most recent call last):\n  x\nKeyError: 1\n", "KeyError: 1"),
    ],
)
def test_the_reason_stands_in_the_log(tmp_path: Path, text: str, reason: str) -> None:
    log = tmp_path / "log.txt"
    log.write_text("error: of an earlier attempt\n" + text)
    assert process.error_in(log, len("error: of an earlier attempt\n")) == reason


def test_what_is_enqueued_twice_is_run_once(sweep: Callable[..., Sweep]) -> None:
    made = sweep(lambda given: [float(given["n"])], {"n": [1, 2, 3]}, sampler="grid", trials=0)
    assert made.state() == "work"
    for index, point in enumerate(made.rounds()[0].points):
        made._enqueue(index, 0, point)
    made.run()
    assert sorted(given["n"] for given in made.fake.started) == ["1", "1", "1", "2", "3"]
    assert len(made.results()) == 5 and made.finished()


@pytest.mark.parametrize("checkpoint", ["last.ckpt", "best.ckpt"])
def test_a_run_that_is_lost_is_continued(sweep: Callable[..., Sweep], checkpoint: str) -> None:
    made = sweep(lambda given: [float(given["n"])], {"n": [1, 2]}, sampler="grid", trials=0)
    made.state()
    lost = made.study.ask()  # by a process that is killed: it has its point, and no heartbeat any more
    for key, value in {"index": 0, "values": made.rounds()[0].points[0]}.items():
        lost.set_user_attr(key, value)
    run = made.folder / "trial-0000" / "20250101-000000" / "checkpoints"
    run.mkdir(parents=True)
    (run / checkpoint).touch()
    made.study.tell(lost, state=optuna.trial.TrialState.FAIL)
    made.run()
    resumed = [given for given in made.fake.started if "resume" in given]
    expected = [("trial-0000", "20250101-000000")] if checkpoint == "last.ckpt" else []  # else killed in between
    assert [(given["name"], given["resume"]) for given in resumed] == expected
    assert len(made.results()) == 4


def test_a_trial_that_was_taken_for_dead_is_continued(sweep: Callable[..., Sweep]) -> None:
    def objective(given: dict[str, Any]) -> list[float]:
        if len(made.fake.started) == 1:  # as by another process, after this machine slept
            made.study.tell(0, state=optuna.trial.TrialState.FAIL)
        return [1.0]

    made = sweep(objective, {"n": [1]}, sampler="grid", trials=0)
    made.run()
    assert made.finished()
    first, second = made.fake.started[:2]
    assert first["name"] == second["name"] == "trial-0000" and second["resume"] == "20260101-000001"
    assert [t.state.name for t in made.trials() if t.user_attrs["index"] == 0] == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize("prune", [False, True])
def test_a_trial_that_does_worse_than_others_is_pruned(sweep: Callable[..., Sweep], prune: bool) -> None:
    space = {"n": [1, 2, 3, 4, 5, 6, 7, 8]}
    made = sweep(lambda given: [float(given["n"])] * 3, space, sampler="grid", trials=0, prune=prune)
    made.run()
    pruned = [trial for trial in made.trials() if trial.state.name == "PRUNED"]
    assert bool(pruned) == prune and all(trial.user_attrs["values"]["n"] > 2 for trial in pruned)
    assert all(made.results()[trial.user_attrs["index"]].score is None for trial in pruned)
    assert len(made.results()) == 10


def test_a_study_of_another_sweep(sweep: Callable[..., Sweep]) -> None:
    sweep(parabola, LR, sampler="random", trials=1).study.add_trial(
        optuna.trial.create_trial(value=1.0, params={}, distributions={})
    )
    with pytest.raises(UserError, match="of another sweep") as error:
        sweep(parabola, {"lr": {"low": 1e-3, "high": 1e-2, "log": True}}, sampler="random", trials=1)
    assert "space.lr.low: 0.0001 -> 0.001" in str(error.value) and "--study NAME" in str(error.value)


def test_a_study_without_trials_gives_way(sweep: Callable[..., Sweep]) -> None:
    sweep(parabola, LR, sampler="random", trials=1)
    assert not sweep(parabola, {"lr": [1, 2]}, sampler="random", trials=1).trials()


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    if how == "overwritten":
        file.write_bytes(content[:4096] + b"\x37" * (len(content) - 4096))
    if how == "no database":
        file.write_bytes(b"hello " * 2000)
    if how == "empty":
        file.write_bytes(b"")


@pytest.mark.parametrize("how", ["cut", "overwritten", "no database", "empty"])
def test_a_damaged_file_is_left_as_it_is(sweep: Callable[..., Sweep], how: str) -> None:
    made = sweep(parabola, LR, sampler="random", trials=3)
    made.run()
    file = made.folder / "study.db"
    made.study._storage._backend.engine.dispose()
    damage(file, how)
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"study\.db") as error:
        sweep(parabola, LR, sampler="random", trials=3)
    assert "--study NAME" in str(error.value)
    with pytest.raises(UserError):
        load_study(None, "s", made.folder)
    assert file.read_bytes() == before


def test_a_file_that_is_gone_beside_its_trials(sweep: Callable[..., Sweep]) -> None:
    made = sweep(parabola, LR, sampler="random", trials=1)
    made.run()
    (made.folder / "study.db").unlink()
    with pytest.raises(UserError, match="holds trials"):
        sweep(parabola, LR, sampler="random", trials=1)
    assert not (made.folder / "study.db").exists()


def test_a_database_that_is_away(tmp_path: Path) -> None:
    url = "sqlite:////proc/nowhere/study.db"
    with pytest.raises(UserError, match=r"The database .* fails: .*unable to open"):
        open_study(url, "s", tmp_path, "min", {}, None)
    with pytest.raises(UserError, match="Could not parse"):
        open_study("nonsense", "s", tmp_path, "min", {}, None)
    with pytest.raises(UserError, match="needs a package: pip install"):
        open_study("oracle://u:secret@host/db", "s", tmp_path, "min", {}, None)


def test_a_file_that_another_program_holds_locked(sweep: Callable[..., Sweep]) -> None:
    made = sweep(parabola, LR, sampler="random", trials=2)
    connection = sqlite3.connect(made.folder / "study.db")
    connection.execute("BEGIN EXCLUSIVE")
    threading.Timer(2, connection.rollback)  # kept while nothing else is done
    connection.rollback()
    made.run()
    assert made.finished()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: {x: [1]}\nobjectve: val/loss", "objectve is not known. Did you mean objective"),
        ("space: {x: [1]}", "objective is missing"),
        ("objective: val/loss", "space is missing"),
        ("- 1", "the whole file"),
        ("", "the whole file"),
        ("space: {x: [1]}\nobjective: a\nsampler: bayes", "'bayes' is not known"),
        ("space: {x: [1]}\nobjective: a\nsampler: [grid]", "sampler is ['grid']; it has to be a name"),
        ("space: {x: [1]}\nobjective: a\ntrials: -1", "trials is -1; it has to be an integer of at least 0"),
        ("space: {x: [1]}\nobjective: a\ntrials: 2.5", "trials is 2.5; it has to be an integer"),
        ("space: {x: [1]}\nobjective: a\nprune: maybe", "prune is 'maybe'; it has to be true or false"),
        ("space: {x: [1]}\nobjective: 3", "objective is 3; it has to be a name"),
        ("space: {x: [1]}\nobjective: a\nsampler: tpe\ntrials: true", "trials is True"),
        ("space: {x: [1]}\nobjective: a\nmode: best", "mode is 'best'"),
        ("space: {x: [1]}\nobjective: a\ntrials: 0\nsampler: tpe", "has no end"),
        ("space: {x: [1]}\nobjective: a\nrefine: 0.5", "refine is 0.5"),
        ("space: [x: ", "cannot be read as YAML"),
    ],
)
def test_mistakes_in_a_sweeps_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"s\.yaml") as error:
        read_settings(str(path), None)
    assert message in str(error.value)


def test_words_of_the_sweep_and_of_its_trials() -> None:
    words = ["sweep", "--config", "c.yaml", "--sweep=s.yaml", "--jobs", "2", "--data.batch_size=8", "--trials", "3"]
    options, rest = read_arguments([*words, "--model.lr", "1e-3"])
    assert (options.sweep, options.jobs, options.trials) == ("s.yaml", 2, 3)
    assert rest == ["--config", "c.yaml", "--data.batch_size=8", "--model.lr", "1e-3"]
    with pytest.raises(UserError, match="each trial of a sweep has its own"):
        read_arguments([*words, "--resume", "latest"])
    with pytest.raises(UserError, match="sweep"):
        read_arguments(["sweep", "--config", "c.yaml"])


def test_a_second_process_waits_for_the_folder(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    first = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    second = threading.Thread(target=trial._wait_for_others, args=(tmp_path,), daemon=True)
    second.start()
    second.join(0.5)
    assert second.is_alive()
    os.close(first)  # as the end of its process does
    second.join(20)
    assert not second.is_alive()
    os.close(trial.LOCK.pop())
