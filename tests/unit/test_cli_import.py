"""`cmt import` of what other services have exported; of our own archives see test_cli.py and
test_archive.py.
"""

import json
import zipfile

import pytest

from cmt_sdk.testing.fakes import open_fake

TALK = {
    "uuid": "c-1",
    "name": "Tea",
    "created_at": "2025-03-01T10:00:00Z",
    "chat_messages": [
        {"sender": "human", "text": "Which tea does Ann drink?"},
        {"sender": "assistant", "text": "Ann drinks green tea."},
    ],
}
MEM0 = {"results": [{"id": str(n), "memory": f"Fact {n}.", "user_id": "ann"} for n in range(3)]}


@pytest.fixture
def export(tmp_path):
    """An export of Claude as it is sent: a zip file."""
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as file:
        file.writestr("conversations.json", json.dumps([TALK]))
        file.writestr("users.json", "[]")
    return tmp_path / "export.zip"


def test_a_conversation_is_remembered(cmt, export):
    """With its title, time and source, and answered from; a second import changes nothing."""
    assert cmt("import", export).stdout == "1 added, 0 updated, 0 unchanged\n"
    document = cmt.json("list")
    assert (
        document["text"]
        == "# Tea\n\nUser: Which tea does Ann drink?\n\nAssistant: Ann drinks green tea."
    )
    assert (document["source"], document["created_at"]) == (
        "claude:c-1",
        "2025-03-01T10:00:00+00:00",
    )
    assert cmt.json("list", "--where", 'created>="2025"', "--where", 'app="claude"') == document
    assert "green tea" in cmt.json("ask", "Which tea does Ann drink?")["sources"][0]["text"]
    assert cmt("import", export).stdout == "0 added, 0 updated, 1 unchanged\n"


def test_a_later_export_updates(cmt, tmp_path, export):
    """By the conversation's own id, from an unpacked file as well."""
    cmt("import", export)
    longer = TALK | {
        "chat_messages": [*TALK["chat_messages"], {"sender": "human", "text": "And Bob?"}]
    }
    (tmp_path / "conversations.json").write_text(json.dumps([longer]))
    assert (
        cmt("import", tmp_path / "conversations.json").stdout == "0 added, 1 updated, 0 unchanged\n"
    )
    assert cmt.json("list")["version"] == 2


def test_memories_of_mem0_go_to_their_user_or_where_they_are_told(cmt, tmp_path):
    """The scope is that of the file, or the one that is given."""
    (tmp_path / "mem0.json").write_text(json.dumps(MEM0))
    assert cmt.json("import", tmp_path / "mem0.json")["added"] == 3
    assert len(cmt("list", "--scope", "user/ann").stdout.splitlines()) == 3
    cmt("import", tmp_path / "mem0.json", "-m", "other", "--scope", "team")
    assert len(cmt("list", "-m", "other", "--scope", "team").stdout.splitlines()) == 3


def test_compression_can_wait(cmt, export):
    """As with `cmt add`."""
    assert (
        cmt("import", export, "--no-wait").stdout
        == "1 added, 0 updated, 0 unchanged; 1 passage will be compressed later\n"
    )
    assert cmt.json("stats")["pending"] == 1


def test_what_comes_before_the_damage_stays(cmt, tmp_path):
    """A file that was cut off is told, and ends the command with an error after all else is
    done.
    """
    (tmp_path / "mem0.json").write_text('[{"memory": "Ann likes tea."}, {"memory": "Bob')
    done = cmt("import", tmp_path / "mem0.json", code=2)
    assert done.stdout == "1 added, 0 updated, 0 unchanged, 1 refused\n"
    assert "item 2 is damaged or cut off" in done.stderr
    assert cmt.json("stats")["pending"] == 0


def test_a_conversation_that_is_too_long_does_not_keep_the_others_out(cmt, tmp_path):
    """The limit of the memory is told."""
    with open_fake(cmt.home / "default", max_document_bytes=50):
        pass
    (tmp_path / "mem0.json").write_text(
        json.dumps([{"memory": "x" * 60, "id": "long"}, {"memory": "short"}])
    )
    done = cmt("import", tmp_path / "mem0.json", code=2)
    assert "mem0:long has 60 bytes, the limit is 50" in done.stderr
    assert cmt.json("list")["text"] == "short"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "it has no message with text"),
        ('{"a": 1}', "an item with the keys ['a']"),
        ("plain", "is no archive of `cmt export`"),
    ],
)
def test_a_file_without_conversations_begins_no_memory(cmt, tmp_path, content, words):
    """What it is and what was expected is told."""
    (tmp_path / "x.json").write_text(content)
    assert words in cmt("import", tmp_path / "x.json", code=2).stderr
    assert not cmt.home.exists()


def test_zip_files_that_are_neither(cmt, tmp_path, export):
    """One of something else, and a damaged one, which is told as archives tell it."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("a.png", b"x")
    assert "holds no conversations.json" in cmt("import", tmp_path / "photos.zip", code=2).stderr
    export.write_bytes(export.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x03"))
    assert "damaged" in cmt("import", export, code=5).stderr


def test_a_download_that_broke_off(cmt, export):
    """It is told as what it is, and no memory is begun."""
    export.write_bytes(export.read_bytes()[:60])
    assert (
        "is a zip file without its end: fetch or copy it again"
        in cmt("import", export, code=2).stderr
    )
    assert not cmt.home.exists()


def test_an_archive_brings_its_own_scopes(cmt, tmp_path):
    """--scope is not silently ignored."""
    cmt("add", "--text", "Ann likes tea.")
    cmt("export", tmp_path / "backup.cmt")
    assert "keep their own" in cmt("import", tmp_path / "backup.cmt", "--scope", "a", code=2).stderr
