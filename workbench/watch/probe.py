"""A fixed set of validation samples that a model is shown now and then, to measure its inside and its outputs."""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from workbench.findings import Parameter
from workbench.lightning_private import steps_done
from workbench.task import baseline_of, input_of, is_padding, target_of
from workbench.watch.activations import ActivationPass
from workbench.watch.recorder import Recorder

SAMPLES = 16  # at most so many; of large images fewer, so that a pass costs no more than a step or two
PIXELS = 16 * 64 * 64
FEWEST = 4
LUMA = (0.299, 0.587, 0.114)
GRID = 16  # outputs of a GAN are compared on a grid of so many cells a side: their colors matter, not their noise
EARLY = (0, 20, 50, 100, 200, 500, 1000)  # steps of a pass on samples of training, until the first validation


class Probe:
    """The samples, and one forward pass for everything that is measured on them.

    Logged where batches have a ``baseline``: ``probe/error``, the mean squared error of the output, beside
    ``probe/nothing`` and ``probe/mean``, those of the do-nothing output and of the mean target.
    """

    def __init__(self, recorder: Recorder, model: LightningModule, state: dict[str, Any] | None = None) -> None:
        self.recorder, self.model = recorder, model
        self.training: Any = None  # the first samples of the first training batch
        self.validation: Any = None  # samples of the first validation, cut to the size of those; None where none fit
        state = state or {}
        # Whether the first validation is over; of a resumed run it may be so before its samples are there again.
        self._settled: bool = state.get("settled", False)
        self._ran_at: int = state.get("ran_at", -1)
        self._saved: list[Any] | None = state.get("training")
        self._cuts: list[list[Any]] = []  # of each validation sample: its middle, and corners
        self._collected = self._broken = False

    @property
    def batch(self) -> Any:
        return self.training if self.validation is None else self.validation

    def on_train_batch_start(self, trainer: Trainer, batch: Any) -> None:
        """Before the first validation, run early and often: most faults show there."""
        self._take_training(batch)
        if steps_done(trainer) in EARLY and not self._settled:
            self.run(trainer)

    def _take_training(self, batch: Any) -> None:
        if self._saved is not None:
            leaves, spec = tree_flatten(batch)
            if len(leaves) == len(self._saved):
                parts = [x.to(self.model.device) if isinstance(x, Tensor) else x for x in self._saved]
                self.training = tree_unflatten(parts, spec)
            self._saved = None
        if self.training is None:
            self.training = _samples(batch, 0, _count(batch))

    def on_validation_batch_end(self, batch: Any) -> None:
        if self._collected or is_padding(batch) or (self.training is None and self._saved is None):
            return
        self._take_training(batch)
        inputs = input_of(batch)
        for number in range(len(inputs) if isinstance(inputs, Tensor) and inputs.ndim else 0):
            if len(self._cuts) < _count(self.training):
                cuts = _cut(_samples(batch, number, number + 1), input_of(self.training))
                self._cuts += [cuts] if cuts else []

    def on_validation_end(self) -> None:
        """From the first validation on its samples are used: the middle of each image, corners where there are few."""
        if self._cuts and not self._collected:
            middles, corners = [cuts[0] for cuts in self._cuts], [corner for cuts in self._cuts for corner in cuts[1:]]
            chosen = (middles + corners)[: _count(self.training)]
            columns = zip(*(tree_flatten(part)[0] for part in chosen), strict=True)
            joined = [torch.cat(c) if isinstance(c[0], Tensor) and c[0].ndim else c[0] for c in columns]
            self.validation = tree_unflatten(joined, tree_flatten(chosen[0])[1])
        self._cuts, self._settled, self._collected = [], True, True

    def state_dict(self) -> dict[str, Any]:
        """With samples of the first batch, which a resumed run cannot find again."""
        leaves = self._saved if self.training is None else tree_flatten(self.training)[0]
        plain = leaves and [leaf if isinstance(leaf, Tensor | int | float | str) else None for leaf in leaves]
        return {"settled": self._settled, "ran_at": self._ran_at, "training": plain}

    def run(self, trainer: Trainer) -> None:
        """One forward pass, which leaves model and random numbers as they are, unless there was one at this step;
        every process has to call it."""
        step = steps_done(trainer)
        if self._ran_at == step or self._broken:
            return
        if not trainer.strategy.reduce_boolean_decision(self.batch is not None):
            return  # a split smaller than the number of processes leaves some without samples
        self._ran_at = step
        info = self.recorder.history.model
        with _unchanged(self.model), torch.no_grad(), _uncompiled(), trainer.precision_plugin.forward_context():
            try:
                with ActivationPass(self.model, self.recorder.shows_histograms) as activations:
                    output = self.model(input_of(self.batch))
                if not info.activations:
                    last = {place.network: name for name, place in activations.places.items()}.values()
                    info.activations = {n: replace(p, last=n in last) for n, p in activations.places.items()}
                    info.parameters = _in_order(info.parameters, activations.order)
                activations.put(self.recorder, step)
                if trainer.is_global_zero:
                    self._put_errors(output, step)
                    if isinstance(getattr(self.model, "discriminator", None), nn.Module):
                        _measure_gan(self, output, step)
            except Exception as error:  # measuring must never end a run
                self._broken = True
                warnings.warn(f"Watch cannot measure activations of this model: {error!r}", stacklevel=2)

    def _put_errors(self, output: Any, step: int) -> None:
        target, baseline = target_of(self.batch), baseline_of(self.batch)
        if not all(isinstance(x, Tensor) for x in (output, target, baseline)) or output.shape != target.shape:
            return
        target = target.float()
        mean = target.mean(dim=[d for d in range(target.ndim) if d != 1], keepdim=True)
        for name, guess in (("error", output), ("nothing", baseline), ("mean", mean)):
            self.recorder.put([f"probe/{name}"], (guess.float() - target).square().mean(), step, log=True)


def _in_order(parameters: dict[str, Parameter], order: dict[str, int]) -> dict[str, Parameter]:
    """Tensors of modules that the pass went through in its order; all others where they were."""
    known = {name: order[module] for name in parameters if (module := name.rpartition(".")[0]) in order}
    ordered = iter(sorted(known, key=known.__getitem__))
    return {name: parameters[name] for name in [next(ordered) if n in known else n for n in parameters]}


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """In eval mode; afterwards the model's modes and all random numbers are as before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with isolate_rng():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """What is compiled runs uncompiled; importing dynamo only for that would take a second."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


def _count(batch: Any) -> int:
    """How many samples of that size to use."""
    inputs = input_of(batch)
    pixels = math.prod(inputs.shape[-2:]) if isinstance(inputs, Tensor) and inputs.ndim == 4 else 1
    return max(FEWEST, min(SAMPLES, PIXELS // max(pixels, 1)))


def _samples(batch: Any, start: int, end: int) -> Any:
    """Some samples of a batch, copied."""
    return tree_map(lambda x: x.detach()[start:end].clone() if isinstance(x, Tensor) and x.ndim else x, batch)


def _cut(sample: Any, like: Tensor) -> list[Any]:
    """A sample cut to the size of other inputs: the middle, of a large one also the corners; [] if it cannot be cut."""
    inputs = input_of(sample)
    if inputs.shape[1:] == like.shape[1:]:
        return [sample]
    sizes = {x.shape[-2:] for x in tree_leaves(sample) if isinstance(x, Tensor) and x.ndim == 4}
    if inputs.ndim != 4 or like.ndim != 4 or len(sizes) > 1:
        return []
    (height, width), (h, w) = inputs.shape[-2:], like.shape[-2:]
    if height < h or width < w:
        return []
    places = [((height - h) // 2, (width - w) // 2)]
    if height >= 2 * h and width >= 2 * w:
        places += [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w)]

    def cut(x: Any, top: int, left: int) -> Any:
        return x[..., top : top + h, left : left + w].clone() if isinstance(x, Tensor) and x.ndim == 4 else x

    return [tree_map(lambda x, place=place: cut(x, *place), sample) for place in places]


def _measure_gan(probe: Probe, output: Any, step: int) -> None:
    """Measure a model with a ``discriminator``, given its output for the probe, without touching any gradient.

    - ``game/diversity``: how much outputs for different images differ, over how much the targets do; of a colorizer by
      color alone; ``game/color_strength``: how strong its colors are against the targets'.
    - ``game/gradient_ratio``: at the generator's output, the norm of the weighted adversarial loss's gradient over that
      of the weighted reconstruction loss; ``game/gradient_adversarial`` and ``game/gradient_reconstruction`` alone.
    - ``game/sign_train``, ``game/sign_val``: mean sign of the discriminator's logits for real images that it trains on,
      and for unseen ones (r_t of StyleGAN2-ADA); above 0.6 in training alone it has memorized them.

    The last two need ``generator``, ``space``, ``adversarial`` and ``reconstruction`` as GANColorizer has them.
    """
    model, batch, color = probe.model, probe.batch, probe.recorder.history.model.color
    condition, target = input_of(batch), target_of(batch)
    values: dict[str, Tensor] = {}
    if isinstance(output, Tensor) and output.ndim == 4 and output.shape == getattr(target, "shape", None):
        values |= _diversity(output.float(), target.float(), color) if len(output) > 1 else {}
    if all(hasattr(model, name) for name in ("generator", "space", "adversarial", "reconstruction")):
        values |= _gradients(model, condition, target, model.generator(condition))
        for name, images in (("train", probe.training), ("val", batch)) if probe.validation is not None else ():
            real = model.space.encode(target_of(images))
            values[f"sign_{name}"] = _logits(model, input_of(images), real).sign().mean()
    for name, value in values.items():
        probe.recorder.put([f"game/{name}"], value, step, log=True)


def _logits(model: Any, condition: Tensor, colors: Tensor) -> Tensor:
    return model.discriminator(torch.cat([condition, colors], dim=1)).float()


def _gradients(model: Any, condition: Tensor, target: Tensor, output: Tensor) -> dict[str, Tensor]:
    """Norms of the gradients of the two losses by the generator's output; no parameter gets any."""
    real = model.space.encode(target)
    with torch.enable_grad():
        output = output.detach().float().requires_grad_()
        losses = {
            "adversarial": model.adversarial_weight * model.adversarial.generator(_logits(model, condition, output)),
            "reconstruction": model.reconstruction_weight * model.reconstruction(output, real),
        }
        gradients = {name: torch.autograd.grad(loss, output)[0] for name, loss in losses.items() if loss.requires_grad}
    norms = {f"gradient_{name}": torch.linalg.vector_norm(g.float()) for name, g in gradients.items()}
    if len(norms) == 2:
        norms["gradient_ratio"] = norms["gradient_adversarial"] / norms["gradient_reconstruction"].clamp_min(1e-30)
    return norms


def _diversity(output: Tensor, target: Tensor, color: bool) -> dict[str, Tensor]:
    """Mean distance of pairs of outputs over that of pairs of targets."""
    if color and output.shape[1] == 3:  # RGB without its luma
        luma = output.new_tensor(LUMA).view(1, 3, 1, 1)
        output, target = (x - (x * luma).sum(dim=1, keepdim=True) for x in (output, target))
    values = {"color_strength": output.abs().mean() / target.abs().mean().clamp_min(1e-12)} if color else {}
    small = [nn.functional.adaptive_avg_pool2d(x, GRID).flatten(1) for x in (output, target)]
    distances = [nn.functional.pdist(x).mean() for x in small]
    return {"diversity": distances[0] / distances[1].clamp_min(1e-12), **values}
