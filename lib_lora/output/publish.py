"""Putting a finished LoRA where the host finds it, checked by the host's own loader; the old file survives until it loads."""

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
    """A LoRA at its place, and what is told beside."""

    path: Path
    told: tuple[str, ...] = ()


def free_name(name: str, folder: Path, *, overwrite: bool) -> str:
    """`name`, or `name-2` … where it was taken during the run."""
    return next_free(name, folder) if taken_problem(name, folder, overwrite=overwrite) else name


def publish(config: TrainConfig, host: Host, content: bytes) -> Published:
    """Write `content` as `NAME.safetensors` (as `NAME-2` … if the name was taken meanwhile) and have the host load it.

    Raises:
        LoraFileError: it cannot be written, or read; what was there before is there again. With an `OSError` as its cause it may
            go well another time.
        RescuedError: the host cannot load it; what was there before is there again, and the new file lies elsewhere.
    """
    folder = host.lora_folder()
    path = folder / f"{free_name(config.run.name, folder, overwrite=config.run.overwrite)}.safetensors"
    backup = _backed_up(path)
    try:
        write(path, content)
    except BaseException:
        if backup is not None:
            remove(backup)  # the first error counts; the next run takes it away
        raise
    try:
        host.check_lora(path)
    except BaseException as error:
        _refused(error, path, backup, content, host, config.run.name)
        raise
    stays = None if backup is None else remove(backup)
    return Published(path, () if stays is None else (stays,))


def _backed_up(path: Path) -> Path | None:
    """A copy of the file that is to be replaced, under a name of ours.

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
    """Bring back what was there before the host refused the new file, which is kept elsewhere.

    Raises:
        RescuedError: with where it lies, unless it was the disk that refused, or somebody ended the program.
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
    with suppress(OSError):  # whoever has seen the new file must see that this is another
        os.utime(path)


def _left(text: str, path: Path, backup: Path | None, error: OSError | None) -> str:
    """A sentence more, on files that are not where they were."""
    why = "" if error is None else f" ({error.strerror or error})"
    older = "" if backup is None else f"; the previous file is {str(backup)!r}"
    return f"{text} The new file is still {str(path)!r}{why}{older}."


def use_best(name: str, best: Path, host: Host) -> Path:
    """`NAME-best` becomes `NAME`; what was `NAME` becomes `NAME-last` and is returned. Cards stay with their names.

    At every moment all tensors are on disk under some name. What stands beside `NAME-best` and was made by somebody else stays;
    so does what the disk does not give away.

    Raises:
        LoraFileError: one of the two is not there, or cannot be written.
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
    with suppress(OSError):  # the LoRAs have their names; a card that cannot be copied can be written again
        if card.is_file() and not os.path.lexists(last.with_suffix(".json")):
            write_atomically(last.with_suffix(".json"), card.read_bytes())
    for _ in remove_lora(best):
        pass
    for file in (last, path):
        host.announce(file)
    return last


def _renamed(path: Path, old: str, new: str) -> bytes:
    """The same tensors, with metadata that says the new name where it said the old one."""
    tensors, metadata = read(path)
    named = {key: new if key in {"ss_output_name", "modelspec.title"} and text == old else text for key, text in metadata.items()}
    return serialise(tensors, None, {key: text for key, text in named.items() if not key.startswith("sshs_")})
