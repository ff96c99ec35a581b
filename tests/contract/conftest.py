"""What the contract suites share."""

from collections.abc import Iterator

import pytest

from tests.contract import postgres
from tests.contract.stores import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session", autouse=True)
def _postgres_ends() -> Iterator[None]:
    """A server that tests have started ends with them."""
    yield
    postgres.finish()
