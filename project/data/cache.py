"""The folder of things that can be computed again: written whole or not at all, and rebuilt when damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from workbench.errors import UserError


def key_of(*values: Any) -> str:
    """Sixteen hexadecimal digits that change when any of the values (plain JSON values) does."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Cache:
    """A folder for computed things, made when the first of them is written.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: str | Path = ".cache") -> None:
        self.folder = Path(folder).expanduser().absolute()

    def path(self, name: str) -> Path:
        """The absolute path of one thing in the cache, which need not exist."""
        return self.folder / name

    def read_json(self, name: str) -> dict | None:
        """What `write_json` wrote; None where there is nothing, or (with a warning) where the file is damaged."""
        path = self.path(name)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(value, dict):
                return value
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            pass
        rank_zero_warn(f"The cached file {path} is damaged and is made anew.")
        return None

    def write_json(self, name: str, value: dict) -> Path:
        """Write a dictionary of plain values, whole or not at all.

        Raises:
            UserError: When the folder cannot be written or the disk is full.
        """
        path, text = self.path(name), json.dumps(value, ensure_ascii=True)
        if not _holds(path, text):  # so that a finished cache may be read-only
            with self.writing(name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return path

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A temporary file's path to write to, which takes its place under `name` when the block ends well.

        Raises:
            UserError: When the folder cannot be written or the disk is full.
        """
        path = self.path(name)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        with self.guarded():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield temporary
                with temporary.open("r+b") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)

    @contextmanager
    def filling(self, name: str) -> Iterator[Path]:
        """A temporary folder to fill, which takes its place under `name` when the block ends well.

        Where another process was faster, its folder stays: it must hold the same.

        Raises:
            UserError: When the folder cannot be made or renamed; for what is written to it see `guarded`.
        """
        folder = self.path(name)
        temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
        with self.guarded():
            temporary.mkdir(parents=True)
        try:
            yield temporary
            with self.guarded():
                try:
                    temporary.rename(folder)
                except OSError:
                    if not folder.is_dir():
                        raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn what the system says about a read-only folder or a full disk into an error with the way out."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"The cache {self.folder} cannot be written: {error.strerror or error}.\n"
                "Make room or mend its permissions, or choose another folder with --data.cache_dir FOLDER."
            ) from error


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False
