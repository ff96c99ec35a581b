"""Make training data for short notes: python -m examples.notes100.make_training DATA OUT.jsonl.gz

DATA is a folder with question files (squad_v1_train_part, squadshifts_*, synthetic_persona_chat). A
row of OUT is a question about a note among those that are read with it (`neighbours`). Two kinds:

- notebooks of one to six notes from `templates.txt`, with random names and identifiers: a question
  that one note answers, one that a newer or an older note about the same thing answers, and one
  that none answers ("I don't know."), though a note names its subject;
- sentences of passages that people asked questions about, with other sentences of the same passage;
  where the sentence with the answer is left out, the notes do not tell.

A notebook that holds a name or a code of the trial set (`notes.txt`) is left out.
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

from cmt_sdk.questions.dataset import QuestionedPassage, read_lines, read_passages
from cmt_sdk.text.prompt_messages import UNKNOWN
from examples.notes100 import slots
from examples.notes100.ask import read

HERE = Path(__file__).parent
SLOT = re.compile(r"\{(\w+)\}")
NOTEBOOKS = 2400
PASSAGES = 1500  # of which sentences become notes
SOURCES = (
    "squad_v1_train_part",
    "squadshifts_new_wiki",
    "squadshifts_reddit",
    "squadshifts_amazon_reviews",
)
# slots whose values occur in many notes: they tell no note from another
COMMON = {"day", "month", "small", "num", "year", "colour", "daytime", "tail", "time", "date"}
GIVEN = {"town2", "firm2", "full2"}  # in questions for what was before: the newer note says these
STOP = frozenset(slots.LISTS["stop"])


@dataclass(frozen=True)
class Form:
    """The forms of a question, its answer, and words of which a note's form must have one."""

    questions: Sequence[str]
    answer: str
    needs: Sequence[str] = ()

    @classmethod
    def of(cls, line: str) -> Form:
        """The question of a line of `templates.txt`, without its letter."""
        needs: list[str] = []
        if line.startswith("@"):
            words, _, line = line[1:].partition(": ")
            needs = words.split(",")
        asked, _, answer = line.strip().rpartition(" = ")
        return cls(asked.split(" / "), answer, needs)


@dataclass(frozen=True)
class Block:
    """The templates of one kind of note: forms by their letter, questions with their answer."""

    notes: Sequence[str]
    older: Sequence[str]
    asked: Sequence[Form]
    before: Sequence[Form]
    unanswered: Sequence[str]

    @property
    def slots(self) -> set[str]:
        """The names of the slots in its forms."""
        texts = [*self.notes, *self.older, *self.unanswered]
        texts += [t for f in (*self.asked, *self.before) for t in (*f.questions, f.answer)]
        return {name for text in texts for name in SLOT.findall(text)}


@dataclass
class Note:
    """A note with its questions and answers; `named` are the values that only it should hold."""

    text: str
    asked: list[tuple[str, str]]
    block: Block
    values: Mapping[str, str]
    named: set[str] = field(default_factory=set)


def blocks() -> list[Block]:
    """The blocks of `templates.txt`."""
    made = []
    text = (HERE / "templates.txt").read_text(encoding="utf-8").strip()
    for lines in (block.splitlines() for block in text.split("\n\n")[1:]):
        parts: dict[str, list[str]] = {letter: [] for letter in "TOQBN"}
        for line in lines:
            parts[line[0]].append(line[1:].removeprefix(" ").replace("\\n", "\n"))
        asked, before = ([Form.of(line) for line in parts[letter]] for letter in "QB")
        unanswered = [q for line in parts["N"] for q in line.split(" / ")]
        made.append(Block(parts["T"], parts["O"], asked, before, unanswered))
    return made


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its slots filled."""
    return SLOT.sub(lambda m: values[m[1]], template)


def drawn(block: Block, rng: random.Random, taken: set[str]) -> dict[str, str]:
    """Values for all slots of a block; none but the common ones is taken or drawn twice."""
    values: dict[str, str] = {}
    for slot in sorted(block.slots):
        for _ in range(50):
            value = slots.value(slot, rng)
            if value not in values.values() and (_is_common(slot) or value not in taken):
                break
        values[slot] = value
    return values


def _is_common(slot: str) -> bool:
    return slot.rstrip("0123456789") in COMMON


def noted(
    template: str,
    asked: Sequence[Form],
    block: Block,
    values: Mapping[str, str],
    rng: random.Random,
) -> Note:
    """A note with one form of each question that it answers."""
    text = filled(template, values)
    lower = rng.random() < 0.15
    if rng.random() < 0.12 and not text.endswith((".", "!", ")")):
        text += rng.choice([".", " :)", "!", f". {slots.value('tail', rng)}"])
    if lower:
        text = text.lower()
    elif rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    pairs = []
    for form in asked:
        words = filled(form.answer, values)
        words = words.lower() if lower else words
        asks = rng.choice(list(form.questions))
        question = filled(asks, values)
        fits = not form.needs or any(need in template for need in form.needs)
        names = all(values[s].lower() in text.lower() for s in SLOT.findall(asks) if s not in GIVEN)
        if fits and names and words in text and words.lower() not in question.lower():
            pairs.append((question, words))
    named = {v for slot, v in values.items() if not _is_common(slot) and v.lower() in text.lower()}
    return Note(text, pairs, block, values, named)


def dated(notes: Sequence[Note], rng: random.Random) -> None:
    """Put days in front of some notes, the older one's first, as a diary or a list has them."""
    year, month = rng.randint(2019, 2026), 0
    for note in notes:
        month += rng.randint(1, 12 // len(notes))
        day = rng.randint(1, 28)
        name = slots.MONTHS[""][month - 1]
        stamp = rng.choice(
            [f"{year}-{month:02}-{day:02}: ", f"{day} {name} {year}\n", f"({day}.{month}.{year}) "]
        )
        note.text = stamp + note.text


def notebook(all_blocks: Sequence[Block], rng: random.Random, chat: Sequence[str]) -> list[Note]:
    """Notes that are read together; a note of a conversation has no question."""
    size = rng.choices([1, 2, 3, 4, 5, 6], [1, 1, 2, 3, 6, 2])[0]
    taken: set[str] = set()
    notes: list[Note] = []
    changed = [b for b in all_blocks if b.older]
    plain = [b for b in all_blocks if not b.older]
    if rng.random() < 0.3:
        notes += _pair(rng.choice(changed), rng, taken)
    while len(notes) < size:
        chance = rng.random()
        if notes and chance < 0.3 and notes[-1].block.notes and not notes[-1].block.older:
            block = notes[-1].block  # two of a kind: the right one must be found
        elif chance < 0.42:
            notes.append(Note(rng.choice(chat), [], Block([], [], [], [], []), {}))
            continue
        else:
            block = rng.choice(plain)
        values = drawn(block, rng, taken)
        note = noted(rng.choice(list(block.notes)), block.asked, block, values, rng)
        taken |= set(values.values())
        notes.append(note)
    return notes


def _pair(block: Block, rng: random.Random, taken: set[str]) -> list[Note]:
    values = drawn(block, rng, taken)
    taken |= set(values.values())
    older = noted(rng.choice(list(block.older)), block.before, block, values, rng)
    newer = noted(rng.choice(list(block.notes)), block.asked, block, values, rng)
    if rng.random() < 0.4:
        dated([older, newer], rng)
    return [older, newer]


def content_words(text: str) -> set[str]:
    """The words of a text that say what it is about, without their ends."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    return {w[:5] for w in words if len(w) > 2 and w not in STOP}


def is_clear(question: str, own: Note, others: Sequence[Note]) -> bool:
    """Whether a question is about its own note alone: it names what no other note names, or no
    other note is about the same.
    """
    rest = [n for n in others if n is not own and n.block is not own.block]
    twins = [n for n in others if n is not own and n.block is own.block and not own.block.older]
    named = {v for v in own.values.values() if v.lower() in question.lower() and len(v) > 1}
    telling = {v for v in named if not any(v.lower() in n.text.lower() for n in (*rest, *twins))}
    if twins and not telling:
        return False
    if telling:
        return True
    words = content_words(question)
    return not any(words & content_words(_all_of(n)) for n in rest)


def _all_of(note: Note) -> str:
    forms = [f for form in note.block.asked for f in form.questions]
    return " ".join([note.text, *(SLOT.sub("", f) for f in forms)])


def spoken(question: str, rng: random.Random) -> str:
    """A question as people type it."""
    if rng.random() < 0.2:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip(" ?")
    if rng.random() < 0.08:
        question = question.replace("'", "")
    return question if question[:1].islower() and rng.random() < 0.6 else _capital(question)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def unanswered(
    notes: Sequence[Note], rng: random.Random, everything: Sequence[Block]
) -> Iterator[tuple[int, str]]:
    """Questions that no note answers, each with the number of the note that it nearly fits."""
    asked = [n for n, note in enumerate(notes) if note.asked]
    for number in asked:
        note = notes[number]
        if note.block.unanswered and rng.random() < 0.5:
            question = filled(rng.choice(list(note.block.unanswered)), note.values)
            if is_clear(question, note, notes):
                yield number, question
        if rng.random() < 0.25 and (question := _of_another(note, notes, rng)):
            yield number, question
    if rng.random() < 0.5:
        block = rng.choice(list(everything))
        values = drawn(block, rng, {v for n in notes for v in n.values.values()})
        question = filled(rng.choice(list(rng.choice(list(block.asked)).questions)), values)
        stranger = Note("", [], block, values)
        if not any(n.block is block for n in notes) and is_clear(question, stranger, notes):
            yield rng.choice(range(len(notes))), question


def _of_another(note: Note, notes: Sequence[Note], rng: random.Random) -> str:
    """The note's question about another thing or person; empty where it names none."""
    block = note.block
    values = drawn(block, rng, {v for n in notes for v in n.values.values()})
    form = rng.choice(list(rng.choice(list(block.asked)).questions))
    telling = [s for s in SLOT.findall(form) if not _is_common(s)]
    if not telling:
        return ""
    kept = rng.choice(telling)  # one slot differs, the others stay as they are in the note
    question = filled(form, {**note.values, kept: values[kept]})
    return "" if any(values[kept].lower() in n.text.lower() for n in notes) else question


def rows_of_notebook(
    name: str, notes: Sequence[Note], rng: random.Random, everything: Sequence[Block]
) -> Iterator[dict[str, object]]:
    """The questions of a notebook, by note."""
    missing = list(unanswered(notes, rng, everything))
    for number, note in enumerate(notes):
        neighbours = [other.text for other in notes if other is not note]
        pairs = [(q, a) for q, a in note.asked if is_clear(q, note, notes)]
        pairs = rng.sample(pairs, min(3, len(pairs)))
        pairs += [(q, UNKNOWN) for n, q in missing if n == number]
        for question, answer in pairs:
            yield {
                "title": name,
                "context": note.text,
                "neighbours": neighbours,
                "question": spoken(question, rng),
                "answers": [answer],
            }


def sentences(text: str) -> list[str]:
    """The sentences of a passage that are as long as a note."""
    found = re.split(r"(?<=[.!?])\s+(?=[A-Z\"'(])", " ".join(text.split()))
    return [s for s in found if 5 <= len(s.split()) <= 45]


def rows_of_passage(
    name: str, passage: QuestionedPassage, rng: random.Random, others: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Questions of people about sentences of a passage; with the sentence, or without it."""
    parts = list(dict.fromkeys(sentences(passage.context)))
    if len(parts) < 3:
        return
    left_out = rng.choice(parts) if rng.random() < 0.6 else ""
    shown = [p for p in parts if p != left_out]
    shown = rng.sample(shown, min(len(shown), rng.randint(2, 5)))
    shown += rng.sample(list(others), max(0, rng.randint(3, 5) - len(shown)))
    made: dict[str, list[tuple[str, str]]] = {}
    for question in passage.questions:
        answer = question.answers[0]
        if len(answer.split()) > 8:
            continue
        holders = [p for p in parts if answer in p]
        if len(holders) == 1 and holders[0] in shown:
            made.setdefault(holders[0], []).append((question.text, answer))
        elif holders == [left_out] and not any(answer.lower() in s.lower() for s in shown):
            made.setdefault(rng.choice(shown), []).append((question.text, UNKNOWN))
    for text, pairs in made.items():
        known = [p for p in pairs if p[1] != UNKNOWN][:3]
        for asked, answer in known + [p for p in pairs if p[1] == UNKNOWN][:1]:
            yield {
                "title": name,
                "context": text,
                "neighbours": [s for s in shown if s != text],
                "question": asked.strip(),
                "answers": [answer],
            }


def from_chats(file: Path) -> list[str]:
    """What people say about themselves in a file of conversations, a sentence or two each."""
    found = []
    for row in read_lines(file):
        for line in str(row["text"]).splitlines():
            words = line.partition(": ")[2]
            if words.startswith(("I ", "I'm ", "My ", "I've ")) and 5 <= len(words.split()) <= 20:
                found.append(words)
    vague = re.compile(r"\b(live|work|job|name|years? old|allerg|from|teach|born|move)", re.I)
    return sorted({s for s in found if not vague.search(s) and not s.endswith("?")})


def of_the_trial() -> re.Pattern[str]:
    """The names and codes of the trial set."""
    _, asked = read()
    plain = {*slots.DAYS, *(month for names in slots.MONTHS.values() for month in names)}
    forms = {form for a in asked for form in a.expected.split("|")}
    kept = {
        f
        for f in forms
        if len(f) > 3 and f not in plain and (f[0].isupper() or sum(c.isdigit() for c in f) > 3)
    }
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, sorted(kept))) + r")(?!\w)")


def rows(data: Path, seed: int = 0) -> Iterator[dict[str, object]]:
    """All rows."""
    rng = random.Random(seed)
    chat = from_chats(data / "synthetic_persona_chat.jsonl.gz")
    everything = blocks()
    trial = of_the_trial()
    for number in range(NOTEBOOKS):
        notes = notebook(everything, rng, chat)
        made = list(rows_of_notebook(f"notebook {number}", notes, rng, everything))
        if not any(trial.search(note.text) for note in notes):
            yield from made
    for source in SOURCES:
        passages = read_passages(data / f"{source}.jsonl.gz")
        parts = [s for p in rng.sample(passages, 300) for s in sentences(p.context)]
        for number, passage in enumerate(rng.sample(passages, PASSAGES // len(SOURCES))):
            yield from rows_of_passage(f"{source} {number}", passage, rng, parts)


def main(data: str, out: str) -> None:
    """Write the rows."""
    known = unknown = 0
    with gzip.open(out, "wt", encoding="utf-8") as file:
        for row in rows(Path(data)):
            known += row["answers"] != [UNKNOWN]
            unknown += row["answers"] == [UNKNOWN]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{known} questions that a note answers, {unknown} that none answers")


if __name__ == "__main__":
    main(*sys.argv[1:])
