"""Scopes never mix: every reading call, under any filter, against a plain Python reading of what a
scope is.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmt_sdk.errors import InvalidInput
from cmt_sdk.testing.fakes import open_fake

NAMES = ("a", "A", "ab", "a.b", "a%", "a_", "*", "a*", "[a]", "ä", "a\u0301", "0", "a b", "'")
SCOPES = [
    "",
    *NAMES,
    *(f"{one}/{two}" for one in ("a", "ab", "*") for two in NAMES),
    "a/b/c",
    "a/b/cd",
    "a/b0",
    "a/b.",
]
YEARS = (None, 2019, 2020, "2020")


def beneath(scope, asked):
    """What it means to be in a scope: its name, or names below it; "" is everything."""
    return not asked or scope == asked or scope.startswith(asked + "/")


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """A document in every scope; all speak of the museum, so that nothing but the filter holds them
    apart.
    """
    with open_fake(tmp_path_factory.mktemp("m") / "notes", exact_limit=0) as opened:
        for number, scope in enumerate(SCOPES):
            year = YEARS[number % len(YEARS)]
            opened.add(
                f"The museum of {number}.",
                id=f"d{number}",
                scope=scope,
                metadata={} if year is None else {"year": year},
            )
        yield opened


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.sampled_from(SCOPES),
        st.lists(st.sampled_from([*NAMES, "b", "c"]), min_size=1, max_size=3).map("/".join),
    ),
    st.sampled_from(
        [
            None,
            {"year": 2020},
            {"year": {">=": 2019}},
            {"year": {"exists": True}},
            {"year": {"!=": 2020}},
        ]
    ),
)
def test_no_call_shows_what_lies_outside(memory, scope, where):
    """Listing, counting, four searches, the nearest, embeddings, and the sources of an answer."""
    inside = {f"d{n}" for n, s in enumerate(SCOPES) if beneath(s, scope)}
    fits = {i for i in inside if _fits(YEARS[int(i[1:]) % len(YEARS)], where)}
    chosen = {"scope": scope, "where": where}
    assert {d.id for d in memory.documents(**chosen)} == fits
    assert memory.count(**chosen) == len(fits)
    assert {d.id for d in memory.list(**chosen, limit=100).documents} == fits
    for mode in ("fused", "vector", "text", "reranked"):
        assert {m.document.id for m in memory.search("museum", k=100, mode=mode, **chosen)} == fits
    assert {
        m.document.id for m in memory.nearest(memory.model.embed(["museum"])[0], k=100, **chosen)
    } == fits
    assert len(memory.embeddings(**chosen).passage_ids) == len(fits)
    assert {
        s.document_id for s in memory.model.ask("Which museum?", k=100, **chosen).sources
    } <= fits


def _fits(year, where):
    if where is None:
        return True
    wanted = where["year"]
    return {
        "2020": year == 2020,
        "{'>=': 2019}": isinstance(year, int),
        "{'exists': True}": year is not None,
        "{'!=': 2020}": year is not None and year != 2020,
    }[str(wanted)]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=12))
def test_any_text_as_scope_stays_within(memory, scope):
    """No character is a wildcard: what is found lies beneath the very name, or the name is
    refused.
    """
    try:
        found = {d.scope for d in memory.documents(scope=scope)}
    except InvalidInput:
        return
    assert all(beneath(s, scope.rstrip("/")) for s in found)


def test_forgetting_a_scope_leaves_its_neighbours(tmp_path):
    """What is forgotten is exactly what is beneath it."""
    with open_fake(tmp_path / "notes") as memory:
        for number, scope in enumerate(SCOPES):
            memory.add(f"The museum of {number}.", id=f"d{number}", scope=scope)
        gone = set(memory.forget(scope="a").documents)
        assert gone == {f"d{n}" for n, s in enumerate(SCOPES) if beneath(s, "a")}
        assert {d.id for d in memory.documents()} == {f"d{n}" for n in range(len(SCOPES))} - gone


def test_a_conversation_keeps_to_its_scope(tmp_path):
    """What Ann says is remembered for Ann alone."""
    with open_fake(tmp_path / "notes") as memory:
        memory.chat(remember=True, scope="user/ann").say("My boat is called Esmeralda.")
        assert memory.chat(scope="user/bob").say("What is my boat called?").sources == []
        assert [d.scope for d in memory.documents()] == ["user/ann"]
