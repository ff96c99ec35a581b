"""Origins: the web pages and apps that may send requests to a server on this machine.

A browser sends the origin of the page with a request: `http://notes.example:8080`,
`app://obsidian.md` for a desktop app, `chrome-extension://ID` for an extension, `null` for a page
without an origin (a local file, a sandboxed frame).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cmt_sdk.errors import InvalidSetting

NULL = "null"
WEB = ("http", "https")
ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[^/?#@\s:*\[\]]*|\*)(?::(?P<port>\d{1,5}|\*))?/?"
)
PRIVATE_NETWORK_HEADER = b"access-control-request-private-network"
REMEDY = (
    "give scheme, host and port, such as http://notes.example:8080, http://localhost:* for any"
    " port, app://obsidian.md, chrome-extension://ID, moz-extension://* for any id, or null"
)


class Origins:
    """The allowed origins, next to the server's own.

    Args:
        given: Origins as `--origin` takes them. The port may be `*`; so may the host, except with
            the schemes of web pages.

    Raises:
        InvalidSetting: An origin is not valid.
    """

    def __init__(self, given: Collection[str] = ()) -> None:
        self._patterns = [_pattern(origin) for origin in given]
        names = [_parts(origin) for origin in given if origin.lower() != NULL]
        self.hosts = frozenset(p["host"].strip("[]") for p in names if p["scheme"] in WEB)

    def allows(self, origin: str) -> bool:
        """Return whether this origin was given."""
        return any(pattern.fullmatch(origin) for pattern in self._patterns)

    def refuses(self, scope: Scope) -> bool:
        """Return whether a request comes from a page that is neither the server's nor allowed."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None:  # images and links have no origin, but sec-fetch-site
            return (
                headers.get("sec-fetch-site") == "cross-site"
                and headers.get("sec-fetch-mode") != "navigate"
            )
        return origin != f"{scope['scheme']}://{headers.get('host')}" and not self.allows(origin)

    def cors(self, *exposed: str) -> list[Middleware]:
        """Return the middleware that lets allowed pages read responses.

        Args:
            *exposed: Headers that scripts of these pages may read.
        """
        options: dict[str, Any] = {
            "allow_methods": ["*"],
            "allow_headers": ["*"],
            "expose_headers": exposed,
        }
        named = "(?i)" + (
            "|".join(f"(?:{pattern.pattern})" for pattern in self._patterns) or "(?!)"
        )
        return [
            Middleware(_PrivateNetworkMiddleware, self),
            Middleware(CORSMiddleware, allow_origin_regex=named, **options),
        ]


class _PrivateNetworkMiddleware:
    """Answers the preflight request of a public page to a private address.

    Only some releases of Starlette do.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = (
            scope["type"] == "http"
            and Headers(scope=scope).get(PRIVATE_NETWORK_HEADER.decode()) == "true"
        )
        if not asked or not self._origins.allows(Headers(scope=scope).get("origin", "")):
            await self._app(scope, receive, send)
            return

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Access-Control-Allow-Private-Network"] = "true"
            await send(message)

        rest = [(name, value) for name, value in scope["headers"] if name != PRIVATE_NETWORK_HEADER]
        await self._app({**scope, "headers": rest}, receive, send_allowed)


def _parts(origin: str) -> dict[str, str]:
    match = ORIGIN.fullmatch(origin.lower())
    parts = {name: value or "" for name, value in match.groupdict().items()} if match else {}
    if not parts or not _is_valid(parts):
        raise InvalidSetting(f"origin {origin!r:.80}: {REMEDY}")
    return parts


def _is_valid(parts: dict[str, str]) -> bool:
    """Return whether the parts make an origin.

    A web page has a host name. An app has no port, and the scheme file needs no host.
    """
    if parts["scheme"] in WEB:
        return bool(parts["host"]) and parts["host"] != "*"
    return (
        not parts["port"]
        and bool(parts["host"] or parts["scheme"] == "file")
        and parts["scheme"] not in ("ftp", "ws", "wss")
    )


def _pattern(origin: str) -> re.Pattern[str]:
    if origin.lower() == NULL:
        return re.compile(NULL)
    parts = _parts(origin)
    host = r"[^/?#@\s:]+" if parts["host"] == "*" else re.escape(parts["host"])
    port = {"": "", "*": r"(?::\d{1,5})?"}.get(parts["port"], f":{parts['port']}")
    return re.compile(f"{re.escape(parts['scheme'])}://{host}{port}", re.IGNORECASE)


def check_null_origin(origins: Collection[str], token: str | None) -> None:
    """Raise InvalidSetting for the origin `null` without a token: any site's frames send it."""
    if token is None and any(origin.lower() == NULL for origin in origins):
        raise InvalidSetting(
            "origin null: a sandboxed frame of any site sends it, and could read this memory: set a"
            " token (CMT_TOKEN)"
        )


def hostname(header: str) -> str:
    """Return the name or address in a host header, without port and brackets; "" if invalid."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
