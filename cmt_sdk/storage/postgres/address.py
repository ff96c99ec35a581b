"""Addresses of databases as SQLAlchemy's URLs. Connects to none."""

from __future__ import annotations

import os

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cmt_sdk.config.address import DRIVER, DatabaseAddress
from cmt_sdk.errors import InvalidSetting

FORM = f"{DRIVER}://USER:PASSWORD@HOST/DATABASE"
DRIVERS = ("postgresql", "postgres", DRIVER)


def url_of(address: DatabaseAddress) -> URL:
    """Return an address as SQLAlchemy's URL with the driver psycopg.

    Raises:
        InvalidSetting: it cannot be read, or names another driver. The message does not repeat
            it: it may hold a password.
    """
    try:
        url = make_url(os.fspath(address))
    except (ArgumentError, ValueError):
        raise InvalidSetting(f"the address of the database cannot be read: give {FORM}") from None
    if url.drivername not in DRIVERS:
        raise InvalidSetting(f"the driver {url.drivername} is not used here: give {FORM}")
    if not url.database:
        raise InvalidSetting(f"the address names no database: give {FORM}")
    return url.set(drivername=DRIVER)
