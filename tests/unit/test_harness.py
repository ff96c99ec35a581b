"""The harness over a scripted subject: the protocols are kept, and the figures are those computed
by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cmt_sdk.errors import InvalidInput, InvalidSetting
from cmt_sdk.evaluation.drawing import source_of
from cmt_sdk.evaluation.figures import abstention, curve, figures, retrieval
from cmt_sdk.evaluation.harness import ALL_PASSAGES, Plan, Reply, grow, run
from cmt_sdk.questions.dataset import read_passages
from cmt_sdk.types import Answer, Document, Match, Passage, Progress, SearchMode, Source, Stats

# What the memory reader says to each question, the accepted answers, and what that is worth by
# hand: official EM and F1 (first line, best reference), paper EM and F1 (whole answer, shortest
# reference).
SCRIPT = [
    ("museum", "Where is it?", ["Lisbon"], "Lisbon", 1, 1, 1, 1),
    ("museum", "When did it move?", ["2019", "in 2019"], "in the year 2019", 0, 0.8, 0, 0.5),
    ("museum", "Who leads it?", ["Ada Lovelace"], "Ada Lovelace\nShe leads", 1, 1, 1, 2 / 3),
    ("museum", "What does it cost?", ["nine euros"], "I don't know.", 0, 0, 0, 0),
    ("whale", "Which whale?", ["blue whale"], "the whale", 0, 2 / 3, 0, 2 / 3),
    ("whale", "How long is it?", ["30 m"], "30 m", 1, 1, 1, 1),
    ("whale", "What does it eat?", ["krill"], "Krill.", 1, 1, 1, 1),
    ("river", "Where does it end?", ["Porto"], "Porto", 1, 1, 1, 1),
    ("river", "How wide?", ["100 m", "a hundred metres"], "100 m", 1, 1, 1, 1),
    ("moon", "Who went there?", ["Armstrong"], "nobody", 0, 0, 0, 0),
    ("moon", "When?", ["1969"], "1970", 0, 0, 0, 0),
    ("bridge", "How old?", ["90 years"], InvalidInput("too many passages"), 0, 0, 0, 0),
]
CONTEXTS = {
    name: f"All about the {name}." for name in ("museum", "whale", "river", "moon", "bridge")
}
FUSED_RANKS = [1, 1, 1, 2, 1, 1, 5, 1, 6, 1, 1, None]
VECTOR_RANKS = [1, 2, 6, 2, None, 1, 5, 1, 6, 11, 1, None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Five passages and twelve questions."""
    rows = [
        {
            "id": f"q{n}",
            "title": name,
            "context": CONTEXTS[name],
            "question": question,
            "answers": answers,
        }
        for n, (name, question, answers, *_) in enumerate(SCRIPT)
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass
class Scripted:
    """A memory and its model in one, that say what the script tells them and record what they are
    asked.
    """

    documents: list[Document] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def model(self) -> Scripted:
        """Itself."""
        return self

    def add_many(
        self, documents: Sequence[Document], *, on_progress: Callable[[Progress], None]
    ) -> Progress:
        """Keep what is new."""
        self.calls.append(("add", len(documents)))
        known = {d.text for d in self.documents}
        self.documents += [d for d in documents if d.text not in known]
        on_progress(Progress(added=len(documents)))
        return Progress(added=len(documents))

    def reencode(self, on_progress: Callable[[Progress], None]) -> int:
        """Nothing to do."""
        self.calls.append(("reencode", len(self.documents)))
        return 0

    def count(self, *, source: str | None = None) -> int:
        """By the exact source."""
        return sum(source is None or d.source == source for d in self.documents)

    def stats(self) -> Stats:
        """Made-up numbers."""
        return Stats(5, 5, 5, 0, 5, 0, 100, 500, 10_000, 20_000, "exact", "scripted")

    def ask(self, question: str, **options: Any) -> Answer:
        """The scripted answer of the memory reader; "text" answers everything right, "none" knows
        nothing.
        """
        given = {name: value for name, value in options.items() if value is not None}
        self.calls.append((question, given))
        number = next(n for n, row in enumerate(SCRIPT) if row[1] == question)
        _, _, answers, said = SCRIPT[number][:4]
        reader = options["reader"]
        if reader == "memory" and isinstance(said, InvalidInput):
            raise said
        text = {"memory": said, "text": answers[-1], "none": "no idea", "auto": "x"}[reader]
        rank = FUSED_RANKS[number]
        own = options.get("source") or (rank and rank <= options["k"])
        source = Source(
            "d",
            1,
            source_of(CONTEXTS[SCRIPT[number][0]]) if own else "passage-other",
            0,
            9,
            "",
            1.0,
            "",
        )
        return Answer(
            text=str(text),
            sources=[] if reader == "none" else [source],
            reader=(
                "text"
                if reader == "auto" and number % 2
                else {"auto": "memory"}.get(reader, reader)
            ),
            abstained="don't know" in str(text),
            confidence=number / 10,
            prompt_tokens=20 if reader == "memory" else 500,
            memory_tokens=300 if reader == "memory" else 0,
            answer_tokens=number,
            milliseconds={
                "encode": 1.0,
                "search": 2.0,
                "load": float(number),
                "prefill": 4.0,
                "decode": 50.0,
            },
        )

    def search(self, query: str, k: int, *, mode: SearchMode) -> Sequence[Match]:
        """The own passage at its scripted rank, other passages elsewhere."""
        number = next(n for n, row in enumerate(SCRIPT) if row[1] == query)
        own = Document("", source=source_of(CONTEXTS[SCRIPT[number][0]]))
        rank = {
            "reranked": FUSED_RANKS,
            "fused": FUSED_RANKS,
            "vector": VECTOR_RANKS,
            "text": [1] * 12,
        }[mode][number]
        passage = Passage(1, "d", 1, 0, 0, 0, 0, "")
        return [Match(passage, own if n == rank else Document(""), 1.0) for n in range(1, k + 1)]


def memory_figures(file: Path, **plan: Any) -> Any:
    """The memory reader's figures in the stream protocol."""
    asked = run(Scripted(), read_passages(file), Plan("stream", ["memory"], **plan))
    return figures([a.replies["memory"] for a in asked], seed=0)


def test_each_reply_is_scored_as_by_hand(file: Path) -> None:
    """Official metrics read the first line and any reference, the paper's the whole answer and the
    shortest one.
    """
    asked = run(Scripted(), read_passages(file), Plan("stream", ["memory"]))
    scores = [a.replies["memory"] for a in asked]
    assert [(r.exact, r.f1, r.paper_exact, r.paper_f1) for r in scores] == [
        pytest.approx(tuple(row[4:])) for row in SCRIPT
    ]


def test_metrics_are_means_in_percent(file: Path) -> None:
    """Six of twelve match exactly, the lost question among the rest; F1 sums to 7.4667, the paper's
    to 6.8333.
    """
    found = memory_figures(file)
    assert found.exact.mean == pytest.approx(50.0)
    assert found.f1.mean == pytest.approx(62.2222, abs=1e-4)
    assert found.paper_exact.mean == pytest.approx(50.0)
    assert found.paper_f1.mean == pytest.approx(56.9444, abs=1e-4)
    assert found.exact.low < 50 < found.exact.high


def test_costs_leave_out_what_could_not_be_asked(file: Path) -> None:
    """Eleven answers: tokens are means, milliseconds medians, and the first token comes before
    decoding.
    """
    found = memory_figures(file)
    assert found.errors == 1
    assert (found.prompt_tokens, found.memory_tokens, found.answer_tokens) == (20, 300, 5)
    assert found.milliseconds == {
        "encode": 1.0,
        "search": 2.0,
        "load": 5.0,
        "prefill": 4.0,
        "decode": 50.0,
    }
    assert found.first_token_ms == 12.0


def test_abstentions_and_passages_read_are_shares_of_all(file: Path) -> None:
    """One of twelve abstains; with k = 5 ten of the eleven answers read their own passage."""
    found = memory_figures(file)
    assert found.abstained == pytest.approx(100 / 12)
    assert found.found == pytest.approx(1000 / 12)
    assert memory_figures(file, k=1).found == pytest.approx(800 / 12)


def test_confidence_is_judged_by_exact_answers(file: Path) -> None:
    """Confidences rise from question to question: of 6 x 5 pairs 0 + 1 + 3 + 3 + 3 + 3 are in
    order.
    """
    assert memory_figures(file).confidence_auroc == pytest.approx(13 / 30)


def test_retrieval_recall_by_mode_and_depth(file: Path) -> None:
    """Counted by hand from the scripted ranks; rank 11 is beyond what is looked at."""
    found = retrieval(run(Scripted(), read_passages(file), Plan("stream", ["none"])))
    assert found["fused"] == pytest.approx(
        {"recall@1": 800 / 12, "recall@5": 1000 / 12, "recall@10": 1100 / 12}
    )
    assert found["vector"] == pytest.approx(
        {"recall@1": 400 / 12, "recall@5": 700 / 12, "recall@10": 900 / 12}
    )
    assert found["text"] == {"recall@1": 100.0, "recall@5": 100.0, "recall@10": 100.0}


def test_readers_get_the_same_questions_in_turn(file: Path) -> None:
    """After a warm-up each, the readers alternate, so that a busy minute slows them alike."""
    subject = Scripted()
    asked = run(
        subject, read_passages(file), Plan("stream", ["memory", "text", "none"], k=3, max_tokens=9)
    )
    calls = [(question, options["reader"]) for question, options in subject.calls[2:]]
    questions = [row[1] for row in SCRIPT]
    assert calls == [(q, r) for q in [questions[0], *questions] for r in ("memory", "text", "none")]
    assert all(
        (o["k"], o["max_tokens"], "source" in o) == (3, 9, False) for _, o in subject.calls[2:]
    )
    assert [a.replies["text"].exact for a in asked] == [1.0] * 12
    assert [a.replies["none"].exact for a in asked] == [0.0] * 12


def test_the_auto_reader_says_who_wrote(file: Path) -> None:
    """Every second answer came from the text."""
    asked = run(Scripted(), read_passages(file), Plan("stream", ["auto"]))
    assert figures([a.replies["auto"] for a in asked], 0).wrote == {"memory": 50.0, "text": 50.0}


def test_gold_narrows_each_question_to_its_own_passage(file: Path) -> None:
    """By source, with room for all passages of a document; there is no retrieval to judge."""
    subject = Scripted()
    asked = run(subject, read_passages(file), Plan("gold", ["memory"], k=1))
    sources = [options["source"] for _, options in subject.calls[3:]]
    assert sources == [source_of(CONTEXTS[row[0]]) for row in SCRIPT] == [a.source for a in asked]
    assert {options["k"] for _, options in subject.calls[2:]} == {ALL_PASSAGES}
    assert all(a.ranks == {} for a in asked)
    assert [a.replies["memory"].found for a in asked] == [True] * 11 + [False]


def test_limit_draws_questions_by_seed(file: Path) -> None:
    """The same seed draws the same questions, in file order; a larger limit draws more of the
    same.
    """

    def drawn(limit: int, seed: int) -> list[str]:
        return [
            a.id
            for a in run(
                Scripted(), read_passages(file), Plan(limit=limit, seed=seed, readers=["none"])
            )
        ]

    order = [f"q{n}" for n in range(12)]
    assert drawn(4, 1) == drawn(4, 1) != drawn(4, 2)
    assert drawn(4, 1) == sorted(drawn(4, 1), key=order.index)
    assert set(drawn(4, 1)) < set(drawn(6, 1))
    assert drawn(99, 1) == order


def test_stream_adds_all_passages_whatever_the_limit(file: Path) -> None:
    """One question has to be found among all of them; gold needs its own passage only."""
    stream, gold = Scripted(), Scripted()
    run(stream, read_passages(file), Plan("stream", ["none"], limit=1))
    run(gold, read_passages(file), Plan("gold", ["none"], limit=1))
    assert (len(stream.documents), len(gold.documents)) == (5, 1)
    assert stream.documents[0] == Document(
        "All about the museum.",
        source=source_of("All about the museum."),
        metadata={"article": "museum"},
    )


def test_passages_cuts_the_file(file: Path) -> None:
    """The first two passages and their seven questions."""
    subject = Scripted()
    asked = run(subject, read_passages(file), Plan(passages=2, readers=["none"]))
    assert (len(subject.documents), [a.id for a in asked]) == (2, [f"q{n}" for n in range(7)])


def test_a_memory_can_be_used_again(file: Path) -> None:
    """Foreign encodings are renewed before anything is added, and the result is the same."""
    subject = Scripted()
    first = run(subject, read_passages(file), Plan(readers=["text"]))
    subject.calls.clear()
    assert run(subject, read_passages(file), Plan(readers=["text"])) == first
    assert subject.calls[:2] == [("reencode", 5), ("add", 5)]


def test_other_documents_break_the_stream_but_not_gold(file: Path) -> None:
    """They would be found too; a question that sees its own passage alone cannot meet them."""
    other = Document("Something else.", source="notes.md")
    with pytest.raises(InvalidInput, match="holds 1 other documents"):
        run(Scripted([other]), read_passages(file), Plan("stream"))
    assert len(run(Scripted([other]), read_passages(file), Plan("gold", ["none"]))) == 12


def test_a_passage_under_another_name_is_missed(file: Path) -> None:
    """The same text from elsewhere is not added again, so that its source cannot be asked for."""
    known = Document(CONTEXTS["moon"], source="notes.md")
    with pytest.raises(InvalidInput, match="lacks 1 of the 5 passages"):
        run(Scripted([known]), read_passages(file), Plan("gold"))


def test_progress_is_reported_by_stage(file: Path) -> None:
    """Passages first, then one step a question."""
    steps: list[tuple[str, int, int]] = []
    run(
        Scripted(),
        read_passages(file),
        Plan(limit=2, readers=["none"]),
        lambda *step: steps.append(step),
    )
    assert steps == [("add", 5, 5), ("ask", 1, 2), ("ask", 2, 2)]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"protocol": "batch"}, "protocol='batch'"),
        ({"readers": ["memory", "mind"]}, "reader='mind'"),
        ({"k": 0}, "k=0"),
        ({"limit": 0}, "limit=0"),
        ({"passages": -1}, "passages=-1"),
        ({"max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_a_plan_out_of_range_is_refused(plan: dict[str, Any], message: str) -> None:
    """The value and the choice are named."""
    with pytest.raises(InvalidSetting, match=message):
        Plan(**plan)


def test_figures_of_nothing_but_errors() -> None:
    """A reader that could answer nothing scores 0 and costs nothing."""
    found = figures([Reply(error="too long")] * 3, seed=0)
    assert (found.exact.mean, found.errors, found.first_token_ms, found.wrote) == (0.0, 3, 0.0, {})
    assert found.confidence_auroc is None


def test_abstention_asks_once_with_the_passage_and_once_without_the_answer(file: Path) -> None:
    """The other passage is the next one that holds no accepted answer; each question is asked from
    one document alone.
    """
    subject = Scripted()
    asked = run(subject, read_passages(file), Plan("abstain", ["memory"]))
    asks = [options["source"] for name, options in subject.calls if name == SCRIPT[0][1]][-2:]
    assert asks == [source_of(CONTEXTS["museum"]), source_of(CONTEXTS["whale"])]
    assert len(asked) == 12
    assert set(asked[0].absent) == {"memory"}
    assert subject.count() == 5


def test_abstention_is_judged_at_the_threshold_of_auto(file: Path) -> None:
    """Confidences 0.0 to 1.1 for both kinds: no telling apart; five of twelve questions are at or
    over 0.6 and answered.
    """
    found = abstention(run(Scripted(), read_passages(file), Plan("abstain", ["memory"])), "memory")
    assert found.auroc == pytest.approx(0.5)
    assert found.threshold == 0.6
    assert found.answered == pytest.approx(100 * 5 / 12)
    assert found.withheld == pytest.approx(100 * 7 / 12)
    assert found.accuracy == pytest.approx(50)


def test_abstention_needs_a_passage_that_does_not_tell(tmp_path: Path) -> None:
    """One passage alone cannot be left out."""
    path = tmp_path / "one.jsonl"
    path.write_text('{"context": "It is in Rome.", "question": "Where?", "answers": ["Rome"]}\n')
    with pytest.raises(InvalidInput, match="give more passages for abstention"):
        run(Scripted(), read_passages(path), Plan("abstain", ["memory"]))


def test_only_whole_words_are_an_answer_that_a_passage_holds(tmp_path: Path) -> None:
    """An accepted answer of punctuation alone stands in no passage, and "art" does not stand in
    "party".
    """
    quoted = "\N{LEFT DOUBLE QUOTATION MARK}Art\N{RIGHT DOUBLE QUOTATION MARK} is here."
    rows = [
        ("It is art.", SCRIPT[0][1], ["art", "."]),
        (quoted, SCRIPT[5][1], ["30"]),
        ("Party.", SCRIPT[4][1], ["party"]),
    ]
    path = tmp_path / "two.jsonl"
    path.write_text(
        "".join(json.dumps({"context": c, "question": q, "answers": a}) + "\n" for c, q, a in rows)
    )
    subject = Scripted()
    run(subject, read_passages(path), Plan("abstain", ["memory"]))
    asks = [options["source"] for name, options in subject.calls if name == SCRIPT[0][1]][-2:]
    assert asks == [source_of(rows[0][0]), source_of(rows[2][0])]


def test_the_same_questions_are_asked_while_the_memory_grows(file: Path) -> None:
    """The first two passages' seven questions, at two, three and five documents; the score is set
    beside the first one.
    """
    subject, passages = Scripted(), read_passages(file)
    later = [Document(p.context, source=source_of(p.context)) for p in passages[2:]]
    stages = grow(subject, passages, later, Plan("growth", ["memory"], passages=2, stages=2))
    assert [stage.documents for stage in stages] == [2, 3, 5]
    assert [[a.id for a in stage.asked] for stage in stages] == [[f"q{n}" for n in range(7)]] * 3
    points = curve(stages, ["memory"])
    assert [p.relative["memory"] for p in points] == [100, 100, 100]
    assert points[0].f1["memory"] == pytest.approx(100 * (1 + 0.8 + 1 + 0 + 2 / 3 + 1 + 1) / 7)
    assert points[0].retrieval["text"] == {"recall@1": 100, "recall@5": 100, "recall@10": 100}
