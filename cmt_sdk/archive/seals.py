"""Seals: proof that a compressed passage in an archive was made of the text next to it, by a key of
the user's. Knows no store.

A seal is an HMAC-SHA256 (RFC 2104) over the text's digest, the fingerprint, the embedding and every
array of it. Without the key one can write an archive, but no seal.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cmt_sdk.config.settings import archive_key
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.types import Encoded

log = logging.getLogger(__name__)

PURPOSE = b"cmt-sdk archive memory 1"
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Seal:
    """Makes and checks seals with one key of 32 bytes. `file` holds the key; messages name it."""

    key: bytes = field(repr=False)
    file: Path

    def of(self, content: str, fingerprint: str, encoded: Encoded) -> str:
        """Return the seal of a compressed passage, 64 hexadecimal digits.

        Args:
            content: The SHA-256 of the text that it was made of, in hexadecimal digits.
            fingerprint: The id of its fingerprint.
            encoded: The compressed passage, its embedding and its fidelity.
        """
        mac = hmac.new(self.key, digestmod=hashlib.sha256)
        memory = encoded.compressed
        header = (content, fingerprint, memory.kind, str(memory.tokens), repr(encoded.fidelity))
        for part in (
            PURPOSE,
            *map(str.encode, header),
            *_array("", np.asarray(encoded.embedding, np.float32)),
        ):
            _feed(mac, part)
        for name in sorted(memory.arrays):
            for part in _array(name, memory.arrays[name]):
                _feed(mac, part)
        return mac.hexdigest()

    def fits(self, seal: str, content: str, fingerprint: str, encoded: Encoded) -> bool:
        """Return whether this key made the seal for this compressed passage of this text."""
        return hmac.compare_digest(seal.encode(), self.of(content, fingerprint, encoded).encode())


def _feed(mac: hmac.HMAC, part: bytes) -> None:
    """Feed a part after its length: two lists of parts never give the same bytes."""
    mac.update(struct.pack("<Q", len(part)))
    mac.update(part)


def _array(
    name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> tuple[bytes, ...]:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return name.encode(), little.dtype.str.encode(), repr(array.shape).encode(), little.tobytes()


def seal_here(*, create: bool) -> Seal | None:
    """Return the seal of this user on this machine; None where there is no key.

    With `create`, a missing key is made where that is possible.

    Raises:
        InvalidSetting: the key file holds no key.
    """
    file = archive_key()
    try:
        if create and not file.exists():
            _make(file)
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except OSError as error:
        log.info("archives are not sealed: %s: %s", file, error.strerror)
        return None
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidSetting(
            f"{file} is no key for archives: it needs {2 * KEY_BYTES} hexadecimal digits; restore"
            " or delete it"
        )
    return Seal(key, file)


def _make(file: Path) -> None:
    """Make a key that only its owner can read. Of two processes that make one at once, the first
    one's stays.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".key-", dir=file.parent)  # 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as made:
            made.write(secrets.token_hex(KEY_BYTES) + "\n")
            made.flush()
            os.fsync(made.fileno())
        _named(Path(name), file)
    finally:
        Path(name).unlink(missing_ok=True)


def _named(made: Path, file: Path) -> None:
    try:
        file.hardlink_to(made)
    except FileExistsError:
        return
    except OSError:  # a disk without hard links
        made.replace(file)
