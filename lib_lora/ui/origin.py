"""Where a request comes from: this machine, a proxy, the webui's own page or another site's, as far as can be determined.

A program on this machine and a local proxy for a remote program look alike if the proxy overwrites the Host header with the
webui's own name and adds no header. Browsers reveal it (they name the page's site), and so do most proxies; for the others
there is a setting: `TRAIN_LORA_PROXIES`.
"""

from __future__ import annotations

import ipaddress
from typing import Union
from urllib.parse import urlsplit

from fastapi import Request

Networks = tuple[Union[ipaddress.IPv4Network, ipaddress.IPv6Network], ...]  # noqa: UP007 - a value, which Python 3.10 makes
EVERYWHERE: Networks = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_DEFAULT_PORTS = {"http": 80, "https": 443}
# prefixes of headers that proxies and tunnels add, and direct clients do not send
_FORWARDING = (
    "forwarded", "x-forward", "x-real-ip", "x-real-", "via", "cf-", "cdn-", "x-client-ip", "client-ip", "true-client-ip",
    "x-cluster-client", "x-original-", "x-originating", "x-envoy-", "x-azure-", "x-appengine-", "x-amzn-", "x-amz-cf", "fly-",
    "fastly-", "x-proxy", "proxy-", "x-remote-", "x-nginx", "x-host", "x-scheme", "x-http-", "x-arr-", "x-ngrok", "ngrok-",
    "x-vercel-", "x-nf-", "x-akamai", "akamai-", "x-tailscale", "tailscale-", "x-coder-", "x-request-start",
)  # fmt: skip


def networks(text: str) -> Networks:
    """The networks in a comma-separated list of addresses and networks (`TRAIN_LORA_PROXIES`); `all` for every address.

    Raises:
        ValueError: with the part that is invalid.
    """
    found: Networks = ()
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found += EVERYWHERE if part.lower() in ("all", "*") else (ipaddress.ip_network(part, strict=False),)
        except ValueError as error:
            raise ValueError(part) from error
    return found


def header(request: Request, name: str) -> str | None:
    """The value of a header; None if there is none, "?" if there are several that differ."""
    values = set(request.headers.getlist(name))
    return values.pop() if len(values) == 1 else "?" if values else None


def is_near(request: Request, proxies: Networks) -> bool:
    """Whether the request comes from this machine, apparently without proxy or tunnel, and was addressed to it.

    The Host header is checked too: the name of another site may resolve to this machine (DNS rebinding).
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
    """Whether a browser states that a page of another site sent the request. Other programs state nothing."""
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
    """The host name of the webui in the request; if the user named proxies, x-forwarded-host comes first.

    A page of another site cannot make a browser send that header, so it can be trusted here.
    """
    told = header(request, "x-forwarded-host") if proxies else None
    return told.partition(",")[0].strip() if told else header(request, "host") or ""


def _is_handed_on(request: Request) -> bool:
    """Whether the request shows signs of a proxy. HTTP/1.0 is one: it is nginx's default, and no browser uses it."""
    if str(request.scope.get("http_version", "1.1")) in ("1.0", "0.9"):
        return True
    return any(name.startswith(_FORWARDING) for name in (name.lower() for name in request.headers))


def _is_own_port(request: Request, port: int | None) -> bool:
    """Whether the port in the request is the one the webui listens on; another one is a tunnel's."""
    server = request.scope.get("server")
    own = server[1] if isinstance(server, (tuple, list)) and len(server) == 2 else None
    return own is None or (port or 80) == own or (port is None and own == 443)


def _place(url: str) -> tuple[str, int | None] | None:
    """Host name and port of a URL; None if it is invalid."""
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
