"""What strategies ask of a model: DDP of parameters without a gradient, FSDP and its kin of sharded weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from workbench.errors import UserError
from workbench.lightning_private import ddp_options


def allow_unused_parameters(trainer: Trainer, because: str) -> None:
    """Have DDP find in each step which parameters got no gradient; call it before the model is wrapped.

    UserError, beginning with ``because``, where the strategy of several processes cannot, or says that it must not.
    """
    if not isinstance(trainer.strategy, DDPStrategy):
        found = "" if trainer.world_size == 1 else type(trainer.strategy).__name__
    else:
        options = ddp_options(trainer.strategy)
        found = "static_graph: true" if options.get("static_graph") else ""
        if not options.setdefault("find_unused_parameters", True):
            found = "find_unused_parameters: false"
    if found:
        raise UserError(f"{because}, which trainer.strategy does not allow ({found}).\nSet --trainer.strategy ddp.")


def is_sharded(trainer: Trainer) -> bool:
    """Whether each process holds only a part of the weights."""
    return isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy)


def gather_weights(trainer: Trainer, write: bool = False) -> AbstractContextManager[None]:
    """Within it, entered by every process, a model under FSDP has all its weights; with ``write``, changes persist."""
    if not isinstance(trainer.strategy, FSDPStrategy):
        return nullcontext()
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel.summon_full_params(trainer.strategy.model, writeback=write)
