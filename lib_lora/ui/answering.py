"""What is said when an event or a route cannot be answered: one sentence, whatever went wrong, and never a traceback alone."""

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
LONGEST = 300  # characters of what an error says


def problems_of(error: Exception) -> list[str]:
    """The sentences for an error of any kind; one that nobody foresaw is written to the console as well."""
    if isinstance(error, TrainLoraError):
        return error.problems
    if isinstance(error, OSError):
        return [disk_sentence(error)]
    traceback.print_exception(type(error), error, error.__traceback__)
    said = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
    return [f"This failed ({said}); reload the page. The webui's console shows more."]


def disk_sentence(error: OSError) -> str:
    """What the disk refused, where that is known, and what helps. Folders are left out: not everybody may know them."""
    why = os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:LONGEST]
    name = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, (str, bytes)) else ""
    about = f" {name[:80]!r}" if name else ""
    remedy = _REMEDIES.get(error.errno or 0, "try again")
    return f"This failed because of a disk error: {why}{about}; {remedy}."
