"""Hostile names, filters and metadata at the front door: our error or the right documents, never
another's.
"""

import json
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cmt_sdk
from cmt_sdk.errors import InvalidDocument, InvalidFilter, InvalidInput
from cmt_sdk.testing.fakes import open_fake

TOLD = "The museum moved to Lisbon in 2019."
SQL = [
    "' OR 1=1 --",
    "'; DROP TABLE documents; --",
    '" OR ""="',
    "x') OR json_extract(d.metadata, '$.owner') IS NOT NULL --",
    "%",
    "_",
    "*",
    "[a-z]*",
    ":now",
    ":v0",
    "?1",
    "$.owner",
    "owner\u0000",
    "\ud800",
    "../../etc/passwd",
    "C:\\Windows\\system32",
    "\u202egpj.exe",
    "a" * 16_000,
]


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """Ann's document and Bob's, which nothing asked for Ann may show."""
    with open_fake(tmp_path_factory.mktemp("m") / "notes") as opened:
        opened.add(
            TOLD, id="ann", scope="user/ann", source="ann.md", metadata={"owner": "ann", "n": 1}
        )
        opened.add(
            "Bertha keeps the ultramarine key.",
            id="bob",
            scope="user/bob",
            source="bob.md",
            metadata={"owner": "bob", "n": 2},
        )
        yield opened
        assert sorted(d.id for d in opened.documents()) == ["ann", "bob"]
        assert all(f.ok for f in opened.check())


def found(call, **chosen):
    """Ids that a call finds; empty where the filter is refused in our words."""
    try:
        return {getattr(item, "document", item).id for item in call(**chosen)}
    except InvalidInput as error:
        return set() if len(str(error)) < 300 else {"a message that repeats whatever was asked"}


@pytest.mark.parametrize("value", SQL, ids=range(len(SQL)))
def test_filters_are_data_wherever_they_stand(memory, value):
    """As scope, source, metadata key, value, list or comparison: no more is found than Python would
    find.
    """
    assert found(memory.documents, scope=value) == set()
    assert found(memory.documents, source=value) == ({"ann", "bob"} if value == "*" else set())
    for where in (
        {value: "ann"},
        {"owner": value},
        {"owner": {"in": [value]}},
        {"owner": {"==": value}},
        {value: {"exists": True}},
    ):
        assert found(memory.documents, where=where) == set(), where
        assert found(lambda w=where: memory.search("museum key", where=w)) == set(), where
    assert found(memory.documents, where={"owner": {"!=": value}}) <= {"ann", "bob"}


words = st.one_of(
    st.text(max_size=30),
    st.sampled_from(SQL),
    st.sampled_from(["owner", "n", "user/ann", "ann.md"]),
)
scalars = st.one_of(
    words, st.integers(), st.floats(), st.booleans(), st.none(), st.binary(max_size=4)
)
operators = st.one_of(st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "exists"]), words)
wheres = st.dictionaries(
    words,
    st.one_of(
        scalars,
        st.dictionaries(operators, st.one_of(scalars, st.lists(scalars))),
        st.lists(scalars),
    ),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words, wheres)
def test_no_filter_leads_out_of_its_scope(memory, source, where):
    """Whatever else is asked beside the scope, Bob's document stays Bob's; whatever is wrong is
    InvalidInput.
    """
    for call in (
        memory.documents,
        lambda **f: memory.search("the key", **f),
        lambda **f: memory.search("key", mode="text", **f),
    ):
        assert found(call, scope="user/ann", source=source, where=where) <= {"ann"}


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(min_size=1, max_size=200))
def test_a_question_is_words(memory, question):
    """No question is syntax: of FTS5, of SQL, of a shell."""
    try:
        matches = memory.search(question, k=5, scope="user/ann")
    except InvalidInput:
        return
    assert {m.document.id for m in matches} <= {"ann"}


@pytest.mark.parametrize(
    "source", [s for s in SQL if "\0" not in s and "\ud800" not in s], ids=lambda s: s[:12]
)
def test_a_source_is_a_name_and_no_path(tmp_path, source):
    """It is kept as it came, found by itself, told by an answer, exported and imported, and opens
    no file.
    """
    with open_fake(tmp_path / "notes") as memory:
        memory.add(TOLD, source=source)
        assert memory.model.ask("Where is the museum?").sources[0].source == source
        memory.export(tmp_path / "all.cmt")
    with zipfile.ZipFile(tmp_path / "all.cmt") as archive:
        assert all(
            not name.startswith(("/", "..")) and source not in name
            for name in archive.namelist()
            if len(source) > 1
        )
    with open_fake(tmp_path / "copy") as copy:
        copy.import_archive(tmp_path / "all.cmt")
        assert [d.source for d in copy.documents()] == [source]
    assert {p.name for p in tmp_path.iterdir()} == {"notes", "all.cmt", "copy"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"metadata": {"a": "x" * 2**19}},
            r"metadata has 524,\d+ bytes as JSON, the limit is 524,288",
        ),
        (
            {"metadata": {f"k{n}": n for n in range(60_000)}},
            "metadata has .* bytes as JSON, the limit is 524,288",
        ),
        ({"metadata": {"a": {"b": {"c": {}}}}}, "'a'.* no text, number"),
        ({"metadata": {"a": 2**63}}, r"whole numbers reach"),
        ({"source": "s" * 16_385}, "source 'sss.*16,385 characters, the limit is 16,384"),
        ({"scope": "s" * 16_385}, "scope 'sss.*16,385 characters, the limit is 16,384"),
    ],
)
def test_giant_and_deep_metadata_is_refused(tmp_path, fields, words):
    """By its size and by its kind, at adding and at updating; the message names the limit and stays
    short.
    """
    with open_fake(tmp_path / "notes") as memory:
        stored = memory.add(TOLD)
        for call in (
            lambda: memory.add("Another.", **fields),
            lambda: memory.update(stored.id, **fields),
        ):
            with pytest.raises(InvalidDocument, match=words) as caught:
                call()
            assert len(str(caught.value)) < 300
        with pytest.raises(
            InvalidDocument, match=r"id 'sss.*16,385 characters, the limit is 16,384"
        ):
            memory.add("Another.", id="s" * 16_385)
        assert memory.get(stored.id) == stored


def test_a_nested_value_is_not_walked(tmp_path):
    """A value nested a hundred thousand deep is refused without recursion."""
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with open_fake(tmp_path / "notes") as memory:
        with pytest.raises((InvalidDocument, RecursionError)):
            memory.add(TOLD, metadata={"a": deep})
        with pytest.raises((InvalidFilter, RecursionError)):
            memory.count(where={"a": deep})


def test_the_largest_metadata_travels(tmp_path):
    """What adding takes, an archive takes too: letters of one byte, of four, and control
    characters, which JSON spells out.
    """
    longest = "\x07" * 16_384
    with open_fake(tmp_path / "notes") as memory:
        memory.add(
            "One.",
            source=longest,
            scope=longest,
            id="\x07" * 16_384,
            metadata={"a": "\x07" * 87_000},
        )
        memory.add("Two.", metadata={"a": "🙂" * 130_000})
        memory.export(tmp_path / "all.cmt")
        before = list(memory.documents())
    with open_fake(tmp_path / "copy") as copy:
        assert copy.import_archive(tmp_path / "all.cmt").added == 2
        assert [(d.id, d.source, d.metadata) for d in copy.documents()] == [
            (d.id, d.source, d.metadata) for d in before
        ]


def test_archives_keep_to_the_same_limits(tmp_path):
    """An archive from elsewhere cannot bring in what adding refuses."""
    with open_fake(tmp_path / "notes") as memory:
        memory.add(TOLD, metadata={"a": "small"})
        memory.export(tmp_path / "all.cmt")
    members = {}
    with zipfile.ZipFile(tmp_path / "all.cmt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    row = json.loads(members["documents.jsonl"])
    members["documents.jsonl"] = json.dumps(row | {"metadata": {"a": "x" * 2**20}}).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "forged.cmt", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with open_fake(tmp_path / "copy") as copy:
        with pytest.raises(cmt_sdk.CMTError, match="the limit is 524,288"):
            copy.import_archive(tmp_path / "forged.cmt")
        assert copy.count() == 0
