"""What is put together wrongly."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from runs import play, restore, unet
from torch import nn

from plants.plant import Plant
from project.models import GANColorizer, ImageRestorer
from project.models.losses import LeastSquares, Standard


class Forgetful(ImageRestorer):
    def optimizer_zero_grad(self, *_: Any) -> None:
        pass


class ByHand(ImageRestorer):
    """Steps itself, and never clears."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        self.optimizers().step()
        return loss.detach()


class Hoarding(GANColorizer):
    """Clears neither network's gradients."""

    def optimize(self, name: str, loss: torch.Tensor, counts: bool) -> None:
        optimizer = self._optimizer(name)
        optimizer.zero_grad = lambda *_: None
        super().optimize(name, loss, counts)


class Half(ImageRestorer):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for n, p in self.network.named_parameters() if "decoder" not in n], lr=2e-3)


class Zero(L.Callback):
    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        for parameter in pl_module.network.parameters():
            parameter.grad.zero_()


class Cut(nn.Module):
    """A network whose first layers are cut off from the loss."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first = unet(seed)
        self.second = unet(seed + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).detach())


class Forgotten(GANColorizer):
    def configure_optimizers(self) -> Any:
        generator, discriminator = super().configure_optimizers()
        discriminator["optimizer"].param_groups[0]["params"] = [nn.Parameter(torch.zeros(1))]
        return [generator, discriminator]


class Swapped(Standard):
    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return super().discriminator(fake, real)


class SwappedSquares(LeastSquares):
    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return super().discriminator(fake, real)


class Leaky(GANColorizer):
    def discriminator_step(self, condition: Any, real: Any, fake: Any, counts: bool) -> Any:
        return super().discriminator_step(condition, real, self.generator(condition).float(), counts)


class ClearedTooEarly(GANColorizer):
    """A loop of one's own: all gradients are cleared at its start, and the colors are not detached."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
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


PLANTS = [
    Plant("gradients-not-cleared", "zero_grad overridden", lambda s: restore(s, model=Forgetful)),
    Plant("gradients-not-cleared", "steps by hand without zero_grad", lambda s: restore(s, model=ByHand)),
    Plant("gradients-not-cleared", "GAN: zero_grad missing", lambda s: play(s, Hoarding)),
    Plant("parameters-unchanged", "gradients set to 0", lambda s: restore(s, callbacks=[Zero()])),
    Plant("parameters-unchanged", "decoder without an optimizer", lambda s: restore(s, model=Half)),
    Plant("parameters-unchanged", "first of two networks detached", lambda s: restore(s, Cut(s))),
    Plant("parameters-unchanged", "GAN: discriminator without an optimizer", lambda s: play(s, Forgotten)),
    Plant("labels-swapped", "GAN: labels swapped", lambda s: play(s, adversarial=Swapped(), lr=(5e-4, 1e-3))),
    Plant(
        "labels-swapped",
        "GAN: the same, least squares",
        lambda s: play(s, adversarial=SwappedSquares(), lr=(5e-4, 1e-3)),
    ),
    Plant("discriminator-leaks", "GAN: colors not detached", lambda s: play(s, Leaky)),
    Plant("discriminator-leaks", "GAN: gradients cleared once a batch", lambda s: play(s, ClearedTooEarly)),
]
