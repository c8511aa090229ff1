import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from project.models import Charbonnier, PSNRLoss, VGGPerceptual, WassersteinGP


def images(dtype=torch.float64, shape=(2, 3, 4, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(shape, dtype=dtype, generator=generator) for _ in range(2))


def test_charbonnier_equals_numpy():
    output, target = images()
    expected = np.mean(np.sqrt((output.numpy() - target.numpy()) ** 2 + 0.01**2))
    assert Charbonnier(0.01)(output, target).item() == pytest.approx(expected)
    assert Charbonnier()(output, output).item() == pytest.approx(1e-3)


def test_psnr_loss_is_minus_the_mean_psnr_of_the_images():
    output, target = images()
    errors = ((output.numpy() - target.numpy()) ** 2).reshape(2, -1).mean(1)
    assert PSNRLoss()(output, target).item() == pytest.approx(np.mean(10 * np.log10(errors)), abs=1e-5)
    assert PSNRLoss()(output, output).item() == pytest.approx(-80)


def test_the_perceptual_loss_is_the_distance_of_torchvisions_features(vgg):
    layers = make_layers(cfgs["E"])
    layers.load_state_dict({k.removeprefix("features."): v for k, v in torch.load(vgg).items()})
    output, target = (image.requires_grad_() for image in images(torch.float32, (2, 3, 33, 47)))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = 0.0
    for count, weight in ((2, 1 / 32), (7, 1 / 16), (12, 1 / 8), (21, 1 / 4), (30, 1)):  # pix2pixHD's
        a, b = (layers[:count]((image - mean) / std).detach().numpy() for image in (output, target))
        expected += weight * np.abs(a - b).mean()
    model = nn.Module()
    model.perceptual = VGGPerceptual(str(vgg))
    before = torch.get_rng_state()
    distance = model.perceptual(output, target)
    assert torch.equal(torch.get_rng_state(), before)
    assert distance.item() == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.perceptual(output, target)
    assert rough.dtype == torch.float32 and rough.item() == pytest.approx(expected, rel=0.05)
    distance.backward()
    assert output.grad.abs().sum() > 0 and target.grad is None
    assert not any(part.training for part in model.train().perceptual.load().modules())
    assert not model.state_dict() and not list(model.parameters()) and not list(model.buffers())


def test_the_penalty_is_float32_under_autocast_and_reaches_the_critics_weights():
    critic, (real, fake), types = nn.Conv2d(2, 1, 3), images(torch.float32, (3, 2, 5, 7)), []

    def logits(x):
        types.append((x.dtype, critic(x).dtype))
        return critic(x)

    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = WassersteinGP().penalty(logits, real, fake)
    assert types == [(torch.float32, torch.float32)] and penalty.dtype == torch.float32
    torch.manual_seed(1)
    torch.testing.assert_close(WassersteinGP().penalty(critic, real, fake), penalty, rtol=1e-6, atol=0)
    penalty.backward()
    assert critic.weight.grad.abs().sum() > 0
