"""Paths as people paste them: what is taken off, what is refused, and which folder is meant."""

from __future__ import annotations

import os
from pathlib import Path

WINDOWS = os.name == "nt"
LONGEST = 260  # characters of a path that Windows finds unless long paths are switched on; its end mark is one of them


def pasted(text: str) -> str:
    """Without the spaces and the quotation marks that file managers put around a path, or leave behind it."""
    return text.strip().strip('"').strip()


def at_home(text: str) -> Path:
    """The path that `text` is, `~` being one's home; as it stands where it is the home of nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def existing_folder(text: str) -> Path | None:
    """The folder that `text` names, `~` being one's home; None where there is none, or it is not looked for."""
    if path_problem(text):
        return None
    try:
        path = at_home(text)
        return path if path.is_dir() else None
    except (OSError, ValueError):  # too long, not to be looked at, or no text that a disk knows
        return None


def split_repeats(entry: str) -> tuple[str, str | None]:
    """Path and N of PATH|N, as it was pasted; N is None where there is none. A folder whose name has a bar is taken as it is."""
    path, bar, number = pasted(entry).rpartition("|")
    return (pasted(path), number) if bar and existing_folder(pasted(entry)) is None else (pasted(entry), None)


def path_problem(text: str, *, windows: bool = WINDOWS) -> str | None:
    r"""Why nothing is looked for at `text`, or None: `\\host\share` asks another machine, and `\\.\` and CON are devices.

    Windows takes slashes of both kinds; elsewhere `//a` is `/a`, and a name may hold backslashes, but none begins with two.
    """
    slashes = text.replace("/", "\\") if windows else text
    if slashes.startswith("\\\\"):
        return "is a path on another computer or of a device; use one on this computer, or map the share to a drive letter."
    device = next((part for part in slashes.split("\\") if is_device(part)), None) if windows else None
    return f"contains {device!r}, which Windows reserves for a device; rename it." if device else None


def missing_problem(text: str, *, windows: bool = WINDOWS) -> str:
    """What is said of a folder that is not found."""
    if windows and len(text) >= LONGEST:
        return f"does not exist, or has {len(text)} characters where Windows allows {LONGEST - 1}; move it to a shorter path."
    return "does not exist or is not a folder."


_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def is_device(name: str) -> bool:
    """Whether Windows takes a file of this name for a device, whatever its ending (CON.png is the console)."""
    return name.split(".")[0].rstrip(" ").lower() in _DEVICES
