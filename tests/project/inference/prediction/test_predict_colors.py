"""The command, for networks that color: from the files to the files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageCms
from skimage.color import rgb2lab

from project.__main__ import main as project
from project.inference.prediction.predict import main
from project.models import GANColorizer
from project.networks import PatchGAN, UNet
from workbench.errors import UserError

ROOT = Path(__file__).parents[4]
SIZES = {"a.png": (60, 90), "deep/b.png": (33, 47), "narrow.png": (70, 1)}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Gray images of unequal sides."""
    for name, (height, width) in SIZES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:height, :width] / (height + width)
        Image.fromarray(np.uint8(130 + 100 * np.sin(9 * x) * np.cos(7 * y))).save(path)
    return tmp_path / "in"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def lightness(values):
    return rgb2lab(values if values.ndim == 3 else np.stack([values] * 3, axis=2))[..., 0]


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def predict(checkpoint, source, output, *more):
    arguments = ["--ckpt_path", checkpoint, "--input", str(source), "--output", str(output), "--device", "cpu", *more]
    return main(["predict", *arguments])


def refusal(*arguments):
    with pytest.raises(UserError) as caught:
        predict(*arguments)
    assert len(str(caught.value).splitlines()) <= 10
    return str(caught.value)


def written(tmp_path, hints):
    path = tmp_path / "hints.json"
    path.write_text(json.dumps(hints))
    return str(path)


def test_a_folder_of_gray_photographs_gets_colors_and_keeps_its_lightness(
    coloring_checkpoint, folder, tmp_path, capsys
):
    output = tmp_path / "out"
    assert predict(coloring_checkpoint("GrayToColor", crop=32), folder, output) == 0
    assert files(output) == set(SIZES)
    for name, (height, width) in SIZES.items():
        answer = pixels(output / name)
        assert answer.shape == (height, width, 3)
        assert np.abs(lightness(answer) - lightness(pixels(folder / name))).max() < 1.2
        assert answer[..., 0].mean() > answer[..., 2].mean() + 20
    told = capsys.readouterr().out.replace("\n", " ")
    assert "Colors are found at 32 pixels along the shorter side (as in its training, data.crop;" in told
    assert "Colored 3, skipped 0, failed 0" in told


def test_hints_color_their_places(coloring_checkpoint, folder, tmp_path):
    checkpoint = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4, crop=32)
    hints = written(tmp_path, {"a.png": [{"x": 75, "y": 15, "color": "#0000ff"}], "*": []})
    assert predict(checkpoint, folder, tmp_path / "plain") == 0
    assert predict(checkpoint, folder, tmp_path / "out", "--hints", hints) == 0
    for name in ("deep/b.png", "narrow.png"):
        np.testing.assert_array_equal(pixels(tmp_path / "out" / name), pixels(tmp_path / "plain" / name))
    plain, answer = (rgb2lab(pixels(tmp_path / part / "a.png"))[..., 2] for part in ("plain", "out"))
    assert answer[15, 75] < plain[15, 75] - 20
    np.testing.assert_allclose(answer[45, 15], plain[45, 15], atol=1)


def test_a_palette_reaches_every_picture(coloring_checkpoint, folder, tmp_path):
    checkpoint = coloring_checkpoint("LinesToColor", "PaletteHints", planes=8, crop=32)
    assert predict(checkpoint, folder, tmp_path / "red", "--palette", "#ff0000", "--size", "0") == 0
    assert predict(checkpoint, folder, tmp_path / "blue", "--palette", '["blue"]', "--size", "0") == 0
    for name in SIZES:
        assert (pixels(tmp_path / "red" / name)[..., 0] == 255).all()
        assert (pixels(tmp_path / "blue" / name)[..., 2] == 255).all()


def test_changed_hints_palettes_and_sizes_are_not_done(coloring_checkpoint, folder, tmp_path, capsys):
    checkpoint = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4, crop=32)

    def colored(*more):
        capsys.readouterr()
        assert predict(checkpoint, folder, tmp_path / "out", *more) == 0
        return int(re.search(r"(?:Colored|Restored) (\d+)", capsys.readouterr().out).group(1))

    hints = {"a.png": [[1, 2, "red"]], "deep/b.png": [[3, 4, "blue"]]}
    assert colored() == 3
    assert files(tmp_path / "out") == set(SIZES)
    assert colored("--hints", written(tmp_path, hints)) == 2
    assert colored("--hints", written(tmp_path, hints)) == 0
    hints["a.png"][0][2] = "green"
    assert colored("--hints", written(tmp_path, hints)) == 1
    del hints["deep/b.png"]
    assert colored("--hints", written(tmp_path, hints)) == 1
    assert colored("--hints", written(tmp_path, hints), "--size", "16") == 3
    assert colored() == 3
    assert colored() == 0


def test_a_changed_palette_is_not_done(coloring_checkpoint, folder, tmp_path, capsys):
    checkpoint = coloring_checkpoint("GrayToColor", "PaletteHints", planes=8, crop=32)
    for palette, told in (("red", "Colored 3"), ("#f00", "Colored 0, skipped 3"), ("blue", "Colored 3, skipped 0")):
        assert predict(checkpoint, folder, tmp_path / "out", "--palette", palette) == 0
        assert told in capsys.readouterr().out


def test_a_stopped_run_goes_on_with_its_hints(coloring_checkpoint, folder, tmp_path, monkeypatch, capsys):
    from project.inference.prediction.colorist import Colorist

    checkpoint = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4, crop=32)
    hints = ("--hints", written(tmp_path, {"*": [[0, 0, "red"]]}))
    assert predict(checkpoint, folder, tmp_path / "out") == 0
    original, calls = Colorist.__call__, []

    def stopped_in_the_second(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Colorist, "__call__", stopped_in_the_second)
    assert predict(checkpoint, folder, tmp_path / "out", *hints) == 130
    capsys.readouterr()
    assert predict(checkpoint, folder, tmp_path / "out", *hints) == 0
    assert "Colored 2, skipped 1" in capsys.readouterr().out


def test_what_belongs_to_a_picture_goes_along(coloring_checkpoint, folder, tmp_path, capsys):
    random = np.random.default_rng(1)
    layers = random.integers(0, 256, (20, 33, 4), dtype=np.uint8)
    for path in folder.rglob("*.png"):
        path.unlink()
    exif = Image.Exif()
    exif[0x010F] = "camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(layers).save(folder / "clear.png", icc_profile=profile)
    Image.fromarray(layers[..., [0, 3]]).save(folder / "gray_clear.png")
    Image.fromarray(layers[..., :3]).quantize(16).save(folder / "palette.png")
    gray_profile = profile[:16] + b"GRAY" + profile[20:]
    Image.fromarray(layers[..., 0]).save(folder / "gray.jpg", exif=exif, icc_profile=gray_profile)
    Image.fromarray(layers[..., 0] > 127).save(folder / "bits.tif")
    assert predict(coloring_checkpoint("GrayToColor", crop=32), folder, tmp_path / "out") == 0
    found = {path.name: Image.open(path) for path in (tmp_path / "out").iterdir()}
    assert {name: image.mode for name, image in found.items()} == {
        "clear.png": "RGBA",
        "gray_clear.png": "RGBA",
        "palette.png": "RGB",
        "gray.jpg": "RGB",
        "bits.tif": "RGB",
    }
    for name in ("clear.png", "gray_clear.png"):
        np.testing.assert_array_equal(np.asarray(found[name])[..., 3], layers[..., 3])
    assert np.abs(lightness(np.asarray(found["gray_clear.png"])[..., :3]) - lightness(layers[..., 0])).max() < 1.2
    assert found["clear.png"].info["icc_profile"] == profile
    assert "icc_profile" not in found["gray.jpg"].info
    assert found["gray.jpg"].getexif()[0x010F] == "camera"
    told = " ".join(capsys.readouterr().out.split())
    assert "Note: the image had colors; its gray was colored anew (2 images)." in told


def test_lines_on_transparent_paper_are_pointed_out(coloring_checkpoint, folder, tmp_path, capsys):
    layers = np.zeros((40, 60, 4), dtype=np.uint8)
    layers[10:12, :, 3] = 255
    for path in folder.rglob("*.png"):
        path.unlink()
    Image.fromarray(layers).save(folder / "lines.png")
    assert predict(coloring_checkpoint("LinesToColor", crop=32), folder, tmp_path / "out") == 0
    assert "Note: the paper is transparent" in capsys.readouterr().out
    answer = pixels(tmp_path / "out" / "lines.png")
    np.testing.assert_array_equal(answer[..., 3], layers[..., 3])
    assert (answer[10:12, :, :3] == 0).all()


def test_a_broken_picture_stops_nothing(coloring_checkpoint, folder, tmp_path, capsys):
    (folder / "words.jpg").write_text("only words")
    checkpoint = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4)
    assert predict(checkpoint, folder, tmp_path / "out", "--hints", written(tmp_path, {"*": [[0, 0, "red"]]})) == 1
    told = capsys.readouterr().out
    assert "Failed: words.jpg: not an image" in told
    assert "Colored 3, skipped 0, failed 1" in told


def test_mistakes_are_told_before_anything_is_written(coloring_checkpoint, checkpoint, folder, tmp_path):
    output = tmp_path / "out"
    hints = written(tmp_path, {"a.png": [[90, 0, "red"]], "c.png": []})
    spatial = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4)
    message = refusal(spatial, folder, output, "--hints", hints)
    assert "x 90, y 0 is outside the image of 90 x 60 pixels" in message
    assert '"c.png" is none of the images' in message
    good = written(tmp_path, {"a.png": [[89, 0, "red"]]})
    assert "--hints FILE" in refusal(spatial, folder, output, "--palette", "red")
    assert "exclude each other" in refusal(spatial, folder, output, "--palette", "red", "--hints", good)
    assert "no color" in refusal(spatial, folder, output, "--palette", "reddd")
    assert "--size -1" in refusal(spatial, folder, output, "--size", "-1")
    assert "--noise is for networks that remove noise" in refusal(spatial, folder, output, "--noise", "5")
    assert "--sigma is for networks that remove noise" in refusal(spatial, folder, output, "--sigma", "5")
    assert "for networks that color" in refusal(checkpoint, folder, output, "--hints", good)
    palette = coloring_checkpoint("GrayToColor", "PaletteHints", planes=4)
    assert 'place of --hints: --palette "#' in refusal(palette, folder, output, "--hints", good)
    assert "has 2 colors" in refusal(palette, folder, output, "--palette", "red,blue")
    assert "on its own" in refusal(coloring_checkpoint("GrayToColor"), folder, output, "--hints", good)
    assert not output.exists()


def test_the_real_command_colors_a_file_with_hints(tmp_path, folder):
    # An untrained generator, which must not touch the lightness.
    unet = {"in_channels": 5, "out_channels": 2, "widths": [4, 8]}
    model = GANColorizer(UNet(**unet), PatchGAN(in_channels=7, width=4, layers=1), space="lab")
    hints = {"class_path": "project.data.pairs.SpatialHints", "init_args": {"eval_patch": 3}}
    networks = {
        "generator": {"class_path": "project.networks.UNet", "init_args": unet},
        "discriminator": {
            "class_path": "project.networks.PatchGAN",
            "init_args": {"in_channels": 7, "width": 4, "layers": 1},
        },
    }
    described = {
        "model": {"class_path": "project.models.GANColorizer", "init_args": {**networks, "space": "lab"}},
        "data": {
            "pairs": {"class_path": "project.data.pairs.GrayToColor", "init_args": {"hints": hints}},
            "crop": 32,
        },
    }
    torch.save({"state_dict": model.state_dict(), "config": yaml.safe_dump(described)}, tmp_path / "best.ckpt")
    (tmp_path / "hints.json").write_text('[[10, 10, "pink"]]')
    given = ["--ckpt_path", "best.ckpt", "--input", str(folder / "a.png"), "--output", "out", "--device", "cpu"]
    command = [sys.executable, "-m", "project", "predict", *given, "--hints", "hints.json"]
    about = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    done = subprocess.run(command, **about, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Colored 1, skipped 0, failed 0" in done.stdout
    answer = pixels(tmp_path / "out/a.png")
    assert answer.shape == (60, 90, 3)
    assert np.ptp(answer.astype(int), axis=2).max() > 8
    assert np.abs(lightness(answer) - lightness(pixels(folder / "a.png"))).max() < 1.2


def test_a_mistake_in_the_hints_ends_in_a_few_plain_lines(coloring_checkpoint, folder, tmp_path, capsys):
    checkpoint = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4)
    hints = written(tmp_path, {"a.png": [[10, 10, "pinkk"]]})
    assert (
        project(["predict", "--ckpt_path", checkpoint, "--input", str(folder), "--output", "out", "--hints", hints])
        == 2
    )
    assert 'point 1: "pinkk" is no color: did you mean pink?' in capsys.readouterr().err


def test_the_help_shows_the_options_and_the_form_of_the_hints(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    told = capsys.readouterr().out
    for part in ("--hints", "--palette", "--size", '[{"x": 64, "y": 20, "color": "#ff8800"}', '--palette "#ff8800,'):
        assert part in told
