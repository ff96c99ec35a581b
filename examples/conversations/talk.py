"""Play whole dialogues with the default model and count what is right, by kind.

    python -m examples.conversations.talk [--way chat|http] [--verbose] [NAME]...

Each dialogue has a memory of its own, which is closed and opened again at every "later".
With `--out FILE` each dialogue's result is kept as a line of JSON, and a later run goes on where
this one ended; `--seconds` ends a run after the dialogue in which they are over.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from examples.conversations.judging import Heard, Round, also, holds, verdict
from examples.conversations.script import KINDS, Dialogue, Said, dialogues
from examples.conversations.ways import WAYS, Opener, default_opener, documents_of

ROWS = (*KINDS, "statements kept", "questions left out")


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table's material: a turn, its reply, and why it is wrong ("" where right)."""

    row: str
    user: str
    said: str
    reply: str
    why: str
    expected: str
    sources: tuple[str, ...]
    seconds: float


class Process:
    """The memory and the way to it, from one "later" to the next."""

    def __init__(self, folder: Path, open_memory: Opener, way: str) -> None:
        self._make = (folder, open_memory, way)
        self._open()

    def _open(self) -> None:
        folder, open_memory, way = self._make
        self._held = ExitStack()
        self.memory = self._held.enter_context(open_memory(folder))
        self.way = self._held.enter_context(WAYS[way](self.memory))

    def again(self) -> None:
        """Close all and open it again."""
        self._held.close()
        self._open()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def play(talk: Dialogue, open_memory: Opener, way: str = "chat") -> list[Result]:
    """The results of a dialogue, in a fresh memory."""
    results: list[Result] = []
    told: list[str] = []
    with TemporaryDirectory() as folder, Process(Path(folder), open_memory, way) as process:
        for said in talk.talk:
            if said is None:
                process.again()
                continue
            known = _known(talk, told)
            began = time.perf_counter()
            played = _round(process, said, known)
            told.append(said.text)
            results += _results(played, time.perf_counter() - began)
    return results


def _known(talk: Dialogue, told: Sequence[str]) -> list[str]:
    """The values that were told so far."""
    values = {value for said in talk.turns for value in said.values}
    return sorted(v for v in values if any(holds(text, v) for text in told))


def _round(process: Process, said: Said, known: Sequence[str]) -> Round:
    before = documents_of(process.memory, said.user)
    heard = _say(process, said.user, said.text)
    halfway = documents_of(process.memory, said.user)
    if said.then:
        answer = _say(process, said.user, said.then)
        failed = heard.failed or answer.failed
        heard = Heard(f"{heard.text} / {answer.text}", sources=heard.sources, failed=failed)
    after = documents_of(process.memory, said.user)
    return Round(said, heard, before, after, halfway, known)


def _say(process: Process, user: str, text: str) -> Heard:
    """A turn's reply; one that fails is a reply that is wrong."""
    try:
        return process.way.say(user, text)
    except Exception as error:  # noqa: BLE001 - a dialogue goes on, and the table counts it
        return Heard(f"{type(error).__name__}: {error}", failed=True)


def _results(played: Round, seconds: float) -> Iterator[Result]:
    said, heard = played.said, played.heard
    lists = {key: list(getattr(said, key)) for key in ("wants", "never", "keeps", "gone", "stays")}
    expected = ", ".join(f"{key} {value}" for key, value in lists.items() if value) or said.kind
    same = (said.user, said.text, heard.text)
    yield Result(said.kind, *same, verdict(played), expected, heard.sources, seconds)
    if (more := also(played)) is not None:
        yield Result(more[0], *same, more[1], more[0], heard.sources, 0.0)


def table(results: Iterable[Result]) -> str:
    """Right and total by row, as Markdown."""
    found = list(results)
    total = Counter(result.row for result in found)
    right = Counter(result.row for result in found if not result.why)
    shares = [(row, right[row], total[row]) for row in ROWS if total[row]]
    lines = [f"| {row} | {good} | {of} | {good / of:.0%} |" for row, good, of in shares]
    return "\n".join(["| kind | right | of | |", "|---|---|---|---|", *lines])


def told_in_full(name: str, results: Iterable[Result]) -> Iterator[str]:
    """Each wrong turn, and each reply to a statement or small talk, for a person to judge."""
    for r in results:
        if not r.why and r.row not in ("statement", "small talk"):
            continue
        yield f"{name}  {'WRONG' if r.why else 'fits '}  {r.row}  {r.user}: {r.said[:200]}"
        yield f"       reply {r.reply!r}" + (f"; {r.why}; expected: {r.expected}" if r.why else "")
        if r.why and r.sources:
            yield f"       from {[source[:80] for source in r.sources]}"


def kept(file: Path | None) -> dict[str, list[Result]]:
    """Results of earlier runs by the dialogue's name."""
    if file is None or not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {line["name"]: [_read(r) for r in line["results"]] for line in lines}


def _read(held: dict[str, Any]) -> Result:
    return Result(**{**held, "sources": tuple(held["sources"])})


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", help="only dialogues whose names begin so")
    parser.add_argument("--way", choices=tuple(WAYS), default="chat")
    parser.add_argument("--verbose", action="store_true", help="show wrong turns and free replies")
    parser.add_argument("--out", type=Path, help="keep results here, and go on from them")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after")
    options = parser.parse_args()
    done, began, open_memory = kept(options.out), time.monotonic(), default_opener()
    begins = tuple(options.name) or ("",)
    chosen = [talk for talk in dialogues() if talk.name.startswith(begins)]
    for talk in chosen:
        if talk.name in done or time.monotonic() - began > options.seconds:
            continue
        done[talk.name] = play(talk, open_memory, options.way)
        if options.out:
            line = {"name": talk.name, "results": [asdict(r) for r in done[talk.name]]}
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    results = {talk.name: done[talk.name] for talk in chosen if talk.name in done}
    for name, found in results.items() if options.verbose else ():
        print("\n".join(told_in_full(name, found)))
    flat = [result for found in results.values() for result in found]
    print(table(flat))
    seconds = sum(result.seconds for result in flat)
    print(f"\n{len(results)} of {len(chosen)} dialogues, {seconds:.0f} s of talk, {options.way}")


if __name__ == "__main__":
    main()
