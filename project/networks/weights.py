"""Weights from files, and how much of them fits a network."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from workbench.errors import UserError


def read_weights(path: str | Path, key: str) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a checkpoint that holds one under ``state_dict``; runs no code of the file.

    UserError, beginning with the configuration key, where it is missing, damaged or of another kind.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{key}: there is no file {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of any other kind fails anywhere: IndexError, EOFError, ...
        raise UserError(
            f"{key}: {path} cannot be read ({reason_of(error)}).\n"
            "It is damaged, of another kind, or holds more than weights, which is not read for safety."
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    state = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{key}: {path} holds no weights: neither a state dict nor a checkpoint with one.")
    return state


def reason_of(error: Exception) -> str:
    """The first sentence of its message: torch's next one advises to run what lies in a file."""
    return str(error).strip().partition("\n")[0].partition(". ")[0][:200] or type(error).__name__


def adapt_kernel(kernel: Tensor, channels: int) -> Tensor:
    """A kernel over colors (out, 3, height, width), for another number of input channels.

    Three or four channels are colors, the fourth a noise map. Otherwise the first is a gray image, which stands for
    three equal channels and gets the sum of their kernels. Channels that are no image start at zero.
    """
    adapted = kernel.new_zeros(kernel.shape[0], channels, *kernel.shape[2:])
    if channels in (3, 4):
        adapted[:, :3] = kernel
    else:
        adapted[:, :1] = kernel.sum(dim=1, keepdim=True)
    return adapted


def load_matching(network: nn.Module, path: str, *prefixes: str, required: bool = True) -> str:
    """Load every tensor of a checkpoint or state dict that has the same name and shape in the network, in place.

    Convolutions over the three colors of an image are adapted where the network takes other channels.

    Args:
        prefixes: What the module may have called the network, such as ``generator.``; the first that is there counts.
        required: False: a checkpoint without any of the prefixes is left alone, and no kernel is adapted.

    Returns:
        What was loaded and what was not, in a few lines, also printed; empty where nothing was to be loaded.
    """
    state = read_weights(path, "model.init_from")
    inside = ({n.removeprefix(p): v for n, v in state.items() if n.startswith(p)} for p in prefixes)
    state = next(filter(None, inside), state if required else {})
    if not state:
        return ""
    own, parameters = network.state_dict(), dict(network.named_parameters())
    fits, adapted = {}, []
    for name, value in state.items():
        shape = own[name].shape if name in own else None
        if required and name in parameters and value.shape != shape and value.ndim == 4 and value.shape[1] == 3:
            value = adapt_kernel(value, getattr(network, "in_channels", 3))
            adapted += [name] * (value.shape == shape)
        if value.shape == shape:
            fits[name] = value
    count = len(parameters.keys() & fits.keys())
    if required and not count:
        raise UserError(
            f"model.init_from: nothing in {path} fits: no parameter has the same name and shape.\n"
            "Build the network that it was trained with: see config.yaml in its run's folder."
        )
    network.load_state_dict(fits, strict=False)
    report = f"init_from {path}, {type(network).__name__}: {count} of {len(parameters)} parameters loaded."
    for what, names in (
        ("adapted to the input's channels", adapted),
        ("missing there or of another shape, left as initialized", [name for name in parameters if name not in fits]),
        ("only there, not used", [name for name in state if name not in own]),
    ):
        report += f"\n  {len(names)} {what}: {listed(names)}" if names else ""
    rank_zero_only(print)(report)
    return report


def listed(names: list[str]) -> str:
    """The first names, and whether there are more."""
    return ", ".join(names[:4]) + ", ..." * (len(names) > 4)
