"""A file of weights, and what is told where it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import UserError

ENDINGS = (".pt", ".pth", ".ckpt", ".safetensors")


def is_file(weights: str) -> bool:
    """Whether that names a file, and not an entry or none."""
    return any(mark in weights for mark in ("/", "\\")) or Path(weights).suffix.lower() in ENDINGS


def load_file(network: nn.Module, path: Path, name: str, source: str) -> None:
    """Take a network's weights from a file; those of its classifier need not fit.

    Args:
        network: Changed in place.
        path: A state dict, or a checkpoint that holds one under ``state_dict``.
        name: Of the network, for messages.
        source: Whose network it is, for messages.

    Raises:
        UserError: The file cannot be read, or does not fit; tells what is missing and what is too much.
    """
    state = _read(path)
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state and not _is_classifier(network, key)]
    surplus = [key for key in state if key not in wanted]
    shapes = [key for key, value in state.items() if key in wanted and value.shape != wanted[key].shape]
    unfit = [key for key in shapes if not _is_classifier(network, key)]
    if missing or surplus or unfit:
        lists = (("missing", missing), ("surplus", surplus), ("of another shape", unfit))
        told = "".join(
            f"\n  {len(keys)} {what}: {', '.join(keys[:4])}{' ...' * (len(keys) > 4)}" for what, keys in lists if keys
        )
        raise UserError(
            f"weights: {path} does not fit {name}:{told}\n"
            f"Give a state dict of {source}'s {name}, or the backbone that the file belongs to."
        )
    network.load_state_dict({key: value for key, value in state.items() if key not in shapes}, strict=False)


def _is_classifier(network: nn.Module, key: str) -> bool:
    """Whether a weight belongs to the last linear layer, which is cut off: its number of classes does not matter."""
    last = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    return bool(last) and key.startswith(f"{last[-1]}.")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"weights: there is no file {path}.\nweights: DEFAULT downloads, weights: none starts at random."
        )
    try:
        if path.suffix.lower() == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise UserError(f"weights: {path} needs a package that is not there: pip install '.[timm]'") from error
    except Exception as error:  # the reader of a file of another kind stumbles anywhere: IndexError, EOFError, ...
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0][:200]
        if reason.startswith("Weights only load failed"):  # torch goes on with how to run what lies in it all the same
            reason = "it is no file of torch.save, or holds more than weights and plain values"
        raise UserError(f"weights: {path} cannot be read as a state dict: {reason}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights: {path} holds no state dict.")
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}
