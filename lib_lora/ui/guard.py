"""Who may look at a run, and who may begin or change one, on a webui that others may reach.

gradio guards its own routes alone, and what its events say of their request can be made up by who sends them. So a page
asks a route of ours for the key first, and every event has to bring it before anything else that it brings is looked at.
"""

from __future__ import annotations

import base64
import functools
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
    "Refused: this webui has no login, so only its own computer may change something, and not through a proxy; start it with "
    "--gradio-auth NAME:PASSWORD."
)
FOREIGN = "Refused: the request comes from a page of another site; use the webui's own page."
_SESSION_COOKIES = ("access-token", "access-token-unsecure")  # gradio 3.41.2 `App.create_app`
_LONGEST_ORIGIN = 300


@dataclass(frozen=True)
class Guard:
    """What the webui was started with, as far as it says who may do what.

    Args:
        api_users: name -> password of `--api-auth`.
        trust_everybody: the person said that other machines may change anything (`--enable-insecure-extension-access`).
        origins: other sites whose pages may call the webui, by name (`--cors-allow-origins`).
        origins_pattern: the same as a pattern (`--cors-allow-origins-regex`).
        proxies: where proxies of this webui are; what they hand on comes from elsewhere, whatever it says of itself.
        key: what `change` is worth, for events that cannot ask for themselves.
    """

    api_users: Mapping[str, str] = field(default_factory=dict)
    trust_everybody: bool = False
    origins: tuple[str, ...] = ()
    origins_pattern: str | None = None
    proxies: Networks = ()
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
        if not (has_login or self.api_users or self.trust_everybody or is_near(request, self.proxies)):
            raise HTTPException(403, FAR)

    def admits(self, key: Any) -> bool:
        """Whether `key` is the one that pages get which may change something."""
        return isinstance(key, str) and hmac.compare_digest(key.encode(errors="replace"), self.key.encode())

    def guarded(
        self,
        answer: Callable[..., Any],
        refused: Callable[[], Any],
        failed: Callable[[Sequence[str]], Any] | None = None,
    ) -> Callable[..., Any]:
        """`answer` with the key in front of its inputs, which are not looked at before; behind them a page sends its outputs.

        Args:
            answer: a function or a coroutine.
            refused: answers who does not bring the key.
            failed: answers with sentences where `answer` raises an error of any kind; without it the error goes on.
        """
        taken = _inputs_of(answer)
        if inspect.iscoroutinefunction(answer):

            @functools.wraps(answer)
            async def awaited(key: Any = None, *values: Any) -> Any:
                if not self.admits(key):
                    return refused()
                try:
                    return await answer(*values[:taken])
                except Exception as error:  # an error of any kind is told
                    if failed is None:
                        raise
                    return failed(problems_of(error))

            return _without_signature(awaited)

        @functools.wraps(answer)
        def called(key: Any = None, *values: Any) -> Any:
            if not self.admits(key):
                return refused()
            try:
                return answer(*values[:taken])
            except Exception as error:  # as above
                if failed is None:
                    raise
                return failed(problems_of(error))

        return _without_signature(called)

    def _known(self, app: Any, request: Request) -> bool:
        has_login = getattr(app, "auth", None) is not None
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
        """Whether a browser says that a page of another site sent it. Programs say nothing, and need no protection."""
        origin = header(request, "origin")
        if origin and len(origin) <= _LONGEST_ORIGIN and self._is_named(origin):
            return False
        return is_of_another_site(request, self.proxies)

    def _is_named(self, origin: str) -> bool:
        return origin in self.origins or bool(self.origins_pattern and re.fullmatch(self.origins_pattern, origin))


def _inputs_of(answer: Callable[..., Any]) -> int | None:
    """How many inputs a function takes; None where it takes any number."""
    kinds = [parameter.kind for parameter in inspect.signature(answer).parameters.values()]
    return None if inspect.Parameter.VAR_POSITIONAL in kinds else len(kinds)


def _without_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of what is called, gradio counts the parameters that it can see; those are the key and the others."""
    del function.__wrapped__  # type: ignore[attr-defined]
    return function
