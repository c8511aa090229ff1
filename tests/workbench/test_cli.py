"""The real commands, end to end, on images made here."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from project.__main__ import main
from project.data.drawings import Drawings

PINNED = [0.15836, 0.15684, 0.14516, 0.13727]
"""The training loss at steps 0, 9, 18 and 27."""
CONFIGS = Path(__file__).parents[2] / "configs"
NETWORK = {"class_path": "project.networks.UNet", "init_args": {"widths": [8, 12], "norm": "none", "residual": True}}
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}}
COSINE = {"class_path": "project.models.schedules.WarmupCosine"}
PSNR = {"monitor": "val/psnr", "mode": "max"}


@pytest.fixture
def config(tmp_path: Path, make_images) -> Path:
    """Thirty steps of a tiny network on ten images of unequal sides."""
    model = {"network": NETWORK, "optimizer": ADAM, "scheduler": COSINE}
    pairs = {"class_path": "project.data.pairs.GaussianNoise", "init_args": {"sigma": 50}}
    data = {"root": str(make_images(10, width=52, height=41)), "pairs": pairs, "crop": 24, "num_workers": 0}
    trainer = {"accelerator": "cpu", "max_steps": 30, "check_val_every_n_epoch": None, "val_check_interval": 10}
    tree = {
        "model": {"class_path": "project.models.ImageRestorer", "init_args": model},
        "data": {**data, "batch_size": 4, "crops_per_image": 4},
        "trainer": {**trainer, "log_every_n_steps": 1},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**tree, "checkpoint": PSNR, "early_stopping": PSNR}))
    return tmp_path / "tiny.yaml"


def fit(config: Path, *words: str) -> Path:
    assert main(["fit", "--config", str(config), "--wandb", "off", *words]) == 0
    return Path("runs/tiny/latest").resolve()


def column(run: Path, key: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def test_fit_learns_and_leaves_a_complete_run_behind(config, capsys):
    run = fit(config)
    printed = capsys.readouterr().out
    losses = column(run, "train/loss")
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    # Pinned loosely: another processor or version rounds otherwise, another algorithm is far off.
    assert losses[::9] == pytest.approx(PINNED, rel=2e-3)
    assert column(run, "test/psnr")[-1] > column(run, "test/psnr_baseline")[-1] + 1
    assert column(run, "val/psnr_baseline")[0] == pytest.approx(14.15, abs=0.15)  # 20 log10(255 / 50)

    samples = {path.name for path in (run / "samples").glob("*.png")}
    assert {"latest.png", "step_000010.png", "step_000030.png"} <= samples
    assert json.loads((run / "environment.json").read_text())["packages"]["torch"] == torch.__version__.split("+")[0]
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 30
    for text in ("PSNR (dB)", "SSIM", "baseline", "best.ckpt", "samples", "python -m project predict"):
        assert text in printed
    for name in ("best", "last"):  # plain values only
        content = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert yaml.safe_load(content["config"])["model"]["class_path"] == "project.models.ImageRestorer"
        assert content["global_step"] == 30


def test_the_same_command_repeats_the_same_losses(config):
    seeds = ([], [], ["--seed_everything", "7"])
    first, second, other = (column(fit(config, "--trainer.max_steps", "9", *seed), "train/loss") for seed in seeds)
    assert first == second != other


def test_the_checkpoint_alone_is_enough(config, tmp_path, monkeypatch):
    run = fit(config, "--data.root", "pictures")
    score = column(run, "test/psnr")[-1]
    config.unlink()
    (run / "config.yaml").unlink()
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert main(["test", "--ckpt_path", checkpoint]) == 0
    (tested,) = Path("runs/tiny").iterdir()
    assert tested.name.endswith("-test")
    assert column(tested, "test/psnr")[-1] == pytest.approx(score, abs=1e-4)
    monkeypatch.chdir(tmp_path)
    assert Path("runs/tiny/latest").resolve() == run

    Image.new("RGB", (70, 31), (200, 40, 90)).save(tmp_path / "red.png")
    assert main(["predict", "--ckpt_path", checkpoint, "--input", "red.png", "--output", "restored"]) == 0
    assert Image.open("restored/red.png").size == (70, 31)


def test_no_output_depends_on_a_batch_size(small):
    """Trained with one batch size, scored with others, resumed with a third: the same outputs."""

    def score(checkpoint: str, *words: str) -> float:
        before = set(Path("runs").glob("*/*-test*"))
        assert main(["test", "--ckpt_path", str(run / "checkpoints" / checkpoint), *words]) == 0
        (tested,) = set(Path("runs").glob("*/*-test*")) - before
        return column(tested, "test/psnr")[-1]

    run = small("run", "--trainer.max_steps", "6", "--data.fractions", "[0.4, 0.3, 0.3]")
    assert score("best.ckpt") == pytest.approx(score("best.ckpt", "--data.eval_batch_size", "3"), abs=1e-4)
    assert small("run", "--data.batch_size", "3", "--trainer.max_steps", "9", resume=True) == run
    other = score("last.ckpt", "--data.eval_batch_size", "3", "--data.batch_size", "5")
    assert score("last.ckpt") == pytest.approx(other, abs=1e-4)


def test_the_published_protocol_takes_the_whole_folder(config, make_images, recwarn):
    run = fit(config, "--data.pairs.init_args.sigma", "25", "--trainer.max_steps", "10")
    folder = make_images(3, width=37, height=50, folder="others")
    words = ["--data.root", str(folder), "--data.protocol", "kair"]
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *words]) == 0
    (tested,) = Path("runs/tiny").glob("*-test")
    expected = []
    for path in sorted(folder.glob("*.png")):
        noise = np.random.RandomState(0).normal(0, 25 / 255, np.asarray(Image.open(path)).shape)
        expected.append(-10 * np.log10((noise**2).mean()))
    assert column(tested, "test/psnr_baseline") == pytest.approx([np.mean(expected)], abs=1e-3)
    assert not [str(one.message) for one in recwarn if "dirpath" in str(one.message)]


def test_a_resumed_run_continues_in_its_folder_to_the_same_end(config):
    whole = fit(config)
    cut = fit(config, "--trainer.max_steps", "20", "--model.init_args.scheduler.init_args.total_steps", "30")
    resume = ["fit", "--name", "tiny", "--resume", "latest", "--wandb", "off"]
    assert main([*resume, "--trainer.max_steps", "30", "--data.cache_dir", "other"]) == 0
    assert Path("runs/tiny/latest").resolve() == cut
    assert column(cut, "test/psnr")[-1] == column(whole, "test/psnr")[-1]
    assert column(cut, "train/loss") == column(whole, "train/loss")
    assert len(column(cut, "train/loss")) == 30
    assert yaml.safe_load((cut / "config.yaml").read_text())["resume"] is None


def test_early_stopping_ends_with_the_best_weights(config, capsys):
    words = ["--early_stopping.patience", "1", "--early_stopping.min_delta", "50", "--trainer.max_steps", "90"]
    run = fit(config, *words)
    assert len(column(run, "train/loss")) == 20, "the second validation is not better than the first by 50 dB"
    assert column(run, "test/psnr"), "the best checkpoint was tested"
    assert "Stopped early    Monitored metric val/psnr did not improve" in capsys.readouterr().out
    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] in (10, 20)


@pytest.mark.parametrize(
    "words", [["--data.crop", "null"], ["--data.weights.cats", "3"], ["--data.fractions", "[0.8, 0, 0.2]"]]
)
def test_data_that_cannot_be_loaded_leaves_no_run(config, make_images, words, capsys):
    make_images(30, width=60, height=41, folder="pictures/wide")
    assert main(["fit", "--config", str(config), "--wandb", "off", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(Path("runs").glob("*/*"))


def test_a_fit_without_test_images_ends_well(config):
    run = fit(config, "--trainer.max_steps", "10", "--data.fractions", "[0.8, 0.2, 0]")
    assert column(run, "val/psnr") and not column(run, "test/psnr")


class FewDrawings(Drawings):
    def __init__(self, cache, **options):
        super().__init__(cache, count=20, **options)


@pytest.mark.parametrize("name", sorted({path.stem for path in CONFIGS.glob("*.yaml")} - {"denoise_bsd_hour"}))
def test_every_shipped_config_parses_and_trains_two_steps(name, make_images, tmp_path, monkeypatch):
    monkeypatch.setattr("project.data.sources.Drawings", FewDrawings)
    words = ["--trainer.fast_dev_run", "2", "--trainer.accelerator", "cpu", "--data.batch_size", "2"]
    if name != "colorize":  # which draws its own images
        words += ["--data.root", str(make_images(10, 70, 66))]
    if name in ("finetune", "lineart"):
        words += ["--data.target_root", str(make_images(10, 70, 66, folder="colored")), "--data.crop", "64"]
    if name == "finetune":  # whose weights would be downloaded
        words += ["--model.network.weights", "none"]
    if name == "colorize_cifar":
        words += ["--data.eval_crop", "32"]
    assert main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *words]) == 0
    assert {found.name for found in tmp_path.iterdir()} <= {"pictures", "colored", ".cache"}, "it leaves no run behind"


@pytest.mark.skipif(sys.platform == "win32", reason="has no process groups with signals")
def test_ctrl_c_saves_and_prints_how_to_resume(config):
    command = [sys.executable, "-m", "project", "fit", "--config", str(config), "--trainer.max_steps", "5000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(Path("runs").glob("tiny/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: W&B's own process gets it as well
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    run = Path("runs/tiny/latest").resolve()
    words = f"-m project fit --name tiny --resume {run.name}"
    assert told == f"Stopped.\nResume with: python {words}\n"

    step = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    command = [sys.executable, *shlex.split(words), "--trainer.max_steps", str(step + 3)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), "no warnings that nobody can do anything about"
    assert "Upload to W&B    wandb sync runs/tiny/" in done.stdout, "offline, without a prompt"
    assert len(column(run, "train/loss")) == step + 3
    folders = list(run.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    assert {folder.name.split("-", 3)[3] for folder in folders} == {f"tiny-{run.name}"}, "one run of W&B"


def test_a_saved_config_works_again_and_a_second_one_changes_it(config, tmp_path):
    first = fit(config, "--trainer.max_steps", "3")
    (tmp_path / "more.yaml").write_text("trainer: {max_steps: 2}\nema: {decay: 0.5}\ndata: {crop: 16}\n")
    assert main(["fit", "--config", str(first / "config.yaml"), "--config", "more.yaml"]) == 0
    second = Path("runs/tiny/latest").resolve()
    assert second != first, "under the name that the saved configuration has"
    before, after = (yaml.safe_load((run / "config.yaml").read_text()) for run in (first, second))
    assert (after["trainer"]["max_steps"], after["ema"]["decay"]) == (2, 0.5)
    before["data"]["init_args"]["crop"] = 16
    assert after["data"] == before["data"] and after["model"] == before["model"]


def test_bar_and_checkpoints_can_be_switched_off(config, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    fit(config, "--trainer.max_steps", "10")
    assert "%|" in capsys.readouterr().out
    switches = ["--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false"]
    assert not (fit(config, "--trainer.max_steps", "10", *switches) / "checkpoints").exists()
    printed = capsys.readouterr().out
    assert "%|" not in printed and "step 10 " not in printed and "PSNR (dB)" in printed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model.init_args.network.init_args.widths", "[8, 16]"], ["do not fit", "init_from"]),
        (["--model.init_args.optimizer", "torch.optim.SGD"], ["optimizer.class_path torch.optim.Adam ->", "init_from"]),
    ],
)
def test_a_run_that_cannot_be_resumed_stays_as_it_was(config, capsys, words, expected):
    run = fit(config, "--trainer.max_steps", "3")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["fit", "--name", "tiny", "--resume", "latest", "--trainer.max_steps", "6", *words]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) <= 10
    assert all(part in told for part in expected), told
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
