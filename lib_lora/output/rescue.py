"""Keeping a LoRA that cannot be published: in the LoRA folder, the work folder or the temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lib_lora.errors import LoraFileError, TrainLoraError
from lib_lora.files.atomic import free_path, write_atomically
from lib_lora.host import Host

RESCUED = ".rescued"  # the webui does not list such files
ENDING = f".safetensors{RESCUED}"
T = TypeVar("T")


class RescuedError(LoraFileError):
    """A LoRA could not be published but is kept; the text says where."""


def rescue(content: bytes, name: str, host: Host, run: str) -> Path | None:
    """Write a serialised LoRA to the first folder that allows it; returns its path, or None if none does.

    Args:
        content: the serialised LoRA.
        name: name of the LoRA.
        host: knows its folders.
        run: name of the run, whose work folder is one of the choices.
    """

    def kept(folder: Path) -> Path:
        path = free_path(folder / f"{name}{ENDING}", ENDING)
        write_atomically(path, content)
        return path

    with suppress(OSError):
        return kept(host.lora_folder())
    with suppress(OSError):
        return in_another_place(kept, host.work_folder() / run)
    return None


def in_another_place(keep: Callable[[Path], T], work: Path) -> T:
    """The result of `keep` on the run's work folder, or if that fails on a new temporary folder.

    Raises:
        OSError, TrainLoraError: raised by `keep` on the temporary folder.
    """
    with suppress(OSError, TrainLoraError):
        return keep(work)
    folder = Path(tempfile.mkdtemp(prefix="train-lora-"))
    try:
        return keep(folder)
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def told(error: BaseException, kept: Path | None) -> str:
    """The text of `error`, and where the LoRA is now."""
    text = str(error) if isinstance(error, TrainLoraError) else f"The LoRA could not be saved ({type(error).__name__}: {error})."
    return text if kept is None else f"{text} It is kept as {str(kept)!r}; to use it, remove {RESCUED} from its name."
