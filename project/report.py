"""The short table at the end of a run."""

from __future__ import annotations

from pathlib import Path

NAMES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "loss": "loss"}


def print_scores(scores: dict[str, float], facts: dict[str, str | Path | None], title: str) -> None:
    """Print scores beside the do-nothing answer, and where to find things.

    Args:
        scores: Logged values such as ``val/psnr`` and ``test/psnr_baseline``.
        facts: Lines to print below the table; those without a value are left out.
        title: Of the table.
    """
    from rich.console import Console
    from rich.table import Table

    splits = [split for split in ("val", "test") if any(key.startswith(f"{split}/") for key in scores)]
    order = list(NAMES)
    measures = sorted(
        {key.split("/", 1)[1] for key in scores if f"{key}_baseline" in scores},
        key=lambda measure: (order.index(measure) if measure in order else len(order), measure),
    )
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right", style="bold")
        table.add_column("doing nothing", justify="right")
    for measure in measures:
        cells = []
        for split in splits:
            for key in (f"{split}/{measure}", f"{split}/{measure}_baseline"):
                cells.append(f"{scores[key]:.{2 if measure == 'psnr' else 4}f}" if key in scores else "")
        table.add_row(NAMES.get(measure, measure), *cells)
    console = Console(soft_wrap=True)
    if measures:
        console.print(table)
    width = max((len(name) for name, value in facts.items() if value), default=0)
    for name, value in facts.items():
        if value:
            console.print(f"{name:<{width}}  {value}", highlight=False, markup=False)
