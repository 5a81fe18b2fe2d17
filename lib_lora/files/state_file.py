"""A state on disk: a folder with `state.json` and `state.tensors`, written completely or not at all.

`state.tensors` is a safetensors file with another suffix, since the webui lists every *.safetensors as a LoRA.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from lib_lora.files.atomic import GONE, OLD, TEMPORARY, free_path, passing_ending, passing_name, sync_folder, write_atomically
from lib_lora.files.plain_values import StateError, Tensors
from lib_lora.files.safetensors_header import LENGTH_BYTES, header_problem

VALUES, TENSORS = "state.json", "state.tensors"
FORMAT = 1
MAX_VALUES_BYTES = 64 * 2**20


def write_state(folder: Path, values: Mapping[str, Any], tensors: Tensors) -> Path:
    """Write a state to `folder`, or to `folder` with a number if something else has the name; returns the path.

    An older state there is replaced after the new one is written.

    Raises:
        StateError: writing failed, or the state is larger than the limits for reading; the older state is unchanged, and no part
            of the new one is left.
    """
    content = save(tensors)
    body = {"format": FORMAT, **values, "tensors_sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps({**body, "sha256": _digest(body)}, ensure_ascii=False, indent=1).encode()
    problem = header_problem(content[:LENGTH_BYTES])
    if problem or len(text) > MAX_VALUES_BYTES:
        raise StateError(f"The state could not be read back: {problem or f'its {VALUES} would have {len(text)} bytes'}.")
    temporary, old = None, None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder = free_path(folder, is_taken=_is_taken)
        temporary = folder.with_name(passing_name(folder.name, TEMPORARY))
        temporary.mkdir(mode=0o700)
        write_atomically(temporary / TENSORS, content)
        write_atomically(temporary / VALUES, text)
        if folder.exists():
            old = folder.with_name(passing_name(folder.name, OLD))
            folder.replace(old)
        temporary.replace(folder)
        with suppress(OSError):
            sync_folder(folder.parent)  # before an older state is removed
    except OSError as error:
        if old is not None:
            with suppress(OSError):  # the first error is raised
                if old.exists() and not folder.exists():
                    old.replace(folder)
        raise StateError(
            f"The state could not be written to {str(folder)!r} ({error.strerror or error}); free space or check permissions."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def holds_state_alone(folder: Path) -> bool:
    """Whether `folder` contains nothing but the files of a state.

    Raises:
        OSError: the folder cannot be listed.
    """
    names = {path.name for path in folder.iterdir() if passing_ending(path.name) != TEMPORARY}
    return not folder.is_symlink() and names <= {VALUES, TENSORS}


def _is_taken(path: Path) -> bool:
    """Whether something other than a state has this name."""
    return os.path.lexists(path) and not (path.is_dir() and holds_state_alone(path))


def read_values(folder: Path) -> dict[str, Any]:
    """The content of `state.json`.

    Raises:
        StateError: the file is missing, damaged, or of another version.
    """
    path = folder / VALUES
    start = f"Resume from (resume): {str(folder)!r} "
    if not path.is_file():
        raise StateError(start + f"contains no {VALUES}; choose the folder of a saved state.")
    damaged = start + "is damaged; choose an older state."
    try:
        if path.stat().st_size > MAX_VALUES_BYTES:
            raise StateError(damaged)
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise StateError(start + "was written by another version; start the training over.")
        if values.pop("sha256", None) != _digest(values):
            raise StateError(damaged)
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(damaged) from error
    return values


def read_tensors(folder: Path, values: Mapping[str, Any]) -> Tensors:
    """The tensors of a state, on the CPU.

    Raises:
        StateError: the file is missing or damaged.
    """
    start = f"Resume from (resume): {str(folder)!r} "
    try:
        if (folder / TENSORS).exists() and not (folder / TENSORS).is_file():  # reading a pipe would block
            raise OSError(errno.EINVAL, "it is not a file")
        content = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise StateError(start + f"lacks its {TENSORS} ({error.strerror}); choose an older state.") from error
    if hashlib.sha256(content).hexdigest() != values.get("tensors_sha256"):
        raise StateError(start + "is damaged; choose an older state.")
    problem = header_problem(content[:LENGTH_BYTES])
    try:
        if problem:
            raise SafetensorError(problem)
        return dict(load(content))
    except (SafetensorError, AttributeError, LookupError, ValueError) as error:  # dtypes that this torch lacks, empty tensors
        raise StateError(start + f"is damaged ({error}); choose an older state.") from error


def remove_state(folder: Path) -> str | None:
    """Remove a state: rename it, then delete it. Returns why it stays, or None."""
    try:
        if not (folder / VALUES).is_file():
            return None
        if not holds_state_alone(folder):
            return f"{str(folder)!r} contains more than a state and was not removed."
        gone = folder.with_name(passing_name(folder.name, GONE))
        folder.replace(gone)
    except OSError as error:
        return f"{str(folder)!r} could not be removed ({error.strerror or error}); remove it by hand."
    shutil.rmtree(gone, ignore_errors=True)
    return None


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
