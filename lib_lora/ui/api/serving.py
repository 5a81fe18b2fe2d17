"""Guarded routes with JSON bodies, answered outside the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from lib_lora.datasets.captionings import BusyError
from lib_lora.datasets.history import OvertakenError
from lib_lora.datasets.image_set import StaleError
from lib_lora.errors import DiskError, NoDatasetError, Problem, TooLargeError, TrainLoraError
from lib_lora.files.plain_json import MOST_NESTED, read_json
from lib_lora.languages.spoken import said_in
from lib_lora.ui.answering import problems_of
from lib_lora.ui.guard import Guard

ROOT = "/lora-train/v1"
MAX_BYTES = 4 * 2**20  # of a JSON body
_MAX_DEPTH = 20
_LONGEST_REASON = 100  # characters
_GONE = "The client has closed the connection before the request was complete."
# threads of our own: those of the webui may all be waiting for the model
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="train-lora-api")


@dataclass(frozen=True)
class Call:
    """A request that the guard has let in. `path`: the parts of the route in braces. `body`: the JSON object, {} for a GET."""

    path: dict[str, str]
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)

    def text(self, name: str, default: str | None = None) -> str:
        """A text of the body.

        Raises:
            HTTPException: 422, if it is missing without a default, or not a text.
        """
        value = self.body.get(name, default)
        if not isinstance(value, str):
            raise HTTPException(
                422, f"Field {name!r}: is {'something else' if name in self.body else 'missing'}, must be a text."
            )
        return value

    def flag(self, name: str) -> bool:
        """A truth value of the body; False if it is missing.

        Raises:
            HTTPException: 422.
        """
        value = self.body.get(name, False)
        if not isinstance(value, bool):
            raise HTTPException(422, f"Field {name!r}: must be true or false.")
        return value

    def options(self, name: str) -> dict[str, Any]:
        """An object of the body, option -> value; {} if it is missing.

        Raises:
            HTTPException: 422.
        """
        value = self.body.get(name, {})
        if not isinstance(value, dict):
            raise HTTPException(422, f"Field {name!r}: must be an object with options by their names.")
        return value

    def number(self, name: str, default: int, most: int = 10**6) -> int:
        """A whole number of the query, from 1 to `most`.

        Raises:
            HTTPException: 422.
        """
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise HTTPException(422, f"Field {name!r}: must be a whole number from 1 to {most}.")
        return int(text)


def asked_flag(query: Mapping[str, str], name: str) -> bool:
    """A truth value of a query; False if it is missing.

    Raises:
        HTTPException: 422.
    """
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise HTTPException(422, f"Field {name!r}: must be true or false.")
    return text == "true"


Answer = Callable[[Call], Any]


class _Answer(JSONResponse):
    """JSON in ASCII, since a file name may have bytes that are no text."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Routes:
    """Adds routes to the webui's app. Each asks the guard before it reads the request: what they show is private."""

    def __init__(self, app: FastAPI, guard: Guard) -> None:
        self._app, self._guard = app, guard

    def add(self, method: str, path: str, answer: Answer, takes: Collection[str] | None = None) -> None:
        """Add a route. A GET changes nothing; the others take a JSON object, and may change something.

        `takes`: the fields of the object; None if `answer` checks them.
        """

        async def read(request: Request) -> Any:
            body = {} if method == "GET" else await _object(request)
            unknown = sorted(body.keys() - takes) if takes is not None else []
            if unknown:
                known = f"; it has {', '.join(takes or ())}" if takes else ""
                raise HTTPException(422, f"This request has no field {unknown[0][:80]!r}{known}.")
            call = Call(dict(request.path_params), dict(request.query_params), body)
            return await in_thread(answer, call)

        self.add_raw(method, path, read)

    def add_raw(self, method: str, path: str, read: Callable[[Request], Any]) -> None:
        """Add a route whose coroutine `read` takes the request itself, once the guard has let it in."""

        async def guarded(request: Request) -> Response:
            try:
                (self._guard.look_at_private if method == "GET" else self._guard.change)(self._app, request)
                found = await read(request)
                return found if isinstance(found, Response) else _Answer(jsonable_encoder(said_in(found)))
            except HTTPException as refused:
                return problems([str(refused.detail)], refused.status_code, headers=refused.headers)
            except ClientDisconnect:  # nobody reads the answer
                return problems([_GONE], 400)
            except Exception as error:  # noqa: BLE001 - an error of any kind is told
                return problems(
                    problems_of(error), _status(error), **({"now": error.now} if isinstance(error, StaleError) else {})
                )

        self._app.add_api_route(ROOT + path, guarded, methods=[method], response_class=Response)


async def in_thread(answer: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that may take a while, without holding the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, lambda: answer(*arguments))


async def in_pieces(chunks: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    """The same bytes in pieces of about `length`; the first chunk comes at once, since it tells what a file is."""
    piece, least = b"", 1
    async for chunk in chunks:
        piece += chunk
        if len(piece) >= least:
            yield piece
            piece, least = b"", length
    if piece:
        yield piece


def problems(texts: Sequence[str], status: int, headers: Any = None, **more: Any) -> JSONResponse:
    """The answer that tells problems."""
    told = [{"option": text.option if isinstance(text, Problem) else "", "text": str(text)} for text in texts]
    return _Answer(said_in({"problems": told, **more}), status, headers)


def _status(error: Exception) -> int:
    if isinstance(error, NoDatasetError):
        return 404
    if isinstance(error, (OvertakenError, BusyError)):
        return 409
    if isinstance(error, TooLargeError):
        return 413
    if isinstance(error, (DiskError, OSError)):
        return 507
    return 422 if isinstance(error, TrainLoraError) else 500


async def _object(request: Request) -> dict[str, Any]:
    """The JSON object of a request; {} if it has no body.

    Raises:
        HTTPException: 413 or 422.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BYTES:
            raise HTTPException(413, f"The request has more than {MAX_BYTES // 2**20} MB; send less at a time.")
    if not content:
        return {}
    try:
        found = read_json(content.decode(), MOST_NESTED)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:_LONGEST_REASON]
        raise HTTPException(422, f"The request is no JSON that can be read ({why}); send a JSON object.") from error
    if not isinstance(found, dict) or _depth(found) > _MAX_DEPTH:
        raise HTTPException(422, f"The request must be a JSON object of at most {_MAX_DEPTH} levels; send such a one.")
    return found


def _depth(value: Any) -> int:
    """How deeply lists and objects are nested; counts to one beyond the limit."""
    level, depth = [value], 0
    while level and depth <= _MAX_DEPTH:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth
