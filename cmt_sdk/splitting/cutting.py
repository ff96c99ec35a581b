"""Blocks of one section to passages within a token budget, cut where the text around says. Knows
no format.

Where a passage ends depends on the kind of the place and on the characters around it, not on how
much text came before: so a line more or less in a long section moves the cuts near it, and those
after are the same again.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from cmt_sdk.splitting.boundaries import Finder, is_wrapped, ladder, pieces
from cmt_sdk.splitting.elements import Block, Kind, Rank, trimmed
from cmt_sdk.splitting.headings import Measure, Path, under
from cmt_sdk.types import Span

# of the room: a passage that is followed by others is at least so full, where it can be
SMALLEST = 0.35
WELL_FILLED = 0.5  # of the room: among places from here on the best kind is chosen
LEAST_SHARE = 0.1  # the weight of the smallest passage in the draw; 0.65 is that of a full one
FEWEST = 0.1  # of the budget: what follows an item and is smaller than this stays with it
KEPT_LINES = 0.4  # of the room: a block of lines up to this size stays whole
CONTEXT = 24  # characters on each side of a place that decide whether it is chosen


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under one path of headings; the first `unsaid` blocks are heading lines that the
    path does not contain.
    """

    path: Path
    blocks: Sequence[Block]
    unsaid: int = 0


@dataclass(frozen=True, slots=True)
class _Atom:
    """A part of a block that is not cut."""

    start: int
    end: int
    cost: int
    rank: Rank
    block: int
    begins: bool  # its block


@dataclass(slots=True)
class _Open:
    """A part of a block that may be too long: the places that were not tried yet."""

    start: int
    end: int
    rank: Rank
    block: int
    begins: bool
    ladder: Sequence[tuple[Rank, Finder]] | None = None


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts the sections of one text. `budget` is the size of a passage with its heading."""

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
        """Where the item or table ends whose name stands in the heading: what follows does not
        belong under it.
        """
        first = section.blocks[atoms[start].block]
        if not first.parents and not first.header:
            return stop
        smallest = SMALLEST * (self.budget - self.measure.of(section.path.first))
        # no passage of its own for a rest
        last = stop if stop < len(atoms) else _first(ends, ends[-1] - FEWEST * self.budget)
        for at in range(start + 1, min(stop, last)):
            block = section.blocks[atoms[at].block]
            if (block.parents[:1], block.header) != (first.parents[:1], first.header) and ends[
                at
            ] - ends[start] >= smallest:
                return at
        return stop

    def _room(self, section: Section, block: Block) -> int:
        """The tokens that the text of a passage within this block may have."""
        parents = (*block.parents, block.label) if block.label else block.parents
        paths = (section.path.first, section.path.later)
        headings = [under(p, parents, block.header, self.budget, self.measure) for p in paths]
        return self.budget - max(self.measure.of(h) + 1 if h else 0 for h in (*headings, *paths))

    def _gap(self, start: int, end: int) -> int:
        between = self.text[start:end]
        return self.measure.of(between) if "\n" in between and len(between) < 80 else 0

    def _atoms(self, section: Section) -> list[_Atom]:
        """The parts of all blocks, each small enough for a passage; parts of one kind are counted
        in one call.
        """
        rooms = [self._room(section, block) for block in section.blocks]
        waiting = [_Open(b.start, b.end, b.rank, n, True) for n, b in enumerate(section.blocks)]
        done: list[_Atom] = []
        while waiting:
            costs = self.measure.count_tokens([self.text[p.start : p.end] for p in waiting])
            smaller: list[_Open] = []
            for part, cost in zip(waiting, costs, strict=True):
                keep = self._keep(section.blocks[part.block], part)
                if cost <= keep * rooms[part.block] or part.ladder == []:
                    done.append(
                        _Atom(part.start, part.end, cost, part.rank, part.block, part.begins)
                    )
                    continue
                cut = self._cut(part, section.blocks[part.block].kind)
                if len(cut) == 1 and cost <= rooms[part.block]:
                    done.append(
                        _Atom(part.start, part.end, cost, part.rank, part.block, part.begins)
                    )
                else:
                    smaller += cut
            waiting = smaller
        return sorted(done, key=lambda a: a.start)

    def _keep(self, block: Block, part: _Open) -> float:
        """The share of the room up to which this part stays whole."""
        if part.ladder is not None:
            return 1
        if block.kind is not Kind.TEXT or block.keep > KEPT_LINES:
            return block.keep
        body = self.text[part.start : part.end]
        return KEPT_LINES if "\n" in body and not is_wrapped(body) else block.keep

    def _cut(self, part: _Open, kind: Kind) -> list[_Open]:
        """The part at the best kind of place that it has; the part itself where it has none."""
        body = self.text[part.start : part.end]
        rungs = ladder(body, kind) if part.ladder is None else part.ladder
        for tried, (rank, finder) in enumerate(rungs):
            cut = [
                trimmed(self.text, part.start + a, part.start + b) for a, b in pieces(body, finder)
            ]
            cut = [(a, b) for a, b in cut if b > a]
            if len(cut) < 2:
                continue
            is_halving = tried >= len(rungs) - 2
            rest = rungs[tried:] if is_halving else rungs[tried + 1 :]
            first = _Open(*cut[0], part.rank, part.block, part.begins, rest)
            return [first, *(_Open(a, b, rank, part.block, False, rest) for a, b in cut[1:])]
        part.ladder = []
        return [part]

    def _end(
        self, atoms: Sequence[_Atom], ends: Sequence[int], start: int, limit: int, room: int
    ) -> int:
        """Where the passage that begins at `start` ends: the position behind its last atom."""
        done = ends[start]
        rest = ends[-1] - done
        if rest <= limit:
            return len(atoms)
        far = max(start + 1, bisect_right(ends, done + limit) - 1)
        last = range(max(start + 1, _first(ends, ends[-1] - room)), far + 1)
        near = range(max(start + 1, _first(ends, done + SMALLEST * limit)), far + 1)
        filled = [at for at in near if ends[at] - done >= WELL_FILLED * limit]
        best = min((atoms[at].rank for at in filled), default=Rank.LETTER)
        # two passages that tear no sentence
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
        """The cut between the last two passages: at the best kind of place near the middle."""
        done = ends[start]
        rest = ends[-1] - done
        middle = [at for at in fitting if SMALLEST <= (ends[at] - done) / rest <= 1 - SMALLEST]
        if not middle:
            return min(fitting, key=lambda at: (abs(ends[at] - done - rest / 2), -at))
        return min(middle, key=lambda at: (atoms[at].rank, abs(ends[at] - done - rest / 2), -at))

    def _share(self, ends: Sequence[int], start: int, at: int, limit: int) -> float:
        """The weight of a place in the draw: fuller passages are likelier."""
        return max(LEAST_SHARE, (ends[at] - ends[start]) / max(1, limit) - SMALLEST)

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
