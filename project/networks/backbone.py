"""A pretrained classification network as the encoder of a UNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from project.networks.blocks import ConvBlock, Join, make_up, pad_up
from project.networks.initialize import activation_gain, initialize
from project.networks.normalize import Normalize
from project.networks.pretrained import (
    adapt_input,
    cut,
    find_stages,
    input_statistics,
    layers_of_stages,
    load_pretrained,
)
from project.networks.unet import TAIL
from workbench.errors import UserError, choose


class BackboneUNet(nn.Module):
    """Image in, image out, both in [0, 1]: an encoder of torchvision or timm, a decoder of a UNet.

    Beside the encoder runs a path at full resolution, since an encoder's stem throws three quarters of the places away.

    Args:
        backbone: Any convolutional classification network of torchvision, by its name: resnet18, vgg16_bn,
            densenet121, mobilenet_v3_large, efficientnet_b0, convnext_tiny, regnet_y_400mf, ...; or of timm, by its
            name with timm: before it, such as timm:resnet26d (pip install '.[timm]').
        weights: DEFAULT (torchvision's or timm's download and cache), none (random), or a file with a state dict. They
            are not asked for where a checkpoint's take their place.
        in_channels: 3 for color, 1 for gray; 4: color and a noise map; 5: lightness or lines and hints.
        out_channels: Channels of the output.
        stages: How many halvings of the encoder are used, 1 to 5 (2 to 5 of a ConvNeXt, which starts with two at
            once); fewer are faster and see less far.
        widths: Channels of the decoder from full resolution down, one more than stages; null: 32, 48, 64, 96, 128, 192.
        activation: Of the decoder: relu, leaky_relu, silu, gelu, ...
        norm: Of the decoder: batch, group, layer, instance or none.
        up: Doubling by transposed, bilinear or pixel_shuffle.
        skip: How the decoder takes what the encoder kept: concat or add.
        residual: Predict the difference to the input (its first out_channels channels): for restoration.
        init: How the decoder's weights start: kaiming, xavier or orthogonal.

    Raises:
        UserError: For unknown names, impossible numbers, or weights that cannot be had.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | None = "DEFAULT",
        in_channels: int = 3,
        out_channels: int = 3,
        stages: int = 5,
        widths: list[int] | None = None,
        activation: str = "relu",
        norm: str = "batch",
        up: str = "bilinear",
        skip: str = "concat",
        residual: bool = False,
        init: str = "kaiming",
    ) -> None:
        super().__init__()
        widths = list(widths or [32, 48, 64, 96, 128, 192][: stages + 1])
        skip = choose("skip", skip, ("concat", "add"))
        _check(in_channels, out_channels, stages, widths, residual)
        found = load_pretrained(backbone, weights)
        nodes = {stride: node for stride, node in find_stages(found.network).items() if stride <= 2**stages}
        if not nodes:
            raise UserError(f"BackboneUNet: {backbone} starts with two halvings at once: stages must be 2 to 5.")
        self.in_channels, self.out_channels, self.residual = in_channels, out_channels, residual
        self.pretrained = found.trained
        self.multiple = 2**stages
        """Height and width are padded to a multiple of this inside ``forward``."""
        # Statistics over a single pixel do not exist: the lowest level gets at least 2 x 2 of them.
        self.smallest = 2 * self.multiple
        # The weights' own statistics and not the data's: the encoder was trained with these.
        self.normalize_encoder = Normalize(in_channels, *input_statistics(found.mean, found.std, in_channels))
        adapt_input(found.network, in_channels)
        self.encoder = cut(found.network, nodes)
        with torch.no_grad():
            probe = torch.zeros(1, in_channels, 2 * self.multiple, 2 * self.multiple)
            depths = {stride: kept.shape[1] for stride, kept in self.encoder(probe).items()}
        self.encoder.train()

        def block(channels: int) -> ConvBlock:
            return ConvBlock(channels, 2, 3, activation, norm, 8, norm == "none", 0.0, False, True)

        self.detail = nn.Sequential(nn.Conv2d(in_channels, widths[0], 3, padding=1), block(widths[0]))
        self.lateral = nn.ModuleDict(
            {stride: nn.Conv2d(depth, widths[int(stride).bit_length() - 1], 1) for stride, depth in depths.items()}
        )
        levels = list(reversed(range(stages)))
        self.up = nn.ModuleList([make_up(up, widths[level + 1], widths[level], True) for level in levels])
        # An encoder that starts with two halvings keeps nothing at half the size.
        joins = [skip if level == 0 or str(2**level) in depths else "none" for level in levels]
        self.join = nn.ModuleList([Join(widths[at], how, True) for at, how in zip(levels, joins, strict=True)])
        self.decoder = nn.ModuleList([block(widths[level]) for level in levels])
        self.tail = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        self.normalize_output = Normalize(out_channels)
        gain = activation_gain(activation)
        for part in (self.detail, self.lateral, self.up, self.join, self.decoder, self.tail):
            initialize(part, init, gain if part in (self.detail, self.decoder) else 1.0)
        with torch.no_grad():
            self.tail.weight.mul_(TAIL)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) around [0, 1] -> (B, out_channels, H, W) around [0, 1], not clipped."""
        whole = pad_up(x, self.multiple, self.smallest)
        h = self.normalize_encoder(whole)
        kept = {stride: self.lateral[stride](value) for stride, value in self.encoder(h).items()}
        kept["1"] = self.detail(h)
        stride = self.multiple
        h = kept[str(stride)]
        for up, join, stage in zip(self.up, self.join, self.decoder, strict=True):
            h, stride = up(h), stride // 2
            h = stage(join(h, kept.get(str(stride))))
        h = self.tail(h)
        if self.residual:
            h = whole[:, : self.out_channels] + h * self.normalize_output.std
        else:
            h = self.normalize_output.inverse(h)
        return h if whole is x else h[..., : x.shape[-2], : x.shape[-1]]

    def encoder_stages(self) -> list[list[str]]:
        """Names of the encoder's layers, a list for each stage, from the first on: what can be frozen one by one."""
        return [[f"encoder.{name}" for name in names] for names in layers_of_stages(self.encoder)]


def _check(in_channels: int, out_channels: int, stages: int, widths: list[int], residual: bool) -> None:
    faults = []
    if in_channels < 1 or out_channels < 1:
        faults.append(f"in_channels and out_channels must be at least 1, not {in_channels} and {out_channels}")
    if not 1 <= stages <= 5:
        faults.append(f"stages must be 1 to 5, not {stages}")
    elif len(widths) != stages + 1 or min(widths) < 1:
        faults.append(f"widths must be {stages + 1} positive numbers, one more than stages, not {widths}")
    if residual and out_channels > in_channels:
        faults.append(f"residual: true adds the input to the output: out_channels must not be above {in_channels}")
    if faults:
        raise UserError("BackboneUNet cannot be built:\n" + "\n".join(f"- {fault}" for fault in faults))
