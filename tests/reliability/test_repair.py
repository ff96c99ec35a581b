"""Damage of every kind, in child processes: a clear error or a correct result; the check-up finds
it, repair mends it.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import cmt_sdk
from cmt_sdk.errors import (
    AlreadyExists,
    InvalidInput,
    MemoryNotFound,
    StorageDamaged,
    StorageLocked,
)
from cmt_sdk.testing.fakes import open_fake

ROOT = Path(__file__).parents[2]
PAGE = 4096
TEXTS = {str(n): f"Fact word{n:04} of the museum. It has {n} rooms." for n in range(120)}

REPAIR = """
import json, sys
from pathlib import Path
import cmt_sdk
from cmt_sdk.errors import CMTError
from cmt_sdk.testing.fakes import open_fake

def fits(document):  # its number is that of its id, or, where the disk has changed that, of its text
    return str(document.metadata["n"]) in (document.id, document.text[9:13].lstrip("0") or "0")

def state(folder):
    with open_fake(folder, create=False, exact_limit=1000) as memory:
        memory.finish_repair()
        texts = {d.id: d.text for d in memory.documents()}
        some = sorted(texts)[::9]
        found = {n for n in some if memory.search(texts[n], 1, mode="vector")[0].vector_score > 0.999}
        strange = [d.id for d in memory.documents() if (list(d.metadata), d.source, d.scope) != (["n"], None, "") or not fits(d)]
        return texts, strange, sorted(set(some) - found), [str(f) for f in memory.check() if not f.ok]

for folder in sorted(Path(sys.argv[1]).iterdir()):
    if "before-repair" in folder.name:
        continue
    try:
        with open_fake(folder, create=False) as memory:
            noticed = not all(f.ok for f in memory.check())
    except CMTError as error:
        noticed = True
    try:
        done = cmt_sdk.repair(folder)
        print(json.dumps([folder.name, noticed, [[f.check, f.ok] for f in done], *state(folder)]), flush=True)
    except CMTError as error:
        print(json.dumps([folder.name, noticed, type(error).__name__, {}, [], [], []]), flush=True)
"""

IMPORT = """
import json, sys
from pathlib import Path
from cmt_sdk.errors import CMTError
from cmt_sdk.testing.fakes import open_fake

for n, file in enumerate(sorted(Path(sys.argv[1]).glob("*.cmt"))):
    with open_fake(Path(sys.argv[1]) / f"into {n}") as memory:
        try:
            memory.import_archive(file)
            said = "taken"
        except CMTError as error:
            said = type(error).__name__
        texts = {d.id: d.text for d in memory.documents()}
        well = all(f.ok for f in memory.check())
    print(json.dumps([file.stem, said, texts, well]), flush=True)
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with 120 documents, an index file, and an archive."""
    folder = tmp_path_factory.mktemp("sound") / "notes"
    with open_fake(folder, exact_limit=50) as memory:
        memory.add_many(
            cmt_sdk.Document(text, id=name, metadata={"n": int(name)})
            for name, text in TEXTS.items()
        )
        memory.reindex()
        memory.export(folder.with_name("notes.cmt"))
    return folder


@pytest.fixture
def notes(sound: Path, tmp_path: Path) -> Path:
    """A copy of it that may be hurt."""
    return copy(sound, tmp_path / "notes")


def copy(folder: Path, to: Path) -> Path:
    """A copy of a folder's files."""
    to.mkdir(parents=True)
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def child(program: str, place: Path) -> list[list]:
    """What a program says of each folder or file, after a proper end: one that dies by a signal
    fails the test.
    """
    command = [sys.executable, "-W", "error", "-c", program, str(place)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def flip(data: bytes, at: float) -> bytes:
    """One bit in another state."""
    changed = bytearray(data)
    changed[int(at * len(data))] ^= 16
    return bytes(changed)


def damaged(whole: bytes, foreign: bytes, seed: int, flips: int) -> dict[str, bytes]:
    """A file's bytes as a bad disk, a bad copy or a mistake leaves them."""
    chance, half = random.Random(seed), len(whole) // 2
    cases = {
        "truncated half": whole[:half],
        "truncated bytes": whole[:-7],
        "zeroed": bytes(len(whole)),
        "zeroed half": whole[:half] + bytes(len(whole) - half),
        "zeroed beginning": bytes(100) + whole[100:],
        "swapped halves": whole[half:] + whole[:half],
        "text": b"This is something else.\n" * 400,
        "foreign": foreign,
    }
    return cases | {f"flipped {n}": flip(whole, chance.random()) for n in range(flips)}


def hurt_databases(sound: Path, to: Path, flips: int, seed: int) -> None:
    """Copies of the folder with a damaged database; one page after another is zeroed in some."""
    with closing(sqlite3.connect(to / "foreign.db")) as db, db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    foreign, whole = (to / "foreign.db").read_bytes(), (sound / "memory.db").read_bytes()
    (to / "foreign.db").unlink()
    cases = damaged(whole, foreign, seed, flips)
    for n in range(1, len(whole) // PAGE, max(1, len(whole) // PAGE // max(5, flips))):
        cases[f"zeroed page {n}"] = whole[: n * PAGE] + bytes(PAGE) + whole[(n + 1) * PAGE :]
    for name, data in cases.items():
        (copy(sound, to / name) / "memory.db").write_bytes(data)


def damage_and_repair(
    sound: Path, tmp_path: Path, flips: int, seed: int, tally: Callable[..., None]
) -> None:
    """Hurt, look, repair, look again."""
    hurt_databases(sound, tmp_path, flips, seed)
    told = {name: rest for name, *rest in child(REPAIR, tmp_path)}
    tally("databases damaged and repaired", faults=len(told), losses=0)
    # what another program made is refused, not repaired
    assert told.pop("foreign")[1] == "StorageDamaged"
    for name, (noticed, done, texts, strange, unfound, wrong) in told.items():
        assert done not in ("StorageError",), name
        lost = any(not well for _, well in done) if isinstance(done, list) else True
        changed = {n for n, text in texts.items() if TEXTS.get(n) != text}
        assert texts == TEXTS or (noticed and lost), name  # nothing is lost in silence
        assert changed <= {w for f in wrong for w in TEXTS if w in f} or "texts" in str(wrong), name
        # a changed text, which is told, is no longer what its embedding was made of
        assert set(unfound) <= changed, name
        assert not strange or ["metadata", False] in done or "check='records'" in str(wrong), name
        assert [
            f for f in wrong if "check='texts'" not in f and "check='records'" not in f
        ] == [], name
    whole = [name for name, (_, _, texts, *_) in told.items() if texts == TEXTS]
    assert len(whole) > 0.6 * flips  # most flipped bits cost nothing at all
    assert told["zeroed beginning"][2] == TEXTS


def test_a_damaged_database_is_found_and_repaired(sound, tmp_path, tally):
    """Whatever can be read is saved, what is lost is told; nothing is lost in silence and nothing
    else harmed.
    """
    damage_and_repair(sound, tmp_path, 6, 7, tally)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_database_is_found_and_repaired_often(sound, tmp_path, tally, seed):
    """As above, for long."""
    damage_and_repair(sound, tmp_path, 60, seed, tally)


def test_a_damaged_archive_is_taken_whole_or_not_at_all(sound, tmp_path, tally):
    """No document of it comes in where anything is wrong; what does come in is what was
    exported.
    """
    whole = sound.with_name("notes.cmt").read_bytes()
    for name, data in damaged(whole, (sound / "memory.db").read_bytes(), 3, 25).items():
        (tmp_path / f"{name}.cmt").write_bytes(data)
    told = child(IMPORT, tmp_path)
    tally("archives damaged", faults=len(told), losses=0)
    for name, said, texts, well in told:
        assert (said, texts) == ("taken", TEXTS) or (
            said in ("StorageDamaged", "StorageNewer") and texts == {}
        ), name
        assert well, name


def update(folder: Path, *statements: str) -> None:
    """Change the database behind the memory's back."""
    with closing(sqlite3.connect(folder / "memory.db")) as db, db:
        for statement in statements:
            db.execute(statement)


HARM = {
    "memories": (
        "UPDATE memories SET data = CAST(substr(data, 1, 60) || x'ff' AS BLOB) WHERE passage_id = 5"
    ),
    "embeddings": (
        "UPDATE vectors SET key = CAST(substr(key, 1, 252) || x'ffffff7e' AS BLOB) WHERE"
        " passage_id = 5"
    ),
    "embeddings of another length": (
        "UPDATE vectors SET key = CAST(substr(key, 1, 128) AS BLOB) WHERE passage_id = 5"
    ),
    "passages": "DELETE FROM passages WHERE id = 5",
    "full-text search": "DELETE FROM passage_text WHERE rowid = 5",
    "full-text search, other forms": "DELETE FROM passage_forms WHERE rowid = 5",
    "full-text search, its index": "UPDATE passage_text_data SET block = x'00' WHERE id > 10",
    "fingerprints": "UPDATE fingerprints SET body = replace(body, 'plain', 'plaim')",
    "metadata": "UPDATE documents SET metadata = '{' WHERE doc_id = '5'",
    "metadata, or times": (
        "UPDATE documents SET created_at = 1e300, expires_at = -1e300 WHERE doc_id = '5'"
    ),
    "settings": "UPDATE settings SET value = '{' WHERE name = 'settings'",
    "references": (
        "INSERT INTO memories SELECT 9999, last_read, bytes, data, fidelity FROM memories LIMIT 1"
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_damage_within_a_sound_database(notes, harm):
    """The check-up names it; repair takes it out, and what can be made again from the text is."""
    update(notes, HARM[harm])
    if harm != "settings":
        with open_fake(notes, create=False, exact_limit=50) as memory:
            assert harm.split(",")[0].split(" of ")[0] in [
                f.check for f in memory.check() if not f.ok
            ]
    done = cmt_sdk.repair(notes)
    assert done[0].check == "backup"
    with open_fake(notes, create=False) as memory:
        memory.finish_repair()
        assert {d.id: d.text for d in memory.documents()} == TEXTS
        assert [f for f in memory.check() if not f.ok] == []
        assert memory.search("word0004", 1, mode="text")[0].document.id == "4"
        assert memory.search(TEXTS["4"], 1, mode="vector")[0].vector_score > 0.999
    assert cmt_sdk.repair(notes) == []
    (kept,) = notes.parent.glob("notes-before-repair-*")
    assert (kept / "memory.db").stat().st_mode & 0o777 == 0o600


def hurt_a_row(folder: Path, was: bytes, becomes: bytes, kind: int) -> None:
    """Change bytes in the one page of this kind that holds them: 13 are rows of a table, 10 are of
    an index.
    """
    data = (folder / "memory.db").read_bytes()
    (page,) = [
        p for p in range(0, len(data), PAGE) if data[p] == kind and was in data[p : p + PAGE]
    ]
    (folder / "memory.db").write_bytes(
        data[:page] + data[page : page + PAGE].replace(was, becomes) + data[page + PAGE :]
    )


def told_of_the_database(folder: Path) -> tuple[bool, str, list[str]]:
    """What repair says of the database, and what is wrong afterwards."""
    (told,) = [f for f in cmt_sdk.repair(folder) if f.check == "database"]
    with open_fake(folder, create=False) as memory:
        memory.finish_repair()
        return told.ok, told.detail, [f.check for f in memory.check() if not f.ok]


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A memory of two documents, one with a scope and a source, one with metadata."""
    with open_fake(tmp_path / "told") as memory:
        memory.add("The museum is in Lisbon.", id="a", scope="user/ann", source="ann.md")
        memory.add("The harbour is in Genoa.", id="b", metadata={"n": 1})
    return tmp_path / "told"


def test_the_hash_of_a_row_settles_what_it_was(told):
    """Its table and an index differ: the value that fits the hash is taken, and told as certain.
    Here both names in the row.
    """
    hurt_a_row(told, b"ann.mduser/ann", b"anl.mdusez/ann", 13)
    ok, detail, wrong = told_of_the_database(told)
    assert (ok, wrong) == (True, [])
    assert "scope of 'a' was 'usez/ann', which its hash and an index correct" in detail
    assert "source of 'a' was 'anl.md', which its hash and an index correct" in detail
    with open_fake(told, create=False) as memory:
        assert (memory.get("a").scope, memory.get("a").source) == ("user/ann", "ann.md")


def test_a_row_that_fits_its_hash_is_right(told):
    """The index beside it is wrong, whatever it says."""
    hurt_a_row(told, b"user/annann.md", b"usez/annann.md", 10)
    ok, detail, wrong = told_of_the_database(told)
    assert (ok, "was" in detail.split("saved")[1], "may be" in detail, wrong) == (
        True,
        False,
        False,
        [],
    )
    with open_fake(told, create=False) as memory:
        assert memory.get("a").scope == "user/ann"


def test_what_no_index_holds_is_told_after_repair_too(told):
    """Rows saved from a damaged database keep their hash: the check-up names those that are not as
    they were stored.
    """
    hurt_a_row(told, b"ann.mduser/ann", b"ann.mdusez/ann", 13)
    hurt_a_row(told, b'{"n": 1}', b'{"n": 3}', 13)
    done = {f.check: f for f in cmt_sdk.repair(told)}
    assert (done["database"].ok, done["records"].ok, done["records"].detail.split(": ")[1]) == (
        True,
        False,
        "b",
    )
    with open_fake(told, create=False) as memory:
        assert [(f.check, f.detail) for f in memory.check() if not f.ok] == [
            ("records", done["records"].detail)
        ]
        memory.update("b", metadata={"n": 1})
        assert [f.check for f in memory.check() if not f.ok] == []


def test_a_name_that_became_another_documents(notes):
    """Document 4 says that it is 5: both are saved under their own names."""
    hurt_a_row(notes, b"4Fact word0004", b"5Fact word0004", 13)
    assert told_of_the_database(notes)[::2] == (True, [])
    with open_fake(notes, create=False) as memory:
        assert {d.id: d.text for d in memory.documents()} == TEXTS


def test_index_files_that_belong_to_nothing(notes):
    """Left by a killed builder, of another memory, or damaged: told, and deleted."""
    (index,) = notes.glob("index-*.hnsw")
    (notes / "index-9-ffff.hnsw").write_bytes(index.read_bytes())
    with open_fake(notes) as memory:
        (finding,) = [f for f in memory.check() if f.check == "index"]
        assert (finding.ok, "1 more files" in finding.detail) == (True, True)
    cmt_sdk.repair(notes)
    assert list(notes.glob("index-*.hnsw")) == [index]
    index.write_bytes(bytes(1000))
    assert [(f.check, f.ok) for f in cmt_sdk.repair(notes)] == [
        ("backup", True),
        ("index", True),
        ("index", True),
    ]
    assert list(notes.glob("index-*.hnsw")) == []


def test_what_is_kept_out_stays_out_of_a_saved_memory(notes):
    """A page of the database is damaged: a new one is made, with the list of what stays out."""
    with open_fake(notes, create=False) as memory:
        memory.keep_out(["/n/secret.md"], scope="user/ann")
    with closing(sqlite3.connect(notes / "memory.db")) as db:
        sql = "SELECT rootpage FROM sqlite_master WHERE name = 'by_content'"
        root = db.execute(sql).fetchone()[0]
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (notes / "memory.db").open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(bytes(PAGE))
    assert "saved into a new one" in {f.check: f.detail for f in cmt_sdk.repair(notes)}["database"]
    with open_fake(notes, create=False) as memory:
        assert memory.kept_out(["/n/secret.md"], scope="user/ann") == ["/n/secret.md"]


@pytest.mark.parametrize("row", ["gone", '{"kez": "ab", "hashes": []}', '{"key": "ab"}'])
def test_a_damaged_list_of_what_stays_out_is_named_and_deleted(notes, row):
    """Its result tells what to do; the settings are not blamed."""
    with open_fake(notes, create=False) as memory:
        memory.keep_out(["/n/secret.md"])
    with closing(sqlite3.connect(notes / "memory.db")) as db:
        db.execute("UPDATE settings SET value = ? WHERE name = 'kept_out'", [row])
        db.commit()
    with open_fake(notes, create=False) as memory, pytest.raises(StorageDamaged, match="stay out"):
        memory.kept_out(["/n/secret.md"])
    (result,) = [f for f in cmt_sdk.repair(notes) if not f.ok]
    assert (result.check, "stay out" in result.detail, "--keep-out" in result.remedy) == (
        "kept out",
        True,
        True,
    )
    with open_fake(notes, create=False) as memory:
        assert memory.kept_out(["/n/secret.md"]) == []


def test_a_sound_memory_is_left_alone(notes, tmp_path):
    """No backup, no change."""
    assert cmt_sdk.repair(notes) == []
    assert [f.name for f in tmp_path.iterdir()] == ["notes"]


def test_repair_wants_the_memory_for_itself(notes, tmp_path):
    """Open here or elsewhere, absent: our errors, and nothing is left of the attempt."""
    with open_fake(notes), pytest.raises(InvalidInput, match="open"):
        cmt_sdk.repair(notes)
    hold = "import sys; from cmt_sdk.storage.store import SQLiteStore; from pathlib import Path\n"
    hold += "store = SQLiteStore(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(notes)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as other:
        other.stdout.readline()
        with pytest.raises(StorageLocked, match="close it there"):
            cmt_sdk.repair(notes)
        other.communicate()
    with pytest.raises(MemoryNotFound):
        cmt_sdk.repair(tmp_path / "nothing")
    assert [f.name for f in tmp_path.iterdir()] == ["notes"]


# -- backup --------------------------------------------------------------------------------------


def test_a_backup_is_a_memory(notes, tmp_path):
    """To a folder, which opens; to a file, which opens as memory.db in a folder; for the owner
    alone, and nothing beside it.
    """
    with open_fake(notes) as memory:
        memory.add("Not compressed yet.", id="late", wait=False)
        assert memory.backup(tmp_path / "copy") == tmp_path / "copy" / "memory.db"
        assert memory.backup(tmp_path / "one.db") == tmp_path / "one.db"
        with pytest.raises(AlreadyExists, match="overwrite"):
            memory.backup(tmp_path / "one.db")
        memory.backup(tmp_path / "one.db", overwrite=True)
        with pytest.raises(InvalidInput, match="open"):
            memory.backup(notes, overwrite=True)
    assert [f.name for f in (tmp_path / "copy").iterdir()] == ["memory.db"]
    assert (tmp_path / "one.db").stat().st_mode & 0o777 == 0o600
    (tmp_path / "restored").mkdir()
    (tmp_path / "one.db").rename(tmp_path / "restored" / "memory.db")
    for folder in (tmp_path / "copy", tmp_path / "restored"):
        with open_fake(folder, create=False) as memory:
            assert {d.id: d.text for d in memory.documents()} == TEXTS | {
                "late": "Not compressed yet."
            }
            memory.compress()
            assert [f for f in memory.check() if not f.ok] == []


def test_a_backup_is_of_one_moment(tmp_path):
    """While another process writes pairs, each in one transaction, no copy holds half of one."""
    write = """
import itertools, sys
from pathlib import Path
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.types import Document, Span

store = SQLiteStore(Path(sys.argv[1]))
for n in itertools.count():
    old, new = Document(f"old {n}", str(n), version=1, current=False), Document(f"new {n}", str(n), version=2)
    store.restore([old, new], [Span(0, 5, 2)])
    print(n, flush=True)
"""
    command = [sys.executable, "-c", write, str(tmp_path / "notes")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as writer:
        try:
            for n in range(3):
                last = int(writer.stdout.readline())
                with open_fake(tmp_path / "notes") as memory:
                    memory.backup(tmp_path / f"copy {n}")
                with closing(sqlite3.connect(tmp_path / f"copy {n}" / "memory.db")) as db:
                    counts = db.execute(
                        "SELECT count(*), sum(current), max(CAST(doc_id AS INTEGER)) FROM documents"
                    ).fetchone()
                assert counts[0] == 2 * counts[1]
                assert counts[2] >= last
        finally:
            writer.kill()


def test_a_damaged_memory_is_not_copied_in_silence(notes, tmp_path):
    """A backup that could not be relied on does not come to be."""
    data = (notes / "memory.db").read_bytes()
    with closing(sqlite3.connect(notes / "memory.db")) as db:
        at = (
            db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_document'").fetchone()[
                0
            ]
            - 1
        ) * PAGE
    (notes / "memory.db").write_bytes(data[:at] + bytes(PAGE) + data[at + PAGE :])
    with open_fake(notes) as memory, pytest.raises(StorageDamaged, match="repair"):
        memory.backup(tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []
