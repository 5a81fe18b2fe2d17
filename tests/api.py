"""A light server of the API: the routes alone, on a host that lends nothing."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lib_lora.datasets.captionings import Captionings
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.ui.api.datasets import add_dataset_routes
from lib_lora.ui.guard import Guard
from tests.folder_host import FolderHost, PlainTools

ROOT = "/lora-train/v1"
SECONDS = 60


def app_in(folder: Path, guard: Guard | None = None, *, login: bool = False, hides_folders: bool = False) -> Any:
    """An app with the routes alone; its datasets are below `folder`. Without a guard, anybody may change something."""
    app: Any = FastAPI()
    app.auth, app.tokens = ({"me": "secret"} if login else None), {"session": "me"}
    folder.mkdir(parents=True, exist_ok=True)
    host: Any = FolderHost(folder / "loras")
    tools = PlainTools(folder / "wd14", may_choose=not hides_folders)
    allowed = guard or Guard(trust_everybody=True)
    add_dataset_routes(app, Catalogue(folder / "sets"), allowed, tools, Captionings(), hides_folders=hides_folders, host=host)
    return app


class Api:
    """Asks the routes, and checks what is true of every answer."""

    def __init__(self, app: Any, folder: Path) -> None:
        self.client = TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
        self.folder = folder

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The answer of a request that must go well."""
        answer = self.answer(method, path, body, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, status: int, method: str, path: str, body: Any = None, **more: Any) -> str:
        """The sentences of a request that must be refused."""
        answer = self.answer(method, path, body, **more)
        assert answer.status_code == status, (answer.status_code, answer.text[:300])
        told = answer.json()["problems"]
        assert told and all(set(problem) == {"option", "text"} for problem in told)
        return " ".join(problem["text"] for problem in told)

    def answer(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        sent = {"content": body} if isinstance(body, (bytes, str)) else {"json": body} if body is not None else {}
        return self.client.request(method, f"{ROOT}/{path}", **sent, **more)

    def made_with_captions(self) -> str:
        """A new dataset of two captioned pictures."""
        dataset = self.made()
        for number in range(2):
            self.upload(dataset, f"{number}.png", picture(seed=number))
            self.upload(dataset, f"{number}.txt", f"a cat, tag{number}".encode())
        return dataset

    def made(self, name: str = "cats", **fields: Any) -> str:
        """The id of a new dataset."""
        return str(self.ask("POST", "datasets", {"name": name, **fields})["id"])

    def upload(self, dataset: str, name: str, content: bytes) -> Any:
        return self.ask("POST", f"datasets/{dataset}/files", content, params=named(name))

    def get(self, dataset: str, **query: Any) -> Any:
        return self.ask("GET", f"datasets/{dataset}", params=query)

    def looked_at(self, dataset: str) -> Any:
        """The first page, once all images were looked at."""
        return until(lambda: self.get(dataset), lambda page: page["looked"]["done"] == page["looked"]["total"])

    def ids(self, dataset: str) -> dict[str, str]:
        """Image name -> id."""
        return {image["name"]: image["id"] for image in self.get(dataset)["images"]}

    def captions(self, dataset: str) -> dict[str, str | None]:
        return {image["name"]: image["caption"] for image in self.get(dataset)["images"]}

    def files(self) -> dict[str, bytes]:
        """Every file on the disk, but for thumbnails and their index."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and "looked" not in path.parts)
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


class Connection:
    """A request as the server hands it to the app, with nothing between."""

    def __init__(self, app: Any, method: str, path: str, client: str = "127.0.0.1", **headers: str) -> None:
        self.app, self.read, self.status, self.content = app, 0, 0, b""
        given = {"host": "127.0.0.1:7860", **headers}
        target, _, query = path.partition("?")
        self.scope = {
            "type": "http", "method": method, "path": f"{ROOT}/{target}", "raw_path": b"", "query_string": query.encode(), "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()], "client": (client, 1), "scheme": "http",
            "server": ("127.0.0.1", 7860), "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip

    def sends(self, messages: Iterator[dict[str, Any]]) -> Connection:
        async def receive() -> dict[str, Any]:
            self.read += 1
            return next(messages)

        async def send(message: dict[str, Any]) -> None:
            self.status = message.get("status", self.status)
            self.content += message.get("body", b"")

        asyncio.run(self.app(self.scope, receive, send))
        return self


def named(name: str) -> str:
    """The query of an upload; httpx leaves names alone that look encoded."""
    return urlencode({"name": name})


def until(ask: Callable[[], Any], is_so: Callable[[Any], bool]) -> Any:
    """The first answer for which `is_so`."""
    started = time.monotonic()
    while not is_so(found := ask()):
        assert time.monotonic() - started < SECONDS, found
        time.sleep(0.02)
    return found


def picture(width: int = 96, height: int = 64, seed: int = 0, kind: str = "PNG") -> bytes:
    """A picture that looks like no other of another seed."""
    rng, file = np.random.default_rng(seed), io.BytesIO()
    small = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()
