"""Those who use one memory at once: writers, a reader, a compactor, an indexer. Each returns what
must hold afterwards.

Run as a program: ROLE NUMBER SECONDS FOLDER, or `fork` or `backlog` and FOLDER; prints what the
role returns, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmt_sdk.errors import DocumentNotFound
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake
from cmt_sdk.types import Document, Encoded

WRITERS = 2
ANCHORS = {
    f"anchor {n}": f"Anchor {n} of the harbour lies at berth {n * 7919 % 10007}." for n in range(40)
}


def begin(folder: Path) -> None:
    """The documents that nobody changes, and one for each writer."""
    with open_fake(folder, exact_limit=20) as memory:
        memory.add_many(Document(text, id=name) for name, text in ANCHORS.items())
        memory.add_many(Document(sentence(n, 0), id=f"writer {n}") for n in range(WRITERS))


def sentence(writer: int, count: int) -> str:
    """A text that says its number twice: one that was torn would show."""
    return f"Writer {writer} wrote {count}. And {count} again."


def writer(memory: Any, number: int, until: float) -> dict[str, Any]:
    """Update one document, add and delete others."""
    count, extras = 0, list[str]()
    while time.monotonic() < until:
        count += 1
        memory.update(f"writer {number}", sentence(number, count), wait=count % 2 == 0)
        extras.append(memory.add(f"Extra {count} of writer {number}.", scope=f"extra/{number}").id)
        if len(extras) > 5:
            memory.delete(extras.pop(0))
    return {"count": count, "extras": extras}


def reader(memory: Any, number: int, until: float) -> dict[str, Any]:
    """What is read is whole, and never older than what was read before."""
    seen, calls = [0] * WRITERS, 0
    while time.monotonic() < until:
        calls += 1
        for n in range(WRITERS):
            text = memory.get(f"writer {n}").text
            count = int(text.split()[-2])
            assert text == sentence(n, count), text
            assert count >= seen[n], (count, seen[n])
            seen[n] = count
        name = f"anchor {calls % len(ANCHORS)}"
        match = memory.search(ANCHORS[name], 1, mode="vector")[0]
        # of 64 hashed values: not every anchor has its own
        assert match.vector_score > 0.999, match
        assert memory.search(f"berth {name}", 5, mode="text")
        for match in memory.search("extra of a writer", 5):
            try:
                assert memory.get(match.document.id).text.startswith(match.document.text[:5])
            except DocumentNotFound:
                continue  # deleted in this moment
    return {"calls": calls}


def compactor(memory: Any, number: int, until: float) -> dict[str, Any]:
    """What is forgotten leaves no trace, unless somebody reads the state before."""
    forgotten = complete = 0
    while time.monotonic() < until:
        memory.add_many(
            Document(f"Wreckage{forgotten}x{n} on the beach.", scope="trash") for n in range(2)
        )
        receipt = memory.forget(scope="trash")
        assert len(receipt.documents) == 2
        assert receipt.traces_found == 0 or not receipt.complete
        forgotten, complete = forgotten + 1, complete + receipt.complete
    return {"forgotten": forgotten, "complete": complete}


def indexer(memory: Any, number: int, until: float) -> dict[str, Any]:
    """Write the index anew, and find everything through it."""
    rounds = 0
    while time.monotonic() < until:
        memory.reindex()
        rounds += 1
        for text in list(ANCHORS.values())[:10]:
            match = memory.search(text, 1, mode="vector")[0]
            assert match.vector_score > 0.999, match
    return {"rounds": rounds}


ROLES: dict[str, Callable[[Any, int, float], dict[str, Any]]] = {
    f.__name__: f for f in (writer, reader, compactor, indexer)
}
CAST = [*(("writer", n) for n in range(WRITERS)), ("reader", 0), ("compactor", 0), ("indexer", 0)]


class Slow(FakeCompressor):
    """Takes its time, and writes down what it did."""

    def compress(self, texts: Any) -> list[Encoded]:
        """A text a hundredth of a second."""
        time.sleep(0.01 * len(texts))
        return super().compress(texts)


def backlog(folder: Path) -> dict[str, Any]:
    """Compress what waits, once another is ready too."""
    engine = FakeEngine(Slow())
    with open_fake(folder, engine) as memory:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        memory.compress()
        return {"pending": memory.stats().pending, "compressed": engine.compressor.compressed}


def fork(folder: Path) -> dict[str, Any]:
    """Parent and child go on with a memory that was open before the fork, and with one opened after
    it.
    """
    memory = open_fake(folder)
    memory.add("Before the fork.", wait=False)
    memory.wait()
    child = os.fork()
    me = "parent" if child else "child"
    with open_fake(folder) as another:
        for n in range(15):
            memory.add(f"Fact {n} of the {me}.", wait=False)
            another.add(f"Other fact {n} of the {me}.")
            assert memory.search(f"fact {me}", 50, mode="text")
    assert memory.wait(30)
    if child:
        memory.close()  # while the child still writes
        _, status = os.waitpid(child, 0)
        return {"child": os.waitstatus_to_exitcode(status)}
    for n in range(10):
        memory.add(f"Late fact {n} of the child.")
    memory.close()
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """One role, in this process."""
    role, *rest = sys.argv[1:]
    if role in ("backlog", "fork"):
        said = {"backlog": backlog, "fork": fork}[role](Path(rest[0]))
    else:
        number, seconds, folder = int(rest[0]), float(rest[1]), Path(rest[2])
        with open_fake(folder, create=False) as memory:
            said = ROLES[role](memory, number, time.monotonic() + seconds)
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
