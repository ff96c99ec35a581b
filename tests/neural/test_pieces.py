"""Pieces of training that can be left out: each changes what it should, and validation never."""

from dataclasses import replace

import pytest
import torch

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.testing.tiny import tiny_frozen
from cmt_sdk.text.prompt_messages import UNKNOWN
from cmt_sdk.training import Recipe
from cmt_sdk.training.matcher import MatchData
from cmt_sdk.training.packs import draw
from cmt_sdk.training.recipe import INGREDIENTS
from tests.neural.test_training import mixture, passages, reader_task


def drawn(*without):
    """Packs of twenty draws."""
    lm, stream = tiny_frozen(), mixture()
    return [pack for _ in range(20) for pack in draw(lm, stream, without)]


def told(packs):
    """The answers of packs, as text."""
    return "".join(
        tiny_frozen().tokenizer.decode([int(i) for i in p.labels if i >= 0]) for p in packs
    )


def test_without_distractors_a_pack_holds_what_it_asks_about():
    """At most two passages, all of them asked about; else up to five."""
    assert max(len(p.contents) for p in drawn()) > 2
    assert max(len(p.contents) for p in drawn("distractors")) <= 2


def test_without_absent_passages_everything_can_be_answered():
    """No answer says that the notes do not tell."""
    assert UNKNOWN in told(drawn())
    assert UNKNOWN not in told(drawn("absent"))


def test_without_rounding_memories_keep_their_values_while_learning_only():
    """Values that would become sixteen levels stay as they are; validation reads four bits all the
    same.
    """
    task = replace(reader_task(), encoder=True)
    content = [passages()[0].context]

    def values(without):
        return (
            replace(task, ablate=without)
            ._memories(task.lm, dict.fromkeys(content, 1.0))[content[0]]
            .values
        )

    assert not torch.equal(values(()), values(("rounding",)))
    with torch.no_grad():
        assert torch.equal(values(()), values(("rounding",)))


def test_without_pruning_all_entries_are_read(monkeypatch):
    """The share that was drawn counts no longer."""
    task, shares = reader_task(), []
    monkeypatch.setattr(
        type(task),
        "_read",
        lambda self, packs, keeps, told, *, nf4=False: shares.append({*keeps.values()}) or (0.0, 1),
    )
    task.learn()
    replace(task, ablate=("pruning",)).learn()
    assert shares == [{0.5}, {1.0}]


def test_without_negatives_no_passage_stands_for_another():
    """A batch then holds the questions' own passages alone."""
    data = MatchData.of(tiny_frozen(), passages(), [0, 2], negatives=False)
    assert data.near == [[]] * 8


@pytest.mark.parametrize(
    ("part", "piece"), [("reader", "matching"), ("matcher", "rounding"), ("soft", "everything")]
)
def test_a_piece_that_the_part_does_not_have_is_refused(part, piece, tmp_path):
    """The error names those that it has."""
    there = next(name for name, parts in INGREDIENTS.items() if part in parts)
    with pytest.raises(
        InvalidSetting, match=f"ablate='{piece}': of part '{part}' choose among .*{there}"
    ):
        Recipe(part, tmp_path, [tmp_path], ablate=(piece,))
