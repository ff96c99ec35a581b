"""Mistakes, damage and interruptions on the command line: exit codes, messages with a remedy,
nothing lost.
"""

import json
import sqlite3

import pytest

from cmt_cli.error_handling import EXIT_CODES, exit_code
from cmt_sdk import errors
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2021."


def families(error=errors.CMTError):
    """All error classes of the package."""
    return [error, *(f for sub in error.__subclasses__() for f in families(sub))]


def test_every_error_has_its_exit_code():
    """The most particular family decides: a missing model is 4, though it is something not
    found.
    """
    made = {
        f.__name__: exit_code(f("x", "y") if f is errors.MissingExtra else f("x"))
        for f in families()
    }
    assert made == {
        "CMTError": 1, "AlreadyExists": 1, "MissingExtra": 1,
        "InvalidInput": 2, "InvalidDocument": 2, "EmptyDocument": 2, "InvalidFilter": 2, "InvalidSetting": 2,
        "NotFound": 3, "DocumentNotFound": 3, "MemoryNotFound": 3,
        "ModelNotFound": 4, "ModelError": 4, "ModelMismatch": 4, "ModelUnsupported": 4, "ModelDownload": 4,
        "GeneratorError": 4,
        "StorageError": 5, "StorageFull": 5, "StorageDamaged": 5, "StorageLocked": 5, "StorageNewer": 5, "StorageDenied": 5,
        "StorageEncrypted": 5,
    }  # fmt: skip
    assert EXIT_CODES[-1] == (errors.CMTError, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ask", "Where?"], 3, "there is no memory in"),
        (["list"], 3, "`cmt add FILE`"),
        (["ask", "-k", "0", "Where?"], 2, "0 is not in the range x>=1"),
        (["search", "-k", "-3", "Where?"], 2, "-3 is not in the range x>=1"),
        (["list", "--limit", "0"], 2, "0 is not in the range x>=1"),
        (["ask", "--budget", "0", "Where?"], 2, "0 is not in the range x>=1"),
        (["ask", "--reader", "mind", "Where?"], 2, "'memory', 'text', 'auto', 'none'"),
        (["add"], 2, "give files, folders"),
        (["add", "nowhere.md"], 3, "there is no file or folder nowhere.md"),
        (["add", "A text, not a file. " * 50], 3, "there is no file or folder A text, not a file."),
        (["list", "-m", "~nobody-has-this-name/x"], 2, "memory name '~nobody-has-this-name/x'"),
        (["add", "nowhere-*.md"], 3, "no file matches nowhere-*.md"),
        (["add", "--text", "  \n "], 2, "nothing to remember"),
        (["add", "--text", "a\0b"], 2, "NUL"),
        (["add", "--text", "a\udcffb"], 2, "lone surrogate"),
        (["add", "--text", "a", "--meta", "year"], 2, "write KEY=VALUE"),
        (["add", "--text", "a", "--meta", "a=1", "--meta", "a=2"], 2, "'a' is given twice"),
        (["add", "--text", "a", "--expires", "soon"], 2, "write a time such as 2027-01-31"),
        (["add", "--text", "a", "--expires", "2001-01-01"], 2, "has passed"),
        (["add", "--text", "a", "-m", "a\0b"], 2, "memory name"),
        (["import", "nowhere.cmt"], 3, "there is no file or folder nowhere.cmt"),
        (["forget"], 2, "--scope ''"),
        (["forget", "abcd", "--source", "x"], 2, "not both"),
        (["forget", "abcd", "--json"], 2, "--yes"),
        (["update", "abcd"], 2, "give a FILE"),
        (["update", "abcd"], 2, "--source, --scope, --meta, --expires"),
        (["ask", "When", "did", "we"], 2, 'put it in quotes, cmt ask "When did we"'),
        (
            ["ask", "--scope", "user//ann", "Where?"],
            2,
            "'user//ann': give names with a slash between them",
        ),
        (["list", "--scope", "../ann"], 2, "'../ann': give names with a slash between them"),
        (["config", "set", "rerank", "-3"], 2, "rerank=-3: choose a number from 0 to 50"),
        (
            ["config", "set", "compression", "-2"],
            2,
            "compression=-2: choose a number from 1 to 100",
        ),
        (["config", "set", "compression", "--frobnicate", "-3"], 2, "unexpected extra argument"),
        (["model", "remove", "nosuch"], 4, "`cmt model list`"),
        (["list", "--where", "year"], 2, "write KEY=VALUE"),
        (["list", "--where", "a>1", "--where", "a<3"], 2, "one condition per key"),
        (["config", "set", "compression", "700"], 2, "choose a number from 1 to 100"),
        (["config", "set", "compression", "much"], 2, "choose a number"),
        (["config", "set", "colour", "red"], 2, "passage_tokens"),
        (["model", "show", "nobody/nothing"], 4, "cmt model pull nobody/nothing"),
        (["frobnicate"], 2, "No such command"),
        (["--frobnicate"], 2, "No such option"),
    ],
)
def test_mistakes_have_an_exit_code_and_a_remedy(cmt, arguments, code, words):
    """A message that says what to do, on stderr, and no traceback; a program gets the same as
    JSON.
    """
    done = cmt(*arguments, code=code)
    assert words in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert json.loads(cmt(*arguments, "--json", code=code).stderr)["error"]["message"]


def test_ids_must_exist_and_be_clear(cmt):
    """Nothing is guessed: too short, unknown, ambiguous."""
    with open_fake(cmt.home / "default") as memory:
        memory.add(LISBON, id="abcd1111")
        memory.add(PORTO, id="abcd2222")
    for command in ("show", "rm", "forget"):
        assert "'abcd' begins 2 ids: abcd1111, abcd2222" in cmt(command, "abcd", code=2).stderr
        assert "must have 4 characters" in cmt(command, "abc", code=3).stderr
        assert "begins with 'zzzz'" in cmt(command, "zzzz", code=3).stderr
    assert "begins with 'abcd3'" in cmt("rm", "abcd1", "abcd3", code=3).stderr
    assert cmt.json("stats")["documents"] == 2


def test_a_prefix_that_is_an_id_is_that_id(cmt):
    """An id may be the beginning of another, and shorter than four characters."""
    with open_fake(cmt.home / "default") as memory:
        memory.add(LISBON, id="a1")
        memory.add(PORTO, id="a1b2")
    cmt("rm", "a1")
    assert cmt.json("list")["id"] == "a1b2"


def test_reading_commands_make_no_memory(cmt, tmp_path):
    """Asking where nothing is leaves nothing behind, and so does a file that is not there."""
    reading = [
        ["stats"],
        ["list"],
        ["show", "abcd"],
        ["ask", "Where?"],
        ["search", "x"],
        ["check"],
        ["compress"],
        ["chat"],
    ]
    for arguments in [
        *reading,
        ["rm", "abcd"],
        ["export", tmp_path / "x"],
        ["reindex"],
        ["reencode"],
        ["add", "no.md"],
    ]:
        cmt(*arguments, code=3)
    assert not cmt.home.exists()


def test_one_bad_file_does_not_keep_the_others_out(cmt, tmp_path):
    """What was named and cannot be read is an error in the end; the rest is added."""
    (tmp_path / "good.md").write_text(LISBON)
    (tmp_path / "bad.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (tmp_path / "empty.md").write_text("")
    done = cmt("add", tmp_path / "bad.txt", tmp_path / "empty.md", tmp_path / "good.md", code=2)
    assert done.stdout == "1 added, 0 updated, 0 unchanged, 2 refused\n"
    assert "bad.txt" in done.stderr
    assert "empty.md is empty" in done.stderr
    assert cmt.json("stats")["pending"] == 0


def test_a_file_that_cannot_be_read_begins_no_memory(cmt, tmp_path):
    """The first thing a user tries may be a scan: no empty folder is left of that."""
    (tmp_path / "scan.txt").write_bytes(b"\x89PNG\0\0")
    cmt("add", tmp_path / "scan.txt", code=2)
    assert not cmt.home.exists()


def test_the_memory_s_own_files_among_others(cmt, tmp_path):
    """A glob that takes them in adds the others, and says why not these."""
    folder, note = tmp_path / "notes", tmp_path / "note.txt"
    note.write_text(LISBON)
    cmt("add", "-m", folder, "--text", PORTO)
    done = cmt("add", "-m", folder, folder / "memory.db", note, code=2)
    assert "memory.db is part of a memory that is open" in done.stderr
    assert "1 added" in done.stdout


def test_what_a_folder_holds_besides_text_is_passed_over(cmt, tmp_path):
    """With a warning each; a folder with nothing to read is an error."""
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "bad.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (notes / "empty.md").write_text(" \n")
    (notes / "nul.txt").write_bytes(b"a\0b")
    (notes / "link.md").symlink_to("nowhere")
    (notes / "picture.png").write_bytes(b"\x89PNG")
    nothing = cmt("add", notes, code=2)
    assert "nothing to remember in" in nothing.stderr
    (notes / "zebra.md").write_text(LISBON)
    done = cmt("add", notes)
    assert done.stdout == f"1 added, 0 updated, 0 unchanged, 1 empty ({notes / 'empty.md'})\n"
    for name in ("bad.txt", "nul.txt", "link.md"):
        assert name in done.stderr
    assert "picture.png" not in done.stderr


def test_a_file_where_the_memory_should_be(cmt, tmp_path):
    """The path is named, and the file stays as it is."""
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for command in (
        ["add", "--text", LISBON],
        ["list"],
        ["ask", "Where?"],
        ["config"],
        ["check", "--repair"],
        ["create"],
    ):
        assert (
            f"{file} is a file: give a folder or a name" in cmt(*command, "-m", file, code=2).stderr
        )
    assert file.read_text() == "mine"


def test_a_copy_in_one_file_is_no_folder(cmt, tmp_path, monkeypatch):
    """By its path and by its bare name: what to do with it is told, and doing so opens it."""
    monkeypatch.chdir(tmp_path)
    cmt("add", "--text", LISBON)
    cmt("backup", "copy.db")
    for name in ("copy.db", "./copy.db"):
        for command in (["list"], ["add", "--text", PORTO]):
            assert "named memory.db in an empty folder" in cmt(*command, "-m", name, code=2).stderr
    (tmp_path / "restored").mkdir()
    (tmp_path / "copy.db").rename(tmp_path / "restored" / "memory.db")
    assert LISBON in cmt("list", "-m", "./restored").stdout


def test_a_command_that_fails_leaves_no_empty_memory(cmt, tmp_path):
    """Nor the folders that were made for it; what was there before stays, and so does what holds
    something.
    """
    notes, deep = tmp_path / "notes", tmp_path / "deep" / "deeper"
    notes.mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"\x89PNG\0\0")
    cmt("add", "-m", deep, notes, code=2)
    cmt("add", "-m", deep, "--text", LISBON, "--expires", "2020-01-01", code=2)
    cmt("add", "-m", deep, "-", stdin=" ", code=2)
    cmt("add", "-m", deep, tmp_path / "a.txt", tmp_path / "b.txt", code=2)
    cmt("config", "set", "compression", "700", "-m", deep, code=2)
    assert not deep.parent.exists()
    cmt("add", "-m", notes, "--text", " a\udcff", code=2)
    assert notes.exists()
    (tmp_path / "good.md").write_text(LISBON)
    cmt("add", "-m", deep, tmp_path / "a.txt", tmp_path / "good.md", code=2)
    assert cmt.json("stats", "-m", deep)["documents"] == 1


def test_an_empty_memory_that_somebody_else_has_open_stays(cmt):
    """Its folder is not taken from under it."""
    others = []

    def opened_twice(folder, **options):
        memory = open_fake(folder, **options)
        others.append(open_fake(folder))
        return memory

    plain, cmt.opener = cmt.opener, opened_twice
    cmt("add", "--text", LISBON, "--expires", "2020-01-01", code=2)
    others[0].add(PORTO)
    others[0].close()
    cmt.opener = plain
    assert cmt.json("stats")["documents"] == 1


def test_a_server_that_cannot_begin_leaves_no_memory(cmt, monkeypatch):
    """One that can tells that its memory is a new one, for its name may be mistyped."""
    serve = pytest.importorskip("cmt_adapters.server.serve")

    def refuse(memory, **_):
        raise errors.InvalidSetting("the port is taken")

    monkeypatch.setattr(serve, "serve", refuse)
    cmt("serve", code=2)
    assert not cmt.home.exists()
    monkeypatch.setattr(serve, "serve", lambda memory, on_ready, **_: on_ready("http://here"))
    assert "this is a new one, with nothing in it\n" in cmt("serve").stderr
    assert "new" not in cmt("serve").stderr


def test_a_plain_memory_begun_where_there_is_a_key(cmt, monkeypatch):
    """Who has set CMT_KEY may take it for encrypted: it is told once, when it is made."""
    monkeypatch.setenv("CMT_KEY", "correct horse battery staple")
    told = cmt("add", "--text", LISBON).stderr
    assert told.startswith(
        f"warning: {cmt.home / 'default'} is not encrypted, though CMT_KEY is set: `cmt create"
        " --encrypted`"
    )
    assert json.loads(cmt("config", "set", "compression", "2", "-m", "work", "--json").stderr)[
        "warning"
    ]
    assert cmt("add", "--text", PORTO).stderr == cmt("list").stderr == ""


@pytest.mark.parametrize(
    "data", [b"", b" \n\t", b"\xff\xfe", b"a\0b"], ids=["nothing", "white space", "binary", "NUL"]
)
def test_standard_input_that_is_no_text(cmt, data):
    """It is refused, as a document and as a question."""
    assert "error:" in cmt("add", "-", stdin=data, code=2).stderr
    cmt("add", "--text", LISBON)
    if data != b"a\0b":
        assert "error:" in cmt("ask", stdin=data, code=2).stderr


@pytest.mark.parametrize(
    ("text", "words"), [("", "is empty"), (" \n", "is empty"), ("a\udcffb", "lone surrogate")]
)
def test_questions_that_are_none(cmt, text, words):
    """Asking and searching refuse them alike, before a model is loaded."""
    cmt("add", "--text", LISBON)
    for command in (["ask", "--reader", "none"], ["ask"], ["search"], ["search", "--mode", "text"]):
        assert words in cmt(*command, "--", text, code=2).stderr


def test_hostile_filter_keys_are_data(cmt):
    """A key is never part of the SQL, and a number that is too large for it is refused."""
    cmt("add", "--text", LISBON, "--meta", "year=2019")
    assert cmt("list", "--where", "a') OR 1=1 --=1").stdout == ""
    assert "quotation marks" in cmt("list", "--where", 'x"]=1', code=2).stderr
    assert "filter year" in cmt("list", "--where", "year<99999999999999999999999", code=2).stderr
    assert cmt.json("stats")["documents"] == 1


def test_a_memory_from_a_newer_release(cmt):
    """It is left alone, and the message says to update."""
    cmt("add", "--text", LISBON)
    database = sqlite3.connect(cmt.home / "default" / "memory.db")
    database.execute("PRAGMA user_version = 999")
    database.close()
    for command in (["list"], ["check"], ["add", "--text", PORTO]):
        assert "update cmt-sdk" in cmt(*command, code=5).stderr


def test_a_damaged_database(cmt):
    """The file is named, with what can be done."""
    cmt("add", "--text", LISBON)
    (cmt.home / "default" / "memory.db").write_bytes(b"this is no database" * 1000)
    error = json.loads(cmt("list", "--json", code=5).stderr)["error"]
    assert error["type"] == "StorageDamaged"
    assert "memory.db" in error["message"]


def test_a_damaged_index(cmt):
    """Answers come all the same; check tells, reindex repairs."""
    cmt("config", "set", "exact_limit", 0)
    cmt("add", "--text", LISBON)
    cmt("reindex")
    (index,) = (cmt.home / "default").glob("*.hnsw")
    index.write_bytes(b"\0" * index.stat().st_size)
    found = {f["check"]: f for f in json.loads(cmt("check", "--json", code=1).stdout)}
    assert (found["index"]["ok"], found["index"]["remedy"]) == (False, "cmt reindex")
    assert cmt("ask", "Where did the museum move?").stdout.startswith(LISBON)
    cmt("reindex")
    found = {f["check"]: f for f in json.loads(cmt("check", "--json", code=1).stdout)}
    assert found["index"]["ok"]


def test_memories_of_another_model(cmt):
    """Both models and the remedy are named; the remedy works."""
    cmt("add", "--text", LISBON)
    cmt.opener = lambda folder, **options: open_fake(
        folder, FakeEngine.of(model="other", base="0" * 16), **options
    )
    refused = cmt("ask", "Where did the museum move?", code=4).stderr
    assert "fake" in refused
    assert "other" in refused
    assert "cmt reencode" in refused
    assert cmt("reencode").stdout == "1 passage encoded again\n"
    assert cmt("ask", "Where did the museum move?").stdout.startswith(LISBON)


class Interrupted(FakeCompressor):
    """A compressor at whose work the user presses Ctrl-C."""

    def compress(self, texts):
        """Never comes back."""
        raise KeyboardInterrupt


def test_ctrl_c_loses_nothing(cmt):
    """The exit code is 130, the text is stored, and the work is taken up again."""
    whole, cmt.opener = (
        cmt.opener,
        lambda folder, **o: open_fake(folder, FakeEngine(Interrupted()), **o),
    )
    assert "what was stored is safe" in cmt("add", "--text", LISBON, code=130).stderr
    assert json.loads(cmt("compress", "--json", code=130).stderr)["error"]["type"] == "Stopped"
    cmt.opener = whole
    assert cmt("compress").stdout == "1 passage compressed\n"


def test_a_bug_shows(cmt):
    """What nobody foresaw is not dressed up as a user's mistake."""

    def broken(*_, **__):
        raise ZeroDivisionError

    cmt.opener = broken
    with pytest.raises(ZeroDivisionError):
        cmt("list")


def test_a_missing_default_model_names_its_command(cmt):
    """Adding says how to fetch it, and leaves no memory behind."""
    cmt.opener = None
    assert "cmt model pull" in cmt("add", "--text", LISBON, code=4).stderr
    assert "there is no memory" in cmt("stats", code=3).stderr


def test_a_file_that_is_no_archive(cmt, tmp_path):
    """Nothing is made for it."""
    (tmp_path / "car.md").write_text("The car is red.")
    assert "is no archive of `cmt export`" in cmt("import", tmp_path / "car.md", code=2).stderr
    assert "there is no memory" in cmt("list", code=3).stderr


def test_two_new_texts_for_one_document(cmt, tmp_path):
    """Neither is silently dropped."""
    (tmp_path / "car.md").write_text("The car is red.")
    cmt("add", "--text", LISBON)
    (document,) = [json.loads(line) for line in cmt("list", "--json").stdout.splitlines()]
    assert (
        "give one of them"
        in cmt("update", document["id"], tmp_path / "car.md", "--text", "new", code=2).stderr
    )


def test_a_copy_is_a_document_of_its_own(cmt, tmp_path):
    """Who forgets by source finds each text under each of its files."""
    for name in ("car.md", "copy.md"):
        (tmp_path / name).write_text("The car is red.")
    cmt("add", tmp_path / "car.md")
    assert cmt("add", tmp_path / "copy.md").stdout == "1 added, 0 updated, 0 unchanged\n"
    assert len(cmt("list", "--source", "*.md").stdout.splitlines()) == 2


@pytest.mark.parametrize("condition", ["year>>2020", 'year=["a"', "year=={"])
def test_a_condition_that_is_half_written(cmt, condition):
    """It is not taken for a search for odd text."""
    cmt("add", "--text", LISBON)
    assert "is not a value" in cmt("list", "--where", condition, code=2).stderr
