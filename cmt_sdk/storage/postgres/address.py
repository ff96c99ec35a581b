"""Addresses of databases, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE. Connects to none."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cmt_sdk.errors import InvalidSetting

DRIVER = "postgresql+psycopg"
FORM = f"{DRIVER}://USER:PASSWORD@HOST/DATABASE"
SCHEMES = ("postgresql://", "postgres://", f"{DRIVER}://")


def url_of(address: str) -> URL:
    """Return an address as SQLAlchemy's URL with the driver psycopg.

    Raises:
        InvalidSetting: it cannot be read, or names another driver. The message does not repeat
            it: it may hold a password.
    """
    if not address.startswith(SCHEMES):
        raise InvalidSetting(f"the address of the database names another driver: give {FORM}")
    try:
        url = make_url(address).set(drivername=DRIVER)
    except (ArgumentError, ValueError):
        raise InvalidSetting(f"the address of the database cannot be read: give {FORM}") from None
    if not url.database:
        raise InvalidSetting(f"the address names no database: give {FORM}")
    return url


def shown(url: URL) -> str:
    """Return an address for people: without its password and without its options."""
    host = url.host or url.query.get("host") or ""
    user = url.username or url.query.get("user") or ""
    port = f":{url.port}" if url.port else ""
    return f"{DRIVER}://{f'{user}@' if user else ''}{host}{port}/{url.database}"
