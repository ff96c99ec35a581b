"""What bounded word search loses: python examples/benchmarks/words.py QUESTIONS [TEXTS].

QUESTIONS has lines of JSON with `question` and `context`, as squad_dev_tail.jsonl.gz; TEXTS has
more passages, lines with `text`. Words alone are searched, by scoring every row and by scoring
those of the rarest words. `--rows` sets how many: 320 of 8,000 passages are as 4,000 of 100,000.
Loads no model.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cmt_sdk import Document
from cmt_sdk.storage import full_text
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.types import Filter, Span

EVERY = 10**9
LIMIT = 50


def lines(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    with gzip.open(file, "rt", encoding="utf-8") as text:
        yield from map(json.loads, text)


def fill(store: SQLiteStore, texts: Sequence[str]) -> dict[str, int]:
    """Store each text as a document of one passage; the passages' ids by text."""
    for first in range(0, len(texts), 1000):
        store.add_together(
            [
                (Document(t, id=f"{first + n}"), [Span(0, len(t), 1)])
                for n, t in enumerate(texts[first : first + 1000])
            ]
        )
    return {p.content: p.id for p in store.pending(len(texts))}


def searched(
    store: SQLiteStore, questions: Sequence[str], rows: int
) -> tuple[list[list[int]], float]:
    """The passages found for each question, best first, and the CPU time in milliseconds."""
    full_text.ROWS = rows
    began = time.process_time()
    found = [[h.passage_id for h in store.search_text(q, LIMIT, Filter())] for q in questions]
    return found, 1000 * (time.process_time() - began) / len(questions)


def main() -> None:
    """Fill a store, ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=Path)
    parser.add_argument("texts", type=Path, nargs="?")
    parser.add_argument("--passages", type=int, default=8_000)
    parser.add_argument("--asked", type=int, default=600)
    parser.add_argument("--rows", type=int, default=320)
    given = parser.parse_args()
    rows = list(lines(given.questions))
    texts = dict.fromkeys(row["context"] for row in rows)
    more = (row["text"] for row in lines(given.texts)) if given.texts else iter(())
    texts |= dict.fromkeys(islice(more, max(0, given.passages - len(texts))))
    asked = rows[:: max(1, len(rows) // given.asked)][: given.asked]
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder))
        ids = fill(store, list(texts))
        gold = [ids.get(row["context"]) for row in asked]
        questions = [row["question"] for row in asked]
        every, slow = searched(store, questions, EVERY)
        bounded, fast = searched(store, questions, given.rows)
        store.close()
    print(f"{len(ids):,} passages, {len(asked)} questions\n")
    print(
        "| rows scored | recall@1 | @5 | @10 | @50 | first ten shared | CPU, ms |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, found, spent in (("every", every, slow), (f"{given.rows:,}", bounded, fast)):
        recalls = [
            100 * sum(g in f[:k] for g, f in zip(gold, found, strict=True)) / len(gold)
            for k in (1, 5, 10, LIMIT)
        ]
        shared = [
            len(set(a[:10]) & set(b[:10])) / max(1, len(a[:10]))
            for a, b in zip(every, found, strict=True)
        ]
        figures = " | ".join(f"{r:.1f}" for r in recalls)
        print(f"| {name} | {figures} | {100 * sum(shared) / len(shared):.1f} % | {spent:.1f} |")


if __name__ == "__main__":
    main()
