"""What stays out of a memory, as keyed hashes (HMAC-SHA256). Knows the standard library alone."""

from __future__ import annotations

import hmac
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from unicodedata import normalize

FORGOTTEN = "forgotten document\0"  # stands before an id; no scope holds NUL


@dataclass(frozen=True, slots=True)
class KeptHashes:
    """The sources and the forgotten documents that stay out of a memory.

    Attributes:
        key: The random key of the hashes.
        hashes: Hashes of scopes with sources, and of ids, 64 hexadecimal digits each.
    """

    key: str = field(repr=False)
    hashes: AbstractSet[str] = frozenset()

    def of_source(self, scope: str, source: str) -> str:
        """The hash of a source in its scope, the same for composed and decomposed spellings."""
        return self._of(f"{scope}\0{normalize('NFC', source)}")

    def of_document(self, document_id: str) -> str:
        """The hash of a forgotten document."""
        return self._of(FORGOTTEN + document_id)

    def _of(self, name: str) -> str:
        return hmac.digest(self.key.encode(), name.encode(), "sha256").hex()
