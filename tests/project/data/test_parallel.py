"""Results come in order, whatever the threads; failures come through."""

import time

import pytest

from project.data import parallel
from project.data.parallel import run_parallel


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("total", [0, 1, 50])
def test_results_keep_the_order(workers, total):
    results = run_parallel(lambda number: number * number, range(total), workers=workers, what="Counting")
    assert list(results) == [number * number for number in range(total)]


def test_threads_do_not_run_far_ahead_of_a_slow_taker():
    done = []
    results = run_parallel(done.append, range(100), workers=2, what="Decoding")
    next(results)
    time.sleep(0.05)
    assert len(done) <= 2 * parallel.AHEAD
    assert len(list(results)) == 99


@pytest.mark.parametrize("workers", [0, 3])
def test_a_failure_comes_through(workers):
    with pytest.raises(ZeroDivisionError):
        list(run_parallel(lambda number: 1 / number, range(3), workers=workers, what="Dividing"))


def test_nothing_is_printed_where_there_is_no_terminal(monkeypatch, capfd):
    monkeypatch.setattr(parallel, "PATIENCE", -1.0)
    assert list(run_parallel(abs, [-1, -2], workers=0, what="Slow work")) == [1, 2]
    captured = capfd.readouterr()
    assert (captured.out + captured.err).strip() == ""
