"""Decodes images first in a separate process, so that one that crashes or hangs its decoder does no other harm.

Decoders are old C, and a crafted image may break them. An image that was decoded whole once, and has not changed since, is
then decoded in the webui's own process.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from lib_lora.data.conversion import UnusedError
from lib_lora.data.decoder_main import READY
from lib_lora.data.hidden_names import given_name
from lib_lora.data.image_facts import ImageFacts
from lib_lora.data.image_files import NotNowError, Picture
from lib_lora.data.sizes import Crop, Size
from lib_lora.errors import DatasetError

SECONDS = 60.0  # an image of 64 million pixels takes 2 s
START_S = 60.0  # for Python on a slow disk
_ROOT = Path(__file__).parents[2]
# finds the module from any working directory and Python; newer Pillows import numpy for type hints alone, which would take longer
# than the rest of the start
COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.modules['numpy'] = None; sys.path.insert(0, {str(_ROOT)!r}); "
    "from lib_lora.data.decoder_main import main; main()",
)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_LONGEST_REASON = 200


class NoReaderError(NotNowError):
    """The decoder process does not start; no image is at fault."""


class Look(NamedTuple):
    """The facts of an image; `unsaved`: why its thumbnail could not be written, or empty.

    `whole`: it was decoded to all of its pixels. All of its data were decoded in either case.
    """

    facts: ImageFacts
    unsaved: str
    whole: bool = True


class Mask(NamedTuple):
    """A mask image that was decoded whole. `covered`: the mean of its red channel, 0 to 1."""

    size: Size
    sha256: str
    covered: float


class Reader:
    """A decoder process for one image at a time. It starts with the first image, and again after an image that ended it.

    Args:
        command: starts the process; `seconds` is appended.
        seconds: time limit per image. The process ends itself a little later, in case its parent is gone.
        start_s: time limit for the start.
    """

    def __init__(self, command: Sequence[str] = COMMAND, seconds: float = SECONDS, start_s: float = START_S) -> None:
        self._command, self._seconds, self._start_s = (*command, f"{seconds:g}"), seconds, start_s
        self._process: subprocess.Popen[str] | None = None

    def picture(self, path: Path) -> Picture:
        """Size and hash of an image, which is read once and decoded whole.

        Raises:
            DatasetError: the file is not a readable image, or its decoder crashed twice or did not end.
            NotNowError: the file could not be read this time.
            NoReaderError: the process does not start.
        """
        answer = self._answer(str(path), given_name(path))
        return Picture(Size(*answer["size"]), answer["sha256"])

    def size(self, path: Path) -> Size:
        """The size of an image (EXIF rotation applied) from its header, which says nothing of the rest of the file.

        Raises:
            DatasetError, NotNowError, NoReaderError: as `picture`.
        """
        return Size(*self._answer({"path": str(path), "header": True}, given_name(path))["size"])

    def look(self, path: Path, thumbnail: Path, side: int) -> Look:
        """All facts of an image, which is decoded once; a JPEG with the longest side at most `side` pixels is written.

        Of a large JPEG, fewer pixels are made than it has; `picture` makes all.

        Raises:
            DatasetError, NotNowError, NoReaderError: as `picture`.
        """
        answer = self._answer({"path": str(path), "thumbnail": str(thumbnail), "side": side}, given_name(path))
        facts = ImageFacts(
            Size(*answer["size"]), answer["sha256"], answer["turned"], answer["transparent"], int(answer["hash"], 16),
            answer["sharpness"],
        )  # fmt: skip
        return Look(facts, answer["unsaved"], answer.get("whole", True))

    def written(self, source: Path, target: Path, name: str, kind: str | None = None, crop: Crop | None = None) -> str:
        """Write an image of another format, or a part of an image, to `target`; returns the suffix that it should have.

        `name`: of the source, for messages. `kind`: HEIF, AVIF, GIF or TIFF; None for a part, `crop`, of an image.

        Raises:
            UnusedError: the image cannot be converted.
            DatasetError, NotNowError, NoReaderError: as `picture`. `target` may be incomplete.
        """
        request = {"source": str(source), "target": str(target), "name": name, "format": kind, "crop": crop}
        answer = self._answer(request, name)
        if "why" in answer:
            raise UnusedError(name, answer["why"])
        return str(answer["suffix"])

    def start(self) -> None:
        """Start the process, so that the first image does not wait for it.

        Raises:
            NoReaderError: it does not start.
        """
        self._started()

    def mask(self, path: Path, crop: Crop | None = None) -> Mask:
        """The facts of a mask image. `crop`: the part of it that `covered` is of.

        Raises:
            DatasetError, NotNowError, NoReaderError: as `picture`.
        """
        answer = self._answer({"mask": str(path), "crop": crop}, given_name(path))
        return Mask(Size(*answer["size"]), answer["sha256"], answer["covered"])

    def write_mask(self, image: Path, target: Path, how: str, mask: Path | None = None) -> float:
        """Write a mask of an image as a grey PNG; returns its mean, 0 to 1. `how`: as in `written_mask`.

        Raises:
            DatasetError: it does not fit the image, or is black everywhere.
            NotNowError, NoReaderError: as `picture`. `target` may be incomplete.
        """
        name = given_name(image)
        request = {"image": str(image), "target": str(target), "how": how, "mask": mask and str(mask), "name": name}
        return float(self._answer(request, name)["covered"])

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()  # closes the pipes, and waits

    def _answer(self, request: object, name: str) -> dict[str, Any]:
        """The answer to a request on the image `name`."""
        said, late = self._asked(request)
        if not said and not late:  # something else may have ended the process
            said, late = self._asked(request)
        if not said:
            why = f"takes longer than {self._seconds:g} s to read" if late else "crashes the program that reads it"
            raise DatasetError([f"Image {name!r} {why}; save it again or remove it."])
        answer: dict[str, Any] = json.loads(said)
        if "problems" in answer:
            raise (NotNowError if answer["for_now"] else DatasetError)(answer["problems"])
        return answer

    def _asked(self, request: object) -> tuple[str, bool]:
        """The answer, "" if the process ended; and whether it was killed by the time limit."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:  # the pipe is broken
            self.close()
            return "", False
        said, late = _line(process, self._seconds)
        if not said:
            self.close()
        return said, late

    def _started(self) -> subprocess.Popen[str]:
        """The process, started if necessary and ready."""
        if self._process is not None and self._process.poll() is not None:  # it ended while idle
            self.close()
        if self._process is None:
            with tempfile.TemporaryFile() as errors:
                try:
                    self._process = subprocess.Popen(
                        self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                        encoding="ascii", errors="replace", env={**os.environ, **_ONE_THREAD},
                        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                    )  # fmt: skip
                except OSError as error:
                    raise _no_reader(self._command[0], error.strerror or str(error)) from error
                said, late = " ", False
                while said and said.strip() != READY:  # skip the output of other code
                    said, late = _line(self._process, self._start_s)
                if not said:
                    self.close()
                    raise _no_reader(self._command[0], f"not ready after {self._start_s:g} s" if late else _last_line(errors))
        return self._process


def _line(process: subprocess.Popen[str], seconds: float) -> tuple[str, bool]:
    """The next line, "" if the process ended; and whether it was killed by the time limit."""
    assert process.stdout is not None
    late = threading.Event()
    timer = threading.Timer(seconds, _kill, (process, late))
    timer.daemon = True
    timer.start()
    try:
        return process.stdout.readline(), late.is_set()
    finally:
        timer.cancel()


def _kill(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.kill()


def _last_line(errors: IO[bytes]) -> str:
    """The last error line of a process that did not start."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:_LONGEST_REASON] if lines else "it exits at once"


def _no_reader(program: str, why: str) -> NoReaderError:
    start = f"No image can be read: the program that reads them, {program!r}, does not start"
    return NoReaderError([f"{start} ({why}); repair the Python of the webui."])


class Readers:
    """A pool of readers, one per concurrent thread, that end with the block. A reader that does not start is not retried."""

    def __init__(self, make: Callable[[], Reader] = Reader) -> None:
        self._make = make
        self._idle: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        self._all: list[Reader] = []
        self._none: NoReaderError | None = None

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for reader in self._all:
            reader.close()

    def picture(self, path: Path) -> Picture:
        """As `Reader.picture`, from any thread."""
        with self._lent() as reader:
            return reader.picture(path)

    def written(self, source: Path, target: Path, name: str, kind: str | None = None, crop: Crop | None = None) -> str:
        """As `Reader.written`, from any thread."""
        with self._lent() as reader:
            return reader.written(source, target, name, kind, crop)

    def look(self, path: Path, thumbnail: Path, side: int) -> Look:
        """As `Reader.look`, from any thread."""
        with self._lent() as reader:
            return reader.look(path, thumbnail, side)

    def mask(self, path: Path, crop: Crop | None = None) -> Mask:
        """As `Reader.mask`, from any thread."""
        with self._lent() as reader:
            return reader.mask(path, crop)

    def write_mask(self, image: Path, target: Path, how: str, mask: Path | None = None) -> float:
        """As `Reader.write_mask`, from any thread."""
        with self._lent() as reader:
            return reader.write_mask(image, target, how, mask)

    @contextmanager
    def _lent(self) -> Iterator[Reader]:
        """A reader that nobody else uses."""
        if self._none is not None:
            raise NoReaderError(self._none.problems)
        try:
            reader = self._idle.get_nowait()
        except queue.Empty:
            reader = self._make()
            self._all.append(reader)
        try:
            yield reader
        except NoReaderError as error:
            self._none = error
            raise
        finally:
            self._idle.put(reader)
