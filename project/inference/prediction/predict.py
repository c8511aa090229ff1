"""``python -m project predict``: restore or color one image or a folder of them, with nothing but a checkpoint.

    python -m project predict --ckpt_path runs/denoise/latest/checkpoints/best.ckpt --input photos --output restored
    python -m project predict ... --noise 25         # no noisy images at hand: add the noise first, and see both
    python -m project predict --ckpt_path runs/colorize/latest/checkpoints/best.ckpt --input lines --output colored
    python -m project predict ... --hints hints.json # or --palette "#ff8800,#224466": as the network was trained

A run that was stopped goes on where it stopped; a broken image is reported at the end and stops nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from project.inference.prediction.options import parse
from project.inference.prediction.report import Report
from workbench.errors import UserError

if TYPE_CHECKING:  # torch and Pillow take seconds, which `--help` and a typing error need not wait for
    import numpy as np
    from jsonargparse import Namespace

    from project.inference.prediction.colorist import Colorist
    from project.inference.prediction.jobs import Job
    from project.inference.prediction.restorer import Restorer
    from project.inference.prediction.wishes import Record, Wishes

Notes = tuple[str, ...]


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: ``predict`` and what follows it on the command line.

    Returns:
        The exit code: 0, or 1 when an image failed, or 130 when stopped by Ctrl-C.

    Raises:
        UserError: Nothing can be done at all: wrong options, hints or palette, no images, no usable checkpoint or
            device.
    """
    options = parse(list(argv[1:]))
    from project.inference.prediction.jobs import plan
    from project.inference.prediction.wishes import Record, read_wishes

    output, checkpoint = Path(options.output).expanduser(), Path(options.ckpt_path).expanduser()
    jobs = plan(
        Path(options.input),
        output,
        recursive=options.recursive,
        as_png=options.format == "png",
        noise=options.noise is not None,
    )
    wishes = read_wishes(options.hints, options.palette, options.size, jobs)
    record = Record.of(output)
    todo = jobs if options.overwrite else [job for job in jobs if not _is_done(job, checkpoint, record, wishes)]
    report = Report(skipped=len(jobs) - len(todo))
    if todo or wishes.are_any:  # the latter may be in vain, which only the checkpoint tells
        network = _load(options, wishes, report)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output {output} cannot be made: {error.strerror}.") from error
        try:
            _do_all(todo, _work(network, options.noise, wishes), report, record, wishes)
        except KeyboardInterrupt:
            report.tell(output)
            print("Stopped. The same command goes on from here.")
            return 130
        if options.tile and network.tile < options.tile:
            print(f"The memory did not suffice for tiles of {options.tile} pixels; {network.tile} did (--tile).")
    report.tell(output)
    return 1 if report.failed else 0


def _is_done(job: Job, checkpoint: Path, record: Record, wishes: Wishes) -> bool:
    return job.is_done(checkpoint) and record.fits(job.name, wishes.mark(job.name))


def _load(options: Namespace, wishes: Wishes, report: Report) -> Restorer | Colorist:
    from project.inference.prediction.colorist import Colorist
    from project.inference.prediction.restorer import Restorer
    from project.inference.prediction.tiled import choose_device
    from project.inference.prediction.trained import check_wishes, coloring_of, working_size
    from workbench.checkpoint import load_model, read_checkpoint

    device = choose_device(options.device)
    checkpoint = read_checkpoint(options.ckpt_path)
    pairs = coloring_of(checkpoint)
    check_wishes(pairs, wishes)
    how = {
        "device": device,
        "tile": options.tile,
        "overlap": options.overlap,
        "batch": options.batch,
        "precision": options.precision,
    }
    data = checkpoint.config.get("data") or {}
    if pairs is None:
        return Restorer(load_model(checkpoint), data, sigma=options.sigma, **how)
    for name in ("sigma", "noise"):
        if options[name] is not None:
            raise UserError(f"--{name} is for networks that remove noise; this one colors. Leave it out.")
    size, why = working_size(data, wishes.size)
    report.word = "colored"
    colorist = Colorist(load_model(checkpoint), pairs, size, **how)
    pixels = f"{size} pixels along the shorter side" if size else "the images' own size"
    print(f"Colors are found at {pixels} ({why}).")
    return colorist


def _work(
    network: Restorer | Colorist, noise: float | None, wishes: Wishes
) -> Callable[[Job, Callable[[float], None]], Notes]:
    """What is to be done with each image."""
    from project.inference.prediction.restorer import Restorer

    if isinstance(network, Restorer):
        return lambda job, progress: _restore(job, network, noise, progress)
    return lambda job, progress: _color(job, network, wishes, progress)


def _do_all(
    jobs: list[Job],
    work: Callable[[Job, Callable[[float], None]], Notes],
    report: Report,
    record: Record,
    wishes: Wishes,
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=len(jobs))
        for number, job in enumerate(jobs):
            bar.update(task, completed=number, description=job.name[-40:])
            try:
                with record.writing(job.name, wishes.mark(job.name)):
                    notes = work(job, lambda share, n=number: bar.update(task, completed=n + share))
            except Exception as error:  # one image must not stop the others, whatever is wrong with it
                report.failed[job.name] = " ".join(f"{error}".split())[:300] or type(error).__name__
            else:
                report.done += 1
                report.notes.update(notes)
        bar.update(task, completed=len(jobs), description=report.word)


def _restore(job: Job, restorer: Restorer, noise: float | None, progress: Callable[[float], None]) -> Notes:
    from project.data.images import BadImage
    from project.inference.prediction.pictures import open_picture, save_picture

    if job.problem:
        raise BadImage(job.problem)
    opened = open_picture(job.source)
    pixels = opened.pixels
    if noise is not None:
        pixels = add_noise(pixels, noise, job.name)
        save_picture(job.noisy, pixels, opened)
    answer = restorer(pixels, progress)
    save_picture(job.target, answer, opened)
    if pixels.shape[2] == 3 and answer.shape[2] == 1:
        return (*opened.notes, "color became gray, as the network is for gray images")
    return opened.notes


def _color(job: Job, colorist: Colorist, wishes: Wishes, progress: Callable[[float], None]) -> Notes:
    from project.data.images import BadImage
    from project.inference.prediction.pictures import has_colors, is_ink_alone, open_picture, save_picture

    if job.problem:
        raise BadImage(job.problem)
    opened = open_picture(job.source)
    answer = colorist(opened.pixels, progress, wishes.of(job.name), opened.alpha)
    save_picture(job.target, answer, opened)
    notes = list(opened.notes)
    if has_colors(opened):
        notes.append("the image had colors; its gray was colored anew")
    if not colorist.pairs.keeps_lightness and is_ink_alone(opened):
        notes.append("the paper is transparent and stays so, colors and all; lay the lines on white to see them")
    return tuple(notes)


def add_noise(pixels: np.ndarray, sigma: float, name: str) -> np.ndarray:
    """Gaussian noise that depends on the image's name alone, rounded and clipped as a camera's file would be.

    Args:
        pixels: uint8, (H, W, C).
        sigma: Standard deviation, on the scale of 0 to 255.
        name: The image's name, from which the random numbers follow.

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
