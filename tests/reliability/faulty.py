"""A short piece of work, again and again; each time another call to the operating system fails (see
faults.c).

Run as a program with faults.c loaded before the C library: WORK CALL ERRNO STICKY STRIDE FOLDER.
Prints a line of JSON: how many faults happened, and what was wrong afterwards.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmt_sdk.errors import CMTError
from cmt_sdk.testing.fakes import open_fake
from cmt_sdk.types import Document

CALLS = {"write": 1, "fsync": 2, "rename": 3, "open": 4, "allocation": 5}
TEXTS = {str(n): f"Fact word{n:04} of the museum. It has {n} rooms." for n in range(6)}
INDEXED = ("forget", "reindex")  # the others do without the processes that prove an index file
MOST = 20_000  # calls of one kind: beyond, the work is not short

faults = ctypes.CDLL(None)


class Book:
    """What a memory must hold: a text, or one of two where a call failed."""

    def __init__(self) -> None:
        self.may: dict[str, set[str | None]] = {name: {text} for name, text in TEXTS.items()}
        self.failed = 0

    def did(self, name: str, text: str | None, call: Callable[[], object]) -> None:
        """Note the outcome of a call that gives a document this text; MemoryError is Python's own
        word for it.
        """
        try:
            call()
        except (CMTError, MemoryError):
            self.failed += 1
            self.may[name] = self.may.get(name, {None}) | {text}
        else:
            self.may[name] = {text}


def work_documents(memory: Any, book: Book, _: Path) -> None:
    """Add, update, change in place, delete."""
    book.did(
        "new", "A new one about Genoa.", lambda: memory.add("A new one about Genoa.", id="new")
    )
    book.did("1", "Another text of one.", lambda: memory.update("1", "Another text of one."))
    book.did("2", TEXTS["2"], lambda: memory.update("2", metadata={"n": 2}))
    book.did("3", None, lambda: memory.delete("3"))
    book.did("last", "The last one.", lambda: memory.add("The last one.", id="last"))


def work_forget(memory: Any, book: Book, _: Path) -> None:
    """Erase one."""
    book.did("4", None, lambda: memory.forget("4"))


def work_reindex(memory: Any, book: Book, _: Path) -> None:
    """Write an index file."""
    book.did("5", TEXTS["5"], memory.reindex)


def work_export(memory: Any, book: Book, folder: Path) -> None:
    """Write an archive, which is whole or not there."""
    book.did("5", TEXTS["5"], lambda: memory.export(folder / "out.cmt"))


def work_backup(memory: Any, book: Book, folder: Path) -> None:
    """Write a copy, which is whole or not there."""
    book.did("5", TEXTS["5"], lambda: memory.backup(folder / "copy"))


def work_import(memory: Any, book: Book, folder: Path) -> None:
    """Take in one more document."""
    book.did("in", "The one from outside.", lambda: memory.import_archive(folder / "in.cmt"))


WORK = {name[5:]: work for name, work in list(globals().items()) if name.startswith("work_")}


def template(folder: Path) -> Path:
    """A memory of six documents with an index file, and an archive of one document."""
    with open_fake(folder / "other") as other:
        other.add("The one from outside.", id="in")
        other.export(folder / "in.cmt")
    with open_fake(folder / "template", exact_limit=2) as memory:
        memory.add_many(Document(text, id=name) for name, text in TEXTS.items())
        memory.reindex()
    shutil.move(folder / "in.cmt", folder / "template" / "in.cmt")
    return folder / "template"


@contextmanager
def failing(call: str, nth: int, error: int, sticky: bool, folder: Path) -> Iterator[None]:
    """Within the block the nth call fails."""
    faults.fault_arm(CALLS[call], ctypes.c_long(nth), error, int(sticky), str(folder).encode())
    try:
        yield
    finally:
        faults.fault_arm(0, ctypes.c_long(0), 0, 0, str(folder).encode())


def wrong(folder: Path, book: Book) -> list[str]:
    """What a folder does not hold that it must; it goes on working, too."""
    found = []
    with open_fake(folder, create=False, exact_limit=1000) as memory:
        held = {d.id: d.text for d in memory.documents()}
        for name, may in book.may.items():
            if held.get(name) not in may:
                found.append(f"{name}: {held.get(name)!r} instead of {may}")
        found += [f"{name} came from nowhere" for name in held if name not in book.may]
        memory.finish_repair()
        found += [str(f) for f in memory.check() if not f.ok]
        memory.add("It goes on.")
        if memory.search("goes", 1, mode="text")[0].document.text != "It goes on.":
            found.append("what was added afterwards is not found")
    if (folder / "out.cmt").exists():
        with open_fake(folder / "of archive") as memory:
            memory.import_archive(folder / "out.cmt")
            found += ["the archive is not whole"] if memory.count() < len(TEXTS) - 1 else []
    if (folder / "copy" / "memory.db").exists():
        with open_fake(folder / "copy") as memory:
            found += ["the copy is not whole"] if memory.count() < len(TEXTS) - 1 else []
    return found


def once(
    work: str, call: str, nth: int, error: int, sticky: bool, folder: Path
) -> tuple[int, list[str]]:
    """One fault: how often it struck, and what was wrong afterwards."""
    book = Book()
    fired = 0
    try:
        memory = open_fake(folder, create=False, exact_limit=2 if work in INDEXED else 1000)
        try:
            with failing(call, nth, error, sticky, folder):
                WORK[work](memory, book, folder)
                fired = faults.fault_fired()
        finally:
            memory.close()
        return fired, wrong(folder, book)
    except Exception as raised:  # noqa: BLE001 - an error that is not ours is what the test looks for
        return max(fired, 1), [repr(raised)]


def main() -> None:
    """Every stride-th fault until the work meets none any more."""
    work, call, error, sticky, stride, place = sys.argv[1:]
    whole = template(Path(place))
    count, bad, nth = 0, list[str](), 1
    while nth < MOST:
        folder = Path(place) / "run"
        shutil.copytree(whole, folder)
        fired, found = once(work, call, nth, int(error), sticky == "1", folder)
        shutil.rmtree(folder)
        if not fired:
            break
        count += 1
        bad += [f"{work}, {call} {nth}: {f}" for f in found]
        nth += int(stride)
    sys.stdout.write(
        json.dumps({"faults": count, "wrong": bad, "knows_sqlite": faults.fault_knows_sqlite()})
        + "\n"
    )


if __name__ == "__main__":
    main()
