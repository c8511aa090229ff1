from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
from PIL import Image

from workbench.watch.throughput import Throughput, _length, host_memory


def test_pictures_a_second_without_the_time_of_validations(fit, make_restorer, convs, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("workbench.watch.throughput.time", SimpleNamespace(perf_counter=lambda: clock.now))

    class Slow(make_restorer):
        def training_step(self, batch, batch_idx):
            clock.now += 0.02
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            clock.now += 0.3

    fit(Slow(convs()), Throughput(), val_check_interval=4)
    with (fit.folder / "throughput.csv").open() as file:
        rows = list(csv.DictReader(file))
    speeds = [float(row["pictures_per_second"]) for row in rows]
    assert speeds == pytest.approx([100.0] * 4)  # two images in 20 ms
    assert float(rows[-1]["host_mib"]) > 50
    assert Image.open(fit.folder / "throughput.png").size[0] > 500


@pytest.mark.skipif(host_memory() is None, reason="this system does not tell")
def test_host_memory_grows_with_what_is_held():
    before = host_memory()
    held = bytearray(64 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    assert 40 < host_memory() - before < 100


def test_pictures_of_a_batch_are_counted(make_pair):
    assert _length(make_pair(0, count=5)) == 5
    assert _length({"a": [None, make_pair(0).input]}) == 2
    assert _length("text") == 0


def test_it_can_be_switched_off(fit, make_restorer, convs):
    fit(make_restorer(convs()), Throughput(False))
    assert not (fit.folder / "throughput.csv").exists()
