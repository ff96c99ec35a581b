"""Play whole dialogues with the default model and count what is right, by kind.

    python -m examples.conversations.talk [--way chat|http] [--set NAME=VALUE] [--verbose] [NAME]...
    python -m examples.conversations.talk --dialogues examples/conversations/apart

Each dialogue has a memory of its own, which is closed and opened again at every "later".
With `--out FILE` each dialogue's replies are kept as a line of JSON, and a later run plays only
what is not there yet; `--seconds` ends a run after the dialogue in which they are over.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import cmt_sdk
from examples.conversations.judging import Heard, Round, also, holds, verdict
from examples.conversations.records import append, read
from examples.conversations.script import FOLDER, KINDS, Dialogue, UserTurn, dialogues
from examples.conversations.ways import WAYS, Opener, default_opener, documents_of

ROWS = (*KINDS, "statements kept", "questions left out")
FREE = ("statement", "small talk")  # a person judges their replies too


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


def play(talk: Dialogue, open_memory: Opener, way: str = "chat") -> list[Round]:
    """The turns of a dialogue with their replies, in a fresh memory."""
    rounds: list[Round] = []
    with TemporaryDirectory() as folder, Process(Path(folder), open_memory, way) as process:
        for turn in talk.talk:
            if turn is None:
                process.again()
            else:
                known = _known(talk, [played.turn.text for played in rounds])
                rounds.append(_round(process, turn, known))
    return rounds


def _known(talk: Dialogue, texts: Sequence[str]) -> list[str]:
    """The values that were stated so far."""
    values = {value for turn in talk.turns for value in turn.values}
    return sorted(v for v in values if any(holds(text, v) for text in texts))


def _round(process: Process, turn: UserTurn, known: Sequence[str]) -> Round:
    before = documents_of(process.memory, turn.user)
    began = time.perf_counter()
    heard = _say(process, turn.user, turn.text)
    halfway = documents_of(process.memory, turn.user)
    if turn.then:
        answer = _say(process, turn.user, turn.then)
        failed = heard.failed or answer.failed
        heard = Heard(f"{heard.text} / {answer.text}", sources=heard.sources, failed=failed)
    seconds = round(time.perf_counter() - began, 2)
    after = documents_of(process.memory, turn.user)
    return Round(turn, heard, before, after, halfway, known, seconds)


def _say(process: Process, user: str, text: str) -> Heard:
    """A turn's reply; an error is a reply that is wrong."""
    try:
        return process.way.say(user, text)
    except Exception as error:  # noqa: BLE001 - a dialogue goes on, and the table counts it
        return Heard(f"{type(error).__name__}: {error}", failed=True)


def judged(rounds: Iterable[Round]) -> Iterator[tuple[str, str]]:
    """Row of the table and why it is wrong there ("" where right), one or two of a turn."""
    for played in rounds:
        yield played.turn.kind, verdict(played)
        if (more := also(played)) is not None:
            yield more


def table(rounds: Iterable[Round]) -> str:
    """Right and total by row, as Markdown."""
    found = list(judged(rounds))
    total = Counter(row for row, _ in found)
    right = Counter(row for row, why in found if not why)
    shares = [(row, right[row], total[row]) for row in ROWS if total[row]]
    lines = [f"| {row} | {good} | {of} | {good / of:.0%} |" for row, good, of in shares]
    return "\n".join(["| kind | right | of | |", "|---|---|---|---|", *lines])


def in_full(name: str, rounds: Iterable[Round]) -> Iterator[str]:
    """Each wrong turn, and each reply to a statement or small talk, for a person to judge."""
    for played in rounds:
        turn, heard, why = played.turn, played.heard, verdict(played)
        if why or turn.kind in FREE:
            mark = "WRONG" if why else "fits "
            yield f"{name}  {mark}  {turn.kind}  {turn.user}: {turn.text:.200}"
            yield f"       {heard.text!r}{f'; {why}; expected {_expected(turn)}' if why else ''}"
        if why and heard.sources:
            yield f"       from {[source[:80] for source in heard.sources]}"
        row, other = also(played) or ("", "")
        if other:
            yield f"{name}  WRONG  {row}  {turn.user}: {turn.text:.200}\n       {other}"


def _expected(turn: UserTurn) -> str:
    lists = {key: list(getattr(turn, key)) for key in ("wants", "never", "keeps", "gone", "stays")}
    return ", ".join(f"{key} {value}" for key, value in lists.items() if value) or turn.kind


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", help="only dialogues whose names begin so")
    parser.add_argument("--dialogues", type=Path, default=FOLDER, help="the folder of their files")
    parser.add_argument("--way", choices=tuple(WAYS), default="chat")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--verbose", action="store_true", help="show wrong turns and free replies")
    parser.add_argument("--out", type=Path, help="keep replies here, and go on from them")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after")
    options = parser.parse_args()
    pairs = [pair.partition("=") for pair in options.settings]
    settings = {name: cmt_sdk.Settings.parse(name, value) for name, _, value in pairs}
    began, open_memory = time.monotonic(), default_opener(**settings)
    begins = tuple(options.name) or ("",)
    chosen = [talk for talk in dialogues(options.dialogues) if talk.name.startswith(begins)]
    done = read(options.out, chosen) if options.out else {}
    for talk in chosen:
        if talk.name not in done and time.monotonic() - began < options.seconds:
            done[talk.name] = play(talk, open_memory, options.way)
            if options.out:
                append(options.out, talk.name, done[talk.name])
    for name in sorted(done) if options.verbose else ():
        print("\n".join(in_full(name, done[name])))
    rounds = [played for found in done.values() for played in found]
    seconds = sum(played.seconds for played in rounds)
    print(table(rounds))
    print(f"\n{len(done)} of {len(chosen)} dialogues by {options.way}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
