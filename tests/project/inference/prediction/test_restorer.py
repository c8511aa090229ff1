"""A model as a function on 8-bit pixels: rounding, channels, the noise map, and memory."""

import numpy as np
import pytest
import torch
from torch import nn

from project.inference.prediction.restorer import Restorer
from project.inference.prediction.tiled import choose_device
from project.networks import UNet
from workbench.errors import UserError

CPU = torch.device("cpu")
random = np.random.default_rng(0)
COLOR = random.integers(0, 256, (70, 101, 3), dtype=np.uint8)
GREY = random.integers(0, 256, (70, 101, 1), dtype=np.uint8)


class Function(nn.Module):
    """A function in place of a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def restorer(function, data=None, **options):
    options = {"device": CPU, "tile": 64, "overlap": 32, **options}
    return Restorer(Function(function), data or {"channels": 3}, **options)


def test_values_are_clipped_and_rounded_to_the_nearest():
    shifts = [-1.0, -0.49 / 255, 0.51 / 255, 1.0]
    for shift in shifts:
        expected = np.clip(np.floor(COLOR.astype(np.float64) + 255 * shift + 0.5), 0, 255)
        np.testing.assert_array_equal(restorer(lambda x, shift=shift: x + shift)(COLOR), expected)


def test_tiles_do_not_show():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 5, padding=2)
    whole = restorer(layer, tile=0)(COLOR)
    np.testing.assert_allclose(restorer(layer, batch=3)(COLOR), whole, atol=1)  # a value near .5 may round either way
    assert np.ptp(whole) > 50


@pytest.mark.parametrize(("stem", "depth", "tile", "overlap"), [(2, 3, 128, 64), (4, 4, 256, 192)])
def test_a_unet_sees_the_same_blocks_of_pixels_in_tiles_as_on_the_whole_picture(stem, depth, tile, overlap):
    torch.manual_seed(0)
    network = UNet(widths=[4] * (depth + 1), convs=1, kernel_size=1, norm="none", stem=stem).eval()
    network.tail.weight.data.mul_(10)  # it starts out close to gray
    picture = random.integers(0, 256, (203, 345, 3), dtype=np.uint8)
    data = {"channels": 3}
    whole = Restorer(network, data, device=CPU, tile=0)(picture)
    tiled = Restorer(network, data, device=CPU, tile=tile, overlap=overlap)(picture)
    assert np.ptp(whole) > 50
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_gray_through_a_color_network_comes_back_gray():
    seen = []

    def shifts(x):
        seen.append(x.shape[1])
        return x * 0.5 + x.new_tensor([0.0, 0.1, 0.2])[:, None, None]

    result = restorer(shifts)(GREY)
    assert set(seen) == {3}
    assert result.shape == GREY.shape
    np.testing.assert_allclose(result, GREY * 0.5 + 25.5, atol=0.51)


def test_gray_stays_color_where_the_network_was_taught_to_color():
    result = restorer(lambda x: x, {"channels": 3, "target_root": "colors"})(GREY)
    np.testing.assert_array_equal(result, np.repeat(GREY, 3, axis=2))


def test_color_goes_into_a_gray_network_as_luma():
    result = restorer(lambda x: x, {"channels": 1})(COLOR)
    assert result.shape == (70, 101, 1)
    np.testing.assert_allclose(result[..., 0], COLOR @ np.array([0.299, 0.587, 0.114]), atol=0.51)


def test_the_noise_map_tells_sigma():
    network = UNet(in_channels=4, out_channels=3, widths=[4, 8])
    data = {"channels": 3, "pairs": {"class_path": "GaussianNoise", "init_args": {"noise_map": True}}}
    seen = []
    network.forward = lambda x: seen.append(x) or x[:, :3]
    np.testing.assert_array_equal(Restorer(network, data, device=CPU, sigma=51.0)(COLOR), COLOR)
    assert seen[0].shape == (1, 4, 70, 101)
    assert (seen[0][:, 3] == 0.2).all()
    with pytest.raises(UserError, match="--sigma"):
        Restorer(network, data, device=CPU)


def test_impossible_wishes_are_refused():
    with pytest.raises(UserError, match="Leave it out"):
        restorer(lambda x: x, sigma=5.0)
    with pytest.raises(UserError, match="5 input channels"):
        Restorer(UNet(in_channels=5, out_channels=3, widths=[4, 8]), {"channels": 3}, device=CPU)
    with pytest.raises(UserError, match="at least 96"):
        restorer(lambda x: x, tile=64, overlap=33)


def test_an_answer_that_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        restorer(lambda x: x / 0)(COLOR)
    with pytest.raises(ValueError, match="2 channels"):
        restorer(lambda x: x[:, :2])(COLOR)


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory: you"])
def test_where_memory_is_short_tiles_become_smaller(message):
    def greedy(x):
        if x.shape[-1] > 64:
            raise RuntimeError(message)
        return x

    patient = restorer(greedy, tile=256, overlap=32)
    np.testing.assert_array_equal(patient(random.integers(0, 2, (200, 300, 3), dtype=np.uint8)).shape, (200, 300, 3))
    assert patient.tile == 64
    with pytest.raises(RuntimeError, match="memory"):
        restorer(lambda x: greedy(torch.cat([x, x], dim=-1)), tile=256, overlap=32)(COLOR)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(x):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        restorer(broken)(COLOR)


def test_progress_rises_to_one():
    shares = []
    restorer(lambda x: x)(np.zeros((300, 70, 3), dtype=np.uint8), shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 3
    assert shares[-1] == 1


def test_half_precision_comes_close():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 3, padding=1)
    full, half = restorer(layer)(COLOR), restorer(layer, precision="bf16")(COLOR)
    assert 0 < np.abs(full.astype(int) - half).max() <= 4


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(UserError, match="--device cuda"):
        choose_device("cuda")
