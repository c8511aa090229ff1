"""One run on several processes and machines: which process this is, what its strategy allows, which one was lost."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from workbench.checkpoint import AtomicCheckpointIO, first_lines
from workbench.errors import UserError
from workbench.lightning_private import cluster_environment, ddp_options

# Lightning's ddp starts the other processes by running the same command again: they inherit the folder's name.
RUN_VERSION = "WORKBENCH_RUN_VERSION"
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)

_stores: list[Any] = []  # keep a reference: destroying the TCPStore breaks late joiners


@dataclass(frozen=True)
class Launch:
    """How this process was started."""

    rank: int = 0
    size: int = 1  # as far as a launcher other than Lightning started the processes
    job: str | None = None  # identifies a job that its launcher restarts; None where nothing does
    inherited: str | None = None  # the run's version, from the process that started this one

    def broadcast(self, make: Callable[[], str]) -> str:
        """What rank 0 makes, on all ranks, before there is a process group: through its store."""
        if self.size == 1:
            return make()
        from torch.distributed import rendezvous

        key = f"workbench/{len(_stores)}"
        try:
            store, _, _ = next(rendezvous("env://", self.rank, self.size, timeout=RENDEZVOUS_TIMEOUT))
            _stores.append(store)
            if self.rank > 0:
                return store.get(key).decode()
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"Process {self.rank} of {self.size} does not reach the first one at "
                f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {str(error).splitlines()[0][:200]}\n"
                "Its own error, if there is one, is the cause. Else MASTER_ADDR and MASTER_PORT must be the same for "
                "all, and the port open between the machines."
            ) from error
        made = make()
        store.set(key, made)
        return made


def find_launch(num_nodes: int = 1) -> Launch:
    """How torchrun, SLURM or Lightning (the same command on ``num_nodes`` machines) started this process."""
    env = os.environ
    if TorchElasticEnvironment.detect():
        restarts = int(env.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
        job = env.get("TORCHELASTIC_RUN_ID", "none")
        if restarts and (env.get("TORCHELASTIC_USE_AGENT_STORE") == "True" or job == "none"):
            # Its shared store would give restarted processes the addresses of those that are gone.
            raise UserError(
                "torchrun --max-restarts needs a store for each start and a name for the job:\n"
                "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, and add --standalone, or --rdzv-id on several machines."
            )
        elastic = TorchElasticEnvironment()
        return Launch(elastic.global_rank(), elastic.world_size(), f"torchrun {job}" if restarts else None)
    if SLURMEnvironment.detect():
        try:
            slurm = SLURMEnvironment()
        except RuntimeError as error:
            raise UserError(f"SLURM: {error}") from error
        env["MASTER_ADDR"], env["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
        step = env.get("SLURM_STEP_ID")  # one `srun` of a job, the same one after a requeue
        job = f"slurm {env.get('SLURM_JOB_ID')}.{step}" if step else None
        return Launch(slurm.global_rank(), slurm.world_size(), job)
    local = int(env.get("LOCAL_RANK", "0"))
    if local > 0 and (version := env.get(RUN_VERSION)):
        return Launch(rank=local, inherited=version)
    if num_nodes > 1 and {"MASTER_ADDR", "MASTER_PORT"} <= env.keys():
        return Launch(int(env.get("NODE_RANK", "0")), num_nodes)
    return Launch(rank=local)


def make_trainer(make: Callable[..., Trainer], section: Mapping[str, Any], **options: Any) -> Trainer:
    """Call ``make(**options)`` to build the trainer, with checkpoints that are written atomically.

    UserError where its ``section`` of the configuration does not fit the machine, the launcher, or itself.
    """
    try:
        trainer = make(**options)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        keys = ("accelerator", "devices", "num_nodes", "strategy")
        given = ", ".join(f"trainer.{key} {section[key]}" for key in keys if section.get(key) is not None)
        raise UserError(
            f"The trainer section does not fit this machine or itself: {error}\nGiven are {given}.\n"
            "--trainer.accelerator auto --trainer.devices auto takes what there is."
        ) from error
    if trainer.accumulate_grad_batches < 1:  # Lightning divides by it later
        raise UserError(f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}: it must be at least 1.")
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


def allow_unused_parameters(trainer: Trainer, because: str) -> None:
    """Have DDP find in each step which parameters got no gradient; called before the model is wrapped. UserError,
    beginning with ``because``, where the strategy of several processes is another."""
    if isinstance(trainer.strategy, DDPStrategy):
        ddp_options(trainer.strategy).setdefault("find_unused_parameters", True)
    elif trainer.world_size > 1:
        name = type(trainer.strategy).__name__
        raise UserError(f"{because}, which {name} does not allow.\nSet --trainer.strategy ddp.")


def is_sharded(trainer: Trainer) -> bool:
    """Whether each process holds only a part of the weights."""
    return isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy)


def gather_weights(trainer: Trainer, write: bool = False) -> AbstractContextManager[None]:
    """Within it, entered by every process, a model under FSDP has all its weights; with ``write``, changes persist."""
    if not isinstance(trainer.strategy, FSDPStrategy):
        return nullcontext()
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel.summon_full_params(trainer.strategy.model, writeback=write)


def explain_failure(error: Exception, trainer: Trainer, checkpoint: str | None) -> UserError | None:
    """What went wrong while a trainer ran, given a checkpoint, as a user's mistake; None where it is none."""
    if not isinstance(error, ValueError | KeyError | RuntimeError):
        return None
    if re.search("in loading state_dict|loaded state dict|checkpoint contains only the model", str(error)):
        return UserError(
            f"{checkpoint}: this run cannot be resumed from it:\n{first_lines(error)}\n"
            "Its weights and its optimizer do not fit: leave model, optimizer and model.finetune as they were, and use "
            "the last.ckpt of a run.\n"
            f"A new run from the weights that do fit: fit --model.init_args.init_from {checkpoint}"
        )
    if re.search("SyncBatchNorm|`val_check_interval`|You set `?(--)?(devices|num_nodes|nodes)", str(error)):
        text = f"The trainer section does not fit this run: {error}"
        return UserError(f"{text}\nSet the keys that it names, as --trainer.KEY VALUE.")
    broken = re.search(r"connection|peer|broken pipe|gloo|nccl|socket", str(error), re.IGNORECASE)
    if isinstance(error, RuntimeError) and trainer.world_size > 1 and broken:
        lost = f"Process {1 - trainer.global_rank} of 2" if trainer.world_size == 2 else "Another process"
        return UserError(
            f"{lost} has ended, and the others cannot continue without it.\n"
            "Its own message stands above; one that was killed may have run out of memory.\n"
            "--resume latest resumes from the last checkpoint."
        )
    return None


def terminate_children(trainer: Trainer, seconds: float = 20.0) -> None:
    """End the processes that Lightning started from this one; it would kill this one too, before its message."""
    started = getattr(trainer.strategy.launcher, "procs", None) or []
    others = list(started)
    started.clear()  # Lightning's watchdog looks at this list
    for process in others:
        process.terminate()
    for process in others:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
