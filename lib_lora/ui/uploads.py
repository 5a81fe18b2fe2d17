"""Dropped files -> a private folder of their own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from lib_lora.data.captions import SUFFIXES
from lib_lora.data.dataset import IMAGE_SUFFIXES

KEPT_DROPS = 20


def keep_uploads(files: Sequence[Path], root: Path) -> Path:
    """Copy dropped images and captions to one folder below `root` and return it; the same files give the same folder.

    `root` has a part that starts with a dot, so that the webui's file route does not serve what is in it.
    """
    listed = sorted(file for file in files if file.suffix.lower() in {*IMAGE_SUFFIXES, *SUFFIXES})
    digest = hashlib.sha256()
    for file in listed:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    folder = root / f"drop-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    partial = root / f".partial-{folder.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in listed:
        shutil.copyfile(file, _free_name(partial, file))
    partial.replace(folder)
    _forget_old(root)
    return folder


def _forget_old(root: Path) -> None:
    """Private copies do not pile up: only the newest drops stay."""
    drops = sorted(root.glob("drop-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in drops[KEPT_DROPS:]:
        shutil.rmtree(old)


def _free_name(folder: Path, file: Path) -> Path:
    """Two dropped files may have one name; the second gets -2 (and so do its caption file, in the same order)."""
    target, number = folder / file.name, 2
    while target.exists():
        target, number = folder / f"{file.stem}-{number}{file.suffix}", number + 1
    return target
