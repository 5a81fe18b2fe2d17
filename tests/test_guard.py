"""Who may look and who may change, over HTTP."""

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

from lib_lora.ui.guard import REFUSED, Guard  # noqa: E402
from lib_lora.ui.origin import networks  # noqa: E402

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
        (request("::ffff:127.0.0.1"), 200), (request(x_forwarded_for="127.0.0.1, ::1"), 403),
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


HANDED_ON = [
    "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-server", "x-forwarded-port", "x-real-ip",
    "via", "cf-connecting-ip", "cf-ray", "cdn-loop", "true-client-ip", "x-client-ip", "x-cluster-client-ip", "x-original-host",
    "fly-client-ip", "x-envoy-external-address", "x-azure-clientip", "fastly-client-ip", "ngrok-trace-id", "x-scheme", "x-nginx-proxy",
]  # fmt: skip


@pytest.mark.parametrize("name", HANDED_ON)
def test_what_a_proxy_hands_on_is_not_from_here_whatever_it_says(name: str) -> None:
    asked = request(**{name: "127.0.0.1"})
    assert answer(OPEN.change, app_of(login=False), asked) == 403
    logged_in = request(**{name: "127.0.0.1"}, **COOKIE)
    assert answer(OPEN.change, app_of(login=True), logged_in) == 200


def through(http_version: str = "1.1", port: int = 7860, **headers: str) -> Request:
    """A request as a proxy on the webui's own machine hands it on, with the webui's own name written over the one it had."""
    asked = request(**headers)
    asked.scope["http_version"], asked.scope["server"] = http_version, ("127.0.0.1", port)
    return asked


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (through(), 200), (through(origin=f"http://{HOME}"), 200), (through(referer=f"http://{HOME}/?a=1"), 200),
        (through(port=7861), 403),  # another port than the webui's is a tunnel's
        (through("1.0"), 403),  # as nginx does where it is not told otherwise
        (through(origin="https://my.example"), 403), (through(referer="https://my.example/"), 403),  # a browser behind one
        (through(sec_fetch_site="same-site"), 403),
    ],
)  # fmt: skip
def test_a_proxy_that_says_nothing_of_itself_is_told_by_what_browsers_say(asked: Request, status: int) -> None:
    assert answer(OPEN.change, app_of(login=False), asked) == status


def test_behind_a_proxy_that_the_person_told_of_a_login_is_needed() -> None:
    """Programs look alike with and without such a proxy: the setting tells them apart."""
    behind = Guard(proxies=networks("127.0.0.1, ::1, 10.0.0.0/8"))
    assert answer(OPEN.change, app_of(login=False), through()) == 200
    for asked in (through(), request("::1", "[::1]:7860"), request("::ffff:127.0.0.1")):
        assert answer(behind.change, app_of(login=False), asked) == 403
        assert answer(behind.look, app_of(login=False), asked) == 200
    named = {"origin": "https://my.example", "x-forwarded-host": "my.example"}
    assert answer(behind.change, app_of(login=True), request(**named, **COOKIE)) == 200, "the page's own name, as the proxy says"
    other = {**named, "origin": "https://other.example"}
    assert answer(behind.change, app_of(login=True), request(**other, **COOKIE)) == 403
    assert answer(OPEN.change, app_of(login=True), request(**named, **COOKIE)) == 403, (
        "without the setting its header is not believed"
    )
    assert answer(Guard(proxies=networks("all")).change, app_of(login=False), request()) == 403
    for wrong in ("my.example", "127.0.0.1/99", "1.2.3", "[::1]"):
        with pytest.raises(ValueError, match=re.escape(wrong)):
            networks(f"10.0.0.1, {wrong}")


ODD_VALUES = ["http://[", "[", "]", "[::1", "http://[::1", "//", "http://", "http:// ", "http://\x00", "http://é", "\xff\xfe", "http://a:b", "a:99999999",
              "http://127.0.0.1:99999", "http://127.0.0.1:7860@evil.example", "%00", "a" * 70_000, ",", ", ,", "Basic é", "Basic ", "Basic \xff", "=",
              ";;;=;", "access-token=\xff; access-token", 'access-token-unsecure="', "-1", "1e9", "9" * 5000, "127.0.0.1 , x", "::1%eth0", "http://[::1%25a]",
              "http://[v1.x]", "http://[fe80::%]", "localhost:", "localhost:٣", ":7860", "http://127.1:7860", "http://0x7f.1"]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_VALUES, ids=range(len(ODD_VALUES)))
@pytest.mark.parametrize("name", ["host", "origin", "referer", "cookie", "authorization", "sec-fetch-site", "x-forwarded-for", "x-forwarded-host",
                                  "forwarded", "content-length", "x-real-ip", "anything"])  # fmt: skip
def test_no_header_is_an_exception_or_lets_anybody_in(name: str, odd: str) -> None:
    """As bytes of any kind, once, twice and beside the usual one; none makes a stranger's request one that may change something."""
    value = odd.encode("utf-8")
    for given in ([value], [value, value], [value, b"http://127.0.0.1:7860"], [b"127.0.0.1:7860", value]):
        for guard, login in ((OPEN, False), (API, False), (OPEN, True), (Guard(proxies=networks("127.0.0.1")), False)):
            headers = [(b"host", b"192.0.2.2:7860")] if name != "host" else []
            scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "client": ("192.0.2.7", 1)}
            asked = Request({**scope, "headers": [*headers, *((name.encode(), each) for each in given)]})
            assert answer(guard.change, app_of(login=login), asked) in (401, 403)
            answer(guard.look, app_of(login=login), asked)


def test_a_header_that_is_there_twice_is_not_believed() -> None:
    for name, values in (("host", (HOME, "evil.example")), ("origin", (f"http://{HOME}", "https://evil.example"))):
        for order in (values, values[::-1]):
            asked = request(**{"sec-fetch-site": "none"})
            kept = [pair for pair in asked.scope["headers"] if pair[0] != name.encode()]
            scope = {**asked.scope, "headers": [*kept, *((name.encode(), value.encode()) for value in order)]}
            assert answer(OPEN.change, app_of(login=False), Request(scope)) == 403


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

    plain = guard.guarded(lambda value: done.append(value) or "done", list)
    waiting = guard.guarded(wait, list)
    for wrong in ("", None, 3, "é", "\ud800", [], {}, guard.key + "x", Guard().key):
        assert plain(wrong, 1) == [REFUSED] == asyncio.run(waiting(wrong, 1))
    assert done == []
    assert plain(guard.key, 1) == "done" and asyncio.run(waiting(guard.key, 2)) == "waited" and done == [1, 2]
    assert len({Guard().key for _ in range(9)}) == 9 and len(guard.key) > 30


@pytest.mark.parametrize("line", [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if "::" in line])
def test_every_test_that_the_page_names_is_there(line: str) -> None:
    assert line.count("::") == len(re.findall(r"`(?:\w+/)?test_\w+\.py::\w+`", line)), "a name that is not looked for"
    for file, name in re.findall(r"`((?:\w+/)?test_\w+\.py)::(\w+)`", line):
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), name
