"""Make training data for what changes in a conversation:

    python -m examples.conversations.make_training DATA OUT.jsonl.gz

DATA is a folder with synthetic_persona_chat. A row of OUT is a question about a statement among
those that are read with it, in the order in which they were stated (`place`). Most conversations
hold an older and a newer value of one fact, from a block of `changes.txt`: the questions ask for
the value of now, for the one before, or for what no one stated. Others hold one value alone, or the
same fact of two people, so that the latest statement is not always right. No block was written
with the dialogues of this folder at hand.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmt_sdk.text.prompt_messages import UNKNOWN
from examples.notes100.make_training import from_chats, spoken

HERE = Path(__file__).parent
SLOT = re.compile(r"\{(\w+)\}")
CONVERSATIONS = 6000
STATED = (2, 6)  # statements that are read together
Values = dict[str, str]


@dataclass
class Block:
    """One kind of fact: forms of its statements by their letter, questions with their answer."""

    forms: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Block:
        """A block of `changes.txt`."""
        block = cls({letter: [] for letter in "OTMQBN"})
        for line in text.splitlines():
            letter, _, rest = line.partition(" ")
            if letter == "V":
                name, _, values = rest.partition(": ")
                block.values[name] = values.split("; ")
            else:
                block.forms[letter].append(rest)
        return block

    @property
    def changing(self) -> list[str]:
        """The slots that change."""
        later = {name for form in self.forms["T"] for name in SLOT.findall(form)}
        return sorted(name[:-1] for name in later if name.endswith("2"))

    def drawn(self, rng: random.Random) -> dict[str, str]:
        """Values of all slots; of those that change three, as `{x}`, `{x2}`, `{x3}`."""
        found = {name: rng.choice(values) for name, values in self.values.items()}
        for name in self.changing:
            found |= zip(
                [name, name + "2", name + "3"], rng.sample(self.values[name], 3), strict=True
            )
        return found


@dataclass
class Stated:
    """A statement of a conversation, with its questions and answers."""

    text: str
    asked: list[tuple[str, str]] = field(default_factory=list)


def blocks() -> list[Block]:
    """The blocks of `changes.txt`."""
    text = (HERE / "changes.txt").read_text(encoding="utf-8").strip()
    return [Block.of(block) for block in text.split("\n\n")[1:]]


def filled(form: str, values: Mapping[str, str]) -> str:
    """A form with its slots filled."""
    return SLOT.sub(lambda m: values[m[1]], form)


def pairs(
    block: Block, letter: str, values: Mapping[str, str], texts: Sequence[str], rng: random.Random
) -> list[tuple[str, str]]:
    """Two questions of a letter with the answer, where the statements hold what these name."""
    made = []
    for line in block.forms[letter]:
        forms, _, answer = line.rpartition(" = ")
        for form in rng.sample(forms.split(" / "), min(2, forms.count(" / ") + 1)):
            question, words = filled(form, values), filled(answer, values)
            named = [values[slot] for slot in SLOT.findall(form)]
            held = all(any(v.lower() in text.lower() for text in texts) for v in named)
            if held and words.lower() not in question.lower():
                made.append((spoken(question, rng), words))
    return made


def typed(text: str, rng: random.Random) -> str:
    """A statement as people type it."""
    if rng.random() < 0.25:
        text = text[0].upper() + text[1:]
    if text[-1].isalnum() and rng.random() < 0.25:
        text += rng.choice([".", "!", "!!", " :)", " haha"])
    return text


def conversation(
    everything: Sequence[Block], chat: Sequence[str], rng: random.Random
) -> list[Stated]:
    """Statements in the order of time."""
    block = rng.choice(everything)
    values = block.drawn(rng)
    make = rng.choices(*zip(*SHARES.items(), strict=True))[0]
    stated = make(block, values, rng)
    wanted = max(rng.randint(*STATED), len(stated))
    remarks = rng.sample(block.forms["M"], min(len(block.forms["M"]), rng.choice([0, 0, 1, 2])))
    texts = [filled(remark, values) for remark in remarks]
    held = [block]
    while len(texts) < wanted:
        other = rng.choice(everything)
        if other is not block and rng.random() < 0.4:
            held.append(other)
            texts.append(filled(rng.choice(other.forms["O"]), other.drawn(rng)))
        else:
            texts.append(rng.choice(chat))
    for text in texts[: wanted - len(stated)]:
        stated.insert(rng.randint(0, len(stated)), Stated(typed(text, rng)))
    foreign = rng.choice(everything)
    if not any(foreign is one for one in held) and rng.random() < 0.5:
        line = rng.choice(foreign.forms["Q"]).rpartition(" = ")[0]
        question = filled(rng.choice(line.split(" / ")), foreign.drawn(rng))
        rng.choice([s for s in stated if s.asked] or stated).asked.append(
            (spoken(question, rng), UNKNOWN)
        )
    return stated


def _changed(block: Block, values: Values, rng: random.Random, times: int = 1) -> list[Stated]:
    """An older value, and newer ones one after the other."""
    stated = [Stated(typed(filled(rng.choice(block.forms["O"]), values), rng))]
    for n in range(times):
        if n:  # the newer value is the older one of the next change
            values = values | {c: values[c + "2"] for c in block.changing}
            values = values | {c + "2": values[c + "3"] for c in block.changing}
        stated.append(Stated(typed(filled(rng.choice(block.forms["T"]), values), rng)))
    texts = [s.text for s in stated]
    newest, before = (pairs(block, letter, values, texts, rng) for letter in "QB")
    stated[-1].asked = [pair for pair in newest if pair[1] in texts[-1]]
    stated[-2].asked = [pair for pair in before if pair[1] in texts[-2]]
    stated[-1].asked += _unanswered(block, values, texts, rng)
    return stated


def _changed_twice(block: Block, values: Values, rng: random.Random) -> list[Stated]:
    return _changed(block, values, rng, 2)


def _one_value(block: Block, values: Values, rng: random.Random) -> list[Stated]:
    """The older statement alone, or the newer one alone: its value is that of now; what was before
    no one stated, unless the newer one names it.
    """
    later = rng.random() < 0.5
    text = typed(filled(rng.choice(block.forms["T" if later else "O"]), values), rng)
    one = values if later else values | {c + "2": values[c] for c in block.changing}
    asked = [p for p in pairs(block, "Q", one, [text], rng) if p[1] in text]
    for question, answer in pairs(block, "B", values, [text], rng)[:1]:
        if later:
            asked.append((question, answer if answer in text else UNKNOWN))
    return [Stated(text, asked + _unanswered(block, values, [text], rng))]


def _two_people(block: Block, values: Values, rng: random.Random) -> list[Stated]:
    """The same fact of two people or things, which statements and questions name: neither
    supersedes the other.
    """
    kept = [name for name in block.values if name not in block.changing]
    others = block.drawn(rng)
    clear = [form for form in block.forms["O"] if _names(form, kept)]
    if not kept or not clear or any(values[name] == others[name] for name in block.values):
        return _changed(block, values, rng)
    stated = []
    for one in (values, others):
        text = typed(filled(rng.choice(clear), one), rng)
        now = one | {c + "2": one[c] for c in block.changing}
        asked = [
            pair
            for pair in pairs(block, "Q", now, [text], rng)
            if pair[1] in text and all(one[name].lower() in pair[0].lower() for name in kept)
        ]
        stated.append(Stated(text, asked))
    return stated


def _names(form: str, slots: Sequence[str]) -> bool:
    return all("{" + slot + "}" in form for slot in slots)


SHARES = {_changed: 0.55, _changed_twice: 0.1, _one_value: 0.15, _two_people: 0.2}


def _unanswered(
    block: Block, values: Values, texts: Sequence[str], rng: random.Random
) -> list[tuple[str, str]]:
    """A question about the subject that no statement answers, and one that asks what was stated of
    somebody or something else.
    """
    forms = [form for line in block.forms["N"] for form in line.split(" / ")]
    made = [filled(rng.choice(forms), values)] if forms and rng.random() < 0.6 else []
    named = [n for n, v in values.items() if any(v.lower() in text.lower() for text in texts)]
    kept = [name for name in block.values if name in named and name not in block.changing]
    if kept and rng.random() < 0.6:
        name = rng.choice(kept)
        another = values | {name: rng.choice([v for v in block.values[name] if v != values[name]])}
        lines = [line.rpartition(" = ")[0] for line in block.forms["Q"]]
        asked = [f for line in lines for f in line.split(" / ") if "{" + name + "}" in f]
        made += [filled(rng.choice(asked), another)] if asked else []
    return [(spoken(question, rng), UNKNOWN) for question in made]


def rows(data: Path, seed: int = 0) -> Iterator[dict[str, object]]:
    """All rows; a statement that two conversations would share has questions in the first alone."""
    rng = random.Random(seed)
    chat = from_chats(data / "synthetic_persona_chat.jsonl.gz")
    everything = blocks()
    used: set[str] = set()
    for number in range(CONVERSATIONS):
        stated = conversation(everything, chat, rng)
        for place, one in enumerate(stated):
            if not one.asked or one.text in used:
                continue
            used.add(one.text)
            for question, answer in one.asked:
                yield {
                    "title": f"conversation {number}",
                    "context": one.text,
                    "neighbours": [s.text for s in stated if s is not one],
                    "place": place,
                    "question": question,
                    "answers": [answer],
                }


def main(data: str, out: str) -> None:
    """Write the rows."""
    count = unknown = 0
    with gzip.open(out, "wt", encoding="utf-8") as file:
        for row in rows(Path(data)):
            count += 1
            unknown += row["answers"] == [UNKNOWN]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{count} questions, {unknown} of which no statement answers")


if __name__ == "__main__":
    main(*sys.argv[1:])
