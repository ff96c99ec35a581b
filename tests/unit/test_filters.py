"""Filters as SQL: run on a bare table against a plain Python reading of what a filter means."""

import json
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from cmt_sdk.errors import InvalidFilter
from cmt_sdk.storage.filters import conditions, conditions_in
from cmt_sdk.storage.postgres.filters import POSTGRES
from cmt_sdk.types import Filter
from tests import postgres

NOW = 1_000.0


EMPTY = {"id": "a", "current": True, "expires_at": None, "scope": "", "source": None}
INSERT = "INSERT INTO documents VALUES (:id, :current, :expires_at, :scope, :source, :metadata)"
IN_POSTGRES = """CREATE TEMPORARY TABLE IF NOT EXISTS documents (doc_id text, current boolean,
    expires_at double precision, scope text COLLATE "C", source text COLLATE "C", metadata text,
    number bigint GENERATED ALWAYS AS IDENTITY)"""


class Databases:
    """Where filters run: in SQLite, or over a connection to Postgres."""

    postgres: Connection | None = None


@pytest.fixture(params=["sqlite", "postgres"], scope="module", autouse=True)
def _database(request) -> Iterator[None]:
    """Each test runs over both."""
    if request.param == "sqlite":
        yield
        return
    with postgres.shared().as_admin() as engine, engine.connect() as db:
        db.exec_driver_sql(IN_POSTGRES)
        Databases.postgres = db
        yield
        Databases.postgres = None


def select(filter: Filter, *rows: dict) -> list[str]:
    """Ids of those rows of a table `documents` that fit."""
    given = [
        EMPTY | row | {"metadata": json.dumps(row.get("metadata", {}), ensure_ascii=False)}
        for row in rows
    ]
    if (db := Databases.postgres) is not None:
        db.exec_driver_sql("DELETE FROM documents")
        for row in given:
            db.execute(text(INSERT), row | {"current": bool(row["current"])})
        where, values = conditions_in(POSTGRES, filter, NOW, str)
        sql = f"SELECT doc_id FROM documents d WHERE {where} ORDER BY number"  # noqa: S608 - the subject
        return list(db.execute(text(sql), values).scalars())
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE TABLE documents (doc_id, current, expires_at, scope, source, metadata)")
        db.executemany(INSERT, given)
        where, values = conditions(filter, NOW)
        found = db.execute(f"SELECT doc_id FROM documents d WHERE {where} ORDER BY rowid", values)  # noqa: S608 - the subject
        ids = [row[0] for row in found]
    db.close()
    return ids


def fits(wanted: object, **metadata: object) -> bool:
    """Whether a document with this metadata fits a condition on the key `k`."""
    return select(Filter(where={"k": wanted}), {"metadata": metadata}) == ["a"]


def test_an_empty_filter_means_all_current_documents_that_have_not_expired():
    """Older versions only with `history`; a document is gone at the second of its expiry."""
    rows = [
        {"id": "now"},
        {"id": "old", "current": 0},
        {"id": "expired", "expires_at": NOW},
        {"id": "soon", "expires_at": NOW + 0.001},
    ]
    assert select(Filter(), *rows) == ["now", "soon"]
    assert select(Filter(history=True), *rows) == ["now", "old", "soon"]


def test_ids():
    """Those that are named; none for an empty list; thousands at once."""
    rows = [{"id": "a"}, {"id": "b"}, {"id": 'c"]'}]
    assert select(Filter(ids=["b", 'c"]', "x"]), *rows) == ["b", 'c"]']
    assert select(Filter(ids=[]), *rows) == []
    assert select(Filter(ids=[*map(str, range(50_000)), "a"]), *rows) == ["a"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (
            "",
            [
                "",
                "u",
                "user",
                "user/ann",
                "user/ann/s/1",
                "user/anna",
                "user/ann0",
                "user/ann.x",
                "User/ann",
            ],
        ),
        ("user/ann", ["user/ann", "user/ann/s/1"]),
        ("user/ann/", ["user/ann", "user/ann/s/1"]),
        ("user", ["user", "user/ann", "user/ann/s/1", "user/anna", "user/ann0", "user/ann.x"]),
        ("us", []),
        ("user/%", []),
        ("user/*", []),
    ],
)
def test_a_scope_includes_what_lies_beneath_it(asked, found):
    """Names are whole: user/ann is not user/anna; no character is a wildcard."""
    scopes = [
        "",
        "u",
        "user",
        "user/ann",
        "user/ann/s/1",
        "user/anna",
        "user/ann0",
        "user/ann.x",
        "User/ann",
    ]
    assert select(Filter(scope=asked), *({"id": s, "scope": s} for s in scopes)) == found


def test_a_scope_of_slashes_is_refused():
    """Read as "everything" it would forget everything."""
    with pytest.raises(InvalidFilter, match="'' for all scopes"):
        conditions(Filter(scope="//"), NOW)
    with pytest.raises(InvalidFilter, match="'' for all scopes"):
        conditions_in(POSTGRES, Filter(scope="//"), NOW, str)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("a.md", ["a.md"]),
        ("*.md", ["a.md", "dir/b.md", "[x].md"]),
        ("?.md", []),
        ("https://a.example/?q=*", ["https://a.example/?q=1"]),
        ("https://a.example/?q=1", ["https://a.example/?q=1"]),
        ("[x].*", ["[x].md"]),
        ("A.md", []),
        ("a_md", []),
        ("", [""]),
        ("*", ["a.md", "dir/b.md", "[x].md", "", "x", "https://a.example/?q=1"]),
    ],
)
def test_a_source_may_hold_wildcards(asked, found):
    """* only; brackets and question marks stand for themselves; a document without a source never
    fits.
    """
    sources = ["a.md", "dir/b.md", "[x].md", "", None, "x", "https://a.example/?q=1"]
    assert select(Filter(source=asked), *({"id": s, "source": s} for s in sources)) == found


MIXED = [
    {"id": str(v), "metadata": {"k": v}} for v in ("1", 1, 1.5, 2, True, False, None, "b", "")
] + [{"id": "none"}]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (1, ["1"]),
        (1.0, ["1"]),
        ("1", ["1"]),
        (True, ["True"]),
        (False, ["False"]),
        (None, ["None"]),
        ("", [""]),
        ({"==": 2}, ["2"]),
        ({"!=": 1}, ["1", "1.5", "2", "True", "False", "None", "b", ""]),
        ({"!=": None}, ["1", "1", "1.5", "2", "True", "False", "b", ""]),
        ({">": 1}, ["1.5", "2"]),
        ({">=": 1}, ["1", "1.5", "2"]),
        ({"<": 1.5}, ["1"]),
        ({"<=": 1.5}, ["1", "1.5"]),
        ({"<": "b"}, ["1", ""]),
        ({"in": [1, "b", None, True]}, ["1", "True", "None", "b"]),
        ({"in": ()}, []),
        ({"exists": True}, ["1", "1", "1.5", "2", "True", "False", "None", "b", ""]),
        ({"exists": False}, ["none"]),
    ],
)
def test_values_are_compared_within_their_kind(wanted, found):
    """1 is 1.0 but neither "1" nor True; a document without the key fits only {"exists": False}."""
    assert select(Filter(where={"k": wanted}), *MIXED) == found


def test_every_condition_must_hold():
    """Conditions narrow each other."""
    rows = [
        {"id": "a", "scope": "x", "source": "s", "metadata": {"k": 1, "l": 2}},
        {"id": "b", "scope": "x", "source": "s", "metadata": {"k": 1, "l": 3}},
        {"id": "c", "scope": "y", "source": "s", "metadata": {"k": 1, "l": 2}},
    ]
    assert select(
        Filter(ids=["a", "b", "c"], scope="x", source="s", where={"k": 1, "l": {"<": 3}}), *rows
    ) == ["a"]


@pytest.mark.parametrize(
    "where",
    [
        {'k"': 1},
        {"k\\": 1},
        {"k\0": 1},
        {"k\n": 1},
        {"\ud800": 1},
        {1: 1},
        {"k": [1]},
        {"k": b"1"},
        {"k": {}},
        {"k": {"like": "a"}},
        {"k": {">": 1, "<": 2}},
        {"k": {"in": "abc"}},
        {"k": {"in": b"abc"}},
        {"k": {"in": 3}},
        {"k": {"in": [[1]]}},
        {"k": {"exists": "no"}},
        {"k": {"<": None}},
        {"k": float("nan")},
        {"k": {"<": float("inf")}},
        {"k": 2**63},
        {"k": 10**5000},
        {"k": "\ud800"},
        {"k": "a\0b"},
        {f"k{i}": 1 for i in range(101)},
    ],
)
def test_what_cannot_be_asked_for_is_refused(where):
    """Each with our error, before anything reaches the database."""
    with pytest.raises(InvalidFilter):
        conditions(Filter(where=where), NOW)
    with pytest.raises(InvalidFilter):
        conditions_in(POSTGRES, Filter(where=where), NOW, str)


@pytest.mark.parametrize(
    "filter",
    [
        Filter(scope="a\0b"),
        Filter(scope="\ud800"),
        Filter(source="\udcff.txt"),
        Filter(source="*" * 60_000),
        Filter(ids=["a", "\ud800"]),
        Filter(ids=[3]),
    ],
)
def test_text_that_no_database_holds_is_refused(filter):
    """NUL, lone surrogates, endless patterns, and what is no text."""
    with pytest.raises(InvalidFilter):
        conditions(filter, NOW)
    with pytest.raises(InvalidFilter):
        conditions_in(POSTGRES, filter, NOW, str)


HOSTILE = [
    "') OR 1=1 --",
    "x') OR json_type(d.metadata",
    "k]",
    "$",
    "$.k",
    "k.l",
    "k[0]",
    "#-1",
    "",
    " ",
    "'",
    "%",
    ":now",
    "ключ",
]


@pytest.mark.parametrize("key", HOSTILE)
def test_a_key_is_data(key):
    """It finds the documents that have exactly this key, whatever it looks like in SQL or in a JSON
    path.
    """
    rows = [{"id": "has", "metadata": {key: 1}}, {"id": "lacks", "metadata": {"k": 1, "l": 1}}]
    assert select(Filter(where={key: 1}), *rows) == ["has"]
    assert select(Filter(where={key: {"exists": False}}), *rows) == ["lacks"]


def test_many_choices_and_many_keys():
    """More than SQLite takes as parameters or as a chain of ORs."""
    assert fits({"in": [*range(40_000), "x"]}, k="x")
    assert not fits({"in": list(range(40_000))}, k=-1)
    metadata = {f"k{i}": i for i in range(100)}
    assert select(Filter(where=metadata), {"metadata": metadata}) == ["a"]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-2, 2),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, 0.1 + 0.2, 1.0, -0.0, 5e-324, 1.7976931348623157e308]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
)


def same_kind(one: object, other: object) -> bool:
    """Numbers are of one kind, truth values of another."""
    number = (int, float)
    return type(one) is type(other) or (type(one) in number and type(other) in number)


@settings(deadline=None)
@given(scalars, scalars)
@example(0.1 + 0.2, 0.3)
@example(9007199254740993, 9007199254740992.0)
def test_filters_read_as_python_does(stored, asked):
    """Equality and order agree with Python's own within a kind, and never hold across kinds."""
    same = same_kind(stored, asked)
    assert fits(asked, k=stored) == (same and stored == asked)
    assert fits({"!=": asked}, k=stored) == (not (same and stored == asked))
    assert fits({"in": [asked, "never"]}, k=stored) == (
        (same and stored == asked) or stored == "never"
    )
    if asked is not None:
        assert fits({"<": asked}, k=stored) == (same and stored < asked)
        assert fits({">=": asked}, k=stored) == (same and stored >= asked)


def test_a_scope_can_be_left_out():
    """With everything beneath it, and nothing beside it; together with other conditions."""
    rows = [
        {"id": n, "scope": n}
        for n in (
            "",
            "user",
            "user/ann",
            "user/ann/session/7",
            "users",
            "user-2",
            "team/user",
            "USER/x",
        )
    ]
    assert select(Filter(outside="user"), *rows) == ["", "users", "user-2", "team/user", "USER/x"]
    assert select(Filter(outside="user/ann", scope="user"), *rows) == ["user"]
    assert select(Filter(outside=""), *rows) == [row["id"] for row in rows]
    with pytest.raises(InvalidFilter):
        select(Filter(outside="/"))


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ({">": 12}, "12.50", True),
        ({"<": 12}, "12.50", False),
        ({">=": 12000}, "12e3", True),
        ({">": 12}, "13", False),
        ({">": 12}, "13.5", False),
        ({">": 12}, "13.0", False),
        ({">": 12}, "0013", False),
        ({">": 12}, "13 kg", False),
        ({"<": 0}, "-1.10", True),
    ],
)
def test_a_number_in_another_notation_counts_as_a_number(wanted, text, expected):
    """A text that would lose digits as a number is compared as one; any other text is text."""
    assert fits(wanted, k=text) == expected
