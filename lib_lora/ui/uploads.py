"""Dropped files -> a private folder of their own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from lib_lora.data.captions import DEFAULT_EXTENSION, SECOND_EXTENSION
from lib_lora.data.folders import IMAGE_SUFFIXES
from lib_lora.errors import DatasetError

KEPT_DROPS = 20


def keep_uploads(files: Sequence[Path], root: Path, caption_extension: str = DEFAULT_EXTENSION) -> Path:
    """Copy dropped images and captions to one folder below `root` and return it; the same files give the same folder.

    `root` has a part that starts with a dot, so that the webui's file route does not serve what is in it.

    Raises:
        DatasetError: two files have one name, so that captions could not be told apart.
    """
    names = [file.name for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError([f"Two dropped files are named {name!r}; rename one." for name in twice])
    captions = (DEFAULT_EXTENSION, SECOND_EXTENSION, caption_extension.strip() or DEFAULT_EXTENSION)
    listed = sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES or file.name.endswith(captions))
    digest = hashlib.sha256()
    for file in listed:
        state = file.stat()
        digest.update(f"{file}|{state.st_size}|{state.st_mtime_ns}\n".encode())
    folder = root / f"drop-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    partial = root / f".partial-{folder.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in listed:
        shutil.copyfile(file, partial / file.name)
    partial.replace(folder)
    _forget_old(root)
    return folder


def _forget_old(root: Path) -> None:
    """Private copies do not pile up: only the newest drops stay."""
    drops = sorted(root.glob("drop-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in drops[KEPT_DROPS:]:
        shutil.rmtree(old)
