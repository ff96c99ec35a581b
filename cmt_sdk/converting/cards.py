"""Address books (vcf) and calendars (ics) to lines that people read. Knows no other format.

Both are content lines, "NAME;PARAMETER=VALUE:VALUE", by RFC 6350 and RFC 5545; vCard 2.1 adds
quoted-printable.
"""

from __future__ import annotations

import quopri
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cmt_sdk.converting.result import Converted
from cmt_sdk.converting.text import from_text

LINE = re.compile(r"(?:[\w-]+\.)?([\w-]+)((?:;(?:[^:;\"]|\"[^\"]*\")*)*):(.*)", re.DOTALL)
PARAMETER = re.compile(r";([\w-]+)(?:=((?:[^;\"]|\"[^\"]*\")*))?")
CARD_FIELDS = {
    "NICKNAME": "nickname",
    "ORG": "organization",
    "TITLE": "title",
    "ROLE": "role",
    "TEL": "phone",
    "EMAIL": "e-mail",
    "IMPP": "chat",
    "ADR": "address",
    "URL": "web",
    "BDAY": "birthday",
    "ANNIVERSARY": "anniversary",
    "RELATED": "related",
    "CATEGORIES": "categories",
    "NOTE": "note",
}  # fields of a card that people fill in, with the label for each
EVENT_FIELDS = {
    "LOCATION": "location",
    "STATUS": "status",
    "RRULE": "repeats",
    "ORGANIZER": "organizer",
    "ATTENDEE": "with",
    "DESCRIPTION": "description",
    "COMMENT": "comment",
    "URL": "web",
}
EVENTS = ("VEVENT", "VTODO", "VJOURNAL")
QUIET_TYPES = frozenset({"internet", "voice", "pref", "x-internet", "quoted-printable"})


@dataclass(slots=True)
class _Entry:
    """One card, or one event, to-do or journal entry."""

    kind: str
    lines: list[_Line] = field(default_factory=list)

    def first(self, name: str) -> str:
        """The value of a field; empty where it has none."""
        return next((_plain(line.value) for line in self.lines if line.name == name), "")


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    parameters: dict[str, str]
    value: str


def from_cards(data: bytes, path: Path) -> Converted:
    """The people of an address book, each under their name."""
    converted = from_text(data, path)
    texts = ["\n".join(_card(entry)) for entry in _entries(converted.text, ("VCARD",))]
    return Converted("\n\n".join(text for text in texts if text), left_out=converted.left_out)


def from_calendar(data: bytes, path: Path) -> Converted:
    """The entries of a calendar, one line each, with the calendar's name as title."""
    converted = from_text(data, path)
    lines = [_event(entry) for entry in _entries(converted.text, EVENTS)]
    title = re.search(r"^X-WR-CALNAME[^:\n]*:(.+)$", converted.text, re.MULTILINE)
    metadata = {"title": _plain(title[1].strip())} if title else {}
    return Converted("\n".join(line for line in lines if line), metadata, converted.left_out)


def _entries(text: str, kinds: Sequence[str]) -> Iterator[_Entry]:
    """The entries of these kinds, without entries nested in them, such as an alarm."""
    entry: _Entry | None = None
    nested = 0
    for line in _lines(text):
        kind = line.value.strip().upper()
        if line.name == "BEGIN":
            nested += entry is not None
            entry = _Entry(kind) if entry is None and kind in kinds else entry
        elif line.name == "END":
            if entry is not None and not nested:
                yield entry
                entry = None
            nested = max(0, nested - 1)
        elif entry is not None and not nested:
            entry.lines.append(line)


def _lines(text: str) -> Iterator[_Line]:
    """Content lines, unfolded and decoded."""
    unfolded = re.sub(r"\n[ \t]", "", text)
    unfolded = re.sub(
        r"(?i)((?:^|\n)[^\n:]*QUOTED-PRINTABLE[^\n]*(?:=\n[^\n]*)+)", _joined, unfolded
    )
    for raw in unfolded.split("\n"):
        found = LINE.fullmatch(raw)
        if found is None:
            continue
        parameters = {
            name.upper(): (value or name).strip('"') for name, value in PARAMETER.findall(found[2])
        }
        value = found[3]
        if "QUOTED-PRINTABLE" in found[2].upper():
            charset = parameters.get("CHARSET", "utf-8")
            try:
                value = quopri.decodestring(value.encode()).decode(charset, "replace")
            except LookupError:
                value = quopri.decodestring(value.encode()).decode("utf-8", "replace")
        yield _Line(found[1].upper(), parameters, value)


def _joined(found: re.Match[str]) -> str:
    return found[0].replace("=\n", "")


def _plain(value: str) -> str:
    r"""A value without its escapes: "\n", "\," and "\;"."""
    text = re.sub(r"\\(.)", lambda m: "\n" if m[1] in "nN" else m[1], value, flags=re.DOTALL)
    return " ".join(text.split())


def _listed(value: str) -> str:
    """A value of several parts, such as an address, the empty ones left out."""
    return ", ".join(filter(None, map(_plain, re.split(r"(?<!\\);", value))))


def _card(entry: _Entry) -> Iterator[str]:
    name = entry.first("FN")
    if not name:
        parts = re.split(r"(?<!\\);", next((x.value for x in entry.lines if x.name == "N"), ""))
        name = " ".join(filter(None, map(_plain, [*parts[1:3], *parts[:1]])))
    name = name or entry.first("ORG")
    if name:
        yield f"## {name}"
        yield ""
    for line in entry.lines:
        label = CARD_FIELDS.get(line.name)
        value = _listed(line.value)
        if label and value and "data:" not in value[:5]:
            types = [
                word
                for word in line.parameters.get("TYPE", "").lower().split(",")
                if word not in QUIET_TYPES
            ]
            kind = f" ({', '.join(types)})" if any(types) else ""
            yield f"{label}{kind}: {value.removeprefix('tel:')}"


def _event(entry: _Entry) -> str:
    """An entry as a line: its time, its summary, and the other fields."""
    start = _moment(entry, "DTSTART") or _moment(entry, "DUE")
    end = _moment(entry, "DTEND")
    if end.startswith(start[:10]) and len(end) > 10:
        end = end[11:]
    when = f"{start} to {end}" if start and end and len(start) > 10 else start
    what = ": ".join(filter(None, (when, entry.first("SUMMARY"))))
    rest: dict[str, list[str]] = {}
    for line in entry.lines:
        label = EVENT_FIELDS.get(line.name)
        value = line.parameters.get("CN") or _plain(
            line.value.removeprefix("mailto:").removeprefix("MAILTO:")
        )
        if label and value:
            rest.setdefault(label, []).append(value)
    more = [f"{label}: {', '.join(values)}" for label, values in rest.items()]
    return "; ".join(filter(None, (what, *more)))


def _moment(entry: _Entry, name: str) -> str:
    """A time as "2026-03-04 09:30", of the place that the entry names, or "UTC"."""
    value = entry.first(name)
    for form, shown in (
        ("%Y%m%dT%H%M%SZ", "%Y-%m-%d %H:%M UTC"),
        ("%Y%m%dT%H%M%S", "%Y-%m-%d %H:%M"),
        ("%Y%m%d", "%Y-%m-%d"),
    ):
        try:
            return datetime.strptime(value, form).strftime(shown)  # noqa: DTZ007 - the file's own clock
        except ValueError:
            continue
    return value
