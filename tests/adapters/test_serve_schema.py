"""What OpenAPI says of the server holds, for requests that schemathesis makes up from it, good ones
and bad ones.
"""

from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

TOKEN = "swordfish-0123456789"  # noqa: S105 - of a server that lives for a test


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("served") / "notes", token=TOKEN) as made:
        made.memory.add("The museum moved to Lisbon in 2019.", id="museum")
        yield made


# What no schema can say makes a request of the right shape a bad one: a time that has passed, a
# last message that is not the user's, a number too wide to be stored, vectors of another length.
SAID_ELSEWHERE = [positive_data_acceptance]
PLAIN = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@pytest.mark.parametrize("examples", [5, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_route_does_as_it_is_described(server, mode, examples):
    """No failures of the server, only statuses, types and shapes that are described, and nothing
    without the token.
    """
    described = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 18
    for operation in operations:
        with suppress(Unsatisfiable):  # a route that takes nothing cannot be asked wrongly
            tried(operation, mode, examples)


def tried(operation, mode, examples):
    """Ask one route."""
    # in an address or a form no type can be wrong
    all_text = operation.method == "get" or operation.path == "/api/files"
    excluded = [*SAID_ELSEWHERE, *([negative_data_rejection] if all_text else [])]

    @settings(PLAIN, max_examples=examples)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(
            headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=excluded, timeout=20
        )

    check()
