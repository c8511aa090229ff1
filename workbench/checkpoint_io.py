"""Files that are written atomically: checkpoints, of the last of which the previous one is kept, and texts."""

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

PREVIOUS = "previous.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, waits for the disk, and then renames it.

    A process that is killed, or a power failure, leaves the old file or the new one. The ``last.ckpt`` before stays as
    ``previous.ckpt``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a file.

        Raises:
            UserError: The disk is full or cannot be written; the old file is unchanged.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
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
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            fault: BaseException | None = error
            while fault is not None and not isinstance(
                fault, OSError
            ):  # torch's writer fails again on the partial file
                fault = fault.__cause__ or fault.__context__
            if fault is None:
                raise
            size = fresh.stat().st_size if fresh.is_file() else 0
            fresh.unlink(missing_ok=True)
            text = f"The checkpoint {path} could not be written: {fault.strerror or fault}."
            if fault.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(path.parent).free >> 20
                text = f"The disk is full: {path} could not be written ({size >> 20} MB were, {free} MB are free now)."
            kept = f"{path} is still the previous one. " if path.is_file() else ""
            raise UserError(f"{text}\n{kept}Free some space, then resume: --resume latest.") from error


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all (UTF-8)."""
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on the disk; not needed on Windows."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
