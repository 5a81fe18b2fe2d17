"""A captioner behind an OpenAI-compatible address (chat completions with images), such as a vision model on this computer.

The address is the user's choice, and the only one that is connected to: no redirect is followed, and no proxy is used.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, urlsplit

from PIL import Image

from lib_lora.datasets.captioners.captioner import CaptionerError, is_readable
from lib_lora.errors import DatasetError
from lib_lora.files.plain_json import MOST_NESTED, read_json

PROMPT = "Describe this image in one sentence, as the caption of a photo. Answer with the caption only."
PATH = "/chat/completions"
LONGEST_ADDRESS, LONGEST_PROMPT, LONGEST_KEY, LONGEST_MODEL = 2000, 4000, 1000, 200
LONGEST_SECONDS = 3600.0
MOST_TOKENS = 10_000
MAX_ANSWER = 2**20  # bytes
SIDE, QUALITY = 1024, 90  # of the JPEG that is sent: the longest side in pixels
SAFETY_S = 10.0  # above the time limit, for the look-up of the address
NAME = "The captioner"
_TOLD = {
    401: "check its key",
    403: "check its key",
    404: "check the address, which often ends in /v1, and the model's name",
    413: "let it accept larger images",
    429: "wait, and start again for the other images",
}


@dataclass(frozen=True)
class Endpoint:
    """A server and what is asked of it. `key`: sent as a bearer token. `seconds`: for an answer. `most_tokens`: of it."""

    address: str
    model: str = ""
    prompt: str = PROMPT
    key: str = field(default="", repr=False)
    seconds: float = 120.0
    most_tokens: int = 300

    def problems(self) -> list[str]:
        """What is wrong with untrusted values, a sentence each."""
        found = [*_address_problem(self.address)]
        if len(self.model) > LONGEST_MODEL or not is_readable(self.model):
            found.append(f"Model: must be a name of at most {LONGEST_MODEL} characters; shorten it.")
        if not self.prompt.strip() or len(self.prompt) > LONGEST_PROMPT or not is_readable(" ".join(self.prompt.split())):
            found.append(f"Prompt: must be a text of at most {LONGEST_PROMPT} characters; change it.")
        if len(self.key) > LONGEST_KEY or not (self.key.isascii() and self.key.isprintable()) or " " in self.key:
            found.append(f"Key: must be at most {LONGEST_KEY} letters, digits and signs without spaces; copy it again.")
        if not (math.isfinite(self.seconds) and 1 <= self.seconds <= LONGEST_SECONDS):
            found.append(f"Time limit: got {self.seconds:g}, must be from 1 to {LONGEST_SECONDS:g} seconds.")
        if not 1 <= self.most_tokens <= MOST_TOKENS:
            found.append(f"Tokens of an answer: got {self.most_tokens}, must be from 1 to {MOST_TOKENS}.")
        return found


class OpenAICompatible:
    """A `Captioner` that asks a server.

    Raises:
        DatasetError: a value of the endpoint is not allowed.
    """

    name = NAME

    def __init__(self, endpoint: Endpoint) -> None:
        problems = endpoint.problems()
        if problems:
            raise DatasetError(problems)
        self._endpoint, self._parts = endpoint, _split(endpoint.address)
        self.seconds = endpoint.seconds + SAFETY_S
        self._host = self._parts.hostname or ""

    def needs(self) -> str:
        return ""

    def __enter__(self) -> OpenAICompatible:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def wait_for_turn(self) -> None:
        pass

    def caption(self, image: Image.Image) -> str:
        """See `Captioner`."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._endpoint.key:
            headers["Authorization"] = f"Bearer {self._endpoint.key}"
        status, content = self._answer(json.dumps(self._question(image)).encode(), headers)
        if 300 <= status < 400:
            raise CaptionerError(f"{self._where} redirects to another address; give that one.")
        if status != 200:
            raise CaptionerError(f"{self._where} answered with the error {status}; {_TOLD.get(status, 'its log says more')}.")
        if len(content) > MAX_ANSWER:
            raise CaptionerError(f"{self._where} answered with more than {MAX_ANSWER // 2**20} MB; check the address.")
        return _said(content, self._where)

    @property
    def _where(self) -> str:
        return f"the server {self._host}"

    def _question(self, image: Image.Image) -> dict[str, Any]:
        url = "data:image/jpeg;base64," + base64.b64encode(jpeg(image)).decode()
        content = [{"type": "text", "text": self._endpoint.prompt}, {"type": "image_url", "image_url": {"url": url}}]
        question: dict[str, Any] = {
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self._endpoint.most_tokens,
            "stream": False,
        }
        return {"model": self._endpoint.model, **question} if self._endpoint.model else question

    def _answer(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and content, of which at most MAX_ANSWER + 1 bytes are read.

        Raises:
            CaptionerError: the server does not answer in time, or not by HTTP.
        """
        late = threading.Event()
        try:
            with self._connected(late) as connection:
                connection.request("POST", _path(self._parts), body, headers)
                with connection.getresponse() as response:
                    return response.status, response.read(MAX_ANSWER + 1)
        except ssl.SSLError as error:
            raise self._late(late) or CaptionerError(
                f"{self._where} has no valid certificate or does not speak https ({_reason(error)}); check the address."
            ) from error
        except OSError as error:
            slow = self._late(late) if not isinstance(error, TimeoutError) else self._too_slow()
            raise slow or CaptionerError(
                f"{self._where} cannot be reached ({_reason(error)}); start it, or check the address."
            ) from error
        except (http.client.HTTPException, ValueError) as error:
            raise self._late(late) or CaptionerError(f"{self._where} does not answer by HTTP; check the address.") from error

    @contextmanager
    def _connected(self, late: threading.Event) -> Iterator[http.client.HTTPConnection]:
        """A connection that is cut when the time is over, since a server may send a byte now and then for ever."""
        seconds = self._endpoint.seconds
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._parts.port, timeout=seconds, context=context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._parts.port, timeout=seconds)
        try:
            connection.connect()
            timer = threading.Timer(seconds, _cut, (connection.sock, late))
            timer.daemon = True
            timer.start()
            try:
                yield connection
            finally:
                timer.cancel()
            if late.is_set():
                raise TimeoutError
        finally:
            connection.close()

    def _late(self, late: threading.Event) -> CaptionerError | None:
        return self._too_slow() if late.is_set() else None

    def _too_slow(self) -> CaptionerError:
        seconds = f"{self._endpoint.seconds:g} seconds"
        return CaptionerError(f"{self._where} did not answer within {seconds}; see whether it works, or raise the time limit.")


def jpeg(image: Image.Image) -> bytes:
    """An RGB image as JPEG, its longest side at most SIDE pixels."""
    picture = image.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _said(content: bytes, where: str) -> str:
    """The caption in an answer.

    Raises:
        CaptionerError: there is none.
    """
    if content.lstrip()[:1] == b"<":
        raise CaptionerError(f"{where} answered with a web page; check the address, which often ends in /v1.")
    try:
        choice = read_json(content.decode(), MOST_NESTED)["choices"][0]
        text = choice["message"]["content"]
        if isinstance(text, list):
            text = "".join(part["text"] for part in text if part["type"] == "text")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CaptionerError(f"{where} did not answer as OpenAI's chat completions do; check the address.") from error
    if not isinstance(text, str):
        raise CaptionerError(f"{where} answered without a text; choose a model that describes images.")
    if choice.get("finish_reason") == "length":
        raise CaptionerError(f"{where} stopped amid its answer; raise the tokens of an answer, or ask for a short caption.")
    thought, closed, rest = text.partition("</think>")
    return rest if closed and thought.lstrip().startswith("<think>") else text


def _address_problem(address: str) -> Iterator[str]:
    """A sentence if the untrusted address cannot be used."""
    title = "Address of the captioner"
    if len(address) > LONGEST_ADDRESS or not (address.isascii() and address.isprintable()) or " " in address.strip():
        yield f"{title}: must have at most {LONGEST_ADDRESS} letters, digits and signs, without spaces; copy it again."
        return
    try:
        parts = _split(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a bracket
        usable = False
    if not usable:
        yield f"{title}: got {address[:80]!r}, must be like http://127.0.0.1:1234/v1."
    elif parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        yield f"{title}: must have no name, password, question mark or number sign; give the key in its own field."


def _split(address: str) -> SplitResult:
    return urlsplit(address.strip())


def _path(parts: SplitResult) -> str:
    path = parts.path.rstrip("/") or "/v1"
    return path if path.endswith(PATH) else path + PATH


def _cut(sock: socket.socket, late: threading.Event) -> None:
    """End a connection that another thread reads."""
    late.set()
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:  # it is closed
        return


def _reason(error: OSError) -> str:
    return " ".join(str(error.strerror or error or type(error).__name__).split())[:120]
