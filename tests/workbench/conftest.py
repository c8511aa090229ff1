"""A small run through the real command, which can be killed; stand-ins for what image callbacks look at."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback

from project.__main__ import main
from workbench import cli


class Killed(BaseException):
    """What SIGKILL leaves behind can be had without a second process: nothing is saved on the way out."""


class KillAt(Callback):
    """Raises in a hook, once it is called at a step."""

    hook = ""
    step = -1


def _hook(name: str) -> Callable[..., None]:
    def run(self: KillAt, trainer: Any, *_: Any, **__: Any) -> None:
        if self.hook == name and trainer.global_step >= self.step:
            KillAt.hook = ""
            raise Killed

    return run


for _name in ("on_train_batch_end", "on_validation_batch_start", "on_validation_end", "on_train_end", "on_test_start"):
    setattr(KillAt, _name, _hook(_name))


@pytest.fixture
def small_model() -> dict[str, Any]:
    """The model section of `small`'s configuration."""
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "batch"}}
    options = {
        "network": network,
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        "scheduler": {"class_path": "project.models.WarmupCosine"},
    }
    return {"class_path": "project.models.ImageRestorer", "init_args": options}


@pytest.fixture
def small(tmp_path: Path, make_images: Callable[..., Path], small_model: dict[str, Any]) -> Callable[..., Path]:
    """Runs ``fit`` on ten images, seven of them for training: small("name", "--key", "value") -> the run's folder."""
    path = tmp_path / "small.yaml"
    noise = {"class_path": "project.data.pairs.GaussianNoise", "init_args": {"sigma": [5, 50]}}
    path.write_text(
        yaml.safe_dump(
            {
                "model": small_model,
                "data": {
                    "root": str(make_images(10, width=52, height=41)),
                    "pairs": noise,
                    "crop": 16,
                    "batch_size": 4,
                    "crops_per_image": 4,  # 28 crops, 7 batches an epoch
                    "num_workers": 0,
                },
                "trainer": {
                    "accelerator": "cpu",
                    "max_steps": 18,
                    "check_val_every_n_epoch": None,
                    "val_check_interval": 5,
                    "log_every_n_steps": 1,
                },
                "ema": {"decay": 0.9},
                "checkpoint": {"monitor": "val/psnr", "mode": "max", "every_n_steps": 2},
                "early_stopping": {"monitor": "val/psnr", "mode": "max"},
                "samples": {"count": 1, "size": 24, "every_n_validations": 2},
            }
        )
    )

    def run(name: str, *words: str, resume: bool = False) -> Path:
        given = ["--resume", "latest"] if resume else ["--config", str(path)]
        assert main(["fit", "--name", name, "--wandb", "off", *given, *words]) == 0
        return (tmp_path / "runs" / name / "latest").resolve()

    return run


@pytest.fixture
def killed(small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """As `small`, killed at moments (hook, step) one after another, and resumed after each."""
    monkeypatch.setattr(cli, "ALWAYS", [*cli.ALWAYS, KillAt])

    def run(name: str, moments: list[tuple[str, int]], *words: str) -> Path:
        for number, (hook, step) in enumerate(moments):
            monkeypatch.setattr(KillAt, "hook", hook)
            monkeypatch.setattr(KillAt, "step", step)
            with pytest.raises(Killed):
                small(name, *words, resume=number > 0)
        monkeypatch.setattr(KillAt, "hook", "")
        return small(name, *words, resume=True)

    return run


@pytest.fixture
def assert_same() -> Callable[[Path, Path], None]:
    """Compares what two finished runs have left, to the last bit, as `make soak` does."""
    path = Path(__file__).parents[2] / "scripts" / "soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    soak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(soak)

    def compare(one: Path, other: Path) -> None:
        assert soak.compare(one, other) == []

    return compare


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., SimpleNamespace]:
    """A trainer in the middle of a fit whose run's folder is the test's own: make_trainer(pairs=..., global_step=3)."""

    def make(pairs: object = None, **more: object) -> SimpleNamespace:
        plain = {
            "state": SimpleNamespace(fn="fit"),
            "global_step": 0,
            "strategy": None,
            "is_global_zero": True,
            "log_dir": str(tmp_path),
            "loggers": [],
            "sanity_checking": False,
            "callback_metrics": {},
            "datamodule": None if pairs is None else SimpleNamespace(pairs=pairs),
            "precision_plugin": SimpleNamespace(test_step_context=nullcontext),
        }
        return SimpleNamespace(**{**plain, **more})

    return make
