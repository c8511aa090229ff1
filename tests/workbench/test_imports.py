"""The arrow between the packages: project imports workbench, never the other way."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_workbench_never_imports_project():
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in sorted((REPOSITORY / "workbench").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from|import) (project|examples)\b", line) or re.search(r"import_module\(.project", line)
    ]
    assert not found, "\n".join(found)
