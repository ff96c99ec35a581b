"""Files: their owner's alone, and after forgetting without a byte of a document's text, memory or
embedding.
"""

import os
import shutil
import stat

import pytest

from cmt_sdk.testing.fakes import FakeEngine, open_fake
from tests.marked import Marked

TOLD = "Wilhelmina keeps the zanzibarquartz."
NEWER = "Wilhelmina gave the mongolfierplum away."


def traces(folder, texts, made):
    """Which of the texts, memories and keys have a piece in any file; read only while no memory is
    open in this process.
    """
    everything = b"".join(f.read_bytes() for f in sorted(folder.iterdir()))
    found = [
        f"text: {w}"
        for t in texts
        for w in t.split()
        if len(w) > 8 and w.encode().lower() in everything.lower()
    ]
    for text in texts:
        content = next(c for c in made if c.endswith(text))  # below its title
        for kind, data in zip(("memory", "key"), made[content], strict=True):
            pieces = {data[at : at + 8] for at in range(0, len(data) - 7, 4)}
            found += [f"{kind} of {text}"] if any(piece in everything for piece in pieces) else []
    return found


def test_forgetting_takes_text_memory_and_key_out_of_every_file(tmp_path):
    """With a graph on disk, an older one that somebody kept, an earlier version, a log, and a
    second handle on the folder.
    """
    folder, engine = tmp_path / "notes", FakeEngine(Marked())
    with (
        open_fake(folder, engine, exact_limit=0) as memory,
        open_fake(folder, engine, exact_limit=0) as second,
    ):
        memory.add_many([f"Fact {n} of the quarterly report." for n in range(40)])
        secret = memory.add(TOLD, source="geheimakte.md")
        assert "hnsw" in memory.reindex()
        (old,) = folder.glob("index-*.hnsw")
        shutil.copy(old, tmp_path / "kept")
        memory.update(secret.id, NEWER)
        memory.reindex()
        shutil.copy(tmp_path / "kept", folder / old.name)
        assert second.count() == 41
    assert len(traces(folder, [NEWER], engine.compressor.made)) > 2  # the scan sees what is there
    with (
        open_fake(folder, engine, exact_limit=0) as memory,
        open_fake(folder, engine, exact_limit=0) as second,
    ):
        second.search("report")
        receipt = memory.forget(secret.id)
        assert (receipt.complete, receipt.traces_found, receipt.versions) == (True, 0, 2)
        second.search("report")
        with os.scandir(folder) as entries:
            assert {e.name for e in entries} <= {
                *receipt.files_scanned,
                "memory.claims",
                *(f.name for f in folder.glob("index-*")),
            }
        copy = tmp_path / "while open"
        shutil.copytree(folder, copy)
    assert traces(folder, [TOLD, NEWER], engine.compressor.made) == []
    assert traces(copy, [TOLD, NEWER], engine.compressor.made) == []
    with open_fake(folder, engine) as memory:
        assert memory.count() == 40


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps files to their owner by other means")
def test_what_is_remembered_is_its_owners_alone(tmp_path):
    """Folder 0700, every file in it 0600, archives and backups too, whatever the umask lets
    through.
    """
    before = os.umask(0)
    try:
        with open_fake(tmp_path / "data_dir" / "notes", exact_limit=0) as memory:
            memory.add_many([TOLD, NEWER])
            memory.reindex()
            memory.search("zanzibarquartz")
            memory.export(tmp_path / "all.cmt")
            kinds = {f.suffix: stat.S_IMODE(f.stat().st_mode) for f in memory.path.iterdir()}
            mode = stat.S_IMODE(memory.path.stat().st_mode)
            memory.forget(source="nobody")
            after = {stat.S_IMODE(f.stat().st_mode) for f in memory.path.iterdir()}
            memory.backup(tmp_path / "copy.db")
            memory.backup(tmp_path / "copy")
    finally:
        os.umask(before)
    assert {".db", ".db-wal", ".db-shm", ".hnsw"} <= set(kinds)
    assert (mode, set(kinds.values()), after) == (0o700, {0o600}, {0o600})
    assert stat.S_IMODE((tmp_path / "all.cmt").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "copy").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
