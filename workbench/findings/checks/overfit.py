"""A short trial: a copy of the model learns a handful of images by heart, with nothing to hold it back."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader

from project.data.batch import Batch
from workbench.callbacks.clipping import GradientClipping

FOREVER = 10**9
"""An epoch that never comes."""
EVERY = 10


@dataclass
class Trial:
    """How it went.

    Attributes:
        errors: What was measured at the start and every few steps; the less the better.
        steps: Steps that were done.
        problem: The error that ended it; empty where none did.
    """

    errors: list[float]
    steps: int
    problem: str = ""

    @property
    def last(self) -> float:
        return self.errors[-1] if self.errors else float("nan")

    @property
    def best(self) -> float:
        finite = [error for error in self.errors if error == error]
        return min(finite, default=float("nan"))


class _Watch(Callback):
    """Measures the error, and ends the trial when it is small enough or the time is up."""

    def __init__(self, measure: Callable[[LightningModule], float], enough: float, seconds: float) -> None:
        self.measure = measure
        self.enough = enough
        self.seconds = seconds
        self.errors: list[float] = []
        self.deadline = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.deadline = time.monotonic() + self.seconds
        self._measure(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step % EVERY == 0 or trainer.global_step == trainer.max_steps:
            self._measure(pl_module)
            if self.errors[-1] <= self.enough or time.monotonic() > self.deadline:
                trainer.should_stop = True

    def _measure(self, model: LightningModule) -> None:
        with torch.no_grad():  # in training mode: what a batch norm has gathered by now is of other steps
            self.errors.append(self.measure(model))


def answer_of(model: LightningModule, pair: Batch) -> Tensor:
    """What a model makes of a batch: images around [0, 1]."""
    return model.predict_and_loss(pair)[0] if hasattr(model, "answer") else model(pair.input)


def error_of(answer: Tensor, target: Tensor) -> float:
    """The root mean square error; of values in [0, 1]."""
    return float((answer.detach().float() - target.float()).square().mean().sqrt())


def confusion(model: LightningModule, pair: Batch) -> float:
    """How often a discriminator takes a made image for truer than a true one: 0.5 is chance, 0 never."""
    condition, real = model.to_memory_format(pair.input), model.space.encode(pair.target)
    made = model.generator(condition).float()
    true, false = (
        model.discriminator(torch.cat([condition, model.to_memory_format(y)], dim=1)).float().flatten()
        for y in (real, made)
    )
    return float((true[:, None] <= false[None, :]).float().mean())


def overfit(
    pristine: LightningModule,
    state: dict[str, Tensor],
    pair: Batch,
    trainer: Trainer,
    *,
    enough: float,
    steps: int,
    seconds: float,
    rate: float | None = None,
    adversary: bool = False,
) -> Trial:
    """Train a copy of a model on one batch, by its own training_step.

    Weight decay, dropout, penalties and schedules are off; an adversary stays away, so that the generator learns what
    its reconstruction loss tells it.

    Args:
        pristine: The model as it was built; not changed.
        state: The weights and statistics to start from.
        pair: The batch.
        trainer: Whose device, precision and clipping are used.
        enough: The root mean square error at which it ends; of an adversary, the confusion.
        steps: At most so many.
        seconds: For at most so long.
        rate: Of an Adam that replaces the model's own optimizers; None keeps them, at their full rates.
        adversary: Train the discriminator alone, to tell the true images from the generator's first ones.
    """
    model = copy.deepcopy(pristine)
    model.load_state_dict(state, strict=False)
    _free(model, adversary)
    _optimize(model, rate)

    def error(model: LightningModule) -> float:
        return confusion(model, pair) if adversary else error_of(answer_of(model, pair), pair.target)

    watch = _Watch(error, enough, seconds)
    clipping = [copy.copy(c) for c in trainer.callbacks if isinstance(c, GradientClipping)]
    with quiet():
        small = Trainer(
            accelerator="cpu" if pair.input.device.type == "cpu" else "auto",
            devices=1,
            precision=trainer.precision,
            max_steps=steps,
            callbacks=[watch, *(clipping if model.automatic_optimization else [])],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
            log_every_n_steps=FOREVER,
        )
        problem = ""
        try:
            small.fit(model, train_dataloaders=DataLoader([pair] * EVERY, batch_size=None, collate_fn=_as_it_is))
        except Exception as error:  # whatever a training_step of somebody's own raises is what there is to tell
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return Trial(watch.errors, small.global_step, problem)


def _as_it_is(batch: Any) -> Any:
    return batch


def _free(model: LightningModule, adversary: bool) -> None:
    """Switch off what holds a model back from learning by heart."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    off = {"l1": 0.0, "l2": 0.0, "compile_network": False, "init_from": None}
    off |= {"generator_epochs": 0 if adversary else FOREVER, "critic_epochs": FOREVER, "make_scheduler": None}
    for name, value in off.items():
        if hasattr(model, name):
            setattr(model, name, value)
    if isinstance(makers := getattr(model, "make_schedulers", None), dict):
        model.make_schedulers = dict.fromkeys(makers)


def _optimize(model: LightningModule, rate: float | None) -> None:
    """Have the model's own optimizers at their full rates and without weight decay, or an Adam in their place."""
    configure = model.configure_optimizers

    def without_schedules() -> list[Optimizer] | None:
        found = list(optimizers_in(configure()))
        for number, optimizer in enumerate(found):
            for group in optimizer.param_groups:
                group["lr"] = group.get("initial_lr", group["lr"])
                group["weight_decay"] = 0.0
            if rate is not None:
                found[number] = Adam([p for group in optimizer.param_groups for p in group["params"]], lr=rate)
        return found or None

    model.configure_optimizers = without_schedules


def optimizers_in(configured: Any) -> Iterator[Optimizer]:
    """The optimizers in what ``configure_optimizers`` returns, in any of the forms that Lightning takes."""
    if isinstance(configured, Optimizer):
        yield configured
    elif isinstance(configured, dict):
        yield from optimizers_in(configured.get("optimizer"))
    elif isinstance(configured, list | tuple):
        for one in configured:
            yield from optimizers_in(one)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's words about a trainer that is none of the user's."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
