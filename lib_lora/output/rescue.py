"""Where a trained LoRA goes that cannot be published: beside its place, into the work folder, or into the temporary folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lib_lora.errors import LoraFileError, TrainLoraError
from lib_lora.files.atomic import write_atomically
from lib_lora.host import Host

ENDING = ".rescued"  # the webui lists no such file
T = TypeVar("T")


class RescuedError(LoraFileError):
    """A LoRA could not be published, but is kept; the text says where."""


def rescue(content: bytes, name: str, host: Host, run: str) -> Path | None:
    """Keep a serialised LoRA in the first folder that takes it; None where none does.

    Args:
        content: the file.
        name: of the LoRA.
        host: knows the folders.
        run: name of the run, whose work folder is one of them.
    """

    def kept(folder: Path) -> Path:
        path = _free(folder, f"{name}.safetensors")
        write_atomically(path, content)
        return path

    with suppress(OSError):
        return kept(host.lora_folder())
    with suppress(OSError):
        return in_another_place(kept, host.work_folder() / run)
    return None


def in_another_place(keep: Callable[[Path], T], work: Path) -> T:
    """What `keep` makes of the run's work folder, or else of a new one in the temporary folder.

    Raises:
        OSError, TrainLoraError: that of the temporary folder.
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
    """What went wrong, and where the LoRA lies now."""
    text = str(error) if isinstance(error, TrainLoraError) else f"The LoRA could not be saved ({type(error).__name__}: {error})."
    return text if kept is None else f"{text} It is kept as {str(kept)!r}; to use it, remove {ENDING} from its name."


def _free(folder: Path, name: str) -> Path:
    return next(path for path in _names(folder, name) if not os.path.lexists(path))


def _names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / f"{name}{ENDING}"
    number = 2
    while True:
        stem, _, end = name.rpartition(".")
        yield folder / f"{stem}-{number}.{end}{ENDING}"
        number += 1
