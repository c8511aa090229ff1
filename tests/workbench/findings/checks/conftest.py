"""Small data modules and models, healthy ones to plant faults in, and what the checks find in them.

Marks: ``planted("code")`` for a test whose first run of the checks is on that fault (without a code: the test's
parameter ``code``), ``healthy`` for one whose runs must find none. `make faults` runs both kinds and counts: what was
found goes into the report as properties of the test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, seed_everything
from PIL import Image
from torch import Tensor, nn

from project.data import ImageDataModule
from project.data.batch import Batch
from project.data.pairs import GaussianNoise, LinesToColor, Noise, PairMaker, SpatialHints
from project.models import GANColorizer, ImageRestorer
from project.networks import PatchGAN, UNet
from workbench.check import checks_of, halting_trainer, set_up
from workbench.findings import RuleEngine
from workbench.findings.checks import CheckContext, learning
from workbench.findings.engine import Finding, Outcome

SEED = int(os.environ.get("FAULTS_SEED", "1"))
"""Of images and networks; `make faults` takes several."""


class Outcomes(list[Outcome]):
    """What the checks found."""

    @property
    def faults(self) -> list[str]:
        return [outcome.code for outcome in self if isinstance(outcome, Finding) and outcome.is_fault]

    @property
    def notes(self) -> list[str]:
        return [outcome.code for outcome in self if isinstance(outcome, Finding) and not outcome.is_fault]

    def of(self, code: str) -> Outcome:
        return next(outcome for outcome in self if outcome.code == code)


RUNS: list[Outcomes] = []
"""Those of the test that is running."""


@pytest.fixture(autouse=True)
def _report(request: pytest.FixtureRequest, record_property: Callable[[str, str], None]) -> Iterator[None]:
    """Write what was found into the test's report; what a test draws is the same, whichever tests ran before."""
    torch.manual_seed(SEED)
    RUNS.clear()
    yield
    planted = request.node.get_closest_marker("planted")
    if planted is not None:
        record_property("planted", planted.args[0] if planted.args else request.node.callspec.params["code"])
    runs = RUNS[:1] if planted is not None else RUNS
    record_property("faults", " ".join(code for run in runs for code in run.faults))
    record_property("notes", " ".join(code for run in runs for code in run.notes))


class Spoilt(PairMaker):
    """Noisy pairs, changed by a function of input and target."""

    def __init__(self, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], noise: Noise | float) -> None:
        self.change = change
        self.noise = noise if isinstance(noise, Noise) else GaussianNoise(noise)

    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        pair = self.noise(image, target, index, seed, training)
        given, wanted = self.change(pair.input, pair.target)
        return Batch(given, wanted, pair.baseline, index, seed)


def context_of(model: Any, data: Any) -> CheckContext:
    seed_everything(SEED, verbose=False)
    settings = {"accelerator": "cpu", "max_steps": 100, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    return set_up(model, data, halting_trainer(**settings))


def check(context: CheckContext, overfit: bool = False) -> Outcomes:
    chosen = [check for check in checks_of(context) if overfit or check.code != "cannot-overfit"]
    RUNS.append(Outcomes(RuleEngine(chosen).run(context)))
    return RUNS[-1]


def scene(number: int, width: int = 52, height: int = 41) -> np.ndarray:
    """An image of a few colored discs and bars on a slope, which no rotation or mirror maps to itself."""
    draw = np.random.default_rng(number + 1000 * (SEED - 1))
    y, x = np.mgrid[:height, :width]
    image = np.stack([60 + draw.uniform(0.3, 1.5) * x + draw.uniform(0.3, 1.5) * y for _ in range(3)], axis=-1)
    for _ in range(6):
        row, column, radius = draw.uniform(0, height), draw.uniform(0, width), draw.uniform(4, 11)
        image[(y - row) ** 2 + (x - column) ** 2 < radius**2] = draw.uniform(0, 255, 3)
    top, left = int(draw.uniform(0, height - 8)), int(draw.uniform(0, width - 20))
    image[top : top + 5, left : left + 18] = draw.uniform(0, 255, 3)
    return np.uint8(np.clip(image, 0, 255))


@pytest.fixture
def make_scenes(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of unlike images."""

    def make(count: int = 20, folder: str = "scenes", start: int = 0) -> Path:
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            Image.fromarray(scene(number)).save(root / f"{number:03d}.png")
        return root

    return make


def small_unet(**more: Any) -> UNet:
    torch.manual_seed(SEED - 1)
    return UNet(**{"widths": [8, 12], "norm": "none", "residual": True, **more})


def critic(**more: Any) -> PatchGAN:
    return PatchGAN(in_channels=8, width=8, layers=2, **more)


def restorer(network: nn.Module | None = None, **more: Any) -> ImageRestorer:
    adam = partial(torch.optim.Adam, lr=2e-3)
    return ImageRestorer(network or small_unet(), optimizer=more.pop("optimizer", adam), **more)


def colorizer(kind: type[GANColorizer] = GANColorizer, **more: Any) -> GANColorizer:
    """Lines and four planes of hints in, red, green and blue out."""
    torch.manual_seed(SEED - 1)
    plain = {
        "generator": UNet(in_channels=5, out_channels=3, widths=[8, 12], norm="group"),
        "discriminator": critic(),
        "space": "rgb",
        "generator_optimizer": partial(torch.optim.Adam, lr=2e-3),
    }
    return kind(**{**plain, **more})


@pytest.fixture
def make_data(make_scenes: Callable[..., Path]) -> Callable[..., ImageDataModule]:
    """Twenty images with noise, perhaps spoilt by a ``change``; or any other arguments of ImageDataModule."""

    def make(change: Callable | None = None, noise: Noise | float = 25.0, **more: Any) -> ImageDataModule:
        plain = {"crop": 32, "batch_size": 4, "crops_per_image": 2, "num_workers": 0}
        plain["root"] = str(more.get("root") or make_scenes())
        plain["pairs"] = Spoilt(change, noise) if change else GaussianNoise(25)
        return ImageDataModule(**{**plain, **more})

    return make


@pytest.fixture
def look(make_data: Callable[..., ImageDataModule], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcomes]:
    """What the checks find: look(network or model), with arguments of the data module; overfit: for so many steps."""

    def run(model: nn.Module | None = None, overfit: int = 0, **data: Any) -> Outcomes:
        model = model if isinstance(model, LightningModule) else restorer(model)
        if isinstance(model, GANColorizer):
            data.setdefault("pairs", LinesToColor(hints=SpatialHints()))
        monkeypatch.setattr(learning, "STEPS", overfit)
        return check(context_of(model, make_data(**data)), overfit > 0)

    return run


@pytest.fixture
def kit() -> SimpleNamespace:
    """What is above, for tests to build with."""
    names = (context_of, check, scene, small_unet, critic, restorer, colorizer)
    return SimpleNamespace(**{one.__name__: one for one in names})
