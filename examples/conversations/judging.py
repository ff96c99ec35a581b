"""Whether a reply is right: strict, mechanical, and blind to the model. Pure strings.

A fitting reply to a statement or to small talk is a matter of taste; the rules here only refuse
what is surely none: silence, an abstention, a refusal, a stored fact that was not asked for, a
scrap of the statement, more than 60 words. `talk.py --verbose` prints all of them for a person to
judge.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from examples.conversations.script import UserTurn

LONGEST = 60  # words of a reply to what asks nothing
GUESSABLE = 4  # characters: a shorter value may stand in a joke by chance
IDEOGRAPHS = "\u2e80"  # from here on scripts write no spaces between words
QUESTIONS = ("asked back", "newest", "before", "never stated", "follow-up", "other user")
ACKNOWLEDGES = re.compile(
    r"\b(noted|ok|okay|got it|thanks|thank you|understood|sure|glad|sorry|congratulations|congrats"
    r"|great|nice|good|wonderful|lovely|remember(ed)?|kept|keep|saved|stored|will do|welcome"
    r"|updated|replaced|corrected|changed|notiert|verstanden|danke|gemerkt|merke|alles klar|freut"
    r"|anotado|entendido|gracias|vale|d'accord|noté|compris|merci|capito|grazie|va bene)\b"
    r"|了解|好的|记住|记下|知道了|わかりました|覚え|承知"
)
REFUSES = re.compile(r"\b(can't|cannot|can not|unable to|not able to) (assist|help)\b")


@dataclass(frozen=True, slots=True)
class Heard:
    """A reply: its text, whether it says itself that it abstains, and the texts of its sources.

    `failed`: there was an error in its place, whose words are the text.
    """

    text: str
    abstained: bool = False
    sources: tuple[str, ...] = ()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """One turn as it was played.

    `before` and `after` are the texts of the speaker's documents around the turn, `halfway` those
    before `UserTurn.then`; `known` are the values that any user has stated until then.
    `seconds` passed until the reply was whole.
    """

    turn: UserTurn
    heard: Heard
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    halfway: Sequence[str] = ()
    known: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def new(self) -> list[str]:
        """Documents that the turn added."""
        return list((Counter(self.after) - Counter(self.before)).elements())


def fold(text: str) -> str:
    """A text in one spelling: letters folded, one kind of apostrophe, single spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join(plain.split())


def holds(text: str, form: str) -> bool:
    """Whether a form stands in a text, not within a longer word: "186" is not in "1868"."""
    wanted = fold(form)
    before, after = ("" if c >= IDEOGRAPHS else side for c, side in _edges(wanted))
    return re.search(before + re.escape(wanted) + after, fold(text)) is not None


def _edges(form: str) -> list[tuple[str, str]]:
    return [(form[0], r"(?<!\w)"), (form[-1], r"(?!\w)")]


def abstains(heard: Heard) -> bool:
    """Whether a reply says that the memory does not tell."""
    return heard.abstained or fold(heard.text).startswith("i don't know")


def verdict(played: Round) -> str:
    """Why a turn is wrong; "" where it is right."""
    return "fails" if played.heard.failed else _RULES[played.turn.kind](played)


def also(played: Round) -> tuple[str, str] | None:
    """What else a turn shows of the memory: a row of the table, and why it is wrong there or ""."""
    if played.turn.kind in QUESTIONS:
        return "questions left out", f"kept: {played.new}" if played.new else ""
    if played.turn.kind == "statement":
        return "statements kept", "" if played.new else "kept nothing"
    return None


def _statement(played: Round) -> str:
    turn, text = played.turn, played.heard.text
    if problem := _unfit(played, shortest=1):
        return problem
    old = [v for v in turn.replaces if holds(text, v)]
    if old and turn.wants and not any(holds(text, v) for v in turn.wants):
        return f"asserts the old value {old[0]!r}"
    if ACKNOWLEDGES.search(fold(text)):
        return ""
    if _bare(text) in _bare(turn.text) and len(_bare(text)) < len(_bare(turn.text)) * 0.6:
        return "repeats a scrap"
    return "" if _content(text) & _content(turn.text) else "neither repeats nor acknowledges"


def _small_talk(played: Round) -> str:
    if problem := _unfit(played, shortest=GUESSABLE):
        return problem
    stored = [*played.before, *played.after]
    scrap = any(f" {_bare(played.heard.text)} " in f" {_bare(text)} " for text in stored)
    return "repeats a stored fact" if scrap and len(_bare(played.heard.text)) > GUESSABLE else ""


def _unfit(played: Round, *, shortest: int) -> str:
    """What no reply to what asks nothing may be; values of at least `shortest` characters count."""
    turn, text = played.turn, played.heard.text
    quotable = [d for d in played.before if any(holds(d, v) for v in turn.replaces)]
    allowed = "\n".join([turn.text, *turn.replaces, *turn.wants, *quotable])
    foreign = (v for v in played.known if len(v) >= shortest and not holds(allowed, v))
    if not _bare(text):
        return "says nothing"
    if abstains(played.heard):
        return "abstains"
    if REFUSES.search(fold(text)):
        return "refuses"
    if len(text.split()) > LONGEST:
        return f"has {len(text.split())} words"
    stated = [v for v in foreign if holds(text, v)]
    return f"asserts {stated[0]!r}, which was not asked for" if stated else ""


def _answer(played: Round) -> str:
    turn, text = played.turn, played.heard.text
    if abstains(played.heard):
        return "abstains"
    if not any(holds(text, form) for form in turn.wants):
        return f"holds none of {list(turn.wants)}"
    wrong = [form for form in turn.never if holds(text, form)]
    return f"holds {wrong[0]!r}" if wrong else ""


def _nowhere(played: Round) -> str:
    return "" if abstains(played.heard) else "answers a question about nothing stated"


def _other_user(played: Round) -> str:
    shown = [played.heard.text, *played.heard.sources]
    given = [form for form in played.turn.never if any(holds(text, form) for text in shown)]
    return f"gives away {given[0]!r}" if given else ""


def _remember(played: Round) -> str:
    kept = "\n".join(played.after)
    lost = [form for form in played.turn.keeps if not holds(kept, form)]
    if lost:
        return f"kept nothing with {lost[0]!r}"
    return "abstains" if abstains(played.heard) else ""


def _forget(played: Round) -> str:
    turn, kept = played.turn, "\n".join(played.after)
    early = [v for v in turn.gone if not holds("\n".join(played.halfway), v)]
    left = [v for v in turn.gone if holds(kept, v)]
    lost = [v for v in turn.stays if not holds(kept, v)]
    if left:
        return f"{left[0]!r} is still kept"
    if lost:
        return f"{lost[0]!r} is gone too"
    if early:
        return f"{early[0]!r} was erased without asking"
    return f"keeps the request: {played.new}" if played.new else ""


def _not_kept(played: Round) -> str:
    return f"kept: {[text[:60] for text in played.new]}" if played.new else ""


def _bare(text: str) -> str:
    """Words of a text with single spaces, no punctuation."""
    return " ".join(re.findall(r"\w+", fold(text)))


def _content(text: str) -> set[str]:
    """Words that say something: of four letters or more, numbers, pairs of ideographs."""
    words = re.findall(r"\w+", fold(text))
    pairs = {w[n : n + 2] for w in words if w >= IDEOGRAPHS for n in range(len(w) - 1)}
    return {w for w in words if len(w) >= 4 or any(c.isdigit() for c in w)} | pairs


_RULES = {
    "statement": _statement,
    "small talk": _small_talk,
    "asked back": _answer,
    "newest": _answer,
    "before": _answer,
    "follow-up": _answer,
    "never stated": _nowhere,
    "other user": _other_user,
    "remember": _remember,
    "forget": _forget,
    "not kept": _not_kept,
}
