"""SQLiteStore over an encrypted database: the tests of a plain one, less those that look into its
file. test_store.py runs the contract over both.
"""

import inspect

import pytest

from cmt_sdk.storage.store import SQLiteStore
from tests.contract import test_sqlite_store

pytest.importorskip("sqlcipher3")

LOOKS_AT_BYTES = ("sqlite3", "read_bytes", "write_bytes", "everything(")
OTHERWISE = ("test_a_healthy_memory_is_found_healthy",)  # there is a finding more


@pytest.fixture
def store(tmp_path, clock, monkeypatch):
    """An encrypted store, whose key is in CMT_KEY."""
    monkeypatch.setenv("CMT_KEY", "a5" * 32)
    opened = SQLiteStore(tmp_path / "notes", encrypt=True, clock=clock)
    yield opened
    assert opened.encrypted
    opened.close()


def _fits(name, test):
    if (
        not name.startswith("test_")
        or name in OTHERWISE
        or "store" not in inspect.signature(test).parameters
    ):
        return False
    return not any(word in inspect.getsource(test) for word in LOOKS_AT_BYTES)


globals().update(
    {name: test for name, test in vars(test_sqlite_store).items() if _fits(name, test)}
)
