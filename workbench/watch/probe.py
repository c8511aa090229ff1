"""A fixed set of validation images that a model is shown now and then, to look at its inside and its answers."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from project.data.batch import Batch
from workbench.findings import Activation
from workbench.random_states import get_rng_state, set_rng_state
from workbench.watch.recorder import Recorder, recorder_of, steps_done
from workbench.watch.taps import Seen, listening

KEY = "probe"
"""Where a checkpoint holds it."""
PICTURES = 16
"""At most so many; of large ones fewer, so that a look costs no more than a step or two."""
PIXELS = 16 * 64 * 64
FEWEST = 4
EARLY = (0, 20, 50, 100, 200, 500, 1000)
"""Steps at which to look before the first validation; until then a training batch stands in for its images."""


class Reader(Protocol):
    """Who wants to hear what happens in a look at the probe; all methods are called without gradients."""

    def hear(self, seen: Seen) -> None:
        """A non-linearity at work; the tensors are gone afterwards."""

    def finish(self, trainer: Trainer, model: LightningModule, probe: Probe, output: Tensor) -> None:
        """The whole pass is over; called on every process."""


class Probe:
    """The images, and who listens. One for all monitors of a run, so that one forward pass serves them all."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.readers: list[Reader] = []
        self.validation: Any = None
        self.settled = False
        """Whether the first validation is over; of a resumed run it may be so before the images are there again."""
        self.training: Any = None
        self._tiles: list[list[Batch]] = []
        self._collected = False
        self.looked_at = -1
        self.answers: dict[str, Any] = {}
        """During a look, what each network of the model gave in it, by its name."""
        self.step = 0
        self.broken = False

    @property
    def batch(self) -> Any:
        """The images: of the validation split where they are known, else those of the first training batch."""
        return self.training if self.validation is None else self.validation

    @property
    def unseen(self) -> bool:
        """Whether the images are ones that the model does not train on."""
        return self.validation is not None

    # Collecting

    def take_training(self, batch: Any) -> None:
        """Keep the first training batch: its size is one that the model is made for."""
        if self.training is None:
            self.training = _first(batch, self.count(batch.input.shape[-2:]) if isinstance(batch, Batch) else PICTURES)

    def collect(self, batch: Any) -> None:
        """Take of each image of a validation batch the middle, and keep some corners in case there are few."""
        if self._collected or not isinstance(batch, Batch) or not isinstance(self.training, Batch):
            return
        size = self.training.input.shape[-2:]
        for number in range(len(batch.input)):
            if len(self._tiles) >= self.count(size):
                return
            tiles = _tiles(_one(batch, number), size)
            if tiles:
                self._tiles.append(tiles)

    def settle(self) -> None:
        """After a validation: from the first one on these are the images."""
        if self._tiles and not self._collected:
            corners = [tile for tiles in self._tiles for tile in tiles[1:]]
            chosen = [tiles[0] for tiles in self._tiles] + corners
            self.validation = _join(chosen[: self.count(self.training.input.shape[-2:])])
        self._tiles, self.settled, self._collected = [], True, True

    def count(self, size: tuple[int, int]) -> int:
        """How many images of that size to look at."""
        return max(FEWEST, min(PICTURES, PIXELS // (size[0] * size[1])))

    # Stopping and going on

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run cannot find again: images of the first batch. Those of the validation come again."""
        pictures = self.training._asdict() if isinstance(self.training, Batch) else None
        return {"settled": self.settled, "looked_at": self.looked_at, "pictures": pictures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the images of the first batch."""
        self.settled, self.looked_at = state["settled"], state["looked_at"]
        self.training = None if state["pictures"] is None else Batch(**state["pictures"])

    def move(self, device: torch.device) -> None:
        """Bring what was loaded to the device, which is not known at once."""
        if isinstance(self.training, Batch):
            self.training = Batch(*(part if part is None else part.to(device) for part in self.training))

    # ProbeMonitor

    def look(self, trainer: Trainer, model: LightningModule) -> None:
        """One forward pass in eval mode, unless there was one at this step; every process has to call it.

        What the model computes with, and the random numbers that follow, are the same afterwards.
        """
        self.step = steps_done(trainer)
        if self.looked_at == self.step or self.broken or not self._everyone_has_pictures(trainer, model):
            return
        self.looked_at = self.step
        facts = self.recorder.history.facts
        places: dict[str, tuple[Seen, int]] = {}
        order: list[str] = []

        def hear(seen: Seen) -> None:
            places[seen.name] = seen._replace(before=None, after=None), seen.before.shape[seen.dim]
            for reader in self.readers:
                reader.hear(seen)

        try:
            with _looking(trainer, model), _eager(), listening(model, hear, order, self.answers):
                output = model(_input(self.batch))
            if not facts.activations:
                facts.activations = _describe(places)
                facts.parameters = _in_order(facts.parameters, order)
            with _looking(trainer, model):
                for reader in self.readers:
                    reader.finish(trainer, model, self, output)
        except Exception as error:  # a look must never end a run
            self.broken = True
            warnings.warn(f"The monitors cannot look into this model, and go without: {error!r}", stacklevel=2)
        finally:
            self.answers = {}

    def _everyone_has_pictures(self, trainer: Trainer, model: LightningModule) -> bool:
        """A split smaller than the number of processes leaves some without; then nobody looks at it."""
        have = torch.tensor(float(self.batch is not None), device=model.device)
        return bool(trainer.strategy.reduce(have, reduce_op="min") > 0) if trainer.world_size > 1 else bool(have)


_PROBES: WeakKeyDictionary[Trainer, Probe] = WeakKeyDictionary()


def probe_of(trainer: Trainer, model: LightningModule) -> Probe:
    """The one probe that all monitors of a run share."""
    recorder, probe = recorder_of(trainer, model), _PROBES.get(trainer)
    if probe is None or probe.recorder is not recorder:
        probe = _PROBES[trainer] = Probe(recorder)
    return probe


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within this context the model is in eval mode; afterwards its modes and all random numbers are as before."""
    modes = [(module, module.training) for module in model.modules()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    states = get_rng_state(device)
    model.eval()
    try:
        yield
    finally:
        set_rng_state(states, device)
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _looking(trainer: Trainer, model: nn.Module) -> Iterator[None]:
    with untouched(model), torch.no_grad(), trainer.precision_plugin.forward_context():
        yield


def _eager() -> contextlib.AbstractContextManager[Any]:
    """What a user has compiled runs uncompiled; importing dynamo only to say so would take a second."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


def _describe(places: dict[str, tuple[Seen, int]]) -> dict[str, Activation]:
    last = {name.split(".")[0]: name for name in places}
    return {
        name: Activation(seen.kind, channels, seen.normed, seen.trained, name.split(".")[0], name in last.values())
        for name, (seen, channels) in places.items()
    }


def _in_order(parameters: dict[str, Any], order: list[str]) -> dict[str, Any]:
    """Tensors of what the pass went through in its order; all others where they were."""
    known = {name: order.index(name.rpartition(".")[0]) for name in parameters if name.rpartition(".")[0] in order}
    ordered = iter(sorted(known, key=known.__getitem__))
    names = [next(ordered) if name in known else name for name in parameters]
    return {name: parameters[name] for name in names}


def _input(batch: Any) -> Any:
    if isinstance(batch, Batch):
        return batch.input
    if isinstance(batch, dict):
        return next(iter(batch.values()))
    return batch[0] if isinstance(batch, list | tuple) else batch


def _first(batch: Any, count: int) -> Any:
    if isinstance(batch, Tensor):
        return batch.detach()[:count].clone()
    if isinstance(batch, dict):
        return {key: _first(value, count) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_first(value, count) for value in batch))
    return type(batch)(_first(value, count) for value in batch) if isinstance(batch, list | tuple) else batch


def _one(batch: Batch, number: int) -> Batch:
    return Batch(*(None if part is None else part.detach()[number : number + 1] for part in batch))


def _tiles(picture: Batch, size: tuple[int, int]) -> list[Batch]:
    """The middle, then the corners that do not overlap it by much; none where the image is smaller."""
    height, width = picture.input.shape[-2:]
    if height < size[0] or width < size[1] or picture.target.shape[-2:] != picture.input.shape[-2:]:
        return []
    corners = [((height - size[0]) // 2, (width - size[1]) // 2)]
    if height >= 2 * size[0] and width >= 2 * size[1]:
        corners += [(0, 0), (0, width - size[1]), (height - size[0], 0), (height - size[0], width - size[1])]
    return [_cut(picture, top, left, size) for top, left in corners]


def _cut(picture: Batch, top: int, left: int, size: tuple[int, int]) -> Batch:
    def cut(part: Tensor | None) -> Tensor | None:
        if part is None or part.ndim < 4:
            return part
        return part[..., top : top + size[0], left : left + size[1]].clone()

    return Batch(*(cut(part) for part in picture))


def _join(parts: list[Batch]) -> Batch:
    return Batch(*(None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True)))
