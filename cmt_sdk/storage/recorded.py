"""The table `settings`: names with values, among them the settings that a memory was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from cmt_sdk.errors import StorageDamaged
from cmt_sdk.storage.transactions import Transactions


class Recorded(Transactions):
    """What a memory records about itself."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that the memory was made with; empty for a new one."""
        with self._read() as db:
            found = self._recorded(db, "settings")
        try:
            return dict(json.loads(found)) if found else {}
        except (ValueError, TypeError) as error:
            raise StorageDamaged(
                f"the settings in {self.place} are damaged ({error}): run `cmt check --repair`"
            ) from error

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace the recorded settings."""
        with self._write() as db:
            self._set(db, "settings", json.dumps(dict(settings)))

    @staticmethod
    def _recorded(db: Connection, name: str) -> Any:
        """Return the value of a name; None where it has none."""
        sql = text("SELECT value FROM settings WHERE name = :name")
        return db.execute(sql, {"name": name}).scalar()

    @staticmethod
    def _set(db: Connection, name: str, value: str) -> None:
        sql = """INSERT INTO settings (name, value) VALUES (:name, :value)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value"""
        db.execute(text(sql), {"name": name, "value": value})
