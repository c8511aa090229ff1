"""``python -m project predict``: restore or color one image or a folder of them, with nothing but a checkpoint.

    python -m project predict --ckpt_path runs/denoise/latest/checkpoints/best.ckpt --input photos --output restored
    python -m project predict --ckpt_path runs/colorize/latest/checkpoints/best.ckpt --input lines --output colored
    python -m project predict ... --hints hints.json # or --palette "#ff8800,#224466": as the network was trained

A stopped run resumes where it stopped; a broken image is reported at the end and stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from project.data.images import one_line
from project.inference.common import load_image_model
from project.inference.hints import EXAMPLE, parse_request
from project.inference.image_files import InferenceItem, list_inputs, write_image
from project.inference.pipeline import make_pipeline
from project.inference.tiles import choose_device
from workbench.checkpoint import read_checkpoint
from workbench.errors import UserError
from workbench.parser import read_options


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
    """Refuse negative numbers."""
    for name in ("tile", "overlap", "size", "sigma"):
        if (options.get(name) or 0) < 0:
            raise UserError(f"--{name} {options[name]} is too small: at least 0.")


def _parse(arguments: list[str]) -> Namespace:
    parser = ArgumentParser(
        prog="python -m project predict",
        description="Restore or color one image or a folder of them, of any size, with nothing but a checkpoint.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--ckpt_path", type=str, required=True, help="checkpoint, such as runs/NAME/latest/checkpoints/best.ckpt")
    add_image_options(parser, required=True)
    add("--overwrite", type=bool, default=False, help="process again what is done; needed after other options")
    add("--precision", type=Literal["32", "bf16", "16"], default="32", help="bits of the network's arithmetic")
    add("--sigma", type=float | None, default=None, help="noise strength (0 to 255) for a network with a noise map")
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
    device, checkpoint = choose_device(options.device), read_checkpoint(options.ckpt_path)
    model, output = load_image_model(checkpoint, "predict"), Path(options.output).expanduser()
    items = list_inputs(Path(options.input).expanduser(), output)
    request = parse_request(options, [item.name for item in items])
    how = {name: options[name] for name in ("sigma", "tile", "overlap", "precision")}
    pipeline = make_pipeline(model, checkpoint, request, device=device, **how)
    made_from = [checkpoint.path, *([Path(options.hints).expanduser()] if options.hints else [])]
    todo = [item for item in items if options.overwrite or not item.is_done(*made_from)]
    skipped, deep = len(items) - len(todo), []

    def work(item: InferenceItem, progress: Callable[[float], None]) -> None:
        image = item.open()
        write_image(item.target, pipeline(image.pixels, image.alpha, request.of(item.name), progress), image)
        deep.extend([item.name] * image.deep)

    reached, failed, code = process_all(todo, work, output, pipeline.verb)
    if deep:
        print(f"Note: 16 bits became 8 (images: {len(deep)}, such as {deep[0]}).")
    done = f"skipped {skipped} (done before; --overwrite true)" if skipped else "skipped 0"
    print(f"{pipeline.verb.capitalize()} {reached - failed}, {done}, failed {failed}, in {output}")
    if code == 130:
        print("Stopped. The same command resumes from here.")
    return code


def process_all(
    items: list[InferenceItem], work: Callable[[InferenceItem, Callable[[float], None]], None], output: Path, verb: str
) -> tuple[int, int, int]:
    """Do the work for each item under a bar, with what takes its progress; one that fails stops no other.

    Failures are printed at the end.

    Returns:
        How many items were reached, how many failed, and the exit code: 130 stopped by Ctrl-C, 1 where any failed.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be made: {error.strerror}.") from error
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed: list[str] = []
    with Progress(*columns) as bar:
        task = bar.add_task(verb, total=len(items))
        for number, item in enumerate(items):
            bar.update(task, completed=number, description=item.name[-40:])
            try:
                work(item, lambda share, n=number: bar.update(task, completed=n + share))
            except KeyboardInterrupt:
                reached, code = number, 130
                break
            except Exception as error:  # whatever is wrong with it
                failed.append(f"Failed: {item.name}: {one_line(error)}")
        else:
            bar.update(task, completed=len(items), description=verb)
            reached, code = len(items), min(1, len(failed))
    if failed:
        print(*failed, sep="\n")
    return reached, len(failed), code
