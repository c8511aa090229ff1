"""What a planted fault is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from workbench.findings import Finding


class Plant(NamedTuple):
    """A fault.

    Attributes:
        code: How it is to be named first.
        name: What was done.
        run: Seed -> what was found.
    """

    code: str
    name: str
    run: Callable[[int], list[Finding]]
