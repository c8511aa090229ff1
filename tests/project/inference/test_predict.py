"""The command, from the files to the files: restoring, and coloring with hints."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageCms
from skimage.color import rgb2lab

from project.__main__ import main as project
from project.inference.predict import main
from project.inference.tiles import TiledInference
from project.models import ImageRestorer
from project.networks import UNet
from workbench.errors import UserError

SIZES = {"a.bmp": (31, 7), "b.png": (150, 201), "deep/er/[c] d.png": (64, 64), "one.png": (1, 1)}
GRAY_SIZES = {"a.png": (60, 90), "deep/b.png": (33, 47), "narrow.png": (70, 1)}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images in color of several sizes, at several depths."""
    random = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


@pytest.fixture
def photos(tmp_path) -> Path:
    """Gray images of unequal sides."""
    for name, (height, width) in GRAY_SIZES.items():
        path = tmp_path / "gray" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:height, :width] / (height + width)
        Image.fromarray(np.uint8(130 + 100 * np.sin(9 * x) * np.cos(7 * y))).save(path)
    return tmp_path / "gray"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def predict(checkpoint, source, output, *more):
    arguments = ["--ckpt_path", checkpoint, "--input", str(source), "--output", str(output), "--device", "cpu", *more]
    return main(["predict", *arguments])


def write_hints(tmp_path, hints):
    path = tmp_path / "hints.json"
    path.write_text(json.dumps(hints))
    return str(path)


def test_a_folder_is_restored_under_the_same_names_and_what_is_done_is_skipped(checkpoint, folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(checkpoint, folder, output, "--tile", "64", "--overlap", "16") == 0
    assert files(output) == set(SIZES)
    for name in SIZES:
        np.testing.assert_array_equal(pixels(output / name), 255 - pixels(folder / name))
    assert f"Restored 4, skipped 0, failed 0, in {output}" in capsys.readouterr().out.replace("\n", "")
    before = {name: (output / name).stat().st_mtime_ns for name in SIZES}
    (output / "b.png").unlink()
    assert predict(checkpoint, folder, output) == 0
    assert "Restored 1, skipped 3" in capsys.readouterr().out
    assert {name: (output / name).stat().st_mtime_ns for name in SIZES if name != "b.png"}.items() <= before.items()
    assert predict(checkpoint, folder, output, "--overwrite", "true") == 0
    assert "Restored 4, skipped 0" in capsys.readouterr().out


def test_a_stopped_run_leaves_whole_images_and_resumes(checkpoint, folder, tmp_path, monkeypatch, capsys):
    original, calls, output = TiledInference.__call__, [], tmp_path / "out"

    def stopped(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(TiledInference, "__call__", stopped)
    assert predict(checkpoint, folder, output) == 130
    assert len(files(output)) == 1
    assert "resumes from here" in capsys.readouterr().out
    assert predict(checkpoint, folder, output) == 0
    assert "Restored 3, skipped 1" in capsys.readouterr().out
    assert files(output) == set(SIZES)


def test_failures_stop_nothing_and_are_reported_with_reasons(checkpoint, folder, tmp_path, capsys):
    (folder / "words.jpg").write_text("only words")
    (folder / "deep" / "empty.png").touch()
    assert predict(checkpoint, folder, tmp_path / "out") == 1
    printed = capsys.readouterr().out
    assert "Failed: words.jpg: not an image" in printed
    assert "Failed: deep/empty.png: not an image" in printed
    assert "Restored 4, skipped 0, failed 2" in printed
    assert files(tmp_path / "out") == set(SIZES)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ouput", "x"], "Did you mean output?"),
        (["--tile", "large"], "--tile: "),
        (["--overlap", "-1"], "--overlap: "),
        (["--device", "gpu"], "--device: expected one of ['auto', 'cpu'"),
        (["--tile", "100", "--overlap", "80"], "at least 128"),
        (["--sigma", "3"], "this one does not have one"),
        (["--ckpt_path", "none.pt"], "There is no checkpoint none.pt"),
        (["--hints", "hints.json"], "does not color"),
        (["--palette", "red", "--hints", "hints.json"], "exclude each other"),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(checkpoint, folder, tmp_path, words, reason):
    write_hints(tmp_path, {"b.png": [{"x": 1, "y": 2, "color": "red"}]})
    with pytest.raises(UserError) as caught:
        predict(checkpoint, folder, "out", *words)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10
    assert not (tmp_path / "out").exists()


def test_the_version_that_wrote_a_checkpoint_is_named_where_it_does_not_load(make_images, tmp_path, capsys):
    """As the code before the two packages wrote it: keys of the configuration, and of what is resumed, are others."""
    run = tmp_path / "runs" / "old" / "1"
    (run / "checkpoints").mkdir(parents=True)
    (run / "environment.json").write_text('{"commit": "7c894bd"}')
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4], "width": 32}}
    described = {"network": network, "optimizer": {"class_path": "torch.optim.Adam"}}
    model = {"class_path": "project.models.ImageRestorer", "init_args": described}
    config = {"model": model, "data": {"root": str(make_images()), "crop": 16, "num_workers": 0}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    last = str(run / "checkpoints" / "last.ckpt")
    content = {"state_dict": {}, "config": yaml.safe_dump(config), "global_step": 20, "epoch": 0}
    content |= {"pytorch-lightning_version": "2.6.6", "place": {"steps": 20}, "callbacks": {}, "loops": {}}
    torch.save(content | {"optimizer_states": [], "lr_schedulers": []}, last)
    restored = ["predict", "--input", "pictures", "--output", "out"]
    resumed = ["fit", "--name", "old", "--resume", "1", "--wandb", "off"]
    for command in (restored, ["test"], ["export"], ["fit", "--wandb", "off"], resumed):
        given = [] if command is resumed else ["--ckpt_path", last]
        assert project([*command, *given]) == 2
        error = capsys.readouterr().err
        assert "width" in error
        assert "written by another version of the code (commit 7c894bd).\nUse that version, or train again" in error
        assert f"--model.init_args.init_from {last}" in error

    network["init_args"].pop("width")
    content |= {"state_dict": ImageRestorer(UNet(widths=[4])).state_dict(), "config": yaml.safe_dump(config)}
    torch.save(content | {"optimizer_states": [], "lr_schedulers": []}, last)
    words = ["--ckpt_path", last, "--wandb", "off", "--trainer.accelerator", "cpu", "--trainer.max_steps", "30"]
    assert project(["fit", *words]) == 2
    assert "last.ckpt cannot be resumed. It was written by another version" in capsys.readouterr().err
    assert "place" in torch.load(last, weights_only=True), "and it is as it was"
    assert project(["fit", *words, "--trainer.max_stepz", "3"]) == 2
    assert "another version" not in capsys.readouterr().err, "what was typed is no matter of the checkpoint"


def test_photographs_keep_their_lightness_hints_color_their_places_and_new_hints_color_anew(
    coloring_checkpoint, photos, lightness, tmp_path, capsys
):
    checkpoint, output = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4, crop=32), tmp_path / "out"
    assert predict(checkpoint, photos, output) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "Colors are found at 32 pixels along the shorter side" in printed
    assert "Colored 3, skipped 0, failed 0" in printed
    assert files(output) == set(GRAY_SIZES)
    plain = {name: pixels(output / name) for name in GRAY_SIZES}
    for name, colored in plain.items():
        assert colored.shape == (*GRAY_SIZES[name], 3)
        assert np.abs(lightness(colored) - lightness(pixels(photos / name))).max() < 1.2
        assert colored[..., 0].mean() > colored[..., 2].mean() + 20

    hints = write_hints(tmp_path, {"a.png": [{"x": 75, "y": 15, "color": "#0000ff"}], "*": []})
    later = (output / "a.png").stat().st_mtime + 1
    os.utime(hints, (later, later))
    assert predict(checkpoint, photos, output, "--hints", hints) == 0
    assert "Colored 3, skipped 0" in capsys.readouterr().out
    for name in ("deep/b.png", "narrow.png"):
        np.testing.assert_array_equal(pixels(output / name), plain[name])
    before, hinted = (rgb2lab(image)[..., 2] for image in (plain["a.png"], pixels(output / "a.png")))
    assert hinted[15, 75] < before[15, 75] - 20
    np.testing.assert_allclose(hinted[45, 15], before[45, 15], atol=1)
    write_hints(tmp_path, {"a.png": [{"x": 90, "y": 0, "color": "red"}]})
    assert predict(checkpoint, photos, output, "--hints", hints, "--overwrite", "true") == 1
    assert "Failed: a.png: hint 1 at 90, 0 is outside the 90 x 60 pixels" in capsys.readouterr().out


def test_a_palette_reaches_every_image(coloring_checkpoint, photos, tmp_path):
    checkpoint = coloring_checkpoint("LinesToColor", "PaletteHints", planes=8, crop=32)
    for color, channel in (("#ff0000", 0), ("blue", 2)):
        assert predict(checkpoint, photos, tmp_path / color, "--palette", color, "--size", "0") == 0
        for name in GRAY_SIZES:
            assert (pixels(tmp_path / color / name)[..., channel] == 255).all()


def test_what_belongs_to_an_image_is_kept(coloring_checkpoint, tmp_path):
    layers = np.random.default_rng(1).integers(0, 256, (20, 33, 4), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gray_profile = profile[:16] + b"GRAY" + profile[20:]
    Image.fromarray(layers).save(tmp_path / "in/clear.png", icc_profile=profile)
    Image.fromarray(layers[..., [0, 3]]).save(tmp_path / "in/gray_clear.png")
    Image.fromarray(layers[..., 0]).save(tmp_path / "in/gray.jpg", icc_profile=gray_profile)
    Image.fromarray(layers[..., 0] > 127).save(tmp_path / "in/bits.tif")
    assert predict(coloring_checkpoint("GrayToColor", crop=32), tmp_path / "in", tmp_path / "out") == 0
    found = {path.name: Image.open(path) for path in (tmp_path / "out").iterdir()}
    modes = {"clear.png": "RGBA", "gray_clear.png": "RGBA", "gray.jpg": "RGB", "bits.tif": "RGB"}
    assert {name: image.mode for name, image in found.items()} == modes
    for name in ("clear.png", "gray_clear.png"):
        np.testing.assert_array_equal(np.asarray(found[name])[..., 3], layers[..., 3])
    assert found["clear.png"].info["icc_profile"] == profile
    assert "icc_profile" not in found["gray.jpg"].info
