from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader
from workbench.callbacks.place import ExactResume

from workbench.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from workbench.errors import UserError


class Model(L.LightningModule):
    """Its weight counts the steps; the score rises and falls again."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))
        self.scores = iter([1.0, 3.0, 2.0, 1.0, 0.0])

    def training_step(self, batch, batch_idx):
        return -self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/psnr", next(self.scores))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


class FailAt(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise ZeroDivisionError


def _fit(folder, *callbacks, steps=7, ckpt_path=None, model=None, data=None, last=None, best=None, **options):
    trainer = L.Trainer(
        max_steps=steps,
        check_val_every_n_epoch=None,
        default_root_dir=folder,
        callbacks=[*callbacks, best or BestCheckpoint(), last or LastCheckpoint()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"val_check_interval": 2, **options},
    )
    data = data or DataLoader(torch.zeros(20, 1))
    trainer.fit(
        model or Model(), data, DataLoader(torch.zeros(1, 1)), ckpt_path=ckpt_path, weights_only=bool(ckpt_path) or None
    )


def _saved(folder, name) -> tuple[int, float]:
    content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content["global_step"], float(content["state_dict"]["weight"][0, 0])


def test_best_is_by_the_score_and_last_is_the_last_step(tmp_path):
    _fit(tmp_path)
    assert _saved(tmp_path, "best") == (4, 4.0)
    assert _saved(tmp_path, "last") == (7, 7.0), "later than the last validation, at step 6"
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_an_error_between_two_steps_saves_what_was_done(tmp_path):
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, number):
            if number == 5:
                raise ZeroDivisionError
            return torch.zeros(1)

    with pytest.raises(ZeroDivisionError):
        _fit(tmp_path, ExactResume(), data=DataLoader(Broken()))
    assert _saved(tmp_path, "best") == (4, 4.0)
    assert _saved(tmp_path, "last") == (5, 5.0)


def test_an_error_within_a_step_leaves_the_last_whole_one(tmp_path):
    with pytest.raises(ZeroDivisionError):
        _fit(tmp_path, ExactResume(), FailAt(5))
    assert _saved(tmp_path, "last") == (4, 4.0)


def test_saved_also_every_so_many_steps_and_minutes(tmp_path, monkeypatch):
    saved = []
    save = LastCheckpoint.save
    monkeypatch.setattr(
        LastCheckpoint, "save", lambda self, trainer: (saved.append(trainer.global_step), save(self, trainer))
    )
    _fit(tmp_path / "steps", ExactResume(), last=LastCheckpoint(every_n_steps=3), steps=8, val_check_interval=50)
    assert saved == [3, 6, 8]
    saved.clear()
    _fit(tmp_path / "minutes", ExactResume(), last=LastCheckpoint(every_n_minutes=1e-9), steps=4, val_check_interval=50)
    assert saved == [1, 2, 3, 4]
    with pytest.raises(UserError, match="last_checkpoint"):
        LastCheckpoint(every_n_steps=-1)


def test_gradients_that_are_still_collected_are_waited_for(tmp_path, monkeypatch):
    saved = []
    save = LastCheckpoint.save

    def note(self, trainer):
        saved.append(trainer.fit_loop.epoch_loop.batch_progress.current.completed)
        save(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "save", note)
    _fit(tmp_path, ExactResume(), steps=4, val_check_interval=4, accumulate_grad_batches=3)
    assert saved == [6, 12], "validated after 4 and 8 batches, stepped after 3, 6, 9 and 12"


def test_a_run_that_cannot_be_resumed_leaves_its_checkpoint_as_it_was(tmp_path):
    _fit(tmp_path, steps=4)
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()

    class Twice(Model):
        def configure_optimizers(self):
            groups = [{"params": [self.weight]}, {"params": [nn.Parameter(torch.zeros(1))]}]
            return torch.optim.SGD(groups, lr=1.0)

    with pytest.raises(ValueError, match="parameter groups"):
        _fit(tmp_path, ckpt_path=last, model=Twice())
    assert last.read_bytes() == before


def test_a_resumed_run_knows_its_best_also_where_the_folder_has_moved(tmp_path):
    _fit(tmp_path / "before", steps=4)
    (tmp_path / "before").rename(tmp_path / "after")
    model = Model()
    model.scores = iter([2.0, 1.0])
    _fit(tmp_path / "after", steps=8, ckpt_path=tmp_path / "after" / "checkpoints" / "last.ckpt", model=model)
    assert _saved(tmp_path / "after", "best")[0] == 4
    assert _saved(tmp_path / "after", "last")[0] == 8


def test_a_new_run_from_another_ones_checkpoint_has_a_best_of_its_own(tmp_path):
    _fit(tmp_path / "one", steps=4)
    model = Model()
    model.scores = iter([2.0, 1.0])
    _fit(tmp_path / "two", steps=8, ckpt_path=tmp_path / "one" / "checkpoints" / "last.ckpt", model=model)
    assert _saved(tmp_path / "two", "best")[0] == 6
    assert _saved(tmp_path / "one", "last")[0] == 4


def test_without_a_score_to_choose_by_the_newest_is_kept_the_end_included(tmp_path):
    _fit(tmp_path, steps=7, best=BestCheckpoint(monitor=None))
    kept = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["global_step"] == 7
