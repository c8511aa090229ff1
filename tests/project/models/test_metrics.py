import math

import numpy as np
import pytest
import torch
from torchmetrics import MeanSquaredError
from torchmetrics.image import StructuralSimilarityIndexMeasure

from project.models.metrics import PSNR, SSIM, ImageMean, Scores, as_saved


def pictures(channels: int = 3, height: int = 20, width: int = 13, count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, height, width)
    target = (torch.rand(shape, generator=generator) * 255).round() / 255
    spread = torch.linspace(0.01, 0.3, count).view(-1, 1, 1, 1)
    return target + spread * torch.randn(shape, generator=generator), target


def numpy_psnr(output: torch.Tensor, target: torch.Tensor) -> float:
    """The protocol of the denoising papers: of uint8 images, each its own figure, the mean of the figures."""
    figures = []
    for restored, truth in zip(output.numpy().astype(np.float64), target.numpy().astype(np.float64), strict=True):
        saved = (restored.clip(0, 1) * 255).round().astype(np.uint8).astype(np.float64)
        error = ((saved - (truth * 255).round()) ** 2).mean()
        figures.append(10 * math.log10(255**2 / error))
    return float(np.mean(figures))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_psnr_equals_the_papers_protocol_in_any_batch(channels, batch):
    output, target = pictures(channels)
    metric = PSNR()
    for o, t in zip(output.split(batch), target.split(batch), strict=True):
        metric.update(as_saved(o), t)
    assert metric.compute().item() == pytest.approx(numpy_psnr(output, target), abs=1e-4)


def test_a_perfect_picture_counts_100_db():
    target = pictures()[1]
    metric = PSNR()
    metric.update(target, target)
    assert metric.compute().item() == 100


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_equals_torchmetrics(channels):
    output, target = pictures(channels)
    reference = StructuralSimilarityIndexMeasure(data_range=1.0)
    reference.update(output, target)
    metric = SSIM()
    metric.update(output[:2], target[:2])
    metric.update(output[2:], target[2:])
    assert metric.compute().item() == pytest.approx(reference.compute().item(), abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 3), (5, 4), (6, 5), (6, 6)])
def test_ssim_of_pictures_below_its_window_is_a_number(height, width):
    output, target = pictures(height=height, width=width)
    values = SSIM().values(output, target)
    assert values.isfinite().all() and values.shape == (5,)
    torch.testing.assert_close(SSIM().values(target, target), torch.ones(5))


def test_states_of_two_ranks_add_up():
    output, target = pictures()
    whole, first, second = PSNR(), PSNR(), PSNR()
    whole.update(output, target)
    first.update(output[:4], target[:4])
    second.update(output[4:], target[4:])
    assert {reduce.__name__ for reduce in first._reductions.values()} == {"dim_zero_sum"}
    mean = (first.total + second.total) / (first.count + second.count)
    assert mean.item() == pytest.approx(whole.compute().item(), abs=1e-4)


def test_scores_judge_the_answer_as_saved_and_the_baseline_as_it_is():
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(2, 3, 200, 150, generator=generator).round()
    noisy = target + 25 / 255 * torch.randn(target.shape, generator=generator)
    scores = Scores({"psnr": PSNR()})
    scores.update(noisy, target, noisy)
    values = scores.compute()
    assert values["psnr_baseline"].item() == pytest.approx(20 * math.log10(255 / 25), abs=0.03)
    # Half of the noise on black and white is clipped away.
    assert values["psnr"].item() == pytest.approx(values["psnr_baseline"].item() + 3.01, abs=0.05)


def test_scores_start_anew_after_each_computation():
    output, target = pictures()
    scores = Scores({"psnr": PSNR()})
    scores.update(output, target, output)
    before = scores.compute()["psnr"]
    scores.update(target, target, output)
    assert scores.compute()["psnr"] == 100 > before


def test_a_metric_of_ones_own_is_one_class():
    class Error(ImageMean):
        higher_is_better = False

        def values(self, output, target):
            return (output - target).abs().mean(dim=(1, 2, 3))

    _, target = pictures()
    scores = Scores({"error": Error()})
    scores.update(target, target, target + 2)
    assert {k: round(v.item(), 4) for k, v in scores.compute().items()} == {"error": 0, "error_baseline": 2}


def test_a_metric_from_elsewhere_sees_values_in_range():
    class Strict(StructuralSimilarityIndexMeasure):
        def update(self, preds, target):
            assert preds.min() >= 0 and preds.max() <= 1
            super().update(preds, target)

    output, target = pictures()
    scores = Scores({"strict": Strict(data_range=1.0)})
    scores.update(output, target, output)
    assert scores.compute()["strict_baseline"] < 1


def test_metrics_from_elsewhere_take_channels_last_tensors():
    scores = Scores({"mse": MeanSquaredError()})  # takes its input apart with view()
    output, target = (x.to(memory_format=torch.channels_last) for x in pictures())
    scores.update(output, target, output)
    assert scores.compute()["mse"] == pytest.approx(float((as_saved(output) - target).square().mean()))
