"""The sources and forgotten documents that stay out of a memory: their names are not stored. Knows
no documents.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from sqlalchemy import Connection

from cmt_sdk.errors import InvalidInput, StorageDamaged
from cmt_sdk.storage.recorded import Recorded
from cmt_sdk.storage.rows import sound_text
from cmt_sdk.types.kept import KeptHashes

ROW = "kept_out"
log = logging.getLogger(__name__)


class KeptOut(Recorded):
    """One row of the settings: a random key, and the hashes of sources and documents."""

    def keep_out(self, scope: str, sources: Iterable[str], *, out: bool) -> None:
        """Record that these sources of a scope stay out, as hashes; with `out=False`, remove the
        record.
        """
        scope = self._stored_scope(scope)
        with self._write() as db:
            kept = self._kept(db)
            changed = {_hash(kept, scope, source) for source in sources}
            self._set_kept(db, kept, kept.hashes | changed if out else kept.hashes - changed)

    def kept_out(self, scope: str, sources: Iterable[str]) -> list[str]:
        """Return those of the sources that `keep_out` recorded for a scope."""
        scope = self._stored_scope(scope)
        kept = self.kept_hashes()
        return [s for s in sources if kept.hashes and _hash(kept, scope, s) in kept.hashes]

    def kept_hashes(self) -> KeptHashes:
        """Return what stays out; with a new key where that is nothing."""
        with self._read() as db:
            return self._kept(db)

    def take_kept_hashes(self, others: KeptHashes) -> bool:
        """Add what stays out of another memory.

        Returns:
            False, and nothing changes, where the hashes here have another key.
        """
        with self._write() as db:
            mine = self._kept(db)
            if mine.hashes and mine.key != others.key:
                return False
            known = KeptHashes(others.key, mine.hashes)
            self._set_kept(db, known, mine.hashes | others.hashes)
        return True

    def _note_forgotten(self, db: Connection, document_ids: Iterable[str]) -> None:
        """Record that these documents were forgotten, in the caller's transaction. A damaged list
        stays as it is: it must not prevent forgetting.
        """
        try:
            kept = self._kept(db)
        except StorageDamaged as error:
            log.warning("%s", error)
            return
        self._set_kept(db, kept, kept.hashes | {kept.of_document(name) for name in document_ids})

    def _set_kept(self, db: Connection, kept: KeptHashes, hashes: AbstractSet[str]) -> None:
        if hashes != kept.hashes:
            self._set(db, ROW, json.dumps({"key": kept.key, "hashes": sorted(hashes)}))

    def _kept(self, db: Connection) -> KeptHashes:
        found = self._recorded(db, ROW)
        if found is None:
            return KeptHashes(secrets.token_hex(16))
        return parse_kept_out(str(found))


def parse_kept_out(value: str) -> KeptHashes:
    """Return the stored list. Raises StorageDamaged where it is none."""
    try:
        kept = json.loads(value)
        return KeptHashes(str(kept["key"]), frozenset(map(str, kept["hashes"])))
    except (ValueError, TypeError, KeyError) as error:
        raise StorageDamaged(
            f"the list of sources that stay out is damaged ({error}): run `cmt check --repair`"
        ) from error


def _hash(kept: KeptHashes, scope: str, source: str) -> str:
    """Return the hash of a source in its scope. Raises InvalidInput for what is no text."""
    return kept.of_source(
        sound_text("scope", scope, InvalidInput), sound_text("source", source, InvalidInput)
    )
