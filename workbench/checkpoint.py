"""Checkpoints: written atomically, read without running code, and built into a model with nothing else at hand."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils._pytree import tree_leaves

from workbench.errors import UserError, one_line
from workbench.lightning_private import given_hyperparameters
from workbench.task import skip_pretrained_download

PREVIOUS = "previous.ckpt"
WRITTEN_BY_FIT = "Use a checkpoint that `fit` wrote: runs/NAME/latest/checkpoints/best.ckpt"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds that outlives the training."""

    path: Path
    config: dict[str, Any]  # resolved; config["data"] holds the arguments of the data module, without its class path
    weights: dict[str, Tensor]  # on the CPU; the averaged ones where the run averaged them
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)  # what the data module stored of them
    data_class: str | None = None  # class path of the data module; None: the project's default


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running any code that may be in it (``weights_only=True``)."""
    path = Path(path).expanduser()
    if not path.is_file():
        found = sorted(path.rglob("*.ckpt") if path.is_dir() else path.parent.glob("*.ckpt"))
        near = f"Did you mean: {', '.join(map(str, found[:4]))}" if found else WRITTEN_BY_FIT
        raise UserError(f"There is no checkpoint {path}.\n{near}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        config = yaml.safe_load(content["config"])
        weights, _ = content["state_dict"], config["model"]["class_path"]
    except (KeyError, TypeError, AttributeError, yaml.YAMLError, pickle.UnpicklingError) as error:
        parts = "weights ('state_dict'), which model they are of ('config'), and for safety nothing but plain values"
        raise UserError(f"{path} is not a checkpoint of a run: {parts}.\n{WRITTEN_BY_FIT}") from error
    except Exception as error:  # the reader fails on other files in any way: IndexError, EOFError, ...
        text = f"{path} cannot be read as a checkpoint: it is damaged, cut short or something else ({one_line(error)})."
        raise UserError(f"{text}\nUse another one, such as last.ckpt in the same folder.") from error
    state = next((value for key, value in content.items() if key.endswith("DataModule")), None)
    splits = state.get("splits", {}) if isinstance(state, dict) else {}
    data_class = (config.get("data") or {}).get("class_path")
    if data_class is not None:
        config["data"] = config["data"].get("init_args") or {}
    return Checkpoint(path, config, weights, splits, data_class)


def load_model(checkpoint: str | Path | Checkpoint) -> LightningModule:
    """Build the model that a checkpoint holds, with its weights, on the CPU and in evaluation mode."""
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = read_checkpoint(checkpoint)
    section = deepcopy(checkpoint.config["model"])
    if "init_from" in (section.get("init_args") or {}):
        section["init_args"]["init_from"] = None  # the weights come from the checkpoint; that file may be gone
    model = build(checkpoint, LightningModule, section)
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint.path}: its weights do not fit {section['class_path']} as it is now:\n{first_lines(error)}\n"
            + other_version(checkpoint.path)
        ) from error
    return model.eval()


def build(checkpoint: Checkpoint, base: type, section: dict[str, Any]) -> Any:
    """An object that a checkpoint's configuration describes; UserError where today's code cannot build it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "described", fail_untyped=False, required=True)
    try:
        with skip_pretrained_download():
            return parser.instantiate(parser.parse_object({"described": section})).described
    except (ArgumentError, ImportError, TypeError, ValueError, AttributeError) as error:
        text = one_line(error, 2000)  # of all the readings that jsonargparse tried, the apt one is marked so
        cause = re.search(r"Problem with .*?(?= - Expected a | Given value type)", text)
        raise UserError(
            f"{checkpoint.path}: its {section['class_path']} cannot be built:\n"
            f"  {(cause.group() if cause else text)[:300]}\n"
            f"Run from the folder that holds its code. {other_version(checkpoint.path)}"
        ) from error


def other_version(path: str | Path) -> str:
    """What to do with a checkpoint that today's code cannot use, and which version can, by its run's folder."""
    path = Path(path)
    try:
        commit = json.loads((path.parent.parent / "environment.json").read_text("utf-8"))["commit"]
    except (OSError, ValueError, KeyError, TypeError):
        commit = None
    version = f"commit {commit}" if commit else "unknown"
    return (
        f"It was written by another version of the code ({version}).\n"
        f"Use that version, or train again, from its weights: fit --config FILE --model.init_args.init_from {path}"
    )


def first_lines(error: Exception) -> str:
    """What does not fit, of an error while weights or an optimizer's state are loaded."""
    lines = str(error).splitlines()
    return "\n".join(f"  {line.strip()[:200]}" for line in lines[1:5] or lines)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, waits for the disk, and then renames it: a process that is killed, or a
    power failure, leaves the old file or the new one. The ``last.ckpt`` before stays as ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a file; UserError where the disk is full or cannot be written, and the old file is unchanged."""
        path = Path(path)
        fresh = path.with_name(f".{path.name}.tmp")  # always the same name: what a killed run left is overwritten
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == "last.ckpt" and zipfile.is_zipfile(path):  # a truncated one is not worth keeping
                path.replace(path.with_name(PREVIOUS))
            fresh.replace(path)
        except (OSError, RuntimeError) as error:
            # Of the disk; torch's writer fails once more on the partial file.
            fault = error if isinstance(error, OSError) else error.__cause__ or error.__context__
            if not isinstance(fault, OSError):
                raise
            fresh.unlink(missing_ok=True)
            raise UserError(
                f"The checkpoint {path} could not be written: {fault.strerror or fault}.\n"
                "An older file of this name is unchanged. Free some space, then resume: --resume latest."
            ) from error


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all (UTF-8)."""
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def save_plain_hyperparameters(module: LightningModule | LightningDataModule, arguments: dict[str, object]) -> None:
    """Save a module's constructor arguments (``locals()`` will do), as far as any reader may load them: in a script
    others have to be passed again, ``load_from_checkpoint(path, network=...)``."""
    if given_hyperparameters() is not None:
        module.save_hyperparameters()
    else:
        plain = (bool, int, float, str, type(None))
        values = {name: tree_leaves(value) for name, value in arguments.items()}
        module.save_hyperparameters(
            {name: arguments[name] for name, leaves in values.items() if all(type(leaf) in plain for leaf in leaves)}
        )
