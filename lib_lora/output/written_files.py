"""What a run leaves on the disk: noted while it is written, told at the end, however the run ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MOST_NAMED = 10  # files of one kind in one folder that are named one by one


class WrittenFiles:
    """Files and folders that one run wrote, in their order."""

    def __init__(self) -> None:
        self._written: dict[Path, None] = {}

    def add(self, *paths: Path) -> None:
        """Take note of what was written, or of a folder that something was written into. Twice is once."""
        self._written.update(dict.fromkeys(paths))

    def paths(self) -> tuple[Path, ...]:
        """What of it is still there."""
        return tuple(path for path in self._written if _is_there(path))


def _is_there(path: Path) -> bool:
    """What cannot be looked at was written, and counts as there."""
    try:
        return path.exists()
    except OSError:
        return True


def left_lines(paths: Sequence[Path], *, folders: bool = True) -> list[str]:
    """A line for each path; of many files of one kind in a folder their number, and of a folder how much is in it.

    Args:
        paths: what was left.
        folders: whether the folders that it lies in are named; a page shows them to nobody.
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
    """How much lies in a folder; None where it is none, or cannot be looked at."""
    try:
        return sum(1 for _ in path.iterdir())
    except OSError:
        return None


def _counted(count: int, suffix: str = "") -> str:
    kind = f"{suffix.removeprefix('.')} file" if suffix else "file"
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"
