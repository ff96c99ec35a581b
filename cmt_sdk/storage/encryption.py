"""The key of an encrypted database, from CMT_KEY or the system keyring. Never shows a key.

An encrypted file begins with its salt: `MARK` and twelve random bytes. They also name its key in
the keyring, so that the key is found wherever the file is, and never mistaken for another file's.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import closing
from pathlib import Path
from typing import Any

from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.config.settings import MEMORY_FILES
from cmt_sdk.errors import InvalidSetting, StorageDamaged, StorageEncrypted
from cmt_sdk.storage import driver
from cmt_sdk.storage.driver import VARIABLE, Key, connect
from cmt_sdk.storage.work_locks import FILE as LOCK
from cmt_sdk.system.extras import unusable

SERVICE = "cmt-sdk"  # in the keyring
EXTRA = "encryption"
PLAIN = b"SQLite format 3\0"
MARK = b"CMTE"
SALT = 16  # bytes
# characters of a passphrase that is the only protection: NIST SP 800-63B-4, section 3.1.1.2
SHORTEST = 15
ROUNDS = 256_000  # of PBKDF2 with SHA-512, as SQLCipher 4 derives keys
RAW = re.compile(r"[0-9a-fA-F]{64}")


def key_of(file: Path, *, encrypt: bool = False) -> Key | None:
    """Return the key of a file; None for one that is not encrypted.

    Reads the file's first bytes, which drops SQLite's locks on it (sqlite.org/howtocorrupt.html,
    2.2): no database of this process may have the file open.

    Args:
        file: the database.
        encrypt: make an empty file an encrypted one, and refuse a plain database.

    Raises:
        MissingExtra: the extra `encryption` is not installed.
        StorageEncrypted: the key is not available.
        InvalidSetting: with `encrypt`, a plain database or a short passphrase.
        StorageDamaged: with `encrypt`, the file is no database.
    """
    begins = _beginning(file)
    if encrypt and not begins:
        # each of several processes would begin it in its own way
        from filelock import FileLock

        with FileLock(file.with_name(LOCK), mode=0o600):
            begins = _beginning(file)
            if not begins:
                return _begun(file)
    key = _known(file, begins)
    if encrypt and key is None:
        raise (
            not_encrypted(file)
            if begins == PLAIN
            else StorageDamaged(f"{file} is damaged: restore a backup")
        )
    return key


def not_encrypted(file: Path) -> InvalidSetting:
    """Return the error for a plain database where an encrypted one is wanted."""
    return InvalidSetting(
        f"{file} is not encrypted, and encrypted=True makes new ones: export it, and import it into"
        " a new one"
    )


def _beginning(file: Path) -> bytes:
    with file.open("rb") as data:
        return data.read(SALT)


def is_encrypted(path: str | os.PathLike[str]) -> bool:
    """Whether the memory in a folder is encrypted; needs no key.

    It must not be open in this process; see `key_of`.

    Args:
        path: The folder; the address of a database is not encrypted by this package.
    """
    if DatabaseAddress.of(path):
        return False
    try:
        return _beginning(Path(path).expanduser() / MEMORY_FILES[0]).startswith(MARK)
    except (OSError, ValueError):  # none, a closed folder, a name that no system takes
        return False


def _known(file: Path, begins: bytes) -> Key | None:
    """Return the key of a file with these first bytes."""
    if not begins.startswith(MARK) or len(begins) < SALT:
        return None
    _require()
    given = os.environ.get(VARIABLE)
    if given:
        return _key(given, begins)
    kept, why = _kept(begins.hex())
    if kept:
        return Key(kept, begins.hex(), _place(begins.hex()))
    raise StorageEncrypted(
        f"{file} is encrypted, and its key is not here: set {VARIABLE} to the key it was made with;"
        f" {_place(begins.hex())} {why or 'has none'}"
    )


def _begun(file: Path) -> Key:
    """Make a key and the file's first page. A random key is in the keyring before the page is
    written.

    Raises:
        InvalidSetting: a passphrase of fewer than SHORTEST characters.
    """
    _require()
    salt = MARK + os.urandom(SALT - len(MARK))
    given = os.environ.get(VARIABLE)
    if given and len(given) < SHORTEST:
        raise InvalidSetting(
            f"the passphrase in {VARIABLE} has {len(given)} characters, a new memory wants"
            f" {SHORTEST} or more: give several words, or what `openssl rand -hex 32` prints; or"
            f" unset {VARIABLE}, and the system keyring keeps a random key"
        )
    key = _key(given, salt) if given else Key(os.urandom(32).hex(), salt.hex(), _place(salt.hex()))
    if not given:
        _keep(key)
    with closing(connect(file, key)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    return key


def _require() -> None:
    if not driver.available():
        raise unusable("an encrypted memory", EXTRA, driver.failure)


def _key(given: str, salt: bytes) -> Key:
    """Return the key that 64 hexadecimal digits are, or that SQLCipher derives from a passphrase:
    once for all connections.
    """
    secret = (
        given.lower()
        if RAW.fullmatch(given)
        else hashlib.pbkdf2_hmac("sha512", os.fsencode(given), salt, ROUNDS, 32).hex()
    )
    return Key(secret, salt.hex(), VARIABLE)


def _kept(name: str) -> tuple[str, str]:
    """Return the key of this name in the system keyring, and why it cannot be read."""
    keyring, failures = _keyring()
    try:
        return keyring.get_password(SERVICE, name) or "", ""
    except failures as error:
        return "", f"cannot be asked ({error})"


def _place(name: str) -> str:
    """Return where a key is in the keyring, for messages."""
    return f"the system keyring ({SERVICE}, {name})"


def _keep(key: Key) -> None:
    """Put a new key in the system keyring, and check that it is there."""
    keyring, failures = _keyring()
    why = "it does not keep what it is given"
    try:
        keyring.set_password(SERVICE, key.salt, key.secret)
        if keyring.get_password(SERVICE, key.salt) == key.secret:
            return
    except failures as error:
        why = str(error)
    raise StorageEncrypted(
        f"there is nowhere to keep the key of a new encrypted memory: set {VARIABLE} to a key of"
        " your own, such as `openssl rand -hex 32` prints, and keep it safe; the system keyring"
        f" cannot be used ({why})"
    )


def _keyring() -> tuple[Any, type[Exception]]:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise unusable("an encrypted memory", EXTRA, error) from error
    return keyring, KeyringError
