"""A generator against its discriminator: scores, gradients of the losses at the output, and diversity of outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.batch import input_of, target_of

if TYPE_CHECKING:
    from workbench.watch.probe import Probe

LUMA = (0.299, 0.587, 0.114)
GRID = 16  # outputs are compared on a grid of so many cells a side: their colors matter, not their noise


def measure_gan(probe: Probe, output: Any, step: int) -> None:
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
