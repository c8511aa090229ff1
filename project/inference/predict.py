"""``python -m project predict``: restore or color one image or a folder of them, with nothing but a checkpoint.

    python -m project predict --ckpt_path runs/denoise/latest/checkpoints/best.ckpt --input photos --output restored
    python -m project predict ... --noise 25         # no noisy images at hand: add the noise first, and see both
    python -m project predict --ckpt_path runs/colorize/latest/checkpoints/best.ckpt --input lines --output colored
    python -m project predict ... --hints hints.json # or --palette "#ff8800,#224466": as the network was trained

A stopped run resumes where it stopped; a broken image is reported at the end and stops nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from project.inference.hints import EXAMPLE, DoneLog, HintRequest, parse_request
from workbench.errors import UserError
from workbench.parser import read_options

if TYPE_CHECKING:  # torch and Pillow take seconds, which `--help` and a typing error need not wait for
    import numpy as np

    from project.inference.image_files import InferenceItem
    from project.inference.pipeline import ColorizationPipeline, RestorationPipeline

MAX_LISTED = 20
"""Failures on the terminal; a longer list goes into a file."""


def add_image_options(parser: ArgumentParser, required: bool) -> None:
    """The options that ``predict`` and ``ensemble`` share."""
    add = parser.add_argument
    add("--input", type=str, required=required, help="image or folder of images, of any depth")
    add("--output", type=str, required=required, help="folder for the outputs; names and sub-folders are kept")
    # Not `str | None`: that goes through YAML first, which takes "#ff8800" for a comment, so for nothing.
    add("--hints", type=str, default=None, help=f"JSON file of points and their colors, {EXAMPLE}")
    add("--palette", type=str, default=None, help='colors without places: "#ff8800,#224466,white"')
    add("--size", type=int | None, default=None, help="shorter side in pixels while coloring; null: as in training")
    add("--tile", type=int, default=512, help="pixels along a tile; smaller needs less memory, 0: no tiles")
    add("--overlap", type=int, default=64, help="pixels that tiles share; more for larger receptive fields")
    add("--device", type=Literal["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")


def check_image_options(options: Namespace) -> None:
    """Refuse numbers below their least values."""
    for name, least in {"tile": 0, "overlap": 0, "size": 0, "batch": 1, "sigma": 0, "noise": 0}.items():
        if options.get(name) is not None and options[name] < least:
            raise UserError(f"--{name} {options[name]} is too small: at least {least}.")


def _parse(arguments: list[str]) -> Namespace:
    parser = ArgumentParser(
        prog="python -m project predict",
        description="Restore or color one image or a folder of them, of any size, with nothing but a checkpoint.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--ckpt_path", type=str, required=True, help="checkpoint, such as runs/NAME/latest/checkpoints/best.ckpt")
    add_image_options(parser, required=True)
    add("--overwrite", type=bool, default=False, help="process again what is done; needed after a change of options")
    add("--batch", type=int, default=1, help="tiles at once; more may be faster on a GPU")
    add("--precision", type=Literal["32", "bf16", "16"], default="32", help="bits of the network's arithmetic")
    add("--sigma", type=float | None, default=None, help="noise strength (0 to 255) for a network with a noise map")
    add("--noise", type=float | None, default=None, help="to try it: first add noise of this sigma (0 to 255)")
    options = read_options(parser, arguments)
    check_image_options(options)
    return options


def main(argv: Sequence[str]) -> int:
    """Run the command; ``argv`` starts with ``predict``.

    Returns:
        The exit code: 0, or 1 when an image failed, or 130 when stopped by Ctrl-C.

    Raises:
        UserError: Wrong options, hints or palette, no images, no usable checkpoint or device.
    """
    options = _parse(list(argv[1:]))
    from project.inference.image_files import list_inputs

    output, checkpoint = Path(options.output).expanduser(), Path(options.ckpt_path).expanduser()
    items = list_inputs(Path(options.input).expanduser(), output, "noisy" if options.noise is not None else None)
    request, log = parse_request(options, items), DoneLog(output)
    todo = [
        item
        for item in items
        if options.overwrite
        or not (item.is_done(checkpoint) and log.matches(item.name, request.fingerprint(item.name)))
    ]
    skipped = len(items) - len(todo)
    failed, notes, verb, code = {}, Counter(), "restored", 0
    if todo or request.option:  # the option may be useless, which only the checkpoint shows
        pipeline = _load(options, request)
        verb = pipeline.verb

        def work(item: InferenceItem, progress: Callable[[float], None]) -> None:
            with log.writing(item.name, request.fingerprint(item.name)):
                notes.update(_process(item, pipeline, request, options.noise, progress))

        todo, failed, code = process_all(todo, work, output, verb)
        if options.tile and pipeline.tile < options.tile:
            print(f"Not enough memory for tiles of {options.tile} pixels; {pipeline.tile} were used (--tile).")
    for note, count in notes.items():
        print(f"Note: {note} ({count} {'image' if count == 1 else 'images'}).")
    print_failures(failed, output)
    done = f"skipped {skipped} (done before; --overwrite true)" if skipped else "skipped 0"
    print(f"{verb.capitalize()} {len(todo) - len(failed)}, {done}, failed {len(failed)}, in {output}")
    if code:
        print("Stopped. The same command resumes from here.")
    return code or (1 if failed else 0)


def process_all(
    items: list[InferenceItem], work: Callable[[InferenceItem, Callable[[float], None]], None], output: Path, verb: str
) -> tuple[list[InferenceItem], dict[str, str], int]:
    """Do the work for each item under a bar, with what takes its progress; one that fails stops no other.

    Returns:
        The items that were reached, why some failed, and the exit code 130 where Ctrl-C stopped it, else 0.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be made: {error.strerror}.") from error
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed: dict[str, str] = {}
    with Progress(*columns) as bar:
        task = bar.add_task("", total=len(items))
        for number, item in enumerate(items):
            bar.update(task, completed=number, description=item.name[-40:])
            try:
                work(item, lambda share, n=number: bar.update(task, completed=n + share))
            except KeyboardInterrupt:
                return items[:number], failed, 130
            except Exception as error:  # whatever is wrong with it
                failed[item.name] = " ".join(str(error).split())[:300] or type(error).__name__
        bar.update(task, completed=len(items), description=verb)
    return items, failed, 0


def _load(options: Namespace, request: HintRequest) -> RestorationPipeline | ColorizationPipeline:
    from project.inference.pipeline import make_pipeline
    from project.inference.tiles import choose_device
    from workbench.checkpoint import load_model, read_checkpoint

    device = choose_device(options.device)
    checkpoint = read_checkpoint(options.ckpt_path)
    how = {name: options[name] for name in ("sigma", "noise", "tile", "overlap", "batch", "precision")}
    return make_pipeline(load_model(checkpoint), checkpoint, request, device=device, **how)


def _process(
    item: InferenceItem,
    pipeline: RestorationPipeline | ColorizationPipeline,
    request: HintRequest,
    noise: float | None,
    progress: Callable[[float], None],
) -> list[str]:
    """Read, process and write one image; the notes."""
    from project.inference.image_files import write_image

    image = item.open()
    pixels = image.pixels
    if noise is not None:
        pixels = add_noise(pixels, noise, item.name)
        write_image(item.beside, pixels, image)
    output = pipeline(pixels, image.alpha, request.of(item.name), progress)
    write_image(item.target, output, image)
    return pipeline.notes(image)


def print_failures(failed: dict[str, str], output: Path) -> None:
    """Print which images failed and why; more than fit go into a file of the output folder."""
    lines = [f"{name}: {reason}" for name, reason in failed.items()]
    for line in lines[:MAX_LISTED]:
        print(f"Failed: {line}")
    if len(lines) > MAX_LISTED:
        (output / "failed.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"... and {len(lines) - MAX_LISTED} more, all in {output / 'failed.txt'}")


def add_noise(pixels: np.ndarray, sigma: float, name: str) -> np.ndarray:
    """Gaussian noise of sigma (0 to 255) that follows from the image's name alone, rounded and clipped to 8 bits."""
    import numpy as np

    random = np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"))
    noisy = np.empty_like(pixels)
    for top in range(0, len(pixels), 256):  # floats of a few rows at a time: they take four times the memory
        rows = pixels[top : top + 256]
        noise = sigma * random.standard_normal(rows.shape, dtype=np.float32)
        noisy[top : top + 256] = np.clip(np.rint(rows + noise), 0, 255).astype(np.uint8)
    return noisy
