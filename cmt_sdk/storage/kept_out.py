"""The sources that stay out of a memory, as keyed hashes (HMAC-SHA256): their names are not stored.
Knows no documents.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable
from unicodedata import normalize

from sqlalchemy import Connection

from cmt_sdk.errors import InvalidInput, StorageDamaged
from cmt_sdk.storage.recorded import Recorded
from cmt_sdk.storage.rows import sound_text

ROW = "kept_out"


class KeptOut(Recorded):
    """One row of the settings: a random key, and the hashes of scopes with sources."""

    def keep_out(self, scope: str, sources: Iterable[str], *, out: bool) -> None:
        """Record that these sources of a scope stay out, as hashes; with `out=False`, remove the
        record.
        """
        scope = self._stored_scope(scope)
        with self._write() as db:
            key, hashes = self._kept(db)
            changed = {_hash(key, scope, source) for source in sources}
            left = hashes | changed if out else hashes - changed
            if left == hashes:
                return
            self._set(db, ROW, json.dumps({"key": key, "hashes": sorted(left)}))

    def kept_out(self, scope: str, sources: Iterable[str]) -> list[str]:
        """Return those of the sources that `keep_out` recorded for a scope."""
        scope = self._stored_scope(scope)
        with self._read() as db:
            key, hashes = self._kept(db)
        return [source for source in sources if hashes and _hash(key, scope, source) in hashes]

    def _kept(self, db: Connection) -> tuple[str, frozenset[str]]:
        found = self._recorded(db, ROW)
        if found is None:
            return secrets.token_hex(16), frozenset()
        return parse_kept_out(str(found))


def parse_kept_out(value: str) -> tuple[str, frozenset[str]]:
    """Return the key and the hashes of the stored list. Raises StorageDamaged where it is none."""
    try:
        kept = json.loads(value)
        return str(kept["key"]), frozenset(map(str, kept["hashes"]))
    except (ValueError, TypeError, KeyError) as error:
        raise StorageDamaged(
            f"the list of sources that stay out is damaged ({error}): run `cmt check --repair`"
        ) from error


def _hash(key: str, scope: str, source: str) -> str:
    """Return the keyed hash of a source in its scope, the same for composed and decomposed
    spellings.
    """
    composed = normalize("NFC", sound_text("source", source, InvalidInput))
    name = f"{sound_text('scope', scope, InvalidInput)}\0{composed}"
    return hmac.digest(key.encode(), name.encode(), "sha256").hex()
