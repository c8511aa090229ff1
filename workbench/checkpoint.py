"""From a checkpoint to a model, with nothing else at hand: the run's configuration travels inside."""

from __future__ import annotations

import pickle
import re
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import LightningModule
from torch import Tensor

from workbench.errors import UserError
from workbench.pretrained import skip_pretrained_download


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds that outlives the training.

    Attributes:
        path: The file.
        config: The run's whole resolved configuration; ``config["model"]`` has ``class_path`` and ``init_args``.
        weights: The model's state dict, on the CPU (the averaged weights where the run averaged them).
        splits: Of train, val and test the number of ``images`` and their ``fingerprint``; empty where the data module
            is somebody's own.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running any code that may lie in it (``weights_only=True``).

    Raises:
        UserError: No such file, not a checkpoint, cut short, or written by something else than this project's ``fit``.
    """
    path = Path(path).expanduser()
    _check_is_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not a checkpoint, or holds more than weights and plain values, which is not read for safety.\n"
            "Give a checkpoint that this project's `fit` wrote: runs/NAME/latest/checkpoints/best.ckpt"
        ) from error
    except Exception as error:  # a file of any other kind makes the reader stumble anywhere: IndexError, EOFError, ...
        raise UserError(
            f"{path} cannot be read as a checkpoint: it is damaged, cut short or something else ({_one_line(error)}).\n"
            "Give another one, such as last.ckpt in the same folder."
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} holds no weights under 'state_dict'.\n{_WRITTEN_BY_FIT}")
    try:
        config = yaml.safe_load(content["config"])
        config["model"]["class_path"]
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{path} does not say which model it holds (its 'config').\n{_WRITTEN_BY_FIT}") from error
    data = next((value for key, value in content.items() if key.endswith("DataModule")), None)
    splits = data.get("splits", {}) if isinstance(data, dict) else {}
    return Checkpoint(path, config, content["state_dict"], splits)


def load_model(checkpoint: str | Path | Checkpoint) -> LightningModule:
    """Build the model that a checkpoint holds, with its weights, on the CPU and in evaluation mode.

    Args:
        checkpoint: A file, or what :func:`read_checkpoint` gave.

    Raises:
        UserError: As :func:`read_checkpoint`; or the model's class is gone, takes other arguments or has other weights.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = read_checkpoint(checkpoint)
    model = _build(checkpoint)
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        name = checkpoint.config["model"]["class_path"]
        raise UserError(
            f"{checkpoint.path}: its weights do not fit {name} as it is now:\n{_first_of(error)}\n"
            "The class has changed since; go back to the code that wrote the checkpoint, or train again."
        ) from error
    return model.eval()


def misfit(path: str | Path, error: RuntimeError) -> UserError:
    """What to tell when a checkpoint's weights do not fit the model of a configuration given beside it.

    Args:
        path: The checkpoint.
        error: What ``load_state_dict`` raised.
    """
    return UserError(
        f"{path}: its weights do not fit this configuration's model:\n{_first_of(error)}\n"
        "Leave the model as it was trained; without --config its own configuration is taken.\n"
        f"A new run from the weights that do fit: fit --model.init_args.init_from {path}"
    )


def _build(checkpoint: Checkpoint) -> LightningModule:
    described = deepcopy(checkpoint.config["model"])
    arguments = described.get("init_args") or {}
    if "init_from" in arguments:
        arguments["init_from"] = None  # the weights come from the checkpoint; the file they began with may be gone
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", fail_untyped=False, required=True)
    try:
        with skip_pretrained_download():
            return parser.instantiate(parser.parse_object({"model": described})).model
    except (ArgumentError, ImportError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{checkpoint.path}: its model {described['class_path']} cannot be built:\n  {_cause(error)}\n"
            "Is the code of the model here, and unchanged since? Run from the folder that it was trained in."
        ) from error


def _first_of(error: RuntimeError) -> str:
    return "\n".join(f"  {line.strip()[:200]}" for line in str(error).splitlines()[1:5])


def _check_is_file(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        found = sorted(path.rglob("*.ckpt"))
        problem = f"{path} is a folder, not a checkpoint."
    else:
        found = sorted(path.parent.glob("*.ckpt"))
        problem = f"There is no checkpoint {path}."
    if found:
        way_out = "Did you mean: " + ", ".join(str(candidate) for candidate in found[:4])
    else:
        way_out = "`python -m project fit` writes them: runs/NAME/latest/checkpoints/best.ckpt"
    raise UserError(f"{problem}\n{way_out}")


def _cause(error: Exception) -> str:
    """The part that names the cause: jsonargparse tells of every reading that it tried, the apt one marked so."""
    text = " ".join(str(error).split())
    telling = re.search(r"Problem with .*?(?= - Expected a | Given value type)", text)
    return (telling.group() if telling else text or type(error).__name__)[:300]


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


_WRITTEN_BY_FIT = (
    "It was not written by this project's `fit`, or by an early version of it.\n"
    "Give one that was: runs/NAME/latest/checkpoints/best.ckpt"
)
