"""Encoders of torchvision; the families are tried once each, at the smallest size."""

from __future__ import annotations

import copy
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import MobileNet_V3_Small_Weights, get_model
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from project.networks import BackboneUNet
from project.networks.backbone import load_pretrained
from workbench.errors import UserError
from workbench.task import skip_pretrained_download

NAME = "mobilenet_v3_small"
FAMILIES = ["resnet18", "vgg11_bn", "densenet121", "efficientnet_b0", "convnext_tiny", "regnet_y_400mf"]
EVERY = [NAME, *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES)]


def small(**options) -> BackboneUNet:
    torch.manual_seed(0)
    return BackboneUNet(**{"backbone": NAME, "weights": "none", "widths": [4, 4, 6, 6, 8, 8], **options})


def first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(part for part in network.modules() if isinstance(part, nn.Conv2d))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return get_model(NAME, weights=None).eval()


# The UNet


@pytest.mark.parametrize("name", EVERY)
def test_every_family_gives_an_image_and_gradients(name):
    network = small(backbone=name)
    assert all(module.training for module in network.modules())
    output = network(torch.rand(2, 3, 70, 45))
    assert output.shape == (2, 3, 70, 45)
    output.square().mean().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]
    assert first_convolution(network.encoder).weight.grad.abs().sum() > 0
    features = network.encoder(torch.rand(2, 3, 64, 96))
    assert list(features)[-1] == "32" and len(features) >= 4
    assert all(h.shape[2:] == (64 // int(stride), 96 // int(stride)) for stride, h in features.items())
    # Every parameter of the encoder belongs to exactly one stage.
    stages = network.encoder_stages()
    names = [name for stage in stages for name in stage]
    inside = [n for n, _ in network.named_parameters() if n.startswith("encoder.")]
    held = [{name for name in names if n == name or n.startswith(f"{name}.")} for n in inside]
    assert all(stages) and all(len(of_one) == 1 for of_one in held)
    network.eval().to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 33, 66)
    with torch.no_grad():
        there = network(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(network.to(memory_format=torch.contiguous_format)(x), there, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("channels", "out"), [(3, 3), (1, 3), (5, 2)])
def test_any_size_and_number_of_channels(channels, out):
    network = small(in_channels=channels, out_channels=out)
    for training in (True, False):
        for size in ((1, 1), (33, 70), (64, 32)):
            assert network.train(training)(torch.rand(2, channels, *size)).shape == (2, out, *size)


def test_a_copy_keeps_its_mode():
    network = small().eval()
    assert not any(module.training for module in copy.deepcopy(network).modules())
    network.train().encoder.get_submodule("features.0.1").eval()
    modes = {name: module.training for name, module in copy.deepcopy(network).named_modules()}
    assert [name for name, training in modes.items() if not training] == ["encoder.features.0.1"]


@pytest.mark.parametrize("name", EVERY)
def test_training_and_evaluation_have_the_same_graph(name):
    found = load_pretrained(name, "none")[0]
    both = create_feature_extractor(found, get_graph_node_names(found)[1][:-1], suppress_diff_warning=True)
    assert both.train_graph.python_code("self").src == both.eval_graph.python_code("self").src


def test_weights_are_not_loaded_where_a_checkpoint_replaces_them():
    source = small()
    with torch.no_grad():
        source.normalize_encoder.mean.fill_(0.3)
    with skip_pretrained_download():
        for weights in ("DEFAULT", "gone/file.pth"):
            twin = small(weights=weights)
            assert twin.pretrained
            twin.load_state_dict(source.state_dict())
    with pytest.raises(UserError, match="there is no file"):
        small(weights="gone/file.pth")
    x = torch.rand(1, 3, 40, 72)
    torch.testing.assert_close(twin.eval()(x), source.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet19"}, "resnet18"),
        ({"backbone": "vit_b_16"}, "convolutional"),
        ({"backbone": "convnext_tiny", "stages": 1, "widths": [4, 4]}, "stages must be 2 to 5"),
        ({"stages": 6, "widths": None}, "stages must be 1 to 5"),
        ({"in_channels": 1, "out_channels": 3, "residual": True, "widths": [4, 4]}, "(?s)one more than.*residual"),
        ({"weights": "IMAGENET9"}, "IMAGENET1K_V1"),
    ],
)
def test_a_mistake_is_named(options, words):
    with pytest.raises(UserError, match=words) as error:
        small(**options)
    assert len(str(error.value)) < 3000


# Stages and input


@pytest.mark.parametrize(("channels", "of_image"), [(3, 3), (4, 3), (1, 1), (5, 1)])
def test_the_adapted_encoder_sees_what_its_weights_saw_and_ignores_further_channels(
    network, tmp_path, channels, of_image
):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    adapted = small(weights=str(tmp_path / "weights.pth"), in_channels=channels).eval()
    x = torch.rand(2, channels, 64, 96)
    colors = x[:, :3] if of_image == 3 else x[:, :1].expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    if of_image == 1:
        mean, std = mean.mean(), std.mean()
    seen = []
    first_convolution(adapted.encoder).register_forward_hook(lambda *given: seen.append(given[2]))
    adapted(x)
    torch.testing.assert_close(seen[0], first_convolution(network)((colors - mean) / std))


# Weights


def same_outputs(found: nn.Module, expected: nn.Module) -> None:
    x = torch.rand(2, 3, 40, 56)
    torch.testing.assert_close(found(x), expected(x))


def test_a_file_gives_its_weights_whatever_its_classes_and_age(network, tmp_path):
    state = {key: value for key, value in network.state_dict().items() if "num_batches_tracked" not in key}
    torch.save(state, tmp_path / "weights.pth")
    same_outputs(load_pretrained(NAME, str(tmp_path / "weights.pth"))[0], network)
    other = get_model(NAME, weights=None, num_classes=7).eval()
    torch.save({"state_dict": other.state_dict()}, tmp_path / "weights.ckpt")
    same_outputs(load_pretrained(NAME, str(tmp_path / "weights.ckpt"))[0].features, other.features)


def test_a_file_that_does_not_fit_lists_what_is_wrong(network, tmp_path):
    state = network.state_dict()
    state["stranger.weight"] = state.pop("features.0.0.weight")
    state["features.1.block.0.0.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pth")
    wrong = "3 of the weights .*\nshape: features.0.0.weight, features.1.block.0.0.weight, stranger.weight\n"
    with pytest.raises(UserError, match=wrong):
        load_pretrained(NAME, str(tmp_path / "weights.pth"))


def test_torchvisions_weights_come_from_its_cache_or_the_way_out_is_named(network, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = MobileNet_V3_Small_Weights.DEFAULT.url
    with pytest.raises(UserError, match=f"(?s)no route to host.*{url}.*weights: FILE;.weights: none"):
        load_pretrained(NAME, "DEFAULT")
    torch.save(network.state_dict(), tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    same_outputs(load_pretrained(NAME, "DEFAULT")[0], network)
