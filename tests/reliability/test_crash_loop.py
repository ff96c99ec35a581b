"""Killed at random moments, again and again: what was reported as done is there, what was not is
whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import cmt_sdk
from cmt_cli.sync import Sync
from cmt_sdk.storage.driver import connect
from cmt_sdk.storage.encryption import key_of
from cmt_sdk.storage.schema import MIGRATIONS
from cmt_sdk.testing.fakes import open_fake
from tests.reliability.victims import MOVE_BUDGET, OTHER, Silent, Zygote, open_with

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="forks and watches processes as Linux does"
)

FRESH_AFTER = 25  # rounds in one folder
CHURN = "killed while adding, updating, forgetting"
ENCRYPTED = "the same of an encrypted memory"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """Starts the victims."""
    started = Zygote()
    yield started
    started.close()


def copy(folder: Path, to: Path) -> Path:
    """A copy of a folder's files."""
    to.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file():
            (to / file.name).write_bytes(file.read_bytes())
    return to


@dataclass
class Judge:
    """Knows from a victim's notes what a folder must hold."""

    texts: dict[str, str] = field(default_factory=dict)
    # of each document, in all its versions
    words: dict[str, set[str]] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    calls: int = 0

    def judge(self, folder: Path, notes: Path) -> None:
        """Replay the notes, open the folder, compare; then its content is what it must hold from
        now on.
        """
        may = self._replay(notes)
        with open_fake(folder, create=False) as memory:
            held = {d.id: d.text for d in memory.documents()}
            self._compare(held, may)
            memory.compress()
            assert memory.stats().pending == 0
            assert [f for f in memory.check() if not f.ok] == []
            for name in random.sample(sorted(held), min(3, len(held))):
                assert memory.search(held[name].split()[1], 1, mode="text")[0].document.id == name
                for passage in memory.passages(name):
                    assert held[name][passage.start : passage.end] == passage.text
                    assert memory.search(passage.content, 1, mode="vector")[0].vector_score > 0.999
        self.texts = held
        for file in folder.iterdir():
            data = file.read_bytes()
            assert [word for word in self.erased if word.encode() in data] == [], file.name

    def _replay(self, notes: Path) -> dict[str, frozenset[str | None]]:
        """What each document named in the last call, which did not return, may be now; "" is the
        one being added.
        """
        begun = None
        for line in notes.read_text().splitlines():
            note = json.loads(line)
            if "begin" in note:
                begun = note
                continue
            begun, self.calls = None, self.calls + 1
            if note["done"] in ("add", "update"):
                self.texts[note["id"]] = note["text"]
                self.words.setdefault(note["id"], set()).add(note["text"].split()[1])
            elif note["done"] in ("delete", "forget"):
                del self.texts[note["id"]]
                words = self.words.pop(note["id"])
                self.erased |= words if note["done"] == "forget" else set()
        if begun is None:
            return {}
        if begun["begin"] == "add":
            return {"": frozenset({begun["text"], None})}
        new = begun["text"] if begun["begin"] == "update" else None
        if new:
            self.words[begun["id"]].add(new.split()[1])
        self.forgetting = begun["id"] if begun["begin"] == "forget" else ""
        return {begun["id"]: frozenset({self.texts[begun["id"]], new})}

    def _compare(self, held: dict[str, str], may: dict[str, frozenset[str | None]]) -> None:
        for name, text in self.texts.items():
            assert held.get(name) in may.get(name, frozenset({text})), f"{name}: lost or undone"
        more = [name for name in held if name not in self.texts]
        assert len(more) <= ("" in may), "a document came back, or came twice"
        for name in more:
            assert held[name] in may[""]
            self.words[name] = {held[name].split()[1]}
        for name in may:
            if name and name not in held:
                words = self.words.pop(name)
                self.erased |= words if self.forgetting == name else set()


def crash_loop(
    zygote: Zygote, tmp_path: Path, rounds: int, tally: Callable[..., None], line: str = CHURN
) -> None:
    """So many kills."""
    chance, judge, folder = random.Random(), Judge(), tmp_path
    for number in range(rounds):
        if number % FRESH_AFTER == 0:
            tally(line, calls=judge.calls)
            judge, folder = Judge(), tmp_path / f"notes {number}"
        notes = tmp_path / f"{number}.jsonl"
        notes.touch()
        outcome = zygote("churn", folder, notes, delay=chance.uniform(0.02, 0.6), seed=number)
        assert outcome["code"] == -9
        if (folder / "memory.db").exists() and (folder / "memory.db").stat().st_size:
            judge.judge(folder, notes)
        tally(line, rounds=1, losses=0)
    tally(line, calls=judge.calls)
    assert judge.calls


def test_nothing_that_was_reported_is_lost(zygote, tmp_path, tally):
    """Thirty kills amid add, update, delete and forget: nothing missing, undone or doubled; what
    was forgotten left no byte.
    """
    crash_loop(zygote, tmp_path, 30, tally)


@pytest.fixture
def encrypted(monkeypatch) -> Iterator[Zygote]:
    """A key is around, and starts victims that make encrypted memories."""
    pytest.importorskip("sqlcipher3")
    monkeypatch.setenv("CMT_KEY", "c3" * 32)
    started = Zygote()
    yield started
    started.close()


def test_nothing_that_was_reported_of_an_encrypted_memory_is_lost(encrypted, tmp_path, tally):
    """Ten kills more."""
    crash_loop(encrypted, tmp_path, 10, tally, ENCRYPTED)
    assert all((f / "memory.db").read_bytes().startswith(b"CMTE") for f in tmp_path.glob("notes *"))


@pytest.mark.slow
def test_nothing_that_was_reported_of_an_encrypted_memory_is_lost_in_200_kills(
    encrypted, tmp_path, tally
):
    """As above, for long."""
    crash_loop(encrypted, tmp_path, 200, tally, ENCRYPTED)


@pytest.mark.slow
def test_nothing_that_was_reported_is_lost_in_500_kills(zygote, tmp_path, tally):
    """As above, for long."""
    crash_loop(zygote, tmp_path, 500, tally)


# -- killed amid one long operation --------------------------------------------------------------


TEXTS = {str(n): f"Fact word{n:04} of the museum. It has {n} rooms." for n in range(60)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with sixty documents and ten that are to go, an index file, an archive and a
    copy.
    """
    return filled(tmp_path_factory.mktemp("whole") / "notes")


def filled(folder: Path, **options: Any) -> Path:
    """The folder above."""
    with open_fake(folder, exact_limit=20, **options) as memory:
        memory.add_many(cmt_sdk.Document(text, id=name) for name, text in TEXTS.items())
        memory.add_many(
            cmt_sdk.Document(f"Secret sentinel{n:04}.", scope="gone") for n in range(10)
        )
        memory.reindex()
        memory.export(folder / "out.cmt")
        memory.backup(folder / "copy.db")
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A folder as the first schema had it."""
    folder = tmp_path_factory.mktemp("old") / "notes"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "memory.db")) as db, db:
        for statement in MIGRATIONS[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        for name, text in TEXTS.items():
            row = (int(name) + 1, name, text, hashlib.sha256(text.encode()).hexdigest())
            db.execute(
                "INSERT INTO documents VALUES (?, ?, 1, 1, ?, ?, NULL, '', '{}', 1, 1, NULL)", row
            )
            db.execute(
                "INSERT INTO passages VALUES (?, ?, 0, 0, ?, 9, '')",
                (int(name) + 1, int(name) + 1, len(text)),
            )
            db.execute(
                "INSERT INTO passage_text (rowid, body) VALUES (?, ?)", (int(name) + 1, text)
            )
    return folder


def holds(folder: Path, texts: dict[str, str] = TEXTS, only: bool = False, **maker: str) -> None:
    """The folder opens, holds these documents, compresses what waits, and is well."""
    with open_with(folder, **maker, create=False) as memory:
        held = {d.id: d.text for d in memory.documents()}
        assert {n: t for n, t in held.items() if n in texts} == texts
        assert not only or held == texts
        memory.compress()
        assert [f for f in memory.check() if not f.ok] == []
        assert memory.search("word0007", 1, mode="text")[0].document.id == "7"
        assert memory.search(texts["7"], 1, mode="vector")[0].vector_score > 0.999


def after_forget(folder: Path, _: Path) -> None:
    """Either nothing has gone, or all ten, and then no byte of them is in any file of the
    memory.
    """
    for file in ("out.cmt", "copy.db"):
        (folder / file).unlink()
    with open_fake(folder, create=False) as memory:
        left = memory.count(scope="gone")
        assert left in (0, 10)
    holds(folder)
    if not left:
        assert [f.name for f in folder.iterdir() if b"entinel000" in f.read_bytes()] == []


def after_export(folder: Path, tmp_path: Path) -> None:
    """The archive under its name is whole."""
    with open_fake(tmp_path / "imported") as memory:
        memory.import_archive(folder / "out.cmt")
    holds(tmp_path / "imported")
    holds(folder)


def after_import(folder: Path, tmp_path: Path) -> None:
    """What came in is whole; importing again brings the rest."""
    with open_fake(folder) as memory:
        texts = TEXTS | {d.id: d.text for d in memory.documents()}
        assert all(texts[d.id] == d.text for d in memory.documents())
        memory.import_archive(tmp_path / "whole.cmt")
    holds(folder)


def after_reencode(folder: Path, _: Path) -> None:
    """It goes on where it was stopped."""
    with open_with(folder, OTHER) as memory:
        memory.reencode()
        assert memory.stats().pending == 0
        assert {f.encoder for f in memory._store.fingerprints()} == {OTHER}
    holds(folder, encoder=OTHER)


def after_recode(folder: Path, _: Path) -> None:
    """Where it was stopped every passage is read, of either kind; then it goes on."""
    with open_with(folder, codec=OTHER) as memory:
        assert {f.codec for f in memory._store.fingerprints()} <= {"", OTHER}
        assert memory.model.ask("word0007").text
        memory.reencode()
        assert memory.stats().pending == 0
        assert {f.codec for f in memory._store.fingerprints()} == {OTHER}
    holds(folder, codec=OTHER)


def after_move(folder: Path, _: Path) -> None:
    """Every passage is compressed or cold, is read, and the budget holds again."""
    with open_with(folder, memory_budget=MOVE_BUDGET) as memory:
        stats = memory.stats()
        assert (stats.pending, stats.compressed + stats.cold) == (0, stats.passages)
        for name in ("7", "39"):
            assert memory.ask(f"word{int(name):04}", k=1).sources[0].document_id == name
        assert memory.wait(60)
        memory.compress()
        assert memory.stats().memory_bytes <= MOVE_BUDGET
    holds(folder)


def after_backup(folder: Path, tmp_path: Path) -> None:
    """The copy under its name is whole."""
    (tmp_path / "restored").mkdir()
    (folder / "copy.db").rename(tmp_path / "restored" / "memory.db")
    holds(tmp_path / "restored")
    holds(folder)


def after_repair(folder: Path, _: Path) -> None:
    """A second repair ends what the first began, and what can be read is there."""
    cmt_sdk.repair(folder)
    with open_fake(folder, create=False) as memory:
        memory.finish_repair()
        texts = {d.id: d.text for d in memory.documents()}
        assert len(texts) > 40
        assert all(TEXTS.get(name, text) == text for name, text in texts.items())
        assert [f for f in memory.check() if not f.ok] == []


def filed(place: Path) -> None:
    """Twenty files that the memory of a place knows; some are moved since, edited on the way,
    emptied, or deleted.
    """
    files = place / "files"
    files.mkdir()
    for number in range(20):
        (files / f"{number}.md").write_text(
            f"File word{number:04} of the harbour. It has {number} boats and a crane."
        )
    with open_fake(place / "notes") as memory:
        documents = cmt_sdk.read_documents([files])
        memory.add_many(
            (replace(d, id=f"file{Path(d.source or '').stem}") for d in documents), replace=True
        )
    (files / "new").mkdir()
    for number in range(10):
        (files / f"{number}.md").rename(files / "new" / f"{number}.md")
    for number in range(5, 10):
        (files / "new" / f"{number}.md").write_text(
            f"File word{number:04} of the harbour. It has a crane and no boats."
        )
    for number in (10, 11):
        (files / f"{number}.md").write_text("")
    for number in (12, 13):
        (files / f"{number}.md").unlink()


def after_follow(folder: Path, place: Path) -> None:
    """No document is lost or doubled, and each is of one file; a second run ends what the first
    began.
    """
    left = [number for number in range(20) if number not in (10, 11, 12, 13)]
    with open_fake(folder, create=False) as memory:
        found = {d.id: d for d in memory.documents(source=f"{place}/files/*")}
        assert {f"file{number}" for number in left} <= found.keys()
        assert len({d.source for d in found.values()}) == len(found) <= 20
        Sync(memory, "", Silent(), lambda *_: True, remove=True, erase=True).run([place / "files"])
        found = {d.id: d for d in memory.documents(source=f"{place}/files/*")}
        assert found.keys() == {f"file{number}" for number in left}
        assert all(Path(d.source or "").read_text() == d.text for d in found.values())
    holds(folder)


AFTER: dict[str, Callable[[Path, Path], None]] = {
    "reindex": lambda folder, _: holds(folder),
    "forget": after_forget,
    "migrate": lambda folder, _: holds(folder, only=True),
    "export": after_export,
    "import": after_import,
    "reencode": after_reencode,
    "recode": after_recode,
    "move": after_move,
    "backup": after_backup,
    "repair": after_repair,
    "follow": after_follow,
}


def prepared(job: str, whole: Path, old: Path, place: Path) -> Path:
    """A folder for a job."""
    if job == "import":
        place.mkdir(parents=True)
        (place / "whole.cmt").write_bytes((whole / "out.cmt").read_bytes())
        return place / "notes"
    folder = copy(old if job == "migrate" else whole, place / "notes")
    if job == "follow":
        filed(place)
    if job == "repair":
        data = bytearray((folder / "memory.db").read_bytes())
        with closing(connect(whole / "memory.db", key_of(whole / "memory.db"))) as db:
            sql = "SELECT rootpage FROM sqlite_master WHERE name = 'by_document'"
            at = (db.execute(sql).fetchone()[0] - 1) * 4096
        data[at : at + 4096] = bytes(4096)
        (folder / "memory.db").write_bytes(data)
    return folder


def killed_in(
    job: str,
    rounds: int,
    zygote: Zygote,
    whole: Path,
    old: Path,
    tmp_path: Path,
    tally: Callable[..., None],
) -> None:
    """One undisturbed run tells how long it takes; then kills at any moment of it."""
    chance, took = random.Random(), 0.0
    for number in range(rounds + 1):
        place = tmp_path / f"{job} {number}"
        folder = prepared(job, whole, old, place)
        delay = chance.uniform(0, took) if number else None
        outcome = zygote(
            job,
            folder,
            tmp_path / "notes",
            delay=delay,
            archive=str(place / "whole.cmt"),
            files=str(place / "files"),
        )
        took = took or outcome["seconds"]
        assert outcome["code"] in ((0, -9) if number else (0,))
        AFTER[job](folder, place)
        tally(f"killed in {job}", rounds=int(outcome["code"] == -9), losses=0)


@pytest.mark.parametrize("job", AFTER)
def test_killed_in_one_operation(job, zygote, whole, old, tmp_path, tally):
    """Afterwards the memory opens, holds what it held, and the operation can be run again."""
    killed_in(job, 3, zygote, whole, old, tmp_path, tally)


@pytest.mark.slow
@pytest.mark.parametrize("job", AFTER)
def test_killed_in_one_operation_often(job, zygote, whole, old, tmp_path, tally):
    """As above, for long."""
    killed_in(job, 100 if job == "recode" else 40, zygote, whole, old, tmp_path, tally)


@pytest.mark.parametrize("job", ["forget", "reencode", "backup", "repair"])
def test_killed_in_one_operation_on_an_encrypted_memory(job, encrypted, old, tmp_path, tally):
    """As above: it is encrypted still, and so is the copy."""
    killed_in(job, 2, encrypted, filled(tmp_path / "whole", encrypted=True), old, tmp_path, tally)
    assert all(
        file.read_bytes()[:4] in (b"", b"CMTE") for file in tmp_path.glob(f"{job} */**/*.db")
    )
