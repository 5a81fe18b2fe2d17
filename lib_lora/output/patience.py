"""Saving on a disk that refuses: the run stands until there is room, instead of dying with what it has learned."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from lib_lora.errors import LoraFileError
from lib_lora.events import Event, SaveFailed

T = TypeVar("T")


def patiently(write: Callable[[], T]) -> Generator[Event, None, T]:
    """What `write` returns. Where the disk refuses, `SaveFailed` is told, and it is tried again if it is asked for.

    Whatever has an `OSError` as its cause is a matter of the disk: full, read-only, not permitted, broken, a share that is away.

    Raises:
        LoraFileError: it was not asked for, or it is no matter of the disk.
    """
    while True:
        try:
            return write()
        except LoraFileError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            failed = SaveFailed(str(error))
            yield failed
            if not failed.again:
                raise
