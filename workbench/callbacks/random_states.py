"""The random generators: each process its own numbers, and a resumed run the ones that were due."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class RandomStates(Callback):
    """Keeps the states of all random generators of all processes in each checkpoint, and takes them up again.

    Order and augmentation of the images need none of it: they follow from the seed and the place in the epoch. Noise,
    dropout and whatever else is drawn on the device does.

    The state of a checkpoint is that of the last moment from which on only the next batch was fetched, since a batch
    draws its noise on the way to the device. It must come last of the callbacks (but for the checkpoints), so that the
    others have drawn what they draw.
    """

    def __init__(self) -> None:
        self._now: dict[str, Any] = {}
        self._loaded: list[dict[str, Any]] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the states of the checkpoint; without one, part the generators of the processes.

        Lightning gives the same seed to all: their noise would be the same.
        """
        device, rank = trainer.strategy.root_device, trainer.global_rank
        if self._loaded is not None and len(self._loaded) == trainer.world_size:
            restore(self._loaded[rank], device)
        elif rank > 0 or self._loaded is not None:
            part(rank, trainer.global_step)
        if self._loaded is not None and len(self._loaded) != trainer.world_size and trainer.is_global_zero:
            print(
                f"The checkpoint is of {len(self._loaded)} processes, and now there are {trainer.world_size}: "
                "training goes on, but not with the very same numbers."
            )
        self._loaded = None
        self._now = capture(device)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Note the states."""
        self._now = capture(trainer.strategy.root_device)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the states."""
        self._now = capture(trainer.strategy.root_device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the states."""
        self._now = capture(trainer.strategy.root_device)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put all processes' states into the checkpoint (all of them come here, though only the first one writes)."""
        mine = self._now or capture(trainer.strategy.root_device)
        states = [mine] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, mine)
        checkpoint["random_states"] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the states until training starts: model and loaders draw numbers while they are made."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._loaded = checkpoint.get("random_states")


def capture(device: torch.device) -> dict[str, Any]:
    """The states of Python's, NumPy's, torch's and the device's generators.

    Args:
        device: Where training runs; the CPU's generator is always included.

    Returns:
        Tensors and numbers, which any reader of checkpoints may load.
    """
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 what others draw from
    states: dict[str, Any] = {
        "python": {"version": version, "words": torch.from_numpy(np.array(words, dtype=np.int64)), "gauss": gauss},
        "numpy": {
            "keys": torch.from_numpy(keys.astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state()
    return states


def restore(states: dict[str, Any], device: torch.device) -> None:
    """Set the generators to what `capture` has found; of another kind of device, its own generator stays as it is."""
    python, numpy = states["python"], states["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if device.type != "cpu" and "device" in states:
        torch.get_device_module(device).set_rng_state(states["device"].cpu())


def part(rank: int, step: int) -> None:
    """Seed all generators with a number of this process's own, which follows from the seed that all processes share.

    Args:
        rank: The process's number.
        step: Where training stands, so that a run that goes on with other processes does not start over.
    """
    text = f"{torch.initial_seed()}:{rank}:{step}"
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
