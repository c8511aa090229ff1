"""PatchGAN (Isola et al. 2017): a discriminator that judges every patch of an image by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalize_spectrum

from project.networks.blocks import make_norm
from project.networks.normalize import Normalize
from workbench.errors import UserError

LEAST = 3
"""Pixels a side that the two last convolutions (4x4, stride 1) need; every halving layer doubles it."""


class PatchGAN(nn.Module):
    """Condition and answer in, one logit a patch out: above 0 where they look like a real pair.

    As in pix2pix: 4x4 convolutions, ``layers`` of them of stride 2, then two of stride 1; leaky ReLU of slope 0.2;
    weights from N(0, 0.02). With 1, 2, 3, 4 or 5 layers a logit looks at 16, 34, 70, 142 or 286 pixels.

    Args:
        in_channels: Channels of the condition (hints included) and of the answer together.
        width: Channels of the first layer; doubled by each further one, up to 8 times as many.
        layers: Layers that halve the image; it must have at least 3 * 2^layers pixels a side.
        norm: batch, group, layer, instance or none; WGAN-GP wants any but batch.
        norm_groups: At most so many groups for the group norm.
        spectral_norm: Divide every kernel by its largest singular value (Miyato et al. 2018); usually with norm none.

    Raises:
        UserError: For an unknown norm or an impossible number; in ``forward`` for an image that is too small.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        layers: int = 3,
        norm: str = "batch",
        norm_groups: int = 8,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        given = {"in_channels": in_channels, "width": width, "layers": layers, "norm_groups": norm_groups}
        faults = [f"- {name} must be at least 1, not {value}" for name, value in given.items() if value < 1]
        if faults:
            raise UserError("\n".join(["PatchGAN cannot be built:", *faults]))
        self.in_channels = in_channels
        self.layers = layers
        self.smallest = LEAST * 2**layers
        """Height and width of the smallest image that it can judge, in pixels."""
        widths = [width * min(2**level, 8) for level in range(layers + 1)]
        self.normalize_input = Normalize(in_channels)
        blocks = [_block(in_channels, widths[0], 2, "none", norm_groups, spectral_norm)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            blocks.append(_block(widths[level - 1], widths[level], stride, norm, norm_groups, spectral_norm))
        self.blocks = nn.ModuleList(blocks)
        self.tail = _convolution(widths[-1], 1, 1, True, spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> logits (B, 1, h, w)."""
        return self.features(x)[-1]

    def features(self, x: Tensor) -> list[Tensor]:
        """What every layer makes of (B, in_channels, H, W), the logits last; for the feature matching loss."""
        self.check_size(*x.shape[-2:])
        h = self.normalize_input(x)
        found: list[Tensor] = []
        for block in self.blocks:
            h = block(h)
            found.append(h)
        return [*found, self.tail(h)]

    def check_size(self, height: int, width: int) -> None:
        """Whether it can judge images of that size, in pixels.

        Raises:
            UserError: When they are too small; says what would fit.
        """
        side = min(height, width)
        if side >= self.smallest:
            return
        most = (side // LEAST).bit_length() - 1
        less = f"Set layers: {most} in the discriminator's init_args (at most), or use" if most >= 1 else "Use"
        raise UserError(
            f"The discriminator is too deep for the images: PatchGAN with layers: {self.layers} needs "
            f"{self.smallest} pixels a side, and they are {width} x {height}.\n"
            f"{less} larger ones: data.crop: {self.smallest}, or data.resize where the files are smaller."
        )


def _block(channels: int, channels_out: int, stride: int, norm: str, groups: int, spectral: bool) -> nn.Sequential:
    norm_layer = make_norm(norm, channels_out, groups)
    layers = [_convolution(channels, channels_out, stride, norm_layer is None, spectral), norm_layer]
    return nn.Sequential(*filter(None, layers), nn.LeakyReLU(0.2, inplace=True))


def _convolution(channels: int, channels_out: int, stride: int, bias: bool, spectral: bool) -> nn.Module:
    convolution = nn.Conv2d(channels, channels_out, 4, stride=stride, padding=1, bias=bias)
    with torch.no_grad():
        nn.init.normal_(convolution.weight, std=0.02)
        if bias:
            nn.init.zeros_(convolution.bias)
    return normalize_spectrum(convolution) if spectral else convolution
