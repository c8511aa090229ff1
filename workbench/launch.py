"""Which of a run's processes this one is, and what they all have to know before they can talk to each other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from workbench.errors import UserError

INHERITED = "PROJECT_RUN_VERSION"
"""Lightning's ddp starts the other processes by running the same command again: they inherit the folder's name."""
PATIENCE = timedelta(minutes=10)
PARENT = os.getppid()
"""The process that has started this one: it has ended when another number comes."""

_stores: list[Any] = []  # one that is thrown away would close the door on those who come late


@dataclass(frozen=True)
class Launch:
    """How this process was started.

    Attributes:
        rank: Its number among all processes; 0 writes.
        size: How many there are, as far as somebody else has started them.
        job: Names the job for as long as it lives, also when it is started again; None where nobody does that.
        again: Whether it may have been started before.
        inherited: The version of the run, from the process that has started this one.
    """

    rank: int = 0
    size: int = 1
    job: str | None = None
    again: bool = False
    inherited: str | None = None

    def share(self, make: Callable[[], str]) -> str:
        """What the first process makes, on all of them.

        Through the store that torch.distributed itself starts from, so that it works wherever training does.

        Raises:
            UserError: What the first process raises, or that it could not be reached.
        """
        if self.size == 1:
            return make()
        from torch.distributed import rendezvous

        key = f"project/{len(_stores)}"
        try:
            store, _, _ = next(rendezvous("env://", self.rank, self.size, timeout=PATIENCE))
            _stores.append(store)
            if self.rank > 0:
                told = store.get(key).decode()
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"Process {self.rank} of {self.size} does not reach the first one at "
                f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {str(error).splitlines()[0][:200]}\n"
                "MASTER_ADDR and MASTER_PORT must be the same for all, and the port open between the machines."
            ) from error
        if self.rank == 0:
            try:
                told = "+" + make()
            except UserError as error:
                store.set(key, f"-{error}")
                self._wait_for_others(store, key)  # the store ends with this process
                raise
            store.set(key, told)
        if told.startswith("-"):
            store.add(f"{key}/heard", 1)
            raise UserError(told[1:])
        return told[1:]

    def _wait_for_others(self, store: Any, key: str) -> None:
        for _ in range(100):
            if store.add(f"{key}/heard", 0) == self.size - 1:
                return
            time.sleep(0.1)


def meet_anew(rank: int) -> None:
    """Have processes that torchrun has started again meet at a new place.

    Torchrun's store outlives them, with the addresses of those that are gone: those that look before the new ones are
    written wait for a process that does not exist. ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE`` is PyTorch's own way to a new
    store for each start; one machine needs nobody to set it.

    Raises:
        UserError: Several machines are to start again without it.
    """
    found = os.environ
    if found.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or int(found.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
        return
    if int(found.get("GROUP_WORLD_SIZE", "1")) > 1:
        raise UserError(
            "torchrun on several machines tells processes that it starts again the addresses of those that are gone.\n"
            "Give each machine TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun, with --rdzv-backend c10d, or "
            "leave --max-restarts out."
        )
    count = int(found.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if count == 0 or int(found["WORLD_SIZE"]) == 1:
        return
    from torch.distributed import rendezvous

    store, _, _ = next(rendezvous("env://", rank, int(found["WORLD_SIZE"]), timeout=PATIENCE))
    if rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(f"project/restart/{count}", str(free.getsockname()[1]))
    found["MASTER_PORT"] = store.get(f"project/restart/{count}").decode()
    found["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def find_launch(num_nodes: int = 1) -> Launch:
    """Look at what torchrun, SLURM or Lightning have left in the environment.

    Args:
        num_nodes: Number of machines, for Lightning's own way: the same command on each, numbered by NODE_RANK.

    Raises:
        UserError: When SLURM's variables contradict each other, or torchrun could not start processes again.
    """
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        elastic = TorchElasticEnvironment()
        meet_anew(elastic.global_rank())
        job, again = os.environ.get("TORCHELASTIC_RUN_ID", "none"), True
        if job == "none":  # no --rdzv-id: the process that starts the others tells this job from others, for a while
            job, again = f"of {os.getppid()}", int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        return Launch(elastic.global_rank(), elastic.world_size(), f"torchrun {job}", again)
    if SLURMEnvironment.detect():
        try:
            slurm = SLURMEnvironment()
        except RuntimeError as error:
            raise UserError(f"SLURM: {error}") from error
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
        job = None
        if step := os.environ.get("SLURM_STEP_ID"):  # one `srun` of a job, the same one after a requeue
            array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
            job = f"slurm {f'{array}_{task}' if array else os.environ.get('SLURM_JOB_ID')}.{step}"
        again = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        return Launch(slurm.global_rank(), slurm.world_size(), job, again)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local > 0 and (version := os.environ.get(INHERITED)):
        return Launch(rank=local, inherited=version)
    node = int(os.environ.get("NODE_RANK", "0"))
    if num_nodes > 1 and {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return Launch(node, num_nodes)
    return Launch(rank=local)
