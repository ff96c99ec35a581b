"""Encrypted memories: nothing readable on the disk, no way in without the key, and nothing harmed
by trying.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

import cmt_sdk
from cmt_sdk.errors import InvalidSetting, MissingExtra, StorageDamaged, StorageEncrypted
from cmt_sdk.storage import driver, encryption, erasure
from cmt_sdk.testing.fakes import FakeEngine, open_fake
from tests.marked import Marked

sqlcipher = pytest.importorskip("sqlcipher3.dbapi2")
keyring = pytest.importorskip("keyring")

ROOT = Path(__file__).parents[2]
TOLD = "The zanzibarquartz lies under the mongolfierplum."
LISBON = "The museum moved to Lisbon in 2019."
KEY = "5f" * 32
PAGE = 4096


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 1

    def __init__(self, *, forgetful: bool = False) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.forgetful = forgetful

    def get_password(self, service, username):
        """What was kept."""
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        """Keep it, or say nothing and do not."""
        if not self.forgetful:
            self.kept[service, username] = password

    def delete_password(self, service, username):
        """As the interface wants."""
        del self.kept[service, username]


def use(monkeypatch: pytest.MonkeyPatch, ring: object) -> None:
    """From now on this is the system keyring."""
    monkeypatch.setattr(keyring.core, "_keyring_backend", ring)


@pytest.fixture(autouse=True)
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    """A keyring that works, and no CMT_KEY."""
    monkeypatch.delenv("CMT_KEY", raising=False)
    made = Ring()
    use(monkeypatch, made)
    return made


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """The key in CMT_KEY."""
    monkeypatch.setenv("CMT_KEY", KEY)
    return KEY


@pytest.fixture
def notes(tmp_path: Path, key: str) -> Path:
    """An encrypted memory of two documents, made with CMT_KEY."""
    with open_fake(tmp_path / "notes", encrypted=True) as memory:
        memory.add(TOLD, id="secret")
        memory.add(LISBON)
    return tmp_path / "notes"


def readable(folder: Path, made: Mapping[str, tuple[bytes, bytes]]) -> list[str]:
    """The files in which a word, a memory or an embedding can be read."""
    pieces = [b"zanzibarquartz", b"mongolfierplum", b"geheimakte", b"Lisbon", b"CREATE TABLE"]
    pieces += [
        data[at : at + 8]
        for both in made.values()
        for data in both
        for at in range(0, len(data) - 7, 8)
    ]
    return [f.name for f in folder.iterdir() if any(p in f.read_bytes() for p in pieces)]


def test_nothing_can_be_read_on_the_disk(tmp_path, key):
    """Texts, sources, memories and embeddings: while it is open, with its log, after a forget, and
    closed; no index file.
    """
    folder, engine = tmp_path / "notes", FakeEngine(Marked())
    with open_fake(folder, engine, encrypted=True, exact_limit=0) as memory:
        memory.add(TOLD, source="geheimakte.md", id="secret")
        memory.add_many([LISBON, *(f"Fact {n} of the report." for n in range(40))])
        assert memory.reindex() == "exact, 42 vectors"
        assert memory.search("museum", 1, mode="text")[0].document.text == LISBON
        assert (folder / "memory.db-wal").stat().st_size > 10 * PAGE
        assert readable(folder, engine.compressor.made) == []
        receipt = memory.forget("secret")
        assert (receipt.complete, receipt.traces_found) == (True, 0)
        assert readable(folder, engine.compressor.made) == []
    assert readable(folder, engine.compressor.made) == []
    assert {f.name for f in folder.iterdir()} <= {"memory.db", "memory.lock"}
    with open_fake(tmp_path / "plain", engine) as memory:
        memory.add(TOLD)
    # the scan sees what is there
    assert readable(tmp_path / "plain", engine.compressor.made) == ["memory.db"]


def test_it_opens_with_its_key_in_another_process(notes):
    """While it is open here, too."""
    program = "import sys; from pathlib import Path; from cmt_sdk.testing.fakes import open_fake\n"
    program += (
        "with open_fake(Path(sys.argv[1]), create=False) as m: m.add('From elsewhere.');"
        " print(m.count(), m.encrypted)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open_fake(notes) as memory:
        command = [sys.executable, "-W", "error", "-c", program, str(notes)]
        assert (
            subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            ).stdout
            == "3 True\n"
        )
        assert memory.count() == 3
        assert memory.model.ask("Where did the museum move?").text == LISBON


def test_several_processes_begin_one_memory(tmp_path, key):
    """Whoever is first makes it; all of them write into it."""
    program = (
        "import sys; from pathlib import Path; from cmt_sdk.testing.fakes import open_fake;"
        " sys.stdin.read()\n"
    )
    program += "with open_fake(Path(sys.argv[1]), encrypted=True) as m: m.add(sys.argv[2])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "notes")]
    crowd = [
        subprocess.Popen([*command, f"Fact {n}."], env=environment, stdin=subprocess.PIPE)
        for n in range(4)
    ]
    for one in crowd:
        one.stdin.close()
    assert [one.wait() for one in crowd] == [0, 0, 0, 0]
    with open_fake(tmp_path / "notes", create=False) as memory:
        assert sorted(d.text for d in memory.documents()) == [
            "Fact 0.",
            "Fact 1.",
            "Fact 2.",
            "Fact 3.",
        ]


def test_another_key_opens_nothing_and_harms_nothing(notes, monkeypatch):
    """The error says what to do, at every door; not a byte changes."""
    before = (notes / "memory.db").read_bytes()
    monkeypatch.setenv("CMT_KEY", "another")
    for door in (open_fake, cmt_sdk.repair):
        with pytest.raises(
            StorageEncrypted,
            match="the key in CMT_KEY does not open it: set CMT_KEY to the key it was",
        ):
            door(notes)
    assert (notes / "memory.db").read_bytes() == before
    assert [f.name for f in notes.parent.iterdir()] == ["notes"]  # repair has left no copy
    monkeypatch.setenv("CMT_KEY", KEY.upper())
    with open_fake(notes) as memory:
        assert memory.count() == 2


def test_without_its_key_it_stays_shut(notes, monkeypatch):
    """The error names the variable, and the keyring's entry that would do."""
    monkeypatch.delenv("CMT_KEY")
    name = (notes / "memory.db").read_bytes()[:16].hex()
    with pytest.raises(
        StorageEncrypted,
        match=rf"set CMT_KEY to .*; the system keyring \(cmt-sdk, {name}\) has none",
    ):
        open_fake(notes)
    use(monkeypatch, keyring.backends.fail.Keyring())
    with pytest.raises(StorageEncrypted, match=r"set CMT_KEY to .* cannot be asked"):
        open_fake(notes)


def test_without_the_extra_the_error_is_its_install_line(notes, tmp_path, monkeypatch):
    """For what is there and for what is to be made; plain memories need nothing."""
    monkeypatch.setattr(driver, "sqlcipher", None)
    for folder, encrypted in ((notes, False), (tmp_path / "new", True)):
        with pytest.raises(MissingExtra, match=r"pip install 'cmt-sdk\[encryption\]'"):
            open_fake(folder, encrypted=encrypted)
    with open_fake(tmp_path / "plain") as memory:
        assert memory.add(LISBON).text == LISBON


def test_where_another_sqlite_answers_nothing_is_written(tmp_path, key, monkeypatch):
    """A Python with SQLite built in may hide SQLCipher's functions behind its own: those take a key
    without a word.
    """
    monkeypatch.setattr(driver, "sqlcipher", sqlite3)
    with pytest.raises(StorageEncrypted, match="plain SQLite answers in its place"):
        open_fake(tmp_path / "notes", encrypted=True)
    assert (tmp_path / "notes" / "memory.db").stat().st_size == 0


def test_a_plain_memory_is_as_ever(tmp_path, key):
    """CMT_KEY changes nothing for it; asked to be encrypted it is refused, open or not, and stays
    what it is.
    """
    with open_fake(tmp_path / "notes") as memory:
        memory.add(LISBON)
        assert not memory.encrypted
        with pytest.raises(
            InvalidSetting, match="is not encrypted, and encrypted=True makes new ones"
        ):
            open_fake(tmp_path / "notes", encrypted=True)
    with pytest.raises(InvalidSetting, match="export it, and import it into a new one"):
        open_fake(tmp_path / "notes", encrypted=True)
    assert (tmp_path / "notes" / "memory.db").read_bytes().startswith(b"SQLite format 3\0")
    with open_fake(tmp_path / "notes", exact_limit=0) as memory:
        assert memory.reindex().startswith("hnsw")


@pytest.mark.parametrize("beginning", [bytes(100), b"This is something else.\n", b"\1"])
def test_what_is_damaged_never_becomes_a_plain_memory_unasked(tmp_path, key, beginning):
    """A file that begins as nothing we know is damaged, as ever."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "memory.db").write_bytes(beginning)
    with pytest.raises(StorageDamaged):
        open_fake(tmp_path / "notes", encrypted=True)
    assert (tmp_path / "notes" / "memory.db").read_bytes() == beginning


def test_a_passphrase_is_stretched_as_sqlcipher_does_it(tmp_path, monkeypatch):
    """Other programs with SQLCipher open the file with the same words; a key of 64 digits is used
    as it is.
    """
    words = 'it\'s a "pass" phrase, ключ'
    monkeypatch.setenv("CMT_KEY", words)
    with open_fake(tmp_path / "notes", encrypted=True) as memory:
        memory.add(LISBON)
    with closing(sqlcipher.connect(str(tmp_path / "notes" / "memory.db"))) as db:
        db.execute("PRAGMA key = '{}'".format(words.replace("'", "''")))
        assert db.execute("SELECT text FROM documents").fetchall() == [(LISBON,)]


def test_a_short_passphrase_begins_no_memory_and_opens_those_there_are(tmp_path, monkeypatch):
    """The error names its length, the limit and ways out, and not the words."""
    monkeypatch.setenv("CMT_KEY", "tulip and rose")
    with pytest.raises(
        InvalidSetting, match=r"has 14 characters, a new memory wants 15 or more: .*openssl"
    ) as refused:
        open_fake(tmp_path / "notes", encrypted=True)
    assert "tulip" not in str(refused.value)
    assert (tmp_path / "notes" / "memory.db").stat().st_size == 0
    with monkeypatch.context() as before:
        before.setattr(encryption, "SHORTEST", 8)
        open_fake(tmp_path / "notes", encrypted=True).close()
    for encrypted in (True, False):
        with open_fake(tmp_path / "notes", encrypted=encrypted) as memory:
            memory.add(LISBON)
    monkeypatch.setenv("CMT_KEY", "tulip and roses")
    open_fake(tmp_path / "new", encrypted=True).close()


def test_a_second_opening_here_reads_no_byte_of_the_file(notes, monkeypatch):
    """Closing a handle of our own would drop the locks that SQLite holds on it."""
    with open_fake(notes) as memory, monkeypatch.context() as patch:
        patch.setattr(encryption, "_beginning", None)
        (notes.parent / "link").symlink_to(notes)
        with open_fake(notes.parent / "link", encrypted=True) as second:
            second.add("From the second.")
        assert memory.count() == 3
    with open_fake(notes) as memory:
        assert memory.encrypted


def test_a_backup_has_the_same_key(notes, tmp_path, monkeypatch):
    """As a folder and as a file; nothing of it can be read, and the key opens it."""
    with open_fake(notes) as memory:
        memory.backup(tmp_path / "copy")
        (tmp_path / "one").mkdir()
        memory.backup(tmp_path / "one" / "copy.db")
    assert readable(tmp_path / "copy", {}) == readable(tmp_path / "one", {}) == []
    (tmp_path / "one" / "copy.db").rename(tmp_path / "one" / "memory.db")
    for name in ("copy", "one"):
        with open_fake(tmp_path / name, create=False) as memory:
            assert (memory.encrypted, memory.get("secret").text) == (True, TOLD)
            assert [f for f in memory.check() if not f.ok] == []
    monkeypatch.setenv("CMT_KEY", "another")
    with pytest.raises(StorageEncrypted):
        open_fake(tmp_path / "copy")


def test_forgetting_shows_the_key_to_no_other_process(notes, monkeypatch):
    """Neither the command line nor the environment of the search for traces has it."""
    calls, run = [], subprocess.run

    def watched(command, **options):
        calls.append((command, options["env"]))
        return run(command, **options)

    monkeypatch.setattr(erasure.subprocess, "run", watched)
    with open_fake(notes) as memory:
        receipt = memory.forget("secret")
    assert (receipt.complete, receipt.traces_found, receipt.files_scanned[0]) == (
        True,
        0,
        "memory.db",
    )
    ((command, environment),) = calls
    assert KEY not in str(command) + str(environment)


def test_a_trace_that_something_plain_holds_is_counted(notes):
    """The search looks at the bytes of every file, and asks the database with its key what it still
    holds on purpose.
    """
    (notes / "left behind").write_text(f"{TOLD} Lisbon2019museum")
    with open_fake(notes) as memory:
        memory.add("The mongolfierplum is ripe.")
        assert memory.forget("secret").traces_found > 0
        (notes / "left behind").write_text("mongolfierplum")
        memory.add("Another mongolfierplum.", id="another")
        assert memory.forget("another").traces_found == 0


def test_a_new_key_goes_to_the_keyring_and_follows_the_memory(tmp_path, ring, caplog):
    """Whatever the folder is called later, in copies of it too; nobody is shown it."""
    caplog.set_level(logging.DEBUG)
    with open_fake(tmp_path / "notes", encrypted=True) as memory:
        memory.add(TOLD, id="secret")
        memory.backup(tmp_path / "copy")
        found = memory.check()
        told = str(found) + repr(memory._store._key)
    name = (tmp_path / "notes" / "memory.db").read_bytes()[:16].hex()
    ((place, secret),) = ring.kept.items()
    assert (place, len(secret)) == (("cmt-sdk", name), 64)
    assert f"encrypted with the key in the system keyring (cmt-sdk, {name})" in [
        f.detail for f in found
    ]
    assert secret not in told + caplog.text
    (tmp_path / "notes").rename(tmp_path / "moved")
    # a new one in its place has a key of its own
    with open_fake(tmp_path / "notes", encrypted=True) as memory:
        assert memory.count() == 0
    for folder in ("moved", "copy"):
        with open_fake(tmp_path / folder) as memory:
            assert memory.get("secret").text == TOLD
    assert len(ring.kept) == 2


@pytest.mark.parametrize(
    "broken", [keyring.backends.fail.Keyring(), Ring(forgetful=True)], ids=["none", "forgets"]
)
def test_no_memory_is_made_whose_key_nobody_keeps(tmp_path, monkeypatch, broken):
    """Servers have no keyring: the error says so, and CMT_KEY does."""
    use(monkeypatch, broken)
    with pytest.raises(
        StorageEncrypted,
        match="set CMT_KEY to a key of your own, such as `openssl rand -hex 32` prints",
    ):
        open_fake(tmp_path / "notes", encrypted=True)
    assert (tmp_path / "notes" / "memory.db").stat().st_size == 0
    monkeypatch.setenv("CMT_KEY", KEY)
    open_fake(tmp_path / "notes", encrypted=True).close()


def test_damage_within_is_found_and_mended(notes, tmp_path):
    """What can be read of the other pages is saved, into an encrypted memory with the same key."""
    with open_fake(notes) as memory:
        memory.add_many(
            cmt_sdk.Document(f"Fact word{n:04} of the museum.", id=str(n)) for n in range(300)
        )
    data, salt = (
        bytearray((notes / "memory.db").read_bytes()),
        (notes / "memory.db").read_bytes()[:16],
    )
    for page in range(30, len(data) // PAGE, 25):
        data[page * PAGE + 99] ^= 16
    (notes / "memory.db").write_bytes(data)
    with open_fake(notes) as memory:
        assert [f.check for f in memory.check() if not f.ok] == ["database"]
    done = cmt_sdk.repair(notes)
    assert [f.check for f in done][:2] == ["backup", "database"]
    assert (notes / "memory.db").read_bytes()[:16] == salt
    with open_fake(notes, create=False) as memory:
        memory.finish_repair()
        texts = {d.id: d.text for d in memory.documents()}
        assert [f for f in memory.check() if not f.ok] == []
    assert len(texts) > 150
    assert all(
        text == f"Fact word{int(name):04} of the museum."
        for name, text in texts.items()
        if name.isdecimal()
    )
    assert all(readable(folder, {}) == [] for folder in tmp_path.iterdir())


def test_what_repair_cannot_mend_it_leaves_alone(notes, tmp_path):
    """A damaged beginning shuts an encrypted memory for good: nothing is put in its place."""
    with open_fake(notes) as memory:
        memory.add_many([f"Fact {n} of the museum." for n in range(100)])
    whole = (notes / "memory.db").read_bytes()
    for data, error in (
        (bytes(16) + whole[16:], StorageDamaged),
        (whole[:99] + bytes(9) + whole[108:], StorageEncrypted),
    ):
        (notes / "memory.db").write_bytes(data)
        with pytest.raises(error, match="damaged: restore a backup"):
            cmt_sdk.repair(notes)
        assert (notes / "memory.db").read_bytes() == data
        assert [f.name for f in tmp_path.iterdir()] == ["notes"]


def test_on_the_command_line(cmt, tmp_path, key, monkeypatch):
    """`cmt create --encrypted`; then every command opens it, as long as the key is there."""
    made = cmt("create", "--encrypted").stdout
    assert made.splitlines()[0] == str(cmt.home / "default")
    assert "encrypted with the key in CMT_KEY" in made
    cmt("add", "--text", LISBON)
    assert cmt("ask", "Where did the museum move?").stdout.startswith(LISBON)
    assert ["ok", "encryption"] in [
        line.split("\t")[:2] for line in cmt("check", code=1).stdout.splitlines()
    ]
    assert "already" in cmt("create", code=1).stderr
    assert cmt.json("create", "-m", tmp_path / "x") == {
        "path": str(tmp_path / "x"),
        "encrypted": False,
    }
    told = cmt("export", tmp_path / "all.cmt")
    assert "is not encrypted" in told.stderr
    assert "encrypted" not in cmt("export", tmp_path / "x.cmt", "-m", tmp_path / "x").stderr
    cmt("backup", tmp_path / "copy")
    assert cmt("ask", "-m", tmp_path / "copy", "Where did the museum move?").stdout.startswith(
        LISBON
    )
    monkeypatch.delenv("CMT_KEY")
    for command in ("list", "check", "doctor --repair", "stats"):
        shown = cmt(*command.split(), code=5)
        assert "set CMT_KEY" in shown.stderr
    assert json.loads(cmt("list", "--json", code=5).stderr)["error"]["type"] == "StorageEncrypted"


def test_the_keyring_on_the_command_line(cmt, ring):
    """No output has the key."""
    shown = cmt("create", "--encrypted").output + cmt("check", code=1).output + cmt("config").output
    assert "the system keyring (cmt-sdk, " in shown
    assert not any(secret in shown for secret in ring.kept.values())


def test_what_is_typed_into_a_conversation_is_not_kept_beside_it(cmt, key, monkeypatch):
    """The file of past questions would be readable."""
    seen = []
    monkeypatch.setattr("cmt_cli.chat.on_terminal", lambda _: True)
    monkeypatch.setattr("cmt_cli.chat._typed", lambda _, history: seen.append(history) or iter(()))
    cmt("create", "--encrypted", "-m", "one")
    cmt("create", "-m", "two")
    cmt("chat", "-m", "one")
    cmt("chat", "-m", "two")
    assert seen == [None, cmt.home / "two" / "chat-history"]


def test_plain_sqlite_sees_no_database(notes, tmp_path):
    """As a stranger would who has a copy of the disk."""
    shutil.copytree(notes, tmp_path / "stolen")
    with (
        closing(sqlite3.connect(tmp_path / "stolen" / "memory.db")) as db,
        pytest.raises(sqlite3.DatabaseError),
    ):
        db.execute("SELECT count(*) FROM sqlite_master")
