"""Weights shared out among two processes, through the real command; the CPU stands in for two GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.strategies import FSDPStrategy
from PIL import Image
from torch import nn

from project.models import GANColorizer
from project.networks import PatchGAN, UNet
from workbench.callbacks.ema import EMA
from workbench.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no gloo in every build")

ON_THE_CPU = '''
import torch
import torch.distributed.fsdp.fully_sharded_data_parallel as fsdp
from lightning.pytorch.strategies import FSDPStrategy
from PIL import Image
from torch.distributed.fsdp._common_utils import _FSDPDeviceHandle


class OnTheCPU(FSDPStrategy):
    """PyTorch's engine as it is, but for its refusal to work without an accelerator."""

    root_device = torch.device("cpu")


def _handle(state, *_):
    state._device_handle = _FSDPDeviceHandle(torch.device("cpu"), torch.cpu)
    return state


fsdp._init_device_handle = _handle
'''


@pytest.fixture
def words(tmp_path: Path, make_images: Callable[..., Path]) -> list[str]:
    """A run of pairs as they are, whose two processes do what one does with the whole batch."""
    (tmp_path / "on_the_cpu.py").write_text(ON_THE_CPU)
    pictures, targets = make_images(20, width=52, height=41), tmp_path / "targets"
    targets.mkdir()
    for number, path in enumerate(sorted(pictures.iterdir())):
        Image.open(path).point(lambda value, number=number: value * 0.8 + number).save(targets / path.name)
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "none"}}
    options = {"network": network, "optimizer": {"class_path": "torch.optim.SGD", "init_args": RATE}}
    model = {"class_path": "project.models.ImageRestorer", "init_args": options}
    data = {"root": str(pictures), "target_root": str(targets), "crop": 16, "crops_per_image": 4, "num_workers": 0}
    trainer = {"accelerator": "cpu", "max_steps": 8, "check_val_every_n_epoch": None, "val_check_interval": 4}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"data": data, "trainer": trainer, "ema": {"decay": 0}, "model": model}))
    return ["--config", str(path), "--wandb", "off"]


def _command(tmp_path: Path, *words: str, code: int = 0) -> str:
    found = subprocess.run(
        [sys.executable, "-m", "project", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == code, found.stdout + found.stderr
    return found.stdout + found.stderr


def _weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(Path("runs") / name / "latest" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


RATE = {"lr": 0.03, "momentum": 0.9}
SHARED = ["--trainer.devices", "2", "--trainer.strategy.class_path", "on_the_cpu.OnTheCPU", "--data.batch_size", "6"]


@pytest.mark.slow
def test_it_trains_and_tests_as_one_process_does(tmp_path, words):
    _command(tmp_path, "fit", *words, "--name", "one", "--data.batch_size", "12")
    told = _command(tmp_path, "fit", *words, "--name", "two", *SHARED)
    assert "two after 8 steps (last validation)" in told
    one, two = _weights("one"), _weights("two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    assert Path("runs/two/latest/samples/latest.png").stat().st_size > 1000
    (line,) = [line for line in told.splitlines() if line.startswith("Test ")]
    assert "PSNR" in _command(tmp_path, *line.split("-m project ")[1].split(), "--wandb", "off")
    start = ["--model.init_args.init_from", "runs/two/latest/checkpoints/last.ckpt", "--trainer.max_steps", "1"]
    _command(tmp_path, "fit", *words, "--name", "three", *SHARED, *start, "--model.optimizer.init_args.lr", "1e-9")
    for name, value in _weights("three").items():
        torch.testing.assert_close(value, two[name], rtol=0, atol=1e-6)


def test_what_needs_whole_weights_says_so():
    trainer = SimpleNamespace(strategy=FSDPStrategy(), global_step=0)
    with pytest.raises(UserError, match=r"FSDPStrategy gives each process a part.\n.*--ema.decay 0"):
        EMA().on_train_start(trainer, nn.Linear(1, 1))
    model = GANColorizer(UNet(widths=[4, 6]), PatchGAN(in_channels=4, width=4, layers=2), space="rgb")
    model._trainer = trainer
    with pytest.raises(UserError, match=r"GANColorizer steps several.*\n.*configs/trainer/ddp.yaml"):
        model.setup("fit")
