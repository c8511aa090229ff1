import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from project.networks import UNet
from project.networks.layers import ACTIVATIONS, SelfAttention
from workbench.errors import UserError

FAST = {"norm": "none", "stage_residual": True, "skip": "add", "stem": 2, "residual": True, "init": "orthogonal"}


def ramps(channels: int, height: int, width: int, batch: int = 1) -> torch.Tensor:
    """Images in [0, 1] that are not random: each channel a ramp in another direction."""
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)[None, :]
    planes = [((c + 1) * y + x * (b + 1)) % 1 for b in range(batch) for c in range(channels)]
    return torch.stack(planes).reshape(batch, channels, height, width)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (33, 17), (16, 24), (1, 40)])
def test_any_size_in_training_and_inference(height, width, stem, train):
    network = UNet(in_channels=4, out_channels=2, widths=[4, 8, 16], stem=stem).train(train)
    assert network(torch.rand(3, 4, height, width)).shape == (3, 2, height, width)


OPTIONS = {
    "activation": list(ACTIVATIONS),
    "norm": ["batch", "group", "layer", "instance", "none"],
    "down": ["strided", "max", "average"],
    "up": ["transposed", "bilinear", "pixel_shuffle"],
    "skip": ["concat", "add", "none"],
    "attention": [[0], [1], [0, 1]],
    "init": ["kaiming", "xavier", "orthogonal"],
    "stem": [1, 2, 4],
    "kernel_size": [1, 3, 5],
    "convs": [1, 3],
    "widths": [[4], [3, 5, 4], [4, 4, 4, 4]],
    "dropout": [0.25],
    "stage_residual": [True],
    "last_activation": [False],
    "residual": [True],
}


@pytest.mark.parametrize(
    ("option", "value"), [pair for name, values in OPTIONS.items() for pair in itertools.product([name], values)]
)
def test_every_option_learns_from_a_single_odd_image(option, value):
    network = UNet(**{"widths": [4, 8], option: value})
    output = network(ramps(3, 9, 6))
    output.square().mean().backward()
    assert output.shape == (1, 3, 9, 6) and network(ramps(3, 1, 1)).isfinite().all()
    attending = [name for name, part in network.named_modules() if isinstance(part, SelfAttention)]
    assert attending == {"[0]": ["encoder.0.1", "decoder.0.1"], "[1]": ["middle.1"]}.get(str(value), attending)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_forward_equals_the_written_out_network():
    """Two levels, stem, additive skips and residual stages, in plain function calls; the border is replicated."""
    network = UNet(widths=[4, 6], **FAST)
    network.normalize_input.set([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    network.normalize_output.set([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    state = network.state_dict()
    image = ramps(3, 7, 10, batch=2)
    x = F.pad(image, (0, 2, 0, 1), mode="replicate")

    def conv(name, h, **options):
        return F.conv2d(h, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def stage(name, h):
        inner = conv(f"{name}.0.body.0", h, padding=1).relu()
        return h + conv(f"{name}.0.body.2", inner, padding=1).relu()

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    h = conv("head", F.pixel_unshuffle((x - mean) / std, 2), padding=1)
    skipped = stage("encoder.0", h)
    h = stage("middle", conv("down.0", skipped, stride=2))
    h = F.conv_transpose2d(h, state["up.0.weight"], state["up.0.bias"], stride=2) + skipped
    h = F.pixel_shuffle(conv("tail", stage("decoder.0", h), padding=1), 2)
    output = x + h * torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    torch.testing.assert_close(network(image), output[..., :7, :10])


def test_a_residual_network_with_a_tail_of_zeros_returns_the_image_whatever_the_statistics():
    network = UNet(in_channels=4, out_channels=3, widths=[4, 8], residual=True)
    network.normalize_input.set([0.1, 0.2, 0.3, 0.0], [0.2, 0.3, 0.4, 1.0])
    network.normalize_output.set(0.7, 0.9)
    nn.init.zeros_(network.tail.weight)
    x = torch.rand(2, 4, 13, 6)
    assert torch.equal(network(x), x[:, :3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rellu"}, "activation: 'rellu' is not known. Did you mean 'relu'"),
        ({"norm": "bacth"}, "Did you mean 'batch'"),
        ({"kernel_size": 4, "convs": 0}, "stem must be at least 1\n- kernel_size must be odd"),
        ({"dropout": 1.0}, "dropout"),
        ({"widths": []}, "widths"),
        ({"widths": [4, 6, 8], "attention": [3]}, "attention must name levels, from 0 to 2"),
        ({"residual": True, "in_channels": 1}, "residual adds the input"),
    ],
)
def test_invalid_options_are_named(options, message):
    with pytest.raises(UserError) as error:
        UNet(**options)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 10
