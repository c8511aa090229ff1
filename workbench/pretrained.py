"""Pretrained weights that a checkpoint is about to replace are not downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_skip_pretrained_download: ContextVar[bool] = ContextVar("skip_pretrained_download", default=False)


@contextmanager
def skip_pretrained_download(follow: bool = True) -> Iterator[None]:
    """Within it pretrained weights are neither read nor downloaded: a checkpoint's will take their place.

    Args:
        follow: False: nothing changes.
    """
    before = _skip_pretrained_download.set(follow or _skip_pretrained_download.get())
    try:
        yield
    finally:
        _skip_pretrained_download.reset(before)


def pretrained_download_skipped() -> bool:
    """Whether that is so here."""
    return _skip_pretrained_download.get()
