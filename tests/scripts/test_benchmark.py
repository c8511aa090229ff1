from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


def benchmark(*words: str, code: int = 0) -> str:
    command = [sys.executable, str(REPOSITORY / "scripts" / "benchmark"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("config", ["denoise.yaml", "colorize.yaml"])
@pytest.mark.parametrize(
    ("words", "sides"),
    [
        (["step", "--steps", "2", "--rounds", "1"], ("everything on", "callbacks off", "bare loop")),
        (
            ["monitors", "--steps", "3", "--rounds", "2", "--trainer.limit_val_batches=1"],
            ("monitors on", "monitors off", "2 rounds"),
        ),
    ],
    ids=["step", "monitors"],
)
def test_training_is_timed_against_a_bare_loop_and_without_monitors(config, words, sides):
    small = ["--data.batch_size=2", *(["--data.crop=32"] if config == "denoise.yaml" else [])]
    printed = benchmark(*words, "--config", str(REPOSITORY / "configs" / config), *small)
    assert all(side in printed for side in sides), printed


@pytest.mark.slow
def test_the_loader_is_timed_against_decoding():
    printed = benchmark("loader", "--pictures", "20", "--rounds", "1")
    assert printed.count("decoding alone") == 2
    assert printed.count("Dataset of torchvision") == 2


@pytest.mark.slow
def test_the_start_is_timed_against_the_imports():
    printed = benchmark("start", "--config", str(REPOSITORY / "configs" / "denoise.yaml"), "--rounds", "1")
    assert "first step, cold" in printed
    assert "most memory" in printed


@pytest.mark.slow
def test_inference_is_timed_in_every_way_and_its_memory_measured(tmp_path, make_images):
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "none"}}
    model = {"class_path": "project.models.ImageRestorer", "init_args": {"network": network}}
    data = {"root": str(make_images(20)), "crop": 16, "batch_size": 4, "num_workers": 0}
    config = tmp_path / "tiny.yaml"
    trainer = {"accelerator": "cpu", "max_steps": 1}
    config.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    command = [sys.executable, "-m", "project", "fit", "--config", str(config), "--wandb", "off"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    checkpoint = "runs/tiny/latest/checkpoints/last.ckpt"

    printed = benchmark("inference", "--ckpt_path", checkpoint, "--side", "40", "--rounds", "1", "--large", "0.5")
    lines = printed.splitlines()
    assert "milliseconds an image of 40 x 40, CPU" in printed
    assert [line.split() for line in lines if line.split()[:1] == ["batch"]] == [["batch", "1", "8"]]
    ways = ["eager", "channels_last", "ONNX Runtime"]
    if "not compiled" not in printed:  # where there is no compiler
        ways.append("compiled")
    for way in ways:
        (row,) = [line for line in lines if line.startswith(f"  {way} ")]
        assert all(float(time) > 0 for time in row.removeprefix(f"  {way}").split()), row
    memory = {line.rpartition(": ")[0].strip(): line.rpartition(": ")[2] for line in lines if "megapixels" in line}
    assert set(memory) == {"0.5 megapixels, tiles of 512", "0.5 megapixels, without tiles"}
    assert all(100 < int(value.removesuffix(" MB at most")) < 20_000 for value in memory.values()), memory


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "inference needs --ckpt_path: runs/NAME/latest/checkpoints/best.ckpt"),
        (["--ckpt_path", "no.ckpt"], "There is no checkpoint no.ckpt"),
    ],
)
def test_inference_wants_a_checkpoint(words, message):
    printed = benchmark("inference", *words, code=2)
    assert message in printed and "Traceback" not in printed
