"""What jobs keep on disk beside their LoRAs (samples, dropped pictures, latents, states), and what may be removed unasked.

Removed unasked, the oldest first: samples, latents, pictures of finished jobs without a state, and states of finished jobs
that have a newer one. States to resume from, and the pictures that they need, are removed only if the user asks.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib_lora.files.state_file import VALUES, remove_state
from lib_lora.jobs.owners import LOCK
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_store import JOB, Store, is_folder
from lib_lora.paths import at_home, split_repeats
from lib_lora.training.latent_cache import FOLDER as LATENTS
from lib_lora.training.latent_cache import is_ours

DATASETS = "datasets"  # folder of the named datasets
TAKEN = "taken"  # folder of uploads; a page that stays open may use them again
PAGE_S = 24 * 3600.0  # a page that stays open may use what was dropped on it for this long
MOST_FILES = 200_000  # limit on the files that are counted
_LATENT = re.compile(r"[0-9a-f]{32}\.safetensors")
Kind = Literal["samples", "pictures", "latents", "state", "drop"]


@dataclass(frozen=True)
class Piece:
    """A file or folder that is removed as a whole. `asks`: only if the user asks; None: never, since it is in use."""

    path: Path
    kind: Kind
    size: int
    when: float
    asks: bool | None
    name: str = ""


@dataclass(frozen=True)
class Kept:
    """Bytes kept, bytes that may be removed unasked, and bytes to be asked about, with the names of those jobs."""

    size: int = 0
    free: int = 0
    asked: int = 0
    names: tuple[str, ...] = ()


def summed(pieces: Collection[Piece]) -> Kept:
    """The sums over `pieces`."""
    asked = [piece for piece in pieces if piece.asks]
    return Kept(
        sum(piece.size for piece in pieces),
        sum(piece.size for piece in pieces if piece.asks is False),
        sum(piece.size for piece in asked),
        tuple(sorted({piece.name for piece in asked if piece.name})),
    )


class Survey:
    """Finds all that is kept; use it once.

    Args:
        entries: all jobs.
        store: the jobs on disk.
        runs: the host's work folder, with a folder for each name.
    """

    def __init__(self, entries: Collection[Entry], store: Store, runs: Path) -> None:
        self._entries, self._store, self._runs = entries, store, runs.resolve()
        self._seen: set[tuple[int, int]] = set()  # hard links count once
        self._room = MOST_FILES
        active = [entry for entry in entries if not entry.over]
        self._active = {entry.name.casefold() for entry in active}
        self._resumed = {str(text) for entry in active for text in (entry.settings.get("resume"), entry.goes_on_from) if text}
        self._used = {folder for entry in active for folder in _data(entry)}

    def pieces(self) -> list[Piece]:
        """All pieces, unordered."""
        return [*self._of_runs(), *self._of_jobs(), *self._of_folders(), *self._of_drops()]

    def _of_runs(self) -> Iterator[Piece]:
        for run in (path for path in _below(self._runs) if not path.is_symlink()):
            used = run.name.casefold() in self._active
            for path in _below(run / "samples"):
                yield self._piece(path, "samples", None if used else False, run.name)
            yield from self._of_states(run, used=used)

    def _of_states(self, run: Path, *, used: bool) -> Iterator[Piece]:
        states = sorted((path for path in _below(run) if (path / VALUES).is_file() and not path.is_symlink()), key=changed)
        owners = [entry for entry in self._entries if entry.name.casefold() == run.name.casefold()]
        finished = bool(owners) and all(entry.state == "finished" for entry in owners)
        named = {Path(entry.state_folder).name for entry in owners if entry.state_folder}
        for path in states:
            wanted = used or not self._resumed.isdisjoint({str(path), path.name, run.name})
            superseded = finished and path != states[-1] and path.name not in named
            yield self._piece(path, "state", None if wanted else not superseded, run.name)

    def _of_jobs(self) -> Iterator[Piece]:
        for entry in self._entries:
            folder = self._store.place(entry.id)
            asks = None if not entry.over else not (entry.state == "finished" and not is_folder(entry.state_folder or "\0"))
            for path in _below(folder):
                if path.is_dir() and not path.is_symlink():
                    yield from self._of_latents(path, used=not entry.over)
                    yield self._piece(path, "pictures", asks, entry.name)

    def _of_folders(self) -> Iterator[Piece]:
        """Latents beside pictures in folders that settings name (not dropped ones)."""
        for folder in {folder for entry in self._entries for folder in _data(entry)}:
            if not self._store.owns(str(folder)):
                used = any(folder == other or folder in other.parents or other in folder.parents for other in self._used)
                for place in (folder, *_below(folder)):
                    yield from self._of_latents(place, used=used)

    def _of_latents(self, folder: Path, *, used: bool) -> Iterator[Piece]:
        for path in [] if folder.is_symlink() else _below(folder / LATENTS):
            if _LATENT.fullmatch(path.name):
                yield self._piece(path, "latents", None if used else False)

    def _of_drops(self) -> Iterator[Piece]:
        """Pictures that were dropped on a page, whether or not a job has copied them."""
        uploads = self._store.private.resolve() if self._store.private else None
        for path in [*_below(uploads), *_below(uploads / TAKEN)] if uploads else []:
            if path.name not in (TAKEN, DATASETS):  # datasets are removed by the user alone
                yield self._piece(path, "drop", False if time.time() - changed(path) > PAGE_S else None)

    def _piece(self, path: Path, kind: Kind, asks: bool | None, name: str = "") -> Piece:
        return Piece(path, kind, self._size(path), changed(path), asks, name)

    def _size(self, path: Path) -> int:
        """Bytes of the files at and below a path, without those counted before."""
        total = 0
        for file in _files(path):
            self._room -= 1
            with contextlib.suppress(OSError):
                state = file.lstat()
                if stat.S_ISREG(state.st_mode) and (state.st_dev, state.st_ino) not in self._seen and self._room > 0:
                    self._seen.add((state.st_dev, state.st_ino))
                    total += state.st_size
        return total


def remove_oldest(pieces: Collection[Piece], limit: float) -> None:
    """Remove what may be removed unasked, oldest first, until `pieces` fit into `limit` bytes."""
    over = sum(piece.size for piece in pieces) - limit
    for piece in sorted((piece for piece in pieces if piece.asks is False), key=lambda piece: piece.when):
        if over <= 0:
            break
        if remove(piece):
            over -= piece.size


def remove(piece: Piece) -> bool:
    """Remove a piece; returns whether it is gone. Files of others stay, and links are not followed."""
    path = piece.path
    try:
        if piece.kind == "latents" and not is_ours(path):
            return False
        if piece.kind == "state":
            remove_state(path)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        if piece.kind in {"samples", "latents"}:
            with contextlib.suppress(OSError):  # the folder is not empty
                path.parent.rmdir()
    except OSError:
        return False
    return not path.exists()


def _data(entry: Entry) -> set[Path]:
    """The existing folders of pictures that a job's settings name."""
    lists = [values for name in ("data", "reg_data") if isinstance(values := entry.settings.get(name), list)]
    named = [at_home(split_repeats(str(text))[0]) for values in lists for text in values]
    return {path.resolve() for path in named if path.is_absolute() and is_folder(str(path))}


def _below(folder: Path) -> list[Path]:
    """The entries of a folder; none if it cannot be listed or is a link."""
    try:
        return [] if folder.is_symlink() else [path for path in folder.iterdir() if path.name not in {JOB, LOCK}]
    except (OSError, ValueError):
        return []


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)


def changed(path: Path) -> float:
    """When a file or folder was changed, in seconds since 1970; 0 if it does not exist any more."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
