"""One run on several processes and machines: which process this is, what does not fit, and which one was lost."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from workbench.checkpoint import AtomicCheckpointIO, first_lines
from workbench.errors import UserError
from workbench.lightning_private import cluster_environment

# Lightning's ddp starts the other processes by running the same command again: they inherit the folder's name.
RUN_VERSION = "WORKBENCH_RUN_VERSION"
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)
PARENT = os.getppid()  # it has ended once `os.getppid()` differs

_stores: list[Any] = []  # keep a reference: destroying the TCPStore breaks late joiners
_CONNECTION = re.compile(r"connection|peer|broken pipe|gloo|nccl|socket", re.IGNORECASE)


@dataclass(frozen=True)
class Launch:
    """How this process was started."""

    rank: int = 0
    size: int = 1  # as far as a launcher other than Lightning started the processes
    job: str | None = None  # identifies the job, also when it is restarted; None where nothing restarts it
    restarted: bool = False  # whether it may have been started before
    inherited: str | None = None  # the run's version, from the process that started this one

    def broadcast(self, make: Callable[[], str]) -> str:
        """What rank 0 makes, or its UserError, on all ranks, before there is a process group: through its store."""
        if self.size == 1:
            return make()
        from torch.distributed import rendezvous

        key = f"workbench/{len(_stores)}"
        try:
            store, _, _ = next(rendezvous("env://", self.rank, self.size, timeout=RENDEZVOUS_TIMEOUT))
            _stores.append(store)
            if self.rank > 0:
                received = store.get(key).decode()
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"Process {self.rank} of {self.size} does not reach the first one at "
                f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {str(error).splitlines()[0][:200]}\n"
                "MASTER_ADDR and MASTER_PORT must be the same for all, and the port open between the machines."
            ) from error
        if self.rank > 0:
            if received.startswith("-"):
                store.add(f"{key}/received", 1)
                raise UserError(received[1:])
            return received[1:]
        try:
            made = make()
        except UserError as error:
            store.set(key, f"-{error}")
            deadline = time.monotonic() + 10  # the store ends with this process
            while store.add(f"{key}/received", 0) < self.size - 1 and time.monotonic() < deadline:
                time.sleep(0.1)
            raise
        store.set(key, f"+{made}")
        return made


def find_launch(num_nodes: int = 1) -> Launch:
    """How torchrun, SLURM or Lightning (the same command on ``num_nodes`` machines) started this process."""
    env = os.environ
    if TorchElasticEnvironment.detect():
        elastic = TorchElasticEnvironment()
        _new_rendezvous(elastic.global_rank())
        job, restarted = env.get("TORCHELASTIC_RUN_ID", "none"), True
        if job == "none":  # no --rdzv-id: torchrun's process tells this job from others, as long as it lives
            job, restarted = f"of {os.getppid()}", int(env.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        return Launch(elastic.global_rank(), elastic.world_size(), f"torchrun {job}", restarted)
    if SLURMEnvironment.detect():
        try:
            slurm = SLURMEnvironment()
        except RuntimeError as error:
            raise UserError(f"SLURM: {error}") from error
        env["MASTER_ADDR"], env["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
        job = None
        if step := env.get("SLURM_STEP_ID"):  # one `srun` of a job, the same one after a requeue
            array, task = (env.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
            job = f"slurm {f'{array}_{task}' if array else env.get('SLURM_JOB_ID')}.{step}"
        return Launch(slurm.global_rank(), slurm.world_size(), job, int(env.get("SLURM_RESTART_COUNT", "0")) > 0)
    local = int(env.get("LOCAL_RANK", "0"))
    if local > 0 and (version := env.get(RUN_VERSION)):
        return Launch(rank=local, inherited=version)
    if num_nodes > 1 and {"MASTER_ADDR", "MASTER_PORT"} <= env.keys():
        return Launch(int(env.get("NODE_RANK", "0")), num_nodes)
    return Launch(rank=local)


def _new_rendezvous(rank: int) -> None:
    """Have processes that torchrun restarted meet at a new port.

    Torchrun's store outlives them, with the addresses of those that are gone: a process that reads them before the new
    ones are written waits for one that does not exist. On several machines only PyTorch's own variable helps.
    """
    env = os.environ
    if env.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or int(env.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
        return
    if int(env.get("GROUP_WORLD_SIZE", "1")) > 1:
        raise UserError(
            "torchrun on several machines gives restarted processes the addresses of those that are gone.\nSet "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on each machine, with --rdzv-backend c10d, or no --max-restarts."
        )
    count = int(env.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if count == 0 or int(env["WORLD_SIZE"]) == 1:
        return
    from torch.distributed import rendezvous

    store, _, _ = next(rendezvous("env://", rank, int(env["WORLD_SIZE"]), timeout=RENDEZVOUS_TIMEOUT))
    if rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(f"workbench/restart/{count}", str(free.getsockname()[1]))
    env["MASTER_PORT"] = store.get(f"workbench/restart/{count}").decode()
    env["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def make_trainer(make: Callable[..., Trainer], section: Mapping[str, Any], **options: Any) -> Trainer:
    """Call ``make(**options)`` to build the trainer, with checkpoints that are written atomically.

    UserError where its ``section`` of the configuration does not fit the machine, the launcher, or itself.
    """
    try:
        trainer = make(**options)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        message = f"The trainer section does not fit this machine or itself: {error}"
        if re.search("accelerator|backend|device|gpu", str(error), re.IGNORECASE):
            keys = ("accelerator", "devices", "num_nodes", "strategy")
            given = ", ".join(f"trainer.{key} {section[key]}" for key in keys if section.get(key) is not None)
            message += f"\nGiven are {given}.\n--trainer.accelerator auto --trainer.devices auto takes what there is."
        raise UserError(message) from error
    if trainer.accumulate_grad_batches < 1:  # Lightning divides by it later
        raise UserError(f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}: it must be at least 1.")
    # Lightning takes bf16-mixed then, with a warning only.
    if trainer.strategy.root_device.type == "cpu" and str(section.get("precision")) in ("16", "16-mixed"):
        raise UserError(
            f"trainer.precision {section['precision']} needs a GPU: a CPU computes nothing in float16.\n"
            "Use --trainer.precision bf16-mixed, or 32."
        )
    environment = cluster_environment(trainer)
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise UserError(  # else it silently waits for the others, for half an hour
            f"trainer.num_nodes is {trainer.num_nodes}, but nothing says where the other machines are.\n"
            "Start the command on each of them by torchrun or srun, as configs/trainer/multi_node.yaml and slurm.yaml "
            "show, or set MASTER_ADDR, MASTER_PORT and NODE_RANK there.\nOn one machine: --trainer.num_nodes 1"
        )
    started = find_launch().size
    if started not in (1, trainer.world_size):  # each would train alone, all in one folder
        raise UserError(
            f"{started} processes were started, but trainer.devices x trainer.num_nodes is {trainer.world_size}.\n"
            "Set --trainer.devices to the processes of a machine, and --trainer.num_nodes to the number of machines."
        )
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    return trainer


# What Lightning's and torch's errors hold -> what a user reads
FAILURES = {
    "in loading state_dict": (
        "{checkpoint}: its weights do not fit this configuration's model:\n{lines}\n"
        "Leave the model as it was trained; without --config the checkpoint's own configuration is used.\n"
        "A new run from the weights that do fit: fit --model.init_args.init_from {checkpoint}"
    ),
    "checkpoint contains only the model": (
        "{checkpoint} holds only weights, as a run's snapshots do: no run can be resumed from it.\n"
        "Resume from last.ckpt in the same folder, or start a new run from these weights:\n"
        "--model.init_args.init_from {checkpoint}"
    ),
    "SyncBatchNorm": (
        "trainer.sync_batchnorm works only on GPUs.\nSet --trainer.sync_batchnorm false: each process then has the "
        "statistics of its own part of the batch."
    ),
    "loaded state dict": (
        "{checkpoint}: its optimizer held other parameters than this configuration's.\nA resumed run keeps what is "
        "trained, and which parts have learning rates of their own: leave them as they were (model.finetune).\n"
        "A new run from its weights: fit --model.init_args.init_from {checkpoint}"
    ),
    "`val_check_interval`": (
        "An epoch has fewer than trainer.val_check_interval, {trainer.val_check_interval}, batches.\n"
        "Set trainer.check_val_every_n_epoch: null to count over epochs, or a smaller interval."
    ),
    "You set `?(--)?(devices|num_nodes|nodes)": (
        "trainer.devices and trainer.num_nodes do not fit what started the processes:\n{error}\n"
        "Set --trainer.devices to the processes of each machine, and --trainer.num_nodes to the machines."
    ),
}


def explain_failure(error: Exception, trainer: Trainer, checkpoint: str | None) -> UserError | None:
    """What went wrong while a trainer ran, given a checkpoint, as a user's mistake; None where it is none."""
    if not isinstance(error, ValueError | KeyError | RuntimeError):
        return None
    for pattern, message in FAILURES.items():
        if re.search(pattern, str(error)):
            lines = first_lines(error)
            return UserError(message.format(checkpoint=checkpoint, trainer=trainer, error=error, lines=lines))
    if isinstance(error, RuntimeError) and trainer.world_size > 1 and _CONNECTION.search(str(error)):
        return UserError(
            f"{_describe_dead_rank(trainer)} has ended, and the others cannot continue without it.\n"
            "Its own message stands above; one that was killed may have run out of memory.\n"
            "--resume latest resumes from the last checkpoint."
        )
    return None


def terminate_children(trainer: Trainer, seconds: float = 20.0) -> None:
    """End the processes that Lightning started from this one; it would kill this one too, before its message."""
    started = getattr(trainer.strategy.launcher, "procs", None)
    if not started:
        return
    others, deadline = list(started), time.monotonic() + seconds
    started.clear()  # Lightning's watchdog looks at this list
    for process in others:
        process.terminate()
    for process in others:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _describe_dead_rank(trainer: Trainer) -> str:
    """Which process has ended: this one only knows that its connection broke."""
    if find_launch().inherited and os.getppid() != PARENT:
        return f"Process 0 of {trainer.world_size}, which started the others,"
    started = getattr(trainer.strategy.launcher, "procs", None) or []
    for _ in range(30 if started else 0):  # the connection may break before the OS has reaped the process
        # One that was killed comes first: others exit because of it.
        ended = [(process.poll() >= 0, rank, process) for rank, process in enumerate(started, 1) if process.poll()]
        if ended:
            _, rank, process = min(ended, key=lambda found: found[:2])
            code = process.returncode
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            return f"Process {rank} of {trainer.world_size} (PID {process.pid}, {how})"
        time.sleep(0.1)
    return f"Process {1 - trainer.global_rank} of 2" if trainer.world_size == 2 else "Another process"
