"""The title of a document, which each of its passages carries for search and reading.

It is made of the metadata, the top of the text, the file's name and its folders. Pure: knows no
store and no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from cmt_sdk.text.titles.matter import Matter, matter_of
from cmt_sdk.text.titles.names import comparable, is_unnamed, readable, says
from cmt_sdk.text.titles.places import Place, place_of
from cmt_sdk.types import Document

__all__ = ["title_of"]

SEPARATOR = " > "  # as between headings
DETAIL = " · "  # before a document's other names
MAX_TITLE_CHARACTERS = 120  # where no tokenizer counts
OTHER_NAMES = ("subject", "file_name", "filename")  # metadata that name a document without a title
OF_FILES = re.compile(r"\.(?:docx?|odt|rtf|pdf|md|txt|html?|tex|pages|indd|xlsx?|pptx?)$", re.I)
MAX_ALIASES = 3
MAX_TAGS = 4


def title_of(
    document: Document,
    fits: Callable[[str], bool] = lambda title: len(title) <= MAX_TITLE_CHARACTERS,
) -> str:
    """The name under which people know a document; empty where it has none.

    It is "folder > name · other name · date · #tag", with the folders that have a meaning, and with
    as many parts behind the name as fit. The name comes first, so that no other name is taken for
    it.

    Args:
        document: Its metadata, text and source are read.
        fits: Returns whether a title is short enough.
    """
    matter = matter_of(document.text, document.metadata)
    source = "" if "role" in document.metadata else document.source or ""
    place = place_of(source)
    name, others = _names(document, matter, place)
    title = _first_fitting(_heads(name, place.folders), fits)
    if not title:
        return ""
    details: list[str] = []
    for detail in _details(matter, others, title):
        if fits(DETAIL.join([title, *details, detail])):
            details.append(detail)
    return DETAIL.join([title, *details])


def _names(document: Document, matter: Matter, place: Place) -> tuple[str, list[str]]:
    """The name of a document, and its other names."""
    given = [matter.title, *(str(document.metadata.get(key) or "") for key in OTHER_NAMES)]
    names = [n for n in (*map(_cleaned, given), place.name, place.spelled) if n]
    if not names:
        return "", list(matter.aliases[:MAX_ALIASES])
    name = names[0]
    if comparable(matter.heading) == comparable(name):
        name = matter.heading  # so that it does not stand twice above the text
    return name, [*names[1:], *matter.aliases[:MAX_ALIASES]]


def _cleaned(title: str) -> str:
    """A title given by a person or a program, on one line; empty where it has no meaning."""
    title = " ".join(title.split()).removeprefix("Microsoft Word - ")
    title = OF_FILES.sub("", title)
    if is_unnamed(title) or not readable(title):
        return ""
    return title if " " in title else readable(title)


def _heads(name: str, folders: tuple[str, ...]) -> Iterator[str]:
    """The name below all folders, below fewer, alone, and then shortened word by word."""
    for first in range(len(folders) + 1):
        yield SEPARATOR.join([*folders[first:], *([name] if name else [])])
    words = name.split(" ")
    for count in range(len(words) - 1, 0, -1):
        yield " ".join(words[:count])


def _first_fitting(titles: Iterator[str], fits: Callable[[str], bool]) -> str:
    return next((title for title in titles if title and fits(title)), "")


def _details(matter: Matter, others: list[str], title: str) -> Iterator[str]:
    """Other names with new words, the date, and the tags; the most meaningful first."""
    for other in others:
        if not says(title, other):
            title += f" {other}"
            yield other
    if not says(title, matter.date):
        yield matter.date
    yield from (f"#{tag}" for tag in matter.tags[:MAX_TAGS] if not says(title, tag))
