"""Models, losses, metrics and callbacks with a mistake in them."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from runs import Gray
from torch import Tensor, nn

from project.models import GANColorizer, ImageRestorer
from project.models.metrics import ImageMean


class NeverCleared(ImageRestorer):
    def optimizer_zero_grad(self, *_: Any) -> None:
        pass


class NeverClearedByHand(ImageRestorer):
    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        self.optimizers().step()
        return loss.detach()


class NoDecoder(ImageRestorer):
    """The decoder has no optimizer."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for n, p in self.network.named_parameters() if "decoder" not in n], lr=2e-3)


class NeverClearedGAN(GANColorizer):
    def optimize(self, name: str, loss: Tensor, counts: bool) -> None:
        self._optimizer(name).zero_grad = lambda *_: None
        super().optimize(name, loss, counts)


class NoDiscriminator(GANColorizer):
    """The discriminator has no optimizer: that one has another parameter."""

    def configure_optimizers(self) -> Any:
        generator, discriminator = super().configure_optimizers()
        discriminator["optimizer"].param_groups[0]["params"] = [nn.Parameter(torch.zeros(1))]
        return [generator, discriminator]


class NotDetached(GANColorizer):
    def discriminator_step(self, condition: Any, real: Any, fake: Any, counts: bool) -> Any:
        return super().discriminator_step(condition, real, self.generator(condition).float(), counts)


class ClearedTooEarly(GANColorizer):
    """A loop of one's own: all gradients are cleared at its start, and the colors are not detached."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        generator, discriminator = self.optimizers()
        real, fake = self.space.encode(batch.target), self.generator(batch.input)
        generator.zero_grad(), discriminator.zero_grad()
        true, false = (self.discriminator(torch.cat([batch.input, y], dim=1)) for y in (real, fake))
        judged = self.adversarial.discriminator(true, false)
        self.manual_backward(judged, retain_graph=True)
        self.trainer.strategy.optimizer_step(discriminator.optimizer, lambda: None)
        logits = self.discriminator(torch.cat([batch.input, fake], dim=1))
        losses = {"adversarial": self.adversarial.generator(logits), "reconstruction": self.reconstruction(fake, real)}
        loss = losses["adversarial"] + self.reconstruction_weight * losses["reconstruction"]
        self.manual_backward(loss)
        generator.step()
        scores = {"discriminator": judged, "score_real": true.mean(), "score_fake": false.mean()}
        values = {name: value.detach() for name, value in {"loss": loss, **losses, **scores}.items()}
        self.end_batch(batch_idx, values)
        return values


class RealTwice(GANColorizer):
    """Shows its discriminator the true image twice."""

    def discriminator_step(self, condition: Any, real: Any, fake: Any, counts: bool) -> Any:
        return super().discriminator_step(condition, real, real, counts)


class Matched(GANColorizer):
    """The generator's outputs are other true images: only memorizing tells them from the targets."""

    def discriminator_step(self, condition: Any, real: Any, fake: Any, counts: bool) -> Any:
        other = Gray(1, 999).pair(self.global_step)
        true = self.discriminator(torch.cat([condition, real], dim=1))
        made = self.discriminator(torch.cat([other.input, other.target], dim=1))
        loss = self.adversarial.discriminator(true, made)
        self.optimize("discriminator", loss, counts)
        values = {"discriminator": loss, "score_real": true.mean(), "score_fake": made.mean()}
        return {name: value.detach() for name, value in values.items()}


def swapped(loss: nn.Module) -> nn.Module:
    """An adversarial loss with the discriminator's labels swapped."""
    right = loss.discriminator
    loss.discriminator = lambda real, fake: right(fake, real)
    return loss


class Logarithmic(nn.Module):
    """Takes the logarithm of what may be below 0."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.log() - target.log()).abs().mean()


class Error(ImageMean):
    """An error that is declared as higher is better."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().flatten(1).mean(1)


class Sharpness(ImageMean):
    """Mean difference of neighboring pixels: noise is sharp."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        return output.diff(dim=-1).abs().flatten(1).mean(1)


class ZeroGradients(L.Callback):
    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        for parameter in pl_module.network.parameters():
            parameter.grad.zero_()


class Growing(L.Callback):
    """Weight decay of the wrong sign: weights grow at every step."""

    def __init__(self, part: str, factor: float) -> None:
        self.part, self.factor = part, factor

    @torch.no_grad()
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        for name, parameter in pl_module.network.named_parameters():
            if self.part in name and parameter.ndim > 1:
                parameter.mul_(self.factor)
