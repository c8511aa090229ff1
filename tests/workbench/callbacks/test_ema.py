import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from workbench.callbacks.ema import EMA
from workbench.callbacks.resume import ExactResume
from workbench.errors import UserError


class Line(L.LightningModule):
    """A weight that moves by a tenth of the data in each step, and a BatchNorm for its buffers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.norm = nn.BatchNorm1d(2)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.norm(batch)
        return (self.weight * batch.sum()).sum()

    def validation_step(self, batch, batch_idx):
        self.seen.append(self.weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.1, momentum=0.5)


class Weights(Callback):
    """The weight after each step, before anything is averaged."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.weights.append(pl_module.weight.detach().clone())


def data(count=6):
    return DataLoader([torch.full((2, 2), 0.1 * n) + torch.eye(2) for n in range(count)], batch_size=None)


def fit(model, *callbacks, ckpt_path=None, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"max_epochs": 2, "num_sanity_val_steps": 1, "enable_checkpointing": False}
    trainer = L.Trainer(callbacks=list(callbacks), **{**quiet, **options})
    trainer.fit(model, data(), data(1), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


def by_hand(start, weights, decay):
    average = start
    for n, weight in enumerate(weights):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * weight
    return average


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_average_equals_the_formula_in_validation_and_at_the_end(decay):
    model, seen = Line(), Weights()
    fit(model, EMA(decay), seen)
    zeros = torch.zeros(2, 3)
    end = by_hand(zeros, seen.weights, decay)
    for found, expected in zip(model.seen, (zeros, by_hand(zeros, seen.weights[:6], decay), end), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model.weight.detach(), end)
    assert not torch.equal(end, seen.weights[-1])


def test_training_itself_is_not_touched():
    seens = Weights(), Weights()
    fit(Line(), EMA(0.9), seens[0])
    fit(Line(), seens[1])
    assert all(torch.equal(a, b) for a, b in zip(*(r.weights for r in seens), strict=True))


def test_decay_0_switches_it_off(tmp_path):
    model, seen = Line(), Weights()
    trainer = fit(model, EMA(0), seen)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(model.weight, seen.weights[-1])
    assert "current_model_state" not in torch.load(tmp_path / "a.ckpt", weights_only=True)


def checkpointed(tmp_path):
    return ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)


def test_a_checkpoint_holds_average_and_weights_and_buffers_are_copied(tmp_path):
    model, seen = Line(), Weights()
    fit(model, EMA(0.9), seen, checkpointed(tmp_path), enable_checkpointing=True)
    checkpoint = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    torch.testing.assert_close(checkpoint["state_dict"]["weight"], by_hand(torch.zeros(2, 3), seen.weights, 0.9))
    torch.testing.assert_close(checkpoint["current_model_state"]["weight"], seen.weights[-1])
    assert checkpoint["state_dict"]["norm.num_batches_tracked"] == 12
    assert torch.equal(checkpoint["state_dict"]["norm.running_mean"], model.norm.running_mean)


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path):
    uninterrupted, resumed = Line(), Line()
    fit(uninterrupted, EMA(0.9), checkpointed(tmp_path), enable_checkpointing=True)
    fit(resumed, EMA(0.9), ckpt_path=tmp_path / "epoch=0.ckpt")
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("callback", [lambda: EMA(0), ExactResume])
def test_resuming_without_averaging_continues_from_the_trained_weights(tmp_path, callback):
    seen, resumed = Weights(), Weights()
    fit(Line(), EMA(0.9), seen, checkpointed(tmp_path), enable_checkpointing=True)
    fit(Line(), callback(), resumed, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert torch.equal(resumed.weights[-1], seen.weights[-1])


def test_a_checkpoint_from_within_validation_is_right(tmp_path):
    class Save(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                trainer.save_checkpoint(tmp_path / "inside.ckpt")

    seen = Weights()
    fit(Line(), EMA(0.9), seen, Save())
    checkpoint = torch.load(tmp_path / "inside.ckpt", weights_only=True)
    torch.testing.assert_close(checkpoint["current_model_state"]["weight"], seen.weights[-1])
    torch.testing.assert_close(checkpoint["state_dict"]["weight"], by_hand(torch.zeros(2, 3), seen.weights, 0.9))


def test_validating_after_training_does_not_swap_again():
    model = Line()
    trainer = fit(model, EMA(0.9))
    end = model.weight.detach().clone()
    trainer.validate(model, data(1), verbose=False)
    assert torch.equal(model.seen[-1], end) and torch.equal(model.weight, end)


def test_accumulated_batches_count_once():
    model, seen = Line(), Weights()
    fit(model, EMA(0.9), seen, accumulate_grad_batches=3, limit_val_batches=0)
    torch.testing.assert_close(model.weight.detach(), by_hand(torch.zeros(2, 3), seen.weights[2::3], 0.9))


def test_a_model_says_what_is_averaged(tmp_path):
    class Two(Line):
        averaged = ("norm.", "other")

    model, seen = Two(), Weights()
    fit(model, EMA(0.9), seen, checkpointed(tmp_path), enable_checkpointing=True)
    assert torch.equal(model.weight, seen.weights[-1]) and torch.equal(model.seen[-1], seen.weights[-1])
    checkpoint = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    assert torch.equal(checkpoint["state_dict"]["weight"], seen.weights[-1])
    Two.averaged = ("weight",)
    model, seen = Two(), Weights()
    fit(model, EMA(0.9), seen)
    torch.testing.assert_close(model.weight.detach(), by_hand(torch.zeros(2, 3), seen.weights, 0.9))


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_out_of_range_is_an_error(decay):
    with pytest.raises(UserError, match=f"ema.decay is {decay}"):
        EMA(decay)
