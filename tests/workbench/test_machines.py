from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from workbench.checkpoint_io import AtomicCheckpointIO
from workbench.distributed import explain, make_trainer
from workbench.errors import UserError

QUIET = {"accelerator": "cpu", "devices": 1, "logger": False, "barebones": True}


def _make(**options):
    section = {**QUIET, **options}
    return make_trainer(partial(Trainer, **section), section)


def test_checkpoints_are_written_whole():
    assert isinstance(_make().strategy.checkpoint_io, AtomicCheckpointIO)


@pytest.mark.parametrize("precision", ["16-mixed", 16])
@pytest.mark.filterwarnings("ignore:.*AMP with fp16")
def test_half_precision_on_a_cpu_is_refused(precision):
    with pytest.raises(UserError, match=r"trainer\.precision is 16") as caught:
        _make(precision=precision)
    assert "bf16-mixed" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"accelerator": "gpu", "devices": 2}, ["gpu", "--trainer.accelerator auto"]),
        ({"accelerator": "cpu", "devices": -1}, ["trainer.devices -1", "--trainer.devices auto"]),
        ({"devices": 0}, ["devices=0"]),
        ({"num_nodes": 0}, ["num_nodes"]),
        ({"accumulate_grad_batches": 0}, ["accumulate_grad_batches"]),
    ],
)
def test_what_does_not_fit_the_machine_is_told(options, expected):
    if options.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="trainer") as caught:
        _make(**options)
    for part in expected:
        assert part in str(caught.value)


def test_processes_that_would_each_train_alone_are_refused(monkeypatch):
    variables = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}
    variables |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"3 processes were started, but .* is 1") as caught:
        _make()
    assert "--trainer.devices" in str(caught.value)


def test_machines_that_nobody_tells_of_each_other_are_refused(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match=r"trainer\.num_nodes is 2, .* where the other machines are") as caught:
        _make(num_nodes=2, strategy="ddp", barebones=False)
    assert "torchrun" in str(caught.value) and "--trainer.num_nodes 1" in str(caught.value)
    monkeypatch.setenv("MASTER_ADDR", "host")
    assert _make(num_nodes=2, strategy="ddp", barebones=False).world_size == 2


def test_what_torchrun_and_slurm_do_not_fit_names_the_keys():
    error = ValueError("You set `devices=2` and `num_nodes=1` in Lightning, but the product (2 * 1) ...")
    told = explain(error, None, None)
    assert isinstance(told, UserError) and "trainer.num_nodes" in str(told)
    assert explain(ValueError("something else"), None, None) is None


@pytest.mark.parametrize("rates", [(0.1, 0.1), (0.1,)])
def test_an_optimiser_of_other_parameters_is_told(rates):
    held = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    saved = torch.optim.SGD(held, lr=0.1).state_dict()
    groups = [{"params": [p], "lr": rate} for p, rate in zip(held, rates, strict=False)]
    with pytest.raises(ValueError, match="loaded state dict") as caught:
        torch.optim.SGD(groups).load_state_dict(saved)
    told = str(explain(caught.value, None, "last.ckpt"))
    assert "model.finetune" in told and "init_from last.ckpt" in told


def test_synchronised_norms_on_a_cpu_are_told():
    told = explain(ValueError("SyncBatchNorm layers only work with GPU modules"), None, None)
    assert isinstance(told, UserError) and "--trainer.sync_batchnorm false" in str(told)
