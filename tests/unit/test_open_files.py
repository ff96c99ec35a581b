"""Files that are open in this process."""

import threading

import pytest

from cmt_sdk.errors import InvalidInput
from cmt_sdk.system import open_files


def test_a_memory_that_garbage_collection_closes_does_not_wait_for_its_own_thread(tmp_path):
    """The collector may run `release` in a thread that holds the lock already."""
    database = tmp_path / "memory.db"
    database.touch()
    open_files.register(database)
    with pytest.raises(InvalidInput, match="part of a memory that is open"):
        open_files.refuse_open(database)

    def collect():
        with open_files._lock:
            open_files.release(database)

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    open_files.refuse_open(database)
