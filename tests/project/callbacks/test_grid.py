from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image, ImageFont

from project.callbacks import grid as grid_file
from project.callbacks.grid import GAP, draw_histogram, grid, has_images, new_figure, run_model, to_image, zoom_for
from project.data.batch import Batch
from project.networks import Normalize


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def test_an_image_keeps_its_true_values_and_an_enlarged_one_shows_each_pixel_as_a_square():
    image = torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])
    assert np.array_equal(np.asarray(to_image(image))[..., 0], [[0, 255], [128, 255]])
    small, large = (np.asarray(to_image(rand(3, 5, 7), zoom)) for zoom in (1, 3))
    assert np.array_equal(large, small.repeat(3, axis=0).repeat(3, axis=1))
    sizes = ((32, 32), (28, 20), (48, 64), (96, 20), (49, 500))
    assert [zoom_for(height, width) for height, width in sizes] == [4, 4, 2, 1, 1]


@pytest.mark.parametrize("long", ["heading", "caption"])
def test_a_grid_pastes_images_pixel_by_pixel_in_columns_as_wide_as_their_longest_text(long):
    left, right = Image.new("RGB", (8, 20), (255, 0, 0)), Image.new("RGB", (300, 30), (0, 0, 255))
    text = "a text of many more than eight pixels"
    headings, captions = ([text, "x"], ["a", "b"]) if long == "heading" else (["x", "y"], [text, "b"])
    canvas = grid([[left, right]] * 2, headings, [captions, ["", ""]])
    pixels = np.asarray(canvas)
    assert (pixels == (255, 0, 0)).all(-1).sum() == 2 * 8 * 20
    assert (pixels == (0, 0, 255)).all(-1).sum() == 2 * 300 * 30
    assert canvas.width >= 3 * GAP + 300 + ImageFont.load_default(13).getlength(text)
    assert (pixels[:, -2:] == 255).all()  # nothing is written up to the very edge


def test_what_can_be_shown_are_batches_of_images_and_outputs_that_are_images(make_model):
    image = rand(1, 3, 4, 5)
    batch = Batch(image, image, image, torch.zeros(1))
    assert has_images(batch)
    assert has_images(SimpleNamespace(input=image, target=image, baseline=image))
    assert not has_images((image, image))
    assert not has_images(batch._replace(target=torch.zeros(1, 4, 5, dtype=torch.int64), baseline=None))
    torch.testing.assert_close(run_model(make_model(lambda x: 2 * x), image), (2 * image).clamp(0, 1))
    assert run_model(make_model(lambda x: x.mean((2, 3))), image) is None
    assert run_model(LightningModule(), image) is None


@pytest.fixture
def panels(monkeypatch) -> list:
    """The panels of the histograms that are drawn."""
    found = []

    def make(*size):
        figure = new_figure(*size)
        save = figure.savefig
        figure.savefig = lambda *words: found.extend(figure.axes) or save(*words)
        return figure

    monkeypatch.setattr(grid_file, "new_figure", make)
    return found


@pytest.mark.parametrize(
    ("channels", "shown", "listed"),
    [(1, 1, ["gray"]), (5, 1, ["gray"]), (4, 4, ["red", "green", "blue"]), (33, 33, ["red", "green", "blue"])],
)
def test_every_channel_but_hints_has_a_curve_and_the_legend_stays_short(tmp_path, panels, channels, shown, listed):
    values, path = rand(2, channels, 9, 7), tmp_path / "a.png"
    draw_histogram(values, Normalize(channels, [0.5] * channels, [0.5] * channels), shown, path)
    assert Image.open(path).size[0] > 300
    assert [len(panel.patches) for panel in panels] == [shown, shown]
    first = values[:, 0].numpy()
    for panel, values in zip(panels, (first, 2 * first - 1), strict=True):
        texts = [text.get_text() for text in panel.get_legend().get_texts()]
        assert [text.partition(":")[0] for text in texts] == listed
        assert texts[0].endswith(f": mean {values.mean():.2f}, std {values.std(ddof=1):.2f}")
    panels.clear()
    draw_histogram(rand(2, 3, 9, 7), Normalize(channels, [0.5] * channels, [0.5] * channels), 3, path)
    draw_histogram(rand(2, 3, 9, 7), None, 3, path)
    assert len(panels) == 2  # a normalization of other channels is left out
