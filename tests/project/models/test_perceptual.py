"""VGG's perceptual loss, FID and LPIPS; weights are drawn here, and nothing is downloaded."""

import copy
import math
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import scipy.linalg
import torch
import torchvision
from torch import nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models.vgg import cfgs, make_layers

from project.models import VGGPerceptual
from project.models.metrics import Scores, as_saved
from project.models.perceptual import FID, LPIPS, VGG_URL
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


def pair():
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(2, 3, 11, 18, generator=generator) for _ in range(2))


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
        assert "there is no layer" in refusal(lambda name=name: VGGPerceptual(layers={name: 1.0}))


# FID


class Colors(nn.Module):
    """Mean colors of the left and of the right half, mixed: 6 features of an image of any size."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(2 * torch.eye(6) + 0.1)

    def forward(self, image):
        halves = nn.functional.adaptive_avg_pool2d(image, (1, 2)).flatten(1)
        return nn.functional.linear(halves, self.mix)


def images(count=40, height=35, width=42):
    generator = torch.Generator().manual_seed(0)
    mix = torch.rand(count, 3, 1, 2, generator=generator).repeat_interleave(width // 2, dim=3)
    target = as_saved(mix + 0.1 * torch.rand(count, 3, height, width, generator=generator))
    return as_saved(0.7 * target + 0.1 + 0.1 * torch.randn(target.shape, generator=generator)), target


def numpy_fid(output, target):
    real, fake = (Colors()(x).detach().double().numpy() for x in (target, output))
    c_real, c_fake = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    mixed = scipy.linalg.sqrtm(c_real @ c_fake).real
    return ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(c_real + c_fake - 2 * mixed)


def test_fid_through_a_network_of_ones_own_equals_the_formula_on_two_ranks():
    output, target = images()
    first, second = FID(Colors()), FID(Colors())
    for o, t in zip(output[:30].split(7), target[:30].split(7), strict=True):
        first.update(o, t)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        second.update(output[30:], target[30:])
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(numpy_fid(output, target), rel=1e-4)
    second.update(output[:, :1], target[:, :1])  # gray


def test_in_scores_the_network_is_shared_and_not_a_part_of_the_model():
    output, target = images()
    network = Colors()
    scores = Scores({"fid": FID(network)})
    assert not list(scores.parameters()) and not scores.state_dict()
    for _ in range(2):
        scores.update(output, target, target)
        values = scores.compute()
        assert values["fid"].item() == pytest.approx(numpy_fid(output, target), rel=1e-4)
        assert values["fid_baseline"].item() == pytest.approx(0, abs=1e-4)
    assert scores.output["fid"].inception is scores.baseline["fid"].inception
    assert not network.mix.requires_grad
    pickle.loads(pickle.dumps(scores))


def test_fid_of_one_image_and_of_an_unknown_layer_are_refused():
    output, target = images(1)
    metric = FID(Colors())
    metric.update(output, target)
    assert "only one" in refusal(metric.compute)
    assert "64, 192, 768 or 2048" in refusal(lambda: FID(100))


def test_inception_without_its_package_or_weights_is_reported_when_needed(monkeypatch, offline):
    metric = FID()  # a checkpoint with it must load anywhere
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    assert "pip install -e '.[fid]'" in refusal(metric.load)
    assert "pip install -e '.[fid]'" in refusal(lambda: metric.update(*images(1)))

    def unreachable(*_):
        raise URLError("no route to host")

    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", unreachable)
    message = refusal(FID().load)
    assert "no route to host" in message and str(offline / "weights-inception-2015-12-05-6726825d.pth") in message


def test_inception_gets_8_bits(monkeypatch):
    class Inception(nn.Module):
        def __init__(self, name, features):
            super().__init__()
            assert features == ["64"]

        def forward(self, image):
            assert image.dtype == torch.uint8
            return nn.functional.adaptive_avg_pool2d(image / 255, (1, 2)).flatten(1).repeat(1, 11)[:, :64]

    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", Inception)
    levels = torch.arange(256.0).view(1, 1, 16, 16).expand(2, 3, -1, -1) / 255
    metric = FID(64)
    metric.update(levels, levels)
    assert metric.real_features_sum[:1].item() == pytest.approx(2 * levels[0, 0, :, :8].mean().item(), rel=1e-6)


# LPIPS


@pytest.fixture
def squeezenet(cache):
    """Weights of a squeezenet in torch.hub's cache, drawn at random."""
    torch.manual_seed(3)
    path = cache / "squeezenet1_1-b8a52dc0.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_lpips_equals_torchmetrics_in_any_batch(squeezenet):
    output, target = (x[:3] for x in images())
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
