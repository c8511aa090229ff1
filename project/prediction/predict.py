"""``python -m project predict``: restore one picture or a folder of them, with nothing but a checkpoint.

    python -m project predict --ckpt_path runs/denoise/latest/checkpoints/best.ckpt --input photos --output restored
    python -m project predict ... --noise 25         # no noisy pictures at hand: add the noise first, and see both

A run that was stopped goes on where it stopped; a broken picture is reported at the end and stops nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from project.errors import UserError

if TYPE_CHECKING:  # torch and Pillow take seconds, which `--help` and a typing error need not wait for
    import numpy as np
    from jsonargparse import ArgumentParser, Namespace

    from project.prediction.jobs import Job
    from project.prediction.restorer import Restorer

SHOWN = 20
"""So many failures are told on the terminal; a longer list goes into a file."""


@dataclass
class Report:
    """What became of the pictures."""

    restored: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: ``predict`` and what follows it on the command line.

    Returns:
        The exit code: 0, or 1 when a picture failed, or 130 when stopped by Ctrl-C.

    Raises:
        UserError: Nothing can be restored at all: wrong options, no pictures, no usable checkpoint or device.
    """
    options = _parse(list(argv[1:]))
    from project.prediction.jobs import plan

    output, checkpoint = Path(options.output).expanduser(), Path(options.ckpt_path).expanduser()
    jobs = plan(
        Path(options.input),
        output,
        recursive=options.recursive,
        as_png=options.format == "png",
        noise=options.noise is not None,
    )
    todo = jobs if options.overwrite else [job for job in jobs if not job.is_done(checkpoint)]
    report = Report(skipped=len(jobs) - len(todo))
    if todo:
        restorer = _load(options)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output {output} cannot be made: {error.strerror}.") from error
        try:
            _restore_all(todo, restorer, options.noise, report)
        except KeyboardInterrupt:
            _tell(report, output)
            print("Stopped. The same command goes on from here.")
            return 130
        if options.tile and restorer.tile < options.tile:
            print(f"The memory did not suffice for tiles of {options.tile} pixels; {restorer.tile} did (--tile).")
    _tell(report, output)
    return 1 if report.failed else 0


def _parser() -> ArgumentParser:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="python -m project predict",
        description="Restore one picture or a folder of them, of any size, with nothing but a checkpoint.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--ckpt_path", type=str, required=True, help="checkpoint, such as runs/NAME/latest/checkpoints/best.ckpt")
    add("--input", type=str, required=True, help="picture or folder of pictures")
    add("--output", type=str, required=True, help="folder for the restored pictures; names and sub-folders are kept")
    add("--recursive", type=bool, default=True, help="look into sub-folders too")
    add("--overwrite", type=bool, default=False, help="restore again what is done; needed after a change of options")
    add("--format", type=Literal["keep", "png"], default="keep", help="keep each picture's format, or write PNG")
    add("--tile", type=int, default=512, help="pixels along a tile; smaller needs less memory, 0: no tiles")
    add("--overlap", type=int, default=64, help="pixels that tiles share; more for networks that see further")
    add("--batch", type=int, default=1, help="tiles at once; more may be faster on a GPU")
    add("--device", type=Literal["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    add("--precision", type=Literal["32", "bf16", "16"], default="32", help="bits of the network's arithmetic")
    add("--sigma", type=float | None, default=None, help="noise strength (0 to 255) for a network with a noise map")
    add("--noise", type=float | None, default=None, help="to try it: first add noise of this sigma (0 to 255)")
    return parser


def _parse(arguments: list[str]) -> Namespace:
    from jsonargparse import ArgumentError

    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except ArgumentError as error:
        raise UserError(_explain(parser, arguments, str(error))) from error
    for name, least in (("tile", 0), ("overlap", 0), ("batch", 1), ("sigma", 0), ("noise", 0)):
        if options[name] is not None and options[name] < least:
            raise UserError(f"--{name} {options[name]} is too small: at least {least}.")
    return options


def _explain(parser: ArgumentParser, arguments: list[str], message: str) -> str:
    import difflib

    known = sorted(option for option in parser._option_string_actions if option.startswith("--"))
    unknown = [argument.split("=")[0] for argument in arguments if argument.startswith("--")]
    unknown = [option for option in unknown if option not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        return f"predict has no option {unknown[0]}." + (f" Did you mean {near[0]}?" if near else "") + f"\n{_HELP}"
    message = re.sub(r'Parser key "(\w+)":\s*', r"--\1: ", message)
    message = re.sub(r"<class '(\w+)'>", r"\1", message).replace("a typing.Literal", "one of ")
    return "\n".join([line for line in message.splitlines() if line.strip()][:8]) + f"\n{_HELP}"


def _load(options: Namespace) -> Restorer:
    from project.models.checkpoint import load_model, read_checkpoint
    from project.prediction.restorer import Restorer, choose_device

    device = choose_device(options.device)
    checkpoint = read_checkpoint(options.ckpt_path)
    return Restorer(
        load_model(checkpoint),
        checkpoint.config.get("data") or {},
        device=device,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        precision=options.precision,
        sigma=options.sigma,
    )


def _restore_all(jobs: list[Job], restorer: Restorer, noise: float | None, report: Report) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=len(jobs))
        for number, job in enumerate(jobs):
            bar.update(task, completed=number, description=job.name[-40:])
            try:
                notes = _restore(job, restorer, noise, lambda share, n=number: bar.update(task, completed=n + share))
            except Exception as error:  # one picture must not stop the others, whatever is wrong with it
                report.failed[job.name] = " ".join(f"{error}".split())[:300] or type(error).__name__
            else:
                report.restored += 1
                report.notes.update(notes)
        bar.update(task, completed=len(jobs), description="restored")


def _restore(job: Job, restorer: Restorer, noise: float | None, progress: Callable[[float], None]) -> tuple[str, ...]:
    from project.data.images import BadPicture
    from project.prediction.pictures import open_picture, save_picture

    if job.problem:
        raise BadPicture(job.problem)
    opened = open_picture(job.source)
    pixels = opened.pixels
    if noise is not None:
        pixels = add_noise(pixels, noise, job.name)
        save_picture(job.noisy, pixels, opened)
    answer = restorer(pixels, progress)
    save_picture(job.target, answer, opened)
    if pixels.shape[2] == 3 and answer.shape[2] == 1:
        return (*opened.notes, "colour became grey, as the network is for grey pictures")
    return opened.notes


def add_noise(pixels: np.ndarray, sigma: float, name: str) -> np.ndarray:
    """Gaussian noise that depends on the picture's name alone, rounded and clipped as a camera's file would be.

    Args:
        pixels: uint8, (H, W, C).
        sigma: Standard deviation, on the scale of 0 to 255.
        name: The picture's name, from which the random numbers follow.

    Returns:
        uint8, (H, W, C).
    """
    import numpy as np

    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    random = np.random.default_rng(seed)
    noisy = np.empty_like(pixels)
    for top in range(0, len(pixels), 256):  # floats of a few rows at a time: they take four times the memory
        rows = pixels[top : top + 256]
        noise = sigma * random.standard_normal(rows.shape, dtype=np.float32)
        noisy[top : top + 256] = np.clip(np.rint(rows + noise), 0, 255).astype(np.uint8)
    return noisy


def _tell(report: Report, output: Path) -> None:
    for note, count in report.notes.items():
        print(f"Note: {note} ({count} {'picture' if count == 1 else 'pictures'}).")
    lines = [f"{name}: {reason}" for name, reason in report.failed.items()]
    for line in lines[:SHOWN]:
        print(f"Failed: {line}")
    if len(lines) > SHOWN:
        listed = output / "failed.txt"
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"... and {len(lines) - SHOWN} more, all in {listed}")
    skipped = f"skipped {report.skipped}" + (" (done before; --overwrite true)" if report.skipped else "")
    print(f"Restored {report.restored}, {skipped}, failed {len(report.failed)}, in {output}")


_HELP = "All options: python -m project predict --help"
