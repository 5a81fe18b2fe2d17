"""Reads and writes LoRA files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lib_lora.errors import LoraFileError
from lib_lora.files.atomic import write_atomically
from lib_lora.files.safetensors_header import LENGTH_BYTES, count_problem, header_problem
from lib_lora.paths import path_problem

State = dict[str, torch.Tensor]
_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000


def serialise(
    state: Mapping[str, torch.Tensor], dtype: torch.dtype | None, metadata: Mapping[str, str], kept: Collection[str] = ()
) -> bytes:
    """The bytes of a LoRA file, with two `sshs_*` hashes added. Tensors are cast to `dtype` (None: none are), except `kept`.

    Raises:
        LoraFileError: a tensor is not finite, or the file could not be read again.
    """
    tensors = {key: (value if dtype is None or key in kept else value.to(dtype)).contiguous() for key, value in state.items()}
    bad = [key for key, value in tensors.items() if not bool(torch.isfinite(value.float()).all())]
    if bad:
        raise LoraFileError(f"{len(bad)} tensors are not finite, such as {bad[0]!r}; the LoRA was not saved.")
    try:
        hashes = _hashes(save(tensors, {key: text for key, text in metadata.items() if key.startswith("ss_")}))
        content = save(tensors, {**metadata, **hashes})
    except (SafetensorError, UnicodeError) as error:
        raise LoraFileError(f"The LoRA's metadata cannot be written ({error}).") from error
    problem = header_problem(content[:LENGTH_BYTES]) or count_problem(len(tensors))
    if problem:
        raise LoraFileError(f"The LoRA could not be read back: {problem}.")
    return content


def write(path: Path, content: bytes) -> None:
    """Write a serialised LoRA to `path`, atomically.

    Raises:
        LoraFileError: writing failed; `path` is unchanged.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise LoraFileError(
            f"The LoRA could not be written to {str(path)!r} ({error.strerror}); free space or check permissions."
        ) from error


def read(path: Path) -> tuple[State, dict[str, str]]:
    """Tensors (CPU, as stored) and metadata of a LoRA file.

    Raises:
        LoraFileError: the file is missing or not a safetensors file.
    """
    try:
        _check_start(path)
        with safe_open(path, framework="pt") as file:
            problem = count_problem(len(file.keys()))
            if problem:
                raise SafetensorError(problem)
            return {key: file.get_tensor(key).clone() for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError, AttributeError) as error:  # AttributeError: a dtype that this torch lacks
        raise LoraFileError(f"{str(path)!r} is not a readable safetensors file ({error}).") from error


def _check_start(path: Path) -> None:
    problem = path_problem(str(path))
    if problem:
        raise OSError(f"it {problem.rstrip('.')}")
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise OSError("it is not a file")
    with path.open("rb") as file:
        problem = header_problem(file.read(LENGTH_BYTES))
    if problem:
        raise SafetensorError(problem)


def _hashes(content: bytes) -> dict[str, str]:
    """sd-scripts `precalculate_safetensors_hashes`: over the tensor bytes, and over 64 KiB at 1 MiB."""
    start = int.from_bytes(content[:8], "little") + 8
    legacy = content[_LEGACY_START : _LEGACY_START + _LEGACY_LENGTH]
    return {
        "sshs_model_hash": hashlib.sha256(content[start:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(legacy).hexdigest()[:8],
    }
