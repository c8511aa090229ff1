"""Several processes on one machine, through the real command: gloo on the CPU."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no signals, and no gloo in every build")
FIT = ["-m", "project", "fit"]


@pytest.fixture
def config(tmp_path: Path, make_pictures: Callable[..., Path]) -> Path:
    """Pairs as they are, no noise and no batch norm: N processes do what one does with a batch N times as large."""
    inputs, targets = make_pictures(30, width=52, height=41), tmp_path / "targets"
    targets.mkdir()
    for number, path in enumerate(sorted(inputs.iterdir())):
        picture = np.asarray(Image.open(path)).astype(int)
        Image.fromarray(np.uint8(np.clip(picture * 0.8 + number, 0, 255))).save(targets / path.name)
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "none"}}
    model = {"network": network, "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}}
    path = tmp_path / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "model": {"class_path": "project.models.ImageRestorer", "init_args": model},
                "data": {
                    "root": str(inputs),
                    "target_root": str(targets),
                    "crop": 16,
                    "batch_size": 12,
                    "crops_per_image": 4,  # 84 crops, 7 batches
                    "num_workers": 0,
                },
                "trainer": {
                    "accelerator": "cpu",
                    "max_steps": 12,
                    "check_val_every_n_epoch": None,
                    "val_check_interval": 5,
                    "log_every_n_steps": 1,
                },
                "ema": {"decay": 0.5},
            }
        )
    )
    return path


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def _start(words: list[str], **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words],
        env=_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen, code: int | None = 0, seconds: float = 120) -> tuple[str, str]:
    try:
        out, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, told = process.communicate()
        raise AssertionError(f"It hangs.\n{out}\n{told}") from None
    assert code is None or process.returncode == code, f"{process.returncode}\n{out}\n{told}"
    return out, told


def _words(config: Path, count: int, *more: str) -> list[str]:
    batch = ["--data.batch_size", str(12 // count)]
    return ["--config", str(config), "--wandb", "off", *batch, *_machine(count), *more]


def _machine(count: int) -> list[str]:
    strategy = "ddp_find_unused_parameters_true" if count > 1 else "auto"
    return ["--trainer.accelerator", "cpu", "--trainer.devices", str(count), "--trainer.strategy", strategy]


def _run() -> Path:
    return Path("runs/tiny/latest").resolve()


def _checkpoint(run: Path, name: str = "last") -> dict:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _wait_for(found: Callable[[], object], process: subprocess.Popen, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def _ranks(parent: int) -> dict[int, int]:
    """The processes that train, by their numbers: what a process has started that has a LOCAL_RANK."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            variables = dict(part.split("=", 1) for part in (entry / "environ").read_text().split("\0") if "=" in part)
        except (OSError, ValueError):
            continue
        if int(fields[1]) == parent and "LOCAL_RANK" in variables:
            found[int(variables["LOCAL_RANK"])] = int(entry.name)
    return found


@pytest.fixture
def alone(config: Path) -> Path:
    """The run of one process."""
    _finish(_start([*FIT, *_words(config, 1)]))
    return _run()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_learn_and_score_as_one(alone, config, count):
    out, _ = _finish(_start([*FIT, *_words(config, count)]))
    several = _run()
    assert several != alone
    assert len([path for path in several.parent.iterdir() if not path.is_symlink()]) == 2, "one folder a run"
    assert out.count("Batch:") == 1 and f"= 12 pictures a step, {count} times those of one device" in out
    assert out.count("Pictures: 21 train, 6 val, 3 test") == 1

    first, second = (_checkpoint(run)["current_model_state"] for run in (alone, several))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-5)
    rows = [_rows(run) for run in (alone, several)]
    assert [(row["step"], row["epoch"]) for row in rows[0]] == [(row["step"], row["epoch"]) for row in rows[1]]

    for command in ("validate", "test"):  # the very same weights
        scores = []
        for processes in (1, count):
            words = ["--ckpt_path", str(alone / "checkpoints" / "best.ckpt"), "--wandb", "off", *_machine(processes)]
            _finish(_start(["-m", "project", command, *words]))
            scores.append(_rows(max(alone.parent.glob(f"*-{command}*")))[-1])
        for key, value in scores[0].items():
            assert float(scores[1][key]) == pytest.approx(float(value), rel=1e-6), key
        assert len([key for key in scores[0] if "/" in key]) == 5


LAUNCHERS = {
    "lightning": [],
    "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "PORT"],
}


def _launched(launcher: str, words: list[str]) -> subprocess.Popen:
    return _start([*(word.replace("PORT", str(_free_port())) for word in LAUNCHERS[launcher]), *words])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_two_killed_processes_end_as_two_left_in_peace(config, launcher, workers, assert_same):
    noise = ["--data.target_root", "null", "--data.pairs", "project.data.pairs.GaussianNoise"]
    words = _words(config, 2, *noise, "--last_checkpoint.every_n_steps", "3", "--data.num_workers", str(workers))
    _finish(_launched(launcher, [*FIT, *words]))
    peace = _run()
    process = _launched(launcher, [*FIT, *words, "--name", "killed", "--trainer.max_steps", "2000"])
    last = Path("runs/killed/latest/checkpoints/last.ckpt")
    _wait_for(last.is_file, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # However far it came: the beginning is the same, and it is a shorter run from here on.
    step = torch.load(last, weights_only=True)["global_step"]
    assert step < 12, "the machine is too fast for this test"
    _finish(_launched(launcher, [*FIT, "--name", "killed", "--resume", "latest", "--trainer.max_steps", "12"]))
    (killed,) = [path for path in Path("runs/killed").iterdir() if not path.is_symlink()]
    assert_same(peace, killed.resolve())


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "rank"), [("lightning", 0), ("lightning", 1), ("torchrun", 1)])
def test_a_lost_process_ends_the_others_and_is_named(config, launcher, rank):
    process = _launched(launcher, [*FIT, *_words(config, 2, "--trainer.max_steps", "5000")])
    _wait_for(Path("runs/tiny/latest/checkpoints/last.ckpt").is_file, process)
    ranks = _ranks(process.pid) if launcher == "torchrun" else {0: process.pid, **_ranks(process.pid)}
    os.kill(ranks[rank], signal.SIGKILL)
    _, told = _finish(process, code=None, seconds=60)
    assert process.returncode != 0
    for other in set(ranks.values()) - {ranks[rank]}:
        _wait_until_gone(other)
    assert re.search(rf"rank\s*:\s*{rank} |Process {rank} of 2", told), told


def _wait_until_gone(number: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{number}").exists():
        assert time.monotonic() < deadline, f"process {number} is left behind"
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun_starts_lost_processes_again_from_the_last_checkpoint(config, assert_same):
    words = _words(config, 2, "--last_checkpoint.every_n_steps", "2", "--trainer.max_steps", "60")
    _finish(_start([*FIT, *words]))
    peace = _run()
    LAUNCHERS["again"] = [*LAUNCHERS["torchrun"], "--max-restarts", "1"]
    process = _launched("again", [*FIT, *words, "--name", "again"])
    _wait_for(Path("runs/again/latest/checkpoints/previous.ckpt").is_file, process)
    os.kill(_ranks(process.pid)[1], signal.SIGKILL)
    _finish(process)
    (again,) = [path for path in Path("runs/again").iterdir() if not path.is_symlink()]
    assert_same(peace, again)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_all_processes_in_the_same_place(config, launcher, number, code):
    process = _launched(launcher, [*FIT, *_words(config, 2, "--trainer.max_steps", "5000", "--data.num_workers", "1")])
    _wait_for(Path("runs/tiny/latest/checkpoints/last.ckpt").is_file, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it
    else:
        process.send_signal(number)
    _, told = _finish(process, code=code if launcher == "lightning" else None, seconds=60)
    run = _run()
    assert told.count(f"Go on with: python -m project fit --name tiny --resume {run.name}") == 1, told
    step = _checkpoint(run)["global_step"]
    _finish(_start([*FIT, "--name", "tiny", "--resume", "latest", "--trainer.max_steps", str(step + 2)]))
    losses = [row["train/loss"] for row in _rows(run) if row["train/loss"]]
    assert len(losses) == step + 2


@pytest.mark.slow
def test_slurm_requeues_and_the_job_goes_on_in_its_folder(config, tmp_path):
    """Two tasks as srun would start them, and a scontrol that notes what it is asked for."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    (tools / "scontrol").chmod(0o755)
    job = {"SLURM_JOB_ID": str(_free_port() - 15000 + 20000), "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    job |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    job |= {"SLURM_JOB_NAME": "image", "PATH": f"{tools}:{os.environ['PATH']}"}
    words = [*FIT, *_words(config, 2, "--trainer.max_steps", "5000")]

    def tasks(restarts: int, *more: str) -> list[subprocess.Popen]:
        return [
            _start(
                [*words, *more],
                SLURM_PROCID=str(rank),
                SLURM_LOCALID=str(rank),
                SLURM_RESTART_COUNT=str(restarts),
                MASTER_PORT=str(port),
                **job,
            )
            for rank in (0, 1)
        ]

    port = _free_port()
    first = tasks(0)
    _wait_for(Path("runs/tiny/latest/checkpoints/last.ckpt").is_file, first[0])
    for process in first:
        os.killpg(process.pid, signal.SIGUSR1)
    told = [_finish(process, seconds=60)[1] for process in first]
    assert (tmp_path / "asked").read_text() == f"requeue {job['SLURM_JOB_ID']}\n"
    assert "The job is requeued and goes on by itself" in told[0]
    run = _run()
    assert not list(run.glob("hpc_ckpt*")), "one checkpoint is enough"
    step = _checkpoint(run)["global_step"]
    port = _free_port()
    for process in tasks(1, "--trainer.max_steps", str(step + 2)):
        _finish(process)
    assert _run() == run and _checkpoint(run)["global_step"] == step + 2
    assert len([path for path in run.parent.iterdir() if not path.is_symlink()]) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--trainer.devices", "3"], ["processes were started", "trainer.devices", "--trainer.num_nodes"]),
        (["--trainer.devices", "1"], ["2 processes were started", "--trainer.devices"]),
    ],
)
@pytest.mark.slow
def test_processes_that_were_not_asked_for_are_told(config, words, expected):
    process = _launched("torchrun", [*FIT, "--config", str(config), "--wandb", "off", *words])
    _, told = _finish(process, code=1)
    for part in expected:
        assert part in told, told
    assert "Traceback (most" not in told.split("ChildFailedError")[0].replace("torch.distributed", "")
    assert not list(Path("runs").glob("*/*"))
