"""The drawings: the same for a number everywhere, colors apart from the lines, whole sets in the cache."""

import io
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from project.data import ImageDataModule, drawings
from project.data.cache import Cache
from project.data.drawings import Drawings, draw
from project.data.images import decode
from project.data.pairs import PairedInput

NUMBERS = range(60)


def pixels(number, size=96):
    return tuple(np.asarray(Image.open(io.BytesIO(part))) for part in draw(number, size))


@pytest.fixture(scope="module")
def drawn():
    return [pixels(number) for number in NUMBERS]


def test_a_number_is_a_drawing_whatever_the_global_generator_does(drawn):
    random.seed(5)
    state = random.getstate()
    for number in (3, 0, 3):
        for once, again in zip(drawn[number], pixels(number), strict=True):
            np.testing.assert_array_equal(once, again)
    assert random.getstate() == state
    for part in range(2):
        assert len({pair[part].tobytes() for pair in drawn}) == len(NUMBERS)


def test_lines_and_colors_are_the_same_drawing(drawn):
    """Ink is ink in both, and where the lines are paper, coloring can only have darkened it."""
    for lines, colors in drawn:
        assert lines.shape == (96, 96) and colors.shape == (96, 96, 3) and lines.dtype == colors.dtype == np.uint8
        gray = colors @ (0.299, 0.587, 0.114)
        assert lines.min() == 0 and gray[lines == 0].max() < 1
        assert (gray <= lines + 1.5).mean() > 0.999
        assert (lines == 255).mean() > 0.4
        assert np.ptp(colors[lines == 255], axis=0).max() > 60, "no color that the lines do not show"
    assert pixels(1, size=40)[0].shape == (40, 40)


def test_pairs_are_written_once_with_credits(tmp_path, drawn, monkeypatch, capsys):
    before = torch.random.get_rng_state()
    entries = Drawings(Cache(tmp_path), count=4).find()
    assert torch.equal(torch.random.get_rng_state(), before), "the first run draws the same as the next ones"
    assert [entry.name for entry in entries] == ["0000.png", "0001.png", "0002.png", "0003.png"]
    for entry, (lines, colors) in zip(entries, drawn, strict=False):
        np.testing.assert_array_equal(decode(entry.path, 1)[..., 0], lines)
        np.testing.assert_array_equal(decode(entry.target_path, 3), colors)
    credits = (Drawings(Cache(tmp_path), count=4).folder / "CREDITS").read_text(encoding="utf-8")
    assert credits in capsys.readouterr().out
    assert all(artist in credits for artist in ("Lisa Wischofsky", "Micah Lanier", "Pablo Stanley", "CC BY 4.0"))
    monkeypatch.setattr(drawings, "draw", lambda *_: pytest.fail("drawn again"))
    assert Drawings(Cache(tmp_path), count=4).find() == entries
    other = [Drawings(Cache(tmp_path), count=2), Drawings(Cache(tmp_path), count=4, size=40)]
    assert len({one.folder for one in other} | {Drawings(Cache(tmp_path), count=4).folder}) == 3


def test_the_data_module_takes_lines_as_inputs_and_colors_as_targets(monkeypatch, tmp_path):
    monkeypatch.setattr("project.data.sources.Drawings", partial(Drawings, count=12, size=48))
    monkeypatch.setattr("project.data.sources.Drawings.paired", True, raising=False)
    options = {"cache_dir": str(tmp_path / "cache"), "crop": 32, "batch_size": 4, "num_workers": 0, "seed": 1}
    module = ImageDataModule(source="drawings", **options)
    module.prepare_data()
    module.setup("fit")
    assert isinstance(module.pairs, PairedInput)
    assert sum(map(len, module.splits.values())) == 12 and min(map(len, module.splits.values())) > 0
    for batch in module.val_dataloader():
        pair = module.on_after_batch_transfer(batch, 0)
        lines, colors = pixels(int(Path(module.splits["val"][pair.index.item()]).stem), size=48)
        np.testing.assert_array_equal((255 * pair.input[0]).round().byte().numpy(), np.stack([lines] * 3))
        np.testing.assert_array_equal((255 * pair.target[0]).round().byte().numpy(), colors.transpose(2, 0, 1))
    batch = next(iter(module.train_dataloader()))
    assert batch.image.shape == batch.target.shape == (4, 3, 32, 32)
