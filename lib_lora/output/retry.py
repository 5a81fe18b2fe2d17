"""Saving on a disk that refuses: the run stands until there is room, instead of dying with what it has learned."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from lib_lora.errors import LoraFileError
from lib_lora.events import Event, SaveFailed
from lib_lora.run_control import RunControl

T = TypeVar("T")


def write_with_retry(write: Callable[[], T], control: RunControl) -> Generator[Event, None, T]:
    """What `write` returns. Where the disk refuses, `SaveFailed` is told, and `control` says whether it is tried again.

    Whatever has an `OSError` as its cause is a matter of the disk: full, read-only, not permitted, broken, a share that is away.

    Raises:
        LoraFileError: it is not tried again, or is no matter of the disk.
    """
    while True:
        try:
            return write()
        except LoraFileError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            yield SaveFailed(str(error))
            if not control.on_write_failed():
                raise
