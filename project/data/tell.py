"""What a user should know and need not mend, such as files that are left aside: a line on the standard output."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def tell(text: str) -> None:
    """Print it, from the first process alone. Not by logging, which a program may turn down without anybody seeing."""
    print(text, flush=True)
