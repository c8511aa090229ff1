"""Weights from files and downloads, and how much of them fits a network."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from workbench.errors import UserError

T = TypeVar("T")


def read_weights(path: str | Path, key: str) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a checkpoint that holds one under ``state_dict``; runs no code of the file.

    Raises:
        UserError: It is missing, damaged, of another kind or holds no weights; names the configuration key.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{key}: there is no file {path}.")
    try:
        if path.suffix.lower() == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise UserError(f"{key}: {path} needs a package that is missing: pip install '.[timm]'") from error
    except pickle.UnpicklingError as error:  # torch's own message advises to run what lies in it
        reason = "is not a file of torch.save, or holds more than weights, which is not read for safety"
        raise UserError(f"{key}: {path} {reason}.") from error
    except Exception as error:  # a file of any other kind fails anywhere: IndexError, EOFError, ...
        raise UserError(f"{key}: {path} cannot be read: it is damaged or cut short ({_reason(error)}).") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    state = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{key}: {path} holds no weights: neither a state dict nor a checkpoint with one.")
    return state


def download(what: str, make: Callable[[], T], url: str, way_out: str, cached: bool = True) -> T:
    """Call ``make``, which downloads weights or finds them in torch.hub's cache, and explain a failure."""
    try:
        return make()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # the clients' are OSErrors
        cache = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        place = f"\nand put it at {cache},\n" if cached else " "
        raise UserError(
            f"{what}: its weights cannot be downloaded: {_reason(error)}\n"
            f"Download {url} on a machine with a network{place}{way_out}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def adapt_kernel(kernel: Tensor, channels: int) -> Tensor:
    """A kernel over colors (out, 3, height, width), for another number of input channels.

    Three or four channels are colors, the fourth a noise map. Otherwise the first is a gray image, the others hints:
    three equal channels would give the same as a gray image, so it gets the sum of the three kernels. Channels that
    are no image start at zero.
    """
    adapted = kernel.new_zeros(kernel.shape[0], channels, *kernel.shape[2:])
    if channels in (3, 4):
        adapted[:, :3] = kernel
    else:
        adapted[:, :1] = kernel.sum(dim=1, keepdim=True)
    return adapted


def load_matching(network: nn.Module, path: str, *prefixes: str, required: bool = True) -> str:
    """Load every tensor of a checkpoint that has the same name and shape in the network; leave the others as they are.

    Convolutions over the three colors of an image are adapted where the network takes other channels.

    Args:
        network: Filled in place, its normalization included.
        path: A checkpoint of a Lightning module, or a plain state dict.
        prefixes: What the module may have called the network, such as ``generator.``; the first that is there counts.
        required: False: a checkpoint without any of the prefixes is left alone, and no kernel is adapted.

    Returns:
        What was loaded and what was not, in a few lines, also printed; empty where nothing was to be loaded.
    """
    loaded = read_weights(path, "model.init_from")
    inside = ({n.removeprefix(p): v for n, v in loaded.items() if n.startswith(p)} for p in prefixes)
    loaded = next(filter(None, inside), loaded if required else {})
    if not loaded:
        return ""
    own, parameters = network.state_dict(), dict(network.named_parameters())
    channels = getattr(network, "in_channels", 3) if required else 3
    adapted = []
    for name, value in loaded.items() if channels != 3 else ():
        if name in parameters and value.ndim == 4 and value.shape[1] == 3:
            kernel = adapt_kernel(value, channels)
            if kernel.shape == parameters[name].shape:
                loaded[name] = kernel
                adapted.append(name)
    taken = {name: value for name, value in loaded.items() if name in own and own[name].shape == value.shape}
    other_shape = [name for name in loaded if name in own and name not in taken]
    count = len(parameters.keys() & taken.keys())
    if required and not count:
        example = f"; {other_shape[0]} has another shape there" if other_shape else ""
        raise UserError(
            f"model.init_from: nothing in {path} fits: no parameter has the same name and shape{example}.\n"
            "Build the network that it was trained with (config.yaml in the run's folder), or leave init_from out."
        )
    network.load_state_dict(taken, strict=False)
    report = f"init_from {path}, {type(network).__name__}: {count} of {len(parameters)} parameters loaded."
    for what, names in (
        ("loaded, adapted to the input's channels", adapted),
        ("of another shape, not loaded", other_shape),
        ("not in the checkpoint, left as initialized", [name for name in parameters if name not in loaded]),
        ("only in the checkpoint, not used", [name for name in loaded if name not in own]),
    ):
        if names:
            report += f"\n  {len(names)} {what}: {listed(names)}"
    rank_zero_only(print)(report)
    return report


def listed(names: list[str]) -> str:
    """The first names, and whether there are more."""
    return ", ".join(names[:4]) + ", ..." * (len(names) > 4)
