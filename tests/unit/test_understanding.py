"""What a message wants: from scores to an Intent, the fit of a probe, its messages."""

import numpy as np
import pytest

from cmt_sdk.understanding.fitted import digest
from cmt_sdk.understanding.intent import understand
from cmt_sdk.understanding.probe import IntentProbe, fit
from cmt_sdk.understanding.utterances import LABELS, Utterance, read_utterances

NAMES = list(LABELS.values())


def judge(**labels):
    """A judge that gives each text the labels of the first word that it holds."""

    def scores(texts):
        chosen = [next((v for k, v in labels.items() if k in t), ()) for t in texts]
        return np.array([[1.0 if n in c else -1.0 for n in NAMES] for c in chosen], np.float32)

    return scores


JUDGE = judge(
    Title={"machine"},
    what={"asks"},
    Thanks={"chats"},
    Remember={"remembers"},
    live={"tells"},
    Paris={"asks", "general"},
)


def test_parts_that_tell_and_parts_that_ask_are_told_apart():
    """By sentence and by line; an abbreviation ends none."""
    found = understand("I live with Dr. Lee in Rome.\nAnd what is my name?", JUDGE)
    assert (found.statement, found.asked) == (
        "I live with Dr. Lee in Rome.",
        "And what is my name?",
    )


def test_a_message_that_tells_is_kept_as_it_is():
    """With its line breaks; thanks beside it are left out."""
    assert (
        understand(" I live here.\nI live there. ", JUDGE).statement
        == "I live here.\nI live there."
    )
    assert understand("Thanks! I live here.", JUDGE).statement == "I live here."


def test_a_request_to_remember_tells():
    """However it is put: as a question too."""
    found = understand("Remember that my boat is called Pelican?", JUDGE)
    assert (found.statement, found.remembers, found.asks) == (
        "Remember that my boat is called Pelican?",
        True,
        False,
    )


def test_what_a_machine_writes_is_nothing_else():
    """Though there are sentences in it that tell and ask."""
    found = understand("Title for this:\nI live here.\nwhat is it?", JUDGE)
    assert (found.machine, found.tells, found.asks) == (True, False, False)


def test_a_general_question_asks():
    """Of memory first; it is general only where every question in the message is."""
    assert understand("Paris?", JUDGE).general
    assert not understand("Paris? And what is my name?", JUDGE).general


def test_thanks_before_a_question_do_not_make_it_small_talk():
    """The question decides."""
    found = understand("Thanks! And what is my name?", JUDGE)
    assert (found.asked, found.chats) == ("And what is my name?", False)


def test_a_long_message_is_judged_in_few_parts():
    """Its sentences are joined; the judge is asked once."""
    asked = []

    def counting(texts):
        asked.append(len(texts))
        return JUDGE(texts)

    assert understand("I live here. " * 500, counting).tells
    assert asked == [25]


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it", "pt", "nl", "ja", "zh"])
def test_messages_of_each_language_have_every_label(language):
    """So that a probe can learn it."""
    found = [u for u in read_utterances() if u.language == language]
    assert {name for u in found for name in u.labels} == set(NAMES)


def test_no_message_is_there_twice():
    """One with two labels would teach nothing."""
    texts = [u.text for u in read_utterances()]
    assert len(texts) == len(set(texts))


def test_a_probe_learns_from_states_and_comes_back_from_bytes():
    """States that tell the label decide messages whose characters are all alike."""
    rng = np.random.default_rng(1)
    words = [str(n) for n in range(100)]
    utterances = [Utterance(w, frozenset({NAMES[n % 2]}), "en") for n, w in enumerate(words)]
    states = np.array([[n % 2, rng.normal()] for n in range(100)], np.float32)
    probe = IntentProbe.unpacked(fit(utterances, states).packed())
    scores = probe.scores(["new"] * 2, np.array([[0, 0], [1, 0]], np.float32))
    assert (scores[:, :2] > 0).tolist() == [[True, False], [False, True]]


def test_the_shipped_probes_are_of_the_shipped_messages():
    """Else each user would fit it once more: `python tests/fit_probe.py` makes it."""
    from importlib.resources import files

    names = [f.name for f in (files("cmt_sdk.understanding") / "shipped").iterdir()]
    assert [name.endswith(f"-{digest()}.npz") for name in names] == [True, True]
