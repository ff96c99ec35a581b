"""The address of a memory in a database. Connects to none; knows the standard library alone."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

DRIVER = "postgresql+psycopg"
SCHEMES = ("postgresql:", "postgres:", "postgresql+")


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
