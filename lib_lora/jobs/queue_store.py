"""Jobs on disk: a folder for each, with `job.json` and the images that belong to it; and one file that says the order.

Every file is replaced as a whole, a new folder gets its name when all is in it, and a removed one loses it first. So a program
that dies at any moment leaves the jobs of before or of after.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lib_lora.errors import TrainLoraError
from lib_lora.jobs.queue_entry import Entry, broken, read_entry
from lib_lora.output.atomic import write_atomically

JOB, ORDER = "job.json", "order.json"
MAX_BYTES = 4 * 2**20  # of a file that is read
_UNFINISHED, _GONE, _BAD = ".tmp", ".gone", ".bad"


class QueueError(TrainLoraError):
    """The list of jobs cannot be written, or holds no such job."""


class Store:
    """The folder of all jobs.

    Args:
        folder: starts with a dot, as no name of a LoRA does.
        private: where dropped images lie until they belong to a job.
    """

    def __init__(self, folder: Path, private: Path | None = None) -> None:
        self._folder, self._private = folder, private
        self.put_aside = ""  # what `load` found and did not use, as a sentence

    def owns(self, text: str) -> bool:
        """Whether a path, or PATH|N, is a folder of a job's own."""
        folder, _ = _split(text)
        return self._folder.resolve() in folder.resolve().parents

    def load(self) -> list[Entry]:
        """Every job, in order, broken ones too. Leftovers of a sudden end are swept away, an order that is none is put aside."""
        if not self._folder.is_dir():
            return []
        entries = []
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):
                if path.is_dir() and path.suffix in {_UNFINISHED, _GONE}:
                    shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                entries.append(_read(path))
        order = {name: place for place, name in enumerate(self._order())}
        return sorted(entries, key=lambda entry: (order.get(entry.id, len(order)), entry.queued))

    def add(self, entry: Entry) -> Entry:
        """Write a new job; dropped images, and those of an older job, become its own. The entry as it was written.

        Raises:
            QueueError: the disk refused; no part of the job is left.
        """
        temporary = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{entry.id}-", suffix=_UNFINISHED, dir=self._folder))
            data = [self._take(str(text), temporary, self._folder / entry.id) for text in entry.settings.get("data", ())]
            written = dataclasses.replace(entry, settings={**entry.settings, "data": data})
            write_atomically(temporary / JOB, written.to_json().encode())
            temporary.replace(self._folder / entry.id)
        except OSError as error:
            raise _refused(error) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        return written

    def write(self, entry: Entry) -> None:
        """Replace what is written of a job.

        Raises:
            QueueError: the disk refused; what was written before is still there.
        """
        if not (self._folder / entry.id).is_dir():
            raise QueueError("The job is not there any more.")
        _write(self._folder / entry.id / JOB, entry.to_json())

    def write_order(self, ids: Sequence[str]) -> None:
        """Replace the order of jobs.

        Raises:
            QueueError: the disk refused; the order is as it was.
        """
        _write(self._folder / ORDER, json.dumps(list(ids)))

    def remove(self, entry_id: str) -> None:
        """Take a job and its images away: out of sight at once, then off the disk.

        Raises:
            QueueError: the disk refused; it is still there.
        """
        folder = self._folder / entry_id
        gone = self._folder / f".{entry_id}-{os.getpid()}{_GONE}"
        try:
            if folder.exists():
                folder.replace(gone)
        except OSError as error:
            raise _refused(error) from error
        shutil.rmtree(gone, ignore_errors=True)

    def _order(self) -> list[str]:
        """What the file says; where it cannot be read, jobs stand in the order in which they came, and the file is kept."""
        path = self._folder / ORDER
        try:
            order = json.loads(_bounded(path))
            if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
                raise ValueError("it is no list of names")
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            kept = f"the file is kept as {ORDER + _BAD!r}"
            try:
                path.replace(path.with_name(ORDER + _BAD))
            except OSError as refused:
                kept = f"the file cannot be put aside ({refused.strerror})"
            self.put_aside = f"The order of the jobs could not be read ({_reason(error)}); they stand as they came, and {kept}."
            return []
        return order

    def _take(self, text: str, temporary: Path, final: Path) -> str:
        """A path, or PATH|N, of the settings; a private folder is copied into the job's own, and its new place returned."""
        folder, repeats = _split(text)
        private = self._private is not None and self._private.resolve() in folder.resolve().parents
        if not folder.is_dir() or not (private or self.owns(text)):
            return text
        name = folder.resolve().name
        while (temporary / name).exists():
            name += "_"
        shutil.copytree(folder, temporary / name, copy_function=_link)
        return str(final / name) + repeats


def _split(text: str) -> tuple[Path, str]:
    """The path and `|N` of PATH|N; a folder whose name has a bar in it is taken as it is."""
    path, bar, number = text.rpartition("|")
    return (Path(path), bar + number) if bar and not Path(text).is_dir() else (Path(text), "")


def _read(folder: Path) -> Entry:
    try:
        return read_entry(folder.name, _bounded(folder / JOB))
    except (OSError, ValueError, RecursionError) as error:
        return broken(folder.name, _reason(error), folder.stat().st_mtime)


def _bounded(path: Path) -> str:
    """The text of a file that anybody may have edited."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise _refused(error) from error


def _refused(error: OSError) -> QueueError:
    return QueueError(f"The list of jobs could not be written ({error.strerror or error}); free space or check permissions.")


def _link(source: str, target: str) -> str:
    """The same file under a second name, which takes no room; a copy where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
