"""A pretrained classification network of torchvision or timm as the encoder of a UNet."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from project.networks.layers import ConvBlock, SkipConnection, activation_gain, initialize, make_up, pad_to_multiple
from project.networks.normalize import Normalize
from project.networks.unet import TAIL_GAIN
from project.networks.weights import adapt_kernel, download, listed, read_weights
from workbench.errors import UserError, choose, did_you_mean, refuse_faults
from workbench.pretrained import pretrained_download_skipped

STRIDES = (2, 4, 8, 16, 32)
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean and std that torchvision's weights were trained with
TIMM = "timm:"  # begins the names of timm's networks
WAY_OUT = "name the file: weights: FILE; weights: none trains from scratch."
PROBE_SIDE = 128  # of the image that finds the stages: any multiple of the largest stride, but not of one pixel there


class BackboneUNet(nn.Module):
    """Image in, image out, both in [0, 1]: an encoder of torchvision or timm, a UNet's decoder with a norm of its own.

    Beside the encoder runs a path at full resolution, since an encoder's stem drops three quarters of the pixels.

    Args:
        backbone: Any convolutional classification network of torchvision, by its name: resnet18, vgg16_bn,
            densenet121, mobilenet_v3_large, efficientnet_b0, convnext_tiny, regnet_y_400mf, ...; or of timm, by its
            name with timm: before it, such as timm:resnet26d (pip install '.[timm]').
        weights: DEFAULT (torchvision's or timm's download and cache) or another of its entries, none (random), or a
            file with a state dict. They are not loaded where a checkpoint's replace them.
        in_channels: 3 for color, 1 for gray; 4: color and a noise map; 5: lightness or lines and hints.
        out_channels: Channels of the output.
        stages: How many halvings of the encoder are used, 1 to 5 (2 to 5 of a ConvNeXt, which starts with two at
            once); fewer are faster and see less far.
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
        _check(in_channels, out_channels, stages, widths, residual)
        network, mean, std = load_pretrained(backbone, weights)
        nodes = {stride: node for stride, node in find_stages(network).items() if stride <= 2**stages}
        if not nodes:
            raise UserError(f"BackboneUNet: {backbone} starts with two halvings at once: stages must be 2 to 5.")
        self.in_channels, self.out_channels, self.residual = in_channels, out_channels, residual
        self.pretrained = not is_random(weights)
        self.multiple = 2**stages  # height and width are padded to a multiple of this
        # Statistics over a single pixel do not exist: the lowest level gets at least 2 x 2 of them.
        self.smallest = 2 * self.multiple
        # The weights' own statistics and not the data's: the encoder was trained with these.
        self.normalize_encoder = Normalize(in_channels, *input_statistics(mean, std, in_channels))
        adapt_input(network, in_channels)
        self.encoder = extract_features(network, nodes)
        with torch.no_grad():
            probe = torch.zeros(1, in_channels, self.smallest, self.smallest)
            depths = {stride: features.shape[1] for stride, features in self.encoder(probe).items()}
        self.encoder.train()

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
            initialize(part, "kaiming", activation_gain("relu") if part in (self.detail, self.decoder) else 1.0)
        with torch.no_grad():
            self.tail.weight.mul_(TAIL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) around [0, 1] -> (B, out_channels, H, W) around [0, 1], not clipped."""
        padded = pad_to_multiple(x, self.multiple, self.smallest)
        h = self.normalize_encoder(padded)
        skipped = {stride: self.lateral[stride](features) for stride, features in self.encoder(h).items()}
        skipped["1"] = self.detail(h)
        stride = self.multiple
        h = skipped[str(stride)]
        for up, join, stage in zip(self.up, self.join, self.decoder, strict=True):
            stride //= 2
            h = stage(join(up(h), skipped.get(str(stride))))
        h = self.tail(h)
        if self.residual:
            h = padded[:, : self.out_channels] + h * self.normalize_output.std
        else:
            h = self.normalize_output.inverse(h)
        return h if padded is x else h[..., : x.shape[-2], : x.shape[-1]]

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


def _check(in_channels: int, out_channels: int, stages: int, widths: list[int], residual: bool) -> None:
    faults = []
    if min(in_channels, out_channels) < 1:
        faults.append(f"in_channels and out_channels must be at least 1, not {in_channels} and {out_channels}")
    if not 1 <= stages <= 5:
        faults.append(f"stages must be 1 to 5, not {stages}")
    elif len(widths) != stages + 1 or min(widths) < 1:
        faults.append(f"widths must be {stages + 1} positive numbers, one more than stages, not {widths}")
    if residual and out_channels > in_channels:
        faults.append(f"residual: true adds the input to the output: out_channels must not be above {in_channels}")
    refuse_faults("BackboneUNet", faults)


def load_pretrained(name: str, weights: str | None) -> tuple[nn.Module, list[float], list[float]]:
    """A classification network in evaluation mode, and the mean and std its weights were trained with, per color.

    The arguments are ``backbone`` and ``weights`` of :class:`BackboneUNet`.
    """
    skip = is_random(weights) or pretrained_download_skipped()
    is_file = not skip and bool(Path(weights).suffix or Path(weights).name != weights)
    build = _build_timm if name.startswith(TIMM) else _build_torchvision
    network, mean, std = build(name.removeprefix(TIMM), None if skip or is_file else weights)
    if is_file:
        _load_file(network, weights, name)
    return network.eval(), list(mean), list(std)


def is_random(weights: str | None) -> bool:
    return weights is None or weights.lower() == "none"


def _build_torchvision(name: str, entry: str | None) -> tuple[nn.Module, list[float], list[float]]:
    import torchvision
    from torchvision.models import get_model, get_model_weights, list_models

    name = choose("backbone", name, list_models(module=torchvision.models))
    if entry is None:
        return get_model(name, weights=None), *IMAGENET
    entries = get_model_weights(name)
    found = entries[choose("weights", entry, ["DEFAULT", *entries.__members__])]
    network = download(f"backbone {name}", partial(get_model, name, weights=found), found.url, f"or {WAY_OUT}")
    transforms = found.transforms()
    return network, *(getattr(transforms, part, value) for part, value in zip(("mean", "std"), IMAGENET, strict=True))


def _build_timm(name: str, tag: str | None) -> tuple[nn.Module, list[float], list[float]]:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"backbone {TIMM}{name} needs a package ({error.name}): pip install '.[timm]'") from error
    known = timm.list_models()
    if name not in known:
        raise UserError(f"backbone: timm has no network called {name!r}.{did_you_mean(name, known, prefix=TIMM)}")
    if tag is None:
        network = timm.create_model(name, pretrained=False)
    else:
        tags = {entry.partition(".")[2]: entry for entry in timm.list_pretrained(f"{name}.*")}
        if not tags and not timm.models.is_model_pretrained(name):
            raise UserError(f"weights: timm has none for {name}; weights: none trains from scratch.")
        entry = {"DEFAULT": name, **tags}[choose("weights", tag, ["DEFAULT", *tags])]
        found = timm.get_pretrained_cfg(entry)
        url = f"https://huggingface.co/{found.hf_hub_id}" if found.hf_hub_id else found.url
        make = partial(timm.create_model, entry, pretrained=True)
        network = download(f"backbone {TIMM}{entry}", make, url, f"and {WAY_OUT}", cached=False)
    return network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"]


def _load_file(network: nn.Module, path: str, name: str) -> None:
    """All weights must fit but those of the last linear layer, which is not used: its number of classes may differ."""
    state, own = read_weights(path, "weights"), network.state_dict()
    linear = [part for part, module in network.named_modules() if isinstance(module, nn.Linear)]
    classifier = f"{linear[-1]}." if linear else "\0"
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    wrong = [key for key in {**own, **state} if key not in fits and not key.startswith(classifier)]
    if wrong:
        raise UserError(
            f"weights: {path} does not fit {name}: {len(wrong)} of the weights are missing, unknown or of another\n"
            f"shape: {listed(wrong)}\nUse a state dict of this network, or the backbone that the file belongs to."
        )
    network.load_state_dict(fits, strict=False)


def find_stages(network: nn.Module) -> dict[int, str]:
    """Where an image is how small: stride -> the last node of that size, as torchvision's feature extraction names it.

    The network is in evaluation mode. Transformers have no such stages: a UserError.
    """
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    try:
        with torch.no_grad():
            names = get_graph_node_names(network, **_tracing(network))[1]
            extractor = create_feature_extractor(network, return_nodes=names, **_tracing(network)).eval()
            features = extractor(torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE))
    except Exception:  # networks for one size of images refuse this one in messages of their own
        features = {}
    stages: dict[int, str] = {}
    for name, value in features.items():
        sides = value.shape[2:] if isinstance(value, Tensor) and value.ndim == 4 else ()
        stride = next((stride for stride in STRIDES if sides == (PROBE_SIDE // stride, PROBE_SIDE // stride)), 0)
        if stride and stride >= max(stages, default=0):
            stages[stride] = name
    # The largest strides without a gap: a transformer has images here and there.
    if max(stages, default=0) < 16 or tuple(stages) != STRIDES[STRIDES.index(min(stages)) :][: len(stages)]:
        raise UserError(
            f"{type(network).__name__} does not halve an image step by step.\n"
            "Use a convolutional network, such as resnet18, efficientnet_b0 or convnext_tiny."
        )
    return stages


def extract_features(network: nn.Module, nodes: dict[int, str]) -> nn.Module:
    """The network, whose layers are shared, up to its deepest node: (B, C, H, W) -> {stride as text: features}."""
    from torchvision.models.feature_extraction import create_feature_extractor

    names = {name: str(stride) for stride, name in nodes.items()}
    found = create_feature_extractor(network, return_nodes=names, **_tracing(network))
    # torchvision's module has a graph for training and one for evaluation, which are the same, but a copy of it forgets
    # which of both modes it is in.
    return torch.fx.GraphModule(found, found.eval_graph).eval()


def _tracing(network: nn.Module) -> dict[str, Any]:
    """Options of torchvision's feature extraction: timm says which of its parts cannot be traced."""
    options: dict[str, Any] = {"suppress_diff_warning": True}
    if type(network).__module__.startswith("timm."):
        from timm.layers import get_notrace_functions, get_notrace_modules

        leaves = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
        options["tracer_kwargs"] = leaves
    return options


def adapt_input(network: nn.Module, channels: int) -> None:
    """Have the first convolution, over colors, take another number of channels, in place: :func:`adapt_kernel`."""
    if channels == 3:
        return
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise UserError(f"{type(network).__name__} has no first convolution over colors that could be adapted.")
    # Not another layer in its place: timm has convolutions of its own, which pad in ways of their own.
    first.weight = nn.Parameter(adapt_kernel(first.weight.detach(), channels))
    first.in_channels = channels


def input_statistics(mean: list[float], std: list[float], channels: int) -> tuple[list[float], list[float]]:
    """What to normalize the adapted input with, one value per channel; channels that are no image stay as they are."""
    if channels in (3, 4):
        return [*mean, *[0.0] * (channels - 3)], [*std, *[1.0] * (channels - 3)]
    return [sum(mean) / 3, *[0.0] * (channels - 1)], [sum(std) / 3, *[1.0] * (channels - 1)]
