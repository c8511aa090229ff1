"""Faults that are there before the first step: the tests of the checks plant them, and tell here what was found."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parents[2]
TESTS = "tests/workbench/findings/checks"


def looks(kind: str, seed: int, only: str = "", where: str = "") -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Run the tests of one kind.

    Args:
        kind: The mark of the tests: planted or healthy.
        seed: Of their images and networks.
        only: Tests with this in their name or in the code that they plant.
        where: One file of them alone.

    Yields:
        Code (empty where nothing is planted), name of the test, faults and notes, in the order in which they came.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", kind, "-p", "no:cacheprovider", f"--junitxml={report}"]
        subprocess.run(
            [*command, f"{TESTS}/{where}"],
            cwd=REPOSITORY,
            env={**os.environ, "FAULTS_SEED": str(seed)},
            stdout=subprocess.DEVNULL,
        )
        cases = list(ElementTree.parse(report).iter("testcase"))
    for case in cases:
        told = {p.get("name"): p.get("value", "") for p in case.iter("property")}
        code, name = told.get("planted", ""), case.get("name", "").removeprefix("test_").replace("_", " ")
        if only in f"{code} {name}":
            yield code, name, told.get("faults", "").split(), told.get("notes", "").split()
