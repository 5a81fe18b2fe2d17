"""Messages for errors in events and routes: sentences for any exception, never a traceback alone."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path

from lib_lora.errors import TrainLoraError

_REMEDIES = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space on that disk",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "make the disk writable",
    errno.ENOENT: "it was removed; try again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "the webui has too many files open; restart it",
}
LONGEST = 300  # characters of an error's text


def problems_of(error: Exception) -> list[str]:
    """The messages for any error; the traceback of an unexpected one goes to the console."""
    if isinstance(error, TrainLoraError):
        return error.problems
    if isinstance(error, OSError):
        return [disk_sentence(error)]
    traceback.print_exception(type(error), error, error.__traceback__)
    said = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
    return [f"This failed ({said}); reload the page. The webui's console shows more."]


def disk_sentence(error: OSError) -> str:
    """What the disk refused, and a remedy. Folders are omitted, since not everybody who may look may know them."""
    why = os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:LONGEST]
    name = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, (str, bytes)) else ""
    about = f" {name[:80]!r}" if name else ""
    remedy = _REMEDIES.get(error.errno or 0, "try again")
    return f"This failed because of a disk error: {why}{about}; {remedy}."
