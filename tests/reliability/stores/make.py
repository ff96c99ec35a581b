"""Make the store that this release leaves to later ones: python tests/reliability/stores/make.py;
once a release, never again.

A folder named after the release gets `notes/` (a memory as a closed process leaves it), `all.cmt`
(its archive), `expected.json`.
"""

import json
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from cmt_sdk import Document, Memory, __version__
from cmt_sdk.testing.fakes import open_fake
from cmt_sdk.types import Vector

FACTS = {
    "museum": "# Museum\n\nThe museum moved to Lisbon in 2019.\n\nIts director is Marta Quintela.",
    "harbour": (
        "The harbour of Genoa opens at nine in the morning. It was built by the Doria family."
    ),
    "tea": "Ann likes green tea with ginger. She drinks it cold, from a blue cup.",
    "odd": "Ünïcode – 漢字 🙂, a tab\tand a quote ' \" in one line.",
    "boat": "The boat Esmeralda lies in Porto.",
    "long": " ".join(f"Sentence {n} of the long report speaks of town {n}." for n in range(60)),
}
QUESTIONS = ("Where did the museum move?", "Who likes green tea?", "Where does the boat lie?")
LAST = datetime(9999, 1, 1, tzinfo=UTC)


def fill(memory: Memory) -> None:
    """Documents with histories, scopes, metadata of every kind and an expiry far off; one that
    waits, one that went cold.
    """
    kinds = {
        "text": "ü ' \"",
        "whole": 2**63 - 1,
        "real": 0.5,
        "true": True,
        "none": None,
        "a key": -1,
    }
    for number, (name, text) in enumerate(FACTS.items()):
        memory.add(
            text,
            id=name,
            source=f"{name}.md",
            scope=f"user/{'ann' if number % 2 else 'bob'}/s",
            metadata=kinds | {"n": number},
        )
    memory.update("boat", "The boat Esmeralda lies in Lisbon.")
    memory.update("boat", "The boat Esmeralda lies in Faro.", metadata={"moved": 2})
    memory.update("tea", expires_at=LAST)
    memory.delete(memory.add("Gone before the release.").id)
    memory.forget(memory.add("Forgotten before the release.").id)
    memory.reindex()
    memory.add_many([Document("This one waits for its memory.", id="waiting")], compress=False)
    memory._store.evict(memory.stats().memory_bytes - 1)  # the one read longest ago


def expected(memory: Memory) -> dict[str, object]:
    """What a later release must find, as JSON. Of what is found only the first: what comes after it
    may be found better later.
    """
    histories = {
        d.id: [_plain(asdict(v)) for v in memory.history(d.id)] for d in memory.documents()
    }
    answers = {
        q: [memory.model.ask(q).text, memory.search(q, k=1)[0].document.id] for q in QUESTIONS
    }
    passages = {
        name: [_plain(asdict(replace(p, id=0))) for p in memory.passages(name)]
        for name in histories
    }
    return {
        "histories": histories,
        "passages": passages,
        "answers": answers,
        "keys": _rounded(memory.embeddings().matrix),
    }


def _plain(row: dict[str, object]) -> dict[str, object]:
    """Whether something is compressed yet depends on who asked before."""
    return {
        k: v.isoformat() if isinstance(v, datetime) else v
        for k, v in row.items()
        if k not in ("ready", "fidelity")
    }


def _rounded(matrix: Vector) -> list[float]:
    """The sum of each embedding's values: enough to see that it is the same."""
    return sorted(round(float(s), 4) for s in matrix.sum(1))


def main() -> None:
    """Write the folder of this release."""
    home = Path(__file__).parent / __version__
    if home.exists():
        sys.exit(f"{home} is there: what a release left is never changed")
    with open_fake(home / "notes", exact_limit=0, passage_tokens=64) as memory:
        fill(memory)
        memory.export(home / "all.cmt")
    with open_fake(home / "copy", exact_limit=0, passage_tokens=64) as copy:
        copy.import_archive(home / "all.cmt")
        said = expected(copy)
    for file in (home / "copy").iterdir():
        file.unlink()
    (home / "copy").rmdir()
    (home / "notes" / "memory.lock").unlink(missing_ok=True)  # says nothing
    (home / "expected.json").write_text(
        json.dumps(said, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
