"""Parameters without a gradient in some steps, in several processes: gloo on the CPU, through the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.strategies import DDPStrategy
from PIL import Image
from torchvision.models import get_model

from project.models import FineTuning, GANColorizer, ImageRestorer
from project.networks import PatchGAN, UNet

NAME = "mobilenet_v3_small"
EPOCH = 5  # steps
UNFREEZE = {1: 1, 2: 0}
STEPS = (5, 8, 13)  # where runs stop: right before something learns, between the two epochs, after both
# Eps damps what Adam makes of gradients near 0; a decay that took hold of what is frozen would show.
ADAM = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "eps": 0.05, "weight_decay": 0.1}}
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "weight_decay": 0.1}}


def test_models_ask_for_it():
    gan = GANColorizer(UNet(in_channels=5, out_channels=2, widths=[4, 6]), PatchGAN(in_channels=7, width=4, layers=1))
    plain, unfreezing = (
        ImageRestorer(UNet(widths=[4, 6]), finetune=FineTuning(1, unfreeze=unfreeze)) for unfreeze in ({}, {1: 0})
    )
    for model, unused in ((gan, True), (plain, False), (unfreezing, True)):
        found = DDPStrategy()
        model._trainer = SimpleNamespace(strategy=found, datamodule=None, world_size=2, state=SimpleNamespace(fn="fit"))
        model.setup("fit")
        assert found._ddp_kwargs.get("find_unused_parameters", False) is unused


def models(weights: Path) -> dict[str, dict]:
    """A denoiser that unfreezes under AdamW, a GAN under SGD; norms are frozen, or left out."""
    network = {"backbone": NAME, "weights": str(weights), "stages": 2, "widths": [4, 6, 8], "norm": "none"}
    network = {"class_path": "project.networks.BackboneUNet", "init_args": {**network, "residual": True}}
    adversary = {"in_channels": 6, "width": 4, "layers": 2, "norm": "none", "spectral_norm": True}
    tuning = {"freeze_stages": "all", "freeze_norms": True, "unfreeze": UNFREEZE, "encoder_rate": 0.5}
    gan = {"space": "rgb", "generator": network, "reconstruction_weight": 5.0, "finetune": tuning}
    gan["reconstruction"] = {"class_path": "torch.nn.MSELoss"}  # an L1 loss turns rounding errors into other signs
    gan |= {"discriminator": {"class_path": "project.networks.PatchGAN", "init_args": adversary}}
    gan |= {"generator_optimizer": SGD, "discriminator_optimizer": SGD}
    restorer = {"network": network, "optimizer": ADAM, "finetune": tuning}
    return {
        "network": {"class_path": "project.models.ImageRestorer", "init_args": restorer},
        "generator": {"class_path": "project.models.GANColorizer", "init_args": gan},
    }


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    torch.save(get_model(NAME, weights=None).state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def write(tmp_path: Path, make_images, weights: Path):
    """Writes a configuration: pairs as they are, so that two processes do what one does with twice the batch."""
    inputs, targets = make_images(20, width=45, height=41), tmp_path / "targets"
    targets.mkdir()
    for number, path in enumerate(sorted(inputs.iterdir())):
        picture = np.asarray(Image.open(path)).astype(int)
        Image.fromarray(np.uint8(np.clip(picture * 0.8 + number, 0, 255))).save(targets / path.name)

    def make(name: str) -> str:
        data = {"root": str(inputs), "target_root": str(targets), "fractions": [0.75, 0.15, 0.1], "crop": 32}
        data |= {"crops_per_image": 4, "num_workers": 0}  # 60 crops, 5 batches of 12 an epoch
        trainer = {"accelerator": "cpu", "check_val_every_n_epoch": None, "val_check_interval": EPOCH}
        tree = {"model": models(weights)[name], "data": data, "trainer": {**trainer, "log_every_n_steps": 1}}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**tree, "gradient_clipping": {"norm": 0.5}, "ema": {"decay": 0.5}}))
        return str(path)

    return make


def fit(*words: str) -> None:
    command = [sys.executable, "-m", "project", "fit", *words, "--wandb", "off"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, timeout=500, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def state(name: str) -> dict[str, dict[str, torch.Tensor]]:
    path = Path("runs") / name / "latest" / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no gloo in every build")
@pytest.mark.parametrize("kind", ["network", "generator"])
def test_two_processes_unfreeze_as_one(write, weights, kind):
    config = write(kind)
    fit("--config", config, "--name", "alone", "--data.batch_size", "12", "--trainer.max_steps", str(STEPS[-1]))
    two = ["--data.batch_size", "6", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    fit("--config", config, "--name", "two", *two, "--trainer.max_steps", str(STEPS[0]))
    before, found = torch.load(weights, weights_only=True), state("two")["current_model_state"]
    prefix = f"{kind}.encoder."
    encoder = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    assert len(encoder) > 20 and all(torch.equal(value, before[name]) for name, value in encoder.items())

    go_on = ["--name", "two", "--resume", "latest", "--trainer.max_steps"]
    fit(*go_on, str(STEPS[1]))
    found = state("two")["current_model_state"]
    changed = {name for name in encoder if not torch.equal(found[prefix + name], before[name])}
    norms = {name.rpartition(".")[0] for name in before if name.endswith("running_mean")}
    assert changed and not any(name.rpartition(".")[0] in norms for name in changed)
    assert not any(name.startswith("features.0.") for name in changed), "the first stage learns later"

    fit(*go_on, str(STEPS[2]))
    one, other = state("alone"), state("two")
    for key in ("current_model_state", "state_dict"):
        for name, value in one[key].items():
            torch.testing.assert_close(other[key][name], value, rtol=0, atol=1e-5)
    first = {name: other["current_model_state"][prefix + name] for name in before if name.startswith("features.0.0.")}
    assert [name for name, value in first.items() if not torch.equal(value, before[name])] == ["features.0.0.weight"]
