"""Sweeps of a tiny task by the real command, in processes that are killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from workbench.main import main

LR = "model.init_args.lr"
DEPTHS = {"model.init_args.depth": [1, 2, 3]}
SLOWLY = ("--model.init_args.seconds=0.4", "--checkpoint.every_n_steps=1", "--trainer.max_steps=12")


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)
    return found


def check_whole(sweep: Any, indices: int, steps: int, url: str | None = None) -> None:
    """Every trial has one result, every step was done, and no two processes trained in one folder."""
    trials = [trial for trial in sweep.trials(url) if "index" in trial.user_attrs]
    complete = Counter(trial.user_attrs["index"] for trial in trials if trial.state.name == "COMPLETE")
    assert complete == dict.fromkeys(range(indices), 1)
    for index in range(indices):
        done = [(step, process) for name, step, process in sweep.steps() if name == f"trial-{index:04d}"]
        assert {step for step, _ in done} == set(range(steps))
        order = [process for i, (_, process) in enumerate(done) if i == 0 or done[i - 1][1] != process]
        assert len(order) == len(set(order)), "two processes trained in one folder at the same time"
        last = [trial for trial in trials if trial.user_attrs["index"] == index][-1]
        assert last.user_attrs["steps"] == steps
        assert [step for step, *_ in last.user_attrs["curve"]] == [4, 8, 12][: steps // 4]


def test_a_sweep_ends_with_its_best_and_is_not_run_again(here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    here.write({"model.init_args.depth": [2]}, sampler="grid", trials=0)
    words = ["sweep", "--config", "c.yaml", "--sweep", "s.yaml", "--trainer.max_steps=4"]
    for _ in range(2):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert "3 trials are finished" in text
        assert len(here.steps()) == 1 + 3 * 4  # with the rehearsal
    check_whole(here, 3, 4)
    trials = here.trials()
    assert [(t.user_attrs["kind"], t.value) for t in trials] == [("search", 3.0), ("repeat", 3.0), ("repeat", 3.0)]
    runs = [Path(here.folder, trial.user_attrs["run"]) for trial in trials]
    assert [run.parent.name for run in runs] == [f"trial-{i:04d}" for i in range(3)]
    assert all((run / "checkpoints" / "best.ckpt").is_file() for run in runs)
    seeds = [line for run in runs for line in (run / "config.yaml").read_text().split("\n") if "seed_ev" in line]
    assert seeds == [f"seed_everything: {seed}" for seed in (42, 43, 44)]
    assert all(trial.user_attrs["parameters"] == 4 for trial in trials)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_killed_at_random_moments_continues(sweep: Any, seed: int) -> None:
    rng = random.Random(seed)
    sweep.write(DEPTHS, sampler="grid", trials=0)
    for _ in range(4):
        process = sweep.start("--jobs=2", *SLOWLY)
        wait_for(lambda p=process: sweep.processes() or p.poll() is not None)
        for _ in range(rng.choice([1, 2])):
            time.sleep(rng.uniform(3, 12))
            victim = rng.choice(["trial", "sweep", "all"])
            numbers = sweep.processes() if victim != "sweep" else []
            for number in numbers[: 1 if victim == "trial" else None]:
                os.kill(number, signal.SIGKILL)
            if victim != "trial":
                process.kill()
                break
        process.kill()
        process.communicate()
    assert "5 trials are finished" in sweep("--jobs=2", *SLOWLY)
    check_whole(sweep, 5, 12)


@pytest.mark.slow
def test_a_killed_trial_continues_from_its_checkpoint(sweep: Any) -> None:
    sweep.write({"model.init_args.fault": ["kill"]}, sampler="grid", trials=0)
    sweep("--checkpoint.every_n_steps=2")
    steps = [step for name, step, _ in sweep.steps() if name == "trial-0000"]
    assert steps == [0, 1, 2, 3, 4, 5, 6, 6, 7]
    check_whole(sweep, 3, 8)


@pytest.mark.slow
def test_two_sweeps_share_a_study(sweep: Any) -> None:
    sweep.write({"model.init_args.depth": [1, 2, 3, 4]}, sampler="grid", trials=0)
    both = [sweep.start("--trainer.max_steps=4"), sweep.start("--trainer.max_steps=4")]
    texts = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    check_whole(sweep, 6, 4)
    assert all("] trial" in text for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_saves_the_trial_first(sweep: Any, number: int, code: int) -> None:
    sweep.write({"model.init_args.depth": [1]}, sampler="grid", trials=0)
    words = ("--model.init_args.seconds=0.4", "--trainer.max_steps=12", "--checkpoint.every_n_minutes=0")
    process = sweep.start(*words)
    wait_for(lambda: any(name == "trial-0000" and step >= 5 for name, step, _ in sweep.steps()))
    process.send_signal(number)
    text, _ = process.communicate(timeout=100)
    assert process.returncode == code and not sweep.processes()
    assert "0 trials are finished" in text and "Stopped" in text and "Traceback" not in text
    sweep(*words)
    steps = [step for name, step, _ in sweep.steps() if name == "trial-0000"]
    assert steps == list(range(12))  # none was lost


@pytest.mark.slow
def test_failures_are_recorded_and_tried_again(sweep: Any) -> None:
    sweep.write({"model.init_args.fault": [None, "raise", "nan", "memory"]}, sampler="grid", trials=0)
    text = sweep("--jobs=2", "--trainer.max_steps=4")
    assert "3 of them without a result" in text
    reasons = {t.user_attrs["values"]["model.init_args.fault"]: t.user_attrs.get("reason") for t in sweep.trials()}
    assert reasons[None] is None
    assert "planted" in reasons["raise"]
    assert "diverged" in reasons["nan"] and "val/loss" in reasons["nan"]
    assert "out of memory" in reasons["memory"]
    assert all("log.txt" in reason for reason in reasons.values() if reason)
    task = sweep.folder / "task.py"
    task.write_text(task.read_text().replace('fault == "raise"', 'fault == "mended"'))
    text = sweep("--trainer.max_steps=4", "--retry=failed")
    assert "2 of them without a result" in text
    trials = [t for t in sweep.trials() if t.user_attrs["values"]["model.init_args.fault"] == "raise"]
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE"]
    assert {t.user_attrs["index"] for t in trials} == {trials[0].user_attrs["index"]}


@pytest.mark.slow
def test_a_full_disk_stops_the_sweep(sweep: Any) -> None:
    runs = sweep.folder / "runs"
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", runs], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        sweep.write(DEPTHS, sampler="grid", trials=0)
        process = sweep.start(*SLOWLY)
        wait_for(lambda: len(sweep.steps()) >= 4)
        with (runs / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"0" * 512)
        text, _ = process.communicate(timeout=100)
        assert process.returncode == 2, text
        assert "The disk is full" in text and "The same command continues" in text and "Traceback" not in text
        (runs / "filler").unlink()
        sweep(*SLOWLY)
        check_whole(sweep, 5, 12)
    finally:
        subprocess.run(["umount", "--lazy", runs], check=True)


@pytest.mark.slow
def test_a_space_that_grows_and_more_trials(sweep: Any) -> None:
    sweep.write({LR: {"low": 0.1, "high": 1.0, "log": True}}, sampler="tpe", trials=2, extend=1)
    sweep("--trainer.max_steps=4")
    kinds = [trial.user_attrs["kind"] for trial in sweep.trials()]
    assert kinds[:2] == ["search", "search"] and kinds[-2:] == ["repeat", "repeat"]
    sweep("--trainer.max_steps=4", "--trials=4")
    more = [trial.user_attrs["kind"] for trial in sweep.trials()]
    assert more[: len(kinds)] == kinds and more[len(kinds) : len(kinds) + 2] == ["search", "search"]
    values = [trial.user_attrs["values"][LR] for trial in sweep.trials() if trial.user_attrs["kind"] == "search"]
    assert len(set(values)) == 4  # a sampler that starts again does not repeat itself


@pytest.mark.slow
def test_a_metric_that_no_validation_logs(sweep: Any) -> None:
    sweep.write(DEPTHS, sampler="grid", trials=0)
    path = sweep.folder / "s.yaml"
    path.write_text(path.read_text().replace("val/loss", "val/los"))
    text = sweep(code=2)
    assert "objective is 'val/los', which no validation logs" in text and "val/loss" in text
    assert "Traceback" not in text and not list(Path(sweep.folder, "runs/s").glob("trial-*"))
    assert not list(Path(sweep.folder, "runs/s").glob(".rehearsal*"))


@pytest.mark.parametrize(
    ("space", "words", "text"),
    [
        ({"model.init_args.dept": [1]}, (), "option: --model.init_args.dept\nDid you mean model.init_args.depth?"),
        ({"trainer.max_stps": [1]}, (), "Did you mean trainer.max_steps?"),
        ({"model.init_args.depth": [1, "deep"]}, (), "depth: expected int. Got value: deep"),
        ({"model.init_args.depth": {"low": 0.5, "high": 1.5}}, (), "expected int. Got value: 0.5"),
        (DEPTHS, ("--trainer.max_time=00:00:01:00",), "trainer.max_time is set"),
        (DEPTHS, ("--name=mine",), "each trial of a sweep has its own"),
        (DEPTHS, ("--resume", "latest"), "each trial of a sweep has its own"),
        (DEPTHS, ("--storage=postgresql+psycopg://u:secret@127.0.0.1:9/x",), "--storage|The database"),
        (DEPTHS, ("--sweep", "t.yaml"), "There is no file t.yaml"),
    ],
)
def test_mistakes_before_the_first_trial(
    here: Any, capsys: pytest.CaptureFixture[str], space: dict[str, Any], words: tuple[str, ...], text: str
) -> None:
    here.write(space, sampler="grid", trials=0)
    assert main(["sweep", "--config", "c.yaml", "--sweep", "s.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert any(part in error for part in text.split("|")), error
    assert "secret" not in error and not list(Path("runs").glob("*/trial-*"))


def test_a_contradictory_mode(here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    here.write(DEPTHS, sampler="grid", trials=0, mode="max")
    assert main(["sweep", "--config", "c.yaml", "--sweep", "s.yaml"]) == 2
    assert "objective.mode is max, but lower values of val/loss are better" in capsys.readouterr().err


@pytest.fixture
def server() -> Iterator[tuple[Callable[..., None], str]]:
    """A PostgreSQL server as docs/tuning.md starts it: a function for ``pg_ctl``, and the URL of its database."""
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install 'psycopg[binary]'")
    if not shutil.which("initdb") or not shutil.which("pg_ctl"):
        pytest.skip("no PostgreSQL server is installed")
    user = {"user": "postgres", "extra_groups": []} if os.getuid() == 0 else {}  # the server refuses to run as root
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        Path(folder).chmod(0o777)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()

        def call(*words: str) -> None:
            subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60, **user)

        def control(*words: str) -> None:
            options = f"-h 127.0.0.1 -p {port} -k {folder}"
            call("pg_ctl", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", *words)

        call("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "sweeps")
        control("start")
        try:
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "sweeps", "sweeps")
            yield control, f"postgresql+psycopg://sweeps@127.0.0.1:{port}/sweeps"
        finally:
            with suppress(subprocess.CalledProcessError):
                control("-m", "immediate", "stop")


@pytest.mark.slow
def test_two_processes_share_a_postgresql_server(sweep: Any, server: tuple[Callable[..., None], str]) -> None:
    control, url = server
    words = (f"--storage={url}", *SLOWLY)
    sweep.write(DEPTHS, sampler="grid", trials=0)
    process = sweep.start(*words)
    wait_for(lambda: len(sweep.steps()) >= 4)
    control("-m", "immediate", "stop")
    text, _ = process.communicate(timeout=100)
    assert process.returncode == 2 and "Traceback" not in text, text
    assert "The database postgresql+psycopg://sweeps" in text and "The same command continues" in text
    assert "fails" in sweep(*words, code=2)
    control("start")
    both = [sweep.start(*words), sweep.start(*words)]
    texts = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert not Path(sweep.folder, "runs/s/study.db").exists()
    check_whole(sweep, 5, 12, url)
