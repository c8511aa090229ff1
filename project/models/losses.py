"""Losses that ``torch.nn`` does not have, and the adversarial ones as their papers write them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.errors import UserError


class Charbonnier(nn.Module):
    """Mean of sqrt(difference^2 + eps^2): L1 far from 0, smooth near it (Charbonnier et al. 1994).

    Args:
        eps: Where the two meet, in the unit of the pixels, which lie in [0, 1]; above 0.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return torch.sqrt((output - target).square() + self.eps**2).mean()


class PSNRLoss(nn.Module):
    """Minus the PSNR in dB, the mean over the (B, C, H, W) images of a batch (as NAFNet trains, Chen et al. 2022)."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        error = (output - target).square().mean(dim=(1, 2, 3))
        return 10 / math.log(10) * torch.log(error + 1e-8).mean()


class AdversarialLoss:
    """Two losses over the discriminator's logits, (B, 1, h, w) float32, above 0 for real; inherit for your own."""

    penalty_weight: float = 0.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss, a scalar, from its logits for real and for generated images."""
        raise NotImplementedError

    def generator(self, fake: Tensor) -> Tensor:
        """The generator's loss, a scalar, from the discriminator's logits for its images."""
        raise NotImplementedError

    def penalty(self, logits: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor | None:
        """A further term of the discriminator's loss, unweighted, from ``logits(image)`` and (B, C, H, W) images."""
        return None


class _Labeled(AdversarialLoss):
    def __init__(self, real_label: float = 1.0) -> None:
        if not 0 < real_label <= 1:
            raise UserError(f"real_label must be in (0, 1], such as 0.9 for label smoothing, but it is {real_label}.")
        self.real_label = real_label


class Standard(_Labeled):
    """Binary cross-entropy, and the generator's version that does not saturate (Goodfellow et al. 2014).

    D: -log s(D(real)) - log(1 - s(D(fake))); G: -log s(D(fake)), with the sigmoid s.

    Args:
        real_label: The discriminator's target for real images: 1, or 0.9 for one-sided label smoothing
            (Salimans et al. 2016), which keeps it from growing too confident.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        labels = torch.full_like(real, self.real_label)
        return F.binary_cross_entropy_with_logits(real, labels) + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class LeastSquares(_Labeled):
    """Least squares, more stable than cross-entropy (LSGAN, Mao et al. 2017, equation 9).

    D: (D(real) - real_label)^2 / 2 + D(fake)^2 / 2; G: (D(fake) - 1)^2 / 2.

    Args:
        real_label: The discriminator's target for real images: 1, or 0.9 for one-sided label smoothing.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - self.real_label).square().mean() + fake.square().mean()) / 2

    def generator(self, fake: Tensor) -> Tensor:
        return (fake - 1).square().mean() / 2


class Hinge(AdversarialLoss):
    """Hinge loss: images that are classified clearly enough add no gradient (Lim and Ye 2017; Miyato et al. 2018).

    D: max(0, 1 - D(real)) + max(0, 1 + D(fake)); G: -D(fake). Goes well with spectral norm.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class WassersteinGP(AdversarialLoss):
    """Wasserstein distance with a gradient penalty (WGAN-GP, Gulrajani et al. 2017).

    D: D(fake) - D(real) + penalty * (|gradient at a random point between the two| - 1)^2; G: -D(fake). The gradient is
    that of an image's mean logit with respect to the image, the condition held fixed. Costs another two passes through
    the discriminator, and goes with every norm but batch.

    Args:
        penalty: Weight of the gradient penalty.
    """

    def __init__(self, penalty: float = 10.0) -> None:
        if penalty < 0:
            raise UserError(f"WassersteinGP: penalty must not be negative, but it is {penalty}.")
        self.penalty_weight = penalty

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def penalty(self, logits: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        # In float32 also under autocast: the square of a gradient's length soon leaves the range of float16.
        with torch.autocast(real.device.type, enabled=False):
            real, fake = real.float(), fake.float()
            share = torch.rand(len(real), 1, 1, 1, device=real.device)
            between = torch.lerp(fake, real, share).requires_grad_()
            scores = logits(between).flatten(1).mean(dim=1)
            (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
            return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
