"""Forgetting at the level of Memory: what a failure leaves due is finished, and the receipt is
true.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cmt_sdk.errors import DocumentNotFound, StorageError, StorageFull
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import open_fake

TOLD = "The zanzibarquartz lies under the mongolfierplum."
LISBON = "The museum moved to Lisbon in 2019."


def secret_in(folder: Path) -> bool:
    """Whether a byte of the secret stands in any file; read only while no memory is open here."""
    return any(b"zanzibarquartz" in f.read_bytes().lower() for f in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A memory of two documents, one of them secret."""
    with open_fake(tmp_path / "notes") as memory:
        memory.add(TOLD, id="secret")
        memory.add(LISBON)
    return tmp_path / "notes"


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Forget the secret, and fail after the deletion."""

    def failing(self: SQLiteStore, wait: float) -> bool:
        raise error

    with open_fake(folder) as memory, monkeypatch.context() as patch:
        patch.setattr(SQLiteStore, "erase", failing)
        with pytest.raises(type(error)):
            memory.forget("secret")
        assert memory.count() == 1


def test_the_hash_of_a_forgotten_record_is_gone(folder):
    """It is made of what the document said: nothing keeps it, of no version."""
    with open_fake(folder) as memory:
        memory.update("secret", "The zanzibarquartz is gone.", metadata={"place": "cellar"})
    with closing(sqlite3.connect(folder / "memory.db")) as db:
        hashes = [
            row[0].encode()
            for row in db.execute("SELECT record_hash FROM documents WHERE doc_id = 'secret'")
        ]
        kept = (
            db.execute("SELECT record_hash FROM documents WHERE doc_id <> 'secret'")
            .fetchone()[0]
            .encode()
        )
    with open_fake(folder) as memory:
        memory.forget("secret")
    everything = b"".join(f.read_bytes() for f in folder.iterdir())
    assert [len(hashes), kept in everything, *(h in everything for h in hashes)] == [
        2,
        True,
        False,
        False,
    ]


def test_an_erasure_that_was_killed_is_finished_at_the_next_opening(folder, monkeypatch):
    """The deletion itself records that the files are still to be rewritten."""
    interrupted(folder, monkeypatch, KeyboardInterrupt())
    assert secret_in(folder)
    open_fake(folder).close()
    assert not secret_in(folder)
    with open_fake(folder) as memory:
        assert memory.model.ask("Where did the museum move?").text == LISBON


def test_a_full_disk_says_what_became_of_the_documents(folder, monkeypatch):
    """They are gone; their bytes go at the next occasion, and asking again for the same finishes
    the work too.
    """
    with open_fake(folder) as memory:
        with monkeypatch.context() as patch:

            def full(self: SQLiteStore, wait: float) -> bool:
                raise StorageFull("no space left")

            patch.setattr(SQLiteStore, "erase", full)
            with pytest.raises(
                StorageFull, match=r"no space left\. The documents are gone; their bytes go when"
            ):
                memory.forget("secret")
        with pytest.raises(DocumentNotFound):
            memory.forget("secret")
    assert not secret_in(folder)


def test_an_erasure_that_a_reader_holds_up_is_finished_later(folder, monkeypatch):
    """The receipt tells of the traces, and the next opening without that reader removes them."""
    monkeypatch.setattr("cmt_sdk.memory.forgetting.FORGET_WAIT", 0.05)
    with (
        closing(sqlite3.connect(folder / "memory.db", isolation_level=None)) as reader,
        open_fake(folder) as memory,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM documents").fetchall()
        receipt = memory.forget("secret")
        assert (receipt.complete, receipt.traces_found > 0) == (False, True)
        reader.execute("ROLLBACK")
    open_fake(folder).close()
    assert not secret_in(folder)


def test_opening_does_not_wait_for_a_writer(folder, monkeypatch, caplog):
    """What is due stays due, with a warning; reading goes on at once."""
    interrupted(folder, monkeypatch, KeyboardInterrupt())
    with closing(sqlite3.connect(folder / "memory.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with open_fake(folder, create=False) as memory:
            assert memory.count() == 1
        writer.execute("ROLLBACK")
    assert "is erased when the memory is next opened" in caplog.text
    open_fake(folder).close()
    assert not secret_in(folder)


def test_a_text_too_short_to_look_for_is_told_as_incomplete(folder, monkeypatch):
    """No byte scan can show that "4711" is gone while a reader keeps the state before: the receipt
    says so.
    """
    monkeypatch.setattr("cmt_sdk.memory.forgetting.FORGET_WAIT", 0.05)
    with (
        closing(sqlite3.connect(folder / "memory.db", isolation_level=None)) as reader,
        open_fake(folder) as memory,
    ):
        memory.add("4711", id="short")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM documents").fetchall()
        assert not memory.forget("short").complete
        reader.execute("ROLLBACK")
        assert memory.forget("secret").complete


def test_what_was_only_deleted_can_still_be_erased(folder):
    """Forgetting rewrites the files, also where nothing fits any more."""
    with open_fake(folder) as memory:
        memory.delete("secret")
        assert memory.forget(scope="nobody").complete
    assert not secret_in(folder)


def test_forgetting_runs_nothing_from_where_the_user_stands(folder, tmp_path, monkeypatch):
    """The search for traces is another Python process: it must not find its modules in the current
    folder.
    """
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with open_fake(folder) as memory:
        assert memory.forget("secret").complete


def test_a_search_for_traces_that_fails_says_so(folder, monkeypatch):
    """The documents are gone all the same, and erased."""
    monkeypatch.setattr("sys.executable", None)
    with open_fake(folder) as memory, pytest.raises(StorageError, match="could not be searched"):
        memory.forget("secret")
    assert not secret_in(folder)


def test_a_damaged_document_that_remains_does_not_stop_the_search_for_traces(folder):
    """Its text lost a bit, so that it is no UTF-8; another shares a word with the forgotten one."""
    with open_fake(folder) as memory:
        memory.add("The harbour is in Genoa.", id="forgotten")
        memory.add("A harbour is big.", id="shares")
        memory.add("The museum moved to Lisbon.", id="damaged")
    with closing(sqlite3.connect(folder / "memory.db")) as db:
        sql = "UPDATE documents SET text = CAST(x'546865ff20' AS TEXT) WHERE doc_id = 'damaged'"
        db.execute(sql)
        db.commit()
    with open_fake(folder, create=False) as memory:
        receipt = memory.forget("forgotten")
    assert (receipt.documents, receipt.traces_found, receipt.complete) == (["forgotten"], 0, True)


def test_what_a_scope_once_held_goes_with_it(folder):
    """A document that was moved to another scope stays there, without what it said before."""
    with open_fake(folder) as memory:
        memory.add("Bertha keeps the ultramarinekey.", id="moved", scope="user/ann")
        memory.update("moved", "Nobody keeps it.", scope="user/bob")
        receipt = memory.forget(scope="user/ann")
        assert (receipt.documents, receipt.versions, receipt.passages, receipt.traces_found) == (
            ["moved"],
            1,
            0,
            0,
        )
        assert [d.text for d in memory.history("moved")] == ["Nobody keeps it."]


def test_a_receipt_counts_what_it_forgot(folder):
    """Whatever others add meanwhile."""
    with open_fake(folder) as memory:
        receipt = memory.forget("secret")
        assert (receipt.documents, receipt.versions, receipt.passages) == (["secret"], 1, 1)
        assert receipt.bytes_freed >= 0
        assert memory.forget(scope="nobody").passages == 0
