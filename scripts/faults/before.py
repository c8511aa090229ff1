"""Faults before the first step: the tests of the checks plant them, and their properties say what was found."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parents[2]


def looks(kind: str, seed: int, only: str = "", where: str = "") -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Run the tests marked ``planted`` or ``healthy``, whose code or name contains ``only``, of one file or of all.

    Yields:
        Code (empty where nothing is planted), name of the test, faults and notes, in the order in which they came.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", kind, "-p", "no:cacheprovider", f"--junitxml={report}"]
        command.append(f"tests/workbench/findings/checks/{where}")
        environment = {**os.environ, "FAULTS_SEED": str(seed)}
        subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
        cases = list(ElementTree.parse(report).iter("testcase"))
    for case in cases:
        found = {p.get("name"): p.get("value", "") for p in case.iter("property")}
        code, name = found.get("planted", ""), case.get("name", "").removeprefix("test_").replace("_", " ")
        if only in f"{code} {name}":
            yield code, name, found.get("faults", "").split(), found.get("notes", "").split()
