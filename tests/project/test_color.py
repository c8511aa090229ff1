"""Color spaces against scikit-image and Pillow."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import color

from project.color import gray, lab_to_rgb, rgb_to_lab
from workbench.errors import UserError


def sample(seed=0):
    """8-bit noise with the corners of the color cube in its first pixels, (2, 3, 10, 14)."""
    levels = np.random.default_rng(seed).integers(0, 256, (2, 10, 14, 3))
    levels[:, 0, :8] = [[255 * (corner >> bit & 1) for bit in range(3)] for corner in range(8)]
    return torch.from_numpy(levels.astype(np.float32) / 255).permute(0, 3, 1, 2)


def test_lab_is_scikit_images():
    rgb = sample()
    lab = rgb_to_lab(rgb)
    assert lab.shape == rgb.shape and lab.dtype == torch.float32
    expected = color.rgb2lab(rgb.permute(0, 2, 3, 1).double().numpy())
    assert np.allclose(lab.permute(0, 2, 3, 1).numpy(), expected, atol=5e-3)
    assert lab[0, :, 0, 7].tolist() == pytest.approx([100, 0, 0], abs=0.02)  # white


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_rgb_of_lab_is_scikit_images_also_outside_the_screens_colors():
    generator = np.random.default_rng(1)
    lab = np.stack([generator.uniform(0, 100, (9, 13)), *generator.uniform(-110, 110, (2, 9, 13))])
    rgb = lab_to_rgb(torch.from_numpy(lab)[None])
    expected = np.clip(color.lab2rgb(lab.transpose(1, 2, 0)), 0, 1)
    assert rgb.dtype == torch.float32
    assert (expected == 0).any() and (expected == 1).any()
    assert np.allclose(rgb[0].permute(1, 2, 0).numpy(), expected, atol=2e-3)


def test_gray_is_pillows():
    rgb = sample()
    pixels = (rgb * 255).round().byte().permute(0, 2, 3, 1).numpy()
    expected = np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in pixels]) / 255
    assert gray(rgb).shape == (2, 1, 10, 14)
    assert np.allclose(gray(rgb)[:, 0].numpy(), expected, atol=0.51 / 255)
    one = rgb[:, :1]
    assert gray(one) is one


def test_16_bits_around_it_do_not_make_it_coarser():
    rgb = sample()
    expected = rgb_to_lab(rgb)
    with torch.autocast("cpu", torch.bfloat16):
        lab = rgb_to_lab(rgb)
        back = lab_to_rgb(lab)
    assert torch.equal(lab, expected)
    assert torch.equal(back, lab_to_rgb(expected))
    assert torch.allclose(rgb_to_lab(rgb.bfloat16()), expected, atol=2)  # its input's steps of 1 / 256 are all it loses
    assert rgb_to_lab(rgb.bfloat16()).dtype == torch.float32


def test_gradients_are_finite_everywhere_also_far_outside_the_screens_colors():
    spans = ((0, 100), (-220, 220), (-220, 220))
    lab = torch.stack(torch.meshgrid(*[torch.linspace(*span, 9) for span in spans], indexing="ij"))
    lab = lab.view(1, 3, 9, 81).requires_grad_()
    lab_to_rgb(lab).square().sum().backward()
    assert lab.grad.isfinite().all() and lab.grad.abs().sum() > 0


def test_without_kornia_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.color", None)
    with pytest.raises(UserError, match=r"'\.\[color\]'"):
        rgb_to_lab(sample())


def test_kornia_is_imported_where_it_is_used_only():
    code = "import sys, project.data, project.data.pairs; sys.exit('kornia' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
