"""The heading of a passage, within a limit: title, headings above it, and enclosing items."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Counter = Callable[[Sequence[str]], list[int]]

SEPARATOR = " > "
DETAIL = " · "  # in a title, before the document's other names
MAX_PATH_TOKENS = 40  # and at most a quarter of the budget
MAX_HEADER_TOKENS = 64  # of a table's header row; and at most a quarter of the budget
MIN_CONTEXT_TOKENS = 4  # with less room, a passage carries no parents and no header
MAX_TOKEN_CHARACTERS = 40  # longer texts per token of a limit are shortened before the count
MAX_PARENT_TOKENS = 16  # of one item above a passage


@dataclass(frozen=True, slots=True)
class Path:
    """The headings above a section.

    `first` stands above the passage that contains the heading lines of `unsaid` (positions in the
    list of headings), which did not fit. `later` stands above the passages after it, and has such a
    heading in a short form.
    """

    first: str
    later: str
    unsaid: frozenset[int]


@dataclass(slots=True)
class Measure:
    """Counts the tokens of short texts, each of them once."""

    count_tokens: Counter
    known: dict[str, int] = field(default_factory=lambda: {"": 0})

    def learn(self, texts: Sequence[str]) -> None:
        """Count these texts in one call."""
        new = list(dict.fromkeys(t for t in texts if t not in self.known))
        self.known.update(zip(new, self.count_tokens(new) if new else [], strict=True))

    def of(self, text: str) -> int:
        """The tokens of one text."""
        if text not in self.known:
            self.known[text] = self.count_tokens([text])[0]
        return self.known[text]


def path_of(title: str, headings: Sequence[str], limit: int, measure: Measure) -> Path:
    """The path of headings below a title in at most `limit` tokens.

    Where it is too long, the top (the title, else the first heading) stays, then come the last
    headings, then the others. A title that alone is too long is shortened at a word.
    """
    skip = 1 if title and headings and _is_same(title, headings[0]) else 0
    names = ([title] if title else []) + list(headings[skip:])
    own = len(names) - len(headings[skip:])  # 1 where the title stands before the headings
    whole = SEPARATOR.join(names)
    if not names or measure.of(whole) <= limit:
        return Path(whole, whole, frozenset())
    top = names[0]
    if measure.of(top) > limit:
        last = measure.of(names[-1]) if len(names) > 1 else limit
        top = shortened(top, limit - last - 1 if last <= limit // 2 - 1 else limit, measure)
    kept = {0: top} if top else {}
    for position in range(len(names) - 1, 0, -1):
        if measure.of(_joined({**kept, position: names[position]})) <= limit:
            kept[position] = names[position]
    later = dict(kept)
    if len(names) > 1 and len(names) - 1 not in later:
        room = limit - measure.of(_joined(later)) - 1
        later[len(names) - 1] = shortened(names[-1], room, measure)
    unsaid = {n for n in range(len(names)) if n >= own and kept.get(n) != names[n]}
    first = {n: name for n, name in kept.items() if n not in unsaid}
    moved = frozenset(n - own + skip for n in unsaid)
    if skip and own and top != title:
        moved |= {0}
    return Path(_joined(first), _joined(later), moved)


def under(path: str, parents: Sequence[str], header: str, budget: int, measure: Measure) -> str:
    """The heading of a passage that begins below these parents, or in a table with this header."""
    limit = min(MAX_PATH_TOKENS, budget // 4)
    if limit < MIN_CONTEXT_TOKENS:
        return path
    if header:
        limit //= 2
    short = [s for p in parents if (s := shortened(p, min(MAX_PARENT_TOKENS, limit), measure))]
    named = SEPARATOR.join(p for p in (path, path_of("", short, limit, measure).first) if p)
    row = shortened(header, min(MAX_HEADER_TOKENS, budget // 4), measure) if header else ""
    if len(row) * 2 < len(header):
        row = ""
    heading = "\n".join(p for p in (named, row) if p)
    return heading if measure.of(heading) <= budget * 5 // 8 else path


def shortened(text: str, limit: int, measure: Measure) -> str:
    """The longest beginning of `text` of at most `limit` tokens that ends at a word."""
    longest = MAX_TOKEN_CHARACTERS * max(1, limit)
    is_longer = len(text) > longest
    text = " ".join(text[:longest].split())
    if not is_longer and measure.of(text) <= limit:
        return text
    words = text.split(" ")
    joined = " "
    if len(words) == 1:
        words = list(text[: 4 * max(0, limit)])
        joined = ""
    low = 0
    high = min(len(words) - 1, 4 * max(0, limit))
    while low < high:
        middle = (low + high + 1) // 2
        if measure.of(joined.join(words[:middle])) <= limit:
            low = middle
        else:
            high = middle - 1
    return joined.join(words[:low]).rstrip(" ,;:–-")


def _joined(names: dict[int, str]) -> str:
    return SEPARATOR.join(names[n] for n in sorted(names) if names[n])


def _is_same(title: str, heading: str) -> bool:
    """True where both say the same, whatever their capitals, accents' form and punctuation."""
    wanted = _bare(heading)
    last = title.rsplit(SEPARATOR, 1)[-1]
    return bool(wanted) and wanted in map(_bare, (title, last, last.split(DETAIL, 1)[0]))


def _bare(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
