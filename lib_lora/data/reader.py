"""Pictures are decoded first in a process apart: one that crashes its decoder, or keeps it for ever, costs only itself.

Decoders are old C, and a picture may be made to break them. What was decoded whole once, and did not change since, is then
decoded in the webui's own process.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError

SECONDS = 60.0  # a picture of 64 million pixels takes two
_ROOT = Path(__file__).parents[2]
# the module is found from wherever the webui was started, and by whatever Python that is
COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from lib_lora.data.reader_main import main; main()",
)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Reader:
    """One process, one picture at a time. It is started when the first picture comes, and anew after one that ended it."""

    def __init__(self, command: Sequence[str] = COMMAND, seconds: float = SECONDS) -> None:
        self._command, self._seconds = command, seconds
        self._process: subprocess.Popen[str] | None = None

    def size(self, path: Path) -> Size:
        """Size of a picture as it is seen, decoded whole.

        Raises:
            DatasetError: the file is no picture that can be read, or its decoder crashed or did not end.
        """
        process = self._started()
        late = threading.Event()
        timer = threading.Timer(self._seconds, _kill, (process, late))
        timer.daemon = True
        timer.start()
        try:
            said = _asked(process, path)
        finally:
            timer.cancel()
        if not said:
            self.close()
            why = f"takes longer than {self._seconds:g} s to read" if late.is_set() else "ends the program that reads it"
            raise DatasetError([f"Image {path.name!r} {why}; save it anew or remove it."])
        answer = json.loads(said)
        if "problems" in answer:
            raise DatasetError(answer["problems"])
        return Size(*answer["size"])

    def close(self) -> None:
        """The process ends."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()  # closes the pipes, and waits

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:  # it ended while nothing was asked of it
            self.close()
        if self._process is None:
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                    encoding="ascii", env={**os.environ, **_ONE_THREAD}, creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )  # fmt: skip
            except OSError as error:
                raise DatasetError([f"Images cannot be read: {self._command[0]!r} does not start ({error.strerror})."]) from error
        return self._process


def _asked(process: subprocess.Popen[str], path: Path) -> str:
    """The answer, or "" where the process ended."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:  # the pipe is broken
        return ""


def _kill(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.kill()


class Readers:
    """So many readers as threads ask at a time. They end with the block."""

    def __init__(self, make: Callable[[], Reader] = Reader) -> None:
        self._make = make
        self._idle: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        self._all: list[Reader] = []

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for reader in self._all:
            reader.close()

    def size(self, path: Path) -> Size:
        """As `Reader.size`, from any thread."""
        try:
            reader = self._idle.get_nowait()
        except queue.Empty:
            reader = self._make()
            self._all.append(reader)
        try:
            return reader.size(path)
        finally:
            self._idle.put(reader)
