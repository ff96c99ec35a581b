"""What ports.VectorIndex promises, asked of EmbeddingIndex; exact search is the oracle for the
graph.
"""

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmt_sdk.errors import InvalidInput, StorageFull, StorageLocked
from cmt_sdk.ports import VectorIndex
from cmt_sdk.storage import graph
from cmt_sdk.storage.index import EmbeddingIndex
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.system.disk import sha256_of
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import CompressedPassage, Document, Encoded, Filter, Span
from cmt_sdk.types.vectors import ChangeCounters, Generation, VectorRows

DIMENSION = 32


class Vectors:
    """A VectorStore in memory. A passage has the id of its label plus 1,000."""

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}
        self.last = 0
        self.lost = 0
        self.trusted: Generation | None = None

    def put(self, matrix) -> list[int]:
        """Add vectors; their passage ids."""
        new = range(self.last + 1, self.last + 1 + len(matrix))
        self.rows.update(zip(new, np.asarray(matrix, np.float32), strict=True))
        self.last += len(matrix)
        return [label + 1_000 for label in new]

    def drop(self, passages) -> None:
        """Take vectors out."""
        for passage in passages:
            del self.rows[passage - 1_000]
        self.lost += 1

    def vectors(self, since):
        """What the set has gained and lost."""
        labels = [label for label in self.rows if label > since.gained]
        matrix = np.array([self.rows[label] for label in labels], np.float32).reshape(
            len(labels), -1 if labels else 0
        )
        live = None if since.lost == self.lost else set(self.rows)
        return VectorRows(
            self.change_counters(), labels, [label + 1_000 for label in labels], matrix, live
        )

    def change_counters(self) -> ChangeCounters:
        """The last label and the losses."""
        return ChangeCounters(self.last, self.lost)

    def alive(self) -> int:
        """The vectors that are here."""
        return len(self.rows)

    def generation(self):
        """The trusted file."""
        return self.trusted

    def set_generation(self, generation) -> bool:
        """False for a file with dead vectors."""
        if (
            generation
            and sum(label <= generation.last_label for label in self.rows) != generation.count
        ):
            return False
        self.trusted = generation
        return True


def unit(count: int, seed: int = 0, dimension: int = DIMENSION) -> np.ndarray:
    """Random vectors of length 1."""
    matrix = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def prove_here(file: Path, dimension: int, count: int) -> None:
    """The proof without the process: some 0.4 s sooner."""
    assert graph._prove(str(file), str(dimension), str(count)) == 0


@pytest.fixture(autouse=True)
def quick_proof(monkeypatch, request) -> None:
    """Files are proved in this process, except where the proof is what is tested."""
    if "prov" not in request.node.name:
        monkeypatch.setattr(graph, "_prove_elsewhere", prove_here)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, dict[int, np.ndarray], Generation]:
    """A folder with the index file of 1,000 random vectors, the vectors, and the row that trusts
    the file.
    """
    folder, vectors = tmp_path_factory.mktemp("built"), Vectors()
    vectors.put(unit(1_000))
    EmbeddingIndex(vectors, folder, 100).rebuild()
    return folder, vectors.rows, vectors.trusted


@pytest.fixture
def vectors(built, tmp_path) -> Vectors:
    """The 1,000 vectors, with their file in tmp_path."""
    folder, rows, trusted = built
    shutil.copy(folder / trusted.file, tmp_path)
    copy = Vectors()
    copy.rows, copy.last, copy.trusted = dict(rows), max(rows), trusted
    return copy


def exact(vectors: Vectors, query, limit: int, allowed=None) -> list[int]:
    """The nearest passages by brute force."""
    inside = [label for label in vectors.rows if allowed is None or label + 1_000 in allowed]
    scores = np.array([vectors.rows[label] for label in inside]).reshape(-1, DIMENSION) @ query
    return [inside[i] + 1_000 for i in np.argsort(-scores)[:limit]]


def ids(hits) -> list[int]:
    """Passage ids of hits."""
    return [h.passage_id for h in hits]


def recall(index: VectorIndex, vectors: Vectors, allowed=None) -> float:
    """The share of the ten nearest that the index finds, over 50 random questions."""
    queries = unit(50, seed=9)
    same = [
        len(set(ids(index.search(q, 10, allowed))) & set(exact(vectors, q, 10, allowed)))
        for q in queries
    ]
    return sum(same) / 500


def files(folder: Path) -> list[str]:
    """Names of the index files."""
    return sorted(f.name for f in folder.glob("*.hnsw"))


@pytest.mark.parametrize("limit", [10**6, 100], ids=["exact", "hnsw"])
def test_the_nearest_come_first_with_their_cosine(vectors, tmp_path, limit):
    """By either kind of search: falling exact scores, as many as asked for, the vector itself
    before all.
    """
    index = EmbeddingIndex(vectors, tmp_path, limit)
    query = vectors.rows[77]
    hits = index.search(query, 10, None)
    assert hits[0].passage_id == 1_077
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    for hit in hits:
        assert hit.score == pytest.approx(
            float(vectors.rows[hit.passage_id - 1_000] @ query), abs=1e-5
        )
    assert len(hits) == 10


def test_recall_among_three_thousand_random_vectors(tmp_path):
    """Nothing is harder for a graph than vectors without any order."""
    vectors = Vectors()
    vectors.put(unit(3_000))
    assert recall(EmbeddingIndex(vectors, tmp_path, 100), vectors) >= 0.95


def test_vectors_of_any_length_are_compared_by_direction(tmp_path):
    """Stored vectors are normalised; one of zeros is near nothing."""
    vectors = Vectors()
    a, b, c = vectors.put([[10.0, 0.0], [0.3, 0.3], [0.0, 0.0]])
    hits = EmbeddingIndex(vectors, tmp_path, 100).search(np.array([1, 0], np.float32), 3, None)
    assert ids(hits) == [a, b, c]
    assert [h.score for h in hits] == pytest.approx([1.0, 0.5**0.5, 0.0], abs=1e-6)


def test_an_empty_index_finds_nothing(tmp_path):
    """Whatever the dimension, the limit and the filter; also after a rebuild, and once everything
    was deleted.
    """
    vectors = Vectors()
    index = EmbeddingIndex(vectors, tmp_path, 0)
    assert index.search(unit(1)[0], 5, None) == index.search(unit(1)[0], 5, {1}) == []
    index.rebuild()
    vectors.drop(vectors.put(unit(3)))
    assert index.search(unit(1)[0], 5, None) == []
    assert index.describe() == "exact, 0 vectors"


@pytest.mark.parametrize("limit", [10**6, 100], ids=["exact", "hnsw"])
def test_more_asked_for_than_there_is(vectors, tmp_path, limit):
    """Every living vector comes once; asking for none gives none."""
    index = EmbeddingIndex(vectors, tmp_path, limit)
    vectors.drop([p + 1_000 for p in range(1, 801)])
    assert sorted(ids(index.search(unit(1)[0], 5_000, None))) == [
        label + 1_000 for label in sorted(vectors.rows)
    ]
    assert index.search(unit(1)[0], 0, None) == []


@pytest.mark.parametrize("limit", [10**6, 100], ids=["exact", "hnsw"])
def test_only_allowed_passages_are_found(vectors, tmp_path, limit):
    """However few or many are allowed, and whether they exist."""
    index = EmbeddingIndex(vectors, tmp_path, limit)
    query = unit(1, seed=3)[0]
    for allowed in (
        [],
        [99],
        {1_005},
        set(range(1_000, 1_010)),
        range(1_300, 1_900),
        {7, *range(1_000, 9_000)},
    ):
        assert ids(index.search(query, 10, allowed)) == exact(vectors, query, 10, set(allowed))


@pytest.mark.parametrize("limit", [10**6, 100], ids=["exact", "hnsw"])
def test_deleted_and_newer_vectors(vectors, tmp_path, limit):
    """What was deleted is never found, what was added is found at once; recall holds."""
    index = EmbeddingIndex(vectors, tmp_path, limit)
    index.search(unit(1)[0], 1, None)
    gone = list(range(1_001, 1_900, 2))
    vectors.drop(gone)
    (new,) = vectors.put(unit(1, seed=5))
    assert ids(index.search(unit(1, seed=5)[0], 1, None)) == [new]
    vectors.put(unit(100, seed=6))
    found = {p for q in unit(50, seed=9) for p in ids(index.search(q, 10, None))}
    assert found.isdisjoint(gone)
    assert recall(index, vectors) >= (1.0 if limit > 100 else 0.95)
    assert files(tmp_path) == [vectors.trusted.file]


def test_a_file_with_deleted_vectors_is_opened_without_them(vectors, tmp_path):
    """What was deleted by another process, before this one opened the file, is not found either."""
    gone = list(range(1_001, 1_400))
    vectors.drop(gone)
    index = EmbeddingIndex(vectors, tmp_path, 100)
    assert {p for q in unit(50, seed=9) for p in ids(index.search(q, 10, None))}.isdisjoint(gone)
    assert recall(index, vectors) >= 0.95


@pytest.mark.parametrize("limit", [10**6, 100], ids=["exact", "hnsw"])
def test_a_vector_of_another_length_is_refused(vectors, tmp_path, limit):
    """Both lengths are told."""
    index = EmbeddingIndex(vectors, tmp_path, limit)
    for wrong in (np.ones(7, np.float32), np.ones((1, DIMENSION), np.float32)):
        with pytest.raises(InvalidInput, match=r"\(.*\) in an index of 32 values each"):
            index.search(wrong, 5, None)


def test_another_model_with_another_length_takes_over(vectors, tmp_path):
    """After all vectors were replaced by longer ones the graph of the old ones is no longer
    asked.
    """
    index = EmbeddingIndex(vectors, tmp_path, 100)
    index.search(unit(1)[0], 1, None)
    vectors.drop([label + 1_000 for label in vectors.rows])
    passages = vectors.put(unit(120, dimension=48))
    assert ids(index.search(vectors.rows[vectors.last], 1, None)) == [passages[-1]]
    assert vectors.trusted.dimension == 48


def test_the_first_search_above_the_limit_writes_a_proved_graph_and_answers(tmp_path):
    """Up to the limit search is exact and writes nothing; one vector more, and a proved file stands
    in the folder.
    """
    vectors = Vectors()
    vectors.put(unit(200))
    index = EmbeddingIndex(vectors, tmp_path, 200)
    assert ids(index.search(vectors.rows[5], 1, None)) == [1_005]
    assert (files(tmp_path), index.describe()) == ([], "exact, 200 vectors")
    vectors.put(unit(1, seed=2))
    assert ids(index.search(vectors.rows[5], 1, None)) == [1_005]
    made = vectors.trusted
    assert (made.number, made.count, made.last_label, made.dimension, made.space) == (
        1,
        201,
        201,
        DIMENSION,
        "cosine",
    )
    assert files(tmp_path) == [made.file]
    assert sha256_of(tmp_path / made.file) == made.sha256
    assert index.describe() == "hnsw (m=16), 201 vectors"


def test_a_graph_far_behind_is_written_anew(vectors, tmp_path):
    """With more outside it or dead in it than exact search is meant for; the old file goes."""
    index = EmbeddingIndex(vectors, tmp_path, 100)
    vectors.put(unit(900, seed=4))
    index.maintain()
    assert vectors.trusted.number == 1
    vectors.drop(range(1_001, 1_102))
    index.maintain()
    assert (vectors.trusted.number, vectors.trusted.count) == (2, 1_799)
    assert files(tmp_path) == [vectors.trusted.file]
    assert recall(index, vectors) >= 0.95


def test_rebuild_leaves_no_deleted_vector_in_any_file(vectors, tmp_path):
    """The bytes of a deleted vector go with the old file."""
    index = EmbeddingIndex(vectors, tmp_path, 100)
    index.search(unit(1)[0], 1, None)
    row = vectors.rows[1].tobytes()
    assert row in (tmp_path / vectors.trusted.file).read_bytes()
    vectors.drop([1_001])
    index.rebuild()
    assert [f for f in files(tmp_path) if row in (tmp_path / f).read_bytes()] == []
    assert (vectors.trusted.number, vectors.trusted.count) == (2, 999)
    assert 1_001 not in ids(index.search(np.frombuffer(row, np.float32), 10, None))


def test_erase_overwrites_a_few_deleted_vectors_in_a_new_file(vectors, tmp_path, monkeypatch):
    """The graph is not built again, finds the others as before, and is opened by others."""
    index = EmbeddingIndex(vectors, tmp_path, 100)
    index.search(unit(1)[0], 1, None)
    gone = [vectors.rows[label].tobytes() for label in range(1, 21)]
    vectors.drop(range(1_001, 1_021))
    monkeypatch.setattr(graph, "build", None)
    index.erase()
    (name,) = files(tmp_path)
    data = (tmp_path / name).read_bytes()
    pieces = [row[at : at + 8] for row in gone for at in range(0, len(row), 8)]
    assert [piece for piece in pieces if piece in data] == []
    assert (name, vectors.trusted.number, vectors.trusted.count) == (vectors.trusted.file, 2, 980)
    assert recall(index, vectors) >= 0.95
    other = EmbeddingIndex(vectors, tmp_path, 100)
    assert recall(other, vectors) >= 0.95
    assert 1_001 not in ids(other.search(np.frombuffer(gone[0], np.float32), 10, None))


def test_erase_writes_nothing_where_nothing_was_deleted_since(vectors, tmp_path):
    """What an earlier erasure has overwritten is known, also after the file is opened again."""
    index = EmbeddingIndex(vectors, tmp_path, 100)
    index.search(unit(1)[0], 1, None)
    vectors.drop([1_001])
    index.erase()
    index.erase()
    other = EmbeddingIndex(vectors, tmp_path, 100)
    other.erase()
    assert vectors.trusted.number == 2
    row = vectors.rows[2].tobytes()
    vectors.drop([1_002])
    other.erase()
    assert vectors.trusted.number == 3
    assert [f for f in files(tmp_path) if row in (tmp_path / f).read_bytes()] == []


def test_erase_after_many_deletions_builds_the_graph_again(vectors, tmp_path):
    """Overwriting each would take longer."""
    index = EmbeddingIndex(vectors, tmp_path, 100)
    index.search(unit(1)[0], 1, None)
    row = vectors.rows[1].tobytes()
    vectors.drop(range(1_001, 1_501))
    index.erase()
    (name,) = files(tmp_path)
    assert row not in (tmp_path / name).read_bytes()
    assert graph.open_trusted(tmp_path, vectors.trusted, DIMENSION).labels.tolist() == sorted(
        vectors.rows
    )


def test_erase_that_failed_is_finished_by_the_next_one(vectors, tmp_path, monkeypatch):
    """The disk is full; the old file is trusted until a new one is written."""
    index = EmbeddingIndex(vectors, tmp_path, 100)
    index.search(unit(1)[0], 1, None)
    row = vectors.rows[1].tobytes()
    vectors.drop([1_001])

    def full(*_: object) -> None:
        raise StorageFull("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(graph, "write", full)
        with pytest.raises(StorageFull):
            index.erase()
    index.erase()
    assert [f for f in files(tmp_path) if row in (tmp_path / f).read_bytes()] == []
    assert vectors.trusted.count == 999


def test_erase_below_the_limit_removes_the_file(vectors, tmp_path):
    """As `rebuild` does."""
    index = EmbeddingIndex(vectors, tmp_path, 100)
    index.search(unit(1)[0], 1, None)
    other = EmbeddingIndex(vectors, tmp_path, 10**6)
    other.erase()
    assert (files(tmp_path), vectors.trusted) == ([], None)


def test_rebuild_below_the_limit_removes_the_file_and_the_trust_in_it(vectors, tmp_path):
    """A check-up then finds an exact index, not a missing file."""
    (tmp_path / "index-0-leftover.hnsw").write_bytes(b"of a crash")
    index = EmbeddingIndex(vectors, tmp_path, 10**6)
    index.rebuild()
    assert (files(tmp_path), vectors.trusted) == ([], None)
    assert index.describe() == "exact, 1000 vectors"


def test_rebuild_notices_what_is_deleted_meanwhile(vectors, tmp_path, monkeypatch):
    """A vector deleted by another process during the writing is in no trusted file."""
    build = graph.build

    def deleting(*args):
        made = build(*args)
        if 1 in vectors.rows:
            vectors.drop([1_001])
        return made

    monkeypatch.setattr(graph, "build", deleting)
    EmbeddingIndex(vectors, tmp_path, 100).rebuild()
    assert vectors.trusted.count == 999
    assert files(tmp_path) == [vectors.trusted.file]


def test_rebuild_ends_though_others_delete_all_the_while(vectors, tmp_path, monkeypatch):
    """No file that holds a dead vector is trusted or stays; search is exact then, and right."""
    build = graph.build

    def deleting(*args):
        made = build(*args)
        vectors.drop([min(vectors.rows) + 1_000])
        return made

    monkeypatch.setattr(graph, "build", deleting)
    index = EmbeddingIndex(vectors, tmp_path, 100)
    index.rebuild()
    assert (vectors.trusted, files(tmp_path)) == (None, [])
    monkeypatch.setattr(graph, "build", build)
    assert recall(index, vectors) >= 0.95


def test_rebuild_removes_what_a_killed_builder_left(vectors, tmp_path):
    """A file of the next number, which no row names, may hold vectors of what is being
    forgotten.
    """
    (tmp_path / "index-2-orphan.hnsw").write_bytes(vectors.rows[1].tobytes())
    vectors.drop([1_001])
    EmbeddingIndex(vectors, tmp_path, 100).rebuild()
    assert files(tmp_path) == [vectors.trusted.file]


def test_a_file_that_another_process_removes_while_it_is_written(
    vectors, tmp_path, monkeypatch, caplog
):
    """Somebody forgets meanwhile: no false alarm about the disk, and search goes on exactly."""

    def removing(file: Path, dimension: int, count: int) -> None:
        file.unlink()
        raise StorageFull("cannot be read back")

    monkeypatch.setattr(graph, "_prove_elsewhere", removing)
    vectors.trusted = None
    index = EmbeddingIndex(vectors, tmp_path, 100)
    assert recall(index, vectors) == 1.0
    assert caplog.text == ""


def test_a_file_that_cannot_be_recorded_does_not_stay(vectors, tmp_path, monkeypatch):
    """It would hold vectors that are forgotten later, and no forgetting would know of it."""
    vectors.trusted = None

    def locked(generation):
        raise StorageLocked("busy")

    monkeypatch.setattr(vectors, "set_generation", locked)
    before = files(tmp_path)
    assert recall(EmbeddingIndex(vectors, tmp_path, 100), vectors) == 1.0
    monkeypatch.setattr(vectors, "set_generation", lambda generation: False)
    assert recall(EmbeddingIndex(vectors, tmp_path, 100), vectors) == 1.0
    assert files(tmp_path) == before


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_an_index_file_is_its_owner_s_alone(vectors, tmp_path):
    """As the database is."""
    EmbeddingIndex(vectors, tmp_path, 100).rebuild()
    assert (tmp_path / vectors.trusted.file).stat().st_mode & 0o077 == 0


def test_reading_that_failed_is_tried_again(vectors, tmp_path, monkeypatch):
    """What a locked database did not give at one search comes at the next."""
    index, read = EmbeddingIndex(vectors, tmp_path, 10**6), vectors.vectors

    def locked(since):
        raise StorageLocked("busy")

    monkeypatch.setattr(vectors, "vectors", locked)
    with pytest.raises(StorageLocked):
        index.search(vectors.rows[7], 1, None)
    monkeypatch.setattr(vectors, "vectors", read)
    assert ids(index.search(vectors.rows[7], 1, None)) == [1_007]


def damage_missing(file: Path) -> None:
    """No file."""
    file.unlink()


def damage_short(file: Path) -> None:
    """The first half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_flipped(file: Path) -> None:
    """One bit."""
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)


def damage_folder(file: Path) -> None:
    """A folder in its place."""
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [damage_missing, damage_short, damage_flipped, damage_folder])
def test_a_damaged_file_is_made_again_with_a_warning(vectors, tmp_path, caplog, damage):
    """The answer is right all the same."""
    before = vectors.trusted
    damage(tmp_path / before.file)
    index = EmbeddingIndex(vectors, tmp_path, 100)
    assert recall(index, vectors) >= 0.95
    assert before.file in caplog.text
    assert "searching exactly until it is made again" in caplog.text
    assert vectors.trusted.number == 2
    assert vectors.trusted.file in files(tmp_path)


@pytest.mark.parametrize("field", [{"dimension": 64}, {"space": "l2"}, {"sha256": "0" * 64}])
def test_a_file_of_another_kind_is_not_opened(vectors, tmp_path, caplog, field):
    """A graph of another length or space would load without complaint and answer wrongly."""
    vectors.trusted = replace(vectors.trusted, **field)
    assert recall(EmbeddingIndex(vectors, tmp_path, 100), vectors) >= 0.95
    assert "damaged, or of another model" in caplog.text


def test_a_file_that_does_not_prove_readable_is_not_trusted(vectors, tmp_path, monkeypatch, caplog):
    """The library writes to a full disk without a word: search stays exact, reindex says so, no
    broken file stays.
    """

    class Silent:
        """A graph whose save_index writes half of a file."""

        def __init__(self, *args) -> None:
            pass

        def save_index(self, name: str) -> None:
            """As on a full disk."""
            Path(name).write_bytes(b"\0" * 100)

        def __getattr__(self, name: str):
            return lambda *args, **options: None

    before = files(tmp_path)
    monkeypatch.setattr("hnswlib.Index", Silent)
    index = EmbeddingIndex(vectors, tmp_path, 100)
    with pytest.raises(StorageFull, match="is the disk full"):
        index.rebuild()
    vectors.trusted = None
    index = EmbeddingIndex(vectors, tmp_path, 100)
    assert recall(index, vectors) == 1.0
    assert caplog.text.count("searching exactly, because the index could not be written") == 1
    assert files(tmp_path) == before


def test_a_folder_that_is_gone_leaves_search_exact(tmp_path, caplog):
    """Nor does hnswlib say that it could not open its file."""
    vectors = Vectors()
    vectors.put(unit(30))
    index = EmbeddingIndex(vectors, tmp_path / "nowhere", 20)
    assert ids(index.search(vectors.rows[3], 1, None)) == [1_003]
    assert "could not be written" in caplog.text


def test_another_index_takes_over_the_file_that_one_has_written(tmp_path, monkeypatch):
    """Two processes on one folder build one graph; changes of either are seen by both."""
    vectors = Vectors()
    vectors.put(unit(150))
    one, two = EmbeddingIndex(vectors, tmp_path, 100), EmbeddingIndex(vectors, tmp_path, 100)
    one.maintain()
    monkeypatch.setattr(graph, "build", None)
    assert ids(two.search(vectors.rows[9], 1, None)) == [1_009]
    (new,) = vectors.put(unit(1, seed=8))
    vectors.drop([1_009])
    for index in (one, two):
        assert ids(index.search(unit(1, seed=8)[0], 1, None)) == [new]
        assert 1_009 not in ids(index.search(unit(10)[8], 151, None))


def test_searching_from_many_threads(vectors, tmp_path):
    """While vectors come and go."""
    index, raised = EmbeddingIndex(vectors, tmp_path, 100), []

    def work(seed: int) -> None:
        try:
            for query in unit(20, seed=seed):
                assert len(index.search(query, 10, None)) == 10
        except BaseException as error:  # noqa: BLE001 - told to the test
            raised.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for n in range(20):
        vectors.drop([1_001 + n])
    for thread in threads:
        thread.join()
    assert raised == []


def test_over_the_store_on_disk(tmp_path):
    """With the real store: written by one opening, read by the next; deletions come through; the
    check-up is content.
    """
    matrix = unit(60)
    memory = CompressedPassage("fake", 1, {"bytes": np.zeros(1, np.uint8)})
    store = SQLiteStore(tmp_path)
    store.add(Document("x" * 59, id="many"), [Span(n, n + 1, 1) for n in range(59)])
    store.add(Document("y", id="one"), [Span(0, 1, 1)])
    passages = [p.id for p in store.pending(100)]
    store.save(
        {p: Encoded(memory, key) for p, key in zip(passages, matrix, strict=True)}, FINGERPRINT
    )
    assert ids(EmbeddingIndex(store, tmp_path, 50).search(matrix[7], 1, None)) == [passages[7]]
    store.close()
    store = SQLiteStore(tmp_path)
    index = EmbeddingIndex(store, tmp_path, 50)
    assert index.describe() == "hnsw (m=16), 60 vectors"
    assert ids(index.search(matrix[59], 1, None)) == [passages[59]]
    assert all(f.ok for f in store.check())
    (tmp_path / store.generation().file).write_bytes(b"")
    assert [(f.check, f.remedy) for f in store.check() if not f.ok] == [("index", "cmt reindex")]
    (tmp_path / store.generation().file).unlink()
    assert [(f.check, f.remedy) for f in store.check() if not f.ok] == [("index", "cmt reindex")]
    store.delete(Filter(ids=["one"]))
    assert passages[59] not in ids(index.search(matrix[59], 60, None))
    index.rebuild()
    assert all(f.ok for f in store.check())
    store.close()
