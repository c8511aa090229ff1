"""What a run saves: the best, the last, and snapshots; and that a killed and resumed run ends with the same files."""

from __future__ import annotations

import math
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
from torch.utils.data import DataLoader

from tests.workbench.toys import KillAt, Killed, load, quiet_trainer
from workbench.callbacks.checkpoints import Checkpoints, EarlyStopping
from workbench.callbacks.ema import EMA
from workbench.callbacks.resume import ExactResume
from workbench.lightning_private import batches_done

SCORES = (1.0, 5.0, 2.0, 4.0, 3.0, 0.0)


class Model(L.LightningModule):
    """Its weight counts the steps, whatever the learning rate; the scores of its validations are given."""

    def __init__(self, scheduler=None, interval="step", scores=SCORES, every=2):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))
        self.make_scheduler, self.interval, self.scores, self.every = scheduler, interval, scores, every

    def training_step(self, batch, batch_idx):
        return -(self.weight / self.trainer.optimizers[0].param_groups[0]["lr"]).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/score", self.scores[self.trainer.global_step // self.every - 1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        if self.make_scheduler is None:
            return optimizer
        return [optimizer], [{"scheduler": self.make_scheduler(optimizer), "interval": self.interval}]


def checkpoints(monitor="val/score", mode="max", **options):
    return Checkpoints(monitor, mode, **options)


def fit(folder, callback=None, *others, model=None, steps=12, ckpt_path=None, data=50, **options):
    options = {"check_val_every_n_epoch": None, "val_check_interval": 2, "default_root_dir": folder, **options}
    trainer = quiet_trainer(ExactResume(), *others, callback or checkpoints(), max_steps=steps, **options)
    training, validation = DataLoader(torch.zeros(data, 1)), DataLoader(torch.zeros(1, 1))
    trainer.fit(model or Model(), training, validation, ckpt_path=ckpt_path, weights_only=bool(ckpt_path) or None)
    return trainer


def saved(folder: Path, name: str) -> tuple[int, float]:
    """The step and the weight in a checkpoint; both count the steps."""
    content = load(folder, name)
    return content["global_step"], float(content["state_dict"]["weight"][0, 0])


def snapshots(folder: Path) -> set[int]:
    """Steps in the names of the snapshots."""
    found = {int(path.stem.removeprefix("snapshot-")) for path in (folder / "checkpoints").glob("snapshot-*.ckpt")}
    assert all(saved(folder, f"snapshot-{step:06d}") == (step, step) for step in found)
    return found


@pytest.mark.parametrize(
    ("monitor", "mode", "scores", "best"),
    [
        ("val/score", "max", SCORES, 4),
        ("val/score", "min", SCORES, 12),
        (None, "min", SCORES, 13),
        ("val/score", "min", (math.nan, 3.0, math.nan, 3.0, 4.0, 5.0), 4),  # NaN never replaces a good one
        ("val/score", "max", (math.nan, 3.0, math.nan, 3.0, 2.0, 1.0), 4),
    ],
)
def test_best_is_by_the_metric_or_the_newest_and_last_is_the_last_step(tmp_path, monitor, mode, scores, best):
    trainer = fit(tmp_path, checkpoints(monitor, mode), model=Model(scores=scores), steps=13)
    assert saved(tmp_path, "best") == (best, best)
    assert saved(tmp_path, "last") == (13, 13), "later than the last validation, at step 12"
    folder = tmp_path / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert trainer.checkpoint_callback.best_model_path == str(folder / "best.ckpt")


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        ({"every_n_steps": 3}, {"steps": 8, "val_check_interval": 50}, [3, 6, 8]),
        ({"every_n_minutes": 1e-9}, {"steps": 4, "val_check_interval": 50}, [1, 2, 3, 4]),
        # Batches, not steps: validated after 4 and 8, stepped after 3, 6, 9 and 12.
        ({}, {"steps": 4, "val_check_interval": 4, "accumulate_grad_batches": 3}, [6, 12]),
    ],
)
def test_when_the_last_one_is_saved(tmp_path, monkeypatch, given, options, expected):
    found, save = [], Checkpoints.save_last
    monkeypatch.setattr(
        Checkpoints, "save_last", lambda self, trainer: (found.append(batches_done(trainer)), save(self, trainer))
    )
    fit(tmp_path, Checkpoints(**given), model=Model(scores=SCORES * 2, every=1), **options)
    assert found == expected


def test_a_run_that_cannot_be_resumed_leaves_its_checkpoint_as_it_was(tmp_path):
    fit(tmp_path, steps=4)
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()

    class Twice(Model):
        def configure_optimizers(self):
            groups = [{"params": [self.weight]}, {"params": [nn.Parameter(torch.zeros(1))]}]
            return torch.optim.SGD(groups, lr=1.0)

    with pytest.raises(ValueError, match="parameter groups"):
        fit(tmp_path, ckpt_path=last, model=Twice())
    assert last.read_bytes() == before


def test_a_resumed_run_knows_its_best_also_where_the_folder_has_moved(tmp_path):
    fit(tmp_path / "before", steps=4)
    (tmp_path / "before").rename(tmp_path / "after")
    fit(tmp_path / "after", steps=8, ckpt_path=tmp_path / "after" / "checkpoints" / "last.ckpt")
    assert (saved(tmp_path / "after", "best")[0], saved(tmp_path / "after", "last")[0]) == (4, 8)


def test_a_new_run_from_another_ones_checkpoint_has_files_of_its_own(tmp_path):
    for name in ("a", "b"):
        start = {"ckpt_path": tmp_path / "a" / "checkpoints" / "last.ckpt"} if name == "b" else {"steps": 4}
        fit(tmp_path / name, checkpoints(snapshots="best", most=2), **start)
    assert (saved(tmp_path / "b", "best")[0], saved(tmp_path / "a", "best")[0]) == (8, 4)
    assert (snapshots(tmp_path / "b"), snapshots(tmp_path / "a")) == ({8, 10}, {2, 4})


def test_another_metric_starts_a_new_comparison(tmp_path):
    fit(tmp_path, steps=4)
    last = tmp_path / "checkpoints" / "last.ckpt"
    fit(tmp_path, checkpoints(mode="min"), steps=6, ckpt_path=last)
    assert saved(tmp_path, "best")[0] == 6, "a score of 2, which is worse than 5 by the old mode"


def restarts(length: int, **options):
    return lambda optimizer: CosineAnnealingWarmRestarts(optimizer, length, eta_min=0.001, **options)


@pytest.mark.parametrize(
    ("monitor", "mode", "most", "steps"),
    [("val/score", "max", 3, {4, 8, 10}), ("val/score", "min", 2, {2, 12}), (None, "min", 2, {10, 12})],
)
def test_the_best_snapshots_are_kept(tmp_path, monitor, mode, most, steps):
    fit(tmp_path, checkpoints(monitor, mode, snapshots="best", most=most))
    assert snapshots(tmp_path) == steps


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
    data = 3 if interval == "epoch" else 50
    fit(tmp_path, checkpoints(snapshots="cycles"), model=Model(scheduler, interval), data=data)
    assert snapshots(tmp_path) == ends


def test_a_snapshot_holds_the_average_and_nothing_to_train_with(tmp_path):
    fit(tmp_path, checkpoints(snapshots="cycles"), EMA(0.5), model=Model(restarts(6)))
    last, snapshot = load(tmp_path), load(tmp_path, "snapshot-000012")
    for_training = {"optimizer_states", "current_model_state", "random_states", "loops", "callbacks"}
    assert for_training <= last.keys() and not for_training & snapshot.keys()
    assert torch.equal(snapshot["state_dict"]["weight"], last["state_dict"]["weight"])
    assert not torch.equal(last["state_dict"]["weight"], last["current_model_state"]["weight"])


class SaveUntil(Checkpoints):
    """Saves the last checkpoint after every step up to one: snapshots are younger than it when the run is killed."""

    until, state_key = 0, "Checkpoints"

    def save_last(self, trainer):
        if trainer.global_step <= self.until:
            super().save_last(trainer)


@pytest.mark.parametrize(("killed", "last"), [(9, 8), (9, 6), (9, 3), (8, 7), (5, 4), (11, 9)])
@pytest.mark.parametrize(("kind", "steps"), [("best", {4, 8}), ("cycles", {8, 12})])
def test_a_killed_and_resumed_run_ends_with_the_same_snapshots(tmp_path, kind, steps, killed, last):
    options = {"monitor": "val/score", "mode": "max", "snapshots": kind, "most": 2}
    fit(tmp_path / "uninterrupted", Checkpoints(**options), model=Model(restarts(4)))
    saves = SaveUntil(**options, every_n_steps=1)
    saves.until = last
    KillAt.hook, KillAt.step = "on_train_batch_end", killed
    with pytest.raises(Killed):
        fit(tmp_path / "killed", saves, KillAt(), model=Model(restarts(4)))
    path = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    fit(tmp_path / "killed", Checkpoints(**options), model=Model(restarts(4)), ckpt_path=path)
    assert snapshots(tmp_path / "killed") == snapshots(tmp_path / "uninterrupted") == steps


def test_what_came_after_the_checkpoint_is_removed_and_comes_again(tmp_path):
    fit(tmp_path, checkpoints(snapshots="best", most=2), steps=4)
    folder = tmp_path / "checkpoints"
    (folder / "snapshot-000099.ckpt").write_bytes(b"of a run that was killed later")
    (folder / "snapshot-000002.ckpt").unlink()
    fit(tmp_path, checkpoints(snapshots="best", most=2), ckpt_path=folder / "last.ckpt")
    assert snapshots(tmp_path) == {4, 8}


def test_early_stopping_counts_on_after_a_resume_and_takes_more_patience(tmp_path):
    """The best is at step 4."""
    assert not EarlyStopping().enabled

    def steps(patience, **options):
        return fit(tmp_path, None, EarlyStopping("val/score", "max", patience), **options).global_step

    last = tmp_path / "checkpoints" / "last.ckpt"
    assert steps(2, steps=6) == 6
    assert steps(2, ckpt_path=last) == 8
    assert steps(2, ckpt_path=last) <= 9
    assert steps(4, ckpt_path=last) == 12
