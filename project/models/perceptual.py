"""What sees images through a pretrained network: VGG's perceptual loss, and LPIPS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from project.models.metrics import ImageMean, as_color
from project.networks.backbone import IMAGENET
from project.networks.normalize import Normalize
from project.networks.weights import download, read_weights
from workbench.errors import UserError, choose

VGG_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VGG_WEIGHTS = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}
"""As pix2pixHD weights VGG19's layers (Wang et al. 2018)."""
VGG_CONVS = (2, 2, 4, 4, 4)
"""Of VGG19, in each of its five blocks (Simonyan and Zisserman 2015): each with a ReLU, each block with a pool."""
VGG_LAYERS = {
    f"relu{block + 1}_{conv + 1}": sum(2 * count + 1 for count in VGG_CONVS[:block]) + 2 * conv + 1
    for block in range(5)
    for conv in range(VGG_CONVS[block])
}
"""Where each stands among VGG19's layers."""
LPIPS_WEIGHTS = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}
LPIPS_SMALLEST = 32
"""Side in pixels that every network of LPIPS takes."""


class DetachedNetwork(nn.Module):
    """A frozen network that is not a part of the model: no checkpoint, optimizer or average sees its weights.

    It is made when it is first needed, so that a checkpoint can be used where its weights are missing. Copies share it.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self._make = make
        self._made: list[nn.Module] = []  # in a list, or it would be registered as a part

    def __deepcopy__(self, memo: dict[int, Any]) -> DetachedNetwork:
        return self

    def load(self) -> nn.Module:
        """Make the network, if it is not there yet."""
        if not self._made:
            with torch.random.fork_rng(devices=[]):  # its initial weights must not shift the training's random numbers
                self._made.append(self._make().requires_grad_(False).eval())
        return self._made[0]

    def forward(self, *images: Tensor) -> Any:
        return self.load().to(images[0].device)(*images)


class VGGPerceptual(nn.Module):
    """L1 distance between VGG19's features of two images, a weighted sum over layers (Johnson et al. 2016).

    Args:
        weights: DEFAULT (torchvision's, from its cache, else downloaded: 550 MB), or a file of VGG19's state dict.
        layers: Weight of each layer, relu1_1 to relu5_4; null for those of pix2pixHD.
    """

    def __init__(self, weights: str = "DEFAULT", layers: dict[str, float] | None = None) -> None:
        super().__init__()
        layers = layers or VGG_WEIGHTS
        self.layers = {VGG_LAYERS[choose("VGGPerceptual.layers", name, VGG_LAYERS)]: layers[name] for name in layers}
        self.vgg = DetachedNetwork(partial(_make_vgg, weights, max(self.layers) + 1))

    def load(self) -> None:
        """Called before training, so that what is missing is reported then."""
        self.vgg.load()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, 3, H, W) images in [0, 1] -> a scalar; gradients flow to the first alone."""
        distances = []
        for position, layer in enumerate(self.vgg.load().to(output.device), -1):
            output = layer(output)
            with torch.no_grad():
                target = layer(target)
            if position in self.layers:
                distances.append(self.layers[position] * F.l1_loss(output.float(), target.float()))
        return torch.stack(distances).sum()


def _make_vgg(weights: str, count: int) -> nn.Module:
    """A normalization, and so many of VGG19's layers."""
    from torchvision.models.vgg import cfgs, make_layers

    if weights == "DEFAULT":
        options = {"map_location": "cpu", "check_hash": True, "weights_only": True}
        load = partial(torch.hub.load_state_dict_from_url, VGG_URL, **options)
        way_out = "or name the file: perceptual.init_args.weights: FILE. Without: leave model.perceptual out."
        state = download("model.perceptual (VGG19)", load, VGG_URL, way_out)
    else:
        state = read_weights(weights, "model.perceptual")
    with torch.device("meta"):
        vgg = make_layers(cfgs["E"])[:count]
    state = {name.removeprefix("features."): value for name, value in state.items()}
    shapes = vgg.state_dict()
    missing = [name for name, value in shapes.items() if name not in state or state[name].shape != value.shape]
    if missing:
        raise UserError(
            f"model.perceptual: {weights} does not hold VGG19's weights: features.{missing[0]} is missing or has\n"
            f"another shape. Use the file of {VGG_URL}."
        )
    vgg.load_state_dict({name: state[name] for name in shapes}, assign=True)
    return nn.Sequential(Normalize(3, *IMAGENET), *vgg)


class LPIPS(ImageMean):
    """Perceptual distance of each output to its target (Zhang et al. 2018); 0 is the same image, lower is better.

    Args:
        network: The network that compares: alex (the paper's choice for measuring), vgg or squeeze.
    """

    higher_is_better = False

    def __init__(self, network: Literal["alex", "vgg", "squeeze"] = "alex") -> None:
        super().__init__()
        self.network = DetachedNetwork(partial(_make_lpips, network))

    def load(self) -> None:
        self.network.load()

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        if min(output.shape[-2:]) < LPIPS_SMALLEST:
            raise UserError(
                f"LPIPS needs images of at least {LPIPS_SMALLEST} x {LPIPS_SMALLEST} pixels, not {output.shape[-1]} x "
                f"{output.shape[-2]}.\nLeave it out of model.metrics, or use larger images."
            )
        # The network is called directly: torchmetrics' own update checks the pixels' range, and so waits for them.
        with torch.autocast(output.device.type, enabled=False):
            return self.network(2 * as_color(output) - 1, 2 * as_color(target) - 1).flatten()


def _make_lpips(network: str) -> nn.Module:
    import torchvision
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    url = getattr(torchvision.models, LPIPS_WEIGHTS[network]).DEFAULT.url
    make = partial(LearnedPerceptualImagePatchSimilarity, network)
    return download("LPIPS", make, url, "or leave LPIPS out of model.metrics.").net
