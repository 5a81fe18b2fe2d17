"""Who may look at a run, and who may begin or change one, on a webui that others may reach.

gradio guards its own routes alone, and what its events say of their request can be made up by who sends them. So a page
asks a route of ours for the key first, and every event that reads folders or changes something has to bring it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
import inspect
import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

REFUSED = (
    "This page may not train: the webui has no login and the page was opened from another machine or under another name "
    "(start the webui with --gradio-auth NAME:PASSWORD), or the page is not logged in (load it again, and log in)."
)
FAR = (
    "Refused: this webui has no login, and only its own machine may change something; start it with --gradio-auth NAME:PASSWORD."
)
FOREIGN = "Refused: the request comes from a page of another site; open the webui itself."
_SESSION_COOKIES = ("access-token", "access-token-unsecure")  # gradio 3.41.2 `App.create_app`
_FORWARDED = ("x-forwarded-for", "x-real-ip")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class Guard:
    """What the webui was started with, as far as it says who may do what.

    Args:
        api_users: name -> password of `--api-auth`.
        trust_everybody: the person said that other machines may change anything (`--enable-insecure-extension-access`).
        origins: other sites whose pages may call the webui, by name (`--cors-allow-origins`).
        origins_pattern: the same as a pattern (`--cors-allow-origins-regex`).
        key: what `change` is worth, for events that cannot ask for themselves.
    """

    api_users: Mapping[str, str] = field(default_factory=dict)
    trust_everybody: bool = False
    origins: tuple[str, ...] = ()
    origins_pattern: str | None = None
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def look(self, app: Any, request: Request) -> None:
        """Let only those pass who are logged in at gradio or bring credentials of the API, where the webui has any.

        Raises:
            HTTPException: 401.
        """
        if not self._known(app, request):
            raise HTTPException(401, "Not authenticated")

    def change(self, app: Any, request: Request) -> None:
        """As `look`; besides, no page of another site, and where the webui has no login only its own machine.

        Raises:
            HTTPException: 401 or 403. With 401 a browser asks for the API's credentials where there is no page to log in.
        """
        has_login = getattr(app, "auth", None) is not None
        if not self._known(app, request):
            raise HTTPException(401, "Not authenticated", headers=None if has_login else {"WWW-Authenticate": "Basic"})
        if self._is_foreign(request):
            raise HTTPException(403, FOREIGN)
        if not (has_login or self.api_users or self.trust_everybody or _is_near(request)):
            raise HTTPException(403, FAR)

    def admits(self, key: Any) -> bool:
        """Whether `key` is the one that pages get which may change something."""
        return isinstance(key, str) and hmac.compare_digest(key.encode(), self.key.encode())

    def guarded(self, answer: Callable[..., Any], refused: Callable[[], Any]) -> Callable[..., Any]:
        """`answer` with the key in front of its inputs; `refused` answers who does not bring it."""
        if inspect.iscoroutinefunction(answer):

            @functools.wraps(answer)
            async def awaited(key: Any, *values: Any) -> Any:
                return await answer(*values) if self.admits(key) else refused()

            return _without_signature(awaited)

        @functools.wraps(answer)
        def called(key: Any, *values: Any) -> Any:
            return answer(*values) if self.admits(key) else refused()

        return _without_signature(called)

    def _known(self, app: Any, request: Request) -> bool:
        has_login = getattr(app, "auth", None) is not None
        if has_login and any(request.cookies.get(name) in app.tokens for name in _SESSION_COOKIES):
            return True
        return self._has_credentials(request) if self.api_users else not has_login

    def _has_credentials(self, request: Request) -> bool:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        wanted = self.api_users.get(name)
        return wanted is not None and hmac.compare_digest(password.encode(), wanted.encode())

    def _is_foreign(self, request: Request) -> bool:
        """Whether a browser says that a page of another site sent it. Programs say nothing, and need no protection."""
        origin = request.headers.get("origin")
        if origin is None:
            return request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
        if origin in self.origins or (self.origins_pattern and re.fullmatch(self.origins_pattern, origin)):
            return False
        scheme = urlsplit(origin).scheme
        return scheme not in _DEFAULT_PORTS or _place(origin, scheme) != _place(
            f"{scheme}://{request.headers.get('host', '')}", scheme
        )


def _without_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of what is called, gradio counts the parameters that it can see; those are the key and the others."""
    del function.__wrapped__  # type: ignore[attr-defined]
    return function


def _place(url: str, scheme: str) -> str:
    """Host and port, the port left out where it is the scheme's own."""
    return urlsplit(url).netloc.lower().removesuffix(_DEFAULT_PORTS[scheme])


def _is_near(request: Request) -> bool:
    """The request comes from this machine, not through a tunnel or a proxy, and was meant for it.

    The name is looked at too: a page of another site may have its name point to this machine (DNS rebinding).
    """
    came_from = [request.client.host] if request.client else []
    came_from += [part for name in _FORWARDED for part in request.headers.get(name, "").split(",") if part.strip()]
    try:
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return False
    here = name == "localhost" or _is_loopback(name)
    return here and bool(came_from) and all(_is_loopback(part) for part in came_from) and "forwarded" not in request.headers


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.strip().strip("[]"))
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
