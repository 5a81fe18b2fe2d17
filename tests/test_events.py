"""Every event of the tab and every route of the built app: guarded first, then one sentence for any input."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from lib_lora.ui.guard import REFUSED, Guard  # noqa: E402
from lib_lora.ui.routes import add_routes  # noqa: E402
from tests.test_tab import GUARD, Host, queue_of, tab_of  # noqa: E402

REFUSED_HTML = REFUSED[:40]
UNASKED = "train_lora_restore click"  # of a page that is loaded: it changes nothing then, and the report tells why


class Untouchable:
    """A value that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"looked at: {name}")

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("looked at")

    __eq__ = __str__ = __repr__ = __bool__ = __iter__ = __len__ = __hash__ = _refuse  # type: ignore[assignment]


@pytest.fixture
def blocks(tmp_path: Path) -> Any:
    return tab_of(Host(tmp_path / "loras"), tmp_path).build()


def events(blocks: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, declaration and function of every event that asks this side for anything."""
    names = {part["id"]: part["props"].get("elem_id") for part in blocks.get_config_file()["components"]}
    for event, function in zip(blocks.dependencies, blocks.fns):
        if function is not None and function.fn is not None:
            yield f"{names.get((event['targets'] or [None])[0])} {event['trigger']}", event, function


def asked(blocks: Any, event: Any, function: Any, data: list[Any]) -> Any:
    """What gradio does with an event: its components' own reading where the event wants that, then the function."""
    values = blocks.preprocess_data(blocks.fns.index(function), data, {})
    told = function.fn(*values)
    return asyncio.run(told) if inspect.iscoroutine(told) else told


def test_every_event_asks_for_the_key_before_anything_it_brings_is_looked_at(blocks: Any) -> None:
    found = list(events(blocks))
    key = next(part["id"] for part in blocks.get_config_file()["components"] if part["props"].get("elem_id") == "train_lora_key")
    assert len(found) > 20
    for name, event, function in found:
        assert event["inputs"][0] == key, name
        for wrong in ("", None, "wrong", 3, [], {"a": 1}, "\ud800"):
            told = asked(blocks, event, function, [wrong, *(Untouchable() for _ in event["inputs"][1:])])
            assert "value" not in str(told) if name == UNASKED else REFUSED_HTML in str(told), name


DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]
ODD: list[Any] = [
    None, True, -1, 1.5, 10**400, float("nan"), "", "x", "\ud800", "\0", "x" * 300_000, [], {}, [[]], [None], ["x"], [1, [2]],
    {"name": 1}, [{"name": ["x"]}], [{"name": "/" + "x" * 5000, "orig_name": 3}], [{"orig_name": {}}], DEEP,
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_every_event_answers_whatever_it_is_sent(odd: Any, blocks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name, event, function in events(blocks):
        sent = [*event["inputs"][1:], *event["outputs"]]  # gradio's page has a script hand on both
        told = asked(blocks, event, function, [GUARD.key, *(odd for _ in sent)])
        count = len(told) if isinstance(told, (list, tuple)) else 1
        assert count == len(event["outputs"]), name
        blocks.postprocess_data(blocks.fns.index(function), told, {})
    err = capsys.readouterr().err
    assert "Traceback" not in err or odd is DEEP, err[-1500:]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EROFS, errno.ENAMETOOLONG, errno.EIO])
def test_whatever_the_disk_refuses_is_a_sentence_of_every_event(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer of the tab in turn meets the error, at the first thing that it does."""
    error = OSError(code, os.strerror(code), "/secret/folder/file.bin")
    made = tab_of(Host(tmp_path / "loras"), tmp_path)
    seen: list[str] = []
    guarded = Guard.guarded

    def failing(self: Guard, answer: Any, told: Any) -> Any:
        async def awaited(*_: Any) -> Any:
            raise error

        def called(*_: Any) -> Any:
            raise error

        return guarded(self, awaited if inspect.iscoroutinefunction(answer) else called, told)

    monkeypatch.setattr(Guard, "guarded", failing)
    blocks = made.build()
    for name, event, function in events(blocks):
        told = str(asked(blocks, event, function, [GUARD.key, *(None for _ in event["inputs"][1:])]))
        if name == UNASKED:
            assert "value" not in told
        else:
            assert os.strerror(code) in told and "file.bin" in told and "/secret" not in told, name
        seen.append(name)
    assert len(seen) > 20


def ours(app: Any) -> list[tuple[str, str]]:
    return [(method, route.path) for route in app.routes if route.path.startswith("/train-lora") for method in route.methods]


def test_every_route_asks_the_guard_before_it_looks_at_its_request(tmp_path: Path) -> None:
    app: Any = FastAPI()
    app.auth, app.tokens = {"me": "secret"}, {}
    add_routes(app, queue_of(Host(tmp_path / "loras"), tmp_path), Guard())
    client = TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
    assert len(ours(app)) >= 5
    for method, path in ours(app):
        for part in ("x", "-1", "9" * 5000, "%00", "%ff"):
            url = path.replace("{job}", part).replace("{step}", part).replace("{place}", part).replace("{entry}", part)
            assert client.request(method, f"{url}?since={part}").status_code == 401, (method, url[:80])


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space", "/secret/a.bin"), RecursionError("deep"), KeyError("x")], ids=repr
)
def test_every_route_answers_an_error_with_a_sentence(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is met at the first thing that a route asks for behind the guard."""
    app: Any = FastAPI()
    app.auth, app.tokens = None, {}

    class Failing:
        def __getattr__(self, name: str) -> Any:
            raise error

    failing: Any = Failing()
    listed: Any = SimpleNamespace(runner=failing, revision=0, entry=lambda name: failing.x)
    add_routes(app, listed, GUARD)
    monkeypatch.setattr("lib_lora.ui.routes.listing", lambda queue: failing.x)
    client = TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
    for method, path in ours(app):
        if method == "POST":  # hands out what it has
            continue
        answer = client.request(method, path.format(job="x", step=1, place=1, entry="x"))
        assert answer.status_code in (500, 503) and "This failed" in answer.json()["detail"], path
        assert "/secret" not in answer.text


def test_numbers_of_a_request_are_bounded(tmp_path: Path) -> None:
    app: Any = FastAPI()
    app.auth, app.tokens = None, {}
    add_routes(app, queue_of(Host(tmp_path / "loras"), tmp_path), Guard())
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    for odd in ("x", "-1", "9" * 5000, "1.5", "²", ""):
        assert client.get("/train-lora/status", params={"since": odd}).status_code == 422
    assert client.get("/train-lora/status?since=3").status_code == 200
    assert client.get("/train-lora/sample/x/1/y").status_code == 422 and client.get("/train-lora/sample/x/1/1").status_code == 404


def test_a_full_disk_is_told_where_files_are_dropped(blocks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings file: nothing is half there afterwards, and it is read once there is room."""
    served = tmp_path / "gradio"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(served))
    sent = served / "abc" / "a.json"
    sent.parent.mkdir(parents=True)
    sent.write_text('{"rank": 77}')
    content = sent.read_bytes()

    def full(source: Any, target: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    for part in blocks.blocks.values():
        if hasattr(part, "_taken"):
            part.DEFAULT_TEMP_DIR = str(served)
    _, event, function = next(found for found in events(blocks) if found[0].startswith("train_lora_import "))
    values = [GUARD.key, {"name": str(sent), "orig_name": "a.json", "is_file": True}]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError(errno.EXDEV, "other disk")))
        patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "other disk")))
        told = str(asked(blocks, event, function, list(values)))
    assert "No space left" in told and "77" not in told
    assert not [path for path in (tmp_path / ".private").rglob("*") if path.is_file()] and sent.read_bytes() == content
    assert "77" in str(asked(blocks, event, function, list(values)))


@pytest.mark.parametrize("gone", [False, True])
def test_an_export_tells_when_the_temporary_folder_is_full_or_gone(
    gone: bool, blocks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, event, function = next(found for found in events(blocks) if found[0].startswith("train_lora_export "))
    values = [GUARD.key, *(getattr(blocks.blocks[number], "value", None) for number in event["inputs"][1:])]
    exported = next(part for part in blocks.blocks.values() if getattr(part, "elem_id", None) == "train_lora_exported")
    exported.DEFAULT_TEMP_DIR = str(tmp_path / "served")

    def full(source: Any, target: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    with monkeypatch.context() as patch:
        if gone:
            patch.setattr("tempfile.tempdir", str(tmp_path / "cleaned"))
        else:
            patch.setattr("shutil.copy2", full)
        told, update = asked(blocks, event, function, list(values))
    assert ("No such file" if gone else "No space left") in told and "value" not in update
    assert not [path for path in (tmp_path / "served").rglob("*") if path.is_file()]
    told, update = asked(blocks, event, function, list(values))
    blocks.postprocess_data(blocks.fns.index(function), [told, update], {})
    assert Path(update["value"]).is_file() and Path(update["value"]).stat().st_size > 50
