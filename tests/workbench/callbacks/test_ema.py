import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from tests.workbench.toys import quiet_trainer
from workbench.callbacks.ema import EMA

ZEROS = torch.zeros(2, 3)


class Line(L.LightningModule):
    """A weight that moves by a tenth of the data in each step, and a BatchNorm for its buffers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(ZEROS.clone())
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.norm = nn.BatchNorm1d(2)
        self.trained, self.validated = [], []  # the weight after each step, before it is averaged, and in validations

    def training_step(self, batch, batch_idx):
        self.norm(batch)
        return (self.weight * batch.sum()).sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.1, momentum=0.5)


class Record(Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        pl_module.trained.append(pl_module.weight.detach().clone())


def data(count=6):
    return DataLoader([torch.full((2, 2), 0.1 * n) + torch.eye(2) for n in range(count)], batch_size=None)


def fit(callback, model=None, folder=None, ckpt_path=None, **options):
    """Returns the model after two epochs; with a folder it has a checkpoint of each."""
    model = Line() if model is None else model
    savers = [ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)] if folder else []
    options = {"max_epochs": 2, "num_sanity_val_steps": 1, **options}
    trainer = quiet_trainer(Record(), callback, *savers, **options)
    trainer.fit(model, data(), data(1), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return model


def averaged(weights, decay=0.9):
    average = ZEROS
    for n, weight in enumerate(weights):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * weight
    return average


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_average_equals_the_formula_in_validations_and_at_the_end(decay):
    model, plain = fit(EMA(decay)), fit(Callback())
    end = averaged(model.trained, decay)
    for found, expected in zip(model.validated, (ZEROS, averaged(model.trained[:6], decay), end), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model.weight.detach(), end)
    assert not torch.equal(end, model.trained[-1])
    assert all(torch.equal(a, b) for a, b in zip(model.trained, plain.trained, strict=True)), "training is untouched"
    before = model.weight.detach().clone()
    model.trainer.validate(model, data(1), verbose=False)
    assert torch.equal(model.validated[-1], before) and torch.equal(model.weight, before), "not swapped again"


def test_a_checkpoint_holds_average_and_weights_also_from_within_a_validation(tmp_path):
    class Save(EMA):
        def on_validation_epoch_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                trainer.save_checkpoint(tmp_path / "inside.ckpt")

    model = fit(Save(0.9), folder=tmp_path)
    for name in ("epoch=1", "inside"):
        checkpoint = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        torch.testing.assert_close(checkpoint["state_dict"]["weight"], averaged(model.trained))
        torch.testing.assert_close(checkpoint["current_model_state"]["weight"], model.trained[-1])
        assert checkpoint["state_dict"]["norm.num_batches_tracked"] == 12
        assert torch.equal(checkpoint["state_dict"]["norm.running_mean"], model.norm.running_mean)


@pytest.mark.parametrize("callback", [EMA(0.9), EMA(0)], ids=["averaged", "decay 0"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, callback):
    """Also where it does not average anymore: it continues from the trained weights."""
    uninterrupted = fit(EMA(0.9), folder=tmp_path)
    resumed = fit(callback, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert torch.equal(resumed.trained[-1], uninterrupted.trained[-1])
    if callback.enabled:
        for name, value in uninterrupted.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name


def test_accumulated_batches_count_once():
    model = fit(EMA(0.9), accumulate_grad_batches=3, limit_val_batches=0)
    torch.testing.assert_close(model.weight.detach(), averaged(model.trained[2::3]))


@pytest.mark.parametrize(("parts", "decay"), [(("norm.", "other"), 0.9), (("weight",), 0), (("weight",), 0.9)])
def test_a_model_says_what_is_averaged_and_0_switches_it_off(tmp_path, parts, decay):
    model = Line()
    model.averaged = parts
    fit(EMA(decay), model, tmp_path)
    expected = averaged(model.trained) if decay and "weight" in parts else model.trained[-1]
    checkpoint = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    for weight in (model.weight.detach(), model.validated[-1], checkpoint["state_dict"]["weight"]):
        torch.testing.assert_close(weight, expected)
    assert ("current_model_state" in checkpoint) == bool(decay)
