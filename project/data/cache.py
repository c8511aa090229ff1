"""The folder of what can be computed again: written whole or not at all, and remade when damaged."""

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
    """Sixteen hexadecimal digits that change when any of the plain JSON values does."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()


class Cache:
    """A folder, made when first written; a complete one may be read-only. UserErrors name data.cache_dir."""

    def __init__(self, folder: str | Path = ".cache") -> None:
        self.folder = Path(folder).expanduser().absolute()

    def path(self, name: str) -> Path:
        """Absolute path of something in the cache, which need not exist."""
        return self.folder / name

    def read_json(self, name: str) -> dict | None:
        """What `write_json` wrote; None where there is nothing, or (with a warning) a damaged file."""
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            rank_zero_warn(f"The cached file {self.path(name)} is damaged and is made anew.")
            return None

    def write_json(self, name: str, value: dict) -> None:
        """Write a dictionary of plain values; the file is not touched where it holds the same already."""
        text = json.dumps(value)
        with suppress(OSError, ValueError):
            if self.path(name).read_text(encoding="utf-8") == text:
                return
        with self.writing(name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @contextmanager
    def writing(self, name: str, folder: bool = False) -> Iterator[Path]:
        """A temporary file or folder to fill, which takes its place under `name` when the block ends well.

        A folder that another process has made meanwhile stays.
        """
        path = self.path(name)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            (temporary if folder else path.parent).mkdir(parents=True, exist_ok=True)
            yield temporary
            if not folder:
                with temporary.open("r+b") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            if folder and path.is_dir():
                return
            raise UserError(
                f"The cache {self.folder} cannot be written: {error.strerror or error}.\n"
                "Free some space or fix its permissions, or choose another folder with --data.cache_dir FOLDER."
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
