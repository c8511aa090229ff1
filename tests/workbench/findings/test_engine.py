"""Findings, the engine that suppresses what follows from a fault, and the series that rules read."""

from __future__ import annotations

import json
import math
import statistics

import pytest

from workbench.errors import UserError
from workbench.findings import Finding, History, Level, Rule, RuleEngine, Series, append_findings, read_findings
from workbench.findings.engine import Found, Skipped


def finding_of(**more) -> Finding:
    given = {"code": "dead-units", "severity": "fault", "step": 7, "where": "a.b", "value": 0.75, "limit": 0.5}
    return Finding(**{**given, "advice": "Do this.", **more})


def test_a_finding_is_one_line_of_json_and_one_for_people():
    line = finding_of(advice="Änder\n das", value=math.nan, limit=math.inf).line()
    assert "\n" not in line
    found = json.loads(line, parse_constant=lambda name: 1 / 0)
    assert list(found) == ["code", "severity", "step", "where", "value", "limit", "advice"]
    assert (found["value"], found["limit"], found["advice"]) == ("nan", "inf", "Änder\n das")
    assert finding_of().message() == "FAULT dead-units at step 7, a.b: 0.75 (limit 0.5). Do this."


def test_a_file_is_there_without_findings_and_grows(tmp_path):
    path = tmp_path / "findings.jsonl"
    append_findings(path, [])
    assert read_findings(path) == []
    append_findings(path, [finding_of()])
    append_findings(path, [finding_of(severity="note")])
    assert [finding.severity for finding in read_findings(path)] == ["fault", "note"]


def rule(code: str, level: Level, results: dict[int, str], **more) -> Rule:
    """A rule whose result is given for each step."""

    def find(history: History) -> Found | None:
        result = results.get(history.step)
        if isinstance(result, Exception):
            raise result
        return Found("x", 1.0, 0.5, "Fix it.", result == "fault") if result else None

    return Rule(code, find, level, **more)


def at(step: int) -> History:
    history = History()
    history.step = step
    return history


def new(engine: RuleEngine, step: int) -> list[str]:
    return [f"{finding.code} {finding.severity}" for finding in engine.evaluate(at(step))]


SYMPTOMS = [rule(code, Level.SYMPTOM, {1: "fault"}) for code in "ab"]
CASES = {
    "causes come first, and suppress what follows": (
        [SYMPTOMS[0], rule("rate", Level.RATE, {1: "fault"}), rule("wiring", Level.WIRING, {2: "fault"})],
        [["rate fault"], ["wiring fault"]],
    ),
    "faults of one level do not suppress each other": (
        [rule(code, Level.WIRING, {1: "fault"}) for code in "ab"],
        [["a fault", "b fault"]],
    ),
    "a symptom suppresses those behind it": (SYMPTOMS, [["a fault"]]),
    "but not those before it": ([rule("c", Level.SYMPTOM, {2: "fault"}), SYMPTOMS[0]], [["a fault"], ["c fault"]]),
    "a rule is suppressed by the faults that imply it": (
        [rule("b", Level.WIRING, {1: "note", 2: "fault"}, implied_by={"rate"}), rule("rate", Level.RATE, {1: "fault"})],
        [["b note", "rate fault"], []],
    ),
    "everything is reported once, and a note may become a fault": (
        [rule("a", Level.SYMPTOM, {1: "note", 2: "note", 3: "fault", 4: "fault"})],
        [["a note"], [], ["a fault"], []],
    ),
    "notes suppress nothing": ([rule("c", Level.DATA, {1: "note"}), SYMPTOMS[0]], [["c note", "a fault"]]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_new_at_each_evaluation(case):
    rules, expected = CASES[case]
    engine = RuleEngine(rules)
    assert [new(engine, number) for number in range(1, len(expected) + 1)] == expected


def test_a_rule_that_fails_is_left_out_and_ends_nothing():
    engine = RuleEngine([rule("a", Level.DATA, {1: ZeroDivisionError("x")}), rule("b", Level.DATA, {1: "note"})])
    with pytest.warns(UserWarning, match="The rule a could not be checked"):
        assert new(engine, 1) == ["b note"]


def test_checks_run_once_each_with_an_outcome_for_all():
    checks = [
        rule("symptom", Level.SYMPTOM, {1: "fault"}),
        rule("wiring", Level.WIRING, {1: "fault"}),
        rule("data", Level.DATA, {1: "fault"}),
        rule("broken", Level.DATA, {1: ValueError("no  such\nlayer")}),
        rule("fine", Level.DATA, {}),
    ]
    called = []
    outcomes = {
        outcome.code: outcome for outcome in RuleEngine(checks).run(at(1), lambda check: called.append(check.code))
    }
    assert called == ["data", "broken", "fine", "wiring"]
    assert outcomes["wiring"].is_fault, "data suppresses no wiring"
    assert outcomes["symptom"] == Skipped("would follow from data", "symptom")
    assert outcomes["broken"] == Skipped("could not be checked: ValueError: no such layer", "broken", failed=True)
    harmless = rule("data", Level.DATA, {1: "fault"}, harms_learning=False)
    assert [outcome.is_fault for outcome in RuleEngine([harmless, checks[0]]).run(at(1))] == [True, True]
    with pytest.raises(UserError):
        list(RuleEngine([rule("a", Level.DATA, {1: UserError("no data")})]).run(at(1)))


def test_a_long_series_stays_short_keeps_its_course_and_its_latest_values():
    series = Series()
    for step in range(20_000):
        series.add(step, float(step))
    assert len(series) <= 1200 and series.steps == sorted(series.steps)
    assert series.values[-100:] == [float(s) for s in range(19_900, 20_000)]
    assert all(abs(value - step) <= 40 for step, value in series) and series.values[0] < 40


def test_cuts_of_a_series():
    series = Series([0, 1, 5, 9], [1.0, 2.0, 3.0, 4.0])
    assert [part.values for part in series.parts(2)] == [[1.0, 2.0], [3.0, 4.0]]
    assert [chunk.values for chunk in series.chunks(3)] == [[2.0, 3.0, 4.0]]
    assert [len(part) for part in Series().parts(3)] == [0, 0, 0]
    assert Series([0, 1, 2], [1.0, math.nan, math.inf]).finite().values == [1.0]
    assert math.isnan(Series().median())


def test_spread_is_that_of_a_normal_distribution_and_ignores_outliers():
    values = [statistics.NormalDist(3, 2).inv_cdf((k + 0.5) / 1000) for k in range(1000)] + [1e9] * 20
    series = Series(list(range(1020)), values)
    assert series.spread() == pytest.approx(2, rel=0.05)
    assert series.error_of_median() == pytest.approx(1.25 * 2 / math.sqrt(1020), rel=0.05)
