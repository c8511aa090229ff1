"""The command, from the files to the files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from project.inference.prediction import restorer
from project.inference.prediction.predict import add_noise, main
from project.inference.prediction.report import SHOWN
from project.models import ImageRestorer
from project.networks import UNet
from workbench.errors import UserError

ROOT = Path(__file__).parents[4]
SIZES = {"b.png": (150, 201), "a.bmp": (31, 7), "deep/er/[c] d.png": (64, 64), "one.png": (1, 1)}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images of several sizes, at several depths."""
    random = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def predict(checkpoint, source, output, *more):
    arguments = ["--ckpt_path", checkpoint, "--input", str(source), "--output", str(output), "--device", "cpu", *more]
    return main(["predict", *arguments])


def test_a_folder_is_restored_under_the_same_names(checkpoint, folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(checkpoint, folder, output, "--tile", "64", "--overlap", "16") == 0
    assert files(output) == set(SIZES)
    for name in SIZES:
        np.testing.assert_array_equal(pixels(output / name), 255 - pixels(folder / name))
    assert f"Restored 4, skipped 0, failed 0, in {output}" in capsys.readouterr().out.replace("\n", "")


def test_the_real_command_restores_a_file_with_a_unet(tmp_path, folder):
    # A UNet that adds its answer to the image gives the image back when its last weights are 0.
    model = ImageRestorer(UNet(widths=[4, 8], residual=True))
    torch.nn.init.zeros_(model.network.tail.weight)
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 8], "residual": True}}
    described = {"class_path": "project.models.ImageRestorer", "init_args": {"network": network}}
    config = yaml.safe_dump({"model": described, "data": {"channels": 3}})
    torch.save({"state_dict": model.state_dict(), "config": config}, tmp_path / "best.ckpt")
    given = ["--ckpt_path", "best.ckpt", "--input", str(folder / "b.png"), "--output", "out", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "project", "predict", *given],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Restored 1, skipped 0, failed 0" in done.stdout
    assert files(tmp_path / "out") == {"b.png"}
    np.testing.assert_array_equal(pixels(tmp_path / "out/b.png"), pixels(folder / "b.png"))


def test_what_is_done_is_skipped(checkpoint, folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(checkpoint, folder, output) == 0
    before = {name: (output / name).stat().st_mtime_ns for name in SIZES}
    (output / "b.png").unlink()
    capsys.readouterr()
    assert predict(checkpoint, folder, output) == 0
    assert "Restored 1, skipped 3" in capsys.readouterr().out
    assert {name: (output / name).stat().st_mtime_ns for name in SIZES if name != "b.png"}.items() <= before.items()
    assert predict(checkpoint, folder, output, "--overwrite", "true") == 0
    assert "Restored 4, skipped 0" in capsys.readouterr().out


def test_a_stopped_run_leaves_whole_pictures_and_goes_on(checkpoint, folder, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    original = restorer.Restorer.__call__
    calls = []

    def stopped_in_the_second(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(restorer.Restorer, "__call__", stopped_in_the_second)
    assert predict(checkpoint, folder, output) == 130
    assert len(files(output)) == 1
    assert "goes on from here" in capsys.readouterr().out
    assert predict(checkpoint, folder, output) == 0
    assert "Restored 3, skipped 1" in capsys.readouterr().out
    assert files(output) == set(SIZES)


def test_failures_stop_nothing_and_are_reported_with_reasons(checkpoint, folder, tmp_path, capsys):
    (folder / "words.jpg").write_text("only words")
    (folder / "deep" / "empty.png").touch()
    assert predict(checkpoint, folder, tmp_path / "out") == 1
    told = capsys.readouterr().out
    assert "Failed: words.jpg: not an image" in told
    assert "Failed: deep/empty.png: not an image" in told
    assert "Restored 4, skipped 0, failed 2" in told
    assert files(tmp_path / "out") == set(SIZES)


def test_many_failures_are_listed_whole_in_a_file(checkpoint, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number in range(SHOWN + 3):
        (tmp_path / "in" / f"{number}.png").touch()
    assert predict(checkpoint, tmp_path / "in", tmp_path / "out") == 1
    assert capsys.readouterr().out.count("Failed:") == SHOWN
    assert len((tmp_path / "out" / "failed.txt").read_text().splitlines()) == SHOWN + 3


def test_alpha_and_gray_go_along(checkpoint, tmp_path):
    random = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    layers = random.integers(0, 256, (20, 33, 4), dtype=np.uint8)
    Image.fromarray(layers).save(tmp_path / "in" / "clear.png")
    Image.fromarray(layers[..., 0]).save(tmp_path / "in" / "gray.png")
    assert predict(checkpoint, tmp_path / "in", tmp_path / "out") == 0
    expected = np.concatenate([255 - layers[..., :3], layers[..., 3:]], axis=2)
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "clear.png"), expected)
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "gray.png"), 255 - layers[..., 0])


def test_a_gray_network_makes_color_gray_and_says_so(gray_checkpoint, folder, tmp_path, capsys):
    assert predict(gray_checkpoint, folder, tmp_path / "out") == 0
    assert pixels(tmp_path / "out" / "b.png").ndim == 2
    assert "Note: color became gray, as the network is for gray images (4 images)." in capsys.readouterr().out


def test_noise_for_a_demonstration_is_shown_beside(checkpoint, folder, tmp_path):
    for output in ("one", "two"):
        assert predict(checkpoint, folder, tmp_path / output, "--noise", "25") == 0
    noisy, answer = pixels(tmp_path / "one/b.noisy.png"), pixels(tmp_path / "one/b.png")
    np.testing.assert_array_equal(noisy, pixels(tmp_path / "two/b.noisy.png"))
    np.testing.assert_array_equal(answer, 255 - noisy)
    assert (noisy != pixels(folder / "b.png")).mean() > 0.9


def test_the_noise_has_the_strength_that_was_asked_for_and_follows_the_name():
    gray = np.full((700, 80, 3), 128, dtype=np.uint8)
    one, other = add_noise(gray, 10, "a.png"), add_noise(gray, 10, "b.png")
    for noisy in (one, other):
        assert abs(noisy.astype(float).mean() - 128) < 0.2
        assert abs(noisy.astype(float).std() - 10) < 0.2
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(one[:256].ravel(), one[256:512].ravel())[0, 1]) < 0.02


def refusal(*arguments):
    with pytest.raises(UserError) as caught:
        main(["predict", *arguments])
    message = str(caught.value)
    assert len(message.splitlines()) <= 10
    return message


def test_mistakes_are_told_in_a_few_lines(checkpoint, folder, tmp_path):
    given = ["--ckpt_path", checkpoint, "--input", str(folder), "--output", str(tmp_path / "out")]
    assert "Did you mean --output?" in refusal(*given[:4], "--ouput", "x")
    assert refusal(*given[2:]).startswith("the following arguments are required: ckpt_path")
    assert refusal(*given, "--tile", "large").startswith("--tile: Expected a int. Got value: large")
    assert refusal(*given, "--device", "gpu").startswith("--device: Expected one of ['auto', 'cpu'")
    assert "--batch 0" in refusal(*given, "--batch", "0")
    assert "at least 128" in refusal(*given, "--tile", "100", "--overlap", "80")
    assert "Leave it out" in refusal(*given, "--sigma", "3")
    assert "no checkpoint" in refusal("--ckpt_path", str(tmp_path / "none.pt"), *given[2:]).lower()
    assert not (tmp_path / "out").exists()


def test_help_does_not_wait_for_torch():
    code = (
        "import sys\nfrom project.inference.prediction.predict import main\n"
        "try:\n    main(['predict', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for option in ("--ckpt_path", "--input", "--output", "--tile", "--noise"):
        assert option in done.stdout
