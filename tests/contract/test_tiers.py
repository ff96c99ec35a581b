"""A memory under a small `memory_budget`: whatever is added, asked, changed and forgotten, and
however often it is reopened, each passage is compressed, cold or pending, and is read.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cmt_sdk import encoding
from cmt_sdk.testing.fakes import open_fake
from cmt_sdk.types import Document

PLACES = ("mill", "inn", "port", "barn", "tower", "bridge")
COLOURS = ("red", "green", "blue")
budgets = st.sampled_from([0, 1, 200, 300, 500])
places = st.sampled_from(PLACES)
colours = st.sampled_from(COLOURS)


def text_of(place: str, colour: str) -> str:
    """What is known of a place."""
    return f"The door of the {place} is {colour}."


class Tiers(RuleBasedStateMachine):
    """`self.known` has the colour of each place that the memory knows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.known: dict[str, str] = {}
        self.budget = 300
        self.memory = open_fake(self.folder / "notes", memory_budget=self.budget)

    def teardown(self) -> None:
        """The folder goes."""
        self.memory.close()
        shutil.rmtree(self.folder)

    @rule(place=places, colour=colours, compress=st.booleans())
    def tell(self, place, colour, compress) -> None:
        """Add a place, or change it."""
        document = Document(text_of(place, colour), id=place, source=place)
        self.memory.add_many([document], replace=True, compress=compress)
        self.known[place] = colour

    @precondition(lambda self: self.known)
    @rule(data=st.data(), settles=st.booleans())
    def ask(self, data, settles) -> None:
        """A known place is answered; sometimes the next call comes before it is compressed."""
        place = data.draw(st.sampled_from(sorted(self.known)))
        answer = self.memory.ask(f"What colour has the door of the {place}?", source=place)
        assert answer.text == text_of(place, self.known[place])
        if settles:
            assert self.memory.wait(60)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(1, 6))
    def ask_for_all(self, number) -> None:
        """Compressed, cold and pending passages stand in one prompt."""
        assert self.memory.ask("What colours have the doors?", k=number).text

    @precondition(lambda self: self.known)
    @rule(data=st.data(), erase=st.booleans())
    def take_out(self, data, erase) -> None:
        """Delete a place, or forget it."""
        place = data.draw(st.sampled_from(sorted(self.known)))
        del self.known[place]
        if not erase:
            self.memory.delete(place)
            return
        assert self.memory.forget(place).complete
        for file in (self.folder / "notes").iterdir():
            assert f"of the {place} is".encode() not in file.read_bytes()

    @rule(budget=budgets)
    def reopen(self, budget) -> None:
        """Another process goes on, with another budget."""
        self.memory.close()
        self.budget = budget
        self.memory = open_fake(self.folder / "notes", memory_budget=budget)

    @rule()
    def compress(self) -> None:
        """Nothing is pending then, and the budget holds."""
        assert self.memory.wait(60)
        self.memory.compress()
        stats = self.memory.stats()
        assert stats.pending == 0
        assert not self.budget or stats.memory_bytes <= self.budget

    @invariant()
    def everything_is_there(self) -> None:
        """Each passage is in one tier, and its text is whole."""
        assert {d.id: d.text for d in self.memory.documents()} == {
            place: text_of(place, colour) for place, colour in self.known.items()
        }
        stats = self.memory.stats()
        assert stats.passages == len(self.known)
        if self.memory.wait(0):  # else a passage changes its tier
            assert stats.compressed + stats.cold + stats.pending == stats.passages


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch) -> None:
    monkeypatch.setattr(encoding, "QUIET", 0.0)


Tiers.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestTiers = Tiers.TestCase
