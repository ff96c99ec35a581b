"""Addresses: of a memory in a database, of a server, of a place for objects. Connects to none;
knows the standard library alone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qs, urlsplit

DRIVER = "postgresql+psycopg"
SCHEMES = ("postgresql:", "postgres:", "postgresql+")
OBJECT_SCHEMES = ("s3", "gs", "az", "file")


class DatabaseAddress(os.PathLike[str]):
    """The address of a Postgres database, which stands where the path of a folder can.

    As text it has no password and no options, so that messages and logs have none; `os.fspath`
    gives it whole.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    @classmethod
    def of(cls, path: str | os.PathLike[str] | None) -> DatabaseAddress | None:
        """Return an address; None for the path of a folder.

        Args:
            path: What was given as a memory.
        """
        text = "" if path is None else os.fspath(path)
        return cls(text) if text.startswith(SCHEMES) else None

    def __fspath__(self) -> str:
        return self._address

    def __str__(self) -> str:
        try:
            parts = urlsplit(self._address)
            options = parse_qs(parts.query)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return f"{DRIVER}://…"
        user = parts.username or options.get("user", [""])[0]
        host = parts.hostname or options.get("host", [""])[0]
        return f"{DRIVER}://{f'{user}@' if user else ''}{host}{port}{parts.path}"

    def __repr__(self) -> str:
        return f"DatabaseAddress({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseAddress) and other._address == self._address

    def __hash__(self) -> int:
        return hash(self._address)


def is_loopback(address: str) -> bool:
    """Whether an http address names this machine itself."""
    host = getattr(web_address(address), "hostname", None) or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def web_address(address: str) -> SplitResult | None:
    """The parts of an http or https address; None for anything else."""
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, TypeError, AttributeError):  # a port that is no number; no text
        return None
    is_clean = address.isprintable() and " " not in address
    return parts if is_address and is_clean else None


def object_fault(address: str) -> str:
    """Why an address is no place for objects; empty where it is one.

    Secrets are refused: the address is recorded in the memory, and stands in messages.
    """
    wanted = (
        "give s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder,"
        " without a password, ? or #; credentials come from the environment"
    )
    try:
        parts = urlsplit(address)
    except (ValueError, TypeError, AttributeError):
        return f"objects={address!r:.80}: {wanted}"
    has_place = parts.path.strip("/") if parts.scheme == "file" else parts.netloc
    is_secret = "@" in parts.netloc or parts.query or parts.fragment
    is_no_file = parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/"))
    if is_secret:
        return f"objects='{parts.scheme}://…{parts.path:.60}': {wanted}"
    if parts.scheme not in OBJECT_SCHEMES or not has_place or is_no_file:
        return f"objects={address!r:.80}: {wanted}"
    if not address.isprintable() or ".." in parts.path.split("/"):
        return f"objects={address!r:.80}: {wanted}"
    return ""
