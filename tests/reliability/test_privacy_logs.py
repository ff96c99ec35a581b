"""What is remembered and asked stays out of logs and out of the database's errors, also where an
application logs all it can.
"""

import logging
import traceback
from dataclasses import dataclass

import pytest
from sqlalchemy.exc import DBAPIError

from cmt_sdk import errors
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake

SECRETS = ("zanzibarquartz", "mongolfierplum", "ultramarinekey", "geheimakte", "wilhelmina")
TOLD = "Wilhelmina keeps the zanzibarquartz in Lisbon. It was moved there in 2019."
ASKED = "Where does Wilhelmina keep the mongolfierplum?"


def leaked(said: str) -> list[str]:
    """Secrets that stand in a text."""
    return [s for s in SECRETS if s in said.lower()]


def test_no_public_call_logs_what_it_was_given(tmp_path, caplog):
    """Root logger at DEBUG before the memory is opened: adding, changing, asking, searching,
    upkeep, forgetting.
    """
    caplog.set_level(logging.DEBUG)
    logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)
    try:
        with open_fake(tmp_path / "notes", exact_limit=0) as memory:
            run_every_call(memory, tmp_path)
    finally:
        logging.getLogger("sqlalchemy").setLevel(logging.NOTSET)
    assert caplog.records  # the net was out: SQLAlchemy's pool tells of its connections
    for record in caplog.records:
        said = f"{record.getMessage()} {record.args!r} {record.exc_text or ''}"
        assert leaked(said) == [], f"{record.name}: {said}"


def run_every_call(memory, folder):
    """The public calls of Memory and its model, with secrets in all that they are given."""
    file = folder / "geheimakte.txt"
    file.write_text(TOLD)
    secret = memory.add(
        TOLD, source="geheimakte.md", scope="user/ann", metadata={"k": "ultramarinekey"}
    )
    memory.add(file)
    memory.add_many([f"The mongolfierplum, part {n}." for n in range(3)], wait=False)
    memory.wait(10)
    memory.update(secret.id, "The ultramarinekey is with Wilhelmina.")
    for reader in ("memory", "text", "auto", "none"):
        memory.model.ask(ASKED, reader=reader, where={"k": "ultramarinekey"})
    "".join(memory.model.ask(ASKED, stream=True))
    for mode in ("fused", "vector", "text", "reranked"):
        memory.search(ASKED, mode=mode, source="geheimakte*")
    memory.nearest(memory.model.embed([ASKED])[0])
    memory.chat(remember=True).say(ASKED)
    list(memory.documents(where={"k": "ultramarinekey"}))
    (
        memory.history(secret.id),
        memory.passages(secret.id),
        memory.embeddings(),
        memory.stats(),
        memory.check(),
        memory.reindex(),
    )
    memory.export(folder / "all.cmt")
    memory.import_archive(folder / "all.cmt")
    memory.reencode()
    for call in (
        lambda: memory.add(TOLD + "\0"),
        lambda: memory.add("x", metadata={"geheimakte": ["zanzibarquartz"]}),
        lambda: memory.search(ASKED, where={'zanzibarquartz"': 1}),
        lambda: memory.add("Another text.", id=secret.id),
    ):
        with pytest.raises(errors.CMTError):
            call()
    memory.forget(secret.id)
    memory.delete(next(memory.documents()).id)


@dataclass
class Telling(FakeCompressor):
    """A compressor that fails and says on what."""

    def compress(self, texts):
        """Fail."""
        raise ValueError(f"cannot read {texts}")


def test_a_compressor_that_fails_is_named_without_the_text(tmp_path, caplog):
    """The exception goes to the caller; the log gets its kind."""
    with (
        caplog.at_level(logging.DEBUG),
        open_fake(tmp_path / "notes", FakeEngine(Telling())) as memory,
        pytest.raises(ValueError, match="zanzibarquartz"),
    ):
        memory.add(TOLD)
    assert "cannot be compressed: ValueError" in caplog.text
    assert leaked(caplog.text) == []


def test_an_error_of_the_database_tells_no_values(tmp_path):
    """An application that logs a traceback logs the causes too: SQLAlchemy would show each
    statement's values.
    """
    with open_fake(tmp_path / "notes") as memory:
        memory.add("A document.")
        with memory._store._write() as db:
            db.exec_driver_sql("DROP TABLE passages")
        with pytest.raises(errors.StorageError) as caught:
            memory.add(TOLD)
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert leaked("".join(traceback.format_exception(caught.value))) == []
