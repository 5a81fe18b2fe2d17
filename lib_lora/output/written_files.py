"""The files that a run wrote, recorded as they are written and listed at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MOST_NAMED = 10  # files of one type in one folder that are listed one by one


class WrittenFiles:
    """Files and folders that one run wrote, in order."""

    def __init__(self) -> None:
        self._written: dict[Path, None] = {}

    def add(self, *paths: Path) -> None:
        """Record files that were written, or folders that were written into. Duplicates count once."""
        self._written.update(dict.fromkeys(paths))

    def paths(self) -> tuple[Path, ...]:
        """The recorded paths that still exist."""
        return tuple(path for path in self._written if _is_there(path))


def _is_there(path: Path) -> bool:
    """Whether a path exists; True if that cannot be determined."""
    try:
        return path.exists()
    except OSError:
        return True


def left_lines(paths: Sequence[Path], *, folders: bool = True) -> list[str]:
    """A line for each path, with a folder's number of files; many files of one type in one folder share a line.

    Args:
        paths: files and folders.
        folders: whether to name the folders that contain them; pages do not show these.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        groups.setdefault((path, "") if _inside(path) is not None else (path.parent, path.suffix), []).append(path)
    lines = []
    for (place, suffix), members in groups.items():
        if members == [place]:
            lines.append(f"{place if folders else place.name} ({_counted(_inside(place) or 0)})")
        elif len(members) > MOST_NAMED:
            lines.append(f"{place} ({_counted(len(members), suffix)})" if folders else _counted(len(members), suffix))
        else:
            lines += [str(path) if folders else path.name for path in members]
    return lines


def _inside(path: Path) -> int | None:
    """The number of entries in a folder; None if it is not a folder or cannot be listed."""
    try:
        return sum(1 for _ in path.iterdir())
    except OSError:
        return None


def _counted(count: int, suffix: str = "") -> str:
    kind = f"{suffix.removeprefix('.')} file" if suffix else "file"
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"
