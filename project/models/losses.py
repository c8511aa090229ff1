"""Losses that ``torch.nn`` does not have, and the adversarial ones as their papers write them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from project.networks.backbone import load_pretrained
from project.networks.normalize import Normalize

# Of VGG19's layers relu1_1 to relu5_1, by their places, as pix2pixHD weights them (Wang et al. 2018).
VGG_WEIGHTS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}


class Charbonnier(nn.Module):
    """Mean of sqrt(difference^2 + eps^2): L1 far from 0, smooth within ``eps`` of it (Charbonnier et al. 1994)."""

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


class VGGPerceptual(nn.Module):
    """L1 distance between VGG19's features of two images, a weighted sum over layers (Johnson et al. 2016).

    VGG19 is not a part of the model: no checkpoint, optimizer or average sees it, and a trained model works without.
    ``weights`` is DEFAULT (torchvision's download, 550 MB) or a file of its state dict.
    """

    def __init__(self, weights: str = "DEFAULT") -> None:
        super().__init__()
        self.weights = weights
        self._vgg: list[nn.Module] = []  # in a list, or it would be registered as a part

    def load(self) -> nn.Module:
        """Made when it is first needed: before the training starts, so that missing weights are reported then."""
        if not self._vgg:
            with torch.random.fork_rng(devices=[]):  # its initial weights must not shift the training's random numbers
                network, statistics = load_pretrained("vgg19", self.weights)
            layers = network.features[: max(VGG_WEIGHTS) + 1]
            self._vgg.append(nn.Sequential(Normalize(3, *statistics), *layers).requires_grad_(False).eval())
        return self._vgg[0]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, 3, H, W) images in [0, 1] -> a scalar; gradients flow to the first alone."""
        distances = []
        for place, layer in enumerate(self.load().to(output.device), start=-1):  # the normalization comes first
            output = layer(output)
            with torch.no_grad():
                target = layer(target)
            if place in VGG_WEIGHTS:
                distances.append(VGG_WEIGHTS[place] * F.l1_loss(output.float(), target.float()))
        return torch.stack(distances).sum()


class AdversarialLoss:
    """Two losses over the discriminator's logits, (B, 1, h, w) float32, above 0 for real.

    One of your own writes ``discriminator(real, fake)`` and ``generator(fake)``, both logits -> a scalar.
    """

    penalty_weight: float = 0.0

    def penalty(self, logits: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor | None:
        """A further term of the discriminator's loss, unweighted, from ``logits(image)`` and (B, C, H, W) images."""
        return None


class Standard(AdversarialLoss):
    """Binary cross-entropy, and the generator's version that does not saturate (Goodfellow et al. 2014).

    D: -log s(D(real)) - log(1 - s(D(fake))); G: -log s(D(fake)), with the sigmoid s.

    Args:
        real_label: The discriminator's target for real images: 1, or 0.9 for one-sided label smoothing
            (Salimans et al. 2016).
    """

    def __init__(self, real_label: float = 1.0) -> None:
        self.real_label = real_label

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        labels = torch.full_like(real, self.real_label)
        return F.binary_cross_entropy_with_logits(real, labels) + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class LeastSquares(Standard):
    """Least squares, more stable than cross-entropy (LSGAN, Mao et al. 2017, equation 9).

    D: (D(real) - real_label)^2 / 2 + D(fake)^2 / 2; G: (D(fake) - 1)^2 / 2; ``real_label`` as in :class:`Standard`.
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
    that of an image's mean logit, the condition held fixed. It goes with every norm but batch.
    """

    def __init__(self, penalty: float = 10.0) -> None:
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
