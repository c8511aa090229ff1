"""The short table at the end of a run."""

from __future__ import annotations

from pathlib import Path

MEASURES = {  # name -> heading and decimals, in the order of the table
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 4),
    "acc_2": ("pixels right within 2 (%)", 1),
    "acc_5": ("pixels right within 5 (%)", 1),
    "colorfulness": ("colorfulness", 1),
    "colorfulness_ratio": ("colorfulness / truth's", 2),
    "lpips": ("LPIPS", 4),
    "fid": ("FID", 2),
    "loss": ("loss", 4),
}
OTHER_DECIMALS = 4


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
    order = list(MEASURES)
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
        heading, decimals = MEASURES.get(measure, (measure, OTHER_DECIMALS))
        cells = []
        for split in splits:
            for key in (f"{split}/{measure}", f"{split}/{measure}_baseline"):
                cells.append(f"{scores[key]:.{decimals}f}" if key in scores else "")
        table.add_row(heading, *cells)
    console = Console(soft_wrap=True)
    if measures:
        console.print(table)
    width = max((len(name) for name, value in facts.items() if value), default=0)
    for name, value in facts.items():
        if value:
            console.print(f"{name:<{width}}  {value}", highlight=False, markup=False)
