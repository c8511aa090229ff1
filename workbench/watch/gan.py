"""How the game of a generator and a discriminator stands: scores, what pulls at the answers, and how they differ."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from project.data.batch import Batch
from workbench.watch.looking import ProbeMonitor
from workbench.watch.probe import Probe

LUMA = (0.299, 0.587, 0.114)
CELLS = 16
"""Answers are compared on a grid of so many places a side: their colors matter, not their noise."""


class GANMonitor(ProbeMonitor):
    """For models with a ``generator`` and a ``discriminator`` (GANColorizer, or one of your own with its attributes):

    - ``game/sign_train``, ``game/sign_val``: mean sign of the discriminator's logits for true images that it learns
      from, and for unseen ones (r_t of StyleGAN2-ADA); above 0.6 in training alone it knows them by heart;
    - ``game/gradient_ratio``: at the generator's output, the norm of the weighted adversarial loss's gradient over that
      of the weighted reconstruction loss; ``game/gradient_adversarial`` and ``game/gradient_reconstruction`` alone;
    - ``game/diversity``: how much the answers to different images differ, over how much the targets do; of a
      colorizer by color alone; ``game/color_strength``: how strong its colors are against the targets'.

    All on the probe, without touching any gradient of the training. For other models it does nothing.

    Args:
        every_n_validations: Look at every n-th validation; 0 switches it off.
    """

    def __init__(self, every_n_validations: int = 1) -> None:
        super().__init__("game", every_n_validations)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(getattr(pl_module, "discriminator", None), nn.Module):
            super().on_train_start(trainer, pl_module)
        else:
            self.recorder = self.probe = None

    def finish(self, trainer: Trainer, model: LightningModule, probe: Probe, output: Tensor) -> None:
        """Measure on the first process."""
        batch = probe.batch
        if not trainer.is_global_zero or not isinstance(batch, Batch) or not isinstance(output, Tensor):
            return
        if output.shape == batch.target.shape and len(output) > 1:
            self._put(probe, _diversity(output.float(), batch.target.float(), self.recorder.history.facts.color))
        if not all(hasattr(model, name) for name in ("generator", "space", "adversarial", "reconstruction")):
            return
        answer = probe.answers.get("generator")  # None of a model that calls a part of its generator
        self._put(probe, _pulls(model, batch, model.generator(batch.input) if answer is None else answer))
        if probe.unseen:
            for name, pictures in (("train", probe.training), ("val", batch)):
                real = model.space.encode(pictures.target)
                signs = _logits(model, pictures.input, real).sign().mean()
                self._put(probe, {f"sign_{name}": signs})

    def _put(self, probe: Probe, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.recorder.put([f"game/{name}"], value, probe.step, log=True)


def _logits(model: Any, condition: Tensor, colors: Tensor) -> Tensor:
    return model.discriminator(torch.cat([condition, colors], dim=1)).float()


def _pulls(model: Any, batch: Batch, answer: Tensor) -> dict[str, Tensor]:
    """Norms of the gradients of the two losses by the generator's output; no parameter gets any."""
    real = model.space.encode(batch.target)
    with torch.enable_grad():
        answer = answer.detach().float().requires_grad_()
        losses = {
            "adversarial": model.adversarial_weight * model.adversarial.generator(_logits(model, batch.input, answer)),
            "reconstruction": model.reconstruction_weight * model.reconstruction(answer, real),
        }
        gradients = {name: torch.autograd.grad(loss, answer)[0] for name, loss in losses.items() if loss.requires_grad}
    norms = {f"gradient_{name}": torch.linalg.vector_norm(g.float()) for name, g in gradients.items()}
    if len(norms) == 2:
        norms["gradient_ratio"] = norms["gradient_adversarial"] / norms["gradient_reconstruction"].clamp_min(1e-30)
    return norms


def _diversity(output: Tensor, target: Tensor, color: bool) -> dict[str, Tensor]:
    """Mean distance of pairs of answers over that of pairs of targets."""
    if color and output.shape[1] == 3:
        output, target = _chroma(output), _chroma(target)
    values = {"color_strength": output.abs().mean() / target.abs().mean().clamp_min(1e-12)} if color else {}
    small = [nn.functional.adaptive_avg_pool2d(x, CELLS).flatten(1) for x in (output, target)]
    distances = [torch.nn.functional.pdist(x).mean() for x in small]
    return {"diversity": distances[0] / distances[1].clamp_min(1e-12), **values}


def _chroma(picture: Tensor) -> Tensor:
    """What is left of (B, 3, H, W) RGB without its brightness."""
    luma = (picture * picture.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return picture - luma
