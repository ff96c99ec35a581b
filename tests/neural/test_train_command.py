"""`cmt train` on a tiny model: from a question file or from plain text to an adapter that a memory
opens with.
"""

import json
import random

import pytest
from click.testing import CliRunner

import cmt_sdk
from cmt_cli.main import main
from cmt_sdk.errors import InvalidInput, InvalidSetting, StorageFull
from cmt_sdk.questions.dataset import read_passages
from cmt_sdk.testing.tiny import save_tiny
from cmt_sdk.training import Plan, Recipe, objectives_for, prepare, resources
from cmt_sdk.training.data import hold_out
from cmt_sdk.training.texts import questioned, read_texts

TOWNS = [
    f"{a}{b}"
    for a in ("Lis", "Por", "Gen", "Pis")
    for b in ("bon", "to", "oa", "a", "ford", "wick", "stad", "burg")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model's folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def questions(tmp_path):
    """Thirty-two passages under four titles, a question each."""
    file = tmp_path / "towns.jsonl"
    rows = [
        {
            "title": f"part {n % 4}",
            "context": f"Tower {n} is in {t}.",
            "question": f"Where is tower {n}?",
            "answers": [t],
        }
        for n, t in enumerate(TOWNS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def called(*arguments):
    """Run `cmt train`; what it printed."""
    result = CliRunner().invoke(main, ["train", "--yes", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def small(model, out):
    """Options of a run of seconds."""
    few = (
        "--steps",
        6,
        "--accumulate",
        1,
        "--rank",
        4,
        "--held-out",
        1,
        "--validate-every",
        3,
        "--save-every",
        2,
    )
    return ("--model", model, "--out", out, "--nf4", 0, "--device", "cpu", *few)


@pytest.mark.parametrize("part", ["reader", "compressor", "soft", "cmt", "matcher", "embedding"])
def test_questions_become_an_adapter_that_a_memory_opens_with(part, model, questions, tmp_path):
    """The card tells the held-out figures before and after; the adapter is another one than
    none.
    """
    out = tmp_path / "made"
    printed = called(questions, "--part", part, *small(model, out))
    assert "32 passages" not in printed
    assert "held out for validation" in printed
    assert "6 steps" in printed
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| on held-out data | after 0 questions | after " in card
    kind = {
        "soft": {"compressor": "soft"},
        "cmt": {"compressor": "soft", "compression": 8, "aggregation": "cmt"},
    }.get(part, {})
    with cmt_sdk.open(
        tmp_path / "memory", model=str(model), adapter=str(out), device="cpu", **kind
    ) as memory:
        memory.add("The museum is in Lisbon.")
        assert memory.model.ask("Where is the museum?", max_tokens=2).reader == "memory"


def test_soft_adapters_are_gone_on_from_without_a_warm_start(model, questions, tmp_path):
    """Only what has not read such memories before begins with little compression."""

    def run_from(start, out):
        few = {"rank": 4, "nf4": 0.0, "held_out": 1, "plan": Plan(1, accumulate=1)}
        return prepare(
            Recipe(
                "soft",
                tmp_path / out,
                [questions],
                model=str(model),
                device="cpu",
                start=start,
                **few,
            )
        )

    first = run_from("none", "first")
    first.run()
    assert (first.task.ablate, run_from(str(tmp_path / "first"), "second").task.ablate) == (
        set(),
        {"warm-start"},
    )


def test_plain_text_is_enough(model, tmp_path):
    """Gaps and continuations of the texts themselves are what is asked."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for town in TOWNS:
        words = " ".join(
            f"Then {town} was seen by {n} travellers from the hills" for n in range(4)
        ).replace(" Then", ". Then")
        (notes / f"{town}.md").write_text(words + ".", encoding="utf-8")
    assert "6 steps" in called("--text", notes, *small(model, tmp_path / "made"))


def test_a_stopped_run_goes_on_with_the_same_command(model, questions, tmp_path):
    """Called again after some of its steps, it makes the curve that it would have made at once."""
    called(questions, *small(model, tmp_path / "whole"))
    options = small(model, tmp_path / "cut")
    recipe = Recipe(
        "reader", tmp_path / "cut", [questions], model=str(model), device="cpu", rank=4, nf4=0.0, held_out=1,
        plan=Plan(6, accumulate=1, validate_every=3, save_every=2),
    )  # fmt: skip

    class Killed(Exception):
        """The process is gone."""

    def kill(line):
        if line["step"] == 5:
            raise Killed

    with pytest.raises(Killed):
        prepare(recipe).run(kill)
    called(questions, *options)

    def curve(folder):
        lines = map(
            json.loads, (tmp_path / folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        )
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    assert curve("cut") == pytest.approx(curve("whole"), rel=1e-4)


def test_what_cannot_work_is_told_before_anything_begins(model, questions, tmp_path, monkeypatch):
    """Nothing to learn from, an unknown part, no memory, no room on the disk: each with its
    limit.
    """
    with pytest.raises(InvalidInput, match="there is nothing to learn from"):
        Recipe("reader", tmp_path)
    with pytest.raises(
        InvalidSetting, match="part='writer': choose one of reader, compressor, soft, cmt, matcher"
    ):
        Recipe("writer", tmp_path, [questions])
    with pytest.raises(InvalidSetting, match="minutes=-1: choose more than 0"):
        Recipe("reader", tmp_path, [questions], minutes=-1)
    with pytest.raises(
        InvalidSetting,
        match=r"states=3\.0: part 'cmt' does not use it; leave it out, or choose part soft",
    ):
        Recipe("cmt", tmp_path, [questions], objectives=objectives_for("cmt", states=3.0))
    for name, told in (
        ("rate", "rate=-1: choose more than 0, at most 1"),
        ("steps", "steps=-1: choose at least 1"),
    ):
        with pytest.raises(InvalidSetting, match=told):
            Plan(**{"steps": 2, name: -1})
    recipe = Recipe("reader", tmp_path / "made", [questions], model=str(model), device="cpu")
    monkeypatch.setattr(resources, "_free_memory", lambda _: 1000)
    with pytest.raises(
        InvalidSetting,
        match=r"needs about [\d,.]+ MiB of memory on cpu, 0\.0 MiB are free.*--checkpointing",
    ):
        prepare(recipe)
    assert not (tmp_path / "made").exists()
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: type("Usage", (), {"free": -1}))
    with pytest.raises(
        StorageFull,
        match=r"needs [\d,.]+ MiB on the disk, -0\.0 MiB are free: choose another folder",
    ):
        prepare(recipe)


def test_without_a_teacher_its_states_are_not_asked_for():
    """Where they are asked for all the same, they are."""
    weights = [
        objectives_for("soft", **given).states
        for given in ({}, {"teacher": 0.0}, {"teacher": 0.0, "states": 1.0})
    ]
    assert weights == [3.0, 0.0, 1.0]


def test_without_answers_and_without_a_teacher_there_is_nothing_to_learn(
    model, questions, tmp_path
):
    """No adapters are shipped for this model: a run would move nothing."""
    alone = objectives_for("soft", answer=0.0)
    with pytest.raises(
        InvalidSetting, match=r"answer=0: no adapters are shipped for .*give answer a weight"
    ):
        prepare(
            Recipe(
                "soft",
                tmp_path / "made",
                [questions],
                model=str(model),
                device="cpu",
                objectives=alone,
            )
        )


def test_too_few_passages_are_told(model, tmp_path):
    """One passage cannot both teach and judge."""
    file = tmp_path / "one.jsonl"
    file.write_text(
        '{"context": "It is in Rome.", "question": "Where?", "answers": ["Rome"]}\n',
        encoding="utf-8",
    )
    with pytest.raises(InvalidInput, match="passages to learn from: 1; some are held out"):
        prepare(Recipe("reader", tmp_path / "made", [file], model=str(model), device="cpu"))


def test_passages_are_held_out_by_text_where_titles_are_few(questions):
    """Four titles, none of which the hash picks: some passages are kept back all the same, and none
    is in both halves.
    """
    whole = read_passages(questions)
    learned, judged = hold_out({"towns": whole})
    assert learned["towns"]
    assert judged["towns"]
    assert sorted(p.context for p in learned["towns"] + judged["towns"]) == sorted(
        p.context for p in whole
    )
    for few in (whole[:2], whole[2:4], whole[4:6]):
        learned, judged = hold_out({"towns": few})
        assert len(learned["towns"]) == len(judged["towns"]) == 1


def test_a_text_is_asked_for_its_own_words():
    """A gap's answer, put in its place, gives words of the text; a continuation is what follows."""
    text = (
        "In spring the keeper of Cabo Roca paints the tower white again, because salt has eaten the"
        " old colour. " * 3
    )
    (passage,) = questioned(
        "notes", text, lambda texts: [len(t.split()) for t in texts], random.Random(1)
    )
    words = " ".join(passage.context.split())
    assert len(passage.questions) == 6
    for question in passage.questions:
        quoted = question.text.split('"')[1]
        whole = (
            quoted.replace("____", question.answers[0])
            if "____" in quoted
            else f"{quoted} {question.answers[0]}"
        )
        assert _letters(whole) in _letters(words)


def _letters(text):
    """Without what a gap's answer was stripped of."""
    return "".join(c for c in text if c.isalnum())


def test_texts_without_a_passage_are_refused(tmp_path):
    """A few words are no passage."""
    (tmp_path / "a.txt").write_text("Too short.", encoding="utf-8")
    with pytest.raises(InvalidInput, match="no passage of at least 20 words"):
        read_texts(tmp_path, lambda texts: [len(t.split()) for t in texts])


def test_a_file_of_weight_zero_is_never_drawn(model, questions, tmp_path):
    """The other file alone is learned from."""
    rare = tmp_path / "rare.jsonl"
    rare.write_text(questions.read_text().replace("tower", "bridge").replace("Tower", "Bridge"))
    recipe = Recipe(
        "reader",
        tmp_path / "made",
        [questions, rare],
        model=str(model),
        device="cpu",
        rank=4,
        nf4=0.0,
        held_out=1,
        plan=Plan(1, accumulate=1),
        weights={"rare": 0.0},
    )
    mixture = prepare(recipe).task.mixture
    assert {mixture.name() for _ in range(200)} == {"towns"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("towns", "give FILE=N"),
        ("towns=-1", "choose 0 or more"),
        ("tonws=2", "choose among the files towns"),
    ],
)
def test_a_wrong_weight_is_refused_by_name(given, told, model, questions, tmp_path):
    """As it was given, with what is possible."""
    arguments = ["train", "--yes", str(questions), *map(str, small(model, tmp_path / "made"))]
    result = CliRunner().invoke(main, [*arguments, "--weight", given])
    assert result.exit_code != 0
    assert told in " ".join(result.output.split())
