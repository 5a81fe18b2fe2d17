"""Files that gradio has stored -> a private folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from lib_lora.data.hidden_names import hidden_name
from lib_lora.files.atomic import PARTIAL, copy_whole, link_or_copy
from lib_lora.jobs.kept import PAGE_S, changed
from lib_lora.paths import path_problem

LONGEST_NAME = 255  # bytes of a file name on most disks
_KEEPING = threading.Lock()  # two events may use the same file at once


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
        forget_old(taken)
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


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:  # another disk
        copy_whole(source, target)
        source.unlink(missing_ok=True)


def forget_old(taken: Path) -> None:
    """Remove uploads that are older than a day; failures are ignored."""
    for old in [folder for folder in taken.glob("*") if time.time() - changed(folder) > PAGE_S]:
        shutil.rmtree(old, ignore_errors=True)
