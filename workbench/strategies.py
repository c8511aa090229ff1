"""What strategies ask of a model: DDP of parameters without a gradient, FSDP and its kin of sharded weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from workbench.errors import UserError
from workbench.lightning_private import ddp_options


def allow_unused_parameters(trainer: Trainer, because: str) -> None:
    """Have DDP find in each step which parameters got no gradient; call it before the model is wrapped.

    UserError, beginning with ``because``, where the strategy says that every parameter gets one.
    """
    if not isinstance(trainer.strategy, DDPStrategy):
        return
    options = ddp_options(trainer.strategy)
    if not options.setdefault("find_unused_parameters", True) or options.get("static_graph"):
        key = "static_graph: true" if options.get("static_graph") else "find_unused_parameters: false"
        raise UserError(
            f"{because}, but trainer.strategy has {key}.\n"
            "Set --trainer.strategy ddp, or the opposite in the strategy's init_args."
        )


def allow_unfreezing(trainer: Trainer) -> None:
    """The same for parameters that are trained only from a later epoch on."""
    if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
        raise UserError(
            f"model.finetune.unfreeze does not work under {type(trainer.strategy).__name__}, where each process holds "
            "a part of the parameters.\nSet --trainer.strategy ddp, or unfreeze to {} and start a second run with less "
            "frozen from the first one's weights: --model.init_args.init_from"
        )
    allow_unused_parameters(trainer, "What model.finetune.unfreeze names gets no gradient until its epoch")


def is_sharded(trainer: Trainer) -> bool:
    """Whether each process holds only a part of the weights."""
    return isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy)


def gather_weights(trainer: Trainer, write: bool = False) -> AbstractContextManager[None]:
    """Within this context, which every process enters, the model has all its weights under FSDP.

    With ``write``, changes made within it persist.
    """
    if not isinstance(trainer.strategy, FSDPStrategy):
        return nullcontext()
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel.summon_full_params(trainer.strategy.model, writeback=write)
