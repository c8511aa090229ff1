import numpy as np
import pytest
import torch
from project.models.color_metrics import Colorfulness, ColorfulnessRatio, PixelAccuracy
from skimage.color import rgb2lab
from torch.utils._python_dispatch import TorchDispatchMode

from project.models.metrics import PSNR, Scores, as_saved
from workbench.errors import UserError


def pictures(count=5, height=21, width=14, seed=0):
    """Outputs that miss their targets by more and more, of all colors."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, height, width)
    target = as_saved(torch.rand(shape, generator=generator))
    spread = torch.linspace(0.002, 0.06, count).view(-1, 1, 1, 1)
    return target + spread * torch.randn(shape, generator=generator), target


def eight_bits(picture):
    """(B, 3, H, W) tensor -> (B, H, W, 3) uint8 array."""
    return (picture.numpy().clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def numpy_right(output, target, threshold):
    """Which pixels are right, as scikit-image and NumPy have it: (B, H, W)."""
    difference = np.abs(np.round(rgb2lab(eight_bits(output))) - np.round(rgb2lab(eight_bits(target))))
    return (difference <= np.array([1, 2.2, 2.2]) * threshold).all(axis=-1)


def numpy_colorfulness(picture):
    figures = []
    for red, green, blue in (np.moveaxis(one.astype(np.float64), -1, 0) for one in eight_bits(picture)):
        rg, yb = red - green, 0.5 * (red + green) - blue
        figures.append(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
    return np.array(figures)


@pytest.mark.parametrize("threshold", [2, 5])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_pixel_accuracy_equals_scikit_image_and_numpy_in_any_batch(threshold, batch):
    output, target = pictures()
    metric = PixelAccuracy(threshold)
    for o, t in zip(output.split(batch), target.split(batch), strict=True):
        metric.update(o, t)
    right = numpy_right(output, target, threshold)
    assert 20 < 100 * right.mean() < 90
    # The colors are close to a tie of the rounding for one pixel in a thousand at most.
    assert metric.compute().item() == pytest.approx(100 * right.mean(), abs=0.1)


def test_every_pixel_counts_once_whatever_the_size_of_its_picture():
    metric = PixelAccuracy(2)
    black, white = torch.zeros(1, 3, 4, 5), torch.ones(1, 3, 20, 3)
    metric.update(black, black)
    metric.update(torch.zeros_like(white), white)
    assert metric.compute().item() == pytest.approx(100 * 20 / 80)


def test_a_and_b_may_be_off_by_more_than_lightness():
    """One pixel each, found by scikit-image: which of them are right at a threshold of 5."""
    target = np.full((256, 3), 120, np.uint8)
    output = target.copy()
    output[:, 0] += np.arange(256, dtype=np.uint8) % 32
    output[:, 2] -= np.arange(256, dtype=np.uint8) // 32 * 3
    as_tensor = [torch.from_numpy(x.T.copy()).float().view(1, 3, 16, 16) / 255 for x in (output, target)]
    lab = np.abs(np.round(rgb2lab(output)) - np.round(rgb2lab(target)))
    right = (lab <= [5, 11, 11]).all(axis=1)
    assert (lab[right, 1:] > 5).any() and (lab[~right, 0] <= 5).any()
    metric = PixelAccuracy(5)
    metric.update(*as_tensor)
    assert metric.compute().item() == pytest.approx(100 * right.mean(), abs=1e-4)


def test_both_pictures_are_judged_as_saved():
    _, target = pictures()
    metric = PixelAccuracy(0)
    metric.update(target + 0.4 / 255, target - 0.4 / 255)
    metric.update(torch.full((1, 3, 2, 2), 1.7), torch.full((1, 3, 2, 2), 1.0))
    assert metric.compute() == 100


def test_colorfulness_equals_numpy_and_a_hand_count():
    output, target = pictures()
    metric = Colorfulness()
    metric.update(output[:2], target[:2])
    metric.update(output[2:], target[2:])
    assert metric.compute().item() == pytest.approx(numpy_colorfulness(output).mean(), rel=1e-5)
    # A red and a blue pixel: rg is 255 and 0, yb 127.5 and -255.
    red_blue = torch.tensor([[255.0, 0], [0, 0], [0, 255]]).view(1, 3, 1, 2) / 255
    by_hand = (127.5**2 + 191.25**2) ** 0.5 + 0.3 * (127.5**2 + 63.75**2) ** 0.5
    assert Colorfulness().values(red_blue, red_blue).item() == pytest.approx(by_hand, rel=1e-6)


def test_gray_pictures_have_no_color_and_may_have_one_channel():
    _, target = pictures()
    gray = target[:, :1]
    assert torch.equal(Colorfulness().values(gray, gray), torch.zeros(5))
    accuracy, ratio = PixelAccuracy(2), ColorfulnessRatio()
    accuracy.update(gray, gray.expand(-1, 3, -1, -1))
    assert accuracy.compute() == 100
    ratio.update(gray, target)
    assert ratio.compute() == 0
    ratio.reset()
    ratio.update(target, gray)
    assert ratio.compute().isnan()


@pytest.mark.parametrize("metric", [PixelAccuracy(2), Colorfulness(), ColorfulnessRatio()])
def test_other_numbers_of_channels_are_told(metric):
    with pytest.raises(UserError, match="have 4"):
        metric.update(torch.rand(1, 4, 3, 2), torch.rand(1, 4, 3, 2))


def test_a_negative_threshold_is_told():
    with pytest.raises(UserError, match="negative"):
        PixelAccuracy(-1)


def test_the_ratio_is_of_sums_and_right_over_unequal_ranks():
    output, target = pictures()
    output = output * torch.tensor([0.2, 1, 0.5, 0.9, 0.1]).view(-1, 1, 1, 1)
    expected = numpy_colorfulness(output).sum() / numpy_colorfulness(target).sum()
    first, second = ColorfulnessRatio(), ColorfulnessRatio()
    for part in (slice(0, 1), slice(1, 4)):
        first.update(output[part], target[part])
    second.update(output[4:], target[4:])
    assert first.compute().item() != pytest.approx(expected, rel=1e-2)
    first.merge_state(second)
    first._computed = None
    assert first.compute().item() == pytest.approx(expected, rel=1e-5)


def test_accuracy_of_two_ranks_adds_up():
    output, target = pictures()
    first, second = PixelAccuracy(5), PixelAccuracy(5)
    first.update(output[:4], target[:4])
    second.update(output[4:], target[4:])
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(100 * numpy_right(output, target, 5).mean(), abs=0.1)


def color_scores():
    return Scores({"acc_2": PixelAccuracy(2), "acc_5": PixelAccuracy(5), "colorfulness_ratio": ColorfulnessRatio()})


def test_in_scores_each_stands_beside_its_baseline_and_starts_anew():
    output, target = pictures()
    gray = target.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1) + 0.01
    scores = color_scores()
    scores.update(target, target, target)
    scores.compute()
    scores.update(output, target, gray)
    values = {name: value.item() for name, value in scores.compute().items()}
    assert values["acc_5"] == pytest.approx(100 * numpy_right(output, target, 5).mean(), abs=0.1)
    assert values["acc_5_baseline"] == pytest.approx(100 * numpy_right(gray, target, 5).mean(), abs=0.1)
    assert values["acc_2"] < values["acc_5"]
    assert values["colorfulness_ratio"] == pytest.approx(
        numpy_colorfulness(output).sum() / numpy_colorfulness(target).sum(), rel=1e-4
    )
    assert values["colorfulness_ratio_baseline"] == pytest.approx(0, abs=1e-6)


def test_counting_does_not_wait_for_the_device():
    class NoWaiting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read back"
            return func(*args, **(kwargs or {}))

    output, target = pictures()
    scores = Scores({"acc": PixelAccuracy(2), "c": Colorfulness(), "r": ColorfulnessRatio(), "psnr": PSNR()})
    with NoWaiting():
        scores.update(output, target, target)


def test_half_precision_outputs_are_measured_in_full():
    output, target = pictures()
    output = output.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        metric = PixelAccuracy(5)
        metric.update(output, target)
    assert metric.compute().item() == pytest.approx(100 * numpy_right(output.float(), target, 5).mean(), abs=0.1)
