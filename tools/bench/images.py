"""The Images room as scripts and the page use it: 200 photos of 12 MP arrive, and a folder of 2,000 images is opened again.

The routes are served alone, by a process of their own; its memory is counted with that of its decoder processes. Goals: a
thumbnail 1 s after the first photo has arrived, the whole report 5 s after the last one has, 300 MB added, 2 s to open. On a
machine that does other work too, CPU seconds tell more than these.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import psutil
from PIL import Image

PHOTOS, BASES, SIDES = 200, 8, (4000, 3000)
IMAGES = 2000
AT_ONCE = 3  # uploads, as the page does
SETTINGS = {"trigger": "ohwx", "resolution": 512}
_POLL_S, _PAGE_POLL_S = 0.05, 0.5  # where an answer costs little, and as the page does


class Server:
    """A process that serves the routes, with its datasets below `root`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.address = process, f"http://127.0.0.1:{port}/lora-train/v1"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request."""
        content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        with urlopen(Request(f"{self.address}/{path}", content, method=method)) as answer:
            return json.load(answer)

    def looked_at(self, dataset: str) -> None:
        """Wait until all images were decoded."""
        while (page := self.ask("GET", f"datasets/{dataset}"))["looked"]["done"] < page["looked"]["total"]:
            time.sleep(_PAGE_POLL_S)

    def decoders_ended(self) -> None:
        """Wait until the decoder processes have nothing more to do."""
        while psutil.Process(self.process.pid).children():
            time.sleep(_POLL_S)

    def cpu_s(self) -> float:
        """Seconds of a processor that the process has used, with those that it has started."""
        main = psutil.Process(self.process.pid)
        total = sum(main.cpu_times()[:4])  # its own, and of processes that have ended
        for process in main.children(recursive=True):
            try:
                total += sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
        return float(total)

    def memory_mb(self) -> float:
        """MB resident in the process and in those that it has started."""
        main = psutil.Process(self.process.pid)
        total = 0
        for process in (main, *main.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 2**20


@contextmanager
def served(python: Path, root: Path) -> Iterator[Server]:
    """A server in a new process, ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with subprocess.Popen([str(python), "-m", "tools.bench.images", str(root), str(port)], text=True) as process:
        server = Server(process, port)
        try:
            while True:
                try:
                    server.ask("GET", "datasets")
                    break
                except OSError:
                    if process.poll() is not None:
                        raise
                    time.sleep(_POLL_S)
            yield server
        finally:
            process.terminate()


@contextmanager
def peak_of(server: Server) -> Iterator[list[float]]:
    """A list whose last value is the largest number of MB so far."""
    peak, done = [server.memory_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            peak.append(max(peak[-1], server.memory_mb()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def photos() -> Iterator[bytes]:
    """Noisy JPEGs, no two of the same content; a few are encoded, since that takes longer than all that is measured."""
    rng = np.random.default_rng(0)
    bases = []
    for _ in range(BASES):
        small = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).resize(SIDES, Image.Resampling.BICUBIC)
        noisy = np.asarray(small, np.int16) + rng.integers(-6, 7, (SIDES[1], SIDES[0], 1), dtype=np.int16)
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        bases.append(file.getvalue())
    for number in range(PHOTOS):
        base, comment = bases[number % BASES], f"photo {number}".encode()
        yield base[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + base[2:]


def arriving(server: Server) -> dict[str, float]:
    """200 photos are uploaded: seconds to the first thumbnail and to the report, and MB added.

    `cpu_s` are those until the report. Memory is watched until all pixels of all photos were made, for which nobody waits.
    """
    contents = list(photos())
    dataset = server.ask("POST", "datasets", {"name": "photos"})["id"]
    ends: list[float] = []

    def send(item: tuple[int, bytes]) -> None:
        server.ask("POST", f"datasets/{dataset}/files?name={item[0]}.jpg", item[1])
        ends.append(time.perf_counter())

    before, used = server.memory_mb(), server.cpu_s()
    with peak_of(server) as peak:
        started = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            sent = pool.map(send, enumerate(contents))
            while not any(image["thumbnail"] for image in server.ask("GET", f"datasets/{dataset}")["images"]):
                time.sleep(_POLL_S)
            first = time.perf_counter()
            list(sent)
        server.looked_at(dataset)
        report = server.ask("POST", f"datasets/{dataset}/report", {"settings": SETTINGS})
        reported, used = time.perf_counter(), server.cpu_s() - used
        server.decoders_ended()
    assert report["plan"]["images"] == PHOTOS, report["problems"]
    return {
        "upload_s": round(max(ends) - started, 2),
        "first_thumbnail_s": round(first - min(ends), 2),
        "report_after_last_byte_s": round(reported - max(ends), 2),
        "cpu_s": round(used, 1),
        "added_mb": round(peak[-1] - before),
    }


def written_images(folder: Path) -> Path:
    """A folder of 2,000 small images with captions."""
    if not folder.is_dir():
        rng = np.random.default_rng(0)
        folder.mkdir(parents=True)
        for number in range(IMAGES):
            small = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))
            small.resize((256 + number % 7 * 16, 256), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
            (folder / f"{number}.txt").write_text(f"a photo, tag {number % 50}, number {number}")
    return folder


def opening(server: Server, dataset: str) -> dict[str, float]:
    """Seconds of the first page of a dataset in a new process, and of every further one."""
    seconds, used = [], server.cpu_s()
    for _ in range(6):
        started = time.perf_counter()
        page = server.ask("GET", f"datasets/{dataset}")
        seconds.append(time.perf_counter() - started)
        used = server.cpu_s() - used if len(seconds) == 1 else used
        assert page["counts"]["all"] == IMAGES and page["looked"]["done"] == IMAGES, page["looked"]
    return {
        "open_2000_again_s": round(seconds[0], 2),
        "open_2000_again_cpu_s": round(used, 2),
        "page_of_2000_s": round(statistics.median(seconds[1:]), 3),
    }


def measure(python: Path, build: Path) -> dict[str, float]:
    """Both measurements; files are written below `build`, and those of datasets removed afterwards."""
    root = build / "webui"
    shutil.rmtree(root, ignore_errors=True)
    folder = written_images(build / f"{IMAGES}-images").absolute()
    try:
        with served(python, root) as server:
            found = arriving(server)
            dataset = server.ask("POST", "datasets", {"name": "many", "folder": str(folder)})["id"]
            server.looked_at(dataset)
        with served(python, root) as server:
            found.update(opening(server, dataset))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return found


def serve(root: Path, port: int) -> None:
    """Serve the routes until the process is ended."""
    import uvicorn

    from lib_lora.ui.guard import Guard
    from tests.api import app_in

    uvicorn.run(app_in(root, Guard()), port=port, log_level="error")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
