from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from project.callbacks.histogram import InputHistogram
from project.callbacks.pictures import GAP, grid, to_image
from project.callbacks.samples import Samples
from project.data.batch import Pair
from project.networks import Normalize


def _trainer(folder, **more):
    plain = {
        "state": SimpleNamespace(fn="fit"),
        "global_step": 0,
        "is_global_zero": True,
        "log_dir": str(folder),
        "loggers": [],
        "sanity_checking": False,
    }
    plain["state"] = SimpleNamespace(fn="fit")
    return SimpleNamespace(**{**plain, **more})


def _pair(height: int = 37, width: int = 50, count: int = 2) -> Pair:
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(count, 3, height, width, generator=generator)
    noisy = target + 0.1 * torch.randn(target.shape, generator=generator)
    return Pair(noisy, target, noisy, torch.arange(count))


def test_a_picture_keeps_its_true_values():
    picture = torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])
    assert np.array_equal(np.asarray(to_image(picture))[..., 0], [[0, 255], [128, 255]])
    assert to_image(picture.expand(3, -1, -1)).mode == "RGB"


def test_a_grid_pastes_pictures_pixel_by_pixel():
    left, right = Image.new("RGB", (300, 20), (255, 0, 0)), Image.new("RGB", (300, 30), (0, 0, 255))
    pixels = np.asarray(grid([[left, right]], ["left", "right"], [["a", "b"]]))
    assert (pixels == (255, 0, 0)).all(-1).sum() == 300 * 20
    assert (pixels == (0, 0, 255)).all(-1).sum() == 300 * 30
    assert pixels.shape[1] == 600 + 3 * GAP


@pytest.mark.parametrize("size", [24, 192])
def test_samples_show_input_output_target_and_error_in_true_pixels(tmp_path, size):
    pair = _pair()
    model = SimpleNamespace(restore=lambda x: torch.full_like(x, 0.25))
    samples = Samples(count=2, size=size, gain=2)
    trainer = _trainer(tmp_path, global_step=7)
    samples.on_validation_batch_end(trainer, model, None, pair, 0)
    samples.on_validation_batch_end(trainer, model, None, _pair(count=2), 1)  # enough already
    samples.on_validation_end(trainer, model)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"step_000007.png", "latest.png"}

    pixels = np.asarray(Image.open(tmp_path / "samples" / "latest.png"))
    height, width = min(37, size), min(50, size)
    top, left = (37 - height) // 2, (50 - width) // 2
    windows = [p[0, :, top : top + height, left : left + width] for p in (pair.input, pair.target)]
    error = (torch.full_like(windows[1], 0.25) - windows[1]).abs() * 2
    for picture in (*windows, torch.full_like(windows[1], 0.25), error):
        assert _contains(pixels, np.asarray(to_image(picture)))


def _contains(canvas: np.ndarray, picture: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (height, width), axis=(0, 1))
    corners = (windows[..., 0, 0] == picture[0, 0]).all(-1)
    return any(
        np.array_equal(canvas[y : y + height, x : x + width], picture)
        for y, x in zip(*np.nonzero(corners), strict=True)
    )


def test_samples_are_the_same_pictures_every_time_and_can_be_switched_off(tmp_path):
    shown = []
    model = SimpleNamespace(restore=lambda x: shown.append(x.clone()) or x)
    samples = Samples(count=3, every_n_validations=2)
    for step in range(4):
        trainer = _trainer(tmp_path, global_step=step)
        for batch in range(3):
            samples.on_validation_batch_end(trainer, model, None, _pair(), batch)
        samples.on_validation_end(trainer, model)
    assert [len(x) for x in shown] == [2, 1, 2, 1]
    assert torch.equal(shown[0], shown[2])
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "latest.png",
        "step_000000.png",
        "step_000002.png",
    ]

    off = Samples(count=0)
    off.on_validation_batch_end(_trainer(tmp_path / "off"), model, None, _pair(), 0)
    off.on_validation_end(_trainer(tmp_path / "off"), model)
    assert not (tmp_path / "off").exists()


def test_the_histogram_counts_what_the_network_gets(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(InputHistogram, "_draw", lambda self, views, path: seen.update(views))
    normalize = Normalize(3, [0.5, 0.4, 0.3], [0.25, 0.2, 0.1])
    network = nn.Module()
    network.normalize_input = normalize
    pair = _pair()
    InputHistogram().on_train_batch_start(_trainer(tmp_path), SimpleNamespace(network=network), pair, 0)
    expected = (pair.input.numpy() - np.reshape([0.5, 0.4, 0.3], (1, 3, 1, 1))) / np.reshape(
        [0.25, 0.2, 0.1], (1, 3, 1, 1)
    )
    assert torch.equal(seen["pixels"], pair.input)
    np.testing.assert_allclose(seen["normalised"].numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_histogram_is_drawn_once(tmp_path, channels):
    pair = Pair(torch.rand(2, channels, 9, 7), *[torch.rand(2, 3, 9, 7)] * 2, torch.arange(2))
    InputHistogram(bins=20).on_train_batch_start(_trainer(tmp_path), SimpleNamespace(), pair, 0)
    path = tmp_path / "samples" / "input_histogram.png"
    assert Image.open(path).size[0] > 300
    path.unlink()
    InputHistogram(bins=20).on_train_batch_start(_trainer(tmp_path, global_step=5), SimpleNamespace(), pair, 5)
    InputHistogram(bins=0).on_train_batch_start(_trainer(tmp_path), SimpleNamespace(), pair, 0)
    assert not path.exists()
