"""A small run through the real command, which can be killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.__main__ import main
from tests.workbench.toys import KillAt, Killed, section
from workbench import cli


@pytest.fixture
def small_model() -> dict[str, Any]:
    """The model section of `small`'s configuration."""
    network = section("project.networks.UNet", widths=[4, 6], norm="batch")
    adam, schedule = section("torch.optim.Adam", lr=0.01), section("project.models.WarmupCosine")
    return section("project.models.ImageRestorer", network=network, optimizer=adam, scheduler=schedule)


@pytest.fixture
def small(tmp_path: Path, make_images: Callable[..., Path], small_model: dict[str, Any]) -> Callable[..., Path]:
    """Runs ``fit`` on ten images, seven of them for training: small("name", "--key", "value") -> the run's folder."""
    path = tmp_path / "small.yaml"
    data = {
        "root": str(make_images(10, width=52, height=41)),
        "pairs": section("project.data.pairs.GaussianNoise", sigma=[5, 50]),
        "crop": 16,
        "batch_size": 4,
        "crops_per_image": 4,  # 28 crops, 7 batches an epoch
        "num_workers": 0,
    }
    trainer = {"accelerator": "cpu", "max_steps": 18, "log_every_n_steps": 1}
    trainer |= {"check_val_every_n_epoch": None, "val_check_interval": 5}
    best = {"monitor": "val/psnr", "mode": "max"}
    tree = {"model": small_model, "data": data, "trainer": trainer, "ema": {"decay": 0.9}, "early_stopping": best}
    tree |= {"checkpoint": {**best, "every_n_steps": 2}, "samples": {"count": 1, "size": 24}}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))

    def run(name: str, *words: str, resume: bool = False) -> Path:
        given = ["--resume", "latest"] if resume else ["--config", str(path)]
        assert main(["fit", "--name", name, "--wandb", "off", *given, *words]) == 0
        return (tmp_path / "runs" / name / "latest").resolve()

    return run


@pytest.fixture
def killed(small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """As `small`, killed at moments (hook, step) one after another, and resumed after each."""
    monkeypatch.setattr(cli, "ALWAYS", [*cli.ALWAYS, KillAt])
    monkeypatch.setattr(KillAt, "hook", "")

    def run(name: str, moments: list[tuple[str, int]], *words: str) -> Path:
        for number, (hook, step) in enumerate(moments):
            KillAt.hook, KillAt.step = hook, step
            with pytest.raises(Killed):
                small(name, *words, resume=number > 0)
        return small(name, *words, resume=True)

    return run
