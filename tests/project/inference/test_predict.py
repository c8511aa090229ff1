"""The command, from the files to the files: restoring, and coloring with hints."""

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
from project.inference.predict import main
from project.inference.tiles import TiledInference
from project.models import GANColorizer
from project.networks import PatchGAN, UNet
from workbench.errors import UserError

ROOT = Path(__file__).parents[3]
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


def lightness(values):
    return rgb2lab(values if values.ndim == 3 else np.stack([values] * 3, axis=2))[..., 0]


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def predict(checkpoint, source, output, *more):
    arguments = ["--ckpt_path", checkpoint, "--input", str(source), "--output", str(output), "--device", "cpu", *more]
    return main(["predict", *arguments])


def refusal(*arguments):
    with pytest.raises(UserError) as caught:
        main(["predict", *map(str, arguments)])
    assert len(str(caught.value).splitlines()) <= 10
    return str(caught.value)


def write_hints(tmp_path, hints):
    path = tmp_path / "hints.json"
    path.write_text(json.dumps(hints))
    return str(path)


def stop_in_the_second(monkeypatch):
    original, calls = TiledInference.__call__, []

    def stopped(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(TiledInference, "__call__", stopped)


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
    output = tmp_path / "out"
    stop_in_the_second(monkeypatch)
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


def test_alpha_and_gray_are_kept(checkpoint, tmp_path):
    layers = np.random.default_rng(1).integers(0, 256, (20, 33, 4), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(layers).save(tmp_path / "in" / "clear.png")
    Image.fromarray(layers[..., 0]).save(tmp_path / "in" / "gray.png")
    assert predict(checkpoint, tmp_path / "in", tmp_path / "out") == 0
    expected = np.concatenate([255 - layers[..., :3], layers[..., 3:]], axis=2)
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "clear.png"), expected)
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "gray.png"), 255 - layers[..., 0])


def test_mistakes_are_reported_in_a_few_lines(checkpoint, folder, tmp_path):
    given = ["--ckpt_path", checkpoint, "--input", folder, "--output", tmp_path / "out"]
    assert "Did you mean output?" in refusal(*given[:4], "--ouput", "x")
    assert re.match("Missing.* ckpt_path", refusal(*given[2:]))
    assert refusal(*given, "--tile", "large").startswith("--tile: expected a value of type int, got large")
    assert refusal(*given, "--device", "gpu").startswith("--device: expected one of ['auto', 'cpu'")
    assert "--overlap -1" in refusal(*given, "--overlap", "-1")
    assert "at least 128" in refusal(*given, "--tile", "100", "--overlap", "80")
    assert "Leave it out" in refusal(*given, "--sigma", "3")
    assert "no checkpoint" in refusal("--ckpt_path", tmp_path / "none.pt", *given[2:]).lower()
    assert not (tmp_path / "out").exists()


def test_help_shows_options_and_forms(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    printed = capsys.readouterr().out
    for text in ("--ckpt_path", "--input", "--output", "--tile", "--hints", '"color": "#ff8800"', "--palette"):
        assert text in printed


def test_gray_photographs_get_colors_and_keep_their_lightness(coloring_checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(coloring_checkpoint("GrayToColor", crop=32), photos, output) == 0
    assert files(output) == set(GRAY_SIZES)
    for name, (height, width) in GRAY_SIZES.items():
        colored = pixels(output / name)
        assert colored.shape == (height, width, 3)
        assert np.abs(lightness(colored) - lightness(pixels(photos / name))).max() < 1.2
        assert colored[..., 0].mean() > colored[..., 2].mean() + 20
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "Colors are found at 32 pixels along the shorter side (as in its training, data.crop;" in printed
    assert "Colored 3, skipped 0, failed 0" in printed


def test_hints_color_their_places(coloring_checkpoint, photos, tmp_path):
    checkpoint = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4, crop=32)
    hints = write_hints(tmp_path, {"a.png": [{"x": 75, "y": 15, "color": "#0000ff"}], "*": []})
    assert predict(checkpoint, photos, tmp_path / "plain") == 0
    assert predict(checkpoint, photos, tmp_path / "out", "--hints", hints) == 0
    for name in ("deep/b.png", "narrow.png"):
        np.testing.assert_array_equal(pixels(tmp_path / "out" / name), pixels(tmp_path / "plain" / name))
    plain, hinted = (rgb2lab(pixels(tmp_path / part / "a.png"))[..., 2] for part in ("plain", "out"))
    assert hinted[15, 75] < plain[15, 75] - 20
    np.testing.assert_allclose(hinted[45, 15], plain[45, 15], atol=1)


def test_a_palette_reaches_every_image(coloring_checkpoint, photos, tmp_path):
    checkpoint = coloring_checkpoint("LinesToColor", "PaletteHints", planes=8, crop=32)
    assert predict(checkpoint, photos, tmp_path / "red", "--palette", "#ff0000", "--size", "0") == 0
    assert predict(checkpoint, photos, tmp_path / "blue", "--palette", '["blue"]', "--size", "0") == 0
    for name in GRAY_SIZES:
        assert (pixels(tmp_path / "red" / name)[..., 0] == 255).all()
        assert (pixels(tmp_path / "blue" / name)[..., 2] == 255).all()


def test_changed_hints_palettes_and_sizes_are_not_done(coloring_checkpoint, photos, tmp_path, monkeypatch, capsys):
    def colored(*more, code=0):
        assert predict(checkpoint, photos, tmp_path / "out", *more) == code
        return int(re.search(r"(?:Colored|Restored) (\d)", capsys.readouterr().out)[1])

    checkpoint = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4, crop=32)
    hints = {"a.png": [[1, 2, "red"]], "deep/b.png": [[3, 4, "blue"]]}
    assert colored() == 3
    assert colored("--hints", write_hints(tmp_path, hints)) == 2
    assert colored("--hints", write_hints(tmp_path, hints)) == 0
    hints["a.png"][0][2] = "green"
    assert colored("--hints", write_hints(tmp_path, hints)) == 1
    del hints["deep/b.png"]
    assert colored("--hints", write_hints(tmp_path, hints)) == 1
    assert colored("--hints", write_hints(tmp_path, hints), "--size", "16") == 3
    assert [colored(), colored()] == [3, 0]
    with monkeypatch.context() as patched:
        stop_in_the_second(patched)
        assert colored("--size", "16", code=130) == 1
    assert [colored("--size", "16"), colored("--size", "16")] == [2, 0]
    checkpoint = coloring_checkpoint("GrayToColor", "PaletteHints", planes=8, crop=32)
    assert [colored("--palette", palette) for palette in ("red", "#f00", "blue")] == [3, 0, 3]


def test_what_belongs_to_an_image_is_kept(coloring_checkpoint, tmp_path, capsys):
    layers = np.random.default_rng(1).integers(0, 256, (20, 33, 4), dtype=np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
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
    modes = {"clear.png": "RGBA", "gray_clear.png": "RGBA", "palette.png": "RGB", "gray.jpg": "RGB", "bits.tif": "RGB"}
    assert {name: image.mode for name, image in found.items()} == modes
    for name in ("clear.png", "gray_clear.png"):
        np.testing.assert_array_equal(np.asarray(found[name])[..., 3], layers[..., 3])
    assert np.abs(lightness(np.asarray(found["gray_clear.png"])[..., :3]) - lightness(layers[..., 0])).max() < 1.2
    assert found["clear.png"].info["icc_profile"] == profile
    assert "icc_profile" not in found["gray.jpg"].info
    assert found["gray.jpg"].getexif()[0x010F] == "camera"
    printed = " ".join(capsys.readouterr().out.split())
    assert "Note: the image had colors; its gray was colored anew (2 images)." in printed


def test_mistakes_in_colors_are_reported_before_anything_is_written(
    coloring_checkpoint, checkpoint, photos, tmp_path, capsys
):
    output = tmp_path / "out"

    def refused(ckpt, *words):
        return refusal("--ckpt_path", ckpt, "--input", photos, "--output", output, "--device", "cpu", *words)

    spatial = coloring_checkpoint("GrayToColor", "SpatialHints", planes=4)
    outside = write_hints(tmp_path, {"a.png": [[90, 0, "red"]]})
    assert "90, 0 is outside the 90 x 60 pixels" in refused(spatial, "--hints", outside)
    good = write_hints(tmp_path, {"a.png": [[89, 0, "red"]]})
    assert "--hints FILE" in refused(spatial, "--palette", "red")
    assert "exclude each other" in refused(spatial, "--palette", "red", "--hints", good)
    assert "--size -1" in refused(spatial, "--size", "-1")
    assert "--sigma is for networks that remove noise" in refused(spatial, "--sigma", "5")
    assert "does not color" in refused(checkpoint, "--hints", good)
    assert not output.exists()
    words = ["--ckpt_path", spatial, "--input", str(photos), "--output", str(output), "--palette", "pinkk"]
    assert project(["predict", *words]) == 2
    assert '"pinkk" is not a color. Did you mean pink?' in capsys.readouterr().err


def test_the_real_command_colors_a_file_with_hints(tmp_path, photos):
    # An untrained generator whose colors are those of its last bias, and which must not touch the lightness.
    unet, patch = {"in_channels": 5, "out_channels": 2, "widths": [4]}, {"in_channels": 7, "width": 4, "layers": 1}
    model = GANColorizer(UNet(**unet), PatchGAN(**patch), space="lab")
    with torch.no_grad():
        model.generator.tail.weight.zero_()
        model.generator.tail.bias.fill_(0.2)
    networks = {
        "generator": {"class_path": "project.networks.UNet", "init_args": unet},
        "discriminator": {"class_path": "project.networks.PatchGAN", "init_args": patch},
    }
    hints = {"class_path": "project.data.pairs.SpatialHints", "init_args": {"eval_patch": 3}}
    pairs = {"class_path": "project.data.pairs.GrayToColor", "init_args": {"hints": hints}}
    gan = {"class_path": "project.models.GANColorizer", "init_args": {**networks, "space": "lab"}}
    data = {"class_path": "project.data.ImageDataModule", "init_args": {"pairs": pairs, "crop": 32}}
    config = yaml.safe_dump({"model": gan, "data": data})
    torch.save({"state_dict": model.state_dict(), "config": config}, tmp_path / "best.ckpt")
    (tmp_path / "hints.json").write_text('[[10, 10, "pink"]]')
    words = ["--ckpt_path", "best.ckpt", "--input", "gray/a.png", "--output", "out", "--hints", "hints.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "project", "predict", "--device", "cpu", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Colored 1, skipped 0, failed 0" in done.stdout
    colored = pixels(tmp_path / "out/a.png")
    assert colored.shape == (60, 90, 3)
    assert np.ptp(colored.astype(int), axis=2).max() > 8
    assert np.abs(lightness(colored) - lightness(pixels(photos / "a.png"))).max() < 1.2
