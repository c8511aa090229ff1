"""Networks that learn in turns: an optimizer and a scheduler each, stepped by hand, and one global step a batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torchmetrics import Metric

from project.models.base import ImageToImageModule
from project.models.finetuning import FineTuning, parameter_groups
from project.models.optimization import Schedule, configure_scheduler, make_optimizer, step_schedules
from workbench.ddp import allow_unused_parameters
from workbench.errors import UserError


class AlternatingModel(ImageToImageModule):
    """A model of several networks, which its ``training_step`` improves in turns through ``descend``.

    Of the turns in a batch exactly one must count: then ``max_steps``, checkpoints, averages and loggers, which go by
    ``global_step``, see one step a batch, as they do with a single network. At its end call ``end_batch``.

    Args:
        optimizers: Name of each network, an attribute of the model, and what makes its optimizer. Networks that are
            None have none.
        schedulers: Name and what makes the network's scheduler, or None.
        options: What :class:`ImageToImageModule` takes.
    """

    def __init__(
        self,
        optimizers: dict[str, OptimizerCallable],
        schedulers: dict[str, LRSchedulerCallable | None],
        metrics: dict[str, Metric],
        **options: Any,
    ) -> None:
        super().__init__(metrics, **options)
        self.automatic_optimization = False
        self.make_optimizers = optimizers
        self.make_schedulers = schedulers
        self._schedules: list[Schedule] = []

    def configure_callbacks(self) -> list[Callback]:
        """None; but the first that Lightning asks for, before it refuses these two with a trace.

        Raises:
            UserError: For what the Trainer does to gradients only where it steps itself.
        """
        trainer, name = self.trainer, type(self).__name__
        if trainer.state.fn != "fit":
            return []
        if trainer.gradient_clip_val:
            raise UserError(
                f"trainer.gradient_clip_val does nothing for {name}, which steps its networks itself: leave it out.\n"
                "The callback GradientClipping clips, by norm or value, each network by itself if you like."
            )
        if trainer.accumulate_grad_batches != 1:
            raise UserError(
                f"trainer.accumulate_grad_batches does nothing for {name}, which steps its networks itself: leave it "
                "out.\nFor larger batches set data.batch_size."
            )
        return []

    def setup(self, stage: str) -> None:
        """Tell several processes, before training, that networks rest.

        Raises:
            UserError: What :func:`workbench.ddp.allow_unused_parameters` raises.
        """
        super().setup(stage)
        if stage == "fit" and len(self.trained) > 1:
            allow_unused_parameters(self.trainer, f"In each step of {type(self).__name__} one of its networks rests")

    @property
    def trained(self) -> list[str]:
        """The names of the networks that have an optimizer, in its order."""
        return [name for name in self.make_optimizers if getattr(self, name) is not None]

    def descend(self, name: str, loss: Tensor, counts: bool) -> None:
        """Improve one network: its gradients of the loss, and a step of its optimizer.

        Args:
            name: Of the network.
            loss: A scalar, float32.
            counts: Whether this step is the batch's global step.
        """
        optimizer = self._optimizer(name)
        optimizer.zero_grad()
        self.manual_backward(loss)
        if counts:
            optimizer.step()
        else:
            # What LightningOptimizer.step does, scaling and hooks included, but for the counting.
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)

    def _optimizer(self, name: str) -> LightningOptimizer:
        found = self.optimizers()
        return found[self.trained.index(name)] if isinstance(found, list) else found

    def end_batch(self, batch_idx: int, values: dict[str, Tensor]) -> None:
        """Log, and step the schedulers that are due: Lightning steps none where a model optimizes by hand.

        Args:
            batch_idx: Of the batch in its epoch.
            values: Name -> scalar, logged as ``train/NAME`` in the batches that Lightning writes to the log, and in the
                last of an epoch and of the run; taking six values was a fifth of the time of a very small step.
        """
        trainer = self.trainer
        step = trainer.global_step
        ends = trainer.is_last_batch or batch_idx + 1 == trainer.num_training_batches
        if ends or step == trainer.max_steps or (trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0):
            self.log_dict({f"train/{name}": value for name, value in values.items()})
        step_schedules(self._schedules, "step", step)
        if ends:
            step_schedules(self._schedules, "epoch", trainer.current_epoch + 1)

    def configure_optimizers(self) -> list[dict[str, Any]]:
        """For each network the optimizer over its trainable parameters, and its scheduler."""
        # Schedulers follow the run, so that one may step before the network that waits for its turn has.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
        self._schedules = []
        return [self._configure(name) for name in self.trained]

    def _configure(self, name: str) -> dict[str, Any]:
        tuning = self.finetune if name == self.tuned else FineTuning()
        parameters = parameter_groups(getattr(self, name), tuning)
        optimizer = make_optimizer(f"{name}_optimizer", self.make_optimizers[name], parameters)
        make = self.make_schedulers[name]
        if make is None:
            return {"optimizer": optimizer}
        watched = (self.monitor, self.higher_is_better())
        key = f"{name}_scheduler"
        schedule = Schedule.of(
            configure_scheduler(make, optimizer, self.trainer, self.schedule_every, *watched, key=key)
        )
        self._schedules.append(schedule)
        # Lightning keeps and saves it, and logs the rate under this name.
        kept = {"scheduler": schedule.scheduler, "interval": schedule.interval, "name": f"lr-{name}"}
        return {"optimizer": optimizer, "lr_scheduler": kept}

    def schedules(self) -> list[Schedule]:
        """The run's schedulers, which this model steps itself."""
        return self._schedules


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within it gradients pass through the network, but none are computed for its weights."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
