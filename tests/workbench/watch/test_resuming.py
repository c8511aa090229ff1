"""What was measured comes back from a checkpoint as it was; a run that is watched ends as one that is not."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from workbench.findings import Activation, Facts, History, Knob, Parameter
from workbench.watch.files import RunFiles
from workbench.watch.probe import untouched
from workbench.watch.recorder import Recorder
from workbench.watch.state import pack, unpack, unpack_facts


def filled(facts: Facts | None = None) -> History:
    history = History(facts)
    for step in range(2500):
        history.add("loss", step, 3.0 / (step + 1) if step != 7 else math.nan)
        if step % 3 == 0:
            history.add_row("gradient", "b.weight", step, float(step % 17))
    history.add_row("dead", "act", 40, 0.5)
    return history


def test_a_history_comes_back_as_it_was_and_goes_on_as_it_would_have(tmp_path):
    one, other = filled(), History()
    torch.save(pack(one), tmp_path / "state")
    assert (tmp_path / "state").stat().st_size < 40_000, "bounded, however long the run"
    unpack(other, torch.load(tmp_path / "state", weights_only=True))
    for step in range(2500, 4000):
        for history in (one, other):
            history.add("loss", step, 1.0 / step)
            history.add_row("gradient", "b.weight", step, float(step % 5))
    assert list(one["loss"])[10:] == list(other["loss"])[10:]
    assert list(one.table("gradient")["b.weight"]) == list(other.table("gradient")["b.weight"])
    assert one.tables.keys() == other.tables.keys() and (one.step, one.nonfinite) == (other.step, other.nonfinite)
    assert one.start("loss") == other.start("loss")


def test_what_was_learned_of_the_model_comes_back_but_not_what_is_set():
    parameters = {name: Parameter("network", "weight") for name in ("late", "early", "new")}
    seen = Facts(parameters={n: parameters[n] for n in ("early", "late")}, pretrained=False)
    seen.activations = {"act": Activation("relu", 8, last=True)}
    seen.penalties = {"train/own_penalty": Knob("train/own_penalty")}
    seen.learning_rate = {"network": Knob("lr", 1.0)}
    history = History(Facts(parameters=dict(parameters), pretrained=True, learning_rate={"network": Knob("lr", 0.1)}))
    unpack_facts(history, pack(filled(seen)))
    facts = history.facts
    assert list(facts.parameters) == ["early", "late", "new"], "in the order in which the network uses them"
    assert not facts.pretrained and facts.activations == seen.activations and facts.penalties == seen.penalties
    assert facts.learning_rate["network"].value == 0.1


def test_what_waits_to_be_logged_waits_on_in_the_checkpoint(monkeypatch):
    logged = {}
    monkeypatch.setattr("workbench.watch.recorder.log_values", lambda trainer, values: logged.update(values))
    one, other = Recorder(nn.Linear(1, 1)), Recorder(nn.Linear(1, 1))
    one.put(["a"], torch.tensor(2.0), 3, log=True)
    other.load_state_dict(one.state_dict())
    assert not logged
    other.flush(object())
    assert logged == {"a": 2.0} and list(other.history["a"]) == [(3, 2.0)]


@pytest.mark.parametrize("there", ["1\n2\n3\n4", "1\n2\n3\n4\n5\n", ""])
def test_lines_that_were_written_after_the_checkpoint_are_cut_off(tmp_path, there):
    (tmp_path / "a.txt").write_text(there)
    files = RunFiles()
    files.lines = {"a.txt": 2, "gone.txt": 3}
    files.open(_trainer(tmp_path))
    files.append("a.txt", ["new"])
    files.append("gone.txt", ["first"], "header")
    assert (tmp_path / "a.txt").read_text() == ("1\n2\nnew\n" if there else "new\n")
    assert (tmp_path / "gone.txt").read_text() == "header\nfirst\n"
    assert files.lines == {"a.txt": 3 if there else 1, "gone.txt": 2}


def _trainer(folder):
    from types import SimpleNamespace

    return SimpleNamespace(log_dir=str(folder), loggers=[1], fast_dev_run=False, is_global_zero=True)


def test_a_look_draws_no_number_that_others_would_have_drawn():
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002

    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002
    random.seed(4)
    with untouched(nn.Dropout()):
        inside = draw()
    assert draw() == inside


def test_a_killed_run_finds_what_one_left_in_peace_finds(small, killed, assert_same):
    """The same faults at the same steps, none twice, none lost; the last kill comes after the last look."""
    words = ["--model.init_args.optimizer.init_args.lr", "30", "--data.crops_per_image", "8"]
    peace = small("peace", *words)
    moments = [("on_validation_end", 10), ("on_train_end", 18)]
    assert_same(peace, killed("killed", moments, *words))
    found = [json.loads(line) for line in (peace / "findings.jsonl").read_text().splitlines()]
    assert any(finding["severity"] == "fault" for finding in found)
    assert len({finding["code"] for finding in found}) == len(found)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_watched_run_ends_with_the_weights_of_one_that_is_not(small, norm):
    """Every monitor on against every monitor off, with noise, dropout and batch norm: the same to the last bit."""
    off = [f"--{key}.every_n_validations=0" for key in ("dead_units", "activations", "game")]
    off += [f"--{key}.every_n_steps=0" for key in ("gradient_flow", "update_ratio", "health")]
    words = ["--gradient_clipping.norm", "0.05", "--model.init_args.network.init_args.dropout", "0.2"]
    words += ["--model.init_args.network.init_args.norm", norm]
    on = small("on", *words)
    off = small("off", *words, *off, "--throughput.enabled", "false")
    assert (on / "findings.jsonl").is_file() and not (off / "findings.jsonl").exists()
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (on, off)]
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, states[1][key][name]) for name, value in states[0][key].items())
    assert torch.equal(states[0]["random_states"][0]["torch"], states[1]["random_states"][0]["torch"])
