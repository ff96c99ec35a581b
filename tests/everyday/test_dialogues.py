"""Whole dialogues: their files, how replies are judged, and three with the default model."""

import re
from collections import Counter
from pathlib import Path

import pytest

from cmt_sdk.testing.fakes import open_fake
from examples.conversations import report, transcript
from examples.conversations.judging import Heard, Round, also, holds, verdict
from examples.conversations.records import append, read
from examples.conversations.script import FIRST, UserTurn, dialogue, dialogues
from examples.conversations.talk import in_full, judged, play, table
from examples.conversations.ways import default_opener

ROOT = Path(__file__).parents[2]
QWEN = "qwen2.5-coder-0.5b-instruct"
LEAST = {  # so many turns of a kind there are at least
    "asked back": 100,
    "newest": 60,
    "before": 18,
    "never stated": 50,
    "follow-up": 30,
    "other user": 18,
    "remember": 9,
    "forget": 16,
    "not kept": 16,
}
SUBSET = ("01-new-flat", "08-flatmates", "25-handover")
TALK = """
title: Two people
talk:
- statement: My boat is called Tordalk.
- asked back: What is my boat called?
  wants: [Tordalk]
- later
- asked back: What is my boat called?
  wants: [Tordalk, the Tordalk]
- as: ben
- other user: What is the boat of Ann called?
  never: [Tordalk]
"""


@pytest.fixture
def talk(tmp_path):
    """The dialogue above."""
    file = tmp_path / "two.yaml"
    file.write_text(TALK, encoding="utf-8")
    return dialogue(file)


def test_sixty_dialogues_of_every_kind():
    """Each can be played; together they have enough of each kind, long messages, several users."""
    talks = dialogues()
    turns = [turn for talk in talks for turn in talk.turns]
    kinds = Counter(turn.kind for turn in turns)
    assert len(talks) == 60
    assert all(6 <= len(talk.turns) <= 20 for talk in talks)
    assert {kind: kinds[kind] for kind, least in LEAST.items() if kinds[kind] < least} == {}
    assert kinds["statement"] + kinds["small talk"] >= 200
    assert sum(1_000 <= len(turn.text) <= 3_000 for turn in turns) >= 3
    assert sum(len({turn.user for turn in talk.turns}) > 1 for talk in talks) >= 8
    assert sum(None in talk.talk for talk in talks) >= 50


def test_what_is_asked_for_was_told_before():
    """Accepted answers stand in what the same user turn earlier; what is never stated has none."""
    for talk in dialogues():
        for number, turn in enumerate(talk.turns):
            earlier = "\n".join(s.text for s in talk.turns[:number] if s.user == turn.user)
            wanted = turn.wants if turn.kind not in ("statement", "never stated") else ()
            assert not wanted or any(holds(earlier, form) for form in wanted), (talk.name, turn)
            assert turn.kind != "never stated" or not turn.values, (talk.name, turn)


def test_every_turn_can_be_right():
    """An ideal reply leaves nothing to complain of: no accepted answer holds a forbidden one."""
    unknown = ("never stated", "other user")
    for talk in dialogues():
        known = sorted({value for turn in talk.turns for value in turn.values})
        for turn in talk.turns:
            if turn.kind == "forget":
                continue
            kept = [turn.text] if turn.kind in ("statement", "remember") else []
            ideal = f"Noted: {turn.text}" if kept else "Sure."
            replies = ["I don't know."] if turn.kind in unknown else turn.wants or [ideal]
            for reply in [ideal] if kept else replies:
                played = Round(turn, Heard(reply[:200]), after=kept, known=known)
                assert [why for _, why in judged([played]) if why] == [], (talk.name, turn)


def test_a_file_says_who_speaks_when(talk):
    """Until another user speaks it is the first one; "later" is a new process."""
    assert talk.title == "Two people"
    assert [turn and turn.user for turn in talk.talk] == [FIRST, FIRST, None, FIRST, "ben"]
    assert talk.turns[2].wants == ("Tordalk", "the Tordalk")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("- chatter: Hello", "one of the kinds"),
        ("- asked back: Where?", "needs words, and one of ('wants',)"),
        ("- asked back: Where?\n  wants: [12]", "quote numbers"),
        ("- forget: Forget it.\n  gone: [it]", "`then` belongs to 'forget'"),
        ("- statement: Hello\n  want: [x]", "unknown keys want"),
    ],
)
def test_a_turn_that_cannot_be_judged_is_named(tmp_path, entry, words):
    """The file and the entry."""
    (tmp_path / "bad.yaml").write_text(f"title: Bad\ntalk:\n{entry}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        dialogue(tmp_path / "bad.yaml")
    assert str(caught.value).startswith("bad, entry 1: ")


MOVED = {"replaces": ("Rome",), "wants": ("Milan",)}


@pytest.mark.parametrize(
    ("kind", "text", "reply", "more", "why"),
    [
        ("statement", "My dog is called Otis.", "Noted: your dog is called Otis.", {}, ""),
        ("statement", "My dog is called Otis.", "Lovely, I'll keep that in mind.", {}, ""),
        ("statement", "我住在苏州。", "好的，记住了。", {}, ""),
        ("statement", "My dog is called Otis.", "I don’t know.", {}, "abstains"),
        ("statement", "My dog is called Otis.", " ", {}, "says nothing"),
        ("statement", "My dog is called Otis.", "Otis.", {}, "repeats a scrap"),
        ("statement", "My dog is called Otis.", "Blue.", {}, "neither repeats nor acknowledges"),
        ("statement", "My dog is called Otis.", "Noted. " * 61, {}, "has 61 words"),
        ("statement", "I ran.", "Sorry, I can't assist with that.", {}, "refuses"),
        ("statement", "I ran.", "Ok, Tordalk.", {}, "asserts 'Tordalk', which was not asked for"),
        ("statement", "It is Milan.", "Noted: Milan, no longer Rome.", MOVED, ""),
        ("statement", "It is Milan.", "It is Rome.", MOVED, "asserts the old value 'Rome'"),
        ("small talk", "Thanks!", "You are welcome.", {}, ""),
        ("small talk", "Thanks!", "I don't know.", {}, "abstains"),
        ("small talk", "Hello!", "keep bees", {}, "repeats a stored fact"),
        ("asked back", "Where?", "In Milan, I think.", {"wants": ("Rome", "milan")}, ""),
        ("asked back", "Where?", "Milano", {"wants": ("Milan",)}, "holds none of ['Milan']"),
        ("newest", "Where?", "Rome, then Milan", MOVED | {"never": ("Rome",)}, "holds 'Rome'"),
        ("follow-up", "And when?", "I don't know.", {"wants": ("1868",)}, "abstains"),
        ("asked back", "When?", "1868", {"wants": ("186",)}, "holds none of ['186']"),
        ("asked back", "哪里？", "住在苏州市", {"wants": ("苏州",)}, ""),
        ("never stated", "When?", "I don't know.", {}, ""),
        ("never stated", "When?", "In May.", {}, "answers a question about nothing stated"),
        ("other user", "Where?", "In Rome.", {"never": ("Rome",)}, "gives away 'Rome'"),
    ],
)
def test_replies_are_judged(kind, text, reply, more, why):
    """Strictly, and by their words alone."""
    turn = UserTurn("ann", kind, text, **more)
    held = ["I keep bees."]
    played = Round(turn, Heard(reply), before=held, after=held, known=["Rome", "Milan", "Tordalk"])
    assert verdict(played) == why


def test_a_source_gives_a_fact_away_and_an_error_is_never_right():
    """Though the answer does not hold it; and though a refusal would be right."""
    turn = UserTurn("ben", "other user", "Where?", never=("Rome",))
    assert verdict(Round(turn, Heard("No.", sources=("I live in Rome.",)))) == "gives away 'Rome'"
    assert verdict(Round(turn, Heard("InvalidInput", failed=True))) == "fails"


@pytest.mark.parametrize(
    ("halfway", "after", "why"),
    [
        (["the code is 7714", "a dog"], ["a dog"], ""),
        (["the code is 7714", "a dog"], ["the code is 7714", "a dog"], "'7714' is still kept"),
        (["the code is 7714", "a dog"], [], "'dog' is gone too"),
        (["a dog"], ["a dog"], "'7714' was erased without asking"),
        (["the code is 7714", "a dog"], ["a dog", "forget it"], "keeps the request: ['forget it']"),
    ],
)
def test_forgetting_is_judged_by_what_is_kept(halfway, after, why):
    """After the question that comes back, and nothing else goes."""
    turn = UserTurn("ann", "forget", "Forget my code.", "yes", gone=("7714",), stays=("dog",))
    before = ["the code is 7714", "a dog"]
    assert verdict(Round(turn, Heard("Sure?"), before, after, halfway)) == why


def test_what_is_kept_is_judged_too():
    """Of statements that something was, of questions and chatter that nothing was."""
    told, asked = UserTurn("ann", "statement", "I ran."), UserTurn("ann", "never stated", "Where?")
    assert also(Round(told, Heard("Ok."), after=["I ran."])) == ("statements kept", "")
    assert also(Round(told, Heard("Ok."))) == ("statements kept", "kept nothing")
    assert also(Round(asked, Heard("."), after=["?"])) == ("questions left out", "kept: ['?']")
    assert verdict(Round(UserTurn("ann", "not kept", "ok"), Heard("Ok."), ["a"], ["a"])) == ""
    assert (
        verdict(Round(UserTurn("ann", "not kept", "ok"), Heard("."), [], ["ok"])) == "kept: ['ok']"
    )
    note = UserTurn("ann", "remember", "Remember Tove.", keeps=("Tove",))
    assert verdict(Round(note, Heard("Ok."), after=["Remember Tove."])) == ""
    assert verdict(Round(note, Heard("Ok."))) == "kept nothing with 'Tove'"


@pytest.mark.enable_socket
@pytest.mark.parametrize("way", ["chat", "http"])
def test_a_dialogue_is_played_by_both_ways(talk, way):
    """The memory outlives the process, and each user has their own."""
    rounds = play(talk, open_fake, way)
    answers = [played.heard.text.strip() for played in rounds[1:]]
    assert answers == ["My boat is called Tordalk.", "My boat is called Tordalk.", "I don't know."]
    assert rounds[2].heard.sources == ("My boat is called Tordalk.",)
    assert [played.after for played in rounds[:2]] == [["My boat is called Tordalk."]] * 2
    assert rounds[1].known == ["Tordalk"]
    assert "| asked back | 2 | 2 | 100% |\n| other user | 1 | 1 | 100% |" in table(rounds)
    assert any("fits " in line or "WRONG" in line for line in in_full("two", rounds))


def test_replies_are_read_back_until_the_dialogue_changes(talk, tmp_path):
    """What is expected may change: the kept replies are judged again."""
    file = tmp_path / "replies.jsonl"
    assert read(file, [talk]) == {}
    rounds = play(talk, open_fake)
    append(file, talk.name, rounds)
    assert list(judged(read(file, [talk])[talk.name])) == list(judged(rounds))
    changed = tmp_path / "two.yaml"
    changed.write_text(TALK.replace("wants: [Tordalk]", "wants: [Wal]"), encoding="utf-8")
    assert verdict(read(file, [dialogue(changed)])["two"][1]) == "holds none of ['Wal']"
    changed.write_text(TALK.replace("Two people", "Two").replace("My boat", "Our boat"))
    assert read(file, [dialogue(changed)]) == {}


def test_kept_replies_may_be_compressed(talk, tmp_path):
    """A line is added to a compressed file, too."""
    file = tmp_path / "replies.jsonl.gz"
    rounds = play(talk, open_fake)
    append(file, "another", rounds)
    append(file, talk.name, rounds)
    assert read(file, [talk]) == {talk.name: rounds}


@pytest.mark.parametrize(
    ("card", "model", "setting", "replies"),
    [
        ("smollm2-135m-instruct", "", "", "replies.jsonl.gz"),
        (QWEN, QWEN, "", f"replies-{QWEN}.jsonl.gz"),
    ],
)
def test_the_report_is_made_from_the_kept_replies(card, model, setting, replies):
    """After a change of the dialogues or the judge: python -m examples.conversations.report."""
    page = (ROOT / "cmt_sdk" / "weights" / "shipped" / card / "conversations.md").read_text("utf-8")
    commit = re.search(r"code of commit\s(\w+)\.", page)[1]
    kept = read(ROOT / "examples" / "conversations" / replies, dialogues())
    assert page == report.page(kept, commit, model, setting) + "\n"


def test_a_transcript_stands_in_its_models_place():
    """A model without a place on the page is refused; the manual's has the turns of the script."""
    page = "<!-- transcript of m -->\nold\n<!-- end of transcript -->\nrest"
    made = transcript.written(page, "m", "> Hi\nHello.")
    assert "> Hi\nHello.\n```\n\n<!-- end of transcript -->\nrest" in made
    assert "old" not in made
    with pytest.raises(SystemExit, match="no place for n"):
        transcript.written(page, "n", "")
    manual = transcript.PAGE.read_text(encoding="utf-8")
    assert all(f"> {turn}\n" in manual for turn in transcript.TURNS)


@pytest.mark.model
def test_three_dialogues_with_the_default_model():
    """Shares that are right, by kind; `python -m examples.conversations.talk` plays all."""
    open_memory = default_opener()
    talks = [talk for talk in dialogues() if talk.name in SUBSET]
    rounds = [played for talk in talks for played in play(talk, open_memory)]
    found = list(judged(rounds))
    good = Counter(row for row, why in found if not why)
    total = Counter(row for row, _ in found)
    right = {row: good[row] / total[row] for row in total}
    told = "\n".join(in_full("subset", rounds))
    assert right["other user"] == 1.0, told
    assert right["newest"] >= 0.75, told
    assert right["asked back"] >= 0.80, told
    free = ("statement", "small talk")
    assert sum(good[r] for r in free) / sum(total[r] for r in free) >= 0.95, told
    # The floor that does not hold yet:
    # assert right["never stated"] >= 0.85, told
