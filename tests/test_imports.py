"""Modules of both packages can be imported in any order."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("project", "workbench")
    for path in (ROOT / package).rglob("*.py")
}


def imported(path: Path) -> set[str]:
    """What a module imports when it is imported itself; a package is imported before its modules."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    every = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)}
    return every & FILES.keys()


def test_no_imports_go_in_a_circle():
    graph = {name: {o for o in imported(path) if not f"{name}.".startswith(f"{o}.")} for name, path in FILES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError
