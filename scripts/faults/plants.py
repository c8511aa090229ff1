"""Faults, planted one by one into small runs that would learn well without them."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from functools import partial
from typing import Any

import lightning as L
import torch
from tasks import Gray, Make, Run, Spoil, chain, colorize, edited, gray_unet, play, recurrent, residuals, restore, unet
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR

from project.data.batch import Batch
from project.models import GANColorizer, ImageRestorer
from project.models.losses import LeastSquares, Standard
from project.models.metrics import ImageMean


def normal(std: float) -> Callable[[Tensor], object]:
    return lambda weight: nn.init.normal_(weight, std=std)


def times(factor: float) -> Callable[[Tensor], object]:
    return lambda weight: weight.mul_(factor)


class InputChanged(nn.Module):
    """Gets something else than the input, as by a normalization that was forgotten or done twice."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.change(x))


def input_changed(make: Make, change: Callable[[Tensor], Tensor]) -> Make:
    return lambda seed: InputChanged(make(seed), change)


def detached() -> Make:
    """Two networks in a row; the first is cut off from the loss."""
    return lambda seed: nn.Sequential(unet()(seed), InputChanged(unet()(seed + 1), Tensor.detach))


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


def at(steps: Container[int], change: str) -> Spoil:
    """Change the batches of these steps; -1 stands for validation."""
    return lambda pair, step: CHANGES[change](pair) if step in steps else pair


def overfit(few: int, steps: int) -> Run:
    """The same noise on a target whenever it comes, as in photographs of which there is one noisy shot."""

    def noisy_target(pair: Batch, step: int) -> Batch:
        noise = torch.randn(pair.target.shape, generator=torch.Generator().manual_seed(step % few))
        return pair if step < 0 else pair._replace(target=pair.target + 0.3 * noise)

    return restore(unet(widths=[16, 24], residual=False), lr=4e-3, few=few, steps=steps, spoil=noisy_target)


def collapse(change: Callable[[Tensor], Tensor], weight: float) -> Run:
    generator = input_changed(gray_unet(), change)
    return play(generator=generator, reconstruction_weight=weight, steps=120, lr=(2e-3, 5e-4))


def memorize(few: int, steps: int) -> Run:
    return play(Matched, few=few, lr=(5e-4, 2e-3), steps=steps, discriminator={"width": 16, "norm": "none"})


def shifted(make: Make, by: float) -> Make:
    return input_changed(make, lambda x: x + by)


def biases(part: str, value: float) -> Make:
    return edited(unet(), lambda bias: bias.fill_(value), part, kind="bias")


CHANGES: dict[str, Callable[[Batch], Batch]] = {
    "NaN": lambda pair: pair._replace(input=pair.input * math.nan),
    "noise x 5": lambda pair: pair._replace(input=pair.target + 5 * (pair.input - pair.target)),
    "input / 255": lambda pair: pair._replace(input=pair.input / 255),
    "negative": lambda pair: pair._replace(target=1 - pair.target),
    "next target": lambda pair: pair._replace(target=pair.target.roll(1, 0)),
    "random target": lambda pair: pair._replace(target=torch.rand_like(pair.target)),
}
ALWAYS, FROM_80 = range(-1, 1000), range(80, 1000)
INTERLEAVED = {length: [step for step in range(1000) if step // length % 2] for length in (4, 10)}
JUMP = partial(LambdaLR, lr_lambda=lambda step: 1.0 if step < 60 else 300.0)
TOO_STRONG = partial(play, reconstruction_weight=0.0, lr=(1e-4, 2e-3), steps=140)
WITHOUT_SKIPS = {"skip": "none", "stage_residual": False, "residual": False, "widths": [8, 12, 16, 16]}

WAYS: dict[str, dict[str, Run]] = {
    "gradients-not-cleared": {
        "zero_grad overridden": restore(model=NeverCleared),
        "steps by hand without zero_grad": restore(model=NeverClearedByHand),
        "GAN: zero_grad missing": play(NeverClearedGAN),
    },
    "parameters-unchanged": {
        "gradients set to 0": restore(callbacks=[ZeroGradients()]),
        "decoder without an optimizer": restore(model=NoDecoder),
        "first of two networks detached": restore(detached()),
        "GAN: discriminator without an optimizer": play(NoDiscriminator),
    },
    "labels-swapped": {
        "GAN: labels swapped": play(adversarial=swapped(Standard()), lr=(5e-4, 1e-3)),
        "GAN: the same, least squares": play(adversarial=swapped(LeastSquares()), lr=(5e-4, 1e-3)),
    },
    "discriminator-leaks": {
        "GAN: colors not detached": play(NotDetached),
        "GAN: gradients cleared once a batch": play(ClearedTooEarly),
    },
    "learning-rate-high": {
        "Adam, rate x 1000": restore(lr=2.0),
        "SGD, rate 1000": restore(lr=1000.0, optimizer=SGD),
        "Adam, rate 0.3, plain network": restore(chain(), lr=0.3),
        "schedule x 300 at step 60": restore(steps=120, scheduler=JUMP, schedule_every="step"),
        "GAN: generator's rate x 1000": play(lr=(0.5, 2e-4)),
        "GAN: discriminator's rate x 1000": play(lr=(5e-4, 0.2)),
    },
    "learning-rate-low": {
        "Adam, rate / 2000": restore(lr=1e-6),
        "Adam, rate / 20000": restore(lr=1e-7),
        "SGD with a rate of Adam": restore(lr=1e-5, optimizer=SGD),
        "GAN: generator's rate / 5000": play(lr=(1e-7, 2e-4)),
    },
    "regularization-dominates": {
        "l2 of 3": restore(l2=3.0, steps=160),
        "l1 of 1": restore(l1=1.0, steps=160),
        "weight decay of 1 in Adam": colorize(steps=160, optimizer=partial(Adam, weight_decay=1.0)),
    },
    "adversarial-imbalance": {
        "GAN: adversarial weight of 1e6": play(adversarial_weight=1e6),
        "GAN: reconstruction is a sum": play(reconstruction=nn.L1Loss(reduction="sum")),
    },
    "exploding-gradients": {
        "kernels from N(0, 1)": restore(edited(unet(), normal(1.0))),
        "kernels x 6 of a deep UNet": restore(edited(unet(widths=[8, 12, 16]), times(6))),
        "one convolution twelve times over": restore(recurrent(12, 0.5)),
        "forty blocks that add, no norm": restore(edited(residuals(40), times(2.0), "blocks")),
        "twelve layers from N(0, 0.5)": restore(edited(chain(layers=12), normal(0.5))),
    },
    "nonfinite-loss": {
        "NaN in the input of step 33": restore(spoil=at([33], "NaN")),
        "NaN in the input of step 61": restore(spoil=at([61], "NaN")),
        "logarithm in the loss": restore(loss=Logarithmic()),
        "GAN: NaN in the input of step 41": play(spoil=at([41], "NaN")),
    },
    "dead-units": {
        "biases of the middle at -10": restore(biases("middle", -10.0)),
        "biases of the encoder at -10": restore(biases("encoder", -10.0)),
        "plain network, images x -255": restore(input_changed(edited(chain(), Tensor.abs_), lambda x: x * -255.0)),
    },
    "saturated-units": {
        "eight layers of tanh from N(0, 1)": colorize(edited(chain(nn.Tanh, 8, channels=1), normal(1.0))),
        "sigmoids, images x 255": colorize(input_changed(chain(nn.Sigmoid, channels=1), lambda x: x * 255.0)),
        "tanh, kernels x 30": restore(edited(chain(nn.Tanh, 5), times(30))),
        "UNet of tanh, kernels x 20": colorize(edited(gray_unet(activation="tanh", stage_residual=False), times(20))),
    },
    "vanishing-gradients": {
        "twelve layers of sigmoids": restore(chain(nn.Sigmoid, 12)),
        "twenty layers of tanh, kernels / 2": restore(edited(chain(nn.Tanh, 20), times(0.5))),
        "UNet of sigmoids without skips": restore(unet(activation="sigmoid", **WITHOUT_SKIPS)),
    },
    "weights-abnormal": {
        "kernels grow by 3 % a step": restore(callbacks=[Growing("", 1.03)], steps=120),
        "one layer grows by 5 % a step": restore(callbacks=[Growing("middle", 1.05)], steps=120),
        "one layer 100 times, group norm": colorize(edited(gray_unet(norm="group"), times(100.0), "middle.0.body.0")),
        "one layer starts 1000 times as large": restore(edited(unet(), times(1000.0), "decoder.0.0.body.0")),
        "biases of the decoder at 300": restore(biases("decoder", 300.0)),
    },
    "activations-off-centre": {
        "temperatures in Kelvin": colorize(
            input_changed(chain(nn.LeakyReLU, channels=1), lambda x: x + 290.0), steps=200
        ),
        "input off by 20, ELU": colorize(input_changed(chain(nn.ELU, channels=1), lambda x: x + 20.0)),
        "UNet, input off by 50": colorize(input_changed(gray_unet(), lambda x: x + 50.0), steps=200),
    },
    "mode-collapse": {
        "GAN: generator blind, no reconstruction": collapse(torch.zeros_like, 0.0),
        "GAN: generator blind, reconstruction of 1": collapse(torch.zeros_like, 1.0),
        "GAN: one condition for the batch": collapse(lambda x: x[:1].expand_as(x), 1.0),
    },
    "discriminator-inert": {
        "GAN: discriminator's rate of 1e-10": play(lr=(5e-4, 1e-10), steps=120),
        "GAN: sees true images twice": play(RealTwice, steps=120),
    },
    "discriminator-too-strong": {
        "GAN: its rate x 20, no reconstruction": TOO_STRONG(),
        "GAN: the same, least squares": TOO_STRONG(adversarial=LeastSquares()),
        "GAN: its rate x 100 against a slow generator": TOO_STRONG(lr=(2e-5, 2e-3), reconstruction_weight=5.0),
    },
    "discriminator-overfits": {
        "GAN: four images, an excellent generator": memorize(few=1, steps=120),
        "GAN: eight images, an excellent generator": memorize(few=2, steps=140),
    },
    "loss-surge": {
        "noise x 5 from step 80 on": restore(spoil=at(FROM_80, "noise x 5"), steps=140),
        "targets of the next image from step 80 on": restore(spoil=at(FROM_80, "next target"), steps=140),
        "images / 255 from step 80 on": restore(spoil=at(FROM_80, "input / 255"), steps=140),
    },
    "loss-oscillates": {
        "sorted: ten batches, ten negatives": restore(spoil=at(INTERLEAVED[10], "negative"), steps=140),
        "sorted: four batches, four negatives": restore(spoil=at(INTERLEAVED[4], "negative"), steps=120),
    },
    "overfitting": {
        "four images, noisy targets": overfit(few=1, steps=240),
        "eight images, noisy targets": overfit(few=2, steps=280),
    },
    "metric-disagrees": {
        "an error counted as a score": restore(steps=120, metrics={"error": Error()}),
        "sharpness of a denoiser": restore(steps=120, metrics={"sharpness": Sharpness()}),
    },
    "loss-flat": {
        "targets that are noise": restore(spoil=at(ALWAYS, "random target"), steps=220),
        "targets of the next image": restore(spoil=at(ALWAYS, "next target"), steps=220),
    },
}
"""Code by which a fault is to be named first -> what was done -> the run."""

PLANTS = [(code, name, run) for code, ways in WAYS.items() for name, run in ways.items()]
