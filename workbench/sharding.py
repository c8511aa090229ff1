"""Weights that several processes share out among them, put together for a moment."""

from __future__ import annotations

import contextlib

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


def is_sharded(trainer: Trainer) -> bool:
    """Whether each process holds only a part of the weights."""
    return isinstance(trainer.strategy, SHARDED)


def gather_weights(trainer: Trainer, write: bool = False) -> contextlib.AbstractContextManager[None]:
    """Within this context the model has all its weights, wherever it is called; every process has to enter it.

    Under DeepSpeed and Lightning's ModelParallelStrategy, for which no configuration is shipped, it does nothing.

    Args:
        trainer: Whose strategy has the weights.
        write: Whether what is changed within it stays.
    """
    if not isinstance(trainer.strategy, FSDPStrategy):
        return contextlib.nullcontext()
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel.summon_full_params(trainer.strategy.model, writeback=write)
