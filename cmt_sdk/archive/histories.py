"""Compares and merges two histories of one document, ours and an archive's. Knows no store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from cmt_sdk.types import Document, tail_of

Choice: TypeAlias = Literal["ours", "theirs", "both"]
State: TypeAlias = Literal["same", "ahead", "behind", "diverged"]
CHOICES: tuple[Choice, ...] = ("ours", "theirs", "both")
NAMED = 5  # diverged documents that an error names
HOW = (
    "choose for all of them: diverged='theirs' (`cmt`: --theirs) makes {there}'s text the"
    " current one, diverged='ours' (`cmt`: --ours) keeps the one here, each with the other in its"
    " history; diverged='both' (`cmt`: --both) adds {there}'s as another document"
)
Histories: TypeAlias = Sequence[Document]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an archive's history relates to ours.

    Attributes:
        state: which of the two has versions that the other lacks.
        newer: the archive's versions that are not here.
        base: our last version that both have.
    """

    state: State
    newer: Sequence[Document] = ()
    base: Document | None = None


def compare(ours: Histories, theirs: Histories) -> Comparison:
    """Compare two histories, oldest version first.

    Two versions are the same by number and text, or else by text alone: two machines can have
    counted differently.
    """
    mine = ours[-1]
    last = theirs[-1]
    if mine.text == last.text:
        return Comparison("same", base=mine)
    here = _place(last, ours)
    there = _place(mine, theirs)
    if here is not None and there is not None:  # a text that came back: its number decides
        here = _exact(last, ours)
        there = _exact(mine, theirs)
    if there is not None and here is None:
        return Comparison("ahead", theirs[there + 1 :], mine)
    if here is not None and there is None:
        return Comparison("behind", base=ours[here])
    places = [(_place(version, ours), n) for n, version in enumerate(theirs)]
    common = [(place, n) for place, n in places if place is not None]
    if not common:
        return Comparison("diverged", theirs)
    place, n = common[-1]
    return Comparison("diverged", theirs[n + 1 :], ours[place])


def _exact(version: Document, history: Histories) -> int | None:
    return next(
        (
            n
            for n, v in enumerate(history)
            if (v.version, v.text) == (version.version, version.text)
        ),
        None,
    )


def _place(version: Document, history: Histories) -> int | None:
    """Return the index of a version in a history; None where it has none."""
    exact = _exact(version, history)
    return (
        exact
        if exact is not None
        else max((n for n, v in enumerate(history) if v.text == version.text), default=None)
    )


def match_rank(mine: Document, theirs: Histories) -> int | None:
    """Return how surely a document here, which shares a text with the archive's, is that one.

    Two files with one text are two documents, as they are when they are added.

    Returns:
        0, the surest: both have the same source, or none. 1: their sources end in the same two
        names, since home folders differ between machines. 2: only one has a source, and the
        present text here is one of `theirs`, as when a file is added whose text was added before.
        None: they are two documents.
    """
    last = theirs[-1]
    if mine.source == last.source:
        return 0
    if not (mine.source and last.source):
        return 2 if mine.text in {version.text for version in theirs} else None
    return 1 if tail_of(mine.source) == tail_of(last.source) != "" else None


def numbered(versions: Sequence[Document], after: int) -> list[Document]:
    """Return the versions with their own numbers where those come after `after`, else with the next
    numbers.
    """
    if versions and versions[0].version > after:
        return list(versions)
    return [replace(version, version=after + n) for n, version in enumerate(versions, 1)]


def with_fields(mine: Document, last: Document, now: datetime, *, same_id: bool) -> Document:
    """Return our document with the archive's fields where those changed later, metadata key by key.

    With `same_id` False our fields stay, since a source is a place on this machine; missing ones
    are filled in, as when a text is added again.
    """
    if not same_id:
        metadata = {**last.metadata, **mine.metadata}
        filled = replace(mine, source=mine.source or last.source, metadata=metadata)
        return mine if filled == mine else replace(filled, updated_at=now)
    if last.updated_at is None or (
        mine.updated_at is not None and last.updated_at <= mine.updated_at
    ):
        return mine
    metadata = {**mine.metadata, **last.metadata}
    source = last.source or mine.source
    changed = replace(
        mine, source=source, scope=last.scope, metadata=metadata, expires_at=last.expires_at
    )
    if changed == mine:
        return mine
    as_theirs = (source, metadata) == (last.source, last.metadata)
    return replace(changed, updated_at=last.updated_at if as_theirs else now)


def versions_to_append(
    mine: Document, found: Comparison, choice: Choice, now: datetime, *, same_id: bool
) -> list[Document]:
    """Return the versions to append to our document; the last becomes the current one.

    With the choice "ours", our current version is appended again after theirs: both histories then
    end alike.
    """
    newer = numbered(found.newer, mine.version)
    if choice == "ours":
        return [
            *(replace(version, current=False) for version in newer),
            replace(mine, version=newer[-1].version + 1),
        ]
    *earlier, last = newer
    fields = with_fields(mine, last, now, same_id=same_id)
    return [
        *earlier,
        replace(
            fields, text=last.text, version=last.version, current=True, updated_at=last.updated_at
        ),
    ]


def divergence_message(
    diverged: Sequence[tuple[Document, Document, Comparison]], count: int, there: str
) -> str:
    """Return the message about documents that changed here and elsewhere.

    Args:
        diverged: our document, the other last version, and their comparison, for each.
        count: how many diverged; `diverged` can hold fewer.
        there: what the others are from, such as "the archive".
    """
    documents = "1 document" if count == 1 else f"{count:,} documents"
    lines = [f"{documents} went on here and in {there}; nothing was stored"]
    for mine, last, found in diverged:
        base = (
            f"both after version {found.base.version} here"
            if found.base
            else "with no version in common"
        )
        name = f"{mine.source} ({mine.id})" if mine.source else repr(mine.id)
        lines.append(f"{name:.200}: here {_dated(mine)}, in {there} {_dated(last)}, {base}")
    if count > len(diverged):
        lines.append(f"and {count - len(diverged):,} more")
    return "\n".join([*lines, HOW.format(there=there)])


def _dated(version: Document) -> str:
    return (
        f"version {version.version} of {version.updated_at:%Y-%m-%d %H:%M} UTC"
        if version.updated_at
        else f"{version.version}"
    )
