"""What all tests share: no test reads or makes the key for archives in the user's own data
folder.
"""

import pytest


@pytest.fixture(autouse=True)
def _archive_key(tmp_path_factory, monkeypatch):
    """A place for the key, empty at first; the same one throughout a session."""
    monkeypatch.setenv("CMT_ARCHIVE_KEY", str(tmp_path_factory.getbasetemp() / "archive.key"))
