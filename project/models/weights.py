"""Start from another run's weights, and say what was taken."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from project.networks.pretrained import adapt_kernel
from workbench.errors import UserError

PREFIXES = ("network.", "generator.")
"""What the models here call the network that answers."""


def load_matching(network: nn.Module, path: str) -> str:
    """Take every tensor of a checkpoint that has the same name and shape in the network; leave the others as they are.

    Convolutions over the three colors of an image are adapted where the network takes other channels.

    Args:
        network: Filled in place, its normalization included.
        path: A checkpoint of a Lightning module whose network is called ``network`` or ``generator``, or a network's
            plain state_dict.

    Returns:
        What was taken and what was not, in a few lines; also printed.

    Raises:
        UserError: When the file is missing or no checkpoint, or when no parameter of it fits.
    """
    there = _read(path)
    there = next(filter(None, (_below(prefix, there) for prefix in PREFIXES)), there)
    there, adapted = _adapted(network, there)
    taken, other_shape = _matching(network, there)
    parameters = {name for name, _ in network.named_parameters()}
    if not parameters & taken.keys():
        example = f"; {other_shape[0]} has another shape there" if other_shape else ""
        raise UserError(
            f"model.init_from: nothing in {path} fits this network: of its {len(parameters)} parameters none is there "
            f"under the same name and shape{example}.\n"
            "Build the network that the checkpoint was trained with (its config.yaml lies in the run's folder), "
            "or leave init_from out."
        )
    network.load_state_dict(taken, strict=False)
    return _tell(f"init_from {path}", network, there, taken, other_shape, adapted)


def load_adversary(discriminator: nn.Module, path: str) -> str:
    """Take what a checkpoint of a GAN holds of its discriminator, as :func:`load_matching` does; nothing is no fault.

    Args:
        discriminator: Filled in place.
        path: A checkpoint; one without any ``discriminator.`` is left alone.

    Returns:
        What was taken and what was not, in a few lines; also printed. Empty where there is no discriminator.
    """
    there = _below("discriminator.", _read(path))
    if not there:
        return ""
    taken, other_shape = _matching(discriminator, there)
    discriminator.load_state_dict(taken, strict=False)
    return _tell(f"init_from {path}, discriminator", discriminator, there, taken, other_shape)


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _matching(network: nn.Module, there: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that fit, and the names of those that have another shape."""
    here = network.state_dict()
    taken = {name: value for name, value in there.items() if name in here and here[name].shape == value.shape}
    return taken, [name for name in there if name in here and name not in taken]


def _adapted(network: nn.Module, there: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The checkpoint's tensors, kernels over colors made to fit the network's input; and the names of those."""
    here, channels = dict(network.named_parameters()), getattr(network, "in_channels", 3)
    names = [
        name
        for name, value in there.items()
        if name in here
        and channels != 3
        and value.ndim == here[name].ndim == 4
        and value.shape[:2] == (here[name].shape[0], 3)
        and here[name].shape[1:] == (channels, *value.shape[2:])
    ]
    return {**there, **{name: adapt_kernel(there[name], channels) for name in names}}, names


def _tell(
    start: str,
    network: nn.Module,
    there: dict[str, Tensor],
    taken: dict[str, Tensor],
    other_shape: list[str],
    adapted: Sequence[str] = (),
) -> str:
    here = network.state_dict()
    parameters = {name for name, _ in network.named_parameters()}
    report = f"{start}: {len(parameters & taken.keys())} of {len(parameters)} parameters taken."
    for what, names in (
        ("taken, adapted to the input's channels", adapted),
        ("of another shape, not taken", other_shape),
        ("not in the checkpoint, left as drawn", sorted(parameters - there.keys())),
        ("only in the checkpoint, not used", [name for name in there if name not in here]),
    ):
        if names:
            report += f"\n  {len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
    rank_zero_only(print)(report)
    return report


def _read(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise UserError(f"model.init_from: there is no file {path}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to run what lies in it
        raise UserError(
            f"model.init_from: {path} is not a checkpoint, or holds more than weights and plain values, which is not "
            "read for safety.\nGive a checkpoint of `fit`, or a file of torch.save(model.state_dict(), FILE)."
        ) from error
    except Exception as error:  # a damaged file makes the reader stumble anywhere
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise UserError(
            f"model.init_from: {path} cannot be read as a checkpoint: it is damaged, cut short or something else "
            f"({reason}).\nGive another one, such as best.ckpt in the same folder."
        ) from error
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
