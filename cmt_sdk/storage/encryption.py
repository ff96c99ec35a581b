"""Where the key of an encrypted database comes from: CMT_KEY, or the system keyring. Never shows
one; opens no database for long.

An encrypted file begins with its salt: `MARK` and twelve random bytes. They are also the name of
its key in the keyring, so the key is found wherever the file lies, and no other file's key takes
its place.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from cmt_sdk.errors import InvalidSetting, StorageDamaged, StorageEncrypted
from cmt_sdk.extras import unusable
from cmt_sdk.storage import driver
from cmt_sdk.storage.driver import VARIABLE, Key, connect
from cmt_sdk.storage.work_locks import FILE as LOCK

SERVICE, EXTRA = "cmt-sdk", "encryption"
PLAIN = b"SQLite format 3\0"
MARK = b"CMTE"
SALT = 16  # bytes
# characters of a passphrase that nothing else helps to guard: NIST SP 800-63B-4, section 3.1.1.2
SHORTEST = 15
ROUNDS = 256_000  # of PBKDF2 with SHA-512, as SQLCipher 4 derives keys
RAW = re.compile(r"[0-9a-fA-F]{64}")


def key_of(file: Path, *, encrypt: bool = False) -> Key | None:
    """The key of a file, None for one that is not encrypted; with `encrypt` an empty file begins to
    be an encrypted one.

    It reads the file's first bytes, which drops SQLite's locks: no database of this process may
    have the file open. Raises MissingExtra, StorageEncrypted (no key), and with `encrypt`
    InvalidSetting for a plain database or a short passphrase, StorageDamaged for what is no
    database.
    """
    begins = _beginning(file)
    if encrypt and not begins:
        # each of several processes would begin it in its own way
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
    """What to say of a plain database where an encrypted one is asked for."""
    return InvalidSetting(
        f"{file} is not encrypted, and encrypted=True makes new ones: export it, and import it into"
        " a new one"
    )


def _beginning(file: Path) -> bytes:
    with file.open("rb") as data:
        return data.read(SALT)


def _known(file: Path, begins: bytes) -> Key | None:
    """The key of a file that begins so."""
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
    """A new key, which is safe before the file's first page is. Raises InvalidSetting for a
    passphrase that is soon guessed.
    """
    _require()
    salt, given = MARK + os.urandom(SALT - len(MARK)), os.environ.get(VARIABLE)
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
    """64 hexadecimal digits are the key; from anything else it is derived as SQLCipher would, once
    for all connections.
    """
    secret = (
        given.lower()
        if RAW.fullmatch(given)
        else hashlib.pbkdf2_hmac("sha512", os.fsencode(given), salt, ROUNDS, 32).hex()
    )
    return Key(secret, salt.hex(), VARIABLE)


def _kept(name: str) -> tuple[str, str]:
    """The key of this name in the system keyring, or why there is none."""
    keyring, failures = _keyring()
    try:
        return keyring.get_password(SERVICE, name) or "", ""
    except failures as error:
        return "", f"cannot be asked ({error})"


def _place(name: str) -> str:
    """Where the key of this name lies in the keyring, for people who want to see or keep it."""
    return f"the system keyring ({SERVICE}, {name})"


def _keep(key: Key) -> None:
    """Put a new key in the system keyring, and see that it is there."""
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
