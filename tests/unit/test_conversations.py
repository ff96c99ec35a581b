"""Exports of ChatGPT, Claude and mem0 become documents; what is hostile or something else is
refused with its place.
"""

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import cmt_sdk
from cmt_sdk.converting import exports
from cmt_sdk.errors import InvalidInput, NotFound
from cmt_sdk.testing.fakes import open_fake

FIRST = "00000000-0000-4000-8000-000000000000"


def node(
    name: str, parent: str | None, role: str = "", *parts: Any, kind: str = "text", **message: Any
) -> dict[str, Any]:
    """A node of ChatGPT's tree."""
    said = {
        "author": {"role": role},
        "content": {"content_type": kind, "parts": list(parts)},
        "recipient": "all",
        **message,
    }
    return {name: {"id": name, "parent": parent, "children": [], "message": said if role else None}}


TREE = (
    node("root", None)
    | node("s", "root", "system", "Be kind.")
    | node("about", "s", "user", kind="user_editable_context")
    | node("u1", "about", "user", "Where is the museum?", create_time=1714557600.5)
    | node("old", "u1", "assistant", "In Porto.", create_time=1714557601.0)
    | node(
        "call",
        "u1",
        "assistant",
        '{"query": "museum"}',
        recipient="web.run",
        create_time=1714557601.5,
    )
    | node("found", "call", "tool", "a page")
    | node("think", "found", "assistant", "Hmm.", kind="thoughts")
    | node(
        "a1",
        "think",
        "assistant",
        "In Lisbon \ue200cite\ue202turn0search0\ue201since 2019.",
        create_time=1714557602.0,
    )
    | node(
        "u2",
        "a1",
        "user",
        {"content_type": "image_asset_pointer"},
        "Thank you!",
        kind="multimodal_text",
    )
    | node(
        "hidden",
        "u2",
        "assistant",
        "secret",
        metadata={"is_visually_hidden_from_conversation": True},
    )
)
CHATGPT = {
    "title": "The museum's\nplace",
    "create_time": 1714557600.25,
    "update_time": 1714557700,
    "mapping": TREE,
    "current_node": "hidden",
    "conversation_id": "67a1",
}
CLAUDE = {
    "uuid": "c-1",
    "name": "Tea",
    "created_at": "2025-03-01T10:00:00.123456Z",
    "updated_at": "2025-03-01T10:05:00.000000Z",
    "account": {"uuid": "acct"},
    "chat_messages": [
        {
            "uuid": "m1",
            "sender": "human",
            "text": "Which tea?",
            "content": [{"type": "text", "text": "Which tea?"}],
            "created_at": "2025-03-01T10:00:01Z",
            "attachments": [{"file_name": "list.txt", "extracted_content": "green, black"}],
            "parent_message_uuid": FIRST,
        },
        {
            "uuid": "m2",
            "sender": "assistant",
            "text": "Black.",
            "content": [{"type": "text", "text": "Black."}],
            "created_at": "2025-03-01T10:00:02Z",
            "parent_message_uuid": "m1",
        },
        {
            "uuid": "m3",
            "sender": "assistant",
            "text": "",
            "content": [
                {"type": "thinking", "thinking": "Hmm."},
                {"type": "text", "text": "Green."},
                {"type": "tool_use"},
            ],
            "created_at": "2025-03-01T10:00:03Z",
            "parent_message_uuid": "m1",
        },
        {
            "uuid": "m4",
            "sender": "human",
            "text": "Why?",
            "created_at": "2025-03-01T10:00:04Z",
            "parent_message_uuid": "m3",
        },
    ],
}
MEM0 = {
    "id": "f38b",
    "memory": "Likes to travel to Paris",
    "user_id": "alex",
    "hash": "62bc",
    "metadata": {"year": 2024, "tags": ["a"], "far": 10**30, "odd": float("inf")},
    "categories": ["travel", "food"],
    "created_at": "2023-02-25T23:57:00.108347-07:00",
    "updated_at": None,
}


def read(tmp_path: Path, value: Any, name: str = "conversations.json") -> list[cmt_sdk.Document]:
    """The documents of a JSON file with this value."""
    (tmp_path / name).write_text(
        value if isinstance(value, str) else json.dumps(value), encoding="utf-8"
    )
    return list(cmt_sdk.read_conversations(tmp_path / name))


def zipped(path: Path, members: dict[str, Any]) -> Path:
    """A zip file of JSON members, and of a page that nobody asked for."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in members.items():
            file.writestr(name, json.dumps(value))
        file.writestr("chat.html", "<html>")
    return path


def test_a_conversation_of_chatgpt_is_the_branch_that_was_on_the_screen(tmp_path):
    """Its title is the heading; tools, thoughts, hidden messages, abandoned answers and marks of
    citations are not there.
    """
    (document,) = read(tmp_path, [CHATGPT])
    assert (
        document.text
        == "# The museum's place\n\nUser: Where is the museum?\n\nAssistant: In Lisbon since"
        " 2019.\n\nUser: Thank you!"
    )
    assert document.source == "chatgpt:67a1"
    assert document.created_at == datetime(2024, 5, 1, 10, 0, 0, 250000, tzinfo=UTC)
    assert document.metadata == {
        "app": "chatgpt",
        "title": "The museum's place",
        "created": "2024-05-01T10:00:00+00:00",
        "updated": "2024-05-01T10:01:40+00:00",
    }


def test_without_a_current_node_the_newest_message_ends_the_branch(tmp_path):
    """An export that somebody cut by hand still has one."""
    (document,) = read(tmp_path, [CHATGPT | {"current_node": None}])
    assert document.text.endswith("Assistant: In Lisbon since 2019.")


def test_a_conversation_of_claude_without_its_abandoned_answer(tmp_path):
    """Text blocks and pasted texts; of two answers to one message the one that was gone on from."""
    (document,) = read(tmp_path, [CLAUDE])
    assert (
        document.text
        == "# Tea\n\nUser: Which tea?\n\nlist.txt\n\ngreen, black\n\nAssistant: Green.\n\nUser:"
        " Why?"
    )
    assert (document.source, document.metadata["created"]) == (
        "claude:c-1",
        "2025-03-01T10:00:00+00:00",
    )


def test_messages_of_claude_whose_parents_are_missing_are_kept(tmp_path):
    """An export that lacks messages in between loses no more; older exports name no parents at
    all.
    """
    messages = [dict(m) for m in CLAUDE["chat_messages"]]
    messages[3]["parent_message_uuid"] = "gone"
    assert "Why?" in read(tmp_path, [CLAUDE | {"chat_messages": messages}])[0].text
    for message in messages:
        del message["parent_message_uuid"]
    assert (
        "Black.\n\nGreen.\n\nUser: Why?"
        in read(tmp_path, [CLAUDE | {"chat_messages": messages}])[0].text
    )


def test_what_claude_remembers_and_its_projects(tmp_path):
    """Memories, a project's description with its instructions, and its files; the starter project
    is everybody's.
    """
    memories = [
        {
            "conversations_memory": "Likes tea.",
            "project_memories": {"p1": "A book."},
            "account_uuid": "acct",
        }
    ]
    doc = {"uuid": "d1", "filename": "plan.md", "content": "Ten chapters."}
    project = {
        "uuid": "p1",
        "name": "Book",
        "description": "",
        "prompt_template": "Be brief.",
        "docs": [doc],
    }
    starter = project | {"uuid": "p2", "is_starter_project": True}
    path = zipped(
        tmp_path / "data.zip",
        {
            "conversations.json": [CLAUDE],
            "memories.json": memories,
            "projects.json": [project, starter],
            "users.json": [1],
        },
    )
    found = {d.source: d.text for d in cmt_sdk.read_conversations(path)}
    assert found.pop("claude:c-1").startswith("# Tea")
    assert found == {
        "claude:memory/acct": "# What Claude remembers\n\nLikes tea.",
        "claude:memory/p1": "# What Claude remembers of a project\n\nA book.",
        "claude:project/p1": "# Book\n\nBe brief.",
        "claude:project/p1/d1": "# Book\n## plan.md\n\nTen chapters.",
    }


@pytest.mark.parametrize(
    "shape",
    [
        lambda m: m,
        lambda m: [m],
        lambda m: {"results": [m]},
        lambda m: {"count": 1, "memories": [m]},
    ],
)
def test_memories_of_mem0(tmp_path, shape):
    """One alone, a list, or what `get_all` returns; plain metadata stays, and the user becomes the
    scope.
    """
    (document,) = read(tmp_path, shape(MEM0), "mem0.json")
    assert (document.text, document.source, document.scope) == (
        "Likes to travel to Paris",
        "mem0:f38b",
        "user/alex",
    )
    assert document.metadata == {
        "year": 2024,
        "user_id": "alex",
        "categories": "travel, food",
        "app": "mem0",
        "created": "2023-02-26T06:57:00+00:00",
    }


@pytest.mark.parametrize(
    ("ids", "scope"),
    [
        ({"run_id": "7"}, "user/alex/session/7"),
        ({"user_id": None}, ""),
        ({"user_id": ".."}, ""),
        ({"user_id": "a/b"}, "user/a_b"),
    ],
)
def test_the_scope_of_a_memory_is_a_sound_path(tmp_path, ids, scope):
    """Ids that are no names of a scope make none."""
    (document,) = read(tmp_path, [MEM0 | ids])
    assert document.scope == scope


def test_split_zipped_and_unpacked_exports_are_the_same(tmp_path):
    """conversations-000.json and on, in a folder of the zip file; what macOS adds is passed
    over.
    """
    path = zipped(
        tmp_path / "a.zip",
        {
            "export/conversations-000.json": [CHATGPT],
            "export/conversations-001.json": [CLAUDE],
            "__MACOSX/export/conversations.json": [1],
        },
    )
    packed = list(cmt_sdk.read_conversations(path))
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path)
    assert [d.source for d in packed] == ["chatgpt:67a1", "claude:c-1"]
    assert list(cmt_sdk.read_conversations(tmp_path / "export")) == packed


def test_every_passage_stands_below_the_title(tmp_path):
    """Headings, rules and open code blocks in what was said end at its end; no line is lost."""
    said = "## Steps\nfirst\n---\n# Then\nmore\n\n```sh\n# a comment\nls"
    messages = [
        {"sender": "human", "text": "How?"},
        {"sender": "assistant", "text": said},
        {"sender": "human", "text": "```\nx = 1\n```\n### Why so?"},
    ]
    (document,) = read(tmp_path, [CLAUDE | {"chat_messages": messages}])
    with open_fake(tmp_path / "m", passage_tokens=16) as memory:
        passages = memory.passages(memory.add(document).id)
    assert {p.heading for p in passages} == {"Tea"}
    for line in ("Steps", "first", "Then", "more", "# a comment", "x = 1", "Why so?"):
        assert any(line in p.text for p in passages)


def test_a_second_import_changes_nothing_and_a_later_one_updates(tmp_path):
    """By the source, which is the conversation's own id."""
    longer = CHATGPT | {
        "current_node": "u3",
        "mapping": TREE | node("u3", "u2", "user", "And the bridge?"),
    }
    with open_fake(tmp_path / "m") as memory:
        steps = [
            memory.add_many(read(tmp_path, [c]), replace=True) for c in (CHATGPT, CHATGPT, longer)
        ]
        (document,) = memory.documents()
    assert [(s.added, s.unchanged, s.updated) for s in steps] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert document.text.endswith("And the bridge?")


def test_text_that_no_memory_can_hold_is_mended(tmp_path):
    """NULs and halves of characters in texts, titles, ids and metadata."""
    torn = MEM0 | {"memory": "a\0b\ud83d c", "id": "x\ud83d", "metadata": {"k\0": "v\ud83d"}}
    (document,) = read(tmp_path, [torn])
    assert (document.text, document.source, document.metadata["k"]) == ("ab c", "mem0:x", "v")
    with open_fake(tmp_path / "m") as memory:
        assert memory.add(document).text == "ab c"


def test_what_nobody_said_is_no_document(tmp_path):
    """Empty conversations, and messages of wrong types."""
    odd = [
        None,
        7,
        {"sender": "human"},
        {"sender": ["human"], "text": "x"},
        {"sender": "human", "text": 7, "content": "x"},
    ]
    assert (
        read(
            tmp_path,
            [CLAUDE | {"chat_messages": odd}, CHATGPT | {"mapping": {}}, MEM0 | {"memory": " "}],
        )
        == []
    )
    broken = {
        "root": None,
        "a": {"parent": "b", "message": []},
        "b": {"parent": ["a"], "message": {"content": {"parts": 3}}},
    }
    assert read(tmp_path, [CHATGPT | {"mapping": broken, "current_node": "a"}]) == []


@pytest.mark.parametrize(
    "time", [1e300, float("nan"), "soon", True, [1], "9999-12-31T23:59:59-23:00", -1e20]
)
def test_times_that_are_none_are_left_out(tmp_path, time):
    """The conversation is read all the same."""
    (document,) = read(tmp_path, [CHATGPT | {"create_time": time}])
    assert document.created_at is None
    assert "created" not in document.metadata


def test_circles_end(tmp_path):
    """In ChatGPT's tree and among Claude's parents."""
    circle = node("a", "b", "user", "one") | node("b", "a", "assistant", "two")
    assert (
        "User: one" in read(tmp_path, [CHATGPT | {"mapping": circle, "current_node": "a"}])[0].text
    )
    messages = [
        {"uuid": n, "parent_message_uuid": p, "sender": "human", "text": n}
        for n, p in (("a", "b"), ("b", "a"), ("c", "c"))
    ]
    assert read(
        tmp_path, [CLAUDE | {"chat_messages": [*messages, {"sender": "human", "text": "sound"}]}]
    )[0].text.endswith("sound")


def test_a_chain_of_many_messages_takes_no_long_time(tmp_path):
    """A hundred thousand messages, each the child of the one before."""
    messages = [
        {
            "uuid": str(i),
            "parent_message_uuid": str(i - 1),
            "sender": "human",
            "text": f"m{i}",
            "created_at": f"{i:09}",
        }
        for i in range(100_000)
    ]
    assert read(tmp_path, [CLAUDE | {"chat_messages": messages}])[0].text.endswith("m99999")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("Dear diary", "no JSON"),
        ("[1, 2]", "item 1: 1 is no object"),
        ("[{}]", "keys []"),
        ('[{"id": "user-1", "email": "x"}]', "keys ['email', 'id']"),
        ('{"results": [7]}', "item 1: 7 is no object"),
        ('[{"mapping": []}]', "mapping is [], expected dict"),
        ('[{"chat_messages": {}}]', "chat_messages is {}, expected list"),
        ('[{"memory": null}]', "memory is None, expected str"),
        ('[{"memory": "a"}, {"memory"', "item 2 is damaged or cut off"),
        ('[{"memory": "a"}', "item 2 is damaged or cut off"),
        ('[{"memory": "a"} oops', "item 2 is damaged or cut off"),
        ('[{"memory": ' + "[" * 100_000, "nested too deep"),
        ('{"memory": ' + '{"a": ' * 100_000, "nested too deep"),
        ('[{"memory": "a", "id": ' + "1" * 5000 + "}]", "item 1 is damaged"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused_with_its_place(tmp_path, text, words):
    """The file and the item are named, with what was expected."""
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, text)
    assert words in str(refused.value)
    assert str(tmp_path / "conversations.json") in str(refused.value)
    assert "give an export of" in str(refused.value) or "fetch the export again" in str(
        refused.value
    )


def test_files_that_are_something_else(tmp_path):
    """Binary data, a zip file without conversations, a damaged one, an empty folder, nothing."""
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="no UTF-8"):
        list(cmt_sdk.read_conversations(tmp_path / "binary.json"))
    (tmp_path / "empty").mkdir()
    for path in (zipped(tmp_path / "other.zip", {"user.json": {"a": 1}}), tmp_path / "empty"):
        with pytest.raises(InvalidInput, match=r"holds no conversations\.json"):
            list(cmt_sdk.read_conversations(path))
    path = zipped(tmp_path / "torn.zip", {"conversations.json": [CHATGPT]})
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x03"))
    with pytest.raises(InvalidInput, match="cannot be unpacked"):
        list(cmt_sdk.read_conversations(path))
    with pytest.raises(NotFound):
        list(cmt_sdk.read_conversations(tmp_path / "nowhere.json"))


def test_sizes_have_limits(tmp_path, monkeypatch):
    """Of all files together as they claim to be, and of one item; a long item is read in pieces."""
    path = zipped(
        tmp_path / "bomb.zip", {"conversations-000.json": [MEM0], "conversations-001.json": [MEM0]}
    )
    size = len(json.dumps([MEM0]))
    monkeypatch.setattr(exports, "LARGEST_FILE", size * 2 - 1)
    with pytest.raises(
        InvalidInput,
        match=rf"unpacked, has {size * 2:,} bytes, JSON is read up to {size * 2 - 1:,}",
    ):
        list(cmt_sdk.read_conversations(path))
    monkeypatch.setattr(exports, "LARGEST_FILE", 100_000)
    monkeypatch.setattr(exports, "BLOCK", 16)
    monkeypatch.setattr(exports, "LARGEST_ITEM", 2000)
    assert [d.source for d in read(tmp_path, json.dumps([MEM0, MEM0], indent=20))] == [
        "mem0:f38b"
    ] * 2
    with pytest.raises(InvalidInput, match=r"longer than 2,000 characters"):
        read(tmp_path, [MEM0 | {"memory": "x" * 6000}])


def test_a_file_of_an_open_memory_is_not_touched(tmp_path):
    """Closing it would drop the locks of the database."""
    with (
        open_fake(tmp_path / "m") as memory,
        pytest.raises(InvalidInput, match="memory that is open"),
    ):
        list(cmt_sdk.read_conversations(memory.path / "memory.db"))
