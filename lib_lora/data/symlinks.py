"""Links that lead out of the folder that was named: what is behind them was not named, and is not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

NAMED = 5  # so many files are named in a sentence


def leads_out(path: Path, root: Path) -> bool:
    """Whether what lies at `path` lies outside of `root`, which is resolved; a loop of links lies nowhere."""
    try:
        return not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return True


def link_problem(links: Sequence[str], root: Path) -> str:
    """The sentence on links, by name, that lead out of `root`; behind the option's label."""
    are, target, them = ("are links", "their targets", "them") if len(links) > 1 else ("is a link", "its target", "it")
    return (
        f"{named(links)} {are} out of {root.name or str(root)!r} and will not be followed; copy {target} there, or remove {them}."
    )


def named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more
