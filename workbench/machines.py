"""The trainer on the machines at hand: what does not fit is said in the user's words, and which process is lost."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from workbench.checkpoint import misfit
from workbench.checkpoint_io import AtomicCheckpointIO
from workbench.errors import UserError
from workbench.launch import PARENT, find_launch
from workbench.lightning_private import cluster_environment

_BROKEN = re.compile(r"connection|peer|broken pipe|gloo|nccl|socket", re.IGNORECASE)
WHERE = ("accelerator", "devices", "num_nodes", "strategy")
AUTO = "--trainer.accelerator auto --trainer.devices auto takes what this machine has."


def make_trainer(make: Callable[..., Trainer], section: Mapping[str, Any], **options: Any) -> Trainer:
    """Build the trainer, with checkpoints that are written whole.

    Args:
        make: Builds it.
        section: Its section of the configuration.
        options: Further arguments of the trainer.

    Raises:
        UserError: When its section of the configuration does not fit the machine, what has started it, or itself.
    """
    try:
        trainer = make(**options)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        message = f"The trainer section does not fit this machine or itself: {error}"
        if re.search("accelerator|backend|device|gpu", str(error), re.IGNORECASE):
            given = ", ".join(f"trainer.{key} {section[key]}" for key in WHERE if section.get(key) is not None)
            message += f"\nGiven are {given}.\n{AUTO}"
        raise UserError(message) from error
    if trainer.accumulate_grad_batches < 1:  # Lightning divides by it later
        raise UserError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}: it must be at least 1, the number "
            "of batches whose gradients are added up."
        )
    device = trainer.strategy.root_device.type
    # Lightning takes bf16-mixed then, and says so where few look.
    if device == "cpu" and str(section.get("precision")) in ("16", "16-mixed"):
        raise UserError(
            f"trainer.precision is {section['precision']}, which wants a GPU: a CPU computes nothing in float16.\n"
            "Use --trainer.precision bf16-mixed, which needs no scaled loss either, or 32."
        )
    environment = cluster_environment(trainer)
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise UserError(  # else it waits for the others, for half an hour, without a word
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


def explain(error: Exception, trainer: Trainer, checkpoint: str | None) -> UserError | None:
    """What went wrong while the trainer ran, in the user's words; None where there is nothing to add.

    Args:
        error: What was raised.
        trainer: By whom.
        checkpoint: The checkpoint that it was told to load.
    """
    text = str(error)
    if isinstance(error, RuntimeError) and "loading state_dict" in text:
        return misfit(checkpoint, error)
    if isinstance(error, KeyError) and "checkpoint contains only the model" in text:
        return UserError(
            f"{checkpoint} holds weights alone, as the snapshots of a run do: no run can go on from it.\n"
            "Go on from last.ckpt in the same folder, or start a new run from these weights:\n"
            f"--model.init_args.init_from {checkpoint}"
        )
    if isinstance(error, ValueError) and "SyncBatchNorm" in text:
        return UserError(
            "trainer.sync_batchnorm works on GPUs alone.\nSet --trainer.sync_batchnorm false: each process then has "
            "the statistics of its own part of the batch."
        )
    if isinstance(error, ValueError) and "loaded state dict" in text:
        return UserError(
            f"{checkpoint}: its optimizer held other parameters than this configuration's.\n"
            "A resumed run keeps what is trained and which parts have rates of their own: in model.finetune leave "
            "freeze_stages, freeze_norms, unfreeze, encoder_rate and stage_decay as they were.\n"
            f"A new run from its weights: fit --model.init_args.init_from {checkpoint}"
        )
    if isinstance(error, ValueError) and "`val_check_interval`" in text:
        return UserError(
            f"An epoch has fewer than trainer.val_check_interval, {trainer.val_check_interval}, batches.\n"
            "Set trainer.check_val_every_n_epoch: null to count over epochs, or a smaller interval."
        )
    if isinstance(error, RuntimeError) and trainer.world_size > 1 and _BROKEN.search(text):
        return UserError(_name_the_lost(trainer))
    if isinstance(error, ValueError) and re.search("You set `?(--)?(devices|num_nodes|nodes)", text):
        return UserError(
            f"trainer.devices and trainer.num_nodes do not fit what has started the processes:\n{text}"
            "\nSet --trainer.devices to the processes of each machine, and --trainer.num_nodes to the machines."
        )
    return None


def end_others(trainer: Trainer, seconds: float = 20.0) -> None:
    """End the processes that Lightning has started from this one, before it ends itself.

    Lightning would kill this process too, in the middle of what it has to say.

    Args:
        trainer: Which has started them.
        seconds: How long they may take.
    """
    started = getattr(trainer.strategy.launcher, "procs", None)
    if not started:
        return
    others = list(started)
    started.clear()  # Lightning's watchman looks at this list
    for process in others:
        process.terminate()
    deadline = time.monotonic() + seconds
    for process in others:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _name_the_lost(trainer: Trainer) -> str:
    """Which process has ended: this one only knows that the connection to it broke."""
    lost = f"Process {1 - trainer.global_rank} of 2" if trainer.world_size == 2 else "Another process"
    if find_launch().inherited and os.getppid() != PARENT:
        lost = f"Process 0 of {trainer.world_size}, which has started the others,"
    started = getattr(trainer.strategy.launcher, "procs", None) or []
    for _ in range(30):  # the connection may break before the system has buried the process
        ended = [(process.poll() >= 0, rank, process) for rank, process in enumerate(started, 1) if process.poll()]
        if ended or not started:
            break
        time.sleep(0.1)
    if started and ended:
        _, rank, process = min(
            ended, key=lambda found: found[:2]
        )  # one that was killed has not ended for another's sake
        how = f"killed by signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        lost = f"Process {rank} of {trainer.world_size} (PID {process.pid}, {how})"
    return (
        f"{lost} has ended, and without it the others cannot go on.\n"
        "What it had to say stands above; one that was killed may have run out of memory.\n"
        "--resume latest goes on from the last checkpoint."
    )
