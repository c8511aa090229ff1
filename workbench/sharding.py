"""Gathers weights that are sharded over processes, temporarily."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy


def is_sharded(trainer: Trainer) -> bool:
    """Whether each process holds only a part of the weights."""
    return isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy)


def gather_weights(trainer: Trainer, write: bool = False) -> AbstractContextManager[None]:
    """Within this context the model has all its weights under FSDP; every process has to enter it.

    With ``write``, changes made within it persist.
    """
    if not isinstance(trainer.strategy, FSDPStrategy):
        return nullcontext()
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel.summon_full_params(trainer.strategy.model, writeback=write)
