"""What no exception handler sees: killed processes, full disks, damaged files. The victims are
child processes.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmt_sdk.errors import CMTError
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT, open_fake
from cmt_sdk.types import Document, Filter, Span
from cmt_sdk.types.vectors import ChangeCounters

ROUNDS = 5
PAGE = 4096
# the first page of those in `sound`
TEXTS = {str(n): f"Fact {n}: the museum has {n} rooms." for n in range(100)}

ADD_FOREVER = """
import itertools, sys
from pathlib import Path
from cmt_sdk.testing.fakes import open_fake

memory = open_fake(Path(sys.argv[1]))
print("open", flush=True)
for n in itertools.count():
    print(memory.add(f"Fact {n} of round {sys.argv[2]} about the museum.").id, flush=True)
"""

ADD_FIVE = """
import sys
from pathlib import Path
from cmt_sdk.testing.fakes import open_fake

sys.stdin.readline()
with open_fake(Path(sys.argv[1])) as memory:
    for n in range(5):
        memory.add(f"Fact {n} of process {sys.argv[2]}.")
    assert len(memory.search("fact", 50, mode="text")) >= 5
"""

FILL_THE_DISK = """
import json, resource, sys
from pathlib import Path
from cmt_sdk.errors import StorageFull
from cmt_sdk.testing.fakes import open_fake

memory = open_fake(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
ids, said = [], ""
while not said:
    try:
        ids.append(memory.add(f"Fact {len(ids)}: " + "the museum has many rooms. " * 100).id)
    except StorageFull as error:
        said = str(error)
found = {m.document.id for m in memory.search("museum", 100, mode="text")}
print(json.dumps({"ids": ids, "said": said, "found": sorted(found)}))
"""

OPEN_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from cmt_sdk.errors import StorageFull
from cmt_sdk.storage.store import SQLiteStore

resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
try:
    SQLiteStore(Path(sys.argv[1]))
except StorageFull as error:
    print(error)
"""

INDEX_ON_A_FULL_DISK = """
import logging, resource, sys
from pathlib import Path
import numpy as np
from cmt_sdk.errors import StorageFull
from cmt_sdk.storage.index import EmbeddingIndex
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.types.vectors import ChangeCounters

logging.basicConfig()
store = SQLiteStore(Path(sys.argv[1]))
matrix = store.vectors(ChangeCounters()).matrix
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
index = EmbeddingIndex(store, Path(sys.argv[1]), 100)
unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
def right(row):
    return np.allclose([h.score for h in index.search(row, 5, None)], np.sort(unit @ row)[:-6:-1], atol=1e-5)
print(sum(map(right, matrix)), "of", len(matrix))
try:
    index.rebuild()
except StorageFull:
    print("full")
"""

SEARCH = """
import logging, sys
from pathlib import Path
import numpy as np
from cmt_sdk.storage.index import EmbeddingIndex
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.types.vectors import ChangeCounters

logging.basicConfig(stream=sys.stdout, format="%(message)s")
for folder in sorted(Path(sys.argv[1]).iterdir()):
    store = SQLiteStore(folder, create=False)
    matrix = store.vectors(ChangeCounters()).matrix
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    index = EmbeddingIndex(store, folder, 100)
    def right(row):
        return np.allclose([h.score for h in index.search(row, 5, None)], np.sort(unit @ row)[:-6:-1], atol=1e-5)
    right = sum(map(right, matrix))
    print(folder.name, right, "of", len(matrix), all(f.ok for f in store.check()), flush=True)
    store.close()
"""

USE_DAMAGED = """
import json, sys
from pathlib import Path
from cmt_sdk.errors import CMTError
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import Document, Filter, Span
from cmt_sdk.types.vectors import ChangeCounters

def attempt(call):
    try:
        return call()
    except CMTError as error:
        return type(error).__name__

for number, folder in enumerate(sorted(Path(sys.argv[1]).iterdir())):
    store = attempt(lambda: SQLiteStore(folder, create=False))
    if isinstance(store, str):
        print(json.dumps([folder.name, store, None, False]), flush=True)
        continue
    texts = attempt(lambda: {d.id: d.text for d in store.page(Filter(), 100, None).documents})
    well = attempt(lambda: all(f.ok or f.check == "compression" for f in store.check()))
    attempt(lambda: store.search_text("museum", 100, Filter())), attempt(store.settings)
    attempt(store.stats), attempt(lambda: store.pending(100)), attempt(store.fingerprints)
    attempt(lambda: store.passages(range(200))), attempt(lambda: store.load(range(200), FINGERPRINT))
    attempt(lambda: store.encodings(range(200))), attempt(lambda: store.vectors(ChangeCounters())), attempt(store.generation)
    attempt(lambda: store.add(Document("A new one."), [Span(0, 10, 3)]))
    attempt(lambda: store.delete(Filter(ids=["1"]))), attempt(lambda: store.erase(0))
    if number % int(sys.argv[2]) == 0:  # this one starts a process
        attempt(lambda: store.find_traces([Document("Fact 1: the museum has 1 rooms.", id="1")]))
    store.close()
    print(json.dumps([folder.name, "open", texts, well is True]), flush=True)
"""


def child(program: str, *arguments: object, **options) -> subprocess.Popen:
    """A Python process that runs a program."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def outcome(process: subprocess.Popen) -> tuple[str, str]:
    """What a child said, after a proper end."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out, err


def test_what_was_reported_as_stored_survives_a_kill(tmp_path):
    """Killed at random moments, again and again: every id that add returned is there, and the
    memory goes on working.
    """
    folder, ids = tmp_path / "notes", []
    for number in range(ROUNDS):
        with child(ADD_FOREVER, folder, number) as process:
            assert process.stdout.readline() == "open\n"
            if number == 0:  # on a busy machine the others may be killed before their first one
                ids.append(process.stdout.readline().strip())
            killer = threading.Timer(
                random.uniform(0.01, 0.3), process.send_signal, [signal.SIGKILL]
            )
            killer.start()
            ids += [line.strip() for line in process.stdout if line.endswith("\n")]
            killer.join()
        assert process.returncode == -signal.SIGKILL
        with open_fake(folder, create=False) as memory:
            texts = {d.id: d.text for d in memory.documents()}
            assert [i for i in ids if i not in texts] == []
            # at most one more a round: stored, but not told any more
            assert len(texts) <= len(ids) + number + 1
            memory.compress()
            assert [f.check for f in memory.check() if not f.ok] == []
            # none in a round that ended early
            assert len(memory.search("museum", len(texts) + 1, mode="text")) == len(texts)
    assert ids


def test_several_processes_make_one_folder_at_once(tmp_path):
    """The first opening is a race that everyone wins; nothing is lost."""
    processes = [child(ADD_FIVE, tmp_path / "new", n, stdin=subprocess.PIPE) for n in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outcome(process)
    with open_fake(tmp_path / "new", create=False) as memory:
        assert sorted(d.text for d in memory.documents()) == sorted(
            f"Fact {n} of process {m}." for n in range(5) for m in range(4)
        )
        assert memory.stats().pending == 0


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_disk_that_fills_up_loses_nothing(tmp_path):
    """A clear error; what was stored is there and is still found; with space again, it goes on."""
    out, _ = outcome(child(FILL_THE_DISK, tmp_path, 800_000))
    told = json.loads(out)
    assert "free" in told["said"]
    assert str(tmp_path) in told["said"]
    assert told["ids"]
    assert set(told["ids"]) <= set(told["found"])
    with open_fake(tmp_path, create=False) as memory:
        assert [d.id for d in memory.documents()][: len(told["ids"])] == told["ids"]
        assert all(f.ok for f in memory.check() if f.check != "compression")
        memory.add("It goes on.")
        memory.compress()
        assert all(f.ok for f in memory.check())


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_opening_a_new_memory_on_a_full_disk(tmp_path):
    """A clear error; later the folder can be used."""
    out, _ = outcome(child(OPEN_ON_A_FULL_DISK, tmp_path))
    assert "free" in out
    store = SQLiteStore(tmp_path)
    assert store.count(Filter()) == 0
    store.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with 150 documents of one passage each, encoded, with an index file."""
    folder = tmp_path_factory.mktemp("sound")
    with open_fake(folder, exact_limit=100) as memory:
        memory.add_many(
            Document(f"Fact {n}: the museum has {n} rooms.", id=str(n), source=f"{n}.md")
            for n in range(150)
        )
        store = SQLiteStore(folder)
        keys = np.random.default_rng(0).standard_normal((150, 64)).astype(np.float32)
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        known = store.encodings(store.vectors(ChangeCounters()).passage_ids)
        store.save(
            {
                i: replace(e, embedding=key)
                for (i, (e, _)), key in zip(known.items(), keys, strict=True)
            },
            FINGERPRINT,
        )
        store.close()
        memory.reindex()
    return folder


def copy(folder: Path, to: Path) -> Path:
    """A copy of a folder's files."""
    to.mkdir(parents=True)
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_an_index_that_finds_no_space_leaves_search_exact(sound, tmp_path):
    """The library writes half a file without a word; the answers are right, and reindex says what
    is wrong.
    """
    folder = copy(sound, tmp_path / "full")
    (index,) = folder.glob("*.hnsw")
    index.unlink()
    out, err = outcome(child(INDEX_ON_A_FULL_DISK, folder))
    assert out == "150 of 150\nfull\n"
    assert "is the disk full" in err
    assert list(folder.glob("*.hnsw")) == []


def flip(data: bytes, at: float) -> bytes:
    """One bit in another state."""
    changed = bytearray(data)
    changed[int(at * len(data))] ^= 16
    return bytes(changed)


INDEX_DAMAGE = {
    "deleted": lambda data: None,
    "emptied": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "zeroed": lambda data: bytes(len(data)),
    "flipped header": lambda data: flip(data, 0.0003),
    "flipped": lambda data: flip(data, 0.7),
    "swapped": lambda data: data[len(data) // 2 :] + data[: len(data) // 2],
}


def test_a_damaged_index_file_costs_no_answer(sound, tmp_path):
    """In a process of its own, because hnswlib may die of one: a warning, right answers, and a
    sound file again.
    """
    for name, damage in INDEX_DAMAGE.items():
        folder = copy(sound, tmp_path / name)
        (index,) = folder.glob("*.hnsw")
        data = damage(index.read_bytes())
        index.unlink()
        if data is not None:
            index.write_bytes(data)
    lines = outcome(child(SEARCH, tmp_path))[0].splitlines()
    assert lines[1::2] == [f"{name} 150 of 150 True" for name in sorted(INDEX_DAMAGE)]
    assert [
        line for line in lines[::2] if "searching exactly until it is made again" not in line
    ] == []


def hurt_databases(sound: Path, to: Path) -> None:
    """Copies of a folder whose database is damaged in ever other ways."""
    whole, chance = (sound / "memory.db").read_bytes(), random.Random(7)
    pages = len(whole) // PAGE
    cases = {
        "emptied": b"",
        "short header": whole[:50],
        "truncated half": whole[: len(whole) // 2],
        "truncated page": whole[:-PAGE],
        "truncated byte": whole[:-1],
        "zeroed": bytes(len(whole)),
        "text": b"This is no database.\n" * 500,
        "swapped halves": whole[len(whole) // 2 :] + whole[: len(whole) // 2],
    }
    for n in range(1, pages, pages // 8):
        cases[f"zeroed page {n}"] = whole[: n * PAGE] + bytes(PAGE) + whole[(n + 1) * PAGE :]
    for n in range(30):
        cases[f"flipped {n}"] = flip(whole, chance.random())
    for n in range(12):
        cases[f"flipped early {n}"] = flip(whole[: 2 * PAGE], chance.random()) + whole[2 * PAGE :]
    for name, data in cases.items():
        (copy(sound, to / name) / "memory.db").write_bytes(data)


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_database_gives_our_errors_or_the_right_texts(sound, tmp_path, every):
    """No death by a signal, no foreign exception; a text that is not what was stored is told by the
    check-up.
    """
    hurt_databases(sound, tmp_path)
    told = {
        name: rest
        for name, *rest in map(
            json.loads, outcome(child(USE_DAMAGED, tmp_path, every))[0].splitlines()
        )
    }
    assert len(told) == len(list(tmp_path.iterdir()))
    assert told["emptied"][0] == "MemoryNotFound"
    assert told["zeroed"][0] == told["text"][0] == told["short header"][0] == "StorageDamaged"
    unnoticed = [name for name, (_, texts, well) in told.items() if well and texts != TEXTS]
    assert unnoticed == []
    # most flipped bits lie elsewhere
    assert sum(texts == TEXTS for _, texts, _ in told.values()) > 20


def test_a_damaged_log_costs_at_most_what_it_holds(sound, tmp_path):
    """What was in the database before is there; the log's own checksums tell how much of it still
    counts.
    """
    living = copy(sound, tmp_path / "living")
    store = SQLiteStore(living)
    store.add(Document("The last one.", id="last"), [Span(0, 13, 3)])
    whole, chance = (living / "memory.db-wal").read_bytes(), random.Random(7)
    cases = {
        "whole": whole,
        "emptied": b"",
        "zeroed": bytes(len(whole)),
        "half": whole[: len(whole) // 2],
        "text": b"no log " * 900,
    }
    cases |= {f"flipped {n}": flip(whole, chance.random()) for n in range(8)}
    for name, data in cases.items():
        (copy(living, tmp_path / "all" / name) / "memory.db-wal").write_bytes(data)
    store.close()
    told = {
        name: rest
        for name, *rest in map(
            json.loads, outcome(child(USE_DAMAGED, tmp_path / "all", 8))[0].splitlines()
        )
    }
    assert told.keys() == cases.keys()
    for state, texts, well in told.values():
        assert (state, texts, well) == ("open", TEXTS, True)


def test_a_database_of_another_memory_is_that_memory(sound, tmp_path):
    """With index files of the one and the database of the other: the database rules."""
    folder = copy(sound, tmp_path / "swapped")
    with open_fake(tmp_path / "other") as other:
        other.add("The harbour of Genoa opens at nine.")
    (folder / "memory.db").write_bytes((tmp_path / "other" / "memory.db").read_bytes())
    with open_fake(folder, create=False) as memory:
        assert (
            memory.model.ask("When opens the harbour?").text
            == "The harbour of Genoa opens at nine."
        )
        memory.reindex()
        assert list(folder.glob("*.hnsw")) == []


@pytest.mark.parametrize("statement", ["INSERT", "UPDATE", "DELETE", "COMMIT"])
def test_a_write_that_fails_leaves_the_state_before(sound, tmp_path, monkeypatch, statement):
    """Whichever statement of a change fails: nothing of it is there, and the store goes on."""
    folder = copy(sound, tmp_path / "failing")
    store = SQLiteStore(folder)
    before = [d.text for d in store.page(Filter(), 200, None).documents]
    real = store._transaction

    def failing(begin: str, end: str):
        return real(
            begin,
            "SELECT 1 FROM no_such_table" if statement == "COMMIT" and end == "COMMIT" else end,
        )

    trigger = {"INSERT": "passages", "UPDATE": "documents", "DELETE": "passages"}.get(statement)
    with closing(sqlite3.connect(folder / "memory.db")) as db:
        if trigger:
            db.execute(
                f"CREATE TRIGGER refuse AFTER {statement} ON {trigger} BEGIN SELECT raise(ABORT,"
                " 'refused'); END"
            )
    monkeypatch.setattr(store, "_transaction", failing)
    known = store.history("7")[-1]
    with pytest.raises(CMTError):
        store.replace(known.id, {"text": "Another text."}, [Span(0, 13, 2)])
    monkeypatch.undo()
    assert [d.text for d in store.page(Filter(), 200, None).documents] == before
    assert [p.text for p in store.passages_of("7")] == [known.text]
    with closing(sqlite3.connect(folder / "memory.db")) as db:
        db.execute("DROP TRIGGER IF EXISTS refuse")
    assert store.replace(known.id, {"text": "Another text."}, [Span(0, 13, 2)]).version == 2
    store.close()
