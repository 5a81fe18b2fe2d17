"""Writing a LoRA to the host's folder and checking it with the host's loader; the old file is kept until the new one loads."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lib_lora.config.groups import TrainConfig
from lib_lora.config.names import next_free, taken_problem
from lib_lora.errors import LoraFileError
from lib_lora.files.atomic import BACKUP, passing_name, write_atomically
from lib_lora.files.lora_file import read, serialise, write
from lib_lora.host import Host
from lib_lora.output.removal import remove, remove_lora
from lib_lora.output.rescue import RescuedError, rescue, told


@dataclass(frozen=True)
class Published:
    """The path of a published LoRA, and notes."""

    path: Path
    told: tuple[str, ...] = ()


def free_name(name: str, folder: Path, *, overwrite: bool) -> str:
    """`name`, or `name-2`, … if it was taken during the run."""
    return next_free(name, folder) if taken_problem(name, folder, overwrite=overwrite) else name


def publish(config: TrainConfig, host: Host, content: bytes) -> Published:
    """Write `content` as `NAME.safetensors` (`NAME-2`, … if the name was taken meanwhile) and have the host load it.

    Raises:
        LoraFileError: it cannot be written or read; the file of before is restored. If its cause is an `OSError`, a retry
            may succeed.
        RescuedError: the host cannot load it; the file of before is restored, and the new file is kept elsewhere.
    """
    folder = host.lora_folder()
    path = folder / f"{free_name(config.run.name, folder, overwrite=config.run.overwrite)}.safetensors"
    backup = _backed_up(path)
    try:
        write(path, content)
    except BaseException:
        if backup is not None:
            remove(backup)  # the first error counts; if this fails, the next run removes the backup
        raise
    try:
        host.check_lora(path)
    except BaseException as error:
        _refused(error, path, backup, content, host, config.run.name)
        raise
    stays = None if backup is None else remove(backup)
    return Published(path, () if stays is None else (stays,))


def _backed_up(path: Path) -> Path | None:
    """A copy of the file at `path` under a temporary name; None if there is none.

    Raises:
        LoraFileError: the disk refused.
    """
    try:
        if not path.exists():
            return None
        backup = path.with_name(passing_name(path.stem, BACKUP))
        write_atomically(backup, path.read_bytes())
    except OSError as error:
        raise LoraFileError(
            f"The LoRA {str(path)!r} could not be backed up ({error.strerror or error}); free space or check permissions."
        ) from error
    return backup


def _refused(error: BaseException, path: Path, backup: Path | None, content: bytes, host: Host, run: str) -> None:
    """Keep the file that the host refused elsewhere, and restore the file of before.

    Raises:
        RescuedError: says where the file is, unless the disk refused it or the program is ending.
    """
    of_the_disk = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
    kept = None if of_the_disk else rescue(content, path.stem, host, run)
    if kept is not None or of_the_disk:
        try:
            _bring_back(path, backup)
        except OSError as other:
            raise RescuedError(_left(told(error, kept), path, backup, other)) from error
    if isinstance(error, OSError):
        raise LoraFileError(f"The LoRA could not be saved as {str(path)!r} ({error.strerror or error}).") from error
    if of_the_disk or not isinstance(error, Exception):
        return
    if kept is None:
        raise RescuedError(_left(told(error, None), path, backup, None)) from error
    raise RescuedError(told(error, kept)) from error


def _bring_back(path: Path, backup: Path | None) -> None:
    if backup is None:
        path.unlink(missing_ok=True)
        return
    backup.replace(path)
    with suppress(OSError):  # a new time, so that programs that have read the new file read this one again
        os.utime(path)


def _left(text: str, path: Path, backup: Path | None, error: OSError | None) -> str:
    """`text` with the places of the files that could not be moved back."""
    why = "" if error is None else f" ({error.strerror or error})"
    older = "" if backup is None else f"; the previous file is {str(backup)!r}"
    return f"{text} The new file is still {str(path)!r}{why}{older}."


def use_best(name: str, best: Path, host: Host) -> Path:
    """Rename `NAME` to `NAME-last` and `NAME-best` to `NAME`; returns the path of `NAME-last`. `NAME` keeps its card.

    At every moment all tensors are on disk under some name. Files beside `NAME-best` that others made stay, as do files that
    cannot be removed.

    Raises:
        LoraFileError: one of the two does not exist or cannot be written.
    """
    path = best.with_name(f"{name}.safetensors")
    for needed in (path, best):
        if not needed.is_file():
            raise LoraFileError(f"{needed.name!r} does not exist any more; nothing was changed.")
    last = best.with_name(f"{name}-last.safetensors")
    if last.exists():
        last = best.with_name(f"{next_free(f'{name}-last', host.lora_folder())}.safetensors")
    write(last, _renamed(path, name, last.stem))
    write(path, _renamed(best, best.stem, name))
    card = path.with_suffix(".json")
    with suppress(OSError):  # the LoRAs are renamed; a card is less important
        if card.is_file() and not os.path.lexists(last.with_suffix(".json")):
            write_atomically(last.with_suffix(".json"), card.read_bytes())
    for _ in remove_lora(best):
        pass
    for file in (last, path):
        host.announce(file)
    return last


def _renamed(path: Path, old: str, new: str) -> bytes:
    """The file at `path` with `old` replaced by `new` in its metadata."""
    tensors, metadata = read(path)
    named = {key: new if key in {"ss_output_name", "modelspec.title"} and text == old else text for key, text in metadata.items()}
    return serialise(tensors, None, {key: text for key, text in named.items() if not key.startswith("sshs_")})
