"""Metrics that look through a pretrained network: how alike images are to the eye, and how alike two sets of them."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from project.models.color_metrics import as_color
from project.models.metrics import ImageMean
from workbench.errors import UserError

INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}
SMALLEST = 32
"""Side in pixels that every network here takes."""


class Outside(nn.Module):
    """A frozen network that a metric looks through, and that is not a part of the model.

    It is made when it is first needed: a checkpoint can be used where its weights cannot be had. No checkpoint and no
    optimizer sees its weights, and all copies of a metric share it.

    Args:
        make: Makes the network.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self._make = make
        self._made: list[nn.Module] = []  # in a list, or it would be registered as a part

    def __deepcopy__(self, memo: dict[int, Any]) -> Outside:
        return self

    def prepare(self) -> nn.Module:
        """Make the network, if it is not there yet.

        Raises:
            UserError: Its weights or a package cannot be had.
        """
        if not self._made:
            # The first weights, which are thrown away, must not move the random numbers of the training on.
            with torch.random.fork_rng(devices=[]):
                self._made.append(self._make().requires_grad_(False).eval())
        return self._made[0]

    def forward(self, *pictures: Tensor) -> Tensor:
        """The network's answer, in float32 whatever the run's precision."""
        device = pictures[0].device
        with torch.autocast(device.type, enabled=False):
            return self.prepare().to(device)(*pictures)


class FID(FrechetInceptionDistance):
    """Frechet inception distance of all outputs to all targets (Heusel et al. 2017); 0 is best.

    Mean and covariance of a network's features are compared, so it takes many more images than the network has
    features; with fewer, compare only figures of the same images. By default the network is InceptionV3 with the
    weights that the papers use; it needs the package torch-fidelity.

    Args:
        feature: 64, 192, 768 or 2048: the layer of InceptionV3; or any network (B, 3, H, W) in [0, 1] -> (B, features).

    Raises:
        UserError: ``feature`` is another number.
    """

    def __init__(self, feature: int | nn.Module = 2048) -> None:
        if isinstance(feature, nn.Module):
            network, features = Outside(functools.partial(_same, feature)), _count_features(feature)
        elif feature in (64, 192, 768, 2048):
            network, features = Outside(functools.partial(_make_inception, feature)), feature
        else:
            raise UserError(f"FID: feature must be 64, 192, 768 or 2048, or a network; it is {feature}.")
        network.num_features = features
        super().__init__(feature=network, normalize=True)
        self.orig_dtype = torch.float32  # set by an update, and a rank may get no image

    def prepare(self) -> None:
        """Make the network now, not at the first image.

        Raises:
            UserError: torch-fidelity or the weights are not there; says what to put where.
        """
        self.inception.prepare()

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch: two (B, 3, H, W) tensors around [0, 1]; (B, 1, H, W) is gray."""
        super().update(as_color(target), real=True)
        super().update(as_color(output), real=False)

    def compute(self) -> Tensor:
        """The distance, a scalar.

        Raises:
            UserError: There was only one image.
        """
        if self.real_features_num_samples < 2:
            raise UserError("FID compares sets of images, and there is only one. Leave it out of model.metrics.")
        return super().compute()


class LPIPS(ImageMean):
    """Perceptual distance of each output to its target (Zhang et al. 2018); 0 is the same image, lower is better.

    Args:
        network: The network that compares: alex (the paper's choice for measuring), vgg or squeeze.
    """

    higher_is_better = False

    def __init__(self, network: Literal["alex", "vgg", "squeeze"] = "alex") -> None:
        super().__init__()
        self.network = Outside(functools.partial(_make_lpips, network))

    def prepare(self) -> None:
        """Make the network now, not at the first image.

        Raises:
            UserError: The weights are not there; says which file to put where.
        """
        self.network.prepare()

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, 3, H, W) tensors around [0, 1], or (B, 1, H, W) for gray -> (B,)."""
        if min(output.shape[-2:]) < SMALLEST:
            raise UserError(
                f"LPIPS needs images of at least {SMALLEST} x {SMALLEST} pixels, not {output.shape[-1]} x "
                f"{output.shape[-2]}.\nLeave it out of model.metrics, or use larger images."
            )
        # The network is called directly: torchmetrics' own update looks at the pixels' range, and so waits for them.
        return self.network(2 * as_color(output) - 1, 2 * as_color(target) - 1).flatten()


class _Pixels(nn.Module):
    """InceptionV3 takes 8 bits."""

    def __init__(self, inception: nn.Module) -> None:
        super().__init__()
        self.inception = inception

    def forward(self, picture: Tensor) -> Tensor:
        return self.inception((picture * 255).round().to(torch.uint8))


def _same(network: nn.Module) -> nn.Module:
    return network


def _count_features(network: nn.Module) -> int:
    if hasattr(network, "num_features"):
        return int(network.num_features)
    with torch.no_grad():
        return network.eval()(torch.zeros(1, 3, 299, 299)).shape[-1]


def _make_inception(feature: int) -> nn.Module:
    from torchmetrics.image.fid import NoTrainInceptionV3

    way_out = "Or give a network of your own (metrics.NAME.init_args.feature), or leave FID out of model.metrics."
    try:
        return _Pixels(_fetch("FID", INCEPTION, lambda: NoTrainInceptionV3("inception-v3-compat", [str(feature)])))
    except ModuleNotFoundError as error:
        raise UserError(f"FID needs torch-fidelity: pip install -e '.[fid]'\n{way_out}") from error


def _make_lpips(network: str) -> nn.Module:
    import torchvision
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    url = getattr(torchvision.models, BACKBONES[network]).DEFAULT.url
    return _fetch("LPIPS", url, lambda: LearnedPerceptualImagePatchSimilarity(network).net)


def _fetch(metric: str, url: str, make: Callable[[], nn.Module]) -> nn.Module:
    """Make a network whose constructor takes its weights from torch.hub's cache, or downloads them."""
    try:
        return make()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        raise UserError(
            f"{metric}: the weights of its network cannot be had: {reason}\n"
            f"Download {url}\n"
            f"elsewhere and put it at {path},\n"
            f"or leave {metric} out of model.metrics."
        ) from error
