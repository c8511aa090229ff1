from __future__ import annotations

import re
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from tests.workbench.toys import OneWeight, quiet_trainer
from workbench.callbacks.profile import StepProfile


class Clock:
    """Its time passes only when somebody sleeps."""

    now = 0.0

    def sleep(self, seconds):
        self.now += seconds


time = Clock()


class SlowData(list):
    def __getitem__(self, index):
        time.sleep(0.002)
        return super().__getitem__(index)


class Sleeper(OneWeight):
    """Each part of its step takes a known time."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        time.sleep(0.001)
        return batch

    def training_step(self, batch, batch_idx):
        time.sleep(0.012)
        return (self.weight * batch.sum()).sum()

    def backward(self, loss):
        time.sleep(0.006)
        loss.backward()

    def validation_step(self, batch, batch_idx):
        time.sleep(0.05)

    def configure_optimizers(self):
        class Slow(torch.optim.SGD):
            def step(self, closure=None):
                loss = closure()
                time.sleep(0.003)
                return loss

        return Slow([self.weight], lr=0.1)


class Dawdle(L.Callback):
    def on_train_batch_end(self, *_):
        time.sleep(0.02)


@pytest.mark.parametrize("steps", [8, 1000, 0])
def test_each_part_is_counted_without_what_is_inside_it(tmp_path, capsys, monkeypatch, steps):
    monkeypatch.setattr("workbench.callbacks.profile.time", SimpleNamespace(perf_counter=lambda: time.now))
    trainer = quiet_trainer(StepProfile(steps), Dawdle(), default_root_dir=tmp_path, val_check_interval=5)
    profiler = trainer.profiler
    data = DataLoader(SlowData([torch.ones(2)] * 20), batch_size=None)
    trainer.fit(Sleeper(torch.ones(2)), data, DataLoader([torch.ones(1)], batch_size=None))
    assert trainer.profiler is profiler
    text = capsys.readouterr().out
    assert ("A step takes" in text) == (steps > 0)
    if steps == 0:
        return
    found = {part: float(ms) for part, ms in re.findall(r"^  (\S.*?)\s+([\d.]+) ms", text, re.MULTILINE)}
    expected = {"callback Dawdle": 20, "forward": 12, "backward": 6, "optimizer": 3}
    expected |= {"data: waiting for the loader": 2, "data: to the device, and what is made there": 1}
    assert {part: ms for part, ms in found.items() if ms} == pytest.approx(expected, abs=0.15)
    assert next(iter(found)) == "callback Dawdle" and " 45." in text, "the slowest first"
    assert re.search(r"A step takes 4[34]\.\d ms", text), "without validations"
