from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image, ImageFont

from project.callbacks.pictures import GAP, can_show, grid, hint_giver, middle, sample_path, to_image, zoom_for
from project.data.batch import Batch
from project.data.pairs import GaussianNoise, GrayToColor, NoHints, PaletteHints, SpatialHints
from workbench.loggers import log_image


def test_a_picture_keeps_its_true_values():
    picture = torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])
    assert np.array_equal(np.asarray(to_image(picture))[..., 0], [[0, 255], [128, 255]])
    assert to_image(picture.expand(3, -1, -1)).mode == "RGB"


def test_an_enlarged_picture_shows_each_pixel_as_a_square():
    picture = torch.rand(3, 5, 7)
    small, large = (np.asarray(to_image(picture, zoom)) for zoom in (1, 3))
    assert large.shape == (15, 21, 3)
    for y, x in ((0, 0), (1, 1), (2, 2)):
        assert np.array_equal(large[y::3, x::3], small)


def test_only_pictures_of_few_pixels_are_enlarged():
    sizes = ((32, 32), (28, 20), (48, 64), (96, 20), (49, 500))
    assert [zoom_for(height, width) for height, width in sizes] == [4, 4, 2, 1, 1]


def test_a_grid_pastes_pictures_pixel_by_pixel():
    left, right = Image.new("RGB", (300, 20), (255, 0, 0)), Image.new("RGB", (300, 30), (0, 0, 255))
    pixels = np.asarray(grid([[left, right]], ["left", "right"], [["a", "b"]]))
    assert (pixels == (255, 0, 0)).all(-1).sum() == 300 * 20
    assert (pixels == (0, 0, 255)).all(-1).sum() == 300 * 30
    assert pixels.shape[1] == 600 + 3 * GAP


@pytest.mark.parametrize("long", ["heading", "caption"])
def test_a_column_is_as_wide_as_its_longest_text(long):
    tiny, text = Image.new("RGB", (8, 8), (255, 0, 0)), "a text of many more than eight pixels"
    headings, captions = (["x", text], ["a", "b"]) if long == "heading" else (["x", "y"], ["a", text])
    canvas = grid([[tiny, tiny]], headings, [captions])
    pixels = np.asarray(canvas)
    second = np.nonzero((pixels == (255, 0, 0)).all(-1).any(0))[0][8]
    assert canvas.width >= second + ImageFont.load_default(13).getlength(text)
    assert (pixels[:, -2:] == 255).all()  # nothing is written up to the very edge


def test_the_middle_is_the_center_crop_or_all_there_is():
    picture = torch.arange(7 * 10).reshape(1, 7, 10)
    assert torch.equal(picture[(..., *middle(picture, 4))], picture[:, 1:5, 3:7])
    assert torch.equal(picture[(..., *middle(picture, 8))], picture[:, :, 1:9])
    assert torch.equal(picture[(..., *middle(picture, 80))], picture)


def test_what_can_be_shown_is_a_pair_and_a_model_that_restores():
    model, picture = SimpleNamespace(restore=lambda x: x), torch.rand(1, 3, 4, 5)
    pair = Batch(picture, picture, picture, torch.zeros(1))
    assert can_show(model, pair)
    assert can_show(model, SimpleNamespace(input=picture, target=picture, baseline=picture))
    assert not can_show(model, (picture, picture))
    assert not can_show(LightningModule(), pair)


def test_hints_are_found_where_there_are_any(make_trainer):
    for hints, found in ((SpatialHints(), True), (PaletteHints(), True), (NoHints(), False)):
        pairs = GrayToColor(hints=hints)
        assert hint_giver(make_trainer(pairs)) is (pairs if found else None)
    assert hint_giver(make_trainer(GaussianNoise())) is None
    assert hint_giver(make_trainer(datamodule=SimpleNamespace())) is None
    assert hint_giver(make_trainer()) is None


def test_every_process_asks_for_the_folder_and_only_the_first_has_a_path(make_trainer, tmp_path):
    class Trainer:
        """Its folder is something that all processes have to ask for together."""

        asked = 0

        def __init__(self, rank: int, folder: Path | None) -> None:
            self.is_global_zero, self.folder = rank == 0, folder

        @property
        def log_dir(self) -> str | None:
            Trainer.asked += 1
            return None if self.folder is None else str(self.folder)

    run = tmp_path / "runs" / "one"
    assert sample_path(Trainer(1, run), "a.png") is None
    assert not run.exists()
    assert sample_path(Trainer(0, run), "a.png") == run / "samples" / "a.png"
    assert (run / "samples").is_dir()
    assert sample_path(Trainer(0, None), "a.png") is None  # a trial run keeps nothing
    assert Trainer.asked == 3


def test_pictures_go_to_the_loggers_that_show_pictures(make_trainer, tmp_path):
    seen = []
    wandb, tensorboard = WandbLogger.__new__(WandbLogger), TensorBoardLogger(tmp_path)
    wandb.log_image = lambda key, files: seen.append((key, files))
    show = lambda key, pixels, step, dataformats: seen.append((key, pixels.tolist(), step, dataformats))  # noqa: E731
    tensorboard._experiment = SimpleNamespace(add_image=show)
    path = tmp_path / "one.png"
    Image.new("RGB", (2, 1), (255, 0, 9)).save(path)
    log_image(make_trainer(global_step=7, loggers=[CSVLogger(tmp_path), wandb, tensorboard]), "a", path)
    assert seen == [("a", [str(path)]), ("a", [[[255, 0, 9]] * 2], 7, "HWC")]
