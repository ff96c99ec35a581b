"""Stores and archives of every release so far open in this one; what a later release wrote is
refused and not touched.
"""

import hashlib
import json
import shutil
import sqlite3
import struct
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from cmt_sdk import __version__, repair
from cmt_sdk.errors import StorageNewer
from cmt_sdk.storage.blob import VERSION
from cmt_sdk.storage.schema import MIGRATIONS
from cmt_sdk.testing.fakes import open_fake
from tests.reliability.stores.make import expected

STORES = Path(__file__).parent / "stores"
RELEASES = sorted(p.name for p in STORES.iterdir() if (p / "expected.json").is_file())


@pytest.fixture(params=RELEASES)
def release(request, tmp_path):
    """A copy of what a release left."""
    return Path(shutil.copytree(STORES / request.param, tmp_path / request.param))


def told(release):
    """What the release said that its store holds. Its fake model put the heading before the
    sentence that it answered with.
    """
    said = json.loads((release / "expected.json").read_text(encoding="utf-8"))
    said["answers"] = {
        q: [text.removeprefix("Museum "), name] for q, (text, name) in said["answers"].items()
    }
    return said


def hashes(folder):
    """Every file with the hash of its bytes."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def test_this_release_left_a_store():
    """Made by tests/reliability/stores/make.py: a release without one promises nothing to the
    next.
    """
    assert __version__ in RELEASES


def test_a_store_of_an_earlier_release_opens_whole(release):
    """Every document in all versions, passages, embeddings, answers; and all is well with it."""
    with open_fake(release / "notes", create=False) as memory:
        before = hashes(release / "notes")["memory.db"]
        assert {f.check: f.detail for f in memory.check() if not f.ok} == {}
        assert memory.get("waiting").ready is False
        memory.compress()
        assert memory.settings.passage_tokens == 64
        assert json.loads(json.dumps(expected(memory))) == told(release)
    assert hashes(STORES / release.name / "notes")["memory.db"] == before


def test_an_earlier_release_had_no_hash_of_a_record(release):
    """Bringing its store up to date seals what is there, and so does repair where it is damaged: a
    bit lost later is found.
    """
    database = release / "notes" / "memory.db"
    with closing(sqlite3.connect(database)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_time'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    shutil.copytree(release / "notes", release / "hurt")
    with (release / "hurt" / "memory.db").open("r+b") as data:
        data.seek((root - 1) * size)
        data.write(bytes(size))
    assert "database" in [f.check for f in repair(release / "hurt")]
    open_fake(release / "notes", create=False).close()
    for folder in (release / "notes", release / "hurt"):
        with open_fake(folder, create=False) as memory:
            memory.finish_repair()
            assert {f.check: f.detail for f in memory.check() if not f.ok} == {}
            with closing(sqlite3.connect(folder / "memory.db")) as db, db:
                db.execute(
                    "UPDATE documents SET metadata = replace(metadata, '0.5', '0.7') WHERE doc_id ="
                    " 'museum'"
                )
            assert [(f.check, "museum" in f.detail) for f in memory.check() if not f.ok] == [
                ("records", True)
            ]


def test_work_goes_on_in_a_store_of_an_earlier_release(release):
    """Adding, changing, forgetting, indexing anew, exporting."""
    with open_fake(release / "notes", create=False) as memory:
        memory.add("The library is in Coimbra.", id="library")
        memory.update("museum", "The museum moved to Braga.")
        assert memory.forget("harbour").traces_found == 0
        memory.reindex()
        assert memory.model.ask("Where is the library?").text == "The library is in Coimbra."
        assert (
            memory.export(release / "again.cmt")
            == memory.count()
            == len(told(release)["histories"])
        )
        assert {f.check: f.detail for f in memory.check() if not f.ok} == {}


def test_an_archive_of_an_earlier_release_comes_in(release, tmp_path):
    """Cut as today: documents carry their titles, and the memories of those that had none are made
    again.
    """
    with open_fake(tmp_path / "new", exact_limit=0, passage_tokens=64) as memory:
        progress = memory.import_archive(release / "all.cmt")
        assert progress.added == len(told(release)["histories"])
        found = json.loads(json.dumps(expected(memory)))
        assert [found[k] for k in ("histories", "answers")] == [
            told(release)[k] for k in ("histories", "answers")
        ]
        titles = {"museum": "Museum", "waiting": ""}
        for name, passages in found["passages"].items():
            assert {p["heading"] for p in passages} == {titles.get(name, name)}
            words = " ".join(p["text"] for p in told(release)["passages"][name]).split()
            assert " ".join(p["text"] for p in passages).split() == words
        assert {f.check: f.detail for f in memory.check() if not f.ok} == {}


@pytest.mark.parametrize("newer", [len(MIGRATIONS) + 1, 999])
def test_a_store_of_a_later_release_is_refused_and_not_touched(release, newer):
    """Not a byte of any file changes, and none comes or goes: the later release finds what it
    left.
    """
    folder = release / "notes"
    with closing(sqlite3.connect(folder / "memory.db")) as db:
        db.execute(f"PRAGMA user_version = {newer}")
    before = hashes(folder)
    for create in (True, False):
        with pytest.raises(
            StorageNewer,
            match=rf"schema {newer}, this release .* up to {len(MIGRATIONS)}: update cmt-sdk",
        ):
            open_fake(folder, create=create)
        assert hashes(folder) == before


def test_memories_of_a_later_format_are_refused_and_kept(release):
    """One memory in a format to come: reading it names the remedy, and does not make it anew over
    the later one.
    """
    folder = release / "notes"
    with closing(sqlite3.connect(folder / "memory.db")) as db:
        row, data = db.execute(
            "SELECT passage_id, data FROM memories ORDER BY passage_id LIMIT 1"
        ).fetchone()
        later = data[:4] + struct.pack("<H", VERSION + 1) + data[6:]
        db.execute("UPDATE memories SET data = ? WHERE passage_id = ?", (later, row))
        db.commit()
        with (
            open_fake(folder, create=False) as memory,
            pytest.raises(StorageNewer, match=rf"format {VERSION + 1}.* update cmt-sdk"),
        ):
            memory._store.load([row], memory.fingerprint)
        assert db.execute("SELECT data FROM memories WHERE passage_id = ?", (row,)).fetchone() == (
            later,
        )


def test_an_archive_of_a_later_release_changes_nothing(release, tmp_path):
    """Its manifest is read first: nothing of it is stored."""
    with zipfile.ZipFile(release / "all.cmt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["manifest.json"] = json.dumps(
        json.loads(members["manifest.json"]) | {"format": 99}
    ).encode()
    with zipfile.ZipFile(tmp_path / "later.cmt", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with open_fake(tmp_path / "new") as memory:
        with pytest.raises(StorageNewer, match="format 99, this release reads up to 2"):
            memory.import_archive(tmp_path / "later.cmt")
        assert memory.stats().versions == 0
