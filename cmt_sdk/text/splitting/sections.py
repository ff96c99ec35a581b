"""Blocks of one section to passages within a token budget, split where the text suggests.

The end of a passage depends on the kind of the place and on the characters around it, not on the
amount of text before: an added line moves the boundaries near it, and leaves later ones alone.
Knows no format.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from cmt_sdk.text.splitting.boundaries import Finder, is_wrapped, ladder, pieces
from cmt_sdk.text.splitting.elements import Block, Kind, Rank, trimmed
from cmt_sdk.text.splitting.headings import Measure, Path, under
from cmt_sdk.types import Span

MIN_FILL = 0.35  # of the room: the least that a passage before others fills, where possible
WELL_FILLED = 0.5  # of the room: among places from here on the best kind wins
LEAST_SHARE = 0.1  # the weight of the smallest passage in the draw; 0.65 is that of a full one
MIN_REST = 0.1  # of the budget: a smaller rest behind an item stays with the item
KEPT_LINES = 0.4  # of the room: a block of lines up to this size is not split
CONTEXT = 24  # characters on each side of a place that decide whether it is chosen


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under one path of headings.

    The first `unsaid` blocks are heading lines that the path does not contain.
    """

    path: Path
    blocks: Sequence[Block]
    unsaid: int = 0


@dataclass(frozen=True, slots=True)
class _Atom:
    """A part of a block that is not split further."""

    start: int
    end: int
    cost: int
    rank: Rank
    block: int
    begins: bool  # its block


@dataclass(slots=True)
class _Open:
    """A part of a block that may be too long, with the kinds of places left to try."""

    start: int
    end: int
    rank: Rank
    block: int
    begins: bool
    ladder: Sequence[tuple[Rank, Finder]] | None = None


@dataclass(frozen=True, slots=True)
class SectionSplitter:
    """Splits the sections of one text. `budget` is the size of a passage with its heading."""

    text: str
    measure: Measure
    budget: int

    def spans(self, section: Section) -> Iterator[Span]:
        """The passages of one section."""
        atoms = self._atoms(section)
        gaps = [self._gap(a.end, b.start) for a, b in pairwise(atoms)]
        ends = list(
            accumulate((a.cost + g for a, g in zip(atoms, [*gaps, 0], strict=True)), initial=0)
        )
        start = 0
        while start < len(atoms):
            heading = self._heading(section, atoms[start])
            used = self.measure.of(heading) + 1 if heading else 0
            room = self.budget - used
            limit = room
            while True:
                stop = self._end(atoms, ends, start, limit, room)
                (cost,) = self.measure.count_tokens(
                    [self.text[atoms[start].start : atoms[stop - 1].end]]
                )
                if cost <= room or stop == start + 1:
                    break
                limit = min(
                    ends[stop - 1] - ends[start], limit - max(1, min(cost - room, limit // 8))
                )
            within = self._scope(section, atoms, ends, start, stop)
            if within < stop:
                stop = within
                (cost,) = self.measure.count_tokens(
                    [self.text[atoms[start].start : atoms[stop - 1].end]]
                )
            yield Span(atoms[start].start, atoms[stop - 1].end, cost + used, heading)
            start = stop

    def _heading(self, section: Section, atom: _Atom) -> str:
        path = (
            section.path.first
            if atom.block < section.unsaid or not section.unsaid
            else section.path.later
        )
        block = section.blocks[atom.block]
        parents = block.parents if atom.begins or not block.label else (*block.parents, block.label)
        if not parents and not block.header:
            return path
        return under(path, parents, block.header, self.budget, self.measure)

    def _scope(
        self, section: Section, atoms: Sequence[_Atom], ends: Sequence[int], start: int, stop: int
    ) -> int:
        """The end of the item or table that the heading names; later text is not below it."""
        first = section.blocks[atoms[start].block]
        if not first.parents and not first.header:
            return stop
        smallest = MIN_FILL * (self.budget - self.measure.of(section.path.first))
        # no passage of its own for a rest
        last = stop if stop < len(atoms) else _first(ends, ends[-1] - MIN_REST * self.budget)
        for at in range(start + 1, min(stop, last)):
            block = section.blocks[atoms[at].block]
            if (block.parents[:1], block.header) != (first.parents[:1], first.header) and ends[
                at
            ] - ends[start] >= smallest:
                return at
        return stop

    def _room(self, section: Section, block: Block) -> int:
        """The tokens left for the text of a passage within this block."""
        parents = (*block.parents, block.label) if block.label else block.parents
        paths = (section.path.first, section.path.later)
        headings = [under(p, parents, block.header, self.budget, self.measure) for p in paths]
        return self.budget - max(self.measure.of(h) + 1 if h else 0 for h in (*headings, *paths))

    def _gap(self, start: int, end: int) -> int:
        between = self.text[start:end]
        return self.measure.of(between) if "\n" in between and len(between) < 80 else 0

    def _atoms(self, section: Section) -> list[_Atom]:
        """The parts of all blocks, each small enough for a passage.

        Each round counts the tokens of all parts in one call.
        """
        rooms = [self._room(section, block) for block in section.blocks]
        pending = [_Open(b.start, b.end, b.rank, n, True) for n, b in enumerate(section.blocks)]
        done: list[_Atom] = []
        while pending:
            costs = self.measure.count_tokens([self.text[p.start : p.end] for p in pending])
            smaller: list[_Open] = []
            for part, cost in zip(pending, costs, strict=True):
                keep = self._keep(section.blocks[part.block], part)
                if cost <= keep * rooms[part.block] or part.ladder == []:
                    done.append(
                        _Atom(part.start, part.end, cost, part.rank, part.block, part.begins)
                    )
                    continue
                parts = self._split(part, section.blocks[part.block].kind)
                if len(parts) == 1 and cost <= rooms[part.block]:
                    done.append(
                        _Atom(part.start, part.end, cost, part.rank, part.block, part.begins)
                    )
                else:
                    smaller += parts
            pending = smaller
        return sorted(done, key=lambda a: a.start)

    def _keep(self, block: Block, part: _Open) -> float:
        """The share of the room up to which this part is not split."""
        if part.ladder is not None:
            return 1
        if block.kind is not Kind.TEXT or block.keep > KEPT_LINES:
            return block.keep
        body = self.text[part.start : part.end]
        return KEPT_LINES if "\n" in body and not is_wrapped(body) else block.keep

    def _split(self, part: _Open, kind: Kind) -> list[_Open]:
        """Split the part at its best kind of place; return the part itself where it has none."""
        body = self.text[part.start : part.end]
        rungs = ladder(body, kind) if part.ladder is None else part.ladder
        for tried, (rank, finder) in enumerate(rungs):
            ranges = [
                trimmed(self.text, part.start + a, part.start + b) for a, b in pieces(body, finder)
            ]
            ranges = [(a, b) for a, b in ranges if b > a]
            if len(ranges) < 2:
                continue
            is_halving = tried >= len(rungs) - 2
            rest = rungs[tried:] if is_halving else rungs[tried + 1 :]
            first = _Open(*ranges[0], part.rank, part.block, part.begins, rest)
            return [first, *(_Open(a, b, rank, part.block, False, rest) for a, b in ranges[1:])]
        part.ladder = []
        return [part]

    def _end(
        self, atoms: Sequence[_Atom], ends: Sequence[int], start: int, limit: int, room: int
    ) -> int:
        """The end of the passage that begins at `start`: the position behind its last atom."""
        done = ends[start]
        rest = ends[-1] - done
        if rest <= limit:
            return len(atoms)
        far = max(start + 1, bisect_right(ends, done + limit) - 1)
        last = range(max(start + 1, _first(ends, ends[-1] - room)), far + 1)
        near = range(max(start + 1, _first(ends, done + MIN_FILL * limit)), far + 1)
        filled = [at for at in near if ends[at] - done >= WELL_FILLED * limit]
        best = min((atoms[at].rank for at in filled), default=Rank.LETTER)
        # two passages suffice, and split no sentence
        if last and min(atoms[at].rank for at in last) <= max(best, Rank.NESTED):
            return self._even(atoms, ends, start, last)
        if not filled:
            return far
        fitting = [at for at in near if atoms[at].rank == best]
        return max(
            fitting,
            key=lambda at: (self._draw(atoms, at) ** (1 / self._share(ends, start, at, limit)), at),
        )

    def _even(
        self, atoms: Sequence[_Atom], ends: Sequence[int], start: int, fitting: Sequence[int]
    ) -> int:
        """The boundary between the last two passages: the best kind of place near the middle."""
        done = ends[start]
        rest = ends[-1] - done
        middle = [at for at in fitting if MIN_FILL <= (ends[at] - done) / rest <= 1 - MIN_FILL]
        if not middle:
            return min(fitting, key=lambda at: (abs(ends[at] - done - rest / 2), -at))
        return min(middle, key=lambda at: (atoms[at].rank, abs(ends[at] - done - rest / 2), -at))

    def _share(self, ends: Sequence[int], start: int, at: int, limit: int) -> float:
        """The weight of a place in the draw: fuller passages are likelier."""
        return max(LEAST_SHARE, (ends[at] - ends[start]) / max(1, limit) - MIN_FILL)

    def _draw(self, atoms: Sequence[_Atom], at: int) -> float:
        """A number in (0, 1] that only the characters around this place decide."""
        before = self.text[
            max(atoms[at - 1].start, atoms[at - 1].end - CONTEXT) : atoms[at - 1].end
        ]
        after = self.text[atoms[at].start : min(atoms[at].end, atoms[at].start + CONTEXT)]
        return (zlib.crc32(f"{before}\n{after}".encode(errors="replace")) + 1) / 2**32


def _first(ends: Sequence[int], wanted: float) -> int:
    """The first position at which `ends` has reached `wanted`."""
    return bisect_right(ends, wanted - 1e-9)
