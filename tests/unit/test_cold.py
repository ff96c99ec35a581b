"""Cold passages: under `memory_budget` they are read from their text at once, and compressed behind
the answer.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from cmt_sdk import encoding
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, FakeReader, open_fake
from cmt_sdk.types import MIN_FIDELITY, CompressedPassage, Document, Filter, Prompt

LISBON = "The museum moved to Lisbon in 2019."
GENOA = "The harbour of Genoa opens at nine."
TEA = "Ann likes green tea with ginger."
FACTS = [LISBON, GENOA, TEA]
ROOM_FOR_ONE, ROOM_FOR_TWO = 200, 300  # bytes: a stored passage of these has 100 to 150
MUSEUM = "Where did the museum move?"
HARBOUR = "When opens the harbour?"


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch) -> None:
    """What is compressed behind an answer is compressed at once."""
    monkeypatch.setattr(encoding, "QUIET", 0.0)


@dataclass
class NotingReader(FakeReader):
    """The fake reader, which keeps the prompts that it reads."""

    prompts: list[Prompt] = field(default_factory=list)

    def read(self, prompt, max_tokens):
        """Note the prompt, and read it."""
        self.prompts.append(prompt)
        return super().read(prompt, max_tokens)


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that notes what it compresses and reads."""
    return FakeEngine(reader=NotingReader())


@pytest.fixture
def memory(tmp_path, engine) -> Iterator:
    """Three facts, of which one is compressed and two are cold."""
    with open_fake(tmp_path / "notes", engine, memory_budget=ROOM_FOR_ONE) as opened:
        opened.add_many(FACTS)
        assert tiers(opened) == (1, 2, 0)
        engine.compressor.compressed.clear()
        yield opened


def tiers(memory) -> tuple[int, int, int]:
    """How many passages are compressed, cold and pending."""
    stats = memory.stats()
    return stats.compressed, stats.cold, stats.pending


def all_cold(memory) -> None:
    """Drop every compressed form."""
    memory._store.evict(0)


def words_of(memory: CompressedPassage) -> str:
    """The text of a fake's compressed passage."""
    return bytes(memory.arrays["bytes"] ^ np.uint8(0x55)).decode()


# -- reading ---------------------------------------------------------------------------------------


def test_a_cold_passage_is_read_at_once_and_compressed_behind_the_answer(memory, engine):
    """Nothing is compressed before the answer; behind it the passage takes the place of the one
    that was read longest ago.
    """
    all_cold(memory)
    stream = memory.ask(MUSEUM, k=1, stream=True)
    for _ in stream:
        assert engine.compressor.compressed == []
    assert stream.answer.text == LISBON
    assert engine.read_at_once == [LISBON]
    assert memory.wait(60)
    assert engine.compressor.compressed == [LISBON]
    assert tiers(memory) == (1, 2, 0)
    engine.read_at_once.clear()
    assert memory.ask(MUSEUM, k=1).text == LISBON
    assert engine.read_at_once == []


def test_cold_and_compressed_passages_keep_their_order(memory, engine):
    """The best one stands last, whichever they are."""
    answer = memory.ask("museum harbour tea", k=3)
    prompt, *_ = engine.reader.prompts
    order = [source.text for source in answer.sources]
    assert [words_of(m) for m in prompt.memories] == order[::-1]
    assert prompt.texts == ()
    assert sorted(engine.read_at_once) == sorted(FACTS[:2])  # the last one is compressed


def test_a_passage_is_read_once_for_one_question(memory, engine):
    """Readings after the first one use what that one read."""
    all_cold(memory)
    memory.ask("museum harbour tea", k=3, reader="auto")
    assert sorted(engine.read_at_once) == sorted(FACTS)


def test_what_the_answer_reads_is_put_in_order(memory, engine):
    """Cold passages that are read from their text anyway are judged by it; no other one is read."""
    all_cold(memory)
    answer = memory.ask("the harbour of Genoa, the museum, the tea", k=2)
    assert [source.text for source in answer.sources] == [GENOA, LISBON]
    assert all("nats" in source.why for source in answer.sources)
    assert sorted(engine.read_at_once) == sorted([GENOA, LISBON])
    scores = [source.score for source in answer.sources]
    assert scores == sorted(scores, reverse=True)


def test_a_newer_cold_note_supersedes_an_older_one(tmp_path, engine):
    """As it does when both are compressed."""
    with open_fake(tmp_path / "notes", engine) as memory:
        memory.add("my flat is in Paris", id="old")
        memory.add("my flat is in Berlin", id="new")
        question = "Where is my flat?"
        warm = memory.ask(question)
        all_cold(memory)
        cold = memory.ask(question)
        assert [(s.document_id, s.superseded_by) for s in cold.sources] == [
            (s.document_id, s.superseded_by) for s in warm.sources
        ]


def test_a_reader_of_texts_reads_no_cold_passage_twice(memory, engine):
    """Neither to order passages nor to compress them."""
    all_cold(memory)
    assert memory.ask(MUSEUM, k=2, reader="text").text == LISBON
    assert memory.wait(60)
    assert (engine.read_at_once, engine.compressor.compressed) == ([], [])


def test_ordering_and_searching_compress_no_cold_passage(memory, engine):
    """Their likelihood is not known, and their place decides."""
    all_cold(memory)
    found = memory.search("museum harbour tea", mode="reranked")
    assert [m.likelihood for m in found] == [None] * 3
    assert (engine.compressor.compressed, engine.read_at_once) == ([], [])
    assert memory.wait(60)
    assert tiers(memory) == (0, 3, 0)


def test_a_broken_off_answer_leaves_no_passage_cold(memory, engine):
    """Who stops reading the answer has read the passages all the same."""
    all_cold(memory)
    stream = memory.ask(MUSEUM, k=1, stream=True)
    pieces = iter(stream)
    next(pieces)
    pieces.close()
    stream._pieces.close()
    assert memory.wait(60)
    assert engine.compressor.compressed == [LISBON]


def test_a_damaged_compressed_form_is_made_again(tmp_path, engine, caplog):
    """Without a budget too: its text is read, and it is compressed behind the answer."""
    with open_fake(tmp_path / "notes", engine) as memory:
        memory.add(LISBON)
        with memory._store._write() as db:
            db.exec_driver_sql("UPDATE memories SET data = x'00'")
        assert memory.ask(MUSEUM).text == LISBON
        assert engine.read_at_once == [LISBON]
        assert memory.wait(60)
        assert memory.ask(MUSEUM).text == LISBON
        assert engine.read_at_once == [LISBON]
    assert "damaged" in caplog.text


# -- the budget ------------------------------------------------------------------------------------


def test_without_a_budget_nothing_goes_cold(tmp_path, engine):
    """0 keeps all."""
    with open_fake(tmp_path / "notes", engine, memory_budget=0) as memory:
        memory.add_many(FACTS)
        memory.ask("museum harbour tea")
        assert memory.wait(60)
        assert tiers(memory) == (3, 0, 0)
        assert engine.read_at_once == []


def test_a_budget_smaller_than_one_passage_compresses_nothing_behind_answers(tmp_path, engine):
    """Each passage is compressed once more to learn its size, and is then left as it is."""
    with open_fake(tmp_path / "notes", engine, memory_budget=1) as memory:
        memory.add_many(FACTS)
        assert tiers(memory) == (0, 3, 0)
        engine.compressor.compressed.clear()
        for _ in range(3):
            assert memory.ask("museum harbour tea", k=3).text in FACTS
            assert memory.wait(60)
        assert sorted(engine.compressor.compressed) == sorted(FACTS)
        assert (tiers(memory), memory.stats().memory_bytes) == ((0, 3, 0), 0)


def test_an_answer_over_more_than_the_budget_drops_nothing_that_it_compressed(tmp_path, engine):
    """One passage fits: the second is compressed in vain, and the third is not."""
    with open_fake(tmp_path / "notes", engine, memory_budget=3_000) as memory:
        memory.add_many(f"{fact} {'z' * 2_000}." for fact in FACTS)
        all_cold(memory)
        engine.compressor.compressed.clear()
        memory.ask("museum harbour tea", k=3)
        assert memory.wait(60)
        assert len(engine.compressor.compressed) == 2
        assert tiers(memory) == (1, 2, 0)
        assert memory.stats().memory_bytes <= 3_000
        assert memory.cold_read == []


def test_a_smaller_budget_holds_from_the_next_opening(tmp_path, engine):
    """`compress` drops what is too much, even if nothing waits."""
    with open_fake(tmp_path / "notes", engine) as memory:
        memory.add_many(FACTS)
        memory.configure(memory_budget=ROOM_FOR_ONE)
        memory.compress()
        assert tiers(memory) == (3, 0, 0)
    with open_fake(tmp_path / "notes", engine) as memory:
        assert memory.compress() == 0
        assert tiers(memory) == (1, 2, 0)


def test_all_passages_of_a_memory_are_read(memory):
    """As many as there are, cold or not."""
    assert len(memory.ask("museum harbour tea", k=10**6).sources) == 3


@dataclass
class Measuring(FakeCompressor):
    """Finds the compressed form of the harbour poor."""

    def compress(self, texts):
        """As the fake does, with a fidelity for each."""
        return [
            replace(made, fidelity=MIN_FIDELITY - 0.1 if "harbour" in text else 1.0)
            for text, made in zip(texts, super().compress(texts), strict=True)
        ]


def test_a_poor_passage_goes_first_and_stays_cold(tmp_path):
    """Though it was read last: its text is read better. Without a budget it is compressed."""
    engine = FakeEngine(Measuring())
    with open_fake(tmp_path / "notes", engine, memory_budget=ROOM_FOR_TWO) as memory:
        memory.add_many([LISBON, TEA, Document(GENOA, source="genoa")])
        assert tiers(memory) == (2, 1, 0)
        engine.compressor.compressed.clear()
        for _ in range(2):
            assert memory.ask(HARBOUR, source="genoa").text == GENOA
            assert memory.wait(60)
        assert engine.compressor.compressed == [GENOA]
        assert tiers(memory) == (2, 1, 0)
    with open_fake(tmp_path / "notes", engine, memory_budget=0) as memory:
        memory.ask(HARBOUR, source="genoa")
        assert memory.wait(60)
        assert tiers(memory) == (3, 0, 0)


# -- what happens between the answer and the compression -------------------------------------------


@pytest.fixture
def held(memory, monkeypatch) -> Iterator[threading.Event]:
    """Holds what is compressed behind an answer back until the event is set."""
    go = threading.Event()
    compress_cold = memory._passage_encoder.compress_cold

    def later(stop):
        while not go.wait(0.01) and not stop():
            pass
        compress_cold(stop)

    monkeypatch.setattr(memory._passage_encoder, "compress_cold", later)
    all_cold(memory)
    assert memory.ask(MUSEUM, k=1).text == LISBON
    yield go
    go.set()


def test_forgotten_before_it_is_compressed(memory, held, tmp_path):
    """Nothing of it comes back."""
    (document,) = [d for d in memory.documents() if d.text == LISBON]
    assert memory.forget(document.id).complete
    held.set()
    assert memory.wait(60)
    assert tiers(memory) == (0, 2, 0)
    for file in (tmp_path / "notes").iterdir():
        assert b"Lisbon" not in file.read_bytes()


def test_updated_before_it_is_compressed(memory, held, engine):
    """The new text is read, and the old one is not compressed."""
    (document,) = [d for d in memory.documents() if d.text == LISBON]
    engine.compressor.compressed.clear()
    memory.update(document.id, "The museum moved to Porto.")
    held.set()
    assert memory.wait(60)
    assert engine.compressor.compressed == ["The museum moved to Porto."]
    assert memory.ask(MUSEUM, k=1).text == "The museum moved to Porto."


def test_closed_before_it_is_compressed(memory, held, tmp_path, engine):
    """Closing waits for nothing; the passage is cold as it was."""
    began = time.monotonic()
    memory.close()
    assert time.monotonic() - began < 5.0
    with open_fake(tmp_path / "notes", engine) as again:
        assert tiers(again) == (0, 3, 0)
        assert [f for f in again.check() if not f.ok] == []
        assert again.ask(MUSEUM, k=1).text == LISBON


def test_a_later_opening_compresses_what_an_earlier_one_read(memory, held, tmp_path, engine):
    """As a program does that opens a memory for each question."""
    memory.close()
    engine.compressor.compressed.clear()
    with open_fake(tmp_path / "notes", engine) as again:
        again.compress_cold([*memory.cold_read, 10**6])
        assert again.wait(60)
        assert engine.compressor.compressed == [LISBON]
        assert (tiers(again), again.cold_read) == ((1, 2, 0), [])


def test_compressed_by_another_before(memory, held, tmp_path, engine):
    """It is not compressed twice."""
    with open_fake(tmp_path / "notes", engine, memory_budget=0) as other:
        other.ask(MUSEUM, k=1)
        assert other.wait(60)
    held.set()
    assert memory.wait(60)
    assert engine.compressor.compressed.count(LISBON) == 1


def test_a_question_goes_first(memory, engine, monkeypatch):
    """While questions come, nothing is compressed."""
    monkeypatch.setattr(encoding, "QUIET", 30.0)
    all_cold(memory)
    for _ in range(3):
        assert memory.ask(MUSEUM, k=1).text == LISBON
    assert not memory.wait(0.1)
    assert engine.compressor.compressed == []
    began = time.monotonic()
    memory.close()
    assert time.monotonic() - began < 5.0
    assert engine.compressor.compressed == []


def test_questions_of_several_threads(tmp_path):
    """Each gets its answer while others are compressed and dropped behind it."""
    engine = FakeEngine()
    texts = [f"The fact number{n:03} of the museum is {n * 7}." for n in range(40)]
    failed: list[BaseException] = []
    with open_fake(tmp_path / "notes", engine, memory_budget=5 * ROOM_FOR_ONE) as memory:
        memory.add_many(texts)

        def asks(first: int) -> None:
            try:
                for n in range(first, 40, 4):
                    assert memory.ask(f"number{n:03}", k=1).text == texts[n]
            except BaseException as error:  # noqa: BLE001 - the test shows it
                failed.append(error)

        threads = [threading.Thread(target=asks, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert memory.wait(60)
        assert failed == []
        assert memory.stats().memory_bytes <= 5 * ROOM_FOR_ONE
        assert sum(tiers(memory)) == 40
        assert [f for f in memory.check() if not f.ok] == []


def test_of_very_many_cold_passages_the_latest_are_compressed(tmp_path, engine, monkeypatch):
    """A question over a large memory does not keep the machine busy for hours."""
    monkeypatch.setattr(encoding, "MOST_COLD", 2)
    with open_fake(tmp_path / "notes", engine) as memory:
        memory.add_many(FACTS)
        all_cold(memory)
        engine.compressor.compressed.clear()
        memory.ask("museum harbour tea", k=3)
        assert memory.wait(60)
        assert len(engine.compressor.compressed) == 2


# -- kinds of memories -----------------------------------------------------------------------------


def test_an_encrypted_memory(tmp_path, engine, monkeypatch):
    """Cold passages are read and compressed as in any; no word stands in its files."""
    pytest.importorskip("sqlcipher3")
    monkeypatch.setenv("CMT_KEY", "ab" * 32)
    folder = tmp_path / "notes"
    with open_fake(folder, engine, encrypted=True, memory_budget=ROOM_FOR_ONE) as memory:
        memory.add_many(FACTS)
        all_cold(memory)
        assert memory.ask(MUSEUM, k=1).text == LISBON
        assert memory.wait(60)
        assert tiers(memory) == (1, 2, 0)
    assert not any(b"Lisbon" in file.read_bytes() for file in folder.iterdir())


def test_a_memory_that_may_not_be_written(tmp_path, engine, monkeypatch):
    """Each question reads the text again; nothing is compressed."""
    folder: Path = tmp_path / "notes"
    with open_fake(folder, engine, memory_budget=1) as memory:
        memory.add_many(FACTS)
        monkeypatch.setattr(memory._store, "read_only", True, raising=False)
        engine.compressor.compressed.clear()
        for _ in range(2):
            assert memory.ask(MUSEUM, k=1).text == LISBON
        assert memory.wait(60)
        assert engine.read_at_once == [LISBON] * 2
        assert engine.compressor.compressed == []


def test_a_pending_passage_beyond_those_that_are_ordered(tmp_path, engine):
    """It is read from its text too, and compressed behind the answer; others stay pending."""
    with open_fake(tmp_path / "notes", engine, rerank=0) as memory:
        memory.add_many(FACTS, compress=False)
        assert tiers(memory) == (0, 0, 3)
        assert memory.ask("museum", k=1).text == LISBON
        assert memory.wait(60)
        assert tiers(memory) == (1, 0, 2)
        assert memory.search(LISBON, 1, mode="vector")[0].passage.text == LISBON
        assert len(memory._store.choose(Filter())) == 3
