"""How much text comes back out of a memory: python examples/benchmarks/recovery.py --out
examples/benchmarks/recovery.md.

The attacker has the stored memory and the model, not the text. The bare model is asked to repeat
the notes and decodes greedily; it counts the passage's words that come out in
their order, next to those that the memory of another passage gives: chance.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from tempfile import TemporaryDirectory

import cmt_sdk
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.reader import Reading, TorchReader
from cmt_sdk.reading.decoding import decode
from cmt_sdk.reading.limits import NON_BEST_BIAS
from cmt_sdk.text.prompt_messages import REPEAT
from cmt_sdk.types import CompressedPassage

DOCUMENTS = Path(__file__).parent.parent / "documents"
KEEPS = (1.0, 0.25, 0.125)


def passages(memory: cmt_sdk.Memory, count: int) -> list[str]:
    """The second passage of each of the first documents: full sentences, no heading alone."""
    memory.add_many(sorted(DOCUMENTS.iterdir())[:count], compress=False)
    return [memory.passages(d.id)[1].content for d in memory.documents()]


def repeated(reader: TorchReader, memory: CompressedPassage) -> str:
    """The reply of the bare model that is asked to repeat the notes of this memory."""
    cue = reader.lm.ids(REPEAT)
    cache = reader.method.cache([[memory]], room=len(cue) + memory.tokens, bias=NON_BEST_BIAS)
    reading = Reading("bare", cue, cache.starts[0], cache)
    opened = reader.open_prompt(reading)
    pieces = decode(reader.lm, opened, memory.tokens, time.perf_counter())
    return "".join(piece.text for piece in pieces)


def recovered(text: str, reply: str) -> float:
    """The share of a text's words that the reply holds, in their order."""
    words, others = (re.findall(r"\w+", t.lower()) for t in (text, reply))
    return sum(
        b.size for b in SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    ) / len(words)


def row(keep: float, texts: Sequence[str], replies: Sequence[str]) -> str:
    """A line of the table: the median, the least, the most, and chance."""
    shares = [recovered(t, s) for t, s in zip(texts, replies, strict=True)]
    chance = statistics.mean(
        recovered(t, s) for t, s in zip(texts, [*replies[1:], replies[0]], strict=True)
    )
    return (
        f"| {keep:g} | {statistics.median(shares):.0%} | {min(shares):.0%} to {max(shares):.0%} |"
        f" {chance:.0%} |"
    )


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--passages", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=96, help="of the longest passage")
    given = parser.parse_args()
    with (
        TemporaryDirectory() as folder,
        cmt_sdk.open(folder, passage_tokens=given.tokens) as memory,
    ):
        texts = passages(memory, given.passages)
        engine = memory._engine
        rotary = engine._method.rotary  # type: ignore[attr-defined]
        lines = [
            "| kept | words recovered, median | from, to | by another's memory |",
            "|---|---|---|---|",
        ]
        for keep in KEEPS:
            method = KVMethod(engine._frozen, rotary, keep)  # type: ignore[attr-defined]
            reader = TorchReader(method.lm, method)
            packed = method.compress(texts)
            lines.append(row(keep, texts, [repeated(reader, m) for m in packed]))
            print(lines[-1], flush=True)
        model = memory.settings.model
    command = (
        f"python examples/benchmarks/recovery.py --passages {given.passages} --tokens"
        f" {given.tokens}"
    )
    words = sum(len(t.split()) for t in texts)
    text = (
        f"# Text out of memories\n\n`{command}` ({model}, {words} words; cmt-sdk"
        f" {cmt_sdk.__version__})\n\n" + "\n".join(lines) + "\n"
    )
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
