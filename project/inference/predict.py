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

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt
from rich.progress import track

from project.inference.common import command_parser, load_image_model
from project.inference.hints import EXAMPLE, parse_request
from project.inference.image_files import InferenceItem, list_inputs, read_image, write_image
from project.inference.pipeline import make_pipeline
from project.inference.tiles import choose_device
from workbench.checkpoint import read_checkpoint
from workbench.errors import UserError, one_line
from workbench.parser import read_options


def add_image_options(parser: ArgumentParser, required: bool) -> None:
    """The options that ``predict`` and ``ensemble`` share."""
    add = parser.add_argument
    add("--input", type=str, required=required, help="image or folder of images, of any depth")
    add("--output", type=str, required=required, help="folder for the outputs; names and sub-folders are kept")
    # Not `str | None`: that goes through YAML first, which takes "#ff8800" for a comment, so for nothing.
    add("--hints", type=str, default=None, help=f"JSON file of points and their colors, {EXAMPLE}")
    add("--palette", type=str, default=None, help='colors without places: "#ff8800,#224466,white"')
    add("--size", type=NonNegativeInt | None, default=None, help="shorter side while coloring, 0: the image's own")
    add("--tile", type=NonNegativeInt, default=512, help="pixels along a tile; smaller needs less memory, 0: no tiles")
    add("--overlap", type=NonNegativeInt, default=64, help="pixels that tiles share; more for larger receptive fields")
    add("--device", type=Literal["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")


def main(argv: Sequence[str]) -> int:
    """Run the command: ``predict`` and its options. The exit code is 1 where an image failed, 130 after Ctrl-C."""
    parser = command_parser("predict", "Restore or color one image or a folder of them, with nothing but a checkpoint.")
    add_image_options(parser, required=True)
    add = parser.add_argument
    add("--overwrite", type=bool, default=False, help="process again what is done; needed after other options")
    add("--sigma", type=NonNegativeFloat | None, default=None, help="noise, 0 to 255, for a network with a noise map")
    options = read_options(parser, list(argv[1:]))
    device, checkpoint = choose_device(options.device), read_checkpoint(options.ckpt_path)
    model, output = load_image_model(checkpoint, "predict"), Path(options.output).expanduser()
    items = list_inputs(Path(options.input).expanduser(), output)
    request = parse_request(options, [item.name for item in items])
    how = {name: options[name] for name in ("sigma", "tile", "overlap")}
    pipeline = make_pipeline(model, checkpoint, request, device=device, **how)
    made_from = [checkpoint.path, *([Path(options.hints).expanduser()] if options.hints else [])]
    todo = [item for item in items if options.overwrite or not item.is_done(*made_from)]
    skipped, deep = len(items) - len(todo), []

    def work(item: InferenceItem) -> None:
        image = read_image(item.source)
        write_image(item.target, pipeline(image.pixels, image.alpha, request.of(item.name)), image)
        deep.extend([item.name] * image.deep)

    done, failed, code = process_all(todo, work, output, pipeline.verb)
    if deep:
        print(f"Note: 16 bits became 8 (images: {len(deep)}, such as {deep[0]}).")
    before = " (done before; --overwrite true)" if skipped else ""
    print(f"{pipeline.verb.capitalize()} {done}, skipped {skipped}{before}, failed {failed}, in {output}")
    if code == 130:
        print("Stopped. The same command resumes from here.")
    return code


def process_all(
    items: list[InferenceItem], work: Callable[[InferenceItem], None], output: Path, verb: str
) -> tuple[int, int, int]:
    """Do the work for each item under a bar; one that fails stops no other, and is printed at the end.

    Returns:
        How many items were done, how many failed, and the exit code: 130 stopped by Ctrl-C, 1 where any failed.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be made: {error.strerror}.") from error
    done, failed, stopped = 0, [], False
    try:
        for item in track(items, verb):
            try:
                work(item)
                done += 1
            except Exception as error:  # whatever is wrong with it
                failed.append(f"Failed: {item.name}: {one_line(error)}")
    except KeyboardInterrupt:
        stopped = True
    if failed:
        print(*failed, sep="\n")
    return done, len(failed), 130 if stopped else min(1, len(failed))
