import copy
import math
import pickle
import urllib.error

import numpy as np
import pytest
import scipy.linalg
import torch
from project.models.perceptual_metrics import FID, LPIPS
from torch import nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from project.models.metrics import Scores, as_saved
from workbench.errors import UserError

SQUEEZENET = "squeezenet1_1-b8a52dc0.pth"


class Colors(nn.Module):
    """Mean colors of the left and of the right half, mixed: 6 features of an image of any size."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(2 * torch.eye(6) + 0.1)

    def forward(self, picture):
        halves = nn.functional.adaptive_avg_pool2d(picture, (1, 2)).flatten(1)
        return nn.functional.linear(halves, self.mix)


def pictures(count=40, height=35, width=42):
    generator = torch.Generator().manual_seed(0)
    mix = torch.rand(count, 3, 1, 2, generator=generator).repeat_interleave(width // 2, dim=3)
    target = as_saved(mix + 0.1 * torch.rand(count, 3, height, width, generator=generator))
    return as_saved(0.7 * target + 0.1 + 0.1 * torch.randn(target.shape, generator=generator)), target


def numpy_fid(output, target):
    real, fake = (Colors()(x).detach().double().numpy() for x in (target, output))
    c_real, c_fake = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    mixed = scipy.linalg.sqrtm(c_real @ c_fake).real
    return ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(c_real + c_fake - 2 * mixed)


def test_fid_through_a_network_of_ones_own_equals_the_formula():
    output, target = pictures()
    metric = FID(Colors())
    for o, t in zip(output.split(7), target.split(7), strict=True):
        metric.update(o, t)
    assert metric.compute().item() == pytest.approx(numpy_fid(output, target), rel=1e-4)


def test_fid_of_two_ranks_is_that_of_all_pictures():
    output, target = pictures()
    first, second = FID(Colors()), FID(Colors())
    first.update(output[:30], target[:30])
    second.update(output[30:], target[30:])
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(numpy_fid(output, target), rel=1e-4)


def test_in_scores_the_network_is_shared_and_no_part_of_the_model():
    output, target = pictures()
    network = Colors()
    scores = Scores({"fid": FID(network)})
    assert not list(scores.parameters()) and not scores.state_dict()
    for _ in range(2):
        scores.update(output, target, target)
        values = scores.compute()
        assert values["fid"].item() == pytest.approx(numpy_fid(output, target), rel=1e-4)
        assert values["fid_baseline"].item() == pytest.approx(0, abs=1e-4)
    assert scores.answer["fid"].inception is scores.baseline["fid"].inception
    assert not network.mix.requires_grad
    pickle.loads(pickle.dumps(scores))


def test_fid_is_the_same_under_autocast_and_gray_pictures_pass():
    output, target = pictures()
    metric = FID(Colors())
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        metric.update(output, target)
    assert metric.compute().item() == pytest.approx(numpy_fid(output, target), rel=1e-4)
    metric.update(output[:, :1], target[:, :1])


def test_fid_of_one_picture_is_told():
    output, target = pictures()
    metric = FID(Colors())
    metric.update(output[:1], target[:1])
    with pytest.raises(UserError, match="only one"):
        metric.compute()


def test_an_unknown_layer_is_told():
    with pytest.raises(UserError, match="64, 192, 768 or 2048"):
        FID(100)


def test_inception_without_its_package_is_told_when_needed(monkeypatch):
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    metric = FID()  # a checkpoint with it must load anywhere
    with pytest.raises(UserError, match=r"pip install -e '\.\[fid\]'"):
        metric.prepare()
    with pytest.raises(UserError, match=r"pip install -e '\.\[fid\]'"):
        metric.update(*pictures())


def test_inception_without_its_weights_is_told(monkeypatch, tmp_path):
    def offline(*args):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", offline)
    with pytest.raises(UserError) as error:
        FID().prepare()
    assert "no route to host" in str(error.value)
    assert str(tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth") in str(error.value)
    assert len(str(error.value).splitlines()) <= 10


def test_inception_gets_8_bits(monkeypatch):
    class Inception(nn.Module):
        def __init__(self, name, features):
            super().__init__()
            assert features == ["64"]

        def forward(self, picture):
            assert picture.dtype == torch.uint8
            return nn.functional.adaptive_avg_pool2d(picture / 255, (1, 2)).flatten(1).repeat(1, 11)[:, :64]

    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", Inception)
    levels = torch.arange(256.0).view(1, 1, 16, 16).expand(2, 3, -1, -1) / 255
    metric = FID(64)
    metric.update(levels, levels)
    assert metric.real_features_sum[:1].item() == pytest.approx(2 * levels[0, 0, :, :8].mean().item(), rel=1e-6)


@pytest.fixture
def squeezenet(monkeypatch, tmp_path):
    """Weights of a squeezenet in torch.hub's cache, drawn at random."""
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), folder / SQUEEZENET)
    return folder / SQUEEZENET


def test_lpips_equals_torchmetrics_in_any_batch(squeezenet):
    output, target = (x[:3] for x in pictures())
    reference = LearnedPerceptualImagePatchSimilarity("squeeze", normalize=True)
    expected = torch.stack(
        [reference.net(o[None] * 2 - 1, t[None] * 2 - 1).squeeze() for o, t in zip(output, target, strict=True)]
    )
    before = torch.get_rng_state()
    scores = Scores({"lpips": LPIPS("squeeze")})
    scores.update(output[:2], target[:2], target[:2])
    scores.update(output[2:], target[2:], target[2:] + 3)
    assert torch.equal(torch.get_rng_state(), before)
    values = scores.compute()
    assert values["lpips"].item() == pytest.approx(expected.mean().item(), rel=1e-4)
    assert 0 < values["lpips_baseline"].item() < math.inf
    assert not list(scores.parameters()) and not scores.state_dict()
    metric = copy.deepcopy(scores.answer["lpips"])
    metric.update(target[:, :1], target[:, :1])
    assert metric.compute().item() == pytest.approx(0, abs=1e-6)


def test_lpips_works_in_and_out_of_inference_mode(squeezenet):
    output, target = (x[:2] for x in pictures())
    metric = LPIPS("squeeze")
    with torch.inference_mode():
        metric.update(output, target)
    metric.update(output, target)
    assert metric.compute() > 0


def test_lpips_without_its_weights_is_told(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    metric = LPIPS()
    with pytest.raises(UserError) as error:
        metric.prepare()
    assert str(tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth") in str(error.value)
    assert "no route to host" in str(error.value) and "model.metrics" in str(error.value)


def test_damaged_weights_are_told(squeezenet):
    squeezenet.write_bytes(b"not weights")
    with pytest.raises(UserError, match="squeezenet1_1-b8a52dc0"):
        LPIPS("squeeze").prepare()


def test_small_pictures_are_told(squeezenet):
    with pytest.raises(UserError, match="at least 32 x 32 pixels, not 40 x 31"):
        LPIPS("squeeze").update(torch.rand(1, 3, 31, 40), torch.rand(1, 3, 31, 40))
