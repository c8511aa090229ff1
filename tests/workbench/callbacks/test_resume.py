"""A killed run, resumed, ends as an uninterrupted one: weights, metrics, images, to the last bit."""

from __future__ import annotations

import os
import signal
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from tests.workbench.toys import OneWeight, assert_same, gan_section, load, quiet_trainer, read_rows, section
from workbench import cli
from workbench.callbacks.checkpoints import Checkpoints
from workbench.callbacks.resume import ExactResume
from workbench.checkpoint import AtomicCheckpointIO
from workbench.errors import UserError
from workbench.signals import STOP

SCHEDULER = "--model.init_args.scheduler"
PLATEAU = [SCHEDULER, "torch.optim.lr_scheduler.ReduceLROnPlateau"]
STEP_LR = [SCHEDULER, "torch.optim.lr_scheduler.StepLR", f"{SCHEDULER}.init_args.step_size", "1"]
EPOCHS = ["--trainer.max_steps", "-1", "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "1"]
EPOCHS += ["--trainer.val_check_interval", "null"]
STOPPING = ["--early_stopping.monitor", "val/psnr", "--early_stopping.patience", "1"]
STOPPING += ["--early_stopping.min_delta", "50"]
ACCUMULATING = ["--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "12"]
CLIPPED = ["--gradient_clipping.norm", "0.1", "--trainer.log_every_n_steps", "3"]
RARELY = ["--checkpoint.every_n_steps", "0"]

END = "on_train_batch_end"
RUNS = {
    # A checkpoint in the middle of an epoch; one killed between a validation and its checkpoint; one after training.
    "validation by steps": ([(END, 10), ("on_validation_end", 15), ("on_test_start", 18)], []),
    "validation by epochs": ([(END, 9), (END, 15)], [*EPOCHS, *STEP_LR]),
    # The first checkpoint follows a clipped step; the share of such steps is logged after two more, which are not.
    "checkpoints by validations alone": (
        [(END, 6), (END, 17)],
        [*RARELY, *CLIPPED, "--trainer.val_check_interval", "4"],
    ),
    "accumulated batches": ([(END, 7), ("on_train_end", 12)], ACCUMULATING),
    "a scheduler that Lightning steps after the validation": (
        [(END, 9), (END, 17)],
        [*EPOCHS, *PLATEAU, "--model.init_args.schedule_every", "epoch", *RARELY],
    ),
    "stopped early": ([(END, 6), ("on_train_end", 10)], [*STOPPING, *PLATEAU]),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_killed_run_ends_as_an_uninterrupted_one(case, small, killed):
    moments, words = RUNS[case]
    assert_same(small("uninterrupted", *words), killed("killed", moments, *words))


def test_a_resumed_run_may_be_made_longer(small):
    """As if it had been that long from the beginning, where nothing else follows its length."""
    constant = [SCHEDULER, "null", "--trainer.max_steps"]
    long, longer = small("long", *constant, "16"), small("longer", *constant, "9")
    for _ in range(2):  # the second time it is over: it only tests again
        assert small("longer", *constant, "16", resume=True) == longer
    assert yaml.safe_load((longer / "config.yaml").read_text())["resume"] is None
    one, other = (load(run)["current_model_state"] for run in (long, longer))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    one, other = (read_rows(run / "metrics.csv") for run in (long, longer))
    for key in ("step", "epoch", "train/loss"):
        assert [row[key] for row in one if row["train/loss"]] == [row[key] for row in other if row["train/loss"]]
    assert one[-1]["test/psnr"] == other[-1]["test/psnr"] != ""


@pytest.mark.parametrize(
    ("hook", "step", "number"),
    [
        (END, 8, signal.SIGTERM),
        ("on_before_backward", 7, signal.SIGINT),  # the first batch of an epoch
        ("on_validation_batch_start", 10, signal.SIGTERM),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="has no such signals")
def test_a_signal_saves_between_two_steps(hook, step, number, small, monkeypatch, capsys):
    words = [*RARELY, "--checkpoint.every_n_minutes", "0"]
    uninterrupted = small("uninterrupted", *words)
    with monkeypatch.context() as patch:
        original = getattr(ExactResume, hook)

        def signaled(self, trainer, *rest, **more):
            if trainer.global_step == step and not STOP.received:
                os.kill(os.getpid(), number)
            original(self, trainer, *rest, **more)

        patch.setattr(ExactResume, hook, signaled)
        with pytest.raises(AssertionError, match=f"assert {128 + number} == 0"):  # the exit code
            small("stopped", *words)
    assert "--name stopped --resume 2" in capsys.readouterr().err
    assert_same(uninterrupted, small("stopped", *words, resume=True))


class RaiseIn(L.Callback):
    """An error in the user's code: in a hook of a callback, of the data or of the model, once, at a step."""

    hook, step = "", -1

    def setup(self, trainer, pl_module, stage):
        owner = next(x for x in (self, trainer.datamodule, pl_module) if hasattr(x, self.hook))
        original = getattr(owner, self.hook)

        def faulty(*given, **more):
            if trainer.global_step == RaiseIn.step:
                RaiseIn.step = -1
                raise RuntimeError("as planted")
            return original(*given, **more)

        setattr(owner, self.hook, faulty)


@pytest.fixture
def failed(small, monkeypatch, capsys):
    """As `small`, but it raises in a hook at a step; returns what is printed to stderr."""
    monkeypatch.setattr(cli, "ALWAYS", [*cli.ALWAYS, RaiseIn])

    def run(hook, step, *words):
        monkeypatch.setattr(RaiseIn, "hook", hook)
        monkeypatch.setattr(RaiseIn, "step", step)
        with pytest.raises(RuntimeError, match="as planted"):
            small("failed", *words)
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("hook", "step", "resumed_from"),
    [
        ("on_before_batch_transfer", 9, 9),  # as a file that cannot be read
        ("on_before_batch_transfer", 14, 14),  # for the first batch of an epoch
        ("on_train_batch_start", 16, 16),
        ("validation_step", 10, 10),
        ("training_step", 9, 5),  # within a step: the last regular checkpoint is of the validation
        ("on_validation_end", 10, 5),
        ("on_train_epoch_end", 7, 5),
    ],
)
def test_an_error_between_two_steps_loses_nothing(hook, step, resumed_from, small, failed):
    words = [*RARELY, "--checkpoint.every_n_minutes", "0"]
    told = failed(hook, step, *words)
    assert f"--resume latest continues from step {resumed_from}." in told
    assert ("no exact state" in told) == (step != resumed_from)
    assert_same(small("uninterrupted", *words), small("failed", *words, resume=True))


def test_a_full_disk_does_not_hide_the_error_that_was_first(failed, monkeypatch):
    def full(*_, **__):
        raise UserError("The disk is full.\nFree some.")

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", full)
    assert "The last state could not be saved: The disk is full." in failed("on_train_batch_start", 4, *RARELY)


class Noisy(OneWeight):
    """Its weight is the sum of what is drawn in its steps."""

    def training_step(self, batch, batch_idx):
        return self.weight * torch.randn(())


class Draws(L.Callback):
    """Draws numbers wherever a callback may; is registered in front of everything."""

    def on_train_start(self, *_):
        torch.rand(3)

    def on_train_batch_start(self, *_):
        torch.rand(1)

    def on_train_batch_end(self, *_):
        torch.rand(2)


def test_callbacks_that_draw_do_not_break_the_exact_resume(tmp_path):
    weights = []
    for steps in ((9,), (4, 9)):
        L.seed_everything(7)
        last = None
        for stop in steps:
            model, folder = Noisy(), tmp_path / str(steps)
            trainer = quiet_trainer(Draws(), Checkpoints(), ExactResume(), max_steps=stop, default_root_dir=folder)
            trainer.fit(model, DataLoader(torch.zeros(20, 1)), ckpt_path=last, weights_only=last and True)
            assert [type(c) for c in trainer.callbacks] == [ExactResume, Draws, Checkpoints]
            last = trainer.checkpoint_callback.folder / "last.ckpt"
        weights.append(float(model.weight))
    assert weights[0] == weights[1]


GAN = "34"  # steps; an epoch has 7: two of each stage, and the last one cut short
MOMENTS = {
    "generator alone": [(END, 5), (END, 12)],
    "critic alone": [(END, 15), ("on_validation_end", 20)],
    "both": [(END, 24), (END, 27), ("on_train_end", 34)],
    # Between a step that logs the discriminator, which then rests, and the one in which its values are recorded.
    "between two looks": [(END, 25)],
    "every stage": [(END, 10), (END, 19), ("on_validation_batch_start", 30)],
}
PENALTY = ["--model.init_args.adversarial", "project.models.WassersteinGP"]
PENALTY += ["--model.init_args.discriminator.init_args.norm", "instance"]
PATIENCE = ["--model.init_args.generator_scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"]
PATIENCE += ["--model.init_args.generator_scheduler.init_args.patience", "0"]
WORDS = {"both": PENALTY, "every stage": PATIENCE, "between two looks": ["--trainer.log_every_n_steps", "3"]}


@pytest.mark.slow
class TestGAN:
    @pytest.fixture
    def small_model(self) -> dict[str, Any]:
        """Two optimizers with moments, two schedules of other kinds, norms with statistics, dropout, a rhythm."""
        unet = section("project.networks.UNet", widths=[4, 6], norm="batch", dropout=0.1)
        adam = section("torch.optim.Adam", lr=0.005, betas=[0.5, 0.9])
        schedulers = {
            "generator_scheduler": section("project.models.WarmupCosine"),
            "discriminator_scheduler": section("torch.optim.lr_scheduler.StepLR", step_size=1),
        }
        rhythm = {"generator_steps": 2, "generator_epochs": 2, "critic_epochs": 1, "feature_matching_weight": 1.0}
        hinge, judge = section("project.models.Hinge"), {"norm": "batch", "spectral_norm": True}
        return gan_section(unet, adam, judge, adversarial=hinge, **schedulers, **rhythm)

    @pytest.mark.parametrize("case", MOMENTS)
    def test_killed_it_ends_as_an_uninterrupted_one(self, case, small, killed):
        words = ["--trainer.max_steps", GAN, "--gradient_clipping.norm", "0.5", *WORDS.get(case, [])]
        uninterrupted = small("uninterrupted", *words)
        assert_same(uninterrupted, killed("killed", MOMENTS[case], *words))
        moments = [state["state"][0]["step"] for state in load(uninterrupted)["optimizer_states"]]
        assert moments == [27, 7 + 7], "the generator rests in one epoch, the critic in two and at every other step"
