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

WRITTEN_BY_FIT = "Use a checkpoint that `fit` wrote: runs/NAME/latest/checkpoints/best.ckpt"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds that outlives the training.

    Attributes:
        path: The file.
        config: The run's whole resolved configuration; ``config["model"]`` has ``class_path`` and ``init_args``,
            ``config["data"]`` is the arguments of the data module alone.
        weights: The model's state dict, on the CPU (the averaged weights where the run averaged them).
        splits: What the data module stored of its splits; empty where it stores none.
        data_class: Class path of the data module; None: the project's default.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    data_class: str | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running any code that may be in it (``weights_only=True``).

    Raises:
        UserError: No such file, not a checkpoint, truncated, or not written by ``fit``.
    """
    path = Path(path).expanduser()
    _check_is_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not a checkpoint, or holds more than weights and plain values, which is not read for safety.\n"
            + WRITTEN_BY_FIT
        ) from error
    except Exception as error:  # the reader fails on other files in any way: IndexError, EOFError, ...
        raise UserError(
            f"{path} cannot be read as a checkpoint: it is damaged, cut short or something else ({one_line(error)}).\n"
            "Use another one, such as last.ckpt in the same folder."
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} holds no weights under 'state_dict'.\n{WRITTEN_BY_FIT}")
    try:
        config = yaml.safe_load(content["config"])
        config["model"]["class_path"]
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{path} does not say which model it holds (its 'config').\n{WRITTEN_BY_FIT}") from error
    state = next((value for key, value in content.items() if key.endswith("DataModule")), None)
    splits = state.get("splits", {}) if isinstance(state, dict) else {}
    data_class = (config.get("data") or {}).get("class_path")
    return Checkpoint(path, flat_data(config), content["state_dict"], splits, data_class)


def flat_data(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose ``data`` section is the data module's arguments, without its class path."""
    data = config.get("data")
    return {**config, "data": data.get("init_args") or {}} if data and "class_path" in data else config


def require(checkpoint: Checkpoint, model: object, attribute: str, command: str) -> None:
    """Refuse a checkpoint of another task: its model, or the model's class, lacks an attribute that a command needs."""
    if not hasattr(model, attribute):
        name = checkpoint.config["model"]["class_path"]
        raise UserError(f"{command} cannot use {checkpoint.path}: its model {name} has no {attribute!r}.")


def load_model(checkpoint: str | Path | Checkpoint) -> LightningModule:
    """Build the model that a checkpoint holds, with its weights, on the CPU and in evaluation mode.

    Raises:
        UserError: As :func:`read_checkpoint`; or the model's class is gone, takes other arguments or has other weights.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = read_checkpoint(checkpoint)
    name, model = checkpoint.config["model"]["class_path"], _build(checkpoint)
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint.path}: its weights do not fit {name} as it is now:\n{_first_lines(error)}\n"
            "The class has changed since; use the code that wrote the checkpoint, or train again."
        ) from error
    return model.eval()


def weights_mismatch(path: str | Path | None, error: RuntimeError) -> UserError:
    """The error for a checkpoint whose weights do not fit the model of a given configuration."""
    return UserError(
        f"{path}: its weights do not fit this configuration's model:\n{_first_lines(error)}\n"
        "Leave the model as it was trained; without --config the checkpoint's own configuration is used.\n"
        f"A new run from the weights that do fit: fit --model.init_args.init_from {path}"
    )


def _build(checkpoint: Checkpoint) -> LightningModule:
    section = deepcopy(checkpoint.config["model"])
    arguments = section.get("init_args") or {}
    if "init_from" in arguments:
        arguments["init_from"] = None  # the weights come from the checkpoint; the file they began with may be gone
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", fail_untyped=False, required=True)
    try:
        with skip_pretrained_download():
            return parser.instantiate(parser.parse_object({"model": section})).model
    except (ArgumentError, ImportError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())  # of all the readings that jsonargparse tried, the apt one is marked so
        cause = re.search(r"Problem with .*?(?= - Expected a | Given value type)", text)
        raise UserError(
            f"{checkpoint.path}: its model {section['class_path']} cannot be built:\n"
            f"  {(cause.group() if cause else text or type(error).__name__)[:300]}\n"
            "Is the code of the model here, and unchanged since? Run from the folder that it was trained in."
        ) from error


def _first_lines(error: RuntimeError) -> str:
    return "\n".join(f"  {line.strip()[:200]}" for line in str(error).splitlines()[1:5])


def _check_is_file(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        problem, found = f"{path} is a folder, not a checkpoint.", sorted(path.rglob("*.ckpt"))
    else:
        problem, found = f"There is no checkpoint {path}.", sorted(path.parent.glob("*.ckpt"))
    raise UserError(f"{problem}\n" + (f"Did you mean: {', '.join(map(str, found[:4]))}" if found else WRITTEN_BY_FIT))


def one_line(error: Exception, length: int = 300) -> str:
    """An error's text on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:length]
