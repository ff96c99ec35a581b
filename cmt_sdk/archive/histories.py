"""Two histories of one document, ours and an archive's: which is ahead, and what follows from it.

Knows no store.
"""

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
    "choose for all of them: diverged='theirs' (`cmt`: --theirs) makes the archive's text the"
    " current one, diverged='ours' (`cmt`: --ours) keeps the one here, each with the other in its"
    " history; diverged='both' (`cmt`: --both) adds the archive's as another document"
)
Histories: TypeAlias = Sequence[Document]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an archive's history is to ours.

    `newer` are its versions that are not here, `base` is the last common one of ours.
    """

    state: State
    newer: Sequence[Document] = ()
    base: Document | None = None


def compare(ours: Histories, theirs: Histories) -> Comparison:
    """Compare two histories, oldest version first.

    A version is known by its number and text, or else by its text alone: two machines may have
    counted differently.
    """
    mine, last = ours[-1], theirs[-1]
    if mine.text == last.text:
        return Comparison("same", base=mine)
    here, there = _place(last, ours), _place(mine, theirs)
    if here is not None and there is not None:  # a text that came back: its number tells
        here, there = _exact(last, ours), _exact(mine, theirs)
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
    """Where a version stands in a history; None where it does not."""
    exact = _exact(version, history)
    return (
        exact
        if exact is not None
        else max((n for n, v in enumerate(history) if v.text == version.text), default=None)
    )


def kinship(mine: Document, theirs: Histories) -> int | None:
    """How surely a document here, that shares a text with the archive's, is that one; None: it is
    not.

    The least is the surest: 0 for one source, or none on both sides; 1 for sources that end in the
    same two names, as homes are called differently on two machines; 2 where only one of them has a
    source, and the present text here is one of `theirs`, as when a file is added whose text was
    given before. Two files with one text are two documents, as they are when they are added.
    """
    last = theirs[-1]
    if mine.source == last.source:
        return 0
    if not (mine.source and last.source):
        return 2 if mine.text in {version.text for version in theirs} else None
    return 1 if tail_of(mine.source) == tail_of(last.source) != "" else None


def numbered(versions: Sequence[Document], after: int) -> list[Document]:
    """The versions with their own numbers where those come after `after`, else the next ones."""
    if versions and versions[0].version > after:
        return list(versions)
    return [replace(version, version=after + n) for n, version in enumerate(versions, 1)]


def with_fields(mine: Document, last: Document, now: datetime, *, same_id: bool) -> Document:
    """Our document with the archive's fields, where these changed later; metadata key by key.

    Under another id ours stay, as a source is where the text lies on this machine; those that ours
    lacks come along, as when a text is added again.
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


def gone_on(
    mine: Document, found: Comparison, choice: Choice, now: datetime, *, same_id: bool
) -> list[Document]:
    """The versions with which our document goes on; the last becomes the current one.

    Ours, where both went on and `choice` says so, comes once more after theirs: then the histories
    are no longer apart.
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


def told(diverged: Sequence[tuple[Document, Document, Comparison]], count: int) -> str:
    """The message about documents that went on here and in an archive.

    Each is ours, the archive's last version, and what the two have in common.
    """
    documents = "1 document" if count == 1 else f"{count:,} documents"
    lines = [f"{documents} went on here and in the archive; nothing was imported"]
    for mine, last, found in diverged:
        base = (
            f"both after version {found.base.version} here"
            if found.base
            else "with no version in common"
        )
        name = f"{mine.source} ({mine.id})" if mine.source else repr(mine.id)
        lines.append(f"{name:.200}: here {_dated(mine)}, in the archive {_dated(last)}, {base}")
    if count > len(diverged):
        lines.append(f"and {count - len(diverged):,} more")
    return "\n".join([*lines, HOW])


def _dated(version: Document) -> str:
    return (
        f"version {version.version} of {version.updated_at:%Y-%m-%d %H:%M} UTC"
        if version.updated_at
        else f"{version.version}"
    )
