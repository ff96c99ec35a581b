"""References: what a row holds of a compressed passage that is kept as an object. Knows no place.

docs/format.md describes the bytes. A reference begins with another mark than a compressed passage,
and has a length that none of those has.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

MARK = b"CMTO"
LAYOUT = struct.Struct("<4sQ32s")  # mark, bytes of the object, its SHA-256
SIZE = LAYOUT.size
NAME_AT = SIZE - 32
LARGE = 32 * 1024  # bytes from which a compressed passage is an object


@dataclass(frozen=True, slots=True)
class Reference:
    """Names an object.

    Attributes:
        name: the SHA-256 of its bytes, 64 hexadecimal digits.
        length: its bytes.
    """

    name: str
    length: int

    @classmethod
    def to(cls, body: bytes) -> Reference:
        """Return the reference to an object with these bytes."""
        return cls(hashlib.sha256(body).hexdigest(), len(body))

    @classmethod
    def of(cls, data: bytes | memoryview) -> Reference | None:
        """Return the reference that the data of a row is; None where it is the passage itself."""
        if len(data) != SIZE or bytes(data[: len(MARK)]) != MARK:
            return None
        _, length, digest = LAYOUT.unpack(data)
        return cls(digest.hex(), length)

    @property
    def data(self) -> bytes:
        """The bytes that a row holds."""
        return LAYOUT.pack(MARK, self.length, bytes.fromhex(self.name))

    def fault(self, body: bytes) -> str:
        """Return why these bytes are not the object; empty where they are."""
        if len(body) != self.length:
            return f"has {len(body):,} bytes in place of {self.length:,}"
        if hashlib.sha256(body).hexdigest() != self.name:
            return "has other bytes than those it is named after"
        return ""
