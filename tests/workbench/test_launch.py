from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from workbench.distributed import Launch, find_launch
from workbench.errors import UserError


@pytest.fixture
def variables(monkeypatch):
    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_alone():
    assert find_launch() == Launch()
    assert find_launch().share(lambda: "mine") == "mine"


def test_torchrun(variables):
    variables(TORCHELASTIC_RUN_ID="42", RANK="3", LOCAL_RANK="1", WORLD_SIZE="4")
    assert find_launch() == Launch(rank=3, size=4, job="torchrun 42", again=True)


@pytest.mark.parametrize(("count", "again"), [("0", False), ("1", True)])
def test_torchrun_without_an_id_is_known_by_the_process_that_starts_the_others(variables, count, again):
    variables(TORCHELASTIC_RUN_ID="none", RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", TORCHELASTIC_RESTART_COUNT=count)
    assert find_launch() == Launch(0, 2, f"torchrun of {os.getppid()}", again)


def test_torchrun_on_several_machines_needs_a_new_store_for_each_start(variables):
    variables(TORCHELASTIC_RUN_ID="42", RANK="0", LOCAL_RANK="0", WORLD_SIZE="4", GROUP_WORLD_SIZE="2")
    variables(TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_MAX_RESTARTS="3")
    with pytest.raises(UserError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun"):
        find_launch()
    variables(TORCHELASTIC_MAX_RESTARTS="0")
    assert find_launch().size == 4
    variables(TORCHELASTIC_MAX_RESTARTS="3", TORCHELASTIC_USE_AGENT_STORE="False")
    assert find_launch().size == 4


def test_slurm(variables, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # Lightning sets them: they go again after the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    variables(SLURM_NTASKS="4", SLURM_NTASKS_PER_NODE="2", SLURM_PROCID="3", SLURM_JOB_ID="1234")
    variables(SLURM_NODELIST="node[07-08]")
    assert find_launch() == Launch(rank=3, size=4), "without srun nobody numbers the job's commands"
    variables(SLURM_STEP_ID="0", SLURM_RESTART_COUNT="1")
    assert find_launch() == Launch(3, 4, "slurm 1234.0", again=True)
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("node07", "16234")
    variables(SLURM_ARRAY_JOB_ID="1200", SLURM_ARRAY_TASK_ID="5")
    assert find_launch().job == "slurm 1200_5.0"
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UserError, match="ntasks-per-node"):
        find_launch()


def test_lightnings_own_processes(variables):
    variables(PROJECT_RUN_VERSION="20260101-000000", LOCAL_RANK="0")
    assert find_launch() == Launch(), "the one that has started the others"
    variables(LOCAL_RANK="2")
    assert find_launch() == Launch(rank=2, inherited="20260101-000000")


def test_one_command_a_machine(variables):
    variables(NODE_RANK="1", MASTER_ADDR="host", MASTER_PORT="29500")
    assert find_launch(num_nodes=2) == Launch(rank=1, size=2)
    assert find_launch(num_nodes=1) == Launch()


SHARE = """
import sys
from workbench.errors import UserError
from workbench.distributed import Launch
rank, fail = int(sys.argv[1]), sys.argv[2] == "fail"
def make():
    if fail:
        raise UserError("no room")
    return f"made by {rank}"
try:
    print(Launch(rank, 2).share(make), Launch(rank, 2).share(lambda: "again"))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(("how", "told"), [("well", "made by 0 again"), ("fail", "no room")])
def test_all_processes_get_what_the_first_one_makes(how, told):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, str(rank), how],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (1, 0)
    ]
    for process in started:
        assert process.communicate(timeout=120)[0].strip() == told
