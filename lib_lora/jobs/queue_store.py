"""Jobs on disk: a folder for each, with `job.json` and its images, and one file with their order.

Every file is replaced atomically, a new folder is renamed into place when complete, and a removed one is renamed away first.
A program that dies at any moment therefore leaves either the old or the new list.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_lora.errors import TrainLoraError
from lib_lora.files.atomic import link_or_copy, write_atomically
from lib_lora.jobs.owners import Owners
from lib_lora.jobs.queue_entry import Entry, broken, read_entry
from lib_lora.paths import split_repeats

JOB, ORDER = "job.json", "order.json"
MAX_BYTES = 4 * 2**20  # largest file that is read
_UNFINISHED, _GONE, _BAD = ".tmp", ".gone", ".bad"
_BYTES = "bytes-"  # prefix of the id of a folder whose name is not valid UTF-8


class QueueError(TrainLoraError):
    """The list of jobs cannot be written, or holds no such job."""


class Store:
    """The folder of all jobs.

    Args:
        folder: below a folder that starts with a dot, as no name of a LoRA does.
        private: where dropped images are until they belong to a job.
    """

    def __init__(self, folder: Path, private: Path | None = None) -> None:
        self._folder, self.private = folder, private
        self.owners = Owners(folder)
        self._known: dict[str, tuple[tuple[int, int, int], Entry]] = {}  # id -> time, size and inode of the file, and its entry
        self.put_aside = ""  # a message on an order file that could not be used

    def owns(self, text: str) -> bool:
        """Whether a path, or PATH|N, is a folder that belongs to a job."""
        return _is_below(Path(split_repeats(text)[0]), self._folder)

    def load(self) -> list[Entry]:
        """As `read`, after removing leftovers of a program that was killed."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name.startswith(".") and path.suffix in {_UNFINISHED, _GONE} and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        return self.read()

    def read(self) -> list[Entry]:
        """Every job in order, broken ones too; unchanged files are not read again, an invalid order file is renamed.

        Raises:
            OSError: the folder cannot be listed.
        """
        with contextlib.suppress(FileNotFoundError):
            found = [self._entry(path) for path in sorted(self._folder.iterdir()) if not path.name.startswith((".", ORDER))]
            entries = [entry for entry in found if entry is not None]
            self._known = {entry.id: self._known[entry.id] for entry in entries if entry.id in self._known}
            order = {name: place for place, name in enumerate(self._order())}
            return sorted(entries, key=lambda entry: (order.get(entry.id, len(order)), entry.queued))
        return []

    def _entry(self, folder: Path) -> Entry | None:
        """The job in a folder; None if it is not a folder or does not exist any more."""
        try:
            itself = folder.stat()
        except OSError:
            return None
        if not stat.S_ISDIR(itself.st_mode):
            return None
        try:
            state = (folder / JOB).stat()
            key = (state.st_mtime_ns, state.st_size, state.st_ino)
        except OSError:
            key = (0, 0, 0)
        entry_id = _id(folder.name)
        known = self._known.get(entry_id)
        if known is None or known[0] != key or key == (0, 0, 0):
            try:
                known = key, read_entry(entry_id, _bounded(folder / JOB))
            except (OSError, ValueError, RecursionError) as error:
                known = key, broken(entry_id, _reason(error), itself.st_mtime)
            self._known[entry_id] = known
        return known[1]

    def place(self, entry_id: str) -> Path:
        """The folder of a job."""
        if entry_id.startswith(_BYTES) and not (self._folder / entry_id).exists():
            return self._folder / os.fsdecode(bytes.fromhex(entry_id[len(_BYTES) :]))
        return self._folder / entry_id

    def add(self, entry: Entry) -> Entry:
        """Write a new job with copies of its dropped images, or those of an older job; returns the entry as written.

        Raises:
            QueueError: the disk refused; no part of the job is left.
        """
        temporary = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{entry.id}-", suffix=_UNFINISHED, dir=self._folder))
            final = self._folder / entry.id
            taken: dict[str, Any] = {
                name: [self._take(str(text), temporary, final) for text in entry.settings[name]]
                for name in ("data", "reg_data")
                if name in entry.settings
            }
            written = dataclasses.replace(entry, settings={**entry.settings, **taken})
            write_atomically(temporary / JOB, _bytes(written))
            temporary.replace(self._folder / entry.id)
        except OSError as error:
            raise _refused(error) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        return written

    def write(self, entry: Entry) -> None:
        """Replace the file of a job.

        Raises:
            QueueError: the disk refused, and the old file is unchanged; or the job does not exist any more.
        """
        if not self.place(entry.id).is_dir():
            raise QueueError("The job does not exist any more.")
        _write(self.place(entry.id) / JOB, _bytes(entry))

    def write_order(self, ids: Sequence[str]) -> None:
        """Replace the order of jobs.

        Raises:
            QueueError: the disk refused; the order is unchanged.
        """
        _write(self._folder / ORDER, json.dumps(list(ids)).encode())

    def text_of(self, name: str) -> str:
        """The text of a file that belongs to all jobs.

        Raises:
            OSError, ValueError: it does not exist or cannot be read.
        """
        return _bounded(self._folder / name)

    def write_text(self, name: str, text: str) -> None:
        """Replace a file that belongs to all jobs.

        Raises:
            QueueError: the disk refused; the file is unchanged.
        """
        _write(self._folder / name, text.encode())

    def remove(self, entry_id: str) -> None:
        """Remove a job and its images: renamed first, then deleted.

        Raises:
            QueueError: the disk refused; the job still exists.
        """
        folder = self.place(entry_id)
        gone = self._folder / f".{uuid.uuid4().hex}{_GONE}"
        try:
            if folder.exists():
                folder.replace(gone)
        except OSError as error:
            raise _refused(error) from error
        shutil.rmtree(gone, ignore_errors=True)

    def _order(self) -> list[str]:
        """The ids in the order file; if it cannot be read, none, and the file is kept under another name."""
        path = self._folder / ORDER
        try:
            order = json.loads(_bounded(path))
            if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
                raise ValueError("it is not a list of names")
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            kept = f"the file is kept as {ORDER + _BAD!r}"
            try:
                path.replace(path.with_name(ORDER + _BAD))
            except OSError as refused:
                kept = f"the file cannot be renamed ({refused.strerror})"
            self.put_aside = (
                f"The order of the jobs could not be read ({_reason(error)}); they are in the order in which they were added, "
                f"and {kept}."
            )
            return []
        return order

    def _take(self, text: str, temporary: Path, final: Path) -> str:
        """A path, or PATH|N, of the settings; a private folder is copied into the job's folder, and its new path returned."""
        path, repeats = split_repeats(text)
        folder = Path(path)
        private = self.private is not None and _is_below(folder, self.private)
        if not (private or self.owns(text)) or not folder.is_dir():
            return text
        name = folder.resolve().name
        while (temporary / name).exists():
            name += "_"
        shutil.copytree(folder, temporary / name, copy_function=link_or_copy)
        return str(final / name) + ("" if repeats is None else f"|{repeats}")


def _is_below(path: Path, folder: Path) -> bool:
    """Whether an untrusted path leads into `folder`."""
    try:
        return folder.resolve() in path.resolve().parents
    except (OSError, ValueError, RuntimeError):  # too long, invalid, or a loop of links
        return False


def is_folder(text: str) -> bool:
    """Whether an untrusted text is the path of an existing folder."""
    try:
        return bool(text) and Path(text).is_dir()
    except (OSError, ValueError):  # too long, invalid, or no permission
        return False


def _id(name: str) -> str:
    """The id for a folder: its name, or its bytes in hexadecimal if the name is not valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return _BYTES + os.fsencode(name).hex()
    return name


def _bounded(path: Path) -> str:
    """The text of an untrusted file; raises ValueError if it is not a regular file or too large."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):  # reading a pipe would block
        raise ValueError("it is not a file")
    if state.st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _bytes(entry: Entry) -> bytes:
    """The file content of a job. Names that are not valid UTF-8 keep their bytes, as JSON escapes.

    Raises:
        QueueError: it holds a value that cannot be written.
    """
    try:
        return entry.to_json().encode(errors="backslashreplace")
    except (ValueError, TypeError, RecursionError) as error:
        raise QueueError(f"The job {entry.name!r} cannot be saved ({_reason(error)}).") from error


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise _refused(error) from error


def _refused(error: OSError) -> QueueError:
    return QueueError(f"The list of jobs could not be written ({error.strerror or error}); free space or check permissions.")
