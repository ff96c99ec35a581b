"""One line more costs one line: what a change leaves as it was keeps its memory and embedding.

The texts are of sections whose cuts do not shift; the fake model records what it compresses.
"""

from dataclasses import replace

import numpy as np
import pytest

from cmt_sdk import Document
from cmt_sdk.testing.fakes import FakeEngine, open_fake


def section(n: int, word: str = "") -> str:
    """One day of a journal under its own heading."""
    return f"## Day {n}\n\nOn day {n} the keeper of lamp {n} noted number {n * 37} {word}.\n\n"


def journal(days, word: str = "") -> str:
    """A journal of these days."""
    return "".join(section(n, word) for n in days)


TWELVE = journal(range(12))
LONG = "\n\n" + journal(range(20, 30))  # sections of a short document are one passage
# How the journal of twelve days changes, and how many passages that costs.
CHANGES = {
    "one section appended": (TWELVE + section(12), 1),
    "one section put first": (section(99) + TWELVE, 1),
    "one section put in the middle": (journal(range(6)) + section(99) + journal(range(6, 12)), 1),
    "one section taken out": (journal([*range(4), *range(5, 12)]), 0),
    "all but one taken out": (section(7), 0),
    "two sections exchanged": (journal([0, 1, 9, 3, 4, 5, 6, 7, 8, 2, 10, 11]), 0),
    "in reverse order": (journal(reversed(range(12))), 0),
    "one word of one section": (TWELVE.replace("lamp 5 ", "lantern 5 "), 1),
    "one heading": (TWELVE.replace("## Day 5\n", "## Fifth day\n"), 1),
    "blank lines alone": (TWELVE.replace("\n\n", "\n\n\n"), 0),
    "one section twice": (TWELVE + section(3), 1),
    "another line end": (TWELVE.rstrip(), 0),
}


@pytest.fixture
def engine() -> FakeEngine:
    """Its compressor lists what it compressed."""
    return FakeEngine()


@pytest.fixture
def memory(tmp_path, engine):
    with open_fake(tmp_path / "memory", engine) as opened:
        yield opened


def keys_by_content(memory, name: str) -> dict[str, bytes]:
    """The embedding of each passage of a document."""
    embeddings = memory.embeddings()
    rows = dict(zip(embeddings.passage_ids, embeddings.matrix, strict=True))
    return {p.content: rows[p.id].tobytes() for p in memory.passages(name)}


@pytest.mark.parametrize(("text", "cost"), CHANGES.values(), ids=CHANGES)
def test_a_change_costs_what_it_changes(memory, engine, text, cost):
    """Updated by its id: passages of the same heading and text are not compressed again, and all is
    well afterwards.
    """
    memory.add(TWELVE, id="log")
    engine.compressor.compressed.clear()
    memory.update("log", text)
    assert len(engine.compressor.compressed) == cost
    passages = memory.passages("log")
    assert [p.ordinal for p in passages] == list(range(len(passages)))
    assert [p.text for p in passages] == [text[p.start : p.end] for p in passages]
    assert {(p.version, p.ready) for p in passages} == {(2, True)}
    assert {f.check: f.detail for f in memory.check() if not f.ok} == {}
    for content, key in keys_by_content(memory, "log").items():
        assert np.allclose(
            np.frombuffer(key, np.float32), engine.compressor.embed_question(content), atol=1e-6
        )
    day = passages[-1].text
    assert memory.search(day, 1, mode="text")[0].passage.text == day
    assert memory.search(passages[-1].content, 1, mode="vector")[0].vector_score > 0.999


def test_a_line_appended_to_a_journal_of_500_passages_compresses_three_at_most(cmt, tmp_path):
    """As `cmt add FILE` sees it, and as it says it."""
    (tmp_path / "log.md").write_text(journal(range(500)))
    assert cmt.json("add", tmp_path / "log.md")["compressed"] == 500
    with (tmp_path / "log.md").open("a") as file:
        file.write("One line more.\n")
    step = cmt.json("add", tmp_path / "log.md")
    assert (step["updated"], step["passages"] <= 3, step["compressed"] <= 3) == (1, True, True)


def test_watch_costs_no_more_than_add(cmt, tmp_path):
    """A saved file, with one section more, costs that section."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "log.md").write_text(TWELVE)
    cmt("watch", folder, "--once")
    before = cmt.json("stats")
    (folder / "log.md").write_text(TWELVE + section(12))
    cmt("watch", folder, "--once")
    after = cmt.json("stats")
    assert (before["passages"], after["passages"], after["pending"]) == (12, 13, 0)


def test_what_still_waits_goes_on_waiting(memory, engine):
    """A change before the first compression: each passage is compressed once, as it then is."""
    memory.add_many([Document(TWELVE, id="log")], compress=False)
    memory.update("log", TWELVE + section(12), wait=False)
    memory.wait()
    memory.compress()
    assert len(engine.compressor.compressed) == 13
    assert memory.stats().pending == 0


def test_a_section_that_stands_twice_keeps_one_memory_each(memory, engine):
    """Taking one of two equal sections out costs nothing; putting it back costs one."""
    rest = journal(range(20, 30))
    memory.add(section(1) + section(2) + section(1) + rest, id="log")
    engine.compressor.compressed.clear()
    memory.update("log", section(1) + section(2) + rest)
    assert engine.compressor.compressed == []
    memory.update("log", section(2) + section(1) + section(1) + rest)
    assert len(engine.compressor.compressed) == 1


def test_a_journal_of_a_known_source_costs_what_is_new(memory):
    """Progress counts the passages that a change brings, not those that stay."""
    first = memory.add_many([Document(TWELVE, source="log.md")], replace=True)
    second = memory.add_many([Document(TWELVE + section(12), source="log.md")], replace=True)
    assert (first.passages, first.compressed) == (12, 12)
    assert (second.updated, second.passages, second.compressed) == (1, 1, 1)


def test_memories_of_what_is_gone_are_gone(memory):
    """As many memories and embeddings as passages; a search finds nothing of what was taken out."""
    memory.add(TWELVE, id="log")
    memory.update("log", section(7))
    stats = memory.stats()
    assert (stats.passages, stats.cold, stats.pending, len(memory.embeddings().passage_ids)) == (
        1,
        0,
        0,
        1,
    )
    assert (
        memory.search("keeper lamp 3", 5, mode="text")[0].passage.text
        == memory.passages("log")[0].text
    )


def test_cold_memories_keep_their_key_vectors(tmp_path, engine):
    """Where the memories were evicted, an update compresses what is new alone."""
    with open_fake(tmp_path / "memory", engine) as memory:
        memory.add(TWELVE, id="log")
        memory._store.evict(0)
        engine.compressor.compressed.clear()
        memory.update("log", TWELVE + section(12))
        assert len(engine.compressor.compressed) == 1
        assert (memory.stats().cold, memory.stats().pending) == (12, 0)


@pytest.mark.parametrize(
    ("change", "cost"),
    [
        ({"source": "/home/ann/Documents/log.md"}, 0),
        ({"metadata": {"title": "Lamp journal", "colour": "red"}}, 0),
        ({"scope": "user/ann"}, 0),
        ({"metadata": {"title": "Keeper's book"}}, 12),
    ],
    ids=["moved, same title", "other metadata", "scope", "another title"],
)
def test_only_another_name_costs_all(memory, engine, change, cost):
    """What a document is called stands in each passage; what else is noted of it stands in none."""
    memory.add(
        Document(
            TWELVE, id="log", source="/home/ann/notes/log.md", metadata={"title": "Lamp journal"}
        )
    )
    engine.compressor.compressed.clear()
    memory.update("log", **change)
    assert len(engine.compressor.compressed) == cost
    assert memory.get("log").version == 1


def test_texts_of_one_document_do_not_take_each_other_s_memory(memory, engine):
    """The same words under another heading are another passage."""
    memory.add("## Rent\n\n950 euros.\n\n## Deposit\n\n1900 euros." + LONG, id="lease")
    engine.compressor.compressed.clear()
    memory.update("lease", "## Deposit\n\n950 euros.\n\n## Rent\n\n1900 euros." + LONG)
    assert [c.split("\n")[0] for c in engine.compressor.compressed] == ["Deposit", "Rent"]


def test_a_change_while_another_thread_compresses_is_not_lost(tmp_path):
    """What a compressor had in hand when the text changed is stored where it still belongs, and
    nowhere else.
    """
    engine = FakeEngine()
    with open_fake(tmp_path / "memory", engine) as memory:
        memory.add_many([Document(TWELVE, id="log")], compress=False)
        compress = engine.compressor.compress

        def changing(texts):
            engine.compressor.compress = compress
            changed = replace(memory.get("log"), text=journal(range(3, 12)))
            memory._store.replace("log", {"text": changed.text}, memory._ingestor.split(changed))
            return compress(texts)

        engine.compressor.compress = changing
        memory.compress()
        assert memory.stats().pending == 0
        for content, key in keys_by_content(memory, "log").items():
            assert np.allclose(
                np.frombuffer(key, np.float32), engine.compressor.embed_question(content), atol=1e-6
            )
