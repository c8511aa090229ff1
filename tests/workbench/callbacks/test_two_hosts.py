"""Two machines, as two network namespaces of this one: a process on each, over a cable between them."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

ADDRESSES = ("10.231.7.1", "10.231.7.2")
PORT = "29531"


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """The names of two namespaces that reach each other, and nothing else."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("network namespaces are Linux's")
    names = (f"host{os.getpid()}a", f"host{os.getpid()}b")
    try:
        made = all(_ip("netns", "add", name) for name in names)
        cable = (f"c{os.getpid()}a", f"c{os.getpid()}b")
        made = made and _ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for name, end, address in zip(names, cable, ADDRESSES, strict=True):
            made = made and _ip("link", "set", end, "netns", name, "name", "cable0")
            made = made and _ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable0")
            made = (
                made and _ip("-n", name, "link", "set", "cable0", "up") and _ip("-n", name, "link", "set", "lo", "up")
            )
        if not made:
            pytest.skip("making network namespaces takes more rights than there are")
        yield names
    finally:
        for name in names:
            _ip("netns", "del", name)


@pytest.fixture
def words(tmp_path: Path, make_images: Callable[..., Path]) -> list[str]:
    """A run of pairs as they are, whose two processes do what one does with the whole batch."""
    pictures = str(make_images(20, width=52, height=41))
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "none"}}
    model = {"network": network, "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}}
    data = {"root": pictures, "target_root": pictures, "crop": 16, "crops_per_image": 4, "num_workers": 0}
    trainer = {"accelerator": "cpu", "max_steps": 9, "check_val_every_n_epoch": None, "val_check_interval": 4}
    trainer["log_every_n_steps"] = 1
    config = {"data": data, "trainer": trainer}
    config["model"] = {"class_path": "project.models.ImageRestorer", "init_args": model}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    return ["-m", "project", "fit", "--config", "tiny.yaml", "--wandb", "off"]


TWO = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--data.batch_size", "4"]
TWO += ["--trainer.strategy", "ddp"]


def _start(hosts: tuple[str, str], number: int, launcher: str, words: list[str]) -> subprocess.Popen:
    """The command that is given on one of the two machines."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable0"}
    launch: list[str] = []
    if launcher == "torchrun":
        launch = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
        launch += ["--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}", "--rdzv-id", "job", "--local-addr", ADDRESSES[number]]
        # By name torchrun would not find out which of the two it is on: both have this machine's.
        launch += ["--rdzv-conf", f"is_host={number == 0}"]
    else:
        environment |= {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": PORT, "NODE_RANK": str(number)}
    return subprocess.Popen(
        ["ip", "netns", "exec", hosts[number], sys.executable, *launch, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen, seconds: float) -> tuple[str, str]:
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"It hangs: {process.communicate()}") from None


def _run(name: str) -> Path:
    return Path("runs", name, "latest").resolve()


def _scores(run: Path) -> list[list[str]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [[row["step"], row[key]] for key in ("val/psnr", "test/psnr") for row in rows if row[key]]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "lightning"])
def test_two_hosts_train_as_one(hosts, words, launcher):
    alone = [sys.executable, *words, "--name", "alone", "--data.batch_size", "8"]
    subprocess.run(alone, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=300, capture_output=True)
    started = [_start(hosts, number, launcher, [*words, *TWO, "--name", "hosts"]) for number in (1, 0)]
    (_, second), (out, first) = (_finish(process, 300) for process in started)
    assert [process.returncode for process in started] == [0, 0], first + second
    assert "4 x 2 processes = 8 images a step" in out
    folders = [path for path in Path("runs/hosts").iterdir() if not path.is_symlink()]
    assert len(folders) == 1, "one folder for both"
    states = [
        torch.load(_run(name) / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"]
        for name in ("alone", "hosts")
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=1e-5)
    one, both = _scores(_run("alone")), _scores(_run("hosts"))
    assert [step for step, _ in one] == [step for step, _ in both] and len(one) >= 3
    assert [float(value) for _, value in both] == pytest.approx([float(value) for _, value in one], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "lightning"])
def test_a_host_that_is_lost_ends_the_other_one(hosts, words, launcher):
    long = [*words, *TWO, "--name", "hosts", "--trainer.max_steps", "5000"]
    started = [_start(hosts, number, launcher, long) for number in (0, 1)]
    last = Path("runs/hosts/latest/checkpoints/last.ckpt")
    while not last.is_file():
        for process in started:
            assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    there = subprocess.run(["ip", "netns", "pids", hosts[1]], capture_output=True, text=True).stdout.split()
    for process_id in there:
        os.kill(int(process_id), signal.SIGKILL)
    _, told = _finish(started[0], 60)
    assert started[0].returncode != 0 and there
    assert "Process 1 of 2 has ended" in told, told
    assert "--resume latest resumes from the last checkpoint" in told, told
