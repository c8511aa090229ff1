"""Layers by name, and a network as far as one of them."""

import pytest
import torch
from torch import nn

from project.inference.inspection.layers import UpTo, answering_network, choose_layer, feature_layers, listening, stages
from project.models import GANColorizer, ImageRestorer
from project.networks import Normalized, UNet
from workbench.errors import UserError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return UNet(in_channels=2, out_channels=1, widths=[4, 6, 9], stem=2, norm="group").eval()


@pytest.fixture
def layers(network):
    return feature_layers(network, torch.rand(1, 2, 32, 40))


def test_layers_come_in_the_order_of_the_pass_with_their_shapes(layers):
    names = list(layers)
    order = ["head", "encoder.0", "down.0", "encoder.1", "down.1", "middle", "up.0", "join.0", "decoder.0", "tail"]
    assert [name for name in names if name in order] == order
    assert layers["head"] == (4, 16, 20)
    assert layers["encoder.1.0.body.0"] == layers["encoder.1"] == (6, 8, 10)
    assert layers["middle"] == (9, 4, 5)


def test_layers_that_give_no_maps_are_none():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.Linear(5 * 12, 7))
    assert list(feature_layers(network, torch.rand(1, 3, 3, 4))) == ["0"]


def test_a_layer_is_found_by_its_name_in_the_network_or_in_the_model(layers):
    assert choose_layer("encoder.1", layers) == "encoder.1"
    assert choose_layer("network.encoder.1", layers) == "encoder.1"


def test_an_unknown_layer_gets_the_nearest_names(layers):
    with pytest.raises(UserError, match=r"--layer encodr.1: .* Did you mean encoder.1") as error:
        choose_layer("encodr.1", layers)
    assert "There are: normalize_input, head, encoder.0, down.0" in str(error.value)
    assert "inner ones included" in str(error.value)


def test_the_stages_of_a_unet_lead_down_to_its_middle(network, layers):
    assert stages(network, layers) == ["head", "encoder.0", "down.0", "encoder.1", "down.1", "middle"]


def test_the_stages_of_other_networks():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 3, 3)).eval()
    x = torch.rand(1, 3, 12, 14)
    assert stages(plain, feature_layers(plain, x)) == ["0", "1", "2"]
    wrapped = Normalized(plain)
    assert stages(wrapped, feature_layers(wrapped, x)) == ["network.0", "network.1", "network.2"]
    single = nn.Conv2d(3, 3, 1)
    assert stages(single, feature_layers(single, x)) == []
    deep = nn.Sequential(nn.Sequential(single))
    assert stages(deep, feature_layers(deep, x)) == ["0.0"]


def test_a_network_up_to_a_layer_gives_what_the_whole_has_there_and_computes_no_more(network):
    x = torch.rand(2, 2, 16, 24)
    beyond = []
    network.middle.register_forward_hook(lambda *_: beyond.append(1))
    with torch.no_grad():
        expected = network.encoder[0](network.head(nn.functional.pixel_unshuffle(network.normalize_input(x), 2)))
        assert torch.equal(UpTo(network, "encoder.0")(x), expected)
    assert not beyond
    with torch.no_grad():
        network(x)
    assert beyond, "the whole network is as it was"


def test_what_is_heard_is_from_before_an_activation_in_place():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    x = torch.randn(1, 1, 5, 6)
    with listening(network, "0") as heard:
        network(x)
    assert (heard[0] < 0).any()
    assert torch.equal(heard[0], network[0](x))
    network(x)
    assert len(heard) == 1


def test_the_part_of_a_model_that_answers(network):
    assert isinstance(answering_network(ImageRestorer(network)), UNet)
    assert answering_network(GANColorizer(network)) is network
    assert answering_network(network) is network
