"""PatchGAN (Isola et al. 2017): a discriminator that judges every patch of an image by itself."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from project.networks.layers import make_norm
from project.networks.normalize import Normalize
from workbench.errors import UserError


class PatchGAN(nn.Module):
    """Condition and image in, one logit per patch out: above 0 where they look like a real pair.

    As in pix2pix: 4x4 convolutions, ``layers`` of them of stride 2, then two of stride 1; leaky ReLU of slope 0.2;
    weights from N(0, 0.02). With 1, 2, 3, 4 or 5 layers a logit sees 16, 34, 70, 142 or 286 pixels.

    Args:
        in_channels: Channels of the condition (hints included) and of the image together.
        width: Channels of the first layer; doubled by each further one, up to 8 times as many.
        layers: Layers that halve the image; it must have at least 3 * 2^layers pixels a side.
        norm: batch, group, layer, instance or none; WGAN-GP wants any but batch.
        spectral_norm: Divide every kernel by its largest singular value (Miyato et al. 2018); usually with norm none.
    """

    def __init__(
        self, in_channels: int, width: int = 64, layers: int = 3, norm: str = "batch", spectral_norm: bool = False
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.layers = layers
        self.smallest = 3 * 2**layers  # pixels a side: the two last convolutions need 3, and each layer doubles it

        def convolution(channels: int, channels_out: int, stride: int, bias: bool) -> nn.Module:
            conv = nn.Conv2d(channels, channels_out, 4, stride=stride, padding=1, bias=bias)
            nn.init.normal_(conv.weight, std=0.02)
            if bias:
                nn.init.zeros_(conv.bias)
            return parametrizations.spectral_norm(conv) if spectral_norm else conv

        widths = [in_channels, *(width * min(2**level, 8) for level in range(layers + 1))]
        self.normalize_input = Normalize(in_channels)
        self.blocks = nn.ModuleList()
        for level in range(layers + 1):
            norm_layer = make_norm(norm if level > 0 else "none", widths[level + 1])
            stride = 2 if level < layers else 1
            conv = convolution(widths[level], widths[level + 1], stride, bias=norm_layer is None)
            self.blocks.append(nn.Sequential(*filter(None, [conv, norm_layer]), nn.LeakyReLU(0.2, inplace=True)))
        self.tail = convolution(widths[-1], 1, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> logits (B, 1, h, w)."""
        return self.features(x)[-1]

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of every layer, the logits last; for the feature matching loss."""
        height, width = x.shape[-2:]
        if min(height, width) < self.smallest:
            raise UserError(
                f"The discriminator is too deep for the images: PatchGAN with layers: {self.layers} needs "
                f"{self.smallest} pixels a side, and they are {width} x {height}.\n"
                f"Set fewer layers in its init_args, or use larger images: data.crop: {self.smallest}, or data.resize."
            )
        outputs = [self.normalize_input(x)]
        for layer in (*self.blocks, self.tail):
            outputs.append(layer(outputs[-1]))
        return outputs[1:]
