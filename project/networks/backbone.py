"""A pretrained classification network of torchvision as the encoder of a UNet."""

from __future__ import annotations

import math
import pickle
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from project.networks.layers import ConvBlock, SkipConnection, initialize, make_up, pad_to_multiple, require
from project.networks.normalize import Normalize, Statistics
from project.networks.unet import TAIL_GAIN, decode
from project.networks.weights import adapt_kernel, listed, read_weights, reason_of
from workbench.errors import UserError, choose
from workbench.task import pretrained_download_skipped

STRIDES = (2, 4, 8, 16, 32)
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean and std that torchvision's weights were trained with
RANDOM = (None, "none", "None")
PROBE_SIDE = 128  # of the image that finds the stages: any multiple of the largest stride, but not of one pixel there


class BackboneUNet(nn.Module):
    """Image in, image out, both in [0, 1]: an encoder of torchvision, and a UNet's decoder with a norm of its own.

    Beside the encoder runs a path at full resolution, since an encoder's stem drops three quarters of the pixels.

    Args:
        backbone: Any convolutional classification network of torchvision: resnet18, vgg16_bn, densenet121,
            mobilenet_v3_large, efficientnet_b0, convnext_tiny, regnet_y_400mf, ...
        weights: DEFAULT (torchvision's download and cache), another of its entries, none (random), or a file with a
            state dict. They are not loaded where a checkpoint's replace them.
        in_channels: 3 for color, 1 for gray; 4: color and a noise map; 5: lightness or lines and hints.
        out_channels: Channels of the output.
        stages: How many halvings of the encoder are used, 1 to 5 (ConvNeXt: from 2 on); fewer see less far.
        widths: Channels of the decoder from full resolution down, one more than stages; null: 32, 48, 64, 96, 128, 192.
        norm: Of the decoder: batch, group, layer, instance or none.
        residual: Predict the difference to the input (its first out_channels channels): for restoration.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | None = "DEFAULT",
        in_channels: int = 3,
        out_channels: int = 3,
        stages: int = 5,
        widths: list[int] | None = None,
        norm: str = "batch",
        residual: bool = False,
    ) -> None:
        super().__init__()
        widths = list(widths or [32, 48, 64, 96, 128, 192][: stages + 1])
        require(
            "BackboneUNet cannot be built",
            {
                "in_channels and out_channels must be at least 1": min(in_channels, out_channels) >= 1,
                "stages must be 1 to 5, and widths positive numbers, one more than stages": (
                    1 <= stages <= 5 and len(widths) == stages + 1 and min(widths) >= 1
                ),
                "residual adds the input to the output: out_channels must not be above in_channels": (
                    not residual or out_channels <= in_channels
                ),
            },
        )
        network, statistics = load_pretrained(backbone, weights)
        self.in_channels, self.out_channels, self.residual = in_channels, out_channels, residual
        self.pretrained = weights not in RANDOM
        self.multiple = 2**stages  # height and width are padded to a multiple of this
        # Statistics over a single pixel do not exist: the lowest level gets at least 2 x 2 of them.
        self.smallest = 2 * self.multiple
        # The weights' own statistics and not the data's: the encoder was trained with these.
        self.normalize_encoder = Normalize(in_channels, *adapt_input(network, statistics, in_channels))
        self.encoder, depths = extract_stages(network, in_channels, stages)

        levels = list(reversed(range(stages)))
        self.detail = nn.Sequential(nn.Conv2d(in_channels, widths[0], 3, padding=1), ConvBlock(widths[0], norm=norm))
        self.lateral = nn.ModuleDict(
            {stride: nn.Conv2d(depth, widths[int(stride).bit_length() - 1], 1) for stride, depth in depths.items()}
        )
        self.up = nn.ModuleList([make_up("bilinear", widths[level + 1], widths[level]) for level in levels])
        # An encoder that starts with two halvings has no features at half the size.
        skips = ["concat" if level == 0 or str(2**level) in depths else "none" for level in levels]
        self.join = nn.ModuleList([SkipConnection(widths[at], how) for at, how in zip(levels, skips, strict=True)])
        self.decoder = nn.ModuleList([ConvBlock(widths[level], norm=norm) for level in levels])
        self.tail = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        self.normalize_output = Normalize(out_channels)
        for part in (self.detail, self.lateral, self.up, self.join, self.decoder, self.tail):
            initialize(part, "kaiming", math.sqrt(2) if part in (self.detail, self.decoder) else 1.0)  # ReLU's gain
        self.tail.weight.data.mul_(TAIL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) around [0, 1] -> (B, out_channels, H, W) around [0, 1], not clipped."""
        padded = pad_to_multiple(x, self.multiple, self.smallest)
        h = self.normalize_encoder(padded)
        features = self.encoder(h)
        skipped = [self.detail(h)]
        for stride in STRIDES[: len(self.up)]:
            found = str(stride) in features
            skipped.append(self.lateral[str(stride)](features[str(stride)]) if found else None)
        output = decode(self, skipped.pop(), skipped, padded)
        return output if padded is x else output[..., : x.shape[-2], : x.shape[-1]]

    def encoder_stages(self) -> list[list[str]]:
        """Names of the encoder's layers and parameters, a list per stage, in the order they run in."""
        *nodes, output = self.encoder.graph.nodes
        ends = set(output.args[0].values())
        stages: list[list[str]] = [[]]
        for node in nodes:
            name = f"encoder.{node.target}"
            if node.op in ("call_module", "get_attr") and name not in stages[-1]:
                stages[-1].append(name)
            if node in ends:
                stages.append([])
        return stages[:-1]


def load_pretrained(name: str, weights: str | None) -> tuple[nn.Module, Statistics]:
    """A classification network in evaluation mode, and the mean and std its weights were trained with, per color.

    The arguments are ``backbone`` and ``weights`` of :class:`BackboneUNet`.
    """
    import torchvision
    from torchvision.models import get_model, get_model_weights, list_models

    name = choose("backbone", name, list_models(module=torchvision.models))
    if weights in RANDOM or pretrained_download_skipped():
        return get_model(name, weights=None).eval(), IMAGENET
    if Path(weights).suffix or Path(weights).name != weights:
        network = get_model(name, weights=None)
        _load_file(network, weights, name)
        return network.eval(), IMAGENET
    entries = get_model_weights(name)
    found = entries[choose("weights", weights, ["DEFAULT", *entries.__members__])]
    try:
        network = get_model(name, weights=found)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"backbone {name}: its weights cannot be downloaded: {reason_of(error)}\n"
            f"Download {found.url} on a machine with a network, and name the file: weights: FILE;\n"
            "weights: none trains from scratch."
        ) from error
    transforms = found.transforms()
    return network.eval(), (getattr(transforms, "mean", IMAGENET[0]), getattr(transforms, "std", IMAGENET[1]))


def _load_file(network: nn.Module, path: str, name: str) -> None:
    """All weights must fit but those of the classifier, the last part, whose number of classes may differ."""
    state, own = read_weights(path, "weights"), network.state_dict()
    *_, (classifier, _) = network.named_children()
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    wrong = [key for key in {**own, **state} if key not in fits and not key.startswith(f"{classifier}.")]
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]  # which old files lack
    if wrong:
        raise UserError(
            f"weights: {path} does not fit {name}: {len(wrong)} of the weights are missing, unknown or of another\n"
            f"shape: {listed(wrong)}\nUse a state dict of this network, or the backbone that the file belongs to."
        )
    network.load_state_dict(fits, strict=False)


def extract_stages(network: nn.Module, channels: int, stages: int) -> tuple[nn.Module, dict[str, int]]:
    """The network up to the given number of halvings, (B, C, H, W) -> {stride: the last features of that size}.

    Strides are texts, and come with the number of channels of each. UserError for a transformer, which has none.
    """
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    extract = partial(create_feature_extractor, network, suppress_diff_warning=True)
    try:
        extractor = extract(get_graph_node_names(network, suppress_diff_warning=True)[1]).eval()
        with torch.no_grad():
            features = extractor(torch.zeros(1, channels, PROBE_SIDE, PROBE_SIDE))
    except Exception:  # networks for one size of images refuse this one in messages of their own
        features = {}
    found: dict[int, str] = {}
    for name, value in features.items():
        sides = value.shape[2:] if isinstance(value, Tensor) and value.ndim == 4 else ()
        stride = next((stride for stride in STRIDES if sides == (PROBE_SIDE // stride, PROBE_SIDE // stride)), 0)
        if stride and stride >= max(found, default=0):
            found[stride] = name
    # The largest strides without a gap: a transformer has images here and there.
    if max(found, default=0) < 16 or tuple(found) != STRIDES[STRIDES.index(min(found)) :][: len(found)]:
        raise UserError(
            f"{type(network).__name__} does not halve an image step by step.\n"
            "Use a convolutional network, such as resnet18, efficientnet_b0 or convnext_tiny."
        )
    nodes = {name: str(stride) for stride, name in found.items() if stride <= 2**stages}
    if not nodes:
        raise UserError(f"{type(network).__name__} starts with two halvings at once: stages must be 2 to 5.")
    both = extract(nodes)
    # torchvision's module has a graph for training and one for evaluation, which are the same, but a copy of it forgets
    # which of both modes it is in.
    encoder = torch.fx.GraphModule(both, both.eval_graph)
    return encoder.train(), {stride: features[name].shape[1] for name, stride in nodes.items()}


def adapt_input(network: nn.Module, statistics: Statistics, channels: int) -> Statistics:
    """Have the first convolution take other channels than colors, in place: :func:`adapt_kernel`.

    Returns what to normalize such an input with; channels that are no image stay as they are.
    """
    mean, std = statistics
    if channels == 3:
        return mean, std
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise UserError(f"{type(network).__name__} has no first convolution over colors that could be adapted.")
    first.weight = nn.Parameter(adapt_kernel(first.weight.detach(), channels))
    first.in_channels = channels
    if channels != 4:
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    others = channels - len(mean)
    return [*mean, *[0.0] * others], [*std, *[1.0] * others]
