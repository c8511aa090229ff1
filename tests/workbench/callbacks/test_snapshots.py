"""Several members from one run: which are kept, what is in them, and that a killed run ends with the same."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
from torch.utils.data import DataLoader
from workbench.callbacks.place import ExactResume
from workbench.callbacks.random_states import RandomStates
from workbench.callbacks.snapshots import Snapshots

from project.__main__ import main
from workbench.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from workbench.callbacks.ema import EMA
from workbench.cli import CALLBACKS
from workbench.errors import UserError

CONFIGS = Path(__file__).parents[3] / "configs"
SCORES = [1.0, 5.0, 2.0, 4.0, 3.0, 0.0]


class Model(L.LightningModule):
    """Its weight counts the steps, whatever the rate is; the scores of its validations, every 2 steps, are given."""

    def __init__(self, scheduler=None, interval="step"):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))
        self.make_scheduler, self.interval = scheduler, interval

    def training_step(self, batch, batch_idx):
        for group in self.optimizers().param_groups:  # SGD takes steps of 1, and the scheduler's rates are looked at
            self.rates = [*getattr(self, "rates", []), group["lr"]]
        return -(self.weight / self.rates[-1]).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/psnr", SCORES[self.trainer.global_step // 2 - 1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        if self.make_scheduler is None:
            return optimizer
        return [optimizer], [{"scheduler": self.make_scheduler(optimizer), "interval": self.interval}]


class Kill(Callback):
    """As SIGKILL would: nothing is saved, nothing is tidied up."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise ZeroDivisionError


class LastUntil(LastCheckpoint):
    """Saves every few steps, but for the last ones before the run is killed: snapshots are younger then."""

    def __init__(self, step: int):
        super().__init__(every_n_steps=1, on_error=False)
        self.step = step

    def save(self, trainer):
        if trainer.global_step <= self.step:
            super().save(trainer)


def fit(folder, snapshots, *, model=None, steps=12, kill=None, ckpt_path=None, last=None, ema=None, epoch=50):
    callbacks = [ExactResume(), *([Kill(kill)] if kill else []), *([ema] if ema else []), RandomStates()]
    trainer = L.Trainer(
        max_steps=steps,
        check_val_every_n_epoch=None,
        val_check_interval=2,
        default_root_dir=folder,
        callbacks=[*callbacks, BestCheckpoint(), snapshots, last or LastCheckpoint(on_error=False)],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        model or Model(),
        DataLoader(torch.zeros(epoch, 1)),
        DataLoader(torch.zeros(1, 1)),
        ckpt_path=ckpt_path,
        weights_only=bool(ckpt_path) or None,
    )


def kept(folder: Path) -> dict[int, float]:
    """Step in the file's name -> the weight in the file."""
    found = {}
    for path in sorted((folder / "checkpoints").glob("snapshot-*.ckpt")):
        content = torch.load(path, weights_only=True)
        found[int(path.stem.removeprefix("snapshot-"))] = float(content["state_dict"]["weight"][0, 0])
        assert content["global_step"] == int(path.stem.removeprefix("snapshot-"))
    return found


def restarts(length: int, **options):
    return lambda optimizer: CosineAnnealingWarmRestarts(optimizer, length, eta_min=0.001, **options)


def test_nothing_is_kept_where_nothing_is_asked_for(tmp_path):
    fit(tmp_path, Snapshots(), model=Model(restarts(4)))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_the_best_are_kept_and_the_others_removed(tmp_path):
    fit(tmp_path, Snapshots("best", most=3))
    assert kept(tmp_path) == {4: 4, 8: 8, 10: 10}, "scores 5, 4 and 3"
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert (best["global_step"], last["global_step"]) == (4, 12)


def test_where_lower_is_better(tmp_path):
    fit(tmp_path, Snapshots("best", most=2, mode="min"))
    assert kept(tmp_path) == {2: 2, 12: 12}


@pytest.mark.parametrize(
    ("scheduler", "interval", "ends"),
    [
        (restarts(4), "step", {4, 8, 12}),
        (restarts(2, T_mult=2), "step", {2, 6}),  # and one that the run breaks off at step 12 of 14
        (restarts(1), "epoch", set()),  # never falls
        (restarts(2), "epoch", {6, 12}),  # of three steps each
        # Lowest at steps 1, 5, 9, and next at 13.
        (lambda o: CyclicLR(o, 0.05, 1.0, step_size_up=2, cycle_momentum=False), "step", {5, 9, 12}),
        (lambda o: OneCycleLR(o, 1.0, total_steps=13, cycle_momentum=False), "step", {12}),  # rises first, ends low
        (lambda o: OneCycleLR(o, 1.0, total_steps=20, cycle_momentum=False), "step", set()),  # broken off
        (None, "step", set()),
    ],
)
def test_a_cycle_ends_before_the_first_step_at_a_higher_rate(tmp_path, scheduler, interval, ends):
    fit(tmp_path, Snapshots("cycles"), model=Model(scheduler, interval), epoch=3 if interval == "epoch" else 50)
    assert kept(tmp_path) == {step: step for step in ends}


def test_of_the_ends_the_newest_are_kept(tmp_path):
    fit(tmp_path, Snapshots("cycles", most=2), model=Model(restarts(3)))
    assert kept(tmp_path) == {9: 9, 12: 12}


def test_a_snapshot_holds_the_average_and_nothing_to_train_with(tmp_path):
    fit(tmp_path, Snapshots("cycles"), model=Model(restarts(6)), ema=EMA(0.5))
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert {"optimizer_states", "current_model_state", "random_states", "loops", "callbacks"} <= last.keys()
    snapshot = torch.load(tmp_path / "checkpoints" / "snapshot-000012.ckpt", weights_only=True)
    assert snapshot.keys() == {"epoch", "global_step", "pytorch-lightning_version", "state_dict"}
    assert torch.equal(snapshot["state_dict"]["weight"], last["state_dict"]["weight"])
    assert not torch.equal(last["state_dict"]["weight"], last["current_model_state"]["weight"])


@pytest.mark.parametrize(
    ("keep", "killed", "saved"),
    [(keep, *steps) for keep in ("best", "cycles") for steps in ((9, 8), (9, 6), (9, 3), (8, 7), (5, 4), (11, 9))],
)
def test_a_killed_and_resumed_run_ends_with_the_same_snapshots(tmp_path, keep, killed, saved):
    model = lambda: Model(restarts(4))  # noqa: E731
    fit(tmp_path / "whole", Snapshots(keep, most=2), model=model())
    folder = tmp_path / "killed"
    with pytest.raises(ZeroDivisionError):
        fit(folder, Snapshots(keep, most=2), model=model(), kill=killed, last=LastUntil(saved))
    last = folder / "checkpoints" / "last.ckpt"
    fit(folder, Snapshots(keep, most=2), model=model(), ckpt_path=last)
    assert kept(folder) == kept(tmp_path / "whole") == ({4: 4, 8: 8} if keep == "best" else {8: 8, 12: 12})


def test_what_came_after_the_checkpoint_goes_and_comes_again(tmp_path):
    fit(tmp_path, Snapshots("best", most=2), model=Model(), steps=4, last=LastCheckpoint())
    first = tmp_path / "checkpoints" / "last.ckpt"
    stray = tmp_path / "checkpoints" / "snapshot-000099.ckpt"
    stray.write_bytes(b"of a run that was killed later")
    (tmp_path / "checkpoints" / "snapshot-000002.ckpt").unlink()
    fit(tmp_path, Snapshots("best", most=2), ckpt_path=first)
    assert kept(tmp_path) == {4: 4, 8: 8}


def test_snapshots_of_another_run_are_not_of_this_one(tmp_path):
    fit(tmp_path / "a", Snapshots("best", most=2), steps=4)
    fit(tmp_path / "b", Snapshots("best", most=2), ckpt_path=tmp_path / "a" / "checkpoints" / "last.ckpt")
    assert kept(tmp_path / "b") == {8: 8, 10: 10}
    assert kept(tmp_path / "a") == {2: 2, 4: 4}


def test_the_last_checkpoint_of_a_run_is_saved_after_its_snapshots():
    """Else it would not know the one of the same step, which a resumed run would then remove."""
    order = list(CALLBACKS)
    assert order.index("snapshots") < order.index("last_checkpoint")


@pytest.mark.parametrize(("config", "part"), [("denoise", "cycles"), ("colorize_cifar", "best")])
def test_the_shipped_parts_go_behind_a_configuration(config, part, make_images):
    words = ["--trainer.fast_dev_run", "1", "--data.root", str(make_images(10, 70, 66)), "--data.batch_size", "2"]
    configs = [CONFIGS / f"{config}.yaml", CONFIGS / "snapshots" / f"{part}.yaml"]
    options = [word for path in configs for word in ("--config", str(path))]
    assert main(["fit", *options, *words, "--trainer.accelerator", "cpu", "--data.eval_crop", "32"]) == 0


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="none, best or cycles"):
        Snapshots("top")
    with pytest.raises(UserError, match="at least 1"):
        Snapshots("best", most=0)
    with pytest.raises(UserError, match=r"--snapshots\.monitor"):
        fit(tmp_path, Snapshots("best", monitor="val/ssim"))
