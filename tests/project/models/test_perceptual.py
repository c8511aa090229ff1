from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from project.models import VGGPerceptual
from project.models.perceptual import FILE
from workbench.errors import UserError

LAYERS = {"relu1_2": 0.5, "relu2_1": 2.0}


@pytest.fixture
def weights(tmp_path):
    """A file as torchvision's, but for the deeper layers, which nobody asks for here."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for position, (width, channels) in {0: (64, 3), 2: (64, 64), 5: (128, 64)}.items():
        scale = (2 / (9 * channels)) ** 0.5
        state[f"features.{position}.weight"] = torch.randn(width, channels, 3, 3, generator=generator) * scale
        state[f"features.{position}.bias"] = torch.rand(width, generator=generator) - 0.5
    state["classifier.0.weight"] = torch.rand(4, 7)
    torch.save(state, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


def pictures():
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(2, 3, 11, 18, generator=generator) for _ in range(2))


def test_it_is_the_distance_of_torchvisions_features(weights):
    from torchvision.models.vgg import cfgs, make_layers

    vgg = make_layers(cfgs["E"])[:7]
    vgg.load_state_dict({k.removeprefix("features."): v for k, v in torch.load(weights).items() if "features" in k})
    output, target = pictures()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = 0.0
    for count, weight in ((4, 0.5), (7, 2.0)):
        a, b = (vgg[:count]((p - mean) / std).detach().numpy() for p in (output, target))
        expected += weight * np.abs(a - b).mean()
    distance = VGGPerceptual(str(weights), LAYERS)
    distance.load()
    assert distance(output, target).item() == pytest.approx(expected, rel=1e-5)
    assert distance(target, target).item() == 0


def test_the_default_layers_are_the_first_of_each_block():
    assert sorted(VGGPerceptual().layers) == [1, 6, 11, 20, 29]


def test_gradients_flow_to_the_answer_alone(weights):
    distance = VGGPerceptual(str(weights), LAYERS)
    distance.load()
    output, target = (p.requires_grad_() for p in pictures())
    distance(output, target).backward()
    assert output.grad.abs().sum() > 0 and target.grad is None
    assert all(p.grad is None for part in distance._frozen for p in part.parameters())


def test_it_is_no_part_of_the_model_that_holds_it_but_moves_with_it(weights):
    model = nn.Module()
    model.perceptual = VGGPerceptual(str(weights), LAYERS)
    model.perceptual.load()
    model.train()
    assert not model.state_dict() and not list(model.parameters()) and not list(model.buffers())
    assert not any(part.training for part in model.perceptual._frozen[1].modules())
    assert model.double().perceptual(*(p.double() for p in pictures())).dtype == torch.float32
    assert len(model.perceptual._frozen[1]) == 7  # nothing deeper than what is asked for


def test_it_is_float32_under_autocast(weights):
    distance = VGGPerceptual(str(weights), LAYERS)
    distance.load()
    output, target = pictures()
    exact = distance(output, target)
    with torch.autocast("cpu", torch.bfloat16):
        rough = distance(output, target)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)


def test_the_weights_are_found_in_the_cache_without_a_network(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "hub" / "checkpoints").mkdir(parents=True)
    weights.rename(tmp_path / "home" / "hub" / "checkpoints" / FILE)
    distance = VGGPerceptual(layers=LAYERS)
    distance.load()
    assert distance(*pictures()).item() > 0


def refusal(make):
    with pytest.raises(UserError) as told:
        make()
    assert len(str(told.value).splitlines()) <= 10
    return str(told.value)


def test_without_cache_and_network_the_ways_out_are_told(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    distance = VGGPerceptual()  # building it needs no weights, so that a trained model can be used anywhere
    message = refusal(distance.load)
    assert "Name or service not known" in message
    assert str(tmp_path / "hub" / "checkpoints" / FILE) in message
    assert "init_args.weights" in message and "https://" in message


def test_files_that_will_not_do_are_told(weights, tmp_path):
    assert "cannot be read from" in refusal(VGGPerceptual(str(tmp_path / "none.pth")).load)
    (tmp_path / "text.pth").write_text("no weights")
    assert "cannot be read from" in refusal(VGGPerceptual(str(tmp_path / "text.pth")).load)
    assert "features.7.weight is missing" in refusal(VGGPerceptual(str(weights), {"relu2_2": 1.0}).load)
    torch.save([1], tmp_path / "list.pth")
    assert "holds no state dict" in refusal(VGGPerceptual(str(tmp_path / "list.pth")).load)


@pytest.mark.parametrize("name", ["relu6_1", "relu1_3", "conv1_1", ""])
def test_layers_that_are_not_there_are_told(name):
    with pytest.raises(UserError, match="there is no layer"):
        VGGPerceptual(layers={name: 1.0})
