"""``python -m project inspect``: look into a trained network, and at the images that it fails on.

    python -m project inspect --ckpt_path runs/denoise/latest/checkpoints/best.ckpt
    python -m project inspect ... --layer encoder.1 --maps 12     # other feature maps
    python -m project inspect ... --split train                   # images to leave out of the training
    python -m project inspect ... --data.root photos              # other images than the run's

Everything goes into ``inspect/`` in the run's folder (``inspect-train/``, ``inspect-test/`` for another split):
``filters.png``, ``features_LAYER.png``, ``worst.png`` and ``worst.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from project.inference.inspection.options import parse
from workbench.errors import UserError

if TYPE_CHECKING:  # torch takes seconds, which `--help` and a typing error need not wait for
    import torch
    from jsonargparse import Namespace
    from lightning.pytorch import LightningModule
    from PIL import Image
    from torch import Tensor, nn

    from project.data import ImageDataModule
    from project.data.batch import Batch
    from project.inference.inspection.features import Shown, Strongest
    from project.inference.inspection.receptive import ReceptiveField
    from project.inference.inspection.worst import Analysis


class Subject(NamedTuple):
    """What is looked into.

    Attributes:
        model: In evaluation mode, on the device.
        network: The part of it that answers images.
        data: Its images.
        split: Those of them that are looked at.
        device: Where to compute.
    """

    model: LightningModule
    network: nn.Module
    data: ImageDataModule
    split: str
    device: torch.device

    def pair(self, number: int) -> Batch:
        """One image of the split as the model sees it, on the device."""
        raw = self.data.dataset(self.split)[number]
        return self.data.make_batch(type(raw)(*(part if part is None else part.to(self.device) for part in raw)))


class Look(NamedTuple):
    """A layer to look at, and what is found.

    Attributes:
        layer: Its name.
        field: What its units see.
        found: Where they answer most.
    """

    layer: str
    field: ReceptiveField
    found: Strongest


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: ``inspect`` and what follows it on the command line.

    Returns:
        The exit code, 0.

    Raises:
        UserError: Wrong options, no usable checkpoint or device, no images, no such layer.
    """
    options, words = parse(list(argv[1:]))
    if options.maps:
        from project.inference.inspection.explain import check_captum

        check_captum()
    output = _place(options)
    subject = _open(options, words)
    look = _choose(subject, options.layer) if options.maps else None
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be made: {error.strerror}.") from error
    written = _save(_filters(subject), output)
    analysis = _pass(subject, look)
    if look is not None:
        written |= _save(_features(subject, look, options.maps), output)
    written |= _save({"worst.png": analysis.draw(options.split)}, output)
    analysis.write(output / "worst.csv")
    _tell(analysis, options.split, {**written, "worst.csv": output / "worst.csv"})
    return 0


def _place(options: Namespace) -> Path:
    """The folder for the results."""
    if options.output is not None:
        return Path(options.output).expanduser()
    checkpoint = Path(options.ckpt_path).expanduser()
    run = checkpoint.parent.parent
    if checkpoint.is_file() and not (run / "config.yaml").is_file():
        raise UserError(
            f"{checkpoint} does not lie in a run's folder (runs/NAME/VERSION/checkpoints/).\n"
            "Say where the results go: --output FOLDER"
        )
    return run / ("inspect" if options.split == "val" else f"inspect-{options.split}")


def _open(options: Namespace, words: list[str]) -> Subject:
    from project.inference.inspection.data import open_data
    from project.inference.inspection.layers import answering_network
    from project.inference.prediction.tiled import choose_device
    from workbench.checkpoint import load_model, read_checkpoint
    from workbench.console import silence_warnings

    silence_warnings()
    device = choose_device(options.device)
    checkpoint = read_checkpoint(options.ckpt_path)
    model = load_model(checkpoint).to(device)
    if not hasattr(model, "restore"):
        raise UserError(
            f"inspect is for models that answer images with images, and {type(model).__name__} has no restore().\n"
            "Inherit from project.models.base.ImageToImageModule."
        )
    data = open_data(checkpoint, words)
    data.evaluation_dataloader(options.split)  # says so where there are no images
    return Subject(model, answering_network(model), data, options.split, device)


def _choose(subject: Subject, wanted: str | None) -> Look:
    """The layer that is asked for, or one whose units see a good part of an image, but not all of it."""
    from project.inference.inspection.features import Strongest
    from project.inference.inspection.layers import choose_layer, feature_layers, stages
    from project.inference.inspection.receptive import measure

    x = subject.pair(0).input
    layers = feature_layers(subject.network, x)
    if not layers:
        raise UserError("The network gives no feature maps that could be shown. Leave them out: --maps 0")
    names = [choose_layer(wanted, layers)] if wanted else list(reversed(stages(subject.network, layers)))
    store = subject.data.dataset(subject.split).store
    sides = sorted(min(store.height(n), store.width(n)) for n in range(len(store)))
    longest = max(max(store.height(n), store.width(n)) for n in range(len(store)))
    for name in names:
        field = measure(subject.network, name, x.shape[1], longest)
        if max(field.size) <= sides[len(sides) // 2] / 2:
            break
    print(f"Layer {name}: {layers[name].maps} feature maps; a unit sees {field.size[0]} x {field.size[1]} pixels.")
    if not wanted:
        print(f"Others (--layer): {', '.join(other for other in reversed(names) if other != name)}, ...")
    return Look(name, field, Strongest(field))


def _filters(subject: Subject) -> dict[str, Image.Image]:
    """The first filters of the network that answers, and of the one that judges it where there is one."""
    import torch

    from project.inference.inspection.filters import draw_filters, first_filters

    pair = subject.pair(0)
    given = {"filters.png": (subject.network, pair.input)}
    judge = getattr(subject.model, "discriminator", None)
    if judge is not None and hasattr(subject.model, "space"):
        colors = subject.model.space.encode(pair.target)
        given["filters_discriminator.png"] = (judge, torch.cat([pair.input, colors], dim=1))
    drawn = {}
    for name, (network, x) in given.items():
        found = first_filters(network, x)
        if found is not None:
            drawn[name] = draw_filters(found, _channel_names(subject, x.shape[1], pair))
    return drawn


def _channel_names(subject: Subject, channels: int, pair: Batch) -> list[str]:
    """What the channels of an input are called; behind the network's own come those of the answer."""
    from project.data.pairs import Coloring

    own = pair.input.shape[1]
    if isinstance(subject.data.pairs, Coloring):
        names = ["condition", *(f"hints, plane {number}" for number in range(1, own))]
    else:
        pixels = min(own, pair.target.shape[1])
        names = ["red", "green", "blue"] if pixels == 3 else ["gray"] * pixels
        names += [f"further channel {number}" for number in range(1, own - pixels + 1)]
    if channels == own:
        return names
    answer = ["red", "green", "blue"] if channels - own == 3 else ["a (green to red)", "b (blue to yellow)"]
    return [*names, *(f"answer: {name}" for name in answer)]


def _pass(subject: Subject, look: Look | None) -> Analysis:
    """Every image once through the model: its error, and where the layer answers."""
    from contextlib import nullcontext

    from rich.progress import track

    from project.inference.inspection.layers import listening
    from project.inference.inspection.worst import Analysis

    analysis, names = Analysis(), [picture.name for picture in subject.data.images[subject.split]]
    loader = subject.data.evaluation_dataloader(subject.split)
    with listening(subject.network, look.layer) if look else nullcontext([]) as heard:
        for pair in track(_pairs(subject, loader), "Pictures", total=len(loader), transient=True):
            output = subject.model.restore(pair.input)
            numbers = pair.index.tolist()
            if look:
                look.found.update(heard[0], numbers)
            views = _view(subject, pair)
            for place, number in enumerate(numbers):
                parts = (part[place] for part in (views, output, pair.target, pair.baseline))
                analysis.add(names[number], *parts)
    return analysis


def _pairs(subject: Subject, loader: object) -> Iterator[Batch]:
    for raw in loader:
        batch = type(raw)(*(part if part is None else part.to(subject.device) for part in raw))
        yield subject.data.on_after_batch_transfer(batch, 0)


def _view(subject: Subject, pair: Batch) -> Tensor:
    """The input of each image for a person, (B, 1 or 3, H, W) in [0, 1]: with its hints, where they are in place."""
    views = subject.data.pairs.views(pair)
    fitting = [view for view in views.values() if view.shape[-2:] == pair.target.shape[-2:]]
    return (fitting[-1] if fitting else pair.baseline).float().clamp(0, 1)


def _features(subject: Subject, look: Look, maps: int) -> dict[str, Image.Image]:
    from functools import lru_cache

    import torch

    from project.inference.inspection.features import Shown, draw_features
    from project.inference.inspection.layers import UpTo
    from project.networks.normalize import input_normalization

    @lru_cache(maxsize=16)
    def get(number: int) -> Shown:
        pair = subject.pair(number)
        return Shown(pair.input, _view(subject, pair)[0].cpu())

    finds = look.found.finds(maps)
    if still := look.found.same_everywhere:
        print(f"{still} feature maps of {look.layer} are the same at every place of every image: dead, most likely.")
    if not finds:
        return {}
    normalize = input_normalization(subject.network)
    nothing = (
        torch.zeros(1, get(0).input.shape[1], 1, 1, device=subject.device) if normalize is None else normalize.mean
    )
    subject.network.requires_grad_(False)
    title = f"{look.layer}: the {len(finds)} feature maps that answer the strongest ({subject.split})"
    features = UpTo(subject.network, look.layer)
    sheet = draw_features(finds, look.field, features, nothing, get, title)
    return {f"features_{look.layer}.png": sheet}


def _save(pictures: dict[str, Image.Image], folder: Path) -> dict[str, Path]:
    for name, image in pictures.items():
        image.save(folder / name)
    return {name: folder / name for name in pictures}


def _tell(analysis: Analysis, split: str, written: dict[str, Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    from project.inference.inspection.measures import MEASURES, in_words, rank_correlations

    rows = analysis.rows
    found = rank_correlations(
        [row.mse for row in rows], {name: [row.measures[name] for row in rows] for name in MEASURES}
    )
    table = Table(title=f"What goes with the error ({len(rows)} {split} images)", title_justify="left")
    table.add_column("measure")
    table.add_column("rank correlation", justify="right")
    for name, rho in found.items():
        table.add_row(name.replace("_", " "), f"{rho:+.2f}" if rho == rho else "the same for all")
    console = Console(soft_wrap=True)
    console.print(table)
    print(in_words(found, len(rows)))
    mean = sum(row.psnr for row in rows) / len(rows)
    print(f"Mean PSNR {mean:.2f} dB; the worst: " + ", ".join(f"{row.file} ({row.psnr:.2f} dB)" for row in rows[:3]))
    for path in written.values():
        print(path)
    print("To leave images out of a run, keep their rows of worst.csv: fit ... --data.exclude worst.csv")
