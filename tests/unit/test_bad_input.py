"""Bad input: a clear error or a right result, and nothing that was stored is lost."""

from datetime import UTC, datetime

import pytest

import cmt_sdk
from cmt_sdk.errors import (
    AlreadyExists,
    InvalidDocument,
    InvalidInput,
    InvalidSetting,
    ModelNotFound,
    NotFound,
    StorageDenied,
    StorageError,
)
from cmt_sdk.testing.fakes import open_fake

LISBON = "The museum moved to Lisbon in 2019."


@pytest.fixture
def memory(tmp_path):
    """A memory with one document, which must be there whatever happens."""
    with open_fake(tmp_path / "notes") as opened:
        opened.add(LISBON)
        yield opened
        assert next(opened.documents()).text == LISBON


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing to remember"),
        (" \n\t ", "nothing to remember"),
        ("a\0b", "NUL"),
        ("a\ud800b", r"lone surrogate \(U\+D800 at 1\)"),
        (
            "x" * 50_000_000,
            r"has 50,000,000 bytes, the limit is 10,000,000.*max_document_bytes=50000000",
        ),
    ],
    ids=["empty", "white space", "nul", "surrogate", "50 MB"],
)
def test_text_that_cannot_be_remembered(memory, text, words):
    """The value, the limit and the remedy are named, by add and by update."""
    with pytest.raises(InvalidDocument, match=words):
        memory.add(text)
    with pytest.raises(InvalidDocument, match=words):
        memory.update(next(memory.documents()).id, text or " ")


def test_the_limit_can_be_raised(tmp_path):
    """What the message proposes works."""
    with (
        open_fake(tmp_path / "big", max_document_bytes=20) as memory,
        pytest.raises(
            InvalidDocument, match=r"max_document_bytes=35 .*`cmt config set max_document_bytes 35`"
        ),
    ):
        memory.add(LISBON)
    with open_fake(tmp_path / "big", max_document_bytes=35) as memory:
        memory.add(LISBON)


@pytest.mark.parametrize(
    "metadata", [{"a": [1]}, {"a": {}}, {"a": float("nan")}, {"a\0": 1}, {1: 2}]
)
def test_metadata_holds_plain_values(memory, metadata):
    """Lists, mappings and numbers that are none are refused by name."""
    with pytest.raises(InvalidDocument, match="metadata"):
        memory.add("Another text.", metadata=metadata)


@pytest.mark.parametrize("key", ["a' OR 1=1 --", "$.x", "a.b", "год", "a b", ""])
def test_odd_metadata_keys_are_keys(memory, key):
    """A key is data: it is stored, found, and matches nothing else."""
    memory.add("With an odd key.", metadata={key: 7})
    assert [d.text for d in memory.documents(where={key: 7})] == ["With an odd key."]
    assert memory.count(where={key + "x": 7}) == 0


@pytest.mark.parametrize(
    "where",
    [{'x"]': 1}, {"a\\b": 1}, {"a": {"like": 1}}, {"a": {">": 1, "<": 2}}, {"a": {"in": "text"}}],
)
def test_filters_that_cannot_be_asked(memory, where):
    """They are refused before they reach the database."""
    with pytest.raises(InvalidInput):
        memory.count(where=where)


@pytest.mark.parametrize(
    "query", ['"', "AND OR NOT", "a* NEAR(b)", "col:x", "(((", "-x", "'; DROP TABLE documents; --"]
)
def test_search_syntax_is_text(memory, query):
    """What the user types is words, never the full-text engine's language."""
    memory.search(query, mode="text")
    assert memory.search(f"{query} Lisbon", mode="text")[0].document.text == LISBON


def test_a_taken_id_is_refused(memory):
    """Another text under the same id needs update; the same text is the same document."""
    memory.add("First.", id="one")
    assert memory.add("First.", id="one").id == "one"
    with pytest.raises(AlreadyExists, match="'one' is taken"):
        memory.add("Second.", id="one")


def test_a_file_in_place_of_the_folder(tmp_path):
    """A path that is a file is an error that names it."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageDenied, match="file"):
        open_fake(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


def test_a_missing_file(memory, tmp_path):
    """It is named."""
    with pytest.raises(NotFound, match=r"nowhere\.md"):
        memory.add(tmp_path / "nowhere.md")


def test_a_missing_model_names_the_command(tmp_path, monkeypatch):
    """Without a pulled model nothing is downloaded and no memory begun; looking at one that is
    there still works.
    """
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    with pytest.raises(ModelNotFound, match="cmt model pull smollm2-135m-instruct"):
        cmt_sdk.open(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with open_fake(tmp_path / "notes") as memory:
        memory.add(LISBON)
    with cmt_sdk.open(tmp_path / "notes") as memory:
        with pytest.raises(ModelNotFound, match="cmt model pull smollm2-135m-instruct"):
            memory.add("Something else.")
        assert memory.count() == 1


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (datetime(2001, 1, 1, tzinfo=UTC), "has passed"),
        (datetime(2999, 1, 1), "has no time zone"),  # noqa: DTZ001
    ],
)
def test_a_time_to_forget_must_be_a_time_to_come(memory, when, words):
    """And everybody's the same."""
    with pytest.raises(InvalidDocument, match=words):
        memory.add("Something else.", expires_at=when)


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_at": "tomorrow"},
        {"created_at": datetime(2001, 1, 1)},  # noqa: DTZ001
        {"metadata": ["a"]},
        {"scope": 7},
    ],
)
def test_fields_of_another_kind(memory, fields):
    """They are named, by add and by update, and not found out deep inside."""
    name = next(iter(fields))
    with pytest.raises(InvalidDocument, match=name):
        memory.add(cmt_sdk.Document("Something else.", **fields))
    if name != "created_at":
        with pytest.raises(InvalidDocument, match=name):
            memory.update(next(memory.documents()).id, **fields)


def test_an_update_is_checked_as_an_addition_is(memory):
    """Also where only fields change."""
    known = next(memory.documents()).id
    for when in (datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1)):  # noqa: DTZ001
        with pytest.raises(InvalidDocument, match="expires_at"):
            memory.update(known, expires_at=when)
    with pytest.raises(InvalidDocument, match="scope"):
        memory.update(known, scope="a//b")


def test_a_filter_is_a_dict(memory):
    """Whatever asks with it."""
    for call in (
        memory.count,
        lambda **f: memory.search("museum", **f),
        lambda **f: memory.model.ask("Museum?", **f),
    ):
        with pytest.raises(InvalidInput, match="give a dict"):
            call(where="year=2019")


def test_the_memory_s_own_files_are_no_documents(memory):
    """Reading them would drop the database's locks, and writing over them would be the end of it;
    by any name.
    """
    (memory.path.parent / "link.txt").hardlink_to(memory.path / "memory.db")
    reading = (
        memory.add,
        lambda p: memory.add_many([p]),
        cmt_sdk.read_document,
        memory.import_archive,
    )
    for call in (*reading, lambda p: memory.export(p, overwrite=True)):
        for own in (
            memory.path / "memory.db",
            memory.path / "memory.db-wal",
            memory.path.parent / "link.txt",
        ):
            with pytest.raises(InvalidInput, match="is part of a memory that is open"):
                call(own)
    memory.export(memory.path / "copy.cmt")
    assert list(cmt_sdk.read_documents([memory.path])) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.search("museum", 0),
        lambda m: m.search("museum", 0, history=[]),
        lambda m: m.list(limit=0),
        lambda m: m.list(cursor="nonsense"),
    ],
)
def test_limits_and_cursors(memory, call):
    """Zero and nonsense are named."""
    with pytest.raises(InvalidInput, match=r"k=0|limit=0|cursor 'nonsense'"):
        call(memory)


def test_scopes_do_not_leak(memory):
    """A scope is a path: its neighbours with the same beginning, and wildcards in its name, are not
    beneath it.
    """
    for scope in ("user/ann", "user/ann/session/7", "user/anna", "user/a%n", "user/*"):
        memory.add(f"Belongs to {scope}.", scope=scope)
    assert memory.count(scope="user/ann") == 2
    assert memory.count(scope="user/ann/") == 2
    assert memory.count(scope="user/a%n") == 1
    assert memory.count(scope="user/*") == 1
    assert memory.count(scope="user") == 5
    assert memory.count(scope="") == 6


def test_a_path_given_as_text_is_told(memory, tmp_path):
    """It is a text, as the signature says, but hardly meant."""
    file = tmp_path / "note.txt"
    file.write_text("The boat is in Genoa.")
    with pytest.warns(UserWarning, match="pathlib.Path"):
        assert memory.add(str(file)).text == str(file)
    assert memory.add(file).text == "The boat is in Genoa."


@pytest.mark.parametrize("scope", ["/", "a//b", "../a", "a/./b", "a/"])
def test_scopes_that_name_nothing(memory, scope):
    """A scope is names with slashes between them."""
    with pytest.raises(InvalidDocument, match="give names with a slash between them"):
        memory.add("Something else.", scope=scope)


def test_several_are_wanted(memory):
    """A text is not taken for a stream of letters."""
    with pytest.raises(TypeError, match="add_many"):
        memory.add_many("abc")


def test_a_closed_memory_says_so(tmp_path):
    """Nothing is read or written behind the back of whoever closed it."""
    memory = open_fake(tmp_path / "notes")
    memory.close()
    memory.close()
    for call in (memory.count, memory.stats, lambda: memory.add(LISBON)):
        with pytest.raises(StorageError, match="was closed: open it again"):
            call()


@pytest.mark.parametrize("path", ["", "  "])
def test_a_path_of_nothing_opens_no_memory(path):
    """It would be the folder one happens to be in."""
    with pytest.raises(
        InvalidSetting, match="give the path of a folder, or none for the default memory"
    ):
        cmt_sdk.open(path)
