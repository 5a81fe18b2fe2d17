"""Dropped files -> a private folder of their own."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_lora.data.captions import DEFAULT_EXTENSION, SECOND_EXTENSION
from lib_lora.data.folders import IMAGE_SUFFIXES
from lib_lora.data.hidden_names import given_name, hidden_name
from lib_lora.errors import DatasetError
from lib_lora.files.atomic import PARTIAL, copy_whole, link_or_copy
from lib_lora.jobs.kept import PAGE_S, TAKEN, changed
from lib_lora.paths import path_problem

KEPT_DROPS = 20
LONGEST_NAME = 255  # bytes of a file name on most disks
_KEEPING = threading.Lock()  # the report and Train may use the same drop at once


def take_over(uploaded: Any, served: Path, taken: Path, original: Any = None) -> Path:
    """Move a file that gradio has just stored into the private folder `taken`, and return its path.

    Args:
        uploaded: the path as the page sends it. Only a file in a folder directly below `served` is moved.
        served: gradio's folder for uploads; its file route serves all of it.
        taken: the private folder.
        original: the file's name on the user's machine, as the page sends it. gradio 3.41.2 stores it without emoji and
            signs, and cut to 200 bytes, so that names collide and endings are lost
            (`gradio_client.utils.strip_invalid_filename_characters`).

    Returns:
        The same path for the same upload at every call; the file need not exist. A picture gets a hidden name.
    """
    text = uploaded if isinstance(uploaded, str) else repr(uploaded)
    folder = taken / hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]
    target = folder / hidden_name(original if _is_file_name(original) else Path(text).name.replace("\0", "") or "file")
    if not isinstance(uploaded, str) or "\0" in uploaded:
        return target
    source = Path(uploaded)
    with _KEEPING:
        if source.is_file() and source.resolve().parent.parent == served.resolve():
            folder.mkdir(parents=True, exist_ok=True)
            _move(source, target)
        elif folder.is_dir() and not target.exists():  # two files of the same content whose names gradio made equal
            here = next((path for path in folder.iterdir() if not path.name.endswith(PARTIAL)), None)
            if here is not None:
                link_or_copy(here, target)
    return target


def _is_file_name(original: Any, *, windows: bool = os.name == "nt") -> bool:
    """Whether an untrusted name is a valid file name here, without a path."""
    if not isinstance(original, str) or original in {"", ".", ".."} or any(c in original for c in "/\\\0"):
        return False
    try:
        length = len(original.encode())
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    if windows and (
        any(c in '<>:"|?*' or ord(c) < 32 for c in original) or original[-1] in ". " or path_problem(original, windows=True)
    ):
        return False
    return length <= LONGEST_NAME


def shown_name(folder: Path) -> str:
    """The name of a folder of images for people."""
    return "dropped images" if re.fullmatch(r"drop-[0-9a-f]{16}", folder.name) else folder.name


def keep_uploads(files: Sequence[Path], root: Path, caption_extension: str = DEFAULT_EXTENSION) -> Path:
    """Copy dropped images and captions to one folder below `root` and return it; the same files give the same folder.

    A part of `root` starts with a dot, so that the webui's file route does not serve its content, and images get hidden names,
    so that no other route of the webui does.

    Raises:
        DatasetError: two files have the same name, so that captions would be ambiguous, or one does not exist.
    """
    names = [given_name(file) for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError([f"Two dropped files have the name {name!r}; rename one." for name in twice])
    gone = [given_name(file) for file in files if not file.is_file()]
    if gone:
        raise DatasetError([f"The dropped file {name!r} does not exist any more; drop it again." for name in gone])
    captions = (DEFAULT_EXTENSION, SECOND_EXTENSION, caption_extension.strip() or DEFAULT_EXTENSION)
    images = {file for file, name in zip(files, names) if Path(name).suffix.lower() in IMAGE_SUFFIXES}
    listed = sorted(file for file in files if file in images or file.name.endswith(captions))
    digest = hashlib.sha256()
    for file in listed:
        state = file.stat()
        digest.update(f"{file}|{state.st_size}|{state.st_mtime_ns}\n".encode())
    folder = root / f"drop-{digest.hexdigest()[:16]}"
    with _KEEPING:
        if not folder.is_dir():
            partial = root / f".partial-{folder.name}"
            shutil.rmtree(partial, ignore_errors=True)
            try:
                partial.mkdir(parents=True)
                for file in listed:
                    link_or_copy(file, partial / hidden_name(given_name(file)))
                partial.replace(folder)
            except OSError:
                shutil.rmtree(partial, ignore_errors=True)  # the disk may be full
                raise
            _forget_old(root)
    return folder


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:  # another disk
        copy_whole(source, target)
        source.unlink(missing_ok=True)


def _forget_old(root: Path) -> None:
    """Remove all but the newest drops, and uploads that are older than a day; failures are ignored."""
    drops = sorted(root.glob("drop-*"), key=changed, reverse=True)
    late = [folder for folder in (root / TAKEN).glob("*") if time.time() - changed(folder) > PAGE_S]
    for old in [*drops[KEPT_DROPS:], *late]:
        shutil.rmtree(old, ignore_errors=True)
