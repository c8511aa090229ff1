"""``sweep-report``: what a sweep has found, as a table, charts, sentences and a configuration to train."""

from __future__ import annotations

import csv
import shutil
import sys
import warnings
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jsonargparse import ArgumentParser
from jsonargparse.typing import restricted_number_type

from workbench.checkpoint import atomic_write_text
from workbench.console import silence_warnings
from workbench.errors import UserError, did_you_mean, one_line
from workbench.main import PROGRAM
from workbench.parser import read_options
from workbench.tune.best_config import write_best
from workbench.tune.results import FINISHED, Results, Row, read_results, shorten, show, show_score, show_time, wrap
from workbench.tune.sentences import sentences
from workbench.tune.wandb_sweep import write_wandb_sweep

if TYPE_CHECKING:
    import optuna
    from rich.table import Table

__all__ = ["main", "write", "write_wandb_sweep"]

TOP = 20
MAX_WIDTH = 400  # characters of a table that no terminal limits
Smoothing = restricted_number_type("Smoothing", float, [(">=", 0), ("<", 1)])


def main(argv: list[str]) -> int:
    """Run ``sweep-report``."""
    silence_warnings()
    parser = ArgumentParser(
        prog=f"python -m {PROGRAM.name} sweep-report",
        description="What a sweep has found so far: table, charts and best configuration.",
        exit_on_error=False,
    )
    parser.add_argument("study", type=str, help="name of the study")
    parser.add_argument("--runs_dir", type=str, default="runs", help="folder of all runs")
    parser.add_argument("--storage", type=str | None, default=None, help="database URL, where the sweep had one")
    parser.add_argument("--smoothing", type=Smoothing, default=0.0, help="of the curves, such as 0.8; 0 for none")
    options = read_options(parser, argv[1:])
    folder = Path(options.runs_dir) / options.study
    study = load_study(options.storage, options.study, folder)
    print(write(study, folder, options.smoothing, with_config=True))
    return 0


def load_study(url: str | None, name: str, folder: Path) -> optuna.Study:
    """Open a study to read it, as it may be in use; UserError where it is not there, or cannot be read."""
    from workbench.tune.study import import_optuna

    optuna = import_optuna()
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    file = folder / "study.db"
    if url is None and not file.is_file():
        there = sorted(path.parent.name for path in folder.parent.glob(f"*/{file.name}"))
        listed = f"There are: {', '.join(there)}." if there else f"{folder.parent} holds none: --runs_dir FOLDER."
        raise UserError(f"There is no study {name!r}.{did_you_mean(name, there)}\n{listed}")
    where = url or f"sqlite:///file:{quote(str(file.absolute()))}?mode=ro&uri=true"
    options = {"pool_pre_ping": True} if url else {"connect_args": {"timeout": 60}}
    try:
        storage = optuna.storages.RDBStorage(where, engine_kwargs=options)
        there = optuna.get_all_study_names(storage)
        if name in there:
            return optuna.load_study(study_name=name, storage=storage)
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or "a driver"
        raise UserError(f"--storage needs a package: pip install {package}") from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError, ValueError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        what = "The database of --storage" if url else str(file)
        raise UserError(f"{what} cannot be read: {one_line(cause, 200)}") from None
    raise UserError(f"There is no study {name!r}.{did_you_mean(name, there)}\nThere are: {', '.join(there) or 'none'}.")


def write(study: optuna.Study, folder: Path, smoothing: float = 0.0, with_config: bool = False) -> str:
    """Write a study's table, charts and TensorBoard's hyper-parameters into its folder; what to print of it.

    Args:
        smoothing: Of the curves, in [0, 1), as in TensorBoard.
        with_config: Whether to write the best configuration, ``configs/best_STUDY.yaml``.
    """
    from workbench.tune.charts import draw_charts

    results = read_results(study)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(results, folder / "trials.csv")
    lines = [table(results)] if results.ranked else []
    lines += sentences(results)
    drawn, skipped = draw_charts(results, folder / "charts", smoothing)
    lines += [f"No chart of {text}." for text in skipped]
    write_hparams(results, folder / "tensorboard")
    facts = {
        "All trials": folder / "trials.csv",
        "Charts": f"{folder / 'charts'}: {', '.join(path.name for path in drawn)}" if drawn else "",
    }
    if with_config and results.ranked:
        try:
            path, note = write_best(results)
            facts["Best configuration"] = f"{path}{note}"
            facts["Train it"] = f"python -m {PROGRAM.name} fit --config {path}"
        except UserError as error:
            lines.append(f"The best configuration cannot be written: {error}")
    width = max(map(len, facts))
    lines += ["", *(f"{label:<{width}}  {value}" for label, value in facts.items() if value)]
    text = "\n".join(lines)
    atomic_write_text(folder / "report.txt", text + "\n")
    return text


def table(results: Results) -> str:
    """The best trials, as text; in a terminal that is narrow some facts are left out, which the CSV has."""
    from rich.console import Console

    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else MAX_WIDTH
    facts = ["time", "parameters", "epochs"]
    stream = StringIO()
    console = Console(file=stream, width=MAX_WIDTH, markup=False, highlight=False, color_system=None)
    while console.measure(_grid(results, facts)).maximum > room and facts:
        facts.pop()
    console.print(_grid(results, facts))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _grid(results: Results, facts: list[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    top = results.ranked[:TOP]
    title = f"{results.name}: the best {len(top)} of {len(results.ranked)} trials by {results.objective}"
    grid = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in ("", "trial", wrap(results.objective, 12), *facts):
        grid.add_column(heading, justify="right", no_wrap=True)
    tried = [p for p in results.space.parameters if any(p.name in row.values for row in top)]
    for p in tried:
        justify = "left" if p.choices else "right"
        grid.add_column(wrap(results.names[p.name], 12), justify=justify, no_wrap=True)
    for rank, row in enumerate(top, 1):
        parameters = f"{row.parameters:,}" if row.parameters else ""
        shown = {"time": show_time(row.seconds), "parameters": parameters, "epochs": str(row.epochs or "")}
        cells = [shorten(show(row.values[p.name]), 16) if p.name in row.values else "-" for p in tried]
        grid.add_row(str(rank), str(row.trial), show_score(row.score), *(shown[fact] for fact in facts), *cells)
    return grid


def write_csv(results: Results, path: Path) -> None:
    """All trials, the ranked ones first."""
    names = [parameter.name for parameter in results.space.parameters]
    stream = StringIO(newline="")
    facts = ["seconds", "parameters", "epochs", "steps"]
    writer = csv.writer(stream)
    writer.writerow(["rank", "trial", "state", "round", results.objective, *facts, *names, "run", "reason"])
    others = [row for row in results.rows if row not in results.ranked]
    for place, row in enumerate([*results.ranked, *others]):
        rank = place + 1 if place < len(results.ranked) else ""
        values = [_cell(row.values, name) for name in names]
        head = [rank, row.trial, row.state, row.kind, "" if row.score is None else row.score]
        reason = " ".join(row.reason.split())
        writer.writerow([*head, *(_of(row, fact) for fact in facts), *values, row.run, reason])
    atomic_write_text(path, stream.getvalue())


def _cell(values: dict[str, Any], name: str) -> Any:
    """Empty where a trial has no such parameter; null where it is one."""
    return ("null" if values[name] is None else values[name]) if name in values else ""


def _of(row: Row, fact: str) -> Any:
    value = getattr(row, fact)
    return "" if value is None else value


def write_hparams(results: Results, folder: Path) -> None:
    """Let TensorBoard's HParams show the finished trials; nothing where TensorBoard is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams
        except ImportError:
            return
    metric = f"best/{results.objective}"
    for row in results.rows:
        place = folder / f"trial-{row.trial:04d}"
        if row.state != FINISHED or any(place.glob("events.*")):
            continue
        values = {results.names[name]: _plain(value) for name, value in row.values.items()}
        with SummaryWriter(str(place)) as writer, suppress(ValueError):
            # `add_hparams` would write into one more folder, which is named by the time.
            for summary in hparams(values, {metric: row.score}):
                writer.file_writer.add_summary(summary)
            writer.add_scalar(metric, row.score, row.steps or 0)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
