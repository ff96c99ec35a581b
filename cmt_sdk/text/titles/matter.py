"""Facts at the top of a text: title, aliases, tags and date. Pure: knows no file.

Formats: YAML between lines of `---`, TOML between lines of `+++`, the properties of Logseq
(`title:: x`), Org (`#+TITLE: x`), MultiMarkdown (`Title: x`), Pandoc (`% x`) and LaTeX.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

MAX_MATTER_CHARACTERS = 16_384  # of front matter; a longer block is text
MAX_BRACKETS = 500  # in front matter
FENCED = re.compile(r"\s*(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*$", re.S | re.M)
ORG = re.compile(r"#\+(\w+):[ \t]*(.*)|:(\w+):[ \t]*(.*)")
LOGSEQ = re.compile(r"(?:-[ \t]+)?([\w-]+)::[ \t]*(.*)")
PLAIN = re.compile(r"[ \t]*[\"']?([\w -]+?)[\"']?[ \t]*[:=][ \t]*(.*)")
PANDOC = re.compile(r"\s*%[ \t]+(\S.*)")
LATEX = re.compile(r"\\title\s*\{([^{}]+)\}")
MAX_LINE_CHARACTERS = 500  # of a line that are read: no name is longer
ATX = re.compile(r"#{1,6}[ \t]+(\S.*)")
UNDERLINE = re.compile(r"(?:={3,}|-{3,})[ \t]*")
CLOSING = re.compile(r"(?<=[ \t])#+$")
LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]+)\]\]")
KEYS = {
    "title": "title",
    "alias": "aliases",
    "aliases": "aliases",
    "roam_aliases": "aliases",
    "tags": "tags",
    "tag": "tags",
    "keywords": "tags",
    "filetags": "tags",
    "categories": "tags",
    "date": "date",
}


@dataclass(frozen=True, slots=True)
class Matter:
    """The names of a document in its text and metadata; `heading` is a heading on line one."""

    title: str = ""
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    date: str = ""
    heading: str = ""


def matter_of(text: str, metadata: Mapping[str, object]) -> Matter:
    """The facts at the top of a text and in its metadata; the metadata take precedence."""
    top = text[:MAX_MATTER_CHARACTERS].lstrip("\ufeff")
    found, rest = _top(top)
    merged = {**found, **_known(metadata.items())}
    return Matter(
        title=_line(merged.get("title")),
        aliases=tuple(_list(merged.get("aliases"))),
        tags=tuple(tag for entry in _list(merged.get("tags")) for tag in _tags(entry)),
        date=_date(merged.get("date")),
        heading=_heading(rest),
    )


def _top(top: str) -> tuple[dict[str, object], str]:
    """The properties at the top of a text, and the text after them."""
    if fenced := FENCED.match(top):
        read = _yaml if fenced[1] == "---" else _toml
        return _known(read(fenced[2])), top[fenced.end() :]
    pandoc = PANDOC.match(top)
    if pandoc:
        return {"title": pandoc[1]}, top[pandoc.end() :]
    found = dict(_properties(top))
    if not found and (latex := LATEX.search(top)):
        found = {"title": latex[1]}
    return found, top


def _known(pairs: Iterable[tuple[object, object]]) -> dict[str, object]:
    """The properties that name a document, under their usual keys; the first of several wins."""
    found: dict[str, object] = {}
    for key, value in pairs:
        name = KEYS.get(str(key).strip().casefold().replace("-", "_"))
        if name and value not in (None, "", []):
            found.setdefault(name, value)
    return found


def _yaml(block: str) -> Iterable[tuple[object, object]]:
    """The pairs of a YAML mapping, with each value as it is written; broken ones line by line."""
    import yaml

    if sum(map(block.count, "[{")) > MAX_BRACKETS:  # nested, they take quadratic time
        return _lines(block)
    try:
        read = yaml.BaseLoader(block).get_single_data()  # returns only texts, lists and mappings
    except (yaml.YAMLError, RecursionError):
        read = None
    return read.items() if isinstance(read, dict) else _lines(block)


def _toml(block: str) -> Iterable[tuple[object, object]]:
    try:
        return tomllib.loads(block).items()
    except (tomllib.TOMLDecodeError, RecursionError):
        return _lines(block)


def _lines(block: str) -> Iterator[tuple[object, object]]:
    """Pairs of a block that is no valid YAML or TOML, one per line."""
    for line in block.splitlines():
        if found := PLAIN.fullmatch(line[:MAX_LINE_CHARACTERS]):
            yield found[1], found[2].strip().strip("\"'[]")


def _properties(top: str) -> Iterator[tuple[str, object]]:
    """Properties in the first lines of a text.

    These are Logseq's, Org's, or a header that begins with Title.
    """
    header = False
    for number, line in enumerate(
        line.strip()[:MAX_LINE_CHARACTERS] for line in top.lstrip().splitlines()
    ):
        org = ORG.fullmatch(line)
        logseq = LOGSEQ.fullmatch(line)
        plain = PLAIN.fullmatch(line)
        header = header or bool(number == 0 and plain and plain[1].casefold() == "title")
        if logseq:
            key = logseq[1]
            value = logseq[2]
        elif org:
            key = org[1] or org[3]
            value = org[2] or org[4] or ""
        elif header and plain:
            key = plain[1]
            value = plain[2]
        else:
            return
        yield from _known([(key, value)]).items()


def _heading(rest: str) -> str:
    """The heading in the first line of a text, if there is one."""
    first, _, after = rest.lstrip().partition("\n")
    first = first[:MAX_LINE_CHARACTERS]
    second = after.partition("\n")[0][:MAX_LINE_CHARACTERS]
    if found := ATX.match(first):
        return _line(CLOSING.sub("", found[1].rstrip()))
    return _line(first) if UNDERLINE.fullmatch(second) else ""


def _line(value: object) -> str:
    """A value on one line, without the marks of links; empty for a value that is not single."""
    if isinstance(value, dict | list) or value is None or "{{" in str(value):  # of a template
        return ""
    return " ".join(LINK.sub(r"\1", str(value)[:MAX_LINE_CHARACTERS]).strip().strip("\"'").split())


def _list(value: object) -> list[str]:
    """The entries of a list, or of a text with commas between them."""
    if isinstance(value, dict):
        return []
    entries = value if isinstance(value, list) else re.split(r"[,;]", _line(value).strip("[]"))
    quoted = re.findall(r'"([^"]+)"', value) if isinstance(value, str) else []
    return [line for entry in quoted or entries if (line := _line(entry))]


def _tags(entry: str) -> list[str]:
    """The tags in one entry, without their signs.

    `#a #b` and `:a:b:` are two tags, `house rent` is one.
    """
    if entry.startswith((":", "#")):
        return [tag for tag in re.split(r"[:#\s]+", entry) if tag]
    return [entry]


def _date(value: object) -> str:
    """A date without time, zone and weekday, as it is written."""
    line = _line(value).strip("<>[]")
    return re.sub(r"(?<=\d{4}-\d\d-\d\d)[T ].*", "", line)
