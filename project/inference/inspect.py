"""``python -m project inspect``: look into a trained network, and at the images with the largest errors.

    python -m project inspect --ckpt_path runs/denoise/latest/checkpoints/best.ckpt
    python -m project inspect ... --layer encoder.1 --maps 12     # other feature maps
    python -m project inspect ... --split train                   # images to leave out of the training
    python -m project inspect ... --data.root photos              # other images than the run's

Everything goes into ``inspect/`` in the run's folder (``inspect-train/``, ``inspect-test/`` for another split):
``filters.png``, ``features_LAYER.png``, ``worst.png`` and ``worst.csv``.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch import LightningModule
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from project.callbacks.grid import new_figure
from project.data import ImageDataModule
from project.data.batch import Batch, RawBatch
from project.inference import image_errors
from project.inference.common import command_parser, load_image_model, main_network, open_data, run_folder
from project.inference.features import Strongest, choose_layer, draw_features, explain_place, feature_layers, recorded
from project.inference.image_errors import Row
from project.inference.tiles import choose_device
from project.networks.normalize import input_normalization
from workbench.checkpoint import read_checkpoint
from workbench.console import silence_warnings
from workbench.errors import UserError
from workbench.parser import read_options, split_data_args

WORST = 16  # images with the largest errors that are drawn
MAX_FILTERS = 256


class Subject(NamedTuple):
    """What is inspected: a model in evaluation mode, its network, and a split of its images."""

    model: LightningModule
    network: nn.Module
    data: ImageDataModule
    split: str
    device: torch.device

    def batch(self, raw: RawBatch) -> Batch:
        """What the model sees of a loader's batch, on the device."""
        return self.data.make_batch(self.data.transfer_batch_to_device(raw, self.device, 0))

    def image(self, number: int) -> Batch:
        """One image of the split."""
        return self.batch(self.data.dataset(self.split)[number])

    def view(self, batch: Batch) -> Tensor:
        """The inputs for a person, (B, 1 or 3, H, W) in [0, 1]: with hints, where they are in place."""
        views = self.data.pairs.preview(batch).values()
        fitting = [view for view in views if view.shape[-2:] == batch.target.shape[-2:]]
        return (fitting[-1] if fitting else batch.baseline).float().clamp(0, 1)


def main(argv: Sequence[str]) -> int:
    """Run the command: ``inspect`` and what follows it on the command line."""
    own, data_words = split_data_args(list(argv[1:]))
    description = "Look into a trained network: its first filters, what a layer responds to, and the images with the "
    parser = command_parser("inspect", description + "largest errors, with simple measures that go with the error.")
    add = parser.add_argument
    add("--output", type=str | None, default=None, help="folder for the results; default: inspect in the run's folder")
    add("--split", type=Literal["val", "test", "train"], default="val", help="which images of the run to look at")
    add("--layer", type=str | None, default=None, help="layer whose feature maps are shown, such as encoder.1")
    add("--maps", type=NonNegativeInt, default=8, help="feature maps to show, the most active ones; 0: none")
    add("--device", type=Literal["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    add("--data.KEY", type=str | None, default=None, help="any key of the run's data settings, such as --data.root")
    options = read_options(parser, own)
    if options.maps and importlib.util.find_spec("captum") is None:
        raise UserError(
            "What a feature map responds to is found by Captum, which is not installed.\n"
            "Install it: make setup, or pip install -e '.[inspect]'. Without these figures: --maps 0"
        )
    silence_warnings()
    device, checkpoint = choose_device(options.device), read_checkpoint(options.ckpt_path)
    name = "inspect" if options.split == "val" else f"inspect-{options.split}"
    folder = Path(options.output).expanduser() if options.output else run_folder(checkpoint) / name
    model = load_image_model(checkpoint, "inspect").to(device).requires_grad_(False)
    subject = Subject(model, main_network(model), open_data(checkpoint, data_words), options.split, device)
    subject.data.evaluation_dataloader(options.split)  # raises where there are no images
    layer, strongest = _choose(subject, options.layer) if options.maps else (None, None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be made: {error.strerror}.") from error
    written = []
    if filters := first_filters(subject.network, subject.image(0).input):
        written.append(folder / "filters.png")
        _draw_filters(*filters).savefig(written[-1])
    rows, worst = _analyze(subject, layer, strongest)
    if strongest is not None:
        written.append(folder / f"features_{layer}.png")
        _draw_features(subject, layer, strongest, options.maps).savefig(written[-1])
    written += [folder / "worst.png", folder / "worst.csv"]
    image_errors.draw_worst(worst).save(folder / "worst.png")
    image_errors.write_table(rows, folder / "worst.csv")
    mean = sum(row.psnr for row in rows) / len(rows)
    print(f"{len(rows)} {options.split} images: mean PSNR {mean:.2f} dB. {image_errors.describe_errors(rows)}")
    print(*written, sep="\n")
    print("To leave images out of a run, keep their rows of worst.csv: fit ... --data.exclude worst.csv")
    return 0


def _choose(subject: Subject, wanted: str | None) -> tuple[str, Strongest]:
    """The layer whose feature maps are shown, and what collects their strongest places."""
    layers = feature_layers(subject.network, subject.image(0).input.shape[1])
    layer = choose_layer(layers, wanted)
    maps, stride = layers[layer]
    print(f"Layer {layer}: {maps} feature maps, {stride} pixels from one unit to the next.")
    return layer, Strongest(stride)


def _analyze(
    subject: Subject, layer: str | None, strongest: Strongest | None
) -> tuple[list[Row], list[tuple[Row, list[Tensor]]]]:
    """Every image once through the model: all rows and the images with the largest errors, largest first."""
    rows = []
    worst = []
    names = [image.name for image in subject.data.images[subject.split]]
    with recorded({} if layer is None else {layer: subject.network.get_submodule(layer)}) as passes:
        for raw in track(subject.data.evaluation_dataloader(subject.split), "Images", transient=True):
            batch = subject.batch(raw)
            output, views, numbers = subject.model.restore(batch.input), subject.view(batch), batch.index.tolist()
            if strongest is not None:
                strongest.update(passes[0][2], numbers)
                passes.clear()
            for place, number in enumerate(numbers):
                images = [part[place].float().cpu() for part in (views, output, batch.target)]
                rows.append(image_errors.measure(names[number], *images[1:], batch.baseline[place].cpu()))
                worst.append((rows[-1], images))
            worst = sorted(worst, key=lambda entry: -entry[0].mse)[:WORST]
    return sorted(rows, key=lambda row: -row.mse), worst


def _draw_features(subject: Subject, layer: str, strongest: Strongest, maps: int) -> Figure:
    normalize = input_normalization(subject.network)
    baseline = torch.zeros(1, 1, 1, 1, device=subject.device) if normalize is None else normalize.mean
    places = strongest.places(maps)
    explained = {}
    for number, some in places.items():
        explained[number] = []
        for place in some:
            batch = subject.image(place.image)
            given = batch.input, subject.view(batch)[0].cpu(), baseline
            explained[number].append(explain_place(subject.network, layer, strongest.stride, number, place, *given))
    return draw_features(places, explained, f"{layer}: the {len(places)} most active feature maps ({subject.split})")


@torch.no_grad()
def first_filters(network: nn.Module, x: Tensor) -> tuple[str, Tensor] | None:
    """The first convolution that x (1, C, H, W) passes; None where there is none.

    Returns:
        Its name; and its weights (filters, C, h, w), each plane as it lies on a channel of x: pixels that were put into
        one place before it (pixel-unshuffle) are put back.
    """
    convolutions = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    with recorded(convolutions) as passes:
        network(x)
    if not passes:
        return None
    name, given, _ = passes[0]
    weights = convolutions[name].weight.detach().float().cpu()
    stem = math.isqrt(max(1, given.shape[1] // x.shape[1]))
    # Channel c*s*s + i*s + j of unshuffled pixels is row i and column j of each square of channel c.
    return name, F.pixel_shuffle(weights, stem) if weights.shape[1] == x.shape[1] * stem**2 else weights


def _draw_filters(layer: str, weights: Tensor) -> Figure:
    """Three channels as one grid in color, others in a grid each."""
    shown = weights[:MAX_FILTERS]
    images = 0.5 + 0.5 * shown / shown.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    grids = {"red, green, blue": images}
    if images.shape[1] != 3:
        grids = {f"input {number}": plane for number, plane in enumerate(images.split(1, dim=1))}
    columns = min(3, len(grids))
    rows = math.ceil(len(grids) / columns)
    figure = new_figure(4.5 * columns + 3, 4.5 * rows + 1)
    figure.suptitle(
        f"{layer}: {len(images)} of {len(weights)} filters, {weights.shape[2]} x {weights.shape[3]} pixels\n"
        "each on its own scale; gray is 0, more of a channel raises the output where it is bright"
    )
    for number, (name, planes) in enumerate(grids.items(), 1):
        axis = figure.add_subplot(rows, columns, number)
        tiles = make_grid(planes, nrow=math.ceil(math.sqrt(len(planes))), padding=1, pad_value=1)
        axis.imshow(tiles.permute(1, 2, 0).numpy())
        axis.set_title(name, fontsize=10)
        axis.axis("off")
    return figure
