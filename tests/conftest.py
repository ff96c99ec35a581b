"""What all tests share: a key for archives outside the user's data folder, and a collector that skips what outlives every test."""

import gc

import pytest

gc.disable()  # until all tests are collected: what their modules hold stays until the end


def pytest_collection_finish():
    """Modules and collected tests leave the collector's sight: it looks at millions of objects less in every full run."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _archive_key(tmp_path_factory, monkeypatch):
    """A place for the key, empty at first; the same one throughout a session."""
    monkeypatch.setenv("CMT_ARCHIVE_KEY", str(tmp_path_factory.getbasetemp() / "archive.key"))
