import numpy as np
import pytest
import torch
from skimage import color

from project.models.gan import Lab


@pytest.fixture
def image():
    return torch.rand(2, 3, 5, 9, generator=torch.Generator().manual_seed(0))


def in_lab(image):
    return torch.from_numpy(color.rgb2lab(image.permute(0, 2, 3, 1).double().numpy()).transpose(0, 3, 1, 2))


def test_lab_is_the_color_without_the_lightness(image):
    y = Lab().encode(image)
    assert y.shape == (2, 2, 5, 9) and y.dtype == torch.float32
    np.testing.assert_allclose(y, in_lab(image)[:, 1:] / 110, atol=2e-3)


def test_lab_takes_the_lightness_from_the_condition_and_nothing_else(image):
    lightness = (in_lab(image)[:, :1] / 100).float()
    condition = torch.cat([lightness, torch.rand(2, 4, 5, 9)], dim=1)
    torch.testing.assert_close(Lab().decode(Lab().encode(image), condition), image, atol=5e-3, rtol=0)
    gray = Lab().decode(torch.zeros(2, 2, 5, 9), condition)
    torch.testing.assert_close(gray[:, 0], gray[:, 2], atol=2e-3, rtol=0)
    np.testing.assert_allclose(in_lab(gray)[:, :1] / 100, lightness, atol=2e-3)


def test_lab_is_exact_under_autocast(image):
    lightness = (in_lab(image)[:, :1] / 100).float()
    exact = Lab().encode(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Lab().encode(image), exact)
        decoded = Lab().decode(exact.bfloat16(), lightness)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, Lab().decode(exact.bfloat16().float(), lightness))


def test_gradients_through_the_conversion_are_finite_at_black_and_beyond_the_gamut():
    y = torch.tensor([[0.0, 0.0], [2.0, -2.0], [0.0, 0.9]]).view(3, 2, 1, 1).requires_grad_()
    condition = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    Lab().decode(y, condition).sum().backward()
    assert torch.isfinite(y.grad).all()
