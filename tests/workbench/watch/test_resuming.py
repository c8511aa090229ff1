"""What was measured comes back from a checkpoint as it was; a run that is watched ends as one that is not."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch

from tests.workbench.toys import assert_same, load
from workbench.findings import Activation, History, ModelInfo, Parameter, Setting
from workbench.watch.recorder import FINDINGS, LAYERS, Recorder, pack, unpack


def recorder_in(folder=None, state=None):
    trainer = SimpleNamespace(log_dir=folder, loggers=[1] if folder else [], fast_dev_run=False, is_global_zero=True)
    return Recorder(trainer, ModelInfo(), state)


def test_everything_comes_back_under_its_name_and_in_order():
    recorder = recorder_in()
    recorder.put(["loss"], torch.tensor(1.0), 0)
    recorder.put(["x", "y"], torch.tensor([2.0, 3.0], dtype=torch.bfloat16), 0, table="t")
    recorder.put(["loss"], torch.tensor([True]), 1)
    assert not recorder.history.scalars, "nothing is fetched before it has to be"
    recorder.flush()
    for step, value in ((2, math.nan), (3, math.inf)):
        recorder.put(["val/loss"], torch.tensor(math.nan), step)
        recorder.put(["loss"], torch.tensor(value), step)
    recorder.put(["first", "last"], torch.tensor([math.nan, math.nan]), 2, table="gradient")
    recorder.flush()
    recorder.flush()
    history = recorder.history
    assert list(history["loss"])[:2] == [(0, 1.0), (1, 1.0)] and history.table("t")["y"].last == 3.0
    assert (history.nonfinite, history.nonfinite_gradient) == ((2, "loss"), (2, "last"))


def filled(model: ModelInfo | None = None) -> History:
    history = History(model)
    for step in range(2500):
        history.add("loss", step, 3.0 / (step + 1) if step != 7 else math.nan)
        if step % 3 == 0:
            history.add("b.weight", step, float(step % 17), table="gradient")
    history.add("act", 40, 0.5, table="dead")
    return history


def test_a_history_comes_back_as_it_was_and_continues_as_it_would_have(tmp_path):
    one, other = filled(), History()
    torch.save(pack(one), tmp_path / "state")
    assert (tmp_path / "state").stat().st_size < 40_000, "bounded, however long the run"
    unpack(other, torch.load(tmp_path / "state", weights_only=True))
    for step in range(2500, 4000):
        for history in (one, other):
            history.add("loss", step, 1.0 / step)
            history.add("b.weight", step, float(step % 5), table="gradient")
    assert list(one["loss"])[10:] == list(other["loss"])[10:]
    assert list(one.table("gradient")["b.weight"]) == list(other.table("gradient")["b.weight"])
    assert one.tables.keys() == other.tables.keys() and (one.step, one.nonfinite) == (other.step, other.nonfinite)
    assert one.start("loss") == other.start("loss")


def test_what_was_learned_of_the_model_comes_back_but_not_what_is_set():
    parameters = {name: Parameter("network", "weight") for name in ("late", "early", "new")}
    seen = ModelInfo(parameters={n: parameters[n] for n in ("early", "late")}, pretrained=False)
    seen.activations = {"act": Activation("relu", 8, last=True)}
    seen.penalties = {"train/own_penalty": Setting("a smaller weight of train/own_penalty")}
    seen.learning_rate = {"network": Setting("lr", 1.0)}
    model = ModelInfo(parameters=dict(parameters), pretrained=True, learning_rate={"network": Setting("lr", 0.1)})
    unpack(History(model), pack(filled(seen)))
    assert list(model.parameters) == ["early", "late", "new"], "in the order in which the network uses them"
    assert not model.pretrained and model.activations == seen.activations and model.penalties == seen.penalties
    assert model.learning_rate["network"].value == 0.1


def test_what_waits_to_be_logged_waits_on_in_the_checkpoint(monkeypatch):
    logged = {}
    monkeypatch.setattr(Recorder, "log", lambda self, values: logged.update(values))
    one = recorder_in()
    one.put(["a"], torch.tensor(2.0), 3, log=True)
    other = recorder_in(state=one.state_dict())
    assert not logged
    other.flush()
    assert logged == {"a": 2.0} and list(other.history["a"]) == [(3, 2.0)]


@pytest.mark.parametrize("there", ["1\n2\n3\n4", "1\n2\n3\n4\n5\n", ""])
def test_lines_that_were_written_after_the_checkpoint_are_cut_off(tmp_path, there):
    for name in (FINDINGS, LAYERS):
        (tmp_path / name).write_text(there)
    recorder = recorder_in(tmp_path, {**recorder_in().state_dict(), "lines": {FINDINGS: 2}})
    recorder.append(FINDINGS, ["new"])
    recorder.append(LAYERS, ["first"], "header")
    assert (tmp_path / FINDINGS).read_text() == ("1\n2\nnew\n" if there else "new\n")
    assert (tmp_path / LAYERS).read_text() == "header\nfirst\n"
    assert recorder.lines == {FINDINGS: 3 if there else 1, LAYERS: 2}


def test_a_killed_run_finds_what_an_undisturbed_one_finds(small, killed):
    """The same faults at the same steps, none twice, none lost; the last kill comes after the last evaluation."""
    words = ["--model.init_args.optimizer.init_args.lr", "30", "--data.crops_per_image", "8"]
    undisturbed = small("undisturbed", *words)
    moments = [("on_validation_end", 10), ("on_train_end", 18)]
    assert_same(undisturbed, killed("killed", moments, *words))
    found = [json.loads(line) for line in (undisturbed / "findings.jsonl").read_text().splitlines()]
    assert any(finding["severity"] == "fault" for finding in found)
    assert len({finding["code"] for finding in found}) == len(found)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_watched_run_ends_with_the_weights_of_one_that_is_not(small, norm):
    """Everything on against everything off, with noise, dropout, EMA and batch norm: the same to the last bit."""
    words = ["--gradient_clipping.norm", "0.05", "--model.init_args.network.init_args.dropout", "0.2"]
    words += ["--model.init_args.network.init_args.norm", norm]
    off = [f"--watch.{key}=0" for key in ("every_n_steps", "every_n_validations")]
    on, off = small("on", *words), small("off", *words, *off)
    assert (on / "findings.jsonl").is_file() and not (off / "findings.jsonl").exists()
    states = [load(run) for run in (on, off)]
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, states[1][key][name]) for name, value in states[0][key].items())
    assert torch.equal(states[0]["random_states"][0]["torch"], states[1]["random_states"][0]["torch"])


def test_activations_are_those_of_the_trained_weights_not_of_their_average(small):
    """EMA puts its average into the model during a validation; Watch measures after that."""
    words = ["--trainer.max_steps", "10", "--trainer.val_check_interval", "5", "--watch.every_n_validations", "1"]
    rows = []
    for name, decay in (("averaged", "0.999"), ("plain", "0")):
        lines = (small(name, *words, "--ema.decay", decay) / "measurements.csv").read_text().splitlines()
        rows.append([line for line in lines if ",after_mean," in line or ",weight_mean," in line])
    assert rows[0] == rows[1] and len(rows[0]) > 8
