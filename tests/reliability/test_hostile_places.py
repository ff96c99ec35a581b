"""Files of a memory in a place that others prepared: rights, links, folders; and the copies that a
receipt names.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import cmt_sdk
from cmt_sdk.errors import StorageDenied
from cmt_sdk.testing.fakes import open_fake

TOLD = "Wilhelmina keeps the zanzibarquartz."
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of users are POSIX'")


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


@posix
@pytest.mark.parametrize(
    "name", ["memory.db", "memory.db-wal", "memory.db-shm", "memory.lock", "index-1-aaaaaaaa.hnsw"]
)
def test_a_file_that_was_there_before_becomes_the_owners_alone(tmp_path: Path, name: str) -> None:
    """Whichever file of a memory it is, empty and open to all."""
    (tmp_path / name).touch()
    (tmp_path / name).chmod(0o666)
    with open_fake(tmp_path) as memory:
        memory.add(TOLD)
        assert modes(tmp_path) == {0o600}
    assert modes(tmp_path) == {0o600}


@posix
def test_a_memory_that_was_opened_to_others_is_closed_again(tmp_path: Path) -> None:
    """At its next opening; what else lies in the folder stays as it is."""
    with open_fake(tmp_path / "m") as memory:
        memory.add(TOLD)
    (tmp_path / "m" / "memory.db").chmod(0o664)
    (tmp_path / "m" / "mine.txt").touch()
    (tmp_path / "m" / "mine.txt").chmod(0o644)
    with open_fake(tmp_path / "m"):
        pass
    assert stat.S_IMODE((tmp_path / "m" / "memory.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "m" / "mine.txt").stat().st_mode) == 0o644


@pytest.mark.parametrize("name", ["memory.db", "memory.db-wal", "memory.db-shm", "memory.lock"])
@pytest.mark.parametrize("leads", ["to a file", "nowhere", "to a memory"])
def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path, name: str, leads: str) -> None:
    """With the remedy; what it leads to is not touched."""
    target, folder = tmp_path / "elsewhere", tmp_path / "m"
    folder.mkdir()
    if leads == "to a file":
        target.write_bytes(b"")
    elif leads == "to a memory":
        with open_fake(tmp_path / "other") as memory:
            memory.add("Other.")
        target = tmp_path / "other" / "memory.db"
    (folder / name).symlink_to(target)
    before = target.read_bytes() if target.exists() else None
    with pytest.raises(StorageDenied, match=rf"{name} is a link, .*: delete it"):
        open_fake(folder)
    assert (target.read_bytes() if target.exists() else None) == before


@posix
def test_new_folders_above_a_memory_are_their_owners_alone(tmp_path: Path) -> None:
    """Three of them, under a umask that lets everything through; the one that was there keeps its
    mode.
    """
    before = os.umask(0)
    try:
        (tmp_path / "there").mkdir(0o755)
        with open_fake(tmp_path / "there" / "a" / "b" / "c") as memory:
            memory.add(TOLD)
    finally:
        os.umask(before)
    made = [tmp_path / "there" / path for path in ("a", "a/b", "a/b/c")]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700] * 3
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o755


def test_a_receipt_names_the_copies_that_were_made(tmp_path: Path) -> None:
    """A backup folder, a backup file, an archive; not one that is gone; and a check-up names them
    too.
    """
    with open_fake(tmp_path / "m") as memory:
        document = memory.add(TOLD)
        assert memory.forget(memory.add("Other.").id).copies == []
        memory.backup(tmp_path / "folder")
        memory.backup(tmp_path / "file.db")
        memory.export(tmp_path / "all.cmt")
        memory.export(tmp_path / "gone.cmt")
        memory.export(tmp_path / "all.cmt", overwrite=True)
        (tmp_path / "gone.cmt").unlink()
        receipt = memory.forget(document.id)
        found = next(f for f in memory.check() if f.check == "copies")
    assert set(receipt.copies) == {
        str(tmp_path / name) for name in ("folder/memory.db", "file.db", "all.cmt")
    }
    assert receipt.traces_found == 0
    assert found.ok
    assert "3 that hold what the memory held then" in found.detail
    assert "delete each" in found.remedy


def test_what_a_repair_laid_aside_is_named(tmp_path: Path) -> None:
    """By the receipt and by the check-up, as long as it is there."""
    with open_fake(tmp_path / "m") as memory:
        document = memory.add(TOLD)
        for number in range(200):
            memory.add(f"Fact {number}. " * 20)
    with (tmp_path / "m" / "memory.db").open("r+b") as data:
        data.seek(40 * 4096)
        data.write(b"\0" * 4096)
    assert any(f.check == "backup" for f in cmt_sdk.repair(tmp_path / "m"))
    with open_fake(tmp_path / "m") as memory:
        memory.finish_repair()
        (copy,) = (
            memory.forget(document.id).copies
            if memory.ids(document.id)
            else memory.forget(scope="").copies
        )
        assert "m-before-repair-" in copy
        assert copy in next(f for f in memory.check() if f.check == "copies").detail


def test_the_command_names_them(cmt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """On the terminal and in JSON, with what to do."""
    cmt("add", "--text", TOLD, "--source", "w")
    cmt("backup", tmp_path / "copy")
    done = cmt("forget", "w", "--yes").stdout
    assert (
        f"copies made earlier may still hold it: {tmp_path / 'copy' / 'memory.db'}; delete each"
        in done
    )
    cmt("add", "--text", TOLD, "--source", "w")
    assert cmt.json("forget", "w", "--yes")["copies"] == [str(tmp_path / "copy" / "memory.db")]
    assert "copies" in cmt("check", code=None).stdout
