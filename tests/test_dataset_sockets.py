"""Uploads over a real connection that says something else than it does: lengths that lie, pieces that break, refusals half-way."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from tests.api import ROOT, SECONDS, Api, picture  # noqa: E402
from tests.test_api_document import served  # noqa: E402

__all__ = ["served"]  # the fixture


class Upload:
    """A connection to the server on which a request for an upload was begun."""

    def __init__(self, address: str, dataset: str, name: str, *headers: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=SECONDS)
        lines = (f"POST {ROOT}/datasets/{dataset}/files?name={name} HTTP/1.1", f"Host: {host}:{port}", *headers, "", "")
        self.socket.sendall("\r\n".join(lines).encode())

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def answer(self) -> tuple[int, Any]:
        """Status and JSON of the first answer; what follows is that of another request."""
        content = b""
        while b"\r\n\r\n" not in content or not content.rstrip().endswith(b"}"):
            more = self.socket.recv(65536)
            if not more:
                break
            content += more
        head, _, body = content.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.JSONDecoder().raw_decode(body.decode())[0]


@pytest.fixture
def cats(served: tuple[str, Api]) -> Iterator[str]:  # noqa: F811 - the fixture of test_api_document
    yield served[1].made()


def settled(api: Api, before: dict[str, bytes]) -> None:
    """Wait until nothing of an upload is left."""
    started = time.monotonic()
    while api.files() != before:
        assert time.monotonic() < started + SECONDS, sorted(api.files().keys() - before.keys())
        time.sleep(0.02)


def test_a_length_that_is_too_short_is_a_file_that_ends_too_early(served: tuple[str, Api], cats: str) -> None:  # noqa: F811
    address, api = served
    content = picture(200, 200)
    with Upload(address, cats, "a.png", f"Content-Length: {len(content) // 2}") as upload:
        upload.socket.sendall(content)
        status, body = upload.answer()
    assert status == 200 and "ends too early" in body["problems"][0]
    (image,) = api.looked_at(cats)["images"]
    assert image["problem"] and image["removable"], "it names itself"


@pytest.mark.parametrize("header", ["Content-Length: 900000", "Transfer-Encoding: chunked"])
def test_a_connection_that_ends_too_early_leaves_nothing(header: str, served: tuple[str, Api], cats: str) -> None:  # noqa: F811
    address, api = served
    before, content = api.files(), picture(300, 300)[:20_000]
    with Upload(address, cats, "a.png", header) as upload:
        upload.socket.sendall(b"%x\r\n%s\r\n" % (len(content), content) if "chunked" in header else content)
        started = time.monotonic()
        while api.files() == before:
            assert time.monotonic() < started + SECONDS, "it never arrived"
    settled(api, before)


def test_pieces_that_are_none_leave_nothing(served: tuple[str, Api], cats: str) -> None:  # noqa: F811
    address, api = served
    before = api.files()
    with Upload(address, cats, "a.png", "Transfer-Encoding: chunked") as upload:
        upload.socket.sendall(b"5\r\nhello\r\nzzz\r\nnot a length")
        assert b" 200 " not in upload.socket.recv(65536).split(b"\r\n")[0]
    settled(api, before)
    assert api.get(cats)["images"] == []


def test_what_is_refused_half_way_is_told_although_more_is_sent(served: tuple[str, Api], cats: str) -> None:  # noqa: F811
    """A video of any size: its first bytes are enough, and the sentence arrives."""
    address, api = served
    before = api.files()
    with Upload(address, cats, "a.mp4", "Content-Length: 3000000000") as upload:
        upload.socket.sendall(b"\0\0\0\x14ftypqt  ".ljust(60_000, b"\0"))
        status, body = upload.answer()
    assert status == 422 and "videos are not used" in body["problems"][0]["text"]
    settled(api, before)


def test_pieces_of_one_byte_are_a_file(served: tuple[str, Api], cats: str, tmp_path: Path) -> None:  # noqa: F811
    address, api = served
    with Upload(address, cats, "a.txt", "Transfer-Encoding: chunked") as upload:
        upload.socket.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in b"a cat, slowly") + b"0\r\n\r\n")
        assert upload.answer()[0] == 200
    assert b"a cat, slowly" in api.files().values()
