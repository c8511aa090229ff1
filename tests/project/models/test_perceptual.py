"""VGG's perceptual loss and LPIPS; weights are drawn here, and nothing is downloaded."""

import copy
import math
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models.vgg import cfgs, make_layers

from project.models import VGGPerceptual
from project.models.metrics import Scores, as_saved
from project.models.perceptual import LPIPS, VGG_URL
from workbench.errors import UserError

VGG_FILE = VGG_URL.rpartition("/")[2]
LAYERS = {"relu1_2": 0.5, "relu2_1": 2.0}


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """torch.hub's cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def offline(monkeypatch, cache):
    def unreachable(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    return cache


def refusal(make) -> str:
    with pytest.raises(UserError) as error:
        make()
    assert len(str(error.value).splitlines()) <= 10
    return str(error.value)


# VGG


@pytest.fixture
def weights(tmp_path):
    """A file as torchvision's, without the deeper layers."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for position, (width, channels) in {0: (64, 3), 2: (64, 64), 5: (128, 64)}.items():
        scale = (2 / (9 * channels)) ** 0.5
        state[f"features.{position}.weight"] = torch.randn(width, channels, 3, 3, generator=generator) * scale
        state[f"features.{position}.bias"] = torch.rand(width, generator=generator) - 0.5
    state["classifier.0.weight"] = torch.rand(4, 7, generator=generator)
    torch.save(state, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


def pair(count=2, height=11, width=18):
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(count, 3, height, width, generator=generator) for _ in range(2))


def test_it_is_the_distance_of_torchvisions_features(weights):
    vgg = make_layers(cfgs["E"])[:7]
    vgg.load_state_dict({k.removeprefix("features."): v for k, v in torch.load(weights).items() if "features" in k})
    output, target = pair()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = 0.0
    for count, weight in ((4, 0.5), (7, 2.0)):
        a, b = (vgg[:count]((p - mean) / std).detach().numpy() for p in (output, target))
        expected += weight * np.abs(a - b).mean()
    distance = VGGPerceptual(str(weights), LAYERS)
    before = torch.get_rng_state()
    distance.load()
    assert torch.equal(torch.get_rng_state(), before)
    assert distance(output, target).item() == pytest.approx(expected, rel=1e-5)
    assert distance(target, target).item() == 0
    assert sorted(VGGPerceptual().layers) == [1, 6, 11, 20, 29]  # the first of each block


def test_vgg_is_not_a_part_of_the_model_and_gradients_flow_to_the_output_alone(weights):
    model = nn.Module()
    model.perceptual = VGGPerceptual(str(weights), LAYERS)
    output, target = (p.requires_grad_() for p in pair())
    model.perceptual(output, target).backward()
    assert output.grad.abs().sum() > 0 and target.grad is None
    vgg = model.train().perceptual.vgg.load()
    assert all(p.grad is None for p in vgg.parameters()) and not any(part.training for part in vgg.modules())
    assert len(vgg) == 1 + 7  # the normalization, and nothing deeper than the layers asked for
    assert not model.state_dict() and not list(model.parameters()) and not list(model.buffers())
    assert copy.deepcopy(model).perceptual.vgg is model.perceptual.vgg


def test_the_loss_is_float32_under_autocast(weights):
    distance = VGGPerceptual(str(weights), LAYERS)
    output, target = pair()
    exact = distance(output, target)
    with torch.autocast("cpu", torch.bfloat16):
        rough = distance(output, target)
    assert rough.dtype == torch.float32 and rough.item() == pytest.approx(exact.item(), rel=0.05)


def test_weights_are_found_in_the_cache_without_a_network(weights, offline):
    distance = VGGPerceptual(layers=LAYERS)  # built without weights: a trained model can be used anywhere
    message = refusal(distance.load)
    assert "no route to host" in message and str(offline / VGG_FILE) in message
    assert "init_args.weights" in message and "https://" in message
    weights.rename(offline / VGG_FILE)
    assert distance(*pair()).item() > 0


def test_files_and_layers_that_will_not_do_are_refused(weights, tmp_path):
    assert "there is no file" in refusal(VGGPerceptual(str(tmp_path / "none.pth")).load)
    assert "features.7.weight is missing" in refusal(VGGPerceptual(str(weights), {"relu2_2": 1.0}).load)
    for name in ("relu6_1", "relu1_3", "conv1_1", ""):
        assert "VGGPerceptual.layers" in refusal(lambda name=name: VGGPerceptual(layers={name: 1.0}))


# LPIPS


@pytest.fixture
def squeezenet(cache):
    """Weights of a squeezenet in torch.hub's cache, drawn at random."""
    torch.manual_seed(3)
    path = cache / "squeezenet1_1-b8a52dc0.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_lpips_equals_torchmetrics_in_any_batch(squeezenet):
    output, target = (as_saved(x) for x in pair(3, 35, 42))
    reference = LearnedPerceptualImagePatchSimilarity("squeeze", normalize=True)
    expected = [reference.net(o[None] * 2 - 1, t[None] * 2 - 1).item() for o, t in zip(output, target, strict=True)]
    before = torch.get_rng_state()
    scores = Scores({"lpips": LPIPS("squeeze")})
    with torch.inference_mode():  # and out of it
        scores.update(output[:2], target[:2], target[:2])
    scores.update(output[2:], target[2:], target[2:] + 3)
    assert torch.equal(torch.get_rng_state(), before)
    values = scores.compute()
    assert values["lpips"].item() == pytest.approx(np.mean(expected), rel=1e-4)
    assert 0 < values["lpips_baseline"].item() < math.inf
    assert not list(scores.parameters()) and not scores.state_dict()
    metric = copy.deepcopy(scores.output["lpips"])
    metric.update(target[:, :1], target[:, :1])
    assert metric.compute().item() == pytest.approx(0, abs=1e-6)
    assert "at least 32 x 32 pixels, not 40 x 31" in refusal(lambda: metric.update(*[torch.zeros(1, 3, 31, 40)] * 2))


def test_lpips_without_its_weights_is_reported(offline, squeezenet):
    message = refusal(LPIPS().load)
    assert str(offline / "alexnet-owt-7be5be79.pth") in message
    assert "no route to host" in message and "model.metrics" in message
    squeezenet.write_bytes(b"not weights")
    assert "squeezenet1_1-b8a52dc0" in refusal(LPIPS("squeeze").load)
