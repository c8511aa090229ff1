"""Pretrained weights that a checkpoint is about to replace are not downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_skip: ContextVar[bool] = ContextVar("skip_pretrained_download", default=False)
pretrained_download_skipped = _skip.get


@contextmanager
def skip_pretrained_download(skip: bool = True) -> Iterator[None]:
    """Within it pretrained weights are neither read nor downloaded; False changes nothing."""
    before = _skip.set(skip or _skip.get())
    try:
        yield
    finally:
        _skip.reset(before)
