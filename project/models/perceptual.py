"""How much two images differ in what VGG19 sees in them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from project.networks.normalize import Normalize
from workbench.errors import UserError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet's images, which VGG19 was trained with."""
LAYERS = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}
"""As pix2pixHD weights them (Wang et al. 2018)."""
CONVOLUTIONS = (2, 2, 4, 4, 4)
"""Of VGG19, in each of its five blocks (Simonyan and Zisserman 2015)."""
FILE = "vgg19-dcbb9e9d.pth"
ADDRESS = f"https://download.pytorch.org/models/{FILE}"


class VGGPerceptual(nn.Module):
    """L1 distance between VGG19's features of two images, a weighted sum over layers (Johnson et al. 2016).

    VGG19 is frozen, and no part of checkpoints, optimizers or averages: it is read anew where a training begins.

    Args:
        weights: DEFAULT (torchvision's, from its cache, else downloaded: 550 MB), or a file of VGG19's state dict.
        layers: Weight of each layer, relu1_1 to relu5_4; null for those of pix2pixHD.

    Raises:
        UserError: For an unknown layer.
    """

    def __init__(self, weights: str = "DEFAULT", layers: dict[str, float] | None = None) -> None:
        super().__init__()
        self.weights = weights
        layers = LAYERS if layers is None else layers
        self.layers = {_position(name): weight for name, weight in layers.items()}
        self._frozen: list[nn.Module] = []  # in a list, where it is no submodule: normalization, VGG19

    def load(self) -> None:
        """Read VGG19's weights, once; called before training.

        Raises:
            UserError: When they cannot be had or do not fit; says the ways out.
        """
        if self._frozen:
            return
        state = _download() if self.weights == "DEFAULT" else _read(Path(self.weights).expanduser())
        state = {name.removeprefix("features."): value for name, value in state.items()}
        vgg = _build(max(self.layers) + 1)
        wanted = vgg.state_dict()
        missing = [name for name, value in wanted.items() if name not in state or state[name].shape != value.shape]
        if missing:
            raise UserError(
                f"{self.weights} does not hold VGG19's weights: features.{missing[0]} is missing or of another shape.\n"
                f"It must be a state dict as {ADDRESS} is one."
            )
        vgg.load_state_dict({name: state[name] for name in wanted})
        self._frozen = [Normalize(3, MEAN, STD), vgg.eval().requires_grad_(False)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VGGPerceptual:
        """To another device, with the module that holds it."""
        for part in self._frozen:
            part._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, 3, H, W) images in [0, 1] -> a scalar; gradients flow to the first alone."""
        with torch.no_grad():
            wanted = self._features(target)
        found = self._features(output)
        distances = [weight * F.l1_loss(found[at].float(), wanted[at].float()) for at, weight in self.layers.items()]
        return torch.stack(distances).sum()

    def _features(self, picture: Tensor) -> dict[int, Tensor]:
        normalize, vgg = self._frozen
        h = normalize(picture)
        found = {}
        for position, layer in enumerate(vgg):
            h = layer(h)
            if position in self.layers:
                found[position] = h
        return found


def _build(count: int) -> nn.Sequential:
    """The first so many layers of VGG19's features, numbered as torchvision's."""
    layers: list[nn.Module] = []
    channels = 3
    for block, convolutions in enumerate(CONVOLUTIONS):
        width = min(64 * 2**block, 512)
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers[:count])


def _position(name: str) -> int:
    """Where ``relu3_2`` stands among the layers."""
    found = re.fullmatch(r"relu([1-5])_([1-4])", name)
    block, convolution = (int(n) for n in found.groups()) if found else (0, 0)
    if not found or convolution > CONVOLUTIONS[block - 1]:
        raise UserError(f"VGGPerceptual: there is no layer {name!r}; there are relu1_1, relu1_2, relu2_1 ... relu5_4.")
    return sum(2 * count + 1 for count in CONVOLUTIONS[: block - 1]) + 2 * convolution - 1


def _download() -> dict[str, Any]:
    cache = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    try:
        return torch.hub.load_state_dict_from_url(ADDRESS, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"model.perceptual: VGG19's weights cannot be had: {reason}\n"
            f"Fetch {ADDRESS} on a machine with a network, and either put it at\n"
            f"{cache}\n"
            "or name it: perceptual.init_args.weights: FILE. Or train without: leave model.perceptual out."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"model.perceptual: VGG19's weights cannot be read from {path}: {reason}\n"
            f"Give the file of {ADDRESS},\nor weights: DEFAULT to have it downloaded."
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"model.perceptual: {path} holds no state dict. Give the file of {ADDRESS}.")
    return state
