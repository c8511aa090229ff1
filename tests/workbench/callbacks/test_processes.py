"""Several processes through the real command: gloo on the CPU, launchers, signals, two hosts, sharded weights."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from PIL import Image
from torch import nn
from torchvision.models import get_model

from project.models import FineTuning, GANColorizer, ImageRestorer
from project.networks import PatchGAN, UNet
from tests.workbench.toys import assert_same, gan_section, load, read_column, read_rows, section
from workbench.callbacks.ema import EMA
from workbench.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no signals, and no gloo in every build")
FIT = ["-m", "project", "fit"]
LAST = Path("runs/tiny/latest/checkpoints/last.ckpt")

BACKBONE = "mobilenet_v3_small"
UNET = section("project.networks.UNet", widths=[4, 6], norm="none")
SGD = section("torch.optim.SGD", lr=0.05)
JUDGE = {"norm": "none", "spectral_norm": True}
MODELS = {
    "unet": section("project.models.ImageRestorer", network=UNET, optimizer=SGD),
    "gan": gan_section(UNET, SGD, JUDGE, generator_epochs=1, critic_epochs=1),
}
STEPS = {"unet": 12, "gan": 18}  # of a GAN an epoch of each stage, and four steps more

ENCODER = {"backbone": BACKBONE, "weights": "weights.pth", "stages": 2}
PRETRAINED = section("project.networks.BackboneUNet", **ENCODER, widths=[4, 6, 8], norm="none", residual=True)
TUNING = {"freeze_stages": "all", "freeze_norms": True, "unfreeze": {1: 1, 2: 0}, "encoder_rate": 0.5}
# Eps damps what Adam makes of gradients near 0; a decay that took hold of what is frozen would show.
ADAM = section("torch.optim.AdamW", lr=0.01, eps=0.05, weight_decay=0.1)
DECAYING = section("torch.optim.SGD", lr=0.02, weight_decay=0.1)
L2 = section("torch.nn.MSELoss")  # an L1 loss turns rounding errors into other signs
UNFREEZING = {
    "network": section("project.models.ImageRestorer", network=PRETRAINED, optimizer=ADAM, finetune=TUNING),
    "generator": gan_section(PRETRAINED, DECAYING, JUDGE, reconstruction=L2, finetune=TUNING),
}


@pytest.fixture
def kind() -> str:
    """A denoiser, where a test does not say otherwise."""
    return "unet"


@pytest.fixture
def config(tmp_path: Path, make_images: Callable[..., Path], kind: str) -> Path:
    """Pairs as they are, no noise and no batch norm: N processes do what one does with a batch N times as large."""
    inputs, targets = make_images(30, width=52, height=41), tmp_path / "targets"
    targets.mkdir()
    for number, path in enumerate(sorted(inputs.iterdir())):
        Image.open(path).point(lambda value, number=number: value * 0.8 + number).save(targets / path.name)
    data = {
        "root": str(inputs),
        "target_root": str(targets),
        "fractions": [0.7, 0.17, 0.13],  # 21, 5, 4: some processes have an image more than others
        "crop": 16,
        "batch_size": 12,
        "crops_per_image": 4,  # 84 crops, 7 batches
        "num_workers": 0,
    }
    rhythm = {"check_val_every_n_epoch": None, "val_check_interval": 5, "log_every_n_steps": 1}
    trainer = {"accelerator": "cpu", "max_steps": STEPS.get(kind, 18), **rhythm}
    tree = {"model": {**MODELS, **UNFREEZING}[kind], "data": data, "trainer": trainer}
    tree |= {"gradient_clipping": {"norm": 0.5}, "ema": {"decay": 0.5}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _start(words: list[str], host: str | None = None, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*(["ip", "netns", "exec", host] if host else []), sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen, code: int | None = 0, seconds: float = 300) -> tuple[str, str]:
    try:
        out, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process.pid, *_ranks(process.pid).values())
        out, told = process.communicate()
        raise AssertionError(f"It hangs.\n{out}\n{told}") from None
    assert code is None or process.returncode == code, f"{process.returncode}\n{out}\n{told}"
    return out, told


def _kill(*numbers: int) -> None:
    for number in numbers:
        os.kill(number, signal.SIGKILL)


def _words(config: Path, count: int, *more: str) -> list[str]:
    return ["--config", str(config), "--wandb", "off", "--data.batch_size", str(12 // count), *_machine(count), *more]


def _machine(count: int) -> list[str]:
    strategy = "ddp" if count > 1 else "auto"
    return ["--trainer.accelerator", "cpu", "--trainer.devices", str(count), "--trainer.strategy", strategy]


def _run() -> Path:
    return Path("runs/tiny/latest").resolve()


def _wait_for(found: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 200) -> None:
    """Until `found`, while the process runs that has to bring it about."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.02)


def _only_run(name: str) -> Path:
    (run,) = [path for path in Path("runs", name).iterdir() if not path.is_symlink()]
    return run.resolve()


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
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_train_and_score_as_one(alone, config, count):
    out, _ = _finish(_start([*FIT, *_words(config, count, "--wandb", "offline")]))
    several = _run()
    assert several != alone and len(list(several.parent.glob("*-*"))) == 2, "one folder a run"
    assert len(list(several.glob("wandb/offline-run-*"))) == 1
    assert out.count("Batch:") == 1 and "= 12 samples a step" in out
    assert out.count("Images: 21 train, 5 val, 4 test") == 1

    _assert_close(alone, several)
    _assert_the_same_metrics(alone, several)

    for command in ("validate", "test"):  # the very same weights
        one, other = (_evaluate(command, alone, processes) for processes in (1, count))
        assert other == pytest.approx(one, rel=1e-6) and len([key for key in one if "/" in key]) >= 5


@pytest.mark.parametrize("kind", ["unet", pytest.param("gan", marks=pytest.mark.slow)])
def test_more_processes_than_images(config, kind):
    """One validation image, one test image: the second process has none, and neither hangs nor counts one twice."""
    few = ["--data.fractions", "[0.94, 0.03, 0.03]", "--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]
    out, told = _finish(_start([*FIT, *_words(config, 2, *few)]))
    assert "28 train, 1 val, 1 test" in out
    assert kind == "gan" or "Warning" not in told
    (scored,) = [row for row in read_rows(_run() / "metrics.csv") if row["test/psnr"]]
    again = _evaluate("test", _run(), 1)
    for key in ("test/psnr", "test/ssim", "test/psnr_baseline"):
        assert float(scored[key]) == pytest.approx(again[key], rel=1e-6)


def _evaluate(command: str, run: Path, processes: int) -> dict[str, float]:
    words = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--wandb", "off", *_machine(processes)]
    _finish(_start(["-m", "project", command, *words]))
    row = read_rows(max(run.parent.glob(f"*-{command}*")) / "metrics.csv")[-1]
    return {key: float(value) for key, value in row.items()}


def _assert_close(one: Path, other: Path, atol: float = 1e-5) -> None:
    """What is trained, and its average."""
    for key in ("current_model_state", "state_dict"):
        states = [load(run).get(key, {}) for run in (one, other)]
        assert states[0].keys() == states[1].keys()
        for name, value in states[0].items():
            torch.testing.assert_close(states[1][name], value, rtol=0, atol=atol, msg=name)


def _assert_the_same_metrics(alone: Path, several: Path) -> None:
    """Gradients, scores and findings of several processes are those of all together, logged once."""
    rows = [read_rows(run / "metrics.csv") for run in (alone, several)]
    assert [(row["step"], row["epoch"]) for row in rows[0]] == [(row["step"], row["epoch"]) for row in rows[1]]
    compared = 0
    for one, other in zip(*rows, strict=True):
        for key in one:
            # A process logs its own loss, and what it looks at are its own part of the validation images.
            if key.startswith(("grad/", "val/", "test/", "update/")) and one[key]:
                assert float(other[key]) == pytest.approx(float(one[key]), rel=1e-3, abs=1e-5), key
                compared += 1
    assert compared > 50
    for name in ("findings.jsonl", "measurements.csv"):
        files = list(several.rglob(name))
        assert files == [several / name]
    lines = (several / "findings.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines))
    tables = []
    for run in (alone, several):
        found = [row for row in read_rows(run / "measurements.csv") if row["measure"] in ("gradient", "update")]
        tables.append({(row["step"], row["measure"], row["layer"]): float(row["value"]) for row in found})
        assert len(tables[-1]) == len(found) > 0, "each row once"
    assert tables[1] == pytest.approx(tables[0], rel=1e-3, abs=1e-6)


LAUNCHERS = ("lightning", "torchrun")


def _launched(launcher: str, words: list[str]) -> subprocess.Popen:
    """Two processes."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(_free_port())]
    return _start([*(torchrun if launcher == "torchrun" else []), *words])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "launcher", "workers"),
    [("unet", "lightning", 2), ("unet", "torchrun", 0), ("gan", "lightning", 0), ("gan", "torchrun", 2)],
)
def test_two_killed_processes_end_as_two_uninterrupted_ones(config, kind, launcher, workers):
    noise = ["--data.target_root", "null", "--data.pairs", "project.data.pairs.GaussianNoise"]
    words = _words(config, 2, *noise, "--checkpoint.every_n_steps", "3", "--data.num_workers", str(workers))
    _finish(_launched(launcher, [*FIT, *words]))
    uninterrupted = _run()
    process = _launched(launcher, [*FIT, *words, "--name", "killed", "--trainer.max_steps", "2000"])
    last = Path("runs/killed/latest/checkpoints/last.ckpt")
    _wait_for(last.is_file, process)
    _kill(process.pid, *_ranks(process.pid).values())  # torchrun's are in sessions of their own
    process.communicate()
    # However far it came: the beginning is the same, and it is a shorter run from here on.
    step = torch.load(last, weights_only=True)["global_step"]
    assert step < STEPS[kind], "the machine is too fast for this test"
    longer = ["--trainer.max_steps", str(STEPS[kind])]
    _finish(_launched(launcher, [*FIT, "--name", "killed", "--resume", "latest", *longer]))
    assert_same(uninterrupted, _only_run("killed"))


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "rank"), [("lightning", 0), ("lightning", 1), ("torchrun", 1)])
def test_a_lost_process_ends_the_others_and_is_named(config, launcher, rank):
    process = _launched(launcher, [*FIT, *_words(config, 2, "--trainer.max_steps", "5000")])
    _wait_for(LAST.is_file, process)
    ranks = _ranks(process.pid) if launcher == "torchrun" else {0: process.pid, **_ranks(process.pid)}
    _kill(ranks[rank])
    _, told = _finish(process, code=None, seconds=60)
    assert process.returncode != 0
    for other in set(ranks.values()) - {ranks[rank]}:
        _wait_for(lambda other=other: not Path(f"/proc/{other}").exists(), seconds=60)
    assert re.search(rf"rank\s*:\s*{rank} |Process {rank} of 2", told), told


@pytest.mark.slow
def test_torchrun_restarts_lost_processes_from_the_lastload(config):
    words = _words(config, 2, "--checkpoint.every_n_steps", "2", "--trainer.max_steps", "60")
    _finish(_start([*FIT, *words]))
    uninterrupted = _run()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    process = _start([*torchrun, *FIT, *words, "--name", "again"], TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    _wait_for(Path("runs/again/latest/checkpoints/previous.ckpt").is_file, process)
    os.kill(_ranks(process.pid)[1], signal.SIGKILL)
    _finish(process)
    assert_same(uninterrupted, _only_run("again"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_all_processes_in_the_same_place(config, launcher, number, code):
    process = _launched(launcher, [*FIT, *_words(config, 2, "--trainer.max_steps", "5000", "--data.num_workers", "1")])
    _wait_for(LAST.is_file, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it
    else:
        process.send_signal(number)
    _, told = _finish(process, code=code if launcher == "lightning" else None, seconds=60)
    run = _run()
    assert told.count(f"Resume with: python -m project fit --name tiny --resume {run.name}") == 1, told
    step = load(run)["global_step"]
    _finish(_start([*FIT, "--name", "tiny", "--resume", "latest", "--trainer.max_steps", str(step + 2)]))
    assert len(read_column(run, "train/loss")) == step + 2


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
        port = {"MASTER_PORT": str(_free_port()), "SLURM_RESTART_COUNT": str(restarts)}
        ranks = [{"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
        return [_start([*words, *more], **rank, **port, **job) for rank in ranks]

    first = tasks(0)
    _wait_for(LAST.is_file, first[0])
    for process in first:
        os.killpg(process.pid, signal.SIGUSR1)
    told = [_finish(process, seconds=60)[1] for process in first]
    assert (tmp_path / "asked").read_text() == f"requeue {job['SLURM_JOB_ID']}\n"
    assert "The job is requeued and resumes by itself" in told[0]
    run = _run()
    assert not list(run.glob("hpc_ckpt*")), "one checkpoint is enough"
    step = load(run)["global_step"]
    for process in tasks(1, "--trainer.max_steps", str(step + 2)):
        _finish(process)
    assert _only_run("tiny") == run and load(run)["global_step"] == step + 2


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
            made = made and all(_ip("-n", name, "link", "set", device, "up") for device in ("cable0", "lo"))
        if not made:
            pytest.skip("making network namespaces takes more rights than there are")
        yield names
    finally:
        for name in names:
            _ip("netns", "del", name)


def _on_hosts(hosts: tuple[str, str], launcher: str, words: list[str]) -> list[subprocess.Popen]:
    """The command that is given on each of the two machines."""
    words = [*FIT, *words, "--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
    started = []
    for number, host in enumerate(hosts):
        launch, environment = [], {"GLOO_SOCKET_IFNAME": "cable0"}
        if launcher == "torchrun":
            launch = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
            launch += ["--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}", "--rdzv-id", "job"]
            # By name torchrun would not find out which of the two it is on: both have this machine's.
            launch += ["--local-addr", ADDRESSES[number], "--rdzv-conf", f"is_host={number == 0}"]
        else:
            environment |= {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": PORT, "NODE_RANK": str(number)}
        started.append(_start([*launch, *words], host, **environment))
    return started


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_hosts_train_as_one(hosts, alone, config, launcher):
    words = ["--config", str(config), "--wandb", "off", "--data.batch_size", "6", "--name", "hosts"]
    started = _on_hosts(hosts, launcher, words)
    (out, _), _ = (_finish(process) for process in started)
    assert "6 x 2 processes = 12 samples a step" in out
    several = _only_run("hosts")
    _assert_close(alone, several)
    _assert_the_same_metrics(alone, several)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_host_that_is_lost_ends_the_other_one(hosts, config, launcher):
    words = ["--config", str(config), "--wandb", "off", "--name", "hosts", "--trainer.max_steps", "5000"]
    started = _on_hosts(hosts, launcher, words)
    _wait_for(Path("runs/hosts/latest/checkpoints/last.ckpt").is_file, started[0])
    lost = subprocess.run(["ip", "netns", "pids", hosts[1]], capture_output=True, text=True).stdout.split()
    _kill(*map(int, lost))
    _, told = _finish(started[0], code=None, seconds=60)
    assert started[0].returncode != 0 and lost
    assert "Process 1 of 2 has ended" in told, told
    assert "--resume latest" in told, told


ON_THE_CPU = '''
import torch
import torch.distributed.fsdp.fully_sharded_data_parallel as fsdp
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp._common_utils import _FSDPDeviceHandle


class OnTheCPU(FSDPStrategy):
    """PyTorch's FSDP, without its refusal to work on the CPU."""

    root_device = torch.device("cpu")


def _handle(state, *_):
    state._device_handle = _FSDPDeviceHandle(torch.device("cpu"), torch.cpu)
    return state


fsdp._init_device_handle = _handle
'''


@pytest.mark.slow
def test_sharded_weights_train_and_test_as_one_process_does(tmp_path, config):
    """FSDP on two processes; a CPU stands in for each GPU."""
    (tmp_path / "on_the_cpu.py").write_text(ON_THE_CPU)
    path = {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)])}
    plain = ["--ema.decay", "0", "--gradient_clipping.norm", "null", "--trainer.max_steps", "8"]
    words = ["--config", str(config), "--wandb", "off", *plain]
    words += ["--model.init_args.optimizer.init_args.momentum", "0.9"]
    sharded = ["--trainer.devices", "2", "--data.batch_size", "6"]
    sharded += ["--trainer.strategy.class_path", "on_the_cpu.OnTheCPU"]
    _finish(_start([*FIT, *words, "--name", "one"]))
    out, _ = _finish(_start([*FIT, *words, "--name", "two", *sharded], **path))
    one, two = Path("runs/one/latest"), Path("runs/two/latest")
    assert "two after 8 steps (last validation)" in out
    _assert_close(one, two)
    assert (two / "samples" / "latest.png").stat().st_size > 1000
    (line,) = [line for line in out.splitlines() if line.startswith("Test ")]
    tested, _ = _finish(_start(["-m", "project", *line.split("-m project ")[1].split(), "--wandb", "off"], **path))
    assert "PSNR" in tested
    start = ["--model.init_args.init_from", str(two / "checkpoints" / "last.ckpt"), "--trainer.max_steps", "1"]
    start += ["--model.optimizer.init_args.lr", "1e-9"]
    _finish(_start([*FIT, *words, "--name", "three", *sharded, *start], **path))
    _assert_close(two, Path("runs/three/latest"), atol=1e-6)


def gan() -> GANColorizer:
    return GANColorizer(UNet(widths=[4, 6]), PatchGAN(in_channels=4, width=4, layers=2), space="rgb")


def test_what_needs_all_weights_says_so():
    trainer = SimpleNamespace(strategy=FSDPStrategy(), datamodule=None)
    with pytest.raises(UserError, match=r"FSDPStrategy gives each process a part.\n.*--ema.decay 0"):
        EMA().on_train_start(trainer, nn.Linear(1, 1))
    model = gan()
    model._trainer = trainer
    with pytest.raises(UserError, match=r"GAN steps several.*\n.*configs/trainer/ddp.yaml"):
        model.setup("fit")


def restorer(unfreeze: dict[int, int]) -> ImageRestorer:
    return ImageRestorer(UNet(widths=[4, 6]), finetune=FineTuning(1, unfreeze=unfreeze))


@pytest.mark.parametrize(("model", "unused"), [(gan(), True), (restorer({}), False), (restorer({1: 0}), True)])
def test_models_whose_parameters_rest_ask_for_it(model, unused):
    strategy = DDPStrategy()
    model._trainer = SimpleNamespace(strategy=strategy, datamodule=None, world_size=2, state=SimpleNamespace(fn="fit"))
    model.setup("fit")
    assert strategy._ddp_kwargs.get("find_unused_parameters", False) is unused


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNFREEZING)
def test_two_processes_unfreeze_as_one(config, kind):
    """Runs stop right before something learns, between the two epochs of unfreezing, and after both."""
    torch.manual_seed(3)
    before = get_model(BACKBONE, weights=None).state_dict()
    torch.save(before, "weights.pth")
    _finish(_start([*FIT, *_words(config, 1, "--name", "alone")]))
    prefix = f"{kind}.encoder."

    def train_on(steps: int, *words: str) -> dict[str, torch.Tensor]:
        """In two processes; returns the encoder's weights."""
        _finish(_start([*FIT, *words, "--name", "two", "--trainer.max_steps", str(steps)]))
        state = load(_only_run("two"))["current_model_state"]
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    encoder = train_on(7, *_words(config, 2))
    assert len(encoder) > 20 and all(torch.equal(value, before[name]) for name, value in encoder.items())

    resume = ["--resume", "latest"]
    changed = {name for name, value in train_on(10, *resume).items() if not torch.equal(value, before[name])}
    norms = {name.rpartition(".")[0] for name in before if name.endswith("running_mean")}
    assert changed and not any(name.rpartition(".")[0] in norms for name in changed)
    assert not any(name.startswith("features.0.") for name in changed), "the first stage learns later"

    encoder = train_on(18, *resume)
    first = [name for name in encoder if name.startswith("features.0.0.")]
    assert [name for name in first if not torch.equal(encoder[name], before[name])] == ["features.0.0.weight"]
    _assert_close(_only_run("alone"), _only_run("two"))
