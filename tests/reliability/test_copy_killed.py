"""Copies that are killed at random moments, and started again with the same order."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmt_sdk.testing.fakes import open_fake
from tests import postgres
from tests.contract.copies import contents, settings_of
from tests.reliability.victims import Zygote

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="forks and watches processes as Linux does"
)

KINDS = ("folder", "archive", "postgres")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """Starts the victims."""
    started = Zygote()
    yield started
    started.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A folder with a memory."""
    folder = tmp_path_factory.mktemp("source") / "notes"
    with open_fake(folder) as memory:
        memory.add_many(f"Fact {n} about the harbour of Genoa." for n in range(60))
        memory.update(memory.ids()[0], "Another text.")
    return folder


def run_to_the_end(
    kind: str, rounds: int, zygote: Zygote, source: Path, tmp_path: Path, tally: Callable[..., None]
) -> None:
    """Kill copies; what each left is finished by the next, and is then what the source holds."""
    chance, took, killed = random.Random(), 0.0, 0
    order: dict[str, Any] = {"source": str(source)}
    with open_fake(source) as memory:
        expected = contents(memory), settings_of(memory)
    for number in range(rounds + 1):
        target = tmp_path / (f"{number}.cmt" if kind == "archive" else f"{number}")
        order["target"] = str(target)
        if kind == "postgres":
            postgres.shared().empty()
            order["target"] = os.fspath(postgres.shared().address)
        notes = tmp_path / "notes"
        outcome: dict[str, Any] = {"code": -9}
        while outcome["code"] == -9:
            delay = chance.uniform(0, took) if number and not outcome.get("seconds") else None
            outcome = zygote("copy", target, notes, delay=delay, **order)
            killed += outcome["code"] == -9
            took = took or outcome["seconds"]
        assert outcome["code"] == 0
        place = postgres.shared().address if kind == "postgres" else target
        if kind == "archive":
            assert [file.name for file in tmp_path.glob(".*")] == []
            place = tmp_path / f"{number}-unpacked"
            assert zygote("copy", place, notes, source=str(target), target=str(place))["code"] == 0
        with open_fake(place, create=False) as memory:
            assert [found for found in memory.check() if not found.ok] == []
            assert (contents(memory), settings_of(memory)) == expected
    tally(f"killed in copy to {kind}", rounds=killed, losses=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_was_killed_is_finished_by_the_next(kind, zygote, source, tmp_path, tally):
    """Four kills each."""
    run_to_the_end(kind, 4, zygote, source, tmp_path, tally)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_was_killed_20_times(kind, zygote, source, tmp_path, tally):
    """As above, for long."""
    run_to_the_end(kind, 20, zygote, source, tmp_path, tally)
