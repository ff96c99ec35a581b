"""What models send as arguments: blanks filled with null and "", other names, wrong kinds. Through
the official client.
"""

import pytest
from mcp import Client

from cmt_adapters.mcp import mcp_server
from cmt_sdk.testing.fakes import open_fake

BOAT = "The boat lies in the harbour of Genoa."
BLANK = {
    "search": ({"query": "boat"}, ["k", "scope", "source", "where"]),
    "ask": ({"question": "Where does the boat lie?"}, ["k", "reader", "scope", "source", "where"]),
    "list": ({}, ["scope", "source", "where", "limit", "cursor"]),
    "remember": ({"text": "Tea is green."}, ["source", "scope", "metadata", "expires_at"]),
    "update": (
        {"document_id": "d", "text": "The boat lies in Naples."},
        ["source", "scope", "metadata", "expires_at"],
    ),
    "forget": ({"document_id": "d"}, ["scope", "source", "where"]),
}


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        opened.add(BOAT, id="d", source="log.md", scope="ship", metadata={"year": 2019})
        yield opened


async def called(memory, tool, **arguments):
    """Whether a tool did its work, and what it said."""
    async with Client(mcp_server(memory)) as client:
        result = await client.call_tool(tool, arguments)
    return not result.is_error, result.content[0].text


@pytest.mark.parametrize("blank", [None, "", "  "])
@pytest.mark.parametrize("tool", list(BLANK))
async def test_blanks_are_left_out(memory, tool, blank):
    """All of them together, and each by itself, change nothing."""
    needed, optional = BLANK[tool]
    for names in (optional, *([name] for name in optional)) if tool != "forget" else (optional,):
        done, text = await called(memory, tool, **needed, **dict.fromkeys(names, blank))
        assert done, text
    assert [d.metadata for d in memory.documents(source="log.md")] == (
        [] if tool == "forget" else [{"year": 2019}]
    )


@pytest.mark.parametrize("blank", [None, ""])
async def test_blanks_alone_erase_and_change_nothing(memory, blank):
    """What a model leaves empty must not mean everything."""
    done, text = await called(
        memory, "forget", document_id=blank, scope=blank, source=blank, where=blank
    )
    assert (done, "give a document_id" in text) == (False, True)
    done, text = await called(
        memory, "update", document_id="d", text=blank, source=blank, metadata=blank
    )
    assert (done, "nothing to change" in text) == (False, True)
    assert memory.get("d").text == BOAT


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("search", {"query": "boat", "limit": 1}),
        ("search", {"q": "boat", "top_k": 1}),
        ("search", {"query": "boat", "max_results": "1", "filter": {"year": 2019}}),
        ("search", {"question": "boat", "n": 1}),
        ("list", {"k": 1}),
        ("list", {"count": 1, "filters": '{"year": {">=": 2000}}'}),
        ("ask", {"query": "Where does the boat lie?"}),
        ("remember", {"content": "Tea is green."}),
        ("update", {"id": "d", "content": "The boat has left."}),
        ("forget", {"memory_id": "d"}),
    ],
)
async def test_other_names_are_taken_for_what_they_mean(memory, tool, arguments):
    """Where that is clear."""
    memory.add("A boat is a small ship.", metadata={"year": 2019})
    done, text = await called(memory, tool, **arguments)
    assert done, text
    if tool in ("search", "list"):
        assert text.count('"document_id"') == 1


async def test_the_own_name_counts_before_another_one(memory):
    """In either order."""
    for arguments in ({"k": 1, "limit": 50}, {"limit": 50, "k": 1}, {"limit": 1, "k": None}):
        memory.add("A boat is a small ship.")
        done, text = await called(memory, "search", query="boat", **arguments)
        assert (done, text.count('"document_id"')) == (True, 1)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        (
            "search",
            {"query": "x", "colour": "red"},
            "search: there is no argument 'colour': it takes query, k, scope, source, where",
        ),
        ("forget", {"scope": "ship", "before": "2020"}, "forget: there is no argument 'before'"),
        ("search", {}, "search: query: it is missing"),
        ("search", {"query": None}, "search: query: it is missing"),
        ("search", {"query": "x", "k": 1000}, "search: k: give at most 50"),
        ("search", {"query": "x", "k": "many"}, "search: k: give a whole number"),
        ("search", {"query": "x", "scope": ["a"]}, "search: scope: give a text"),
        ("search", {"query": "x", "where": "year"}, "search: where: give an object"),
        (
            "ask",
            {"question": "x", "reader": "wizard"},
            "ask: reader: choose one of 'memory', 'text' or 'auto'",
        ),
        (
            "remember",
            {"text": "x y", "metadata": {"a": [1]}},
            "remember: metadata.a: give a plain value",
        ),
        (
            "remember",
            {"text": "x y", "metadata": {"a": {"b": 1}, "c": [2]}},
            "remember: metadata.a: give a plain value",
        ),
        (
            "remember",
            {"text": "x y", "metadata": "year 2020"},
            "remember: metadata: give an object",
        ),
        (
            "remember",
            {"text": "x y", "expires_at": "soon"},
            "remember: expires_at: give a time with its zone",
        ),
        ("update", {"document_id": None, "text": "x"}, "update: document_id: it is missing"),
    ],
)
async def test_what_is_wrong_is_told_in_one_sentence(memory, tool, arguments, words):
    """With the argument and the remedy; nothing is done."""
    done, text = await called(memory, tool, **arguments)
    assert (done, text[: len(words)]) == (False, words)
    assert "\n" not in text
    assert "pydantic" not in text
    assert memory.get("d").text == BOAT
    assert memory.count() == 1
