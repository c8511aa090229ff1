from __future__ import annotations

import signal

import pytest

from workbench import signals
from workbench.signals import Stop, StopSignals


@pytest.fixture
def stop():
    stop = StopSignals()
    with stop.handled():
        yield stop


def test_it_stops_at_once_where_nobody_looks():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals().handled(), pytest.raises(Stop) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert (caught.value.number, caught.value.exit_code) == (signal.SIGTERM, 143)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_where_somebody_looks_it_is_noted_once_and_a_later_ctrl_c_does_not_wait(stop, monkeypatch):
    stop.waits = True
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)  # as launchers pass it on
    signal.raise_signal(signal.SIGINT)
    assert stop.received == signal.SIGINT
    monkeypatch.setattr(signals, "FORCE_AFTER", 0.0)
    with pytest.raises(Stop):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="has no such signal")
@pytest.mark.parametrize("which", ["for requeueing", "another"])
def test_the_signal_for_requeueing_waits_as_well_and_then_does_what_it_was_for(stop, which):
    number = signal.SIGUSR1 if which == "for requeueing" else signal.SIGTERM
    done = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: done.append(number))
    try:
        stop.take_requeue(signal.SIGUSR1)
        stop.waits = True
        signal.raise_signal(number)
        assert stop.received == number and not done
        assert stop.requeue() == stop.requeued == (done == [signal.SIGUSR1]) == (number == signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
