"""Symbolic links that lead out of the given folder; their targets are not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

NAMED = 5  # files named in a message


def leads_out(path: Path, root: Path) -> bool:
    """Whether `path` resolves to a place outside `root` (a resolved path), or is a loop of links."""
    try:
        return not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return True


def link_problem(links: Sequence[str], root: Path) -> str:
    """The problem of links (by name) that lead out of `root`, to follow the option's label."""
    are, lead, them = (
        ("are links that lead", "they lead", "them") if len(links) > 1 else ("is a link that leads", "it leads", "it")
    )
    return (
        f"{named(links)} {are} out of {root.name or str(root)!r} and will not be followed; "
        f"put there what {lead} to, or take {them} away."
    )


def named(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more
