"""Where a request comes from: this machine, a proxy, the webui's own page or that of another site, as far as it can be told.

A program on this machine and a proxy on this machine that passes on what a program elsewhere sends look alike when the proxy
writes the webui's own name over the one it was asked for, and says nothing of itself. Browsers give it away (they name the
page's site), and so do most proxies; for the others there is a setting: `TRAIN_LORA_PROXIES`.
"""

from __future__ import annotations

import ipaddress
from typing import Union
from urllib.parse import urlsplit

from fastapi import Request

Networks = tuple[Union[ipaddress.IPv4Network, ipaddress.IPv6Network], ...]  # noqa: UP007 - a value, which Python 3.10 makes
EVERYWHERE: Networks = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_DEFAULT_PORTS = {"http": 80, "https": 443}
# what proxies and tunnels add, by how it begins: nobody sends it who talks to the webui directly
_FORWARDING = (
    "forwarded", "x-forward", "x-real-ip", "x-real-", "via", "cf-", "cdn-", "x-client-ip", "client-ip", "true-client-ip",
    "x-cluster-client", "x-original-", "x-originating", "x-envoy-", "x-azure-", "x-appengine-", "x-amzn-", "x-amz-cf", "fly-",
    "fastly-", "x-proxy", "proxy-", "x-remote-", "x-nginx", "x-host", "x-scheme", "x-http-", "x-arr-", "x-ngrok", "ngrok-",
    "x-vercel-", "x-nf-", "x-akamai", "akamai-", "x-tailscale", "tailscale-", "x-coder-", "x-request-start",
)  # fmt: skip


def networks(text: str) -> Networks:
    """Addresses and networks with commas between them, as `TRAIN_LORA_PROXIES` has them; `all` for every address.

    Raises:
        ValueError: with the part that is none.
    """
    found: Networks = ()
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found += EVERYWHERE if part.lower() in ("all", "*") else (ipaddress.ip_network(part, strict=False),)
        except ValueError as error:
            raise ValueError(part) from error
    return found


def header(request: Request, name: str) -> str | None:
    """A header that is there once; None where it is not there. Of several that differ none is to be believed: "?"."""
    values = set(request.headers.getlist(name))
    return values.pop() if len(values) == 1 else "?" if values else None


def is_near(request: Request, proxies: Networks) -> bool:
    """The request comes from this machine, as far as it can be told not through a proxy or a tunnel, and was meant for it.

    The name is looked at too: a page of another site may have its name point to this machine (DNS rebinding).
    """
    peer = _address(request.client.host) if request.client else None
    if peer is None or not peer.is_loopback or _is_in(peer, proxies) or _is_handed_on(request):
        return False
    place = _place(f"//{header(request, 'host') or ''}")
    if place is None:
        return False
    name, port = place
    address = _address(name)
    return (name == "localhost" or (address is not None and address.is_loopback)) and _is_own_port(request, port)


def is_of_another_site(request: Request, proxies: Networks) -> bool:
    """Whether a browser says that a page of another site sent it. Programs say nothing."""
    origin = header(request, "origin")
    if origin is None:
        if (header(request, "sec-fetch-site") or "none").lower() not in {"none", "same-origin"}:
            return True
        origin = header(request, "referer")
        if origin is None:
            return False
    scheme = origin.partition("://")[0].lower()
    place, own = _place(origin), _place(f"{scheme}://{_own_host(request, proxies)}")
    return scheme not in _DEFAULT_PORTS or place is None or own is None or _full(place, scheme) != _full(own, scheme)


def _own_host(request: Request, proxies: Networks) -> str:
    """The name that the webui was asked under; behind a proxy that the person told of, the proxy says which that was.

    A page of another site cannot have a browser send that header, so it needs no proof of who wrote it.
    """
    told = header(request, "x-forwarded-host") if proxies else None
    return told.partition(",")[0].strip() if told else header(request, "host") or ""


def _is_handed_on(request: Request) -> bool:
    """Whether it shows that a proxy handed it on: no browser speaks HTTP/1.0, as nginx does where it is not told otherwise."""
    if str(request.scope.get("http_version", "1.1")) in ("1.0", "0.9"):
        return True
    return any(name.startswith(_FORWARDING) for name in (name.lower() for name in request.headers))


def _is_own_port(request: Request, port: int | None) -> bool:
    """Whether the port that the page was asked under is the one the webui listens on; another one is a tunnel's."""
    server = request.scope.get("server")
    own = server[1] if isinstance(server, (tuple, list)) and len(server) == 2 else None
    return own is None or (port or 80) == own or (port is None and own == 443)


def _place(url: str) -> tuple[str, int | None] | None:
    """Name and port of an address; None where it is none."""
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    return (name, port) if name and "@" not in parts.netloc and "%" not in name else None


def _full(place: tuple[str, int | None], scheme: str) -> tuple[str, int]:
    return place[0], place[1] or _DEFAULT_PORTS[scheme]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.strip().strip("[]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, proxies: Networks) -> bool:
    return any(address.version == network.version and address in network for network in proxies)
