"""How large a step's batch really is, where several processes or accumulated batches make it larger."""

from __future__ import annotations

import math

from lightning.pytorch import Callback, LightningModule, Trainer

from project.data.loader import TrainingSampler
from workbench.errors import UserError


class EffectiveBatch(Callback):
    """Prints, as training starts, the effective batch and the learning rate, and what changed against one device.

    Nothing is scaled by itself: the configuration means what it says.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse an epoch that does not hold a batch for each process; print the rest."""
        batch, processes = getattr(trainer.datamodule, "batch_size", None), trainer.world_size
        if batch is None or processes * trainer.accumulate_grad_batches == 1:
            return
        sampler = getattr(trainer.train_dataloader, "sampler", None)
        if processes > 1 and isinstance(sampler, TrainingSampler):
            check_epoch(sampler.length, sampler.repeats, batch, processes)
        if trainer.is_global_zero:
            rates = {group.get("initial_lr", group["lr"]) for o in trainer.optimizers for group in o.param_groups}
            accumulated, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
            print(describe(batch, processes, accumulated, batches, sorted(rates)))


def check_epoch(pictures: int, repeats: int, batch: int, processes: int) -> None:
    """Check that each process has a batch in an epoch.

    Args:
        images: Of the training split.
        repeats: Crops of each in an epoch.
        batch: Crops of one process's batch.
        processes: Their number.

    Raises:
        UserError: When there are fewer crops than that.
    """
    crops, needed = pictures * repeats, batch * processes
    if crops < needed:
        raise UserError(
            f"An epoch has {crops} crops, less than one batch for each of the {processes} processes: "
            f"{processes} x {batch} = {needed}.\n"
            f"Use --data.batch_size {max(1, crops // processes)}, or draw each image more often: "
            f"--data.crops_per_image {math.ceil(needed / pictures)}."
        )


def describe(batch: int, processes: int, accumulated: int, batches: float, rates: list[float]) -> str:
    """The lines that are printed.

    Args:
        batch: Images of one process's batch.
        processes: Their number.
        accumulated: Batches between two steps of the optimizer.
        batches: Of one process in an epoch; may be infinite.
        rates: The learning rates.
    """
    factor = processes * accumulated
    text = f"Batch: {batch}"
    text += f" x {processes} processes" if processes > 1 else ""
    text += f" x {accumulated} accumulated" if accumulated > 1 else ""
    text += f" = {batch * factor} images a step, {factor} times those of one device"
    if math.isfinite(batches):
        text += f"; {math.ceil(batches / accumulated)} steps an epoch instead of about {batches * processes}"
    rate = ", ".join(f"{rate:g}" for rate in rates)
    scaled = ", ".join(f"{rate * factor:g}" for rate in rates)
    return (
        f"{text}.\nLearning rate: {rate}, as configured, not scaled; the linear rule would say {scaled}, "
        f"the square-root rule {', '.join(f'{rate * math.sqrt(factor):.3g}' for rate in rates)}."
    )
