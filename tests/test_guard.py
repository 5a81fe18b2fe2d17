"""Who may look and who may change, asked over HTTP."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

from fastapi import HTTPException, Request  # noqa: E402

from lib_lora.ui.guard import Guard  # noqa: E402

ROOT = Path(__file__).parent.parent
HOME = "127.0.0.1:7860"


def app_of(*, login: bool) -> Any:
    """As gradio's app: people who log in, or none."""
    return SimpleNamespace(auth={"me": "secret"} if login else None, tokens={"session": "me"})


def request(client: str = "127.0.0.1", host: str = HOME, **headers: str) -> Request:
    """A request as the server sees it; `_` in names of headers is `-`."""
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw, "client": (client, 1), "query_string": b""})


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def answer(check: Any, app: Any, asked: Request) -> int:
    try:
        check(app, asked)
    except HTTPException as error:
        return error.status_code
    return 200


OPEN, API = Guard(), Guard({"bot": "pa:ss"})
COOKIE, OLD = {"cookie": "access-token-unsecure=session"}, {"cookie": "access-token-unsecure=gone"}
GOOD, WRONG = {"authorization": basic("bot:pa:ss")}, {"authorization": basic("bot:other")}


@pytest.mark.parametrize(
    ("guard", "login", "headers", "status"),
    [
        (OPEN, False, {}, 200),
        (OPEN, True, {}, 401), (OPEN, True, OLD, 401), (OPEN, True, GOOD, 401), (OPEN, True, COOKIE, 200),
        (API, False, {}, 401), (API, False, COOKIE, 401), (API, False, WRONG, 401), (API, False, GOOD, 200),
        (API, False, {"authorization": "Basic %"}, 401), (API, False, {"authorization": basic("nobody:pa:ss")}, 401),
        (API, False, {"authorization": "Bearer x"}, 401),
        (API, True, {}, 401), (API, True, COOKIE, 200), (API, True, GOOD, 200),
    ],
)  # fmt: skip
@pytest.mark.case(62)
def test_any_login_is_asked_for(guard: Guard, login: bool, headers: dict[str, str], status: int) -> None:
    for check in (guard.look, guard.change):
        assert answer(check, app_of(login=login), request(**headers)) == status


def test_a_browser_is_asked_for_credentials_only_where_it_cannot_log_in() -> None:
    for login, wanted in ((False, {"WWW-Authenticate": "Basic"}), (True, None)):
        with pytest.raises(HTTPException) as told:
            API.change(app_of(login=login), request())
        assert told.value.headers == wanted
    with pytest.raises(HTTPException) as told:  # asked at every load of the page
        API.look(app_of(login=False), request())
    assert told.value.headers is None


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(), 200), (request(host="localhost:7860"), 200), (request("::1", "[::1]:7860"), 200),
        (request("::ffff:127.0.0.1"), 200), (request(x_forwarded_for="127.0.0.1, ::1"), 200),
        (request("192.0.2.7"), 403), (request("192.0.2.7", "192.0.2.2:7860"), 403), (request("fd00::7"), 403),
        (request(host="attacker.example"), 403), (request(host="127.0.0.1.attacker.example"), 403),  # DNS rebinding
        (request(host="abc.gradio.live"), 403), (request(host=""), 403), (request(host="[::1"), 403),  # a tunnel; nonsense
        (request(x_forwarded_for="192.0.2.7"), 403), (request(x_real_ip="192.0.2.7"), 403), (request(forwarded="for=1"), 403),
        (request("not an address"), 403),
    ],
)  # fmt: skip
@pytest.mark.case(62)
def test_without_login_only_this_machine_changes_something(asked: Request, status: int) -> None:
    assert answer(OPEN.change, app_of(login=False), asked) == status
    assert answer(OPEN.look, app_of(login=False), asked) == 200
    assert answer(Guard(trust_everybody=True).change, app_of(login=False), asked) == 200
    with_login = request(asked.client.host if asked.client else "", **dict(asked.headers), **COOKIE)
    assert answer(OPEN.change, app_of(login=True), with_login) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": f"http://{HOME}"}, 200), ({"origin": f"https://{HOME}"}, 200),
        ({"origin": f"http://{HOME}", "sec_fetch_site": "same-origin"}, 200), ({"sec_fetch_site": "none"}, 200),
        ({"origin": "http://localhost:7860", "host": "LOCALHOST:7860"}, 200),
        ({"origin": "http://localhost", "host": "localhost:80"}, 200), ({"origin": "https://localhost:443", "host": "localhost"}, 200),
        ({"origin": "https://attacker.example"}, 403), ({"origin": "http://127.0.0.1:9999"}, 403), ({"origin": "null"}, 403),
        ({"origin": f"http://{HOME}.attacker.example"}, 403), ({"origin": "file://"}, 403), ({"origin": ""}, 403),
        ({"sec_fetch_site": "cross-site"}, 403), ({"sec_fetch_site": "same-site"}, 403),
    ],
)  # fmt: skip
@pytest.mark.case(63)
def test_pages_of_other_sites_change_nothing(headers: dict[str, str], status: int) -> None:
    for guard, login, more in (
        (OPEN, False, {}),
        (OPEN, True, COOKIE),
        (API, False, GOOD),
        (Guard(trust_everybody=True), False, {}),
    ):
        assert answer(guard.change, app_of(login=login), request(**headers, **more)) == status


def test_sites_that_the_webui_names_may() -> None:
    by_name = Guard(origins=("https://friend.example", "*"))
    by_pattern = Guard(origins_pattern=r"https://.*\.friend\.example")
    friend, other = request(origin="https://friend.example"), request(origin="https://other.example")
    assert [answer(by_name.change, app_of(login=False), asked) for asked in (friend, other)] == [200, 403]
    sub, fake = request(origin="https://a.friend.example"), request(origin="https://a.friend.example.evil.example")
    assert [answer(by_pattern.change, app_of(login=False), asked) for asked in (sub, fake)] == [200, 403]


def test_events_bring_the_key() -> None:
    guard, done = Guard(), []

    async def wait(value: int) -> str:
        done.append(value)
        return "waited"

    plain = guard.guarded(lambda value: done.append(value) or "done", lambda: "refused")
    waiting = guard.guarded(wait, lambda: "refused")
    for wrong in ("", None, 3, "é", guard.key + "x", Guard().key):
        assert plain(wrong, 1) == "refused" and asyncio.run(waiting(wrong, 1)) == "refused"
    assert done == []
    assert plain(guard.key, 1) == "done" and asyncio.run(waiting(guard.key, 2)) == "waited" and done == [1, 2]
    assert len({Guard().key for _ in range(9)}) == 9 and len(guard.key) > 30


@pytest.mark.parametrize("line", [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if "::" in line])
def test_every_test_that_the_page_names_is_there(line: str) -> None:
    assert line.count("::") == len(re.findall(r"`(?:\w+/)?test_\w+\.py::\w+`", line)), "a name that is not looked for"
    for file, name in re.findall(r"`((?:\w+/)?test_\w+\.py)::(\w+)`", line):
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), name
