"""Retrying a write that the disk refused, so that a full disk pauses a run instead of ending it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from lib_lora.errors import LoraFileError
from lib_lora.events import Event, SaveFailed
from lib_lora.run_control import RunControl

T = TypeVar("T")


def write_with_retry(write: Callable[[], T], control: RunControl) -> Generator[Event, None, T]:
    """The result of `write`. If the disk refuses, yields `SaveFailed` and retries if `control.on_write_failed()` says so.

    An error with an `OSError` as its cause counts as the disk's: full, read-only, no permission, broken, a lost network share.

    Raises:
        LoraFileError: `write` failed for another reason, or is not retried.
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
