"""Parsing and checking of paths as people paste them."""

from __future__ import annotations

import os
from pathlib import Path

WINDOWS = os.name == "nt"
LONGEST = 260  # Windows' MAX_PATH, in characters with the terminating NUL; without long paths


def pasted(text: str) -> str:
    """`text` without the spaces and quotation marks that file managers put around paths."""
    return text.strip().strip('"').strip()


def at_home(text: str) -> Path:
    """`text` as a path with `~` expanded; unchanged if the home is unknown."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def existing_folder(text: str) -> Path | None:
    """The folder that `text` names, `~` expanded; None if it does not exist or has a `path_problem`."""
    if path_problem(text):
        return None
    try:
        path = at_home(text)
        return path if path.is_dir() else None
    except (OSError, ValueError):  # too long, no permission, or invalid
        return None


def split_repeats(entry: str) -> tuple[str, str | None]:
    """Path and N of a pasted PATH|N; N is None if it is missing. An existing folder whose name has a bar is not split."""
    path, bar, number = pasted(entry).rpartition("|")
    return (pasted(path), number) if bar and existing_folder(pasted(entry)) is None else (pasted(entry), None)


def path_problem(text: str, *, windows: bool = WINDOWS) -> str | None:
    r"""Why the path `text` is not accessed, or None: `\\host\share` is another machine, and `\\.\` and CON are devices.

    Windows accepts both slashes; elsewhere `//a` is `/a`, and a name may contain backslashes but not begin with two.
    """
    slashes = text.replace("/", "\\") if windows else text
    if slashes.startswith("\\\\"):
        return "is a path on another computer or of a device; use one on this computer, or map the share to a drive letter."
    device = next((part for part in slashes.split("\\") if is_device(part)), None) if windows else None
    return f"contains {device!r}, which Windows reserves for a device; rename it." if device else None


def missing_problem(text: str, *, windows: bool = WINDOWS) -> str:
    """The message for a folder that does not exist."""
    if windows and len(text) >= LONGEST:
        return f"does not exist, or has {len(text)} characters where Windows allows {LONGEST - 1}; move it to a shorter path."
    return "does not exist or is not a folder."


_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def is_device(name: str) -> bool:
    """Whether Windows treats a file name as a device, with any ending (CON.png is the console)."""
    return name.split(".")[0].rstrip(" ").lower() in _DEVICES
