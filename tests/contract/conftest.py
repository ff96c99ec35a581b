"""What the contract suites share."""

import pytest

from tests.contract.stores import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()
