"""Metrics against NumPy and scikit-image, in any batch and on several ranks."""

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torchmetrics import MeanSquaredError
from torchmetrics.image import StructuralSimilarityIndexMeasure

from project.models.metrics import PSNR, SSIM, Colorfulness, ColorfulnessRatio, PixelAccuracy, Scores, as_saved
from workbench.errors import UserError


def images(channels=3, height=20, width=13, count=5, low=0.01, high=0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs that miss their targets by more and more."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, height, width)
    target = (torch.rand(shape, generator=generator) * 255).round() / 255
    spread = torch.linspace(low, high, count).view(-1, 1, 1, 1)
    return target + spread * torch.randn(shape, generator=generator), target


def eight_bits(image: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) tensor -> (B, H, W, C) uint8 array."""
    return (image.float().numpy().clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def numpy_psnr(output: torch.Tensor, target: torch.Tensor) -> float:
    """The protocol of the denoising papers: of uint8 images, the mean of each image's own value."""
    errors = (eight_bits(output).astype(float) - eight_bits(target)) ** 2
    return float(np.mean([10 * math.log10(255**2 / error.mean()) for error in errors]))


def numpy_right(output, target, threshold):
    """Which pixels are right, as scikit-image and NumPy have it: (B, H, W)."""
    difference = np.abs(np.round(rgb2lab(eight_bits(output))) - np.round(rgb2lab(eight_bits(target))))
    return (difference <= np.array([1, 2.2, 2.2]) * threshold).all(axis=-1)


def numpy_colorfulness(image):
    values = []
    for red, green, blue in (np.moveaxis(one.astype(np.float64), -1, 0) for one in eight_bits(image)):
        rg, yb = red - green, 0.5 * (red + green) - blue
        values.append(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
    return np.array(values)


# PSNR and SSIM


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_psnr_equals_the_papers_protocol_in_any_batch_and_is_100_db_without_an_error(channels, batch):
    output, target = images(channels)
    metric = PSNR()
    for o, t in zip(output.split(batch), target.split(batch), strict=True):
        metric.update(as_saved(o), t)
    assert metric.compute().item() == pytest.approx(numpy_psnr(output, target), abs=1e-4)
    assert PSNR()(target, target) == 100


@pytest.mark.parametrize("make", [PSNR, SSIM, lambda: PixelAccuracy(5), ColorfulnessRatio])
def test_states_of_two_unequal_ranks_add_up(make):
    output, target = images(low=0.002, high=0.06)
    output = output * torch.tensor([0.2, 1, 0.5, 0.9, 0.1]).view(-1, 1, 1, 1)
    whole, first, second = make(), make(), make()
    whole.update(output, target)
    first.update(output[:4], target[:4])
    second.update(output[4:], target[4:])
    assert {reduce.__name__ for reduce in first._reductions.values()} == {"dim_zero_sum"}
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(whole.compute().item(), rel=1e-5)


# Color


@pytest.mark.parametrize("threshold", [2, 5])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_pixel_accuracy_equals_scikit_image_and_numpy_in_any_batch(threshold, batch):
    output, target = images(low=0.002, high=0.06)
    output = output.bfloat16() if batch == 5 else output
    metric = PixelAccuracy(threshold)
    with torch.autocast("cpu", torch.bfloat16):
        for o, t in zip(output.split(batch), target.split(batch), strict=True):
            metric.update(o, t)
    right = numpy_right(output, target, threshold)
    assert 20 < 100 * right.mean() < 90
    # The colors are close to a tie of the rounding for one pixel in a thousand at most.
    assert metric.compute().item() == pytest.approx(100 * right.mean(), abs=0.1)


def test_colorfulness_equals_numpy_and_a_hand_count():
    output, target = images()
    metric, ratio = Colorfulness(), ColorfulnessRatio()
    for part in (slice(0, 2), slice(2, 5)):
        metric.update(output[part], target[part])
        ratio.update(output[part], target[part])
    outputs, targets = numpy_colorfulness(output), numpy_colorfulness(target)
    assert metric.compute().item() == pytest.approx(outputs.mean(), rel=1e-5)
    assert ratio.compute().item() == pytest.approx(outputs.sum() / targets.sum(), rel=1e-5)
    # A red and a blue pixel: rg is 255 and 0, yb 127.5 and -255.
    red_blue = torch.tensor([[255.0, 0], [0, 0], [0, 255]]).view(1, 3, 1, 2) / 255
    by_hand = (127.5**2 + 191.25**2) ** 0.5 + 0.3 * (127.5**2 + 63.75**2) ** 0.5
    assert Colorfulness().values(red_blue, red_blue).item() == pytest.approx(by_hand, rel=1e-6)


def test_gray_images_have_no_color_and_may_have_one_channel():
    _, target = images()
    gray = target[:, :1]
    assert torch.equal(Colorfulness().values(gray, gray), torch.zeros(5))
    accuracy, ratio = PixelAccuracy(2), ColorfulnessRatio()
    accuracy.update(gray, gray.expand(-1, 3, -1, -1))
    assert accuracy.compute() == 100
    ratio.update(gray, target)
    assert ratio.compute() == 0
    ratio.reset()
    ratio.update(target, gray)
    assert not ratio.compute().isfinite()
    with pytest.raises(UserError, match="these are 4"):
        ratio.update(torch.rand(1, 4, 3, 2), target[:1])


# Scores


def test_the_output_is_scored_as_saved_and_the_baseline_as_it_is():
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(2, 3, 200, 150, generator=generator).round()
    noisy = target + 25 / 255 * torch.randn(target.shape, generator=generator)
    scores = Scores({"psnr": PSNR()})
    scores.update(noisy, target, noisy)
    values = scores.compute()
    assert values["psnr_baseline"].item() == pytest.approx(20 * math.log10(255 / 25), abs=0.03)
    # Half of the noise on black and white is clipped away.
    assert values["psnr"].item() == pytest.approx(values["psnr_baseline"].item() + 3.01, abs=0.05)
    scores.update(target, target, target)
    assert scores.compute()["psnr"] == 100, "it starts over after each computation"


def test_metrics_from_elsewhere_get_values_in_range_and_contiguous_tensors():
    class Strict(StructuralSimilarityIndexMeasure):
        def update(self, preds, target):
            assert preds.min() >= 0 and preds.max() <= 1
            super().update(preds, target)

    output, target = (x.to(memory_format=torch.channels_last) for x in images())
    scores = Scores({"strict": Strict(data_range=1.0), "mse": MeanSquaredError()})  # the latter calls view()
    scores.update(output, target, output)
    values = scores.compute()
    assert values["strict_baseline"] < 1
    assert values["mse"] == pytest.approx(float((as_saved(output) - target).square().mean()))


def test_counting_does_not_wait_for_the_device(blind):
    output, target = images()
    scores = Scores({"acc": PixelAccuracy(2), "c": Colorfulness(), "r": ColorfulnessRatio(), "psnr": PSNR()})
    with blind:
        scores.update(output, target, target)
