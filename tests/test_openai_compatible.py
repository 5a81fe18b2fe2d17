"""A captioner behind an OpenAI-compatible address: what is sent, and servers that misbehave, on this computer."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from lib_lora.datasets.captioners.captioner import CaptionerError, legal_answer
from lib_lora.datasets.captioners.openai_compatible import SIDE, Endpoint, OpenAICompatible
from lib_lora.errors import DatasetError
from tests.house import assert_one_sentence, sentences

IMAGE = Image.new("RGB", (64, 48), (200, 30, 30))
Answering = Callable[[BaseHTTPRequestHandler], None]


class Stub:
    """A server whose answer the test gives; `asked`: path, headers and body of each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.answer: Answering = said("a red picture")
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.asked.append((self.path, dict(self.headers), body))
                with contextlib.suppress(OSError):  # the other side has left
                    stub.answer(self)

            def do_GET(self) -> None:  # noqa: N802
                stub.asked.append((self.path, dict(self.headers), None))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def stub() -> Iterator[Stub]:
    found = Stub()
    yield found
    found.server.shutdown()
    found.server.server_close()


def plain(content: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> Answering:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def said(content: object, finish: str = "stop") -> Answering:
    return plain(json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish}]}).encode())


def ask(address: str, **values: Any) -> str:
    with OpenAICompatible(Endpoint(address, **values)) as captioner:
        assert captioner.needs() == ""
        captioner.wait_for_turn()
        return captioner.caption(IMAGE)


def refused(address: str, **values: Any) -> str:
    with pytest.raises(CaptionerError) as caught:
        ask(address, **values)
    (why,) = caught.value.problems
    assert_one_sentence(f"Image 'a.png' has no new caption: {why}")
    return why


def test_the_question_is_openais(stub: Stub) -> None:
    assert ask(stub.address, model="llava", prompt="Which colour?", key="sk-1", most_tokens=20) == "a red picture"
    ((path, headers, body),) = stub.asked
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sk-1"
    assert body["model"] == "llava" and body["max_tokens"] == 20 and body["stream"] is False
    (message,) = body["messages"]
    text, image = message["content"]
    assert message["role"] == "user" and text == {"type": "text", "text": "Which colour?"}
    start, _, data = image["image_url"]["url"].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert start == "data:image/jpeg;base64" and sent.format == "JPEG" and sent.size == IMAGE.size
        assert all(abs(a - b) < 12 for a, b in zip(sent.getpixel((20, 20)), (200, 30, 30)))


def test_a_large_image_is_sent_smaller(stub: Stub) -> None:
    with OpenAICompatible(Endpoint(stub.address)) as captioner:
        captioner.caption(Image.new("RGB", (4000, 1000)))
    body = stub.asked[0][2]
    with Image.open(io.BytesIO(base64.b64decode(body["messages"][0]["content"][1]["image_url"]["url"].split(",")[1]))) as sent:
        assert sent.size == (SIDE, SIDE // 4)
    assert "model" not in body and "Authorization" not in stub.asked[0][1]


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_addresses_as_people_give_them(stub: Stub, path: str) -> None:
    ask(" " + stub.address.removesuffix("/v1") + path)
    assert stub.asked[0][0] == "/v1/chat/completions"


def test_answers_in_parts_and_after_thoughts(stub: Stub) -> None:
    stub.answer = said([{"type": "text", "text": "a "}, {"type": "text", "text": "猫"}])
    assert ask(stub.address) == "a 猫"
    stub.answer = said("<think>hm, a cat</think>\n\na cat")
    assert legal_answer(ask(stub.address), "x") == "a cat"


HTML = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
BAD: dict[str, tuple[Answering, str]] = {
    "500": (plain(b"oops", 500), "500"),
    "no key": (plain(b"{}", 401), "key"),
    "no model": (plain(b"{}", 404), "404"),
    "a web page": (plain(HTML, kind="text/html"), "web page"),
    "an error as a web page": (plain(HTML, 502, kind="text/html"), "502"),
    "no JSON": (plain(b"hello"), "chat completions"),
    "no UTF-8": (plain(b'"\xff"'), "chat completions"),
    "deep JSON": (plain(b"[" * 500_000), "chat completions"),
    "other JSON": (plain(b'{"choices": []}'), "chat completions"),
    "a list": (plain(b"[1]"), "chat completions"),
    "no text": (said(None), "without a text"),
    "odd parts": (said([{"type": "text"}]), "chat completions"),
    "cut off": (said("a cat with", "length"), "stopped amid"),
    "huge": (plain(b" " * (2**20 + 10)), "1 MB"),
    "elsewhere": (plain(b"", 302, Location="http://192.0.2.1/"), "redirects"),
    "empty": (plain(b""), "chat completions"),
    "nothing": (lambda handler: handler.connection.close(), "server"),
    "no HTTP": (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n\r\n") and handler.wfile.flush(), "HTTP"),
    "a long line": (lambda handler: handler.wfile.write(b"HTTP/1.1 200 " + b"x" * 100_000) and None, "HTTP"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "word"), BAD.values(), ids=BAD)
def test_bad_answers_are_one_sentence(stub: Stub, answer: Answering, word: str) -> None:
    stub.answer = answer
    assert word in refused(stub.address, key="sk-secret", seconds=20.0)
    assert len(stub.asked) == 1


def test_a_redirect_to_itself_is_not_followed(stub: Stub) -> None:
    stub.answer = plain(b"", 307, Location="/v1/other")
    refused(stub.address)
    assert len(stub.asked) == 1


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(300):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def endless_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(300):
        handler.wfile.write(b"a")
        handler.wfile.flush()
        time.sleep(0.1)


@pytest.mark.parametrize("answer", [lambda _: time.sleep(30), endless, endless_headers], ids=["silent", "body", "headers"])
def test_a_server_that_hangs_or_drips_is_left(stub: Stub, answer: Answering) -> None:
    stub.answer = answer
    start = time.monotonic()
    assert "1 seconds" in refused(stub.address, seconds=1.0)
    assert time.monotonic() - start < 15


def test_nobody_at_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "cannot be reached" in refused(f"http://127.0.0.1:{port}")


def test_https_is_not_spoken_by_a_plain_server(stub: Stub) -> None:
    refused(stub.address.replace("http:", "https:"), seconds=10.0)
    assert stub.asked == []


@pytest.mark.parametrize("address", [
    "", "127.0.0.1:1234", "ftp://a/v1", "file:///etc/passwd", "http://", "http://a:99999/", "http://a:0", "http://[x/", "http://u:p@a/",
    "http://a/?key=1", "http://a/#b", "http://a/\r\nX: y", "http://ä/", "http://a b/", "http://" + "a" * 3000,
])  # fmt: skip
def test_bad_addresses_are_one_sentence(address: str) -> None:
    with pytest.raises(DatasetError) as caught:
        OpenAICompatible(Endpoint(address))
    assert len(sentences(caught.value)) == 1


def test_bad_values_are_told_together_without_the_key() -> None:
    endpoint = Endpoint("http://a", "m" * 300, " ", "secret\r\nX: y", float("nan"), 0)
    assert len(endpoint.problems()) == 5 and "secret" not in repr(endpoint) + "".join(endpoint.problems())
    for text in endpoint.problems():
        assert_one_sentence(text)
