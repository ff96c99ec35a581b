"""Each piece of what training minimises, against values written out or another way of computing
it.
"""

import math

import pytest
import torch

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.training.losses import (
    Objectives,
    loss_of_states,
    memory_aware,
    repulsion,
    self_matching,
    state_distance,
    teacher_divergence,
)

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
TEACHER = torch.tensor([[1.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
LABELS = torch.tensor([0, 1])


def test_the_divergence_is_zero_for_the_teacher_itself_and_positive_for_others():
    """Two distributions over two tokens, written out."""
    assert float(teacher_divergence(TEACHER, TEACHER)) == pytest.approx(0.0, abs=1e-6)
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.75, 0.25]]).log()
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(teacher_divergence(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_memory_aware_logits_count_what_the_memory_adds():
    """With alpha 0 they are those with memory; what both say alike stays; the bare logits get no
    gradient.
    """
    without = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
    assert torch.equal(memory_aware(LOGITS, without, 0.0), LOGITS)
    aware = memory_aware(LOGITS, without, 0.5)
    assert torch.equal(aware, torch.tensor([[2.5, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert not aware.requires_grad


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        (Objectives(answer=1.0), 0.23954 + 0.55144),
        (Objectives(answer=2.0), 2 * (0.23954 + 0.55144)),
        (Objectives(answer=0.0, teacher=1.0), None),
        (Objectives(answer=1.0, teacher=0.5), None),
    ],
)
def test_the_pieces_are_weighed_and_summed(objectives, expected):
    """Cross-entropy of the labels and divergence from the teacher, each times its weight."""
    if expected is None:
        expected = objectives.answer * (0.23954 + 0.55144) + objectives.teacher * float(
            teacher_divergence(LOGITS, TEACHER)
        )
    assert float(objectives.loss(LOGITS, LABELS, TEACHER, None)) == pytest.approx(
        expected, rel=1e-4
    )


def test_a_teacher_may_tell_of_the_first_tokens_alone():
    """The others have their labels."""
    objectives = Objectives(answer=1.0, teacher=0.5)
    parts = [
        objectives.loss(LOGITS[:1], LABELS[:1], TEACHER[:1], None),
        objectives.loss(LOGITS[1:], LABELS[1:], None, None),
    ]
    assert float(objectives.loss(LOGITS, LABELS, TEACHER[:1], None)) == pytest.approx(
        float(sum(parts)), rel=1e-5
    )


def test_alpha_changes_the_loss_only_where_logits_without_memory_are_given():
    """A memory that adds to the right answer lowers the loss."""
    without = torch.zeros_like(LOGITS)
    plain = float(Objectives().loss(LOGITS, LABELS, None, None))
    assert float(Objectives(alpha=0.5).loss(LOGITS, LABELS, None, without)) < plain
    assert float(Objectives(alpha=0.5).loss(LOGITS, LABELS, None, None)) == plain


@pytest.mark.parametrize(
    "objectives",
    [Objectives(answer=0.5), Objectives(0.5, teacher=1.0), Objectives(0.5, teacher=1.0, alpha=0.5)],
)
@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_chunks_of_the_answers_give_the_loss_and_the_gradients_of_all_logits(objectives, at_once):
    """A teacher of the first five of seven tokens and the bare states take part; no chunk has more
    rows than asked for.
    """
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(11, 4, generator=draw, dtype=torch.float64)
    states, bare = torch.randn(2, 7, 4, generator=draw, dtype=torch.float64)
    teacher = torch.randn(5, 4, generator=draw, dtype=torch.float64)
    labels = torch.randint(11, (7,), generator=draw)
    rows = []

    def head(some):
        rows.append(len(some))
        return some @ weight.T

    whole, chunked = (states.clone().requires_grad_() for _ in range(2))
    expected = objectives.loss(
        whole @ weight.T, labels, teacher @ weight.T, bare @ weight.T if objectives.alpha else None
    )
    without = bare if objectives.alpha else None
    found = loss_of_states(objectives, head, chunked, labels, teacher, without, at_once)
    (2 * expected).backward()
    (2 * found).backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    torch.testing.assert_close(chunked.grad, whole.grad)
    assert max(rows) == min(at_once, 7)
    with torch.no_grad():
        same = loss_of_states(objectives, head, states, labels, teacher, without, at_once)
    assert float(same) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_states_are_measured_by_their_teacher_s_size():
    """A dimension a hundred times as large counts as much; one of nothing divides by nothing; equal
    states are at no distance.
    """
    teacher = torch.tensor([[100.0, 1.0, 0.0], [-100.0, 1.0, 0.0]])
    student = torch.tensor([[150.0, 1.5, 0.0], [-100.0, 1.0, 0.0]])
    assert float(state_distance([student], [teacher])) == pytest.approx(2 * 0.5**2 / 6)
    assert float(state_distance([teacher, student], [teacher, teacher])) == pytest.approx(
        0.5**2 / 6
    )


def test_self_matching_is_low_for_a_question_beside_its_own_passage():
    """Two unit vectors at right angles: the loss is written out, and swapping the owners raises
    it.
    """
    rows = torch.eye(2)
    right = float(self_matching(rows, rows, torch.tensor([0, 1]), 0.5))
    assert right == pytest.approx(2 * math.log(1 + math.exp(-2)), rel=1e-5)
    assert float(self_matching(rows, rows, torch.tensor([1, 0]), 0.5)) > right


def test_memories_that_collapse_are_pushed_apart():
    """Equal rows cost log of their pairs; rows at right angles cost two less."""
    alike = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(repulsion(alike)) == pytest.approx(math.log(2))
    assert float(repulsion(torch.eye(2))) == pytest.approx(math.log(2) - 2)


@pytest.mark.parametrize("given", [{"answer": -1.0}, {"teacher": 11.0}, {"answer": 0.0}])
def test_impossible_weights_are_refused(given):
    """Below nothing, above ten, or nothing at all."""
    with pytest.raises(InvalidSetting, match=r"choose 0 to 10|nothing to learn from"):
        Objectives(**given)
