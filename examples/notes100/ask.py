"""Ask 300 questions about 100 short notes in one memory, with any model.

    python -m examples.notes100.ask [--reader memory] [--set adapter=my-adapter] [--out FILE]
    python -m examples.notes100.ask --out FILE --against OTHER

An answer is right when it holds the expected words as a whole. "absent" and "near" questions are
answered by no note; of "near" ones a note names the subject. AUROC is the probability that an
answered question has the higher confidence of an answered and an unanswered one. `--out` keeps each
answer as a line of JSON, and a later run asks only what is not there yet; `--against` compares with
the answers of another run, question by question.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cmt_sdk
from cmt_sdk.evaluation.metrics import auroc
from examples.everyday.ask import holds

NOTES = Path(__file__).parent / "notes.txt"
ANSWERED = ("code", "date", "name", "amount", "place", "me", "newest", "before")
UNANSWERED = ("absent", "near")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a kind; `expected` are forms separated by |, empty where no note answers."""

    kind: str
    question: str
    expected: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A question with its answer. `found`: the rank of the first source that holds the expected
    words, from 1; None where none does.
    """

    kind: str
    question: str
    expected: str
    answer: str
    confidence: float
    found: int | None

    @property
    def is_right(self) -> bool:
        """Whether the answer holds the expected words; without any, whether there is no answer."""
        if not self.expected:
            return self.answer.startswith("I don't know")
        return holds(self.answer, self.expected)


def read(file: Path = NOTES) -> tuple[list[cmt_sdk.Document], list[Asked]]:
    """The notes and the questions of a file; the file's first lines describe it."""
    notes, asked = [], []
    for block in file.read_text(encoding="utf-8").strip().split("\n\n")[1:]:
        text, day = [], ""
        for line in block.splitlines():
            if line.startswith("? "):
                kind, _, rest = line[2:].partition(" ")
                question, _, expected = rest.strip().partition(" = ")
                asked.append(Asked(kind, question, expected))
            elif line.startswith("@ "):
                day = line[2:]
            else:
                text.append(line)
        if text:
            notes.append(cmt_sdk.Document("\n".join(text), metadata={"date": day} if day else {}))
    return notes, asked


def ask(memory: cmt_sdk.Memory, asked: Asked, reader: cmt_sdk.ReaderKind) -> Reply:
    """Ask one question."""
    answer = memory.ask(asked.question, reader=reader)
    ranks = [n for n, s in enumerate(answer.sources, 1) if holds(s.text, asked.expected)]
    found = ranks[0] if asked.expected and ranks else None
    return Reply(**asdict(asked), answer=answer.text, confidence=answer.confidence, found=found)


def table(replies: Sequence[Reply]) -> str:
    """Right answers by kind, and how well the confidence tells what is in no note, as Markdown."""
    right = Counter(t.kind for t in replies if t.is_right)
    of = Counter(t.kind for t in replies)
    rows = [(k, right[k], of[k]) for k in (*ANSWERED, *UNANSWERED) if of[k]]
    for name, kinds in (("all answered", ANSWERED), ("all unanswered", UNANSWERED)):
        rows.append((name, sum(right[k] for k in kinds), sum(of[k] for k in kinds)))
    lines = [f"| {n} | {good} | {total} | {good / max(1, total):.1%} |" for n, good, total in rows]
    area = auroc([t.confidence for t in replies], [bool(t.expected) for t in replies])
    found = [t.found for t in replies if t.expected]
    first, any_ = sum(f == 1 for f in found), sum(f is not None for f in found)
    return "\n".join(
        [
            "| kind | right | of | |\n|---|---|---|---|",
            *lines,
            f"\nAUROC of answered against unanswered: {area or 0.0:.3f}",
            f"expected words in the first source: {first}, in any: {any_}, of {len(found)}",
        ]
    )


def compared(replies: Sequence[Reply], other: Sequence[Reply]) -> str:
    """By kind, the questions that are right only here and only there."""
    before = {t.question: t.is_right for t in other}
    both = [t for t in replies if t.question in before]
    won = Counter(t.kind for t in both if t.is_right and not before[t.question])
    lost = Counter(t.kind for t in both if not t.is_right and before[t.question])
    kinds = [k for k in (*ANSWERED, *UNANSWERED) if won[k] or lost[k]]
    return "\n".join(f"{k}: {won[k]} won, {lost[k]} lost" for k in kinds) or "no difference"


def load(file: Path | None) -> list[Reply]:
    """The answers that a file keeps."""
    if file is None or not file.exists():
        return []
    return [Reply(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def keep(file: Path | None, reply: Reply) -> Reply:
    """Append an answer to a file, where there is one."""
    if file is not None:
        with file.open("a", encoding="utf-8") as kept:
            kept.write(json.dumps(asdict(reply), ensure_ascii=False) + "\n")
    return reply


def wrong(reply: Reply) -> str:
    """What is wrong, for a person."""
    expected = f", expected {reply.expected!r}, source {reply.found}" if reply.expected else ""
    answer = f"{reply.answer!r} ({reply.confidence:.2f}){expected}"
    return f"WRONG {reply.kind}: {reply.question}\n      {answer}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", choices=cmt_sdk.READERS, default="memory")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--every", type=int, default=1, help="ask only each n-th question")
    parser.add_argument("--out", type=Path, help="keep the answers here, and go on from them")
    parser.add_argument("--against", type=Path, help="answers of another run")
    parser.add_argument("--verbose", action="store_true", help="show the wrong answers")
    options = parser.parse_args()
    pairs = [pair.partition("=") for pair in options.settings]
    settings = {name: cmt_sdk.Settings.parse(name, value) for name, _, value in pairs}
    notes, asked = read()
    replies = load(options.out)
    done = {reply.question for reply in replies}
    with tempfile.TemporaryDirectory() as folder, cmt_sdk.open(folder, **settings) as memory:
        memory.add_many(notes)
        replies += [
            keep(options.out, ask(memory, question, options.reader))
            for question in asked[:: options.every]
            if question.question not in done
        ]
    for reply in replies if options.verbose else ():
        if not reply.is_right:
            print(wrong(reply))
    print(table(replies))
    if options.against:
        print(compared(replies, load(options.against)))


if __name__ == "__main__":
    main()
