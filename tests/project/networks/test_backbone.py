"""A small backbone does for most of it; the families are tried once each, at the smallest size."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models.feature_extraction import create_feature_extractor

from project.networks import BackboneUNet, pretrained
from workbench.errors import UserError

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


def check_family(name: str) -> None:
    torch.manual_seed(0)
    network = BackboneUNet(name, "none", widths=[4, 4, 6, 6, 8, 8])
    assert all(module.training for module in network.modules())
    output = network(torch.rand(2, 3, 70, 45))
    assert output.shape == (2, 3, 70, 45)
    output.square().mean().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]
    first = next(part for part in network.encoder.modules() if isinstance(part, torch.nn.Conv2d))
    assert first.weight.grad.abs().sum() > 0
    names = [name for stage in network.encoder_stages() for name in stage]
    inside = [n for n, _ in network.named_parameters() if n.startswith("encoder.")]
    held = [[name for name in names if n == name or n.startswith(f"{name}.")] for n in inside]
    assert all(len(set(of_one)) == 1 for of_one in held)
    network.eval().to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 33, 66)
    with torch.no_grad():
        there = network(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(network.to(memory_format=torch.contiguous_format)(x), there, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_a_picture_and_gradients(name):
    check_family(name)


def test_a_small_backbone_gives_a_picture_and_gradients():
    check_family("mobilenet_v3_small")


def test_an_encoder_that_starts_with_two_halvings_needs_two_stages():
    with pytest.raises(UserError, match="stages must be 2 to 5"):
        small(backbone="convnext_tiny", stages=1, widths=[4, 4])


def test_no_weights_are_asked_for_where_a_checkpoint_brings_them(monkeypatch):
    source = small()
    with torch.no_grad():
        source.normalize_encoder.mean.fill_(0.3)
    with pretrained.skip_pretrained_download():
        for weights in ("DEFAULT", "gone/file.pth"):
            twin = small(weights=weights)
            assert twin.pretrained
            twin.load_state_dict(source.state_dict())
    with pytest.raises(UserError, match="there is no file"):
        small(weights="gone/file.pth")
    x = torch.rand(1, 3, 40, 72)
    torch.testing.assert_close(twin.eval()(x), source.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES[3:4] + [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES])
def test_training_and_evaluation_take_one_course(name):
    found = pretrained.load_pretrained(name, "none").network
    nodes = {node: str(stride) for stride, node in pretrained.find_stages(found).items()}
    both = create_feature_extractor(found, nodes, suppress_diff_warning=True)
    assert both.train_graph.python_code("self").src == both.eval_graph.python_code("self").src


def test_a_copy_keeps_its_mode():
    network = small().eval()
    assert not any(module.training for module in copy.deepcopy(network).modules())
    network.train().encoder.get_submodule("features.0.1").eval()
    modes = {name: module.training for name, module in copy.deepcopy(network).named_modules()}
    assert [name for name, training in modes.items() if not training] == ["encoder.features.0.1"]


def test_stages_are_those_of_the_network():
    torch.manual_seed(0)
    stages = BackboneUNet("resnet18", "none", widths=[4] * 6).encoder_stages()
    tops = [sorted({name.split(".")[1] for name in stage}) for stage in stages]
    assert tops == [["bn1", "conv1", "relu"], ["layer1", "maxpool"], ["layer2"], ["layer3"], ["layer4"]]


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
        ({"backbone": "swin_t"}, "convolutional"),
        ({"skip": "none"}, "concat, add"),
        ({"in_channels": 1, "out_channels": 3, "residual": True}, "residual"),
        ({"weights": "IMAGENET9"}, "IMAGENET1K_V1"),
    ],
)
def test_a_mistake_is_named(options, words):
    with pytest.raises(UserError, match=words):
        small(**options)
