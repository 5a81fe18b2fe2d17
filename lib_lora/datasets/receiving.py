"""Uploads in chunks: into a temporary file of the dataset, and from there to what the file is for."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lib_lora.data.conversion import UnusedError
from lib_lora.data.image_files import MAX_BYTES
from lib_lora.datasets.arrivals import Arrival, Arrivals
from lib_lora.datasets.kinds import START, ZIP, Kind, kind_of
from lib_lora.datasets.placing import ARRIVING
from lib_lora.datasets.zips import import_zip
from lib_lora.errors import DatasetError, DiskError, TooLargeError
from lib_lora.files.atomic import TEMPORARY, passing_ending, passing_name

MAX_ZIP_BYTES = 16 * 2**30
LONGEST_NAME = 300  # characters that are read of a name; its end counts
LEFT_OVER_S = 24 * 3600  # age of temporary files that nobody writes any more


class Receiving:
    """One upload. As a context it leaves nothing behind unless it was finished. One thread at a time may call its methods.

    Args:
        arrivals: of the drop that the file belongs to.
        name: as the page sends it; untrusted.
        folder: a numbered folder of the dataset, or empty. Zips have their own.
        reg: whether the dataset is one of regularisation images; a zip may contain both kinds.

    Raises:
        DatasetError: the dataset takes no files, or the disk refused.
    """

    def __init__(self, arrivals: Arrivals, name: str, folder: str = "", *, reg: bool = False) -> None:
        self._arrivals, self._name, self._folder = arrivals, name[-LONGEST_NAME:], folder
        self._reg = reg
        self._kind: Kind | None = None  # None until START bytes are here
        self._start, self._bytes = b"", 0
        self._refused: DatasetError | None = None
        dataset = arrivals.dataset
        dataset.check_open([folder] if folder else [])
        folder_path = dataset.folder.parent / ARRIVING
        try:
            folder_path.mkdir(exist_ok=True)
            remove_left_over(folder_path)
            self._path = folder_path / passing_name("upload", TEMPORARY)
            self._file = self._path.open("xb")
        except OSError as error:
            raise self._no_room(error) from error

    def write(self, chunk: bytes) -> None:
        """Add bytes. A file that will not be used is refused as early as its content tells.

        Raises:
            DatasetError: it is too large, of no use, or the disk refused; nothing is left of it.
        """
        if self._refused is not None:
            raise self._refused
        try:
            self._bytes += len(chunk)
            self._start += chunk[: START - len(self._start)]
            if self._kind is None and len(self._start) == START:
                self._kind = kind_of(self._name, self._start)
            self._check()
            self._file.write(chunk)
        except DatasetError as error:
            raise self._given_up(error) from error
        except OSError as error:
            raise self._given_up(self._no_room(error)) from error

    def finish(self) -> Arrival:
        """Take the file into the dataset; returns what was added.

        Raises:
            DatasetError: it cannot be used; nothing is left of it.
        """
        if self._refused is not None:
            raise self._refused
        try:
            self._file.close()
            self._kind = kind_of(self._name, self._start)
            self._check()
            if self._kind is ZIP:
                dataset, readers = self._arrivals.dataset, self._arrivals.readers
                done = import_zip(self._path, self._name, dataset, readers, reg=self._reg)
                return Arrival(done.names, done.captions, done.told)
            return self._arrivals.take(self._name, self._path, self._folder)
        except OSError as error:
            raise self._no_room(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove what has arrived; after `finish` there is nothing to remove."""
        if self._refused is None:
            self._refused = DatasetError([f"The upload of {self._name!r} has ended; send the file again."])
        with suppress(OSError):  # a full disk refuses the last bytes
            self._file.close()
        with suppress(OSError):  # removed when it is old
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Receiving:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abandon()

    def _check(self) -> None:
        """Check kind and size so far."""
        if self._kind is not None and self._kind.why:
            raise UnusedError(self._name, self._kind.why)
        most = MAX_ZIP_BYTES if self._kind is ZIP else MAX_BYTES
        if self._bytes > most:
            shown = f"{most // 2**30} GB; split it" if self._kind is ZIP else f"{most // 2**20} MB; shrink it"
            raise TooLargeError([f"{self._name!r}: larger than {shown}."])

    def _given_up(self, error: DatasetError) -> DatasetError:
        self._refused = error
        self.abandon()
        return error

    def _no_room(self, error: OSError) -> DatasetError:
        try:
            self._arrivals.dataset.require_there()
        except DatasetError as gone:
            return gone
        why = error.strerror or error
        return DiskError([f"{self._name!r} cannot be stored ({why}); free space or check permissions, and send it again."])


def remove_left_over(folder: Path) -> None:
    """Remove the temporary files and folders that a program left when it was ended; uploads in progress are written to."""
    for path in folder.iterdir():
        with suppress(OSError):  # in use, or gone meanwhile
            if passing_ending(path.name) == TEMPORARY and path.stat().st_mtime < time.time() - LEFT_OVER_S:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
