from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from project.callbacks import score_curves
from project.callbacks.pictures import new_figure
from project.callbacks.score_curves import ScoreCurves


class RuleEngine(L.LightningModule):
    """Logs scores that say which step they are of; the first steps have none."""

    def __init__(self, silent: int = 0, scores: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.silent, self.scores = silent, scores

    def training_step(self, batch, batch_idx):
        step = self.global_step + 1
        if self.scores and step > self.silent:
            self.log("train/score_real", torch.tensor(step / 10))
            self.log("train/score_fake", torch.tensor(-step / 10))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(folder, callback, steps, model=None, ckpt_path=None, **options):
    trainer = L.Trainer(
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[callback],
        max_epochs=steps // 6,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )
    loader = DataLoader([torch.zeros(1)] * 6, batch_size=None)
    trainer.fit(model or RuleEngine(), loader, DataLoader([torch.zeros(1)], batch_size=None), ckpt_path=ckpt_path)
    return trainer


def _drawn(monkeypatch) -> list[list[list[float]]]:
    drawn, real = [], score_curves.draw
    monkeypatch.setattr(
        score_curves, "draw", lambda curve, path: drawn.append([list(p) for p in curve]) or real(curve, path)
    )
    return drawn


def _points(*steps: int) -> list[list[float]]:
    return [pytest.approx([step, step / 10, -step / 10]) for step in steps]


def test_every_step_is_drawn_at_validations_and_at_the_end(tmp_path, monkeypatch):
    drawn = _drawn(monkeypatch)
    _fit(tmp_path, ScoreCurves(), 12)
    assert drawn == [_points(*range(1, 7)), _points(*range(1, 13)), _points(*range(1, 13))]
    assert Image.open(tmp_path / "samples" / "scores.png").width > 500


def test_a_stage_without_a_discriminator_has_no_points(tmp_path, monkeypatch):
    drawn = _drawn(monkeypatch)
    _fit(tmp_path, ScoreCurves(), 12, RuleEngine(silent=8))
    assert drawn[-1] == _points(9, 10, 11, 12)
    assert len(drawn) == 2


def test_a_step_in_which_the_discriminator_rests_has_no_point(make_trainer):
    """Also where Lightning goes on showing the scores of the step before, which a resumed run does not have."""
    curves = ScoreCurves()
    logged = {}
    for step in range(1, 7):
        outputs = {"loss": torch.tensor(0.0)}
        if step % 2 == 0:
            outputs |= {"score_real": torch.tensor(step / 10), "score_fake": torch.tensor(-step / 10)}
        if step == 4:  # the model logs some steps alone
            logged = {f"train/{name}": outputs[name] for name in ("score_real", "score_fake")}
        curves.on_train_batch_end(make_trainer(global_step=step, callback_metrics=logged), None, outputs)
    assert curves.state_dict()["curve"] == _points(2, 4, 6)


def test_a_long_run_keeps_evenly_spaced_points(tmp_path, monkeypatch):
    drawn = _drawn(monkeypatch)
    _fit(tmp_path, ScoreCurves(points=8), 48)
    assert drawn[-1] == _points(*range(8, 49, 8))
    assert all(len(curve) <= 8 for curve in drawn)


def test_what_waits_on_the_device_is_put_together_now_and_then(make_trainer):
    curves = ScoreCurves(points=5000)
    for step in range(1, 2501):
        scores = {"train/score_real": torch.tensor(float(step)), "train/score_fake": torch.tensor(-float(step))}
        curves.on_train_batch_end(make_trainer(global_step=step, callback_metrics=scores), None, None)
    assert len(curves._pending) <= 1001
    assert curves.state_dict()["curve"] == [[step, step, -step] for step in range(1, 2501)]


def test_a_step_does_not_wait_for_the_device(make_trainer):
    """Reading a number of a tensor that lies on no real device would fail."""
    curves = ScoreCurves()
    scores = {name: torch.empty((), device="meta") for name in ("train/score_real", "train/score_fake")}
    curves.on_train_batch_end(make_trainer(global_step=1, callback_metrics=scores), None, None)
    assert len(curves._pending) == 1


def test_a_resumed_run_goes_on_with_its_curves(tmp_path, monkeypatch):
    first = _fit(tmp_path / "a", ScoreCurves(points=10), 12)
    first.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    drawn = _drawn(monkeypatch)
    _fit(tmp_path / "b", ScoreCurves(points=10), 18, ckpt_path=tmp_path / "half.ckpt")
    assert drawn[-1] == _points(*range(2, 19, 2))


def test_validating_the_best_checkpoint_leaves_the_whole_curves(tmp_path, make_trainer):
    path = tmp_path / "samples" / "scores.png"
    curves = ScoreCurves()
    curves.load_state_dict({"curve": [[1, 0.5, 0.25]], "stride": 1})
    trainer = make_trainer()
    trainer.state.fn = "validate"
    curves.on_validation_end(trainer, None)
    assert not path.exists()
    curves.on_validation_end(make_trainer(), None)
    assert path.exists()


@pytest.mark.parametrize("case", ["no scores", "off"])
def test_it_does_nothing_where_there_is_nothing_to_show(tmp_path, case):
    _fit(tmp_path, ScoreCurves(points=0 if case == "off" else 2000), 6, RuleEngine(scores=case == "off"))
    assert not (tmp_path / "samples" / "scores.png").exists()


def test_the_picture_has_both_curves_with_labels(tmp_path, monkeypatch):
    figures = []

    def make(*size):
        figures.append(new_figure(*size))
        return figures[-1]

    monkeypatch.setattr(score_curves, "new_figure", make)
    curve = [[step, np.sin(step), -step / 100] for step in range(1, 401)]
    score_curves.draw(curve, tmp_path / "scores.png")
    [axis] = figures[0].axes
    assert axis.get_xlabel()
    assert axis.get_ylabel()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["real images", "made images"]
    raw, mean = axis.lines[2], axis.lines[3]  # of the made images
    assert np.array_equal(raw.get_ydata(), [point[2] for point in curve])
    # A running mean of a straight line is that line.
    np.testing.assert_allclose(mean.get_ydata(), -mean.get_xdata() / 100, atol=1e-9)
