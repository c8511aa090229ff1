"""A killed run, resumed, ends as one that was left in peace: weights, figures, images, to the last bit."""

from __future__ import annotations

import csv
import os
import signal

import pytest
import torch
from workbench.callbacks.resume import ExactResume

from project.__main__ import main
from workbench.signals import STOP

PLATEAU = ["--model.init_args.scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"]
STEP_LR = ["--model.init_args.scheduler", "torch.optim.lr_scheduler.StepLR"]
STEP_LR += ["--model.init_args.scheduler.init_args.step_size", "1"]
EPOCHS = ["--trainer.max_steps", "-1", "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "1"]
EPOCHS += ["--trainer.val_check_interval", "null"]

RUNS = {
    # A checkpoint in the middle of an epoch; one killed between a validation and its checkpoint; one after training.
    "validation by steps": (
        [("on_train_batch_end", 10), ("on_validation_end", 15), ("on_test_start", 18)],
        [],
    ),
    "validation by epochs": (
        [("on_train_batch_end", 9), ("on_train_batch_end", 15)],
        [*EPOCHS, *STEP_LR],
    ),
    "checkpoints by validations alone": (
        [("on_train_batch_end", 6), ("on_train_batch_end", 17)],
        ["--checkpoint.every_n_steps", "0", "--trainer.val_check_interval", "4"],
    ),
    "accumulated batches": (
        [("on_train_batch_end", 7), ("on_train_end", 12)],
        ["--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "12"],
    ),
    "a scheduler that Lightning steps after the validation": (
        [("on_train_batch_end", 9), ("on_train_batch_end", 17)],
        [*EPOCHS, *PLATEAU, "--model.init_args.schedule_every", "epoch", "--checkpoint.every_n_steps", "0"],
    ),
    "stopped early": (
        [("on_train_batch_end", 6), ("on_train_end", 10)],
        ["--early_stopping.monitor", "val/psnr", "--early_stopping.patience", "1", "--early_stopping.mode", "min", *PLATEAU],
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_killed_run_ends_as_one_left_in_peace(case, small, killed, assert_same):
    moments, words = RUNS[case]
    assert_same(small("peace", *words), killed("killed", moments, *words))


def test_a_resumed_run_may_be_made_longer(small, assert_same):
    """As if it had been that long from the beginning, where nothing else follows its length."""
    constant = ["--model.init_args.scheduler", "null", "--trainer.max_steps"]
    whole = small("whole", *constant, "16")
    small("longer", *constant, "9")
    small("longer", *constant, "16", resume=True)
    longer = small("longer", *constant, "16", resume=True)  # once more: over, it only tests again
    first, second = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["current_model_state"]
        for run in (whole, longer)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = []
    for run in (whole, longer):
        with (run / "metrics.csv").open(newline="") as file:
            rows.append([(row["step"], row["epoch"], row["train/loss"]) for row in csv.DictReader(file)])
    assert [row for row in rows[0] if row[2]] == [row for row in rows[1] if row[2]]


@pytest.mark.parametrize(
    ("hook", "step", "number"),
    [
        ("on_train_batch_end", 8, signal.SIGTERM),
        ("on_before_backward", 7, signal.SIGINT),  # the first batch of an epoch
        ("on_validation_batch_start", 10, signal.SIGTERM),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="has no such signals")
def test_a_signal_saves_between_two_steps(hook, step, number, small, assert_same, monkeypatch, capsys):
    words = ["--checkpoint.every_n_steps", "0", "--checkpoint.every_n_minutes", "0"]
    peace = small("peace", *words)
    with monkeypatch.context() as patch:
        original = getattr(ExactResume, hook)

        def signalled(self, trainer, *rest, **more):
            if trainer.global_step == step and not STOP.received:
                os.kill(os.getpid(), number)
            original(self, trainer, *rest, **more)

        patch.setattr(ExactResume, hook, signalled)
        with pytest.raises(AssertionError):
            small("stopped", *words)
    told = capsys.readouterr().err
    assert told.startswith("Stopped.\nGo on with: python -m project fit --name stopped --resume 2")
    assert_same(peace, small("stopped", *words, resume=True))


def test_the_exit_code_names_the_signal(monkeypatch):
    from workbench.signals import Stop

    def stop(argv):
        raise Stop(signal.SIGTERM)

    monkeypatch.setattr("project.__main__._find", lambda command: stop)
    assert main(["fit"]) == 143
