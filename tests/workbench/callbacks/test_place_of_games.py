"""A GAN, killed in each of its stages and resumed, ends as one that was left in peace, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

STEPS = ["--trainer.max_steps", "34"]  # an epoch has 7: two of each stage, and the last one cut short


@pytest.fixture
def small_model() -> dict[str, Any]:
    """Two optimizers with moments, two schedules of other kinds, norms with statistics, dropout, a rhythm."""
    judge = {"in_channels": 6, "width": 4, "layers": 2, "norm": "batch", "spectral_norm": True}
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005, "betas": [0.5, 0.9]}}
    unet = {"widths": [4, 6], "norm": "batch", "dropout": 0.1}
    options = {
        "space": "rgb",
        "generator": {"class_path": "project.networks.UNet", "init_args": unet},
        "discriminator": {"class_path": "project.networks.PatchGAN", "init_args": judge},
        "adversarial": {"class_path": "project.models.Hinge"},
        "reconstruction_weight": 5.0,
        "feature_matching_weight": 1.0,
        "generator_optimizer": adam,
        "discriminator_optimizer": adam,
        "generator_scheduler": {"class_path": "project.models.WarmupCosine"},
        "discriminator_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}},
        "generator_steps": 2,
        "generator_epochs": 2,
        "critic_epochs": 1,
    }
    return {"class_path": "project.models.GANColorizer", "init_args": options}


RUNS = {
    "generator alone": [("on_train_batch_end", 5), ("on_train_batch_end", 12)],
    "critic alone": [("on_train_batch_end", 15), ("on_validation_end", 20)],
    "both": [("on_train_batch_end", 24), ("on_train_batch_end", 27), ("on_train_end", 34)],
    # Between a step that logs the discriminator, which then rests, and the one in which Watch records values.
    "between two looks": [("on_train_batch_end", 25)],
    "every stage": [("on_train_batch_end", 10), ("on_train_batch_end", 19), ("on_validation_batch_start", 30)],
}
PENALTY = ["--model.init_args.adversarial", "project.models.WassersteinGP"]
PENALTY += ["--model.init_args.discriminator.init_args.norm", "instance"]
PLATEAU = ["--model.init_args.generator_scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"]
PLATEAU += ["--model.init_args.generator_scheduler.init_args.patience", "0"]
WORDS = {"both": PENALTY, "every stage": PLATEAU, "between two looks": ["--trainer.log_every_n_steps", "3"]}


@pytest.mark.slow
@pytest.mark.parametrize("case", RUNS)
def test_a_killed_game_ends_as_one_left_in_peace(case, small, killed, assert_same):
    words = [*STEPS, "--gradient_clipping.norm", "0.5", *WORDS.get(case, [])]
    peace = small("peace", *words)
    assert_same(peace, killed("killed", RUNS[case], *words))
    content = torch.load(peace / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 34 and len(content["optimizer_states"]) == 2
    moments = [state["state"][0]["step"] for state in content["optimizer_states"]]
    assert moments == [27, 7 + 7], "the generator rests in one epoch, the critic in two and at every other step"
    assert {"random_states", "current_model_state"} <= content.keys() and "Watch" in content["callbacks"]
