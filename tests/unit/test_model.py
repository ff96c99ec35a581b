"""Asking: readers, budgets, streaming, chat, and what an answer tells, with a fake language
model.
"""

import math
import threading
from dataclasses import dataclass, field, replace

import pytest

from cmt_sdk import encoding
from cmt_sdk.errors import InvalidInput, InvalidSetting
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, FakeReader, open_fake
from cmt_sdk.text.prompt_messages import UNKNOWN
from cmt_sdk.types import MIN_FIDELITY, CopiedTexts, Piece, Usage

FACTS = [
    "The museum moved to Lisbon in 2019.",
    "The harbour of Genoa opens at nine.",
    "Ann likes green tea. She drinks it cold.",
]


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        opened.add_many(FACTS)
        yield opened


@pytest.mark.parametrize("reader", ["memory", "text", "auto"])
def test_every_reader_answers_with_its_source(memory, reader):
    """The best passage comes first, with the reasons why."""
    answer = memory.model.ask("When does the harbour open?", reader=reader, k=2)
    assert answer.text == FACTS[1]
    assert answer.sources[0].text == FACTS[1]
    assert "words #1" in answer.sources[0].why
    assert not answer.abstained
    assert set(answer.milliseconds) >= {"encode", "search", "load", "prefill", "decode"}


def test_the_memory_reader_counts_memory_and_prompt_apart(memory):
    """Tokens that were read from memory are not tokens of the prompt."""
    answer = memory.model.ask("When does the harbour open?", k=1)
    assert (answer.memory_tokens, answer.prompt_tokens) == (7, 5)
    assert memory.model.ask("When does the harbour open?", k=1, reader="text").memory_tokens == 0


def test_no_reader_sees_no_memory(memory):
    """The bare model is asked without notes and without sources."""
    answer = memory.model.ask("When does the harbour open?", reader="none")
    assert (list(answer.sources), answer.reader, answer.abstained) == ([], "none", False)


def test_auto_looks_up_the_text_when_unsure(memory):
    """Where the memory reader is unsure, the best passage's text is read instead."""
    sure = memory.model.ask("When does the harbour open?", reader="auto")
    unsure = memory.model.ask("Xylophone quartz?", reader="auto")
    assert (sure.reader, unsure.reader) == ("memory", "text")
    assert len(unsure.sources) == 1


@dataclass
class MeasuringCompressor(FakeCompressor):
    """The fake compressor with a fidelity for texts that hold a word."""

    fidelities: dict[str, float] = field(default_factory=dict)

    def compress(self, texts):
        """One memory a text, measured where a word of `fidelities` is in it."""
        of = [next((f for word, f in self.fidelities.items() if word in t), None) for t in texts]
        return [
            replace(made, fidelity=f) for made, f in zip(super().compress(texts), of, strict=True)
        ]


@pytest.fixture
def measured(tmp_path):
    engine = FakeEngine(
        MeasuringCompressor(fidelities={"museum": MIN_FIDELITY, "harbour": MIN_FIDELITY - 0.01})
    )
    with open_fake(tmp_path / "measured", engine) as opened:
        opened.add_many(FACTS)
        yield opened


def test_auto_reads_the_text_of_a_passage_whose_memory_is_poor(measured):
    """At once, however sure: what the memory reader would have said is not asked for and costs
    nothing.
    """
    poor = measured.model.ask("When does the harbour open?", reader="auto")
    assert (poor.reader, poor.text, [s.text for s in poor.sources]) == (
        "text",
        FACTS[1],
        [FACTS[1]],
    )
    alone = measured.model.ask("When does the harbour open?", reader="text", k=1)
    assert poor.prompt_tokens == alone.prompt_tokens
    assert measured.model.ask("When does the harbour open?").reader == "memory"


@pytest.mark.parametrize("question", ["Where did the museum move?", "What tea does Ann drink?"])
def test_auto_trusts_a_faithful_memory_and_one_that_was_not_measured(measured, question):
    """Only the best passage counts: a poor memory further down changes nothing."""
    answer = measured.model.ask(question, reader="auto", k=3)
    assert (answer.reader, answer.confidence) == ("memory", 1.0)


def test_auto_measures_again_what_was_encoded_again(measured, monkeypatch):
    """A cold passage has no fidelity, and is read from its text; it is measured again when it is
    compressed again.
    """
    monkeypatch.setattr(encoding, "QUIET", 0.0)
    measured._store.evict(0)
    readers = []
    for _ in range(2):
        readers.append(measured.model.ask("When does the harbour open?", reader="auto").reader)
        assert measured.wait(60)
    assert readers == ["memory", "text"]


def test_a_stream_that_failed_says_so_again(memory, monkeypatch):
    """Whoever asks for the answer of a stream that broke gets the error that broke it."""

    def broken(self, prompt, max_tokens):
        raise RuntimeError("the device is gone")
        yield

    monkeypatch.setattr(FakeReader, "read", broken)
    stream = memory.model.ask("When does the harbour open?", stream=True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the device is gone"):
            _ = stream.answer


def test_passages_by_number_by_budget_or_both(memory):
    """A budget alone takes as many as fit; with `k` at most so many of them."""
    ask = memory.model.ask
    assert [len(ask("museum harbour tea", **o).sources) for o in ({"k": 1}, {"budget": 1_000})] == [
        1,
        3,
    ]
    assert [len(ask("museum harbour tea", k=2, budget=b).sources) for b in (1, 1_000)] == [1, 2]


def test_what_is_not_there_is_not_answered(memory):
    """The model says that it does not know, and the answer is marked."""
    answer = memory.model.ask("Xylophone quartz?")
    assert (answer.text, answer.abstained, answer.confidence) == ("I don't know.", True, 0.0)


def test_an_empty_memory_knows_nothing(tmp_path):
    """No passage, no source, no model call."""
    with open_fake(tmp_path / "empty") as memory:
        answer = memory.model.ask("Anything?")
    assert (answer.text, answer.abstained, list(answer.sources)) == ("I don't know.", True, [])


def test_k_may_exceed_the_memory(memory):
    """All there is is read."""
    assert len(memory.model.ask("the museum harbour Ann", k=99).sources) == 3


@pytest.mark.parametrize(
    ("at_least", "read"),
    [(0, 3), (32, 2)],
    ids=["a quarter is kept", "short passages are kept whole"],
)
def test_a_budget_takes_as_many_as_fit(tmp_path, at_least, read):
    """Text costs its tokens, memory the entries that are kept; one passage is always read."""
    with open_fake(tmp_path / "notes", keep_at_least=at_least) as memory:
        memory.add_many(FACTS)
        ask = memory.model.ask
        question = "the museum harbour Ann"
        assert len(ask(question, budget=15, reader="text").sources) == 2
        assert len(ask(question, budget=15, reader="memory").sources) == read
        assert len(ask(question, budget=1, reader="text").sources) == 1


def test_a_filter_narrows_the_sources(memory):
    """Only documents that fit are read."""
    memory.add("The harbour of Marseille opens at six.", scope="user/bob", metadata={"year": 2020})
    assert "Marseille" in memory.model.ask("When does the harbour open?", scope="user/bob").text
    assert (
        "Marseille"
        in memory.model.ask("When does the harbour open?", where={"year": {">": 2019}}).text
    )
    assert memory.model.ask("When does the harbour open?", scope="user/carl").abstained


def test_streaming_gives_pieces_and_then_the_answer(memory):
    """The pieces join to the answer's text; the answer is there without reading them too."""
    stream = memory.model.ask("When does the harbour open?", stream=True)
    pieces = list(stream)
    assert len(pieces) > 3
    assert "".join(pieces).strip() == stream.answer.text == FACTS[1]
    assert memory.model.ask("When does the harbour open?", stream=True).answer.text == FACTS[1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, InvalidSetting, "k=0: choose at least 1"),
        ({"budget": 0}, InvalidSetting, "budget=0"),
        ({"max_tokens": -1}, InvalidSetting, "max_tokens=-1"),
        ({"reader": "psychic"}, InvalidSetting, "choose one of memory, text, auto, none"),
        ({"temperature": 1}, TypeError, "temperature"),
    ],
)
def test_bad_options_are_named(memory, options, error, message):
    """The value and the choices are in the message."""
    with pytest.raises(error, match=message):
        memory.model.ask("When?", **options)


def test_an_empty_question_is_refused(memory):
    """Whitespace is no question."""
    with pytest.raises(InvalidInput, match="question is empty"):
        memory.model.ask(" \n")


def test_chat_keeps_its_turns_and_can_remember(memory):
    """What the user said becomes a document of the scope; the turns are listed."""
    chat = memory.chat(remember=True, scope="user/ann")
    chat.say("My bicycle is called Rosinante.")
    assert "".join(chat.stream("What is my bicycle called?")).strip()
    assert [t.role for t in chat.turns] == ["user", "assistant"] * 2
    memory.wait(10)
    texts = [d.text for d in memory.list(scope="user/ann").documents]
    # what only asks would be found as the answer to itself
    assert texts == ["My bicycle is called Rosinante."]
    assert memory.count(where={"role": "user"}) == 1


def test_a_question_has_a_limit(memory):
    """A page that was pasted in is refused with the remedy, not read for minutes."""
    with pytest.raises(
        InvalidInput, match="20,001 characters, the limit is 20,000: add what it quotes"
    ):
        memory.model.ask("a" * 20_001)


def test_the_memory_can_be_used_while_an_answer_streams(memory):
    """Between two pieces the model is free: searching and adding go on, from this thread and from
    another.
    """
    stream = iter(memory.model.ask("When does the harbour open?", stream=True))
    next(stream)
    other = threading.Thread(target=lambda: memory.add("The tower of Pisa leans."))
    other.start()
    other.join(10)
    assert not other.is_alive()
    assert memory.search("tower")
    assert list(stream)


def test_the_best_passage_is_nearest_to_the_question(tmp_path):
    """Readers get the passages in ascending rank; the answer names its sources best first."""
    seen = []

    class Reader(FakeReader):
        """Keeps what it is given."""

        def read(self, prompt, max_tokens):
            """Remember the prompt."""
            seen.append(list(prompt.texts))
            return super().read(prompt, max_tokens)

    with open_fake(tmp_path, engine=FakeEngine(reader=Reader())) as memory:
        memory.add("The museum moved to Lisbon in 2019.")
        memory.add("The harbour is in Genoa.")
        answer = memory.model.ask("Where did the museum move in 2019?", reader="text")
        assert answer.sources[0].text == "The museum moved to Lisbon in 2019."
        assert seen[0] == ["The harbour is in Genoa.", "The museum moved to Lisbon in 2019."]


@pytest.mark.parametrize(
    ("settings", "reader", "margin"),
    [
        ({}, "memory", 4.0),
        ({}, "text", None),
        ({"copy": "off"}, "memory", None),
        ({"copy": "on"}, "memory", math.inf),
        ({"copy": "on"}, "text", None),
        ({"copy": "on"}, "none", None),
        ({"compressor": "soft"}, "memory", math.inf),
        ({"compressor": "soft", "copy": "off"}, "memory", None),
    ],
)
def test_answers_are_copied_where_the_setting_or_the_method_says(
    tmp_path, settings, reader, margin
):
    """The reader gets the texts to copy from, and how strictly, with the compressed passages
    alone.
    """
    seen = []

    class Reader(FakeReader):
        """Keeps what it is given."""

        def read(self, prompt, max_tokens):
            """Remember the prompt."""
            seen.append(prompt.copied)
            return super().read(prompt, max_tokens)

    engine = FakeEngine.of(compressor=settings.get("compressor", "kv"))
    engine.reader = Reader()
    with open_fake(tmp_path, engine=engine, **settings) as memory:
        memory.add("The museum moved to Lisbon in 2019.", metadata={"title": "Trips"})
        memory.ask("Where did the museum move in 2019?", reader=reader)
    texts = ["Trips\nThe museum moved to Lisbon in 2019."]
    assert seen == [None if margin is None else CopiedTexts(texts, margin)]


@pytest.mark.parametrize(
    ("settings", "knows", "read"),
    [
        ({"compressor": "soft"}, True, [1]),
        ({"compressor": "soft"}, False, [1, 2]),
        ({"compressor": "soft", "copy": "off"}, True, [2]),
        ({"copy": "on"}, True, [2]),
    ],
)
def test_soft_copies_from_the_best_passage_alone_where_that_answers(
    tmp_path, settings, knows, read
):
    """The other passages are read where it does not."""
    seen = []

    class Reader(FakeReader):
        """Counts the passages of each reading."""

        def read(self, prompt, max_tokens):
            """An answer, or that the memory does not tell."""
            seen.append(len(prompt.memories))
            yield Piece("Lisbon" if knows else UNKNOWN)
            yield Piece("", Usage(1, 1, 0.9, 0.0, 0.0, 0.0))

    engine = FakeEngine.of(compressor=settings.get("compressor", "kv"))
    engine.reader = Reader()
    with open_fake(tmp_path, engine=engine, **settings) as memory:
        for town in ("Lisbon", "Genoa"):
            memory.add(" ".join(f"Word {n} of {town} is here." for n in range(15)))
        memory.ask("Which word is here?")
    assert seen == read


@pytest.mark.parametrize(
    ("together", "alone", "text"),
    [
        (("tea", 0.4), ("Lisbon", 0.9), "Lisbon"),
        (("in Lisbon", 0.9), ("Lisbon", 0.4), "in Lisbon"),
        ((UNKNOWN, 0.5), ("Lisbon", 0.6), "Lisbon"),
        ((UNKNOWN, 0.5), ("Lisbon", 0.4), UNKNOWN),
        (("tea", 0.4), (UNKNOWN, 0.1), UNKNOWN),
    ],
)
def test_the_best_short_note_is_read_again_alone(tmp_path, together, alone, text):
    """The more probable reading answers; the less sure "I don't know." is, the more probable."""

    class Reader(FakeReader):
        """Answers by the number of its passages."""

        def read(self, prompt, max_tokens):
            """A text with its confidence."""
            said, sure = alone if len(prompt.texts) == 1 else together
            yield Piece(said)
            yield Piece("", Usage(1, 1, sure, 0.0, 0.0, 0.0))

    with open_fake(tmp_path, engine=FakeEngine(reader=Reader())) as memory:
        memory.add("The museum is in Lisbon.")
        memory.add("Ann drinks green tea.")
        answer = memory.model.ask("Where is the museum?", reader="text")
        assert answer.text == text
        assert memory.model.ask("Where is the museum?", reader="text", k=1).text == alone[0]
        streamed = memory.model.ask("Where is the museum?", reader="text", stream=True)
        assert "".join(streamed) == text


def test_longer_passages_are_read_once(tmp_path, monkeypatch):
    """They name their subjects: the reader tells them apart."""
    reads = []
    read = FakeReader.read

    def counted(self, prompt, max_tokens):
        reads.append(len(prompt.texts))
        return read(self, prompt, max_tokens)

    monkeypatch.setattr(FakeReader, "read", counted)
    with open_fake(tmp_path) as memory:
        for town in ("Lisbon", "Genoa"):
            memory.add(" ".join(f"Word {n} of {town} is here." for n in range(15)))
        memory.model.ask("Which word is here?", reader="text")
    assert reads == [2]


def test_the_passage_that_makes_the_question_likeliest_is_read_first(memory, monkeypatch):
    """Reading the question after each memory may turn the search's order round; without the setting
    nobody reads it.
    """
    asked = []

    def likelihoods(_self, question, memories):
        asked.append(question)
        return [[100.0 * (m.tokens == last.tokens)] for m in memories]

    monkeypatch.setattr(FakeReader, "word_likelihoods", likelihoods)
    question = "Which museum, and which tea?"
    first, second = (m.passage for m in memory.search(question, k=2))
    last = replace(second, tokens=len(second.text.split()))
    memory.add("Nothing of all this.", wait=True)
    answer = memory.model.ask(question, k=2)
    again = [m.passage.id for m in memory.search(question, k=2, mode="reranked")]
    assert again == [second.id, first.id]
    assert [s.passage_id for s in answer.sources] == again
    assert [s.why.rpartition(", ")[2] for s in answer.sources] == [
        "question 100.0 nats",
        "question 0.0 nats",
    ]
    assert "rerank" in answer.milliseconds
    assert asked == [question]  # what the answer was ranked by serves the search too


@pytest.mark.parametrize("settings", [{"rerank": 0}, {"compressor": "soft"}])
def test_reranking_can_be_switched_off(tmp_path, monkeypatch, settings):
    """rerank=0 keeps the order of the search; so do soft memories, where nobody asks for
    another.
    """
    monkeypatch.setattr(
        FakeReader, "word_likelihoods", lambda *_: pytest.fail("nobody asked for it")
    )
    with open_fake(tmp_path / "notes", **settings) as memory:
        memory.add_many(FACTS)
        assert "rerank" not in memory.model.ask("Which harbour, which museum?", k=2).milliseconds


def test_passages_that_are_not_compressed_yet_keep_their_place(memory, monkeypatch):
    """A memory that is not there has no likelihood; nothing is encoded for the order's sake."""
    memory.add("The tea museum of the harbour.", wait=False)
    monkeypatch.setattr(memory._store, "load", lambda *_: {})
    found = memory.search("tea museum harbour", k=4)
    assert memory.search("tea museum harbour", k=4, mode="reranked") == found


def test_passages_behind_the_reranked_ones_may_all_score_nothing(tmp_path):
    """The eleventh of eleven passages that are found by meaning alone has the score 0."""
    with open_fake(tmp_path / "notes") as memory:
        memory.add_many(f"{letter * 4} is sold here." for letter in "abcdefghijk")
        scores = [m.score for m in memory.search("zebra", k=11, mode="reranked")]
        assert len(scores) == 11
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] == 0.0


class Unloadable(FakeEngine):
    """An engine that must not be loaded."""

    @property
    def compressor(self):
        """Never there."""
        raise AssertionError("the model is loaded")

    @compressor.setter
    def compressor(self, _):
        """The dataclass brings one."""


def test_where_no_document_fits_no_model_is_loaded(tmp_path):
    """The answer is the one that a search without results gives, and it comes at once."""
    with open_fake(tmp_path / "notes") as memory:
        memory.add(FACTS[0], scope="ann", wait=True)
        before = memory.model.ask("Where is the museum?", scope="bob")
    with open_fake(tmp_path / "notes", Unloadable(loaded=False)) as memory:
        answer = memory.model.ask("Where is the museum?", scope="bob")
        assert replace(answer, milliseconds={}) == replace(before, milliseconds={})
        assert answer.milliseconds.keys() == before.milliseconds.keys()
        assert (
            "".join(memory.model.ask("Where is the museum?", scope="bob", stream=True))
            == "I don't know."
        )
        with pytest.raises(AssertionError, match="the model is loaded"):
            memory.model.ask("Where is the museum?", scope="ann")
