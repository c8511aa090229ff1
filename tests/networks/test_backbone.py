"""A small backbone does for most of it; the families are tried once each, at the smallest size."""

from __future__ import annotations

import pytest
import torch

from project.errors import UserError
from project.networks import BackboneUNet

FAMILIES = [
    "resnet18",
    "vgg11_bn",
    "densenet121",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
    "regnet_y_400mf",
]


def small(**options) -> BackboneUNet:
    torch.manual_seed(0)
    given = {"backbone": "mobilenet_v3_small", "weights": "none", "widths": [4, 4, 6, 6, 8, 8]}
    return BackboneUNet(**{**given, **options})


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_a_picture_and_a_gradient_to_its_first_layer(name):
    torch.manual_seed(0)
    network = BackboneUNet(name, "none", widths=[4, 4, 6, 6, 8, 8])
    output = network(torch.rand(2, 3, 70, 45))
    assert output.shape == (2, 3, 70, 45)
    output.square().mean().backward()
    first = next(part for part in network.encoder.modules() if isinstance(part, torch.nn.Conv2d))
    assert first.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (33, 70), (64, 32)])
@pytest.mark.parametrize(("channels", "out"), [(3, 3), (1, 3), (5, 2), (4, 3)])
def test_any_size_and_number_of_channels(training, size, channels, out):
    network = small(in_channels=channels, out_channels=out).train(training)
    assert network(torch.rand(2, channels, *size)).shape == (2, out, *size)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_fewer_stages_cut_the_encoder_shorter(stages):
    network = small(stages=stages, widths=[4] * (stages + 1))
    whole = small()
    assert network.multiple == 2**stages
    assert sum(1 for _ in network.encoder.parameters()) < sum(1 for _ in whole.encoder.parameters())
    assert network(torch.rand(1, 3, 20, 31)).shape == (1, 3, 20, 31)


def test_a_residual_network_starts_near_its_input():
    x = torch.rand(2, 3, 64, 96)
    network = small(residual=True, norm="none").eval()
    network.tail.weight.data.zero_()
    torch.testing.assert_close(network(x), x)


def test_the_encoder_sees_what_its_weights_were_trained_with():
    network = small()
    assert network.normalize_encoder.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    seen = []
    first = next(part for part in network.encoder.modules() if isinstance(part, torch.nn.Conv2d))
    first.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    x = torch.rand(1, 3, 64, 64)
    network.eval()(x)
    expected = (x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        1, 3, 1, 1
    )
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet19"}, "resnet18"),
        ({"backbone": "vit_b_16"}, "convolutional"),
        ({"stages": 6, "widths": None}, "stages must be 1 to 5"),
        ({"widths": [4, 4]}, "one more than stages"),
        ({"in_channels": 1, "out_channels": 3, "residual": True}, "residual"),
        ({"weights": "IMAGENET9"}, "IMAGENET1K_V1"),
    ],
)
def test_a_mistake_is_named(options, words):
    with pytest.raises(UserError, match=words):
        small(**options)
