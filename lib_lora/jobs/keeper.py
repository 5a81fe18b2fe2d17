"""How much jobs may keep beside their LoRAs, and that they keep no more: `kept.py` says what may go."""

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
    """The limit in GB, and what is wrong with the file that says it; where that cannot be read, the default."""
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
    """A limit as a person writes it.

    Raises:
        QueueError: it is none.
    """
    try:
        value = float(text.strip()[:40].replace(",", "."))
    except ValueError:
        value = math.nan
    if not _legal(value):
        raise QueueError(f"Kept by jobs: got {text.strip()[:40]!r}, must be a number of GB from 0 to {MOST_GB:g}.")
    return value


def write_limit(store: Store, gigabytes: float) -> None:
    """Keep the limit for the next start.

    Raises:
        QueueError: the disk refused.
    """
    store.write_text(LIMIT, json.dumps({"gb": gigabytes}))


def _legal(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST_GB


def in_words(size: float) -> str:
    """Bytes for a person to read."""
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"


class Keeper:
    """Keeps what jobs leave below a limit.

    Args:
        store: of the jobs.
        runs: where samples and states are.
        entries: all jobs, as they are at the moment.
        alone: a context in which nobody changes the list.
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
        """Look how much there is, and remove what is too much and may go by itself. Whether that is another sum than before."""
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
        """Keep another number of GB from now on; the sentence that says so.

        Raises:
            QueueError: it is no such number, or cannot be written down.
        """
        gigabytes = parse_limit(text)
        write_limit(self._store, gigabytes)
        self.renew()
        return f"Jobs may keep {gigabytes:g} GB."

    def remove(self, *, states: bool) -> str:
        """Remove what nobody can go on from; or, with `states`, what somebody could. The sentence that says how much went."""
        with self._alone():
            gone = [piece for piece in self._pieces() if piece.asks is states and remove(piece)]
        self.renew()
        return f"{in_words(sum(piece.size for piece in gone))} were removed."

    def shown(self) -> dict[str, Any]:
        """For a page."""
        kept = self.kept
        sizes = {"size": in_words(kept.size), "free": in_words(kept.free), "asked": in_words(kept.asked)}
        over = kept.size > self.limit_gb * GB
        return {**sizes, "limit": self.limit_gb, "can_free": kept.free > 0, "can_ask": kept.asked > 0, "over": over,
                "names": list(kept.names)}  # fmt: skip

    def _pieces(self) -> list[Piece]:
        return Survey(self._entries(), self._store, self._runs()).pieces()
