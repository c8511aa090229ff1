"""What the discriminator and the generator play for: the adversarial losses, as their papers write them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.errors import UserError


class AdversarialLoss(ABC):
    """Two losses over the discriminator's logits. One of your own: inherit, and write the two.

    Logits are (B, 1, h, w) float32, above 0 for real; each of them counts as one judgment.

    Attributes:
        penalty_weight: The penalty's weight in the discriminator's loss, where there is one.
    """

    penalty_weight: float = 0.0

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss, a scalar, from its logits for real and for fake images."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """The generator's loss, a scalar, from the discriminator's logits for its images."""

    def penalty(self, judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor | None:
        """A further term of the discriminator's loss, not yet weighted; None where there is none.

        Args:
            judge: (B, C, H, W) -> logits; the discriminator, beside the batch's conditions.
            real: (B, C, H, W), the true answers.
            fake: (B, C, H, W), the generator's, detached.
        """
        return None


class Standard(AdversarialLoss):
    """Binary cross-entropy, and the generator's version that does not saturate (Goodfellow et al. 2014).

    D: -log s(D(real)) - log(1 - s(D(fake))); G: -log s(D(fake)), with the sigmoid s.

    Args:
        real_label: What the discriminator should say of real images: 1, or 0.9 for one-sided label smoothing
            (Salimans et al. 2016), which keeps it from growing too sure.
    """

    def __init__(self, real_label: float = 1.0) -> None:
        self.real_label = _checked(real_label)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        wanted = torch.full_like(real, self.real_label)
        return F.binary_cross_entropy_with_logits(real, wanted) + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class LeastSquares(AdversarialLoss):
    """Least squares, steadier than cross-entropy (LSGAN, Mao et al. 2017, equation 9).

    D: (D(real) - real_label)^2 / 2 + D(fake)^2 / 2; G: (D(fake) - 1)^2 / 2.

    Args:
        real_label: What the discriminator should say of real images: 1, or 0.9 for one-sided label smoothing.
    """

    def __init__(self, real_label: float = 1.0) -> None:
        self.real_label = _checked(real_label)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - self.real_label).square().mean() + fake.square().mean()) / 2

    def generator(self, fake: Tensor) -> Tensor:
        return (fake - 1).square().mean() / 2


class Hinge(AdversarialLoss):
    """Hinge loss: what is told apart clearly enough teaches no more (Lim and Ye 2017; Miyato et al. 2018).

    D: max(0, 1 - D(real)) + max(0, 1 + D(fake)); G: -D(fake). Goes well with spectral norm.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class WassersteinGP(AdversarialLoss):
    """Wasserstein distance with a gradient penalty (WGAN-GP, Gulrajani et al. 2017).

    D: D(fake) - D(real) + penalty * (|gradient at a random point between the two| - 1)^2; G: -D(fake). The gradient is
    that of an image's mean logit by the answer, the condition held fixed. Costs another two passes through the
    discriminator, and goes with every norm but batch.

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

    def penalty(self, judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """In float32 also where the rest is not: the square of a gradient's length soon leaves the range of float16."""
        with torch.autocast(real.device.type, enabled=False):
            real, fake = real.float(), fake.float()
            share = torch.rand(len(real), 1, 1, 1, device=real.device)
            between = torch.lerp(fake, real, share).requires_grad_()
            scores = judge(between).flatten(1).mean(dim=1)
            (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
            return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def _checked(real_label: float) -> float:
    if not 0 < real_label <= 1:
        raise UserError(f"real_label must be in (0, 1], such as 0.9 for label smoothing, but it is {real_label}.")
    return real_label
