import pytest
import torch
from torch import nn

from project.networks import PatchGAN
from workbench.errors import UserError


def reference(x, discriminator):
    """pix2pix's layers, written out with the discriminator's own weights."""
    kernels = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    h = nn.functional.leaky_relu(nn.functional.conv2d(x, kernels[0].weight, kernels[0].bias, 2, 1), 0.2)
    for position, (kernel, norm) in enumerate(zip(kernels[1:-1], norms, strict=True), 1):
        h = nn.functional.conv2d(h, kernel.weight, None, 2 if position < discriminator.layers else 1, 1)
        mean, var = h.mean(dim=(0, 2, 3), keepdim=True), h.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
        h = (h - mean) / torch.sqrt(var + norm.eps)
        h = nn.functional.leaky_relu(h, 0.2)
    return nn.functional.conv2d(h, kernels[-1].weight, kernels[-1].bias, 1, 1)


def test_it_is_the_discriminator_of_pix2pix():
    discriminator = PatchGAN(5, width=4, layers=2)
    x = torch.rand(3, 5, 21, 34)
    discriminator.normalize_input.set([0.5, 0.1, 0.2, 0.3, 0.4], 0.25)
    logits = discriminator(x)
    assert logits.shape == (3, 1, 3, 6)
    mean = torch.tensor([0.5, 0.1, 0.2, 0.3, 0.4]).view(5, 1, 1)
    torch.testing.assert_close(logits, reference((x - mean) / 0.25, discriminator))
    widths = [m.weight.shape[:2] for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [(4, 5), (8, 4), (16, 8), (1, 16)]


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_looks_at_as_many_pixels_as_promised(layers, field):
    discriminator = PatchGAN(1, width=2, layers=layers, norm="none")
    x = torch.zeros(1, 1, 2 * field, 2 * field + 6, requires_grad=True)
    logits = discriminator(x)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    touched = x.grad[0, 0].abs() > 0
    assert [int(touched.any(dim=d).sum()) for d in (0, 1)] == [field, field]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_the_smallest_image_is_judged_and_a_smaller_one_is_refused(layers, norm):
    discriminator = PatchGAN(2, width=2, layers=layers, norm=norm)
    side = discriminator.smallest
    assert discriminator(torch.rand(2, 2, side, side + 5)).shape[-2] == 1
    with pytest.raises(UserError, match=f"layers: {layers} needs {side} pixels a side, and they are {side + 5} x"):
        discriminator(torch.rand(2, 2, side - 1, side + 5))


def test_spectral_norm_holds_every_kernel_at_a_largest_singular_value_of_1():
    discriminator = PatchGAN(3, width=4, layers=2, norm="none", spectral_norm=True)
    for _ in range(200):
        discriminator(torch.rand(1, 3, 16, 20))
    for kernel in (m for m in discriminator.modules() if isinstance(m, nn.Conv2d)):
        assert torch.linalg.svdvals(kernel.weight.flatten(1))[0].item() == pytest.approx(1, abs=0.02)
    plain = PatchGAN(3, width=4, layers=2, norm="none")
    assert torch.linalg.svdvals(plain.tail.weight.flatten(1))[0].item() < 0.9
