"""What the reliability tests share: a table of what was tried and what was lost, printed at the end
of a slow run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.unit.conftest import cmt

__all__ = ["cmt"]

TALLY = pytest.StashKey[dict[str, Counter[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """The table is empty, and the marker of the long forms known."""
    config.stash[TALLY] = {}
    config.addinivalue_line(
        "markers", "slow: the long form of a reliability test, minutes (`make test-slow`)"
    )


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Adds counts to a line of the table, as in `tally("killed in export", rounds=1)`."""

    def add(line: str, **counts: int) -> None:
        request.config.stash[TALLY].setdefault(line, Counter()).update(counts)

    return add


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One line a kind of harm."""
    table = config.stash[TALLY]
    if not table or "slow" not in config.option.markexpr.replace("not slow", ""):
        return
    columns = [
        c
        for c in ("rounds", "faults", "inputs", "calls", "losses")
        if any(c in counts for counts in table.values())
    ]
    terminalreporter.section("what was tried, and what was lost")
    terminalreporter.write_line(f"{'':44}" + "".join(f"{c:>12}" for c in columns))
    for line, counts in sorted(table.items()):
        terminalreporter.write_line(
            f"{line:44}"
            + "".join(f"{counts[c]:>12,}" if c in counts else f"{'':>12}" for c in columns)
        )
