"""Files that are written whole or not at all: checkpoints, of the last of which the one before is kept."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from workbench.errors import UserError
from workbench.run import PREVIOUS


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, waits for the disk, and then puts it there in one go.

    A process that is killed, or a machine that loses its power, leaves the old file or the new one. Of ``last.ckpt``
    the one before it stays as ``previous.ckpt``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a file.

        Raises:
            UserError: When the disk is full or cannot be written; the old file is as it was.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        fresh = path.with_name(f".{path.name}.tmp")  # the same name each time: one that a killed run left goes away
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == "last.ckpt" and zipfile.is_zipfile(path):  # one that is cut short is not worth keeping
                path.replace(path.with_name(PREVIOUS))
            fresh.replace(path)
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            fault = _disk_fault(error)
            if fault is None:
                raise
            size = fresh.stat().st_size if fresh.is_file() else 0
            fresh.unlink(missing_ok=True)
            raise UserError(_explain(path, fault, size)) from error


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all (UTF-8)."""
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk; Windows has no such thing."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _disk_fault(error: BaseException | None) -> OSError | None:
    """The system's error behind torch's, whose writer stumbles once more over what was not written."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _explain(path: Path, fault: OSError, size: int) -> str:
    text = f"The checkpoint {path} could not be written: {fault.strerror or fault}."
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free
        text = f"The disk is full: {path} could not be written ({size >> 20} MB were, {free >> 20} MB are free now)."
    kept = f"{path} is still the one of before. " if path.is_file() else ""
    return f"{text}\n{kept}Make room, then go on with --resume latest."
