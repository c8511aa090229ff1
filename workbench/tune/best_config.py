"""The best point of a sweep as a configuration that ``fit`` trains."""

from __future__ import annotations

import hashlib
import re
import shlex
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from workbench.checkpoint import atomic_write_text
from workbench.errors import UserError
from workbench.main import PROGRAM
from workbench.tune.results import Results, show_score

TRIAL_ONLY = ("name", "resume", "ckpt_path", "evaluate")
HASH = re.compile(r"^# As generated: ([0-9a-f]{16})\n", re.MULTILINE)


def write_best(results: Results) -> tuple[Path, str]:
    """Write ``configs/best_STUDY.yaml``; its path, and a note where a file that was edited is left as it is.

    Raises:
        UserError: A configuration file of the sweep is gone, or no longer parses.
    """
    best = results.ranked[0]
    body = yaml.safe_dump(best_tree(results), sort_keys=False)
    for number in count(1):
        name = f"best_{results.name}" + (f"-{number}" if number > 1 else "")
        path = Path("configs", f"{name}.yaml")
        if not _is_edited(path):
            break
    header = [
        f"The best of {len(results.ranked)} trials of the sweep {results.name}: trial {best.trial}, "
        f"{results.objective} {show_score(best.score)}",
        f"({results.point(best.values)}).",
        f"  python -m {PROGRAM.name} fit --config {path}",
        f"Written by `python -m {PROGRAM.name} sweep-report {results.name}`, from: {shlex.join(results.words)}",
    ]
    text = "".join(f"# {' '.join(line.splitlines())}\n" if line[:1] != " " else f"# {line}\n" for line in header)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, f"{text}# As generated: {_digest(text + body)}\n\n{body}")
    edited = Path("configs", f"best_{results.name}.yaml")
    return path, f" ({edited} was edited, and is left as it is)" if path != edited else ""


def best_tree(results: Results) -> dict[str, Any]:
    """The configuration of the best trial, without what only trials have; what has its default is left out."""
    from workbench.check import Parsed
    from workbench.parser import expand_args

    point = results.space.words(results.ranked[0].values)
    if not results.words:
        raise UserError("the study does not hold the words of its command.")
    parsed = Parsed(expand_args(["fit", *results.words, *point, *results.settings.words]), command="sweep")
    tree = yaml.safe_load(parsed._parser("fit").dump(parsed.config.fit, skip_default=True, skip_none=False))
    return {key: value for key, value in tree.items() if key not in TRIAL_ONLY}


def _is_edited(path: Path) -> bool:
    """Whether a file is there that is not as it was generated."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True
    found = HASH.search(text)
    return found is None or found[1] != _digest(text[: found.start()] + text[found.end() :].removeprefix("\n"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
