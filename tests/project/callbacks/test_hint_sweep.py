from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image

from project.callbacks import hint_sweep
from project.callbacks.hint_sweep import HintSweep, flat_spot
from project.callbacks.pictures import to_image
from project.data.batch import Batch
from project.data.pairs import GaussianNoise, GrayToColor, NoHints, PaletteHints, SpatialHints


class Model:
    """Keeps what it is given; its answer is the mean color of the hints."""

    def __init__(self) -> None:
        self.inputs: list[torch.Tensor] = []

    def restore(self, image):
        self.inputs.append(image.clone())
        hints = image[:, 1:].unflatten(1, (-1, 4))
        color = hints[:, :, :3].sum((1, 3, 4)) / hints[:, :, 3:].sum((1, 3, 4))
        return color[..., None, None].expand(-1, 3, *image.shape[2:])


def _pair(pairs, height: int = 40, width: int = 52) -> Batch:
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(8))
    picture[:, :, 18:30, 24:38] = torch.tensor([0.7, 0.6, 0.5]).view(3, 1, 1)
    return pairs(picture, None, torch.arange(2), torch.arange(2), training=False)


def _validate(sweep, trainer, model, *batches) -> None:
    for number, batch in enumerate(batches):
        sweep.on_validation_batch_end(trainer, model, None, batch, number)
    sweep.on_validation_end(trainer, model)


@pytest.mark.parametrize("hints", [SpatialHints(eval_patch=4), PaletteHints(colors=3)], ids=["spatial", "palette"])
def test_one_hint_goes_round_the_wheel_and_nothing_else_changes(make_trainer, tmp_path, hints):
    pairs, model = GrayToColor(hints=hints), Model()
    pair = _pair(pairs)
    _validate(HintSweep(), make_trainer(pairs), model, pair, _pair(pairs))
    [seen] = model.inputs
    assert seen.shape == (12, 1 + hints.channels, 40, 52)
    assert torch.equal(seen[:, :1], pair.input[:1, :1].expand(12, -1, -1, -1))
    slots = seen[:, 1:].unflatten(1, (-1, 4))
    masks = slots[:, :, 3]
    assert torch.equal(masks, masks[:1].expand_as(masks))
    assert int((masks[0].flatten(1).amax(1) > 0).sum()) == 1  # one hint, or one color of the palette
    hues = []
    for planes, mask in zip(slots, masks, strict=True):
        [color] = np.unique(planes[:, :3].permute(0, 2, 3, 1)[mask > 0].numpy(), axis=0)
        hue, saturation, brightness = colorsys.rgb_to_hsv(*color.tolist())
        hues.append(hue * 360)
        assert (saturation, brightness) == pytest.approx((0.8, 0.9), abs=1e-5)
    assert hues == pytest.approx([30 * step for step in range(12)], abs=1e-3)


def test_a_spatial_hint_lies_where_the_picture_is_flat(make_trainer):
    pairs, model = GrayToColor(hints=SpatialHints(eval_patch=4)), Model()
    _validate(HintSweep(), make_trainer(pairs), model, _pair(pairs))
    rows, columns = np.nonzero(model.inputs[0][0, 4].numpy())
    assert 18 <= rows.min() <= rows.max() < 30
    assert 24 <= columns.min() <= columns.max() < 38
    assert len(rows) == 16


def test_the_picture_shows_swatches_over_outputs_labeled_in_degrees(make_trainer, tmp_path, monkeypatch):
    seen, real = [], hint_sweep.grid
    monkeypatch.setattr(
        hint_sweep,
        "grid",
        lambda rows, headings, captions: seen.append((rows, headings)) or real(rows, headings, captions),
    )
    pairs, model = GrayToColor(hints=SpatialHints()), Model()
    pair = _pair(pairs, 40, 52)
    _validate(HintSweep(), make_trainer(pairs), model, pair)
    [(rows, headings)] = seen
    assert headings[1:] == [f"{30 * step}°" for step in range(12)]
    for step in range(12):
        wanted = [round(255 * value) for value in colorsys.hsv_to_rgb(step / 12, 0.8, 0.9)]
        swatch, output = (np.asarray(row[step + 1]) for row in rows)
        assert (swatch == wanted).all()
        assert np.abs(output.astype(int) - wanted).max() <= 1  # this model answers with the hint's color
        assert output.shape == (80, 104, 3)  # 40 x 52, enlarged
    view = pairs.hints.preview(model.inputs[0][:1, 1:], pair.input[:1, :1])[0]
    assert np.array_equal(np.asarray(rows[1][0]), np.asarray(to_image(view, 2)))
    assert Image.open(tmp_path / "samples" / "hint_sweep.png").width > 13 * 104


def test_a_large_picture_is_cut_before_it_is_colored(make_trainer):
    pairs, model = GrayToColor(hints=SpatialHints()), Model()
    pair = _pair(pairs, 70, 90)
    _validate(HintSweep(size=48), make_trainer(pairs), model, pair)
    assert torch.equal(model.inputs[0][0, :1], pair.input[0, :1, 11:59, 21:69])


def test_it_is_drawn_at_every_nth_validation_the_same_each_time(make_trainer):
    pairs, model = GrayToColor(hints=SpatialHints()), Model()
    sweep = HintSweep(every_n_validations=2)
    for _ in range(4):
        _validate(sweep, make_trainer(pairs), model, _pair(pairs))
    assert len(model.inputs) == 2
    assert torch.equal(*model.inputs)


@pytest.mark.parametrize("case", ["off", "no hints", "noise", "no data module", "sanity", "rank", "model", "batch"])
def test_it_does_nothing_where_there_is_nothing_to_show(make_trainer, tmp_path, case):
    pairs, model = GrayToColor(hints=SpatialHints()), Model()
    batch, sweep = _pair(pairs), HintSweep(0 if case == "off" else 1)
    trainer = make_trainer({"no hints": GrayToColor(hints=NoHints()), "noise": GaussianNoise()}.get(case, pairs))
    if case == "no data module":
        trainer = make_trainer()
    elif case == "sanity":
        trainer = make_trainer(pairs, sanity_checking=True)
    elif case == "rank":
        trainer = make_trainer(pairs, is_global_zero=False)
    elif case == "model":
        model = LightningModule()
    elif case == "batch":
        batch = (batch.input, batch.target)
    _validate(sweep, trainer, model, batch)
    assert not (tmp_path / "samples" / "hint_sweep.png").exists()
    assert isinstance(model, LightningModule) or not model.inputs


def _scene(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(2))


def test_the_spot_is_flat_rather_than_textured():
    picture = _scene(40, 60)
    picture[:, 25:38, 8:20] = 0.6
    x, y = flat_spot(picture)
    assert 25 <= y < 38
    assert 8 <= x < 20


def test_of_flat_places_the_one_in_the_middle_that_is_neither_dark_nor_white():
    assert flat_spot(torch.full((3, 41, 61), 0.6)) == (30, 20)
    picture = torch.ones(3, 48, 64)
    picture[:, :, 32:] = 0.0
    picture[:, 20:34, 36:50] = 0.6
    x, y = flat_spot(picture)
    assert 36 <= x < 50
    assert 20 <= y < 34


@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 7), (1, 5)])
def test_the_smallest_pictures_have_a_spot_too(height, width):
    x, y = flat_spot(_scene(height, width))
    assert 0 <= x < width
    assert 0 <= y < height
