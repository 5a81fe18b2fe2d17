"""The disk limit for what jobs keep beside their LoRAs, and its enforcement; `kept.py` decides what may be removed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lib_lora.jobs.kept import Kept, Piece, Survey, remove, remove_oldest, summed
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_store import QueueError, Store

LIMIT_GB = 20.0  # about twenty states of an SDXL LoRA of rank 32; a disk for checkpoints has hundreds
MOST_GB = 1e6
LIMIT = "keep.json"
GB = 1e9


def read_limit(store: Store) -> tuple[float, str]:
    """The limit in GB, and the problem if its file cannot be read; then the limit is the default."""
    try:
        value = json.loads(store.text_of(LIMIT))
        legal = isinstance(value, dict) and _legal(value.get("gb"))
        if not legal:
            raise ValueError(f"it must be a number from 0 to {MOST_GB:g}")
        return float(value["gb"]), ""
    except FileNotFoundError:
        return LIMIT_GB, ""
    except (OSError, ValueError, RecursionError) as error:
        told = f"The limit for jobs cannot be read from {LIMIT!r} ({str(error)[:80]}); it is {LIMIT_GB:g} GB."
        return LIMIT_GB, told


def parse_limit(text: str) -> float:
    """The limit in GB that a user typed.

    Raises:
        QueueError: it is not a number of GB within the bounds.
    """
    try:
        value = float(text.strip()[:40].replace(",", "."))
    except ValueError:
        value = math.nan
    if not _legal(value):
        raise QueueError(f"Kept by jobs: got {text.strip()[:40]!r}, must be a number of GB from 0 to {MOST_GB:g}.")
    return value


def _legal(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST_GB


def in_words(size: float) -> str:
    """A size in bytes as readable text."""
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"


class Keeper:
    """Keeps what jobs leave on disk below a limit.

    Args:
        store: the jobs on disk.
        runs: returns the folder of samples and states.
        entries: returns all jobs at the moment.
        alone: a context in which nobody else changes the list.
    """

    def __init__(
        self,
        store: Store,
        runs: Callable[[], Path],
        entries: Callable[[], tuple[Entry, ...]],
        alone: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._store, self._runs, self._entries, self._alone = store, runs, entries, alone
        self.kept = Kept()
        self.limit_gb, self.trouble = read_limit(store)

    def renew(self) -> bool:
        """Measure what is kept; remove what is over the limit and may be removed unasked. Returns whether anything changed."""
        before = self.kept, self.limit_gb
        self.limit_gb, self.trouble = read_limit(self._store)  # another program may have set it
        pieces = self._pieces()
        self.kept = summed(pieces)
        if self.kept.size > self.limit_gb * GB and self.kept.free:
            with self._alone():
                remove_oldest(self._pieces(), self.limit_gb * GB)
            self.kept = summed(self._pieces())
        return before != (self.kept, self.limit_gb)

    def set_limit(self, text: str) -> str:
        """Set the limit in GB; returns a confirmation.

        Raises:
            QueueError: `text` is not a valid number, or the limit cannot be saved.
        """
        gigabytes = parse_limit(text)
        self._store.write_text(LIMIT, json.dumps({"gb": gigabytes}))
        self.renew()
        return f"Jobs may keep {gigabytes:g} GB."

    def remove(self, *, states: bool) -> str:
        """Remove what may be removed unasked, or with `states` what a user must ask for; returns how much was removed."""
        with self._alone():
            gone = [piece for piece in self._pieces() if piece.asks is states and remove(piece)]
        self.renew()
        return f"{in_words(sum(piece.size for piece in gone))} were removed."

    def shown(self) -> dict[str, Any]:
        """The sizes and the limit, for the page."""
        kept = self.kept
        sizes = {"size": in_words(kept.size), "free": in_words(kept.free), "asked": in_words(kept.asked)}
        over = kept.size > self.limit_gb * GB
        return {**sizes, "limit": self.limit_gb, "can_free": kept.free > 0, "can_ask": kept.asked > 0, "over": over,
                "names": list(kept.names)}  # fmt: skip

    def _pieces(self) -> list[Piece]:
        return Survey(self._entries(), self._store, self._runs()).pieces()
