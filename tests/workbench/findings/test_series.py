from __future__ import annotations

import math
import statistics

import pytest

from workbench.findings.series import Series, error_of_median, spread


def _series(values):
    return Series(list(range(len(values))), list(values))


def test_a_long_series_stays_short_keeps_its_course_and_its_latest_values():
    series = Series()
    for step in range(20_000):
        series.add(step, float(step))
    assert len(series) <= 1200
    assert series.steps == sorted(series.steps)
    assert series.values[-100:] == [float(s) for s in range(19_900, 20_000)]
    assert all(abs(value - step) <= 40 for step, value in series)
    assert series.values[0] < 40


def test_cuts_by_step():
    series = Series([0, 1, 5, 9], [1.0, 2.0, 3.0, 4.0])
    assert series.since(1).values == [2.0, 3.0, 4.0]
    assert series.until(5).values == [1.0, 2.0]
    assert series.tail(2).values == [3.0, 4.0]
    assert [part.values for part in series.parts(2)] == [[1.0, 2.0], [3.0, 4.0]]
    assert sum(len(part) for part in _series(range(17)).parts(5)) == 17
    assert [len(part) for part in Series().parts(3)] == [0, 0, 0]


def test_numbers_only():
    assert Series([0, 1, 2], [1.0, math.nan, math.inf]).finite().values == [1.0]
    assert math.isnan(Series().median()) and math.isnan(Series().last)


def test_spread_is_that_of_a_normal_distribution_and_ignores_outliers():
    values = [statistics.NormalDist(3, 2).inv_cdf((k + 0.5) / 1000) for k in range(1000)]
    assert spread(_series(values)) == pytest.approx(2, rel=0.01)
    assert spread(_series([*values, *[1e9] * 20])) == pytest.approx(2, rel=0.05)
    assert error_of_median(_series(values)) == pytest.approx(1.25 * 2 / math.sqrt(1000), rel=0.02)
