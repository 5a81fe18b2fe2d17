"""Who may look at a run, and who may begin or change one, on a webui that others can reach.

gradio guards only its own routes, and a client can forge what its events say of their request. So a page first asks a route
of this extension for the key, and every event must carry the key; nothing else in the event is read before it is checked.
"""

from __future__ import annotations

import base64
import hmac
import inspect
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException, Request

from lib_lora.ui.answering import problems_of
from lib_lora.ui.origin import Networks, header, is_near, is_of_another_site

REFUSED = (
    "This page may not train: either the webui has no login and the page was opened from another computer, through a proxy or "
    "under another name (start the webui with --gradio-auth NAME:PASSWORD), or the page is not logged in (reload it and log in)."
)
FAR = (
    "Refused: this webui has no login, so only its own computer may change something or see images, and not through a proxy; "
    "start it with --gradio-auth NAME:PASSWORD."
)
FOREIGN = "Refused: the request comes from a page of another site; use the webui's own page."
_SESSION_COOKIES = ("access-token", "access-token-unsecure")  # gradio 3.41.2 `App.create_app`
_LONGEST_ORIGIN = 300


@dataclass(frozen=True)
class Guard:
    """Access rules, from the webui's flags.

    Args:
        api_users: name -> password of `--api-auth`.
        trust_everybody: other machines may change anything (`--enable-insecure-extension-access`).
        origins: other sites whose pages may call the webui (`--cors-allow-origins`).
        origins_pattern: the same as a regular expression (`--cors-allow-origins-regex`).
        proxies: addresses of this webui's proxies; requests from these never count as local.
        key: shows that a page passed `change`; for gradio events, which cannot call it themselves.
    """

    api_users: Mapping[str, str] = field(default_factory=dict)
    trust_everybody: bool = False
    origins: tuple[str, ...] = ()
    origins_pattern: str | None = None
    proxies: Networks = ()
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def look(self, app: Any, request: Request) -> None:
        """Require a gradio login or API credentials, if the webui has either.

        Raises:
            HTTPException: 401.
        """
        if not self._known(app, request):
            raise HTTPException(401, "Not authenticated")

    def look_at_private(self, app: Any, request: Request) -> None:
        """As `look`; also refuse pages of other sites and, if the webui has no login, other machines and other names of this one.

        Raises:
            HTTPException: 401 or 403.
        """
        self.look(app, request)
        self._require_own(app, request)

    def change(self, app: Any, request: Request) -> None:
        """As `look_at_private`.

        Raises:
            HTTPException: 401 or 403. With 401 a browser asks for the API's credentials if there is no login page.
        """
        if not self._known(app, request):
            asks = {"WWW-Authenticate": "Basic"} if not self._has_login(app) else None
            raise HTTPException(401, "Not authenticated", headers=asks)
        self._require_own(app, request)

    def _require_own(self, app: Any, request: Request) -> None:
        if self._is_foreign(request):
            raise HTTPException(403, FOREIGN)
        if not (self._has_login(app) or self.api_users or self.trust_everybody or is_near(request, self.proxies)):
            raise HTTPException(403, FAR)

    def admits(self, key: Any) -> bool:
        """Whether `key` is the guard's key."""
        return isinstance(key, str) and hmac.compare_digest(key.encode(errors="replace"), self.key.encode())

    def guarded(self, answer: Callable[..., Any], told: Callable[[Sequence[str]], Any]) -> Callable[..., Any]:
        """`answer` with the key as an additional first input, checked before the others; outputs that a page appends are dropped.

        Args:
            answer: a function or a coroutine function.
            told: the answer, from messages, to a wrong key, and if `answer` raises any error.
        """
        taken = _inputs_of(answer)

        async def awaited(key: Any = None, *values: Any) -> Any:
            if not self.admits(key):
                return told([REFUSED])
            try:
                return await answer(*values[:taken])
            except Exception as error:  # noqa: BLE001 - any error is reported
                return told(problems_of(error))

        def called(key: Any = None, *values: Any) -> Any:
            if not self.admits(key):
                return told([REFUSED])
            try:
                return answer(*values[:taken])
            except Exception as error:  # noqa: BLE001 - as above
                return told(problems_of(error))

        return awaited if inspect.iscoroutinefunction(answer) else called

    @staticmethod
    def _has_login(app: Any) -> bool:
        return getattr(app, "auth", None) is not None

    def _known(self, app: Any, request: Request) -> bool:
        has_login = self._has_login(app)
        if has_login and any(request.cookies.get(name) in app.tokens for name in _SESSION_COOKIES):
            return True
        return self._has_credentials(request) if self.api_users else not has_login

    def _has_credentials(self, request: Request) -> bool:
        kind, _, text = (header(request, "authorization") or "").partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        except ValueError:  # no base64, no ASCII, no UTF-8
            return False
        wanted = self.api_users.get(name)
        return wanted is not None and hmac.compare_digest(password.encode(), wanted.encode(errors="replace"))

    def _is_foreign(self, request: Request) -> bool:
        """Whether a browser states that a page of another site sent the request. Other programs need no protection."""
        origin = header(request, "origin")
        if origin and len(origin) <= _LONGEST_ORIGIN and self._is_named(origin):
            return False
        return is_of_another_site(request, self.proxies)

    def _is_named(self, origin: str) -> bool:
        return origin in self.origins or bool(self.origins_pattern and re.fullmatch(self.origins_pattern, origin))


def _inputs_of(answer: Callable[..., Any]) -> int | None:
    """The number of inputs of a function; None if it takes any number."""
    kinds = [parameter.kind for parameter in inspect.signature(answer).parameters.values()]
    return None if inspect.Parameter.VAR_POSITIONAL in kinds else len(kinds)
