from __future__ import annotations

import re
from pathlib import Path

import pytest

from workbench.findings import Level, Rule, RuleEngine, training_rules

PAGE = Path(__file__).parents[3] / "docs" / "faults.md"


def rule(name: str, where: Level, speaks: dict[int, str]) -> Rule[int]:
    class Made(Rule[int]):
        code = name
        floor = where

        def look(self, seen: int):
            severity = speaks.get(seen)
            return severity and self._finding(severity, seen, "x", 1.0, 0.5, "Mend it.")

    return Made()


def codes(judge: RuleEngine[int], seen: int) -> list[tuple[str, str]]:
    return [(finding.code, finding.severity) for finding in judge.look(seen)]


def test_causes_come_first_and_silence_what_follows():
    judge = RuleEngine([
        rule("flat", Level.SYMPTOM, {1: "fault"}),
        rule("rate", Level.RATE, {1: "fault"}),
        rule("wiring", Level.WIRING, {2: "fault"}),
    ])  # fmt: skip
    assert codes(judge, 1) == [("rate", "fault")]
    assert codes(judge, 2) == [("wiring", "fault")]


def test_faults_of_one_floor_do_not_silence_each_other_but_symptoms_do():
    judge = RuleEngine([rule(n, f, {1: "fault"}) for n, f in (("a", Level.DATA), ("b", Level.DATA))])
    assert len(codes(judge, 1)) == 2
    judge = RuleEngine([rule(n, Level.SYMPTOM, {1: "fault"}) for n in "ab"])
    assert codes(judge, 1) == [("a", "fault")]


def test_a_rule_is_silent_after_what_it_says_that_it_follows():
    late = rule("unchanged", Level.WIRING, {1: "note", 2: "fault"})
    type(late).follows = frozenset({"rate"})
    judge = RuleEngine([late, rule("rate", Level.RATE, {1: "fault"})])
    assert codes(judge, 1) == [("unchanged", "note"), ("rate", "fault")]
    assert codes(judge, 2) == []


def test_everything_is_said_once_and_a_note_may_become_a_fault():
    judge = RuleEngine([rule("a", Level.SYMPTOM, {1: "note", 2: "note", 3: "fault", 4: "fault"})])
    assert [codes(judge, n) for n in range(1, 5)] == [[("a", "note")], [], [("a", "fault")], []]


def test_notes_silence_nothing():
    judge = RuleEngine([rule("a", Level.DATA, {1: "note"}), rule("b", Level.SYMPTOM, {1: "fault"})])
    assert codes(judge, 1) == [("a", "note"), ("b", "fault")]


def test_advice_points_to_the_page():
    finding = rule("a", Level.DATA, {1: "note"}).look(1)
    assert finding.advice == "Mend it. See docs/faults.md#a."


@pytest.mark.parametrize("code", [rule.code for rule in training_rules()])
def test_every_code_has_its_section(code):
    assert re.search(rf"^### {code}$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_there_is_one_rule_a_code():
    found = [rule.code for rule in training_rules()]
    assert len(found) == len(set(found)) == 24
