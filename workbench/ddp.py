"""Parameters that rest in some steps: several processes, which share all gradients, have to expect it."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from workbench.errors import UserError
from workbench.lightning_private import ddp_options


def allow_unused_parameters(trainer: Trainer, because: str) -> None:
    """Have DistributedDataParallel look in each step which parameters rest; call it before the model is wrapped.

    Otherwise it waits for their gradients. What the strategy was told on purpose is left as it is, and refused.

    Args:
        trainer: Whose strategy it is; strategies of other kinds are left alone.
        because: What rests, for messages.

    Raises:
        UserError: The strategy says that nothing rests.
    """
    if not isinstance(trainer.strategy, DDPStrategy):
        return
    options = ddp_options(trainer.strategy)
    if not options.setdefault("find_unused_parameters", True) or options.get("static_graph"):
        key = "static_graph: true" if options.get("static_graph") else "find_unused_parameters: false"
        raise UserError(
            f"{because}, and trainer.strategy says that nothing does ({key}).\n"
            "Set --trainer.strategy ddp, or the opposite in the strategy's init_args."
        )


def allow_unfreezing(trainer: Trainer) -> None:
    """The same for parameters that learn from a later epoch on.

    Raises:
        UserError: The strategy says that nothing rests, or cannot have it.
    """
    if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
        raise UserError(
            f"model.finetune.unfreeze does not work under {type(trainer.strategy).__name__}, where each process holds "
            "a part of the parameters.\nSet --trainer.strategy ddp, or unfreeze to {} and start a second run with less "
            "frozen from the first one's weights: --model.init_args.init_from"
        )
    allow_unused_parameters(trainer, "What model.finetune.unfreeze names rests until its epoch")
