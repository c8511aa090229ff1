"""How processes are started, what does not fit the machine, what failures are explained."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy

from workbench.checkpoint import AtomicCheckpointIO
from workbench.distributed import Launch, allow_unused_parameters, explain_failure, find_launch, make_trainer
from workbench.errors import UserError


def test_alone_and_by_torchrun():
    assert find_launch() == Launch() and Launch().broadcast(lambda: "mine") == "mine"
    os.environ.update(TORCHELASTIC_RUN_ID="42", RANK="3", LOCAL_RANK="1", WORLD_SIZE="4")
    assert find_launch() == Launch(rank=3, size=4)
    os.environ.update(TORCHELASTIC_MAX_RESTARTS="3")
    assert find_launch() == Launch(rank=3, size=4, job="torchrun 42")
    for key, value in (("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RUN_ID", "none")):
        os.environ[key] = value
        with pytest.raises(
            UserError, match=r"--max-restarts(.|\n)*TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1(.|\n)*--rdzv-id"
        ):
            find_launch()
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def test_slurm():
    os.environ.update(SLURM_NTASKS="4", SLURM_NTASKS_PER_NODE="2", SLURM_PROCID="3", SLURM_JOB_ID="1234")
    os.environ.update(SLURM_NODELIST="node[07-08]")
    assert find_launch() == Launch(rank=3, size=4), "without srun nobody numbers the job's commands"
    os.environ.update(SLURM_STEP_ID="0")
    assert find_launch() == Launch(3, 4, "slurm 1234.0")
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("node07", "16234")
    del os.environ["SLURM_NTASKS_PER_NODE"]
    with pytest.raises(UserError, match="ntasks-per-node"):
        find_launch()


def test_lightnings_own_processes():
    os.environ.update(WORKBENCH_RUN_VERSION="20260101-000000", LOCAL_RANK="0")
    assert find_launch() == Launch(), "the one that started the others"
    os.environ.update(LOCAL_RANK="2")
    assert find_launch() == Launch(rank=2, inherited="20260101-000000")
    os.environ.update(LOCAL_RANK="0", NODE_RANK="1", MASTER_ADDR="host", MASTER_PORT="29500")
    assert find_launch(num_nodes=2) == Launch(rank=1, size=2), "the same command on each machine"
    assert find_launch(num_nodes=1) == Launch()


BROADCAST = """
import sys
from workbench.errors import UserError
from workbench.distributed import Launch
rank, fail = int(sys.argv[1]), sys.argv[2] == "fail"
def make():
    if fail:
        raise UserError("no room")
    return f"made by {rank}"
try:
    print(Launch(rank, 2).broadcast(make), Launch(rank, 2).broadcast(lambda: "again"))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("how", "expected"),
    [("well", ["made by 0 again"] * 2), ("fail", ["no room", "Process 1 of 2 does not reach the first one"])],
)
def test_all_processes_get_what_rank_0_makes(how, expected):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    commands = [[sys.executable, "-c", BROADCAST, rank, how] for rank in "01"]
    started = [subprocess.Popen(command, env=environment, **pipes) for command in commands]
    for process, text in zip(started, expected, strict=True):
        assert process.communicate(timeout=120)[0].startswith(text)


def make(**options) -> Trainer:
    section = {"accelerator": "cpu", "devices": 1, "logger": False, "barebones": True, **options}
    return make_trainer(partial(Trainer, **section), section)


NODES = {"num_nodes": 2, "strategy": "ddp", "barebones": False}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"accelerator": "gpu", "devices": 2}, "gpu(.|\n)*--trainer.accelerator auto"),
        ({"accelerator": "cpu", "devices": -1}, "trainer.devices -1(.|\n)*--trainer.devices auto"),
        ({"devices": 0}, "devices=0"),
        ({"num_nodes": 0}, "num_nodes"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches is 0"),
        (NODES, r"num_nodes is 2, .* where the other machines are(.|\n)*torchrun"),
    ],
)
def test_what_does_not_fit_the_machine_is_named(options, expected):
    if options.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=expected):
        make(**options)


def test_a_trainer_that_fits_writes_checkpoints_atomically():
    os.environ.update(MASTER_ADDR="host")
    trainer = make(**NODES)
    assert trainer.world_size == 2 and isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    os.environ.update(TORCHELASTIC_RUN_ID="1", RANK="0", LOCAL_RANK="0", WORLD_SIZE="3", MASTER_PORT="29500")
    with pytest.raises(UserError, match=r"3 processes were started, but .* is 1(.|\n)*--trainer\.devices"):
        make()  # each would train alone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You set `devices=2` and `num_nodes=1` in Lightning, but the product (2 * 1) ...", "--trainer.KEY"),
        ("SyncBatchNorm layers only work with GPU modules", "SyncBatchNorm layers only"),
        ("something else", "None"),
    ],
)
def test_failures_of_the_trainer_name_the_key(text, expected):
    assert expected in str(explain_failure(ValueError(text), None, None))


def test_an_optimizer_of_other_parameters_is_named():
    held = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    saved = torch.optim.SGD(held, lr=0.1).state_dict()
    with pytest.raises(ValueError, match="loaded state dict") as caught:
        torch.optim.SGD(held[:1], lr=0.1).load_state_dict(saved)
    text = str(explain_failure(caught.value, None, "last.ckpt"))
    assert "last.ckpt: this run cannot be resumed" in text and "loaded state dict" in text
    assert "model.finetune" in text and "init_from last.ckpt" in text


def test_a_strategy_that_does_not_allow_it_is_refused():
    with pytest.raises(UserError, match=r"^unfreeze.* FSDPStrategy(.|\n)*strategy ddp"):
        allow_unused_parameters(SimpleNamespace(strategy=FSDPStrategy(), world_size=2), "unfreeze")
