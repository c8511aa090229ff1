from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from project.callbacks.histogram import InputHistogram
from project.callbacks.pictures import new_figure
from project.data.batch import Batch
from project.data.pairs import GrayToColor, PaletteHints, SpatialHints
from project.networks import Normalize


def _pair(channels: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    picture = torch.rand(2, 3, 9, 7, generator=generator)
    return Batch(torch.rand(2, channels, 9, 7, generator=generator), picture, picture, torch.arange(2))


def _panels(monkeypatch) -> list:
    """The panels of the figures that are saved."""
    panels = []

    def make(*size):
        figure = new_figure(*size)
        save = figure.savefig
        figure.savefig = lambda *words: panels.extend(figure.axes) or save(*words)
        return figure

    monkeypatch.setattr("project.callbacks.histogram.new_figure", make)
    return panels


def _texts(panel) -> list[str]:
    return [text.get_text() for text in panel.get_legend().get_texts()]


@pytest.mark.parametrize("name", ["network", "generator"])
def test_the_histogram_counts_what_the_network_gets(make_trainer, monkeypatch, name):
    seen = {}
    monkeypatch.setattr(InputHistogram, "draw", lambda self, views, hints, path: seen.update(views))
    monkeypatch.setattr("project.callbacks.histogram.log_image", lambda *_: None)
    network = nn.Module()
    network.normalize_input = Normalize(3, [0.5, 0.4, 0.3], [0.25, 0.2, 0.1])
    pair = _pair(3)
    InputHistogram().on_train_batch_start(make_trainer(), SimpleNamespace(**{name: network}), pair, 0)
    expected = (pair.input.numpy() - np.reshape([0.5, 0.4, 0.3], (1, 3, 1, 1))) / np.reshape(
        [0.25, 0.2, 0.1], (1, 3, 1, 1)
    )
    assert torch.equal(seen["pixels"], pair.input)
    np.testing.assert_allclose(seen["normalized"].numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "listed"),
    [
        (1, ["gray"]),
        (2, ["gray", "channel 1"]),
        (3, ["red", "green", "blue"]),
        (4, ["red", "green", "blue", "channel 3"]),
        (33, [*(f"channel {n}" for n in range(7)), "... and 26 more"]),
    ],
)
def test_every_channel_has_a_curve_and_the_legend_stays_short(make_trainer, tmp_path, monkeypatch, channels, listed):
    panels = _panels(monkeypatch)
    pair = _pair(channels)
    InputHistogram(bins=20).on_train_batch_start(make_trainer(), SimpleNamespace(), pair, 0)
    assert Image.open(tmp_path / "samples" / "input_histogram.png").size[0] > 300
    [panel] = panels
    assert [text.partition(":")[0] for text in _texts(panel)] == listed
    assert len(panel.patches) == channels
    first = pair.input[:, 0].numpy()
    assert _texts(panel)[0].endswith(f": mean {first.mean():.2f}, std {first.std():.2f}")


@pytest.mark.parametrize("hints", [SpatialHints(), PaletteHints(colors=3)], ids=["spatial", "palette"])
def test_hints_are_counted_where_there_are_any(make_trainer, monkeypatch, hints):
    panels = _panels(monkeypatch)
    condition = torch.full((4, 1, 9, 7), 0.25)
    planes = torch.zeros(4, hints.channels, 9, 7)
    slot = hints.channels - 4  # the last one
    planes[1, slot : slot + 4, 2:5, 1:4] = torch.tensor([0.8, 0.6, 0.2, 1.0]).view(4, 1, 1)
    pair = _pair(3)._replace(input=torch.cat([condition, planes], dim=1))
    InputHistogram().on_train_batch_start(make_trainer(GrayToColor(hints=hints)), SimpleNamespace(), pair, 0)
    above, below = panels
    assert _texts(above) == ["condition: mean 0.25, std 0.00"]
    assert _texts(below) == [
        "red: mean 0.80, std 0.00",
        "green: mean 0.60, std 0.00",
        "blue: mean 0.20, std 0.00",
    ]
    covered = 9 / (4 * 63 * hints.channels // 4)
    assert f"in 25% of the images, on {covered:.1%} of their planes" in below.get_title()


def test_paper_does_not_bury_the_ink(make_trainer, monkeypatch):
    panels = _panels(monkeypatch)
    for share in (0.3, 0.9):
        lines = torch.rand(2, 1, 90, 70, generator=torch.Generator().manual_seed(1)).clamp(max=1 - share)
        pair = _pair(3)._replace(input=lines)
        InputHistogram().on_train_batch_start(make_trainer(), SimpleNamespace(), pair, 0)
    assert [(panel.get_yscale(), panel.get_ylabel()) for panel in panels] == [
        ("linear", "pixels"),
        ("log", "pixels, logarithmic"),
    ]


def test_a_batch_without_a_single_hint_says_so(make_trainer, monkeypatch):
    panels = _panels(monkeypatch)
    pair = _pair(5)._replace(input=torch.cat([torch.rand(2, 1, 9, 7), torch.zeros(2, 4, 9, 7)], dim=1))
    InputHistogram().on_train_batch_start(make_trainer(GrayToColor(hints=SpatialHints())), SimpleNamespace(), pair, 0)
    assert [text.get_text() for text in panels[1].texts] == ["none in this batch"]


def test_the_histogram_is_drawn_once(make_trainer, tmp_path):
    pair = _pair(3)
    InputHistogram(bins=20).on_train_batch_start(make_trainer(), SimpleNamespace(), pair, 0)
    path = tmp_path / "samples" / "input_histogram.png"
    path.unlink()
    InputHistogram(bins=20).on_train_batch_start(make_trainer(global_step=5), SimpleNamespace(), pair, 5)
    InputHistogram(bins=20).on_train_batch_start(make_trainer(), SimpleNamespace(), pair, 1)  # gathering gradients
    InputHistogram(bins=0).on_train_batch_start(make_trainer(), SimpleNamespace(), pair, 0)
    InputHistogram(bins=20).on_train_batch_start(make_trainer(is_global_zero=False), SimpleNamespace(), pair, 0)
    InputHistogram(bins=20).on_train_batch_start(make_trainer(), SimpleNamespace(), "no pair", 0)
    assert not path.exists()
