"""Lets DistributedDataParallel handle parameters that get no gradient in some steps."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from workbench.errors import UserError
from workbench.lightning_private import ddp_options


def allow_unused_parameters(trainer: Trainer, because: str) -> None:
    """Have DDP find in each step which parameters got no gradient; call it before the model is wrapped.

    Otherwise it waits for them. Strategies of other kinds are left alone.

    Raises:
        UserError: The strategy says that every parameter gets a gradient; ``because`` begins the message.
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
    """The same for parameters that are trained only from a later epoch on.

    Raises:
        UserError: The strategy does not allow it.
    """
    if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
        raise UserError(
            f"model.finetune.unfreeze does not work under {type(trainer.strategy).__name__}, where each process holds "
            "a part of the parameters.\nSet --trainer.strategy ddp, or unfreeze to {} and start a second run with less "
            "frozen from the first one's weights: --model.init_args.init_from"
        )
    allow_unused_parameters(trainer, "What model.finetune.unfreeze names gets no gradient until its epoch")
