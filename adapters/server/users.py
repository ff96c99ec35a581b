"""The user of a request: each user name has its own scope in the memory.

The name comes from a header, which a front end sets for its users, or from the body. The header
takes precedence, because the user of a front end may have written the body. A request without a
name reads and writes only documents that belong to no user.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import quote

from fastapi import Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from cmt_sdk.errors import InvalidInput

# Headers of Open WebUI (ENABLE_FORWARD_USER_INFO_HEADERS), LiteLLM, LibreChat and others (a header
# that the administrator chooses), and of proxies that sign users in (oauth2-proxy, Authelia,
# Tailscale, Cloudflare). The first header of a request that is in the list counts.
HEADERS = (
    "X-OpenWebUI-User-Id",
    "X-OpenWebUI-User-Email",
    "X-LiteLLM-Customer-Id",
    "X-LiteLLM-End-User-Id",
    "X-LibreChat-User-Id",
    "Helicone-User-Id",
    "X-User-Id",
    "X-User-Email",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Auth-Request-User",
    "Remote-User",
    "Tailscale-User-Login",
    "Cf-Access-Authenticated-User-Email",
)
USERS_SCOPE = "user"  # the scope that holds the scopes of all users
MAX_NAME_CHARS = 200


class NamesUser(Protocol):
    """A request body that may name its user."""

    user: str | None
    scope: str | None

    @property
    def named(self) -> str | None:
        """Return the user's name from any of the fields that may hold it."""


T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class UserRules:
    """How a server identifies the user of a request.

    Attributes:
        headers: Names of headers that may hold the user's name.
        required: Refuse requests without a name.
        guarded: The server requires a token. Without a token, headers are trusted only in requests
            from this machine.
    """

    headers: Sequence[str] = HEADERS
    required: bool = False
    guarded: bool = False

    def name_in(self, request: Request) -> str | None:
        """Return the name in a header; None if there is no such header.

        Raises:
            InvalidInput: The name is invalid, or there are several different names.
            HTTPException: The header is not trusted, since it comes from another machine.
        """
        for header in self.headers:
            given = [_decoded(value) for value in request.headers.getlist(header)]
            if not given:
                continue
            if not (self.guarded or _is_local(request)):
                raise HTTPException(
                    403,
                    f"header {header}: it is trusted only with a token, or from this machine: start"
                    " the server with a token",
                )
            if len(set(given)) > 1:
                raise InvalidInput(
                    f"header {header}: it is sent {len(given)} times with different names: send it"
                    " once"
                )
            try:
                return validate_name(given[0])
            except ValueError as error:
                raise InvalidInput(f"header {header}: {error}") from error
        return None


def validate_name(name: object) -> str | None:
    """Return a user's name from a body or header; None stays None. Raises ValueError."""
    if name is None:
        return None
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str):
        raise ValueError("give a text")  # noqa: TRY004 - pydantic reports it as a fault of the field
    if not name.strip():
        raise ValueError("the name is empty: give one, or leave it out")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(
            f"the name has {len(name):,} characters, the limit is {MAX_NAME_CHARS}: give a shorter"
            " one, or its hash"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError("the name holds a lone surrogate, which is no character: decode it again")
    return name


def user_scope(name: str) -> str:
    """Return the scope of a user; the name becomes one escaped path component."""
    component = quote(name, safe=" ")
    if not component.strip("."):  # "." and ".." are not allowed as components
        component = component.replace(".", "%2E")
    return f"{USERS_SCOPE}/{component}"


def with_user(request: Request, body: T) -> T:
    """Return the body with the user's name as its `user`.

    Raises:
        InvalidInput: The name is invalid or missing, or the scope belongs to another user.
        HTTPException: The name comes from a header that is not trusted.
    """
    rules: UserRules = request.app.state.user_rules
    header = rules.name_in(request)
    given: NamesUser = body  # type: ignore[assignment] # T has its fields
    name = header or given.named
    if name is None:
        if rules.required:
            raise InvalidInput(
                "user: the request names no user, and this server requires one: give `user` in the"
                f" body, or the header {rules.headers[0]}"
            )
        return body
    own = user_scope(name)
    if (
        given.scope is not None
        and (header or rules.required)
        and not f"{given.scope}/".startswith(f"{own}/")
    ):
        raise InvalidInput(
            f"scope: {given.scope!r:.80} does not belong to the user of this request: leave it out,"
            f" or give {own!r:.80}"
        )
    return body.model_copy(update={"user": name})


def _decoded(value: str) -> str:
    """Return a header's value as UTF-8, if it is; Starlette decodes headers as Latin-1."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _is_local(request: Request) -> bool:
    """Return whether the request comes from this machine; a Unix socket has no address."""
    if request.client is None:
        return True
    try:
        return ipaddress.ip_address(request.client.host.partition("%")[0]).is_loopback
    except ValueError:
        return False
