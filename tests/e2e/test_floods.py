"""Case 65: more requests, larger ones and slower ones than a page ever makes, while a training runs."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e import client
from tests.e2e.server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.case(65)]
MB = 2**20
ROOM_MB = 64


@pytest.fixture
def training(server: Server, photos: Path) -> Iterator[str]:
    """A run that lasts until it is stopped."""
    client.break_(server, "slow steps")
    job = client.begin(server, photos, "flooded", steps=2000)
    client.wait_for_step(server, job, 1)
    yield job
    status = client.status(server)
    assert status is not None and status["state"] == "running", "the training did not live through it"


def memory_mb(server: Server) -> float:
    return float(psutil.Process(server.pid).memory_info().rss / MB)


def test_polls(server: Server, training: str, long: bool, figure: Callable[[str], None]) -> None:
    """Thousands of questions for status and list from eight at a time: all are answered, and memory stays."""
    each = 1250 if long else 100

    def ask(_: int) -> int:
        with requests.Session() as session:
            paths = ("/train-lora/status", "/train-lora/queue")
            return sum(session.get(server.url + paths[number % 2], timeout=60).ok for number in range(each))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 8 * each
        before, started = memory_mb(server), time.monotonic()
        assert sum(pool.map(ask, range(8))) == 8 * each
        seconds, grown = time.monotonic() - started, memory_mb(server) - before
    assert grown < ROOM_MB
    figure(f"{8 * each:,} answers in {seconds:.0f} s, memory {grown:+.0f} MB")


def test_a_body_without_end(server: Server, training: str, long: bool, figure: Callable[[str], None]) -> None:
    """A body of 2 GB to each route of ours: none of it is kept."""
    size = 2048 if long else 256
    before, most = memory_mb(server), 0.0

    def body() -> Iterator[bytes]:
        nonlocal most
        for number in range(size):
            if number % 32 == 0:
                most = max(most, memory_mb(server) - before)
            yield bytes(MB)

    for path in ("/train-lora/key", "/train-lora/status", "/train-lora/queue"):
        with contextlib.suppress(requests.ConnectionError):  # to be hung up on is as well
            requests.post(server.url + path, data=body(), timeout=120)
    most = max(most, memory_mb(server) - before)
    assert most < ROOM_MB
    figure(f"bodies of {size} MB: memory {most:+.0f} MB")


def test_slow_ones_do_not_hold_up_others(server: Server, training: str) -> None:
    """200 requests that never come to their end: the others are answered."""
    host, port = server.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(b"POST /train-lora/key HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx")
        for _ in range(5):
            assert requests.get(server.url + "/train-lora/status", timeout=10).ok
    finally:
        for connection in slow:
            connection.close()
