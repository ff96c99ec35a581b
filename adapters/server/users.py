"""Who asks: the name by which one person's memory is kept apart from another's. Knows requests, no
route and no memory.

A name comes in a header, which a front end sets for its users, or in the body; the header counts
before the body, which the user of a front end may have written. No name is nobody: such a request
reads and writes what belongs to no user.
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

# Open WebUI (ENABLE_FORWARD_USER_INFO_HEADERS), LiteLLM, LibreChat and others (a header of the
# administrator's choice), and proxies that sign users in (oauth2-proxy, Authelia, Tailscale,
# Cloudflare). The first that is there counts.
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
USERS_SCOPE = "user"  # the scope beneath which everybody has a scope
MAX_NAME_CHARS = 200  # characters of a name


class NamesUser(Protocol):
    """What a request says in its body of who asks."""

    user: str | None
    scope: str | None

    @property
    def named(self) -> str | None:
        """The name, by whichever field."""


T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class UserRules:
    """How a server learns who asks.

    `headers`: names of headers. `required`: whether a request without a name is refused. `guarded`:
    whether only who has the token can ask; without one, a header is believed on this machine alone.
    """

    headers: Sequence[str] = HEADERS
    required: bool = False
    guarded: bool = False

    def name_in(self, request: Request) -> str | None:
        """The name in a header. Raises InvalidInput for an empty one and for two, HTTPException
        from elsewhere.
        """
        for header in self.headers:
            given = [_decoded(value) for value in request.headers.getlist(header)]
            if not given:
                continue
            if not (self.guarded or _is_local(request)):
                raise HTTPException(
                    403,
                    f"header {header}: it is believed with a token, or on this machine: start with"
                    " a token",
                )
            if len(set(given)) > 1:
                raise InvalidInput(
                    f"header {header}: it is there {len(given)} times, with several names: send it"
                    " once"
                )
            try:
                return validate_name(given[0])
            except ValueError as error:
                raise InvalidInput(f"header {header}: {error}") from error
        return None


def validate_name(name: object) -> str | None:
    """A user's name out of a body or header; None is left out. Raises ValueError."""
    if name is None:
        return None
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str):
        raise ValueError("give a text")  # noqa: TRY004 - pydantic reports it as a fault of the field
    if not name.strip():
        raise ValueError("the name is empty, which is nobody: give one, or leave it out")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(
            f"the name has {len(name):,} characters, the limit is {MAX_NAME_CHARS}: give a shorter one, or"
            " its hash"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError("the name holds a lone surrogate, which is no character: decode it again")
    return name


def user_scope(name: str) -> str:
    """The scope of a user, whose name is one name in it, whatever it holds."""
    whole = quote(name, safe=" ")
    return f"{USERS_SCOPE}/" + (whole if whole.strip(".") else whole.replace(".", "%2E"))


def with_user(request: Request, asked: T) -> T:
    """The request, with the name of who asks as its `user`. Raises InvalidInput, HTTPException."""
    asking: UserRules = request.app.state.asking
    header = asking.name_in(request)
    given: NamesUser = asked  # type: ignore[assignment] # T has its fields
    name = header or given.named
    if name is None:
        if asking.required:
            raise InvalidInput(
                "user: nobody is named, and this server demands it: give `user` in the body, or"
                f" the header {asking.headers[0]}"
            )
        return asked
    own = user_scope(name)
    if (
        given.scope is not None
        and (header or asking.required)
        and not f"{given.scope}/".startswith(f"{own}/")
    ):
        raise InvalidInput(
            f"scope: {given.scope!r:.80} is not of the user of this request: leave it out, or give"
            f" {own!r:.80}"
        )
    return asked.model_copy(update={"user": name})


def _decoded(value: str) -> str:
    """A header's value, which Starlette reads as Latin-1, as the UTF-8 that it mostly is."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _is_local(request: Request) -> bool:
    """Whether the request was made on this machine; a Unix socket has no address."""
    if request.client is None:
        return True
    try:
        return ipaddress.ip_address(request.client.host.partition("%")[0]).is_loopback
    except ValueError:
        return False
