from __future__ import annotations

import json
import math

from workbench.findings import Finding
from workbench.findings.finding import append, read


def _finding(**more) -> Finding:
    given = {"code": "dead-units", "severity": "fault", "step": 7, "where": "a.b", "value": 0.75, "limit": 0.5}
    return Finding(**{**given, "advice": "Do this.", **more})


def test_a_finding_is_one_line_of_json_with_these_keys():
    line = _finding(advice="Änder\n das").line()
    assert "\n" not in line
    assert list(json.loads(line)) == ["code", "severity", "step", "where", "value", "limit", "advice"]
    assert json.loads(line)["advice"] == "Änder\n das"


def test_figures_that_json_does_not_know_become_text():
    assert json.loads(_finding(value=math.nan, limit=math.inf).line(), parse_constant=lambda name: 1 / 0) | {} == {
        **json.loads(_finding().line()),
        "value": "nan",
        "limit": "inf",
    }


def test_a_sentence_says_it_in_one_line():
    assert _finding().sentence() == "FAULT dead-units at step 7, a.b: 0.75 (limit 0.5). Do this."


def test_a_file_is_there_without_findings_and_grows(tmp_path):
    path = tmp_path / "findings.jsonl"
    append(path, [])
    assert read(path) == []
    append(path, [_finding()])
    append(path, [_finding(severity="note")])
    assert [finding.severity for finding in read(path)] == ["fault", "note"]
