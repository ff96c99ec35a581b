"""Soft tokens: which neighbours are merged, what a soft token is, and how it is read."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cmt_sdk.errors import InvalidInput, ModelUnsupported
from cmt_sdk.neural.methods.soft import SoftMethod, unpacked
from cmt_sdk.neural.methods.soft_tokens import (
    SoftTokens,
    last_hidden_states,
    merge_layer,
    soft_cache,
)
from cmt_sdk.neural.methods.ward import merge_windows
from cmt_sdk.neural.partial_forward import run_until
from cmt_sdk.neural.quantization import fake_quantize
from cmt_sdk.neural.reader import TorchReader
from cmt_sdk.testing.families import FAMILIES, tiny_model
from cmt_sdk.testing.tiny import tiny_frozen, tiny_llama
from cmt_sdk.types import CompressedPassage, Prompt

TEXT = "The museum moved to Lisbon in 2019."


@pytest.fixture(scope="module")
def lm():
    return tiny_frozen()


def added(states, ends):
    """The squared error of putting each window's mean in place of its states."""
    starts = [0, *(e + 1 for e in ends[:-1])]
    return sum(
        float(np.square(states[a : e + 1] - states[a : e + 1].mean(0)).sum())
        for a, e in zip(starts, ends, strict=True)
    )


def merged(states, count):
    """The ends of this many windows over all states [n, d]."""
    return merge_windows(torch.from_numpy(states)[None], [len(states)], [count])[0].tolist()


def test_neighbours_that_differ_least_are_merged():
    """Three runs of like states make three windows, however long each is."""
    states = np.repeat(
        np.array([[0.0], [9.0], [4.0]], np.float32), [5, 1, 3], axis=0
    ) + 0.01 * np.arange(9)[:, None].astype("f4")
    assert merged(states, 3) == [4, 5, 8]
    assert merged(states, 9) == list(range(9))
    assert merged(states, 1) == [8]
    assert merged(states[:1], 1) == [0]


@pytest.mark.parametrize("seed", range(5))
def test_each_merging_adds_as_little_error_as_any_could(seed):
    """As a search over all neighbours finds it, step by step."""
    states = np.random.default_rng(seed).normal(size=(12, 3)).astype(np.float32)
    ends = list(range(12))
    while len(ends) > 4:
        ends = min(
            ([*ends[:i], *ends[i + 1 :]] for i in range(len(ends) - 1)),
            key=lambda found: added(states, found),
        )
        assert merged(states, len(ends)) == ends


def test_passages_side_by_side_are_merged_as_each_alone():
    """Whatever fills up the shorter ones, and however much is to be merged of each."""
    states = np.random.default_rng(5).normal(size=(4, 20, 3)).astype(np.float32)
    lengths, counts = [20, 7, 1, 12], [3, 7, 1, 1]
    found = merge_windows(torch.from_numpy(states), lengths, counts)
    assert [f.tolist() for f in found] == [
        merged(s[:n], c) for s, n, c in zip(states, lengths, counts, strict=True)
    ]


def test_a_soft_token_is_the_sum_of_its_window_over_the_root_of_its_length(lm):
    """Of the states that the first layers make of the passage, alone or beside a longer one."""
    ids = [lm.ids(TEXT), lm.ids("Short.")]
    with torch.inference_mode():
        made = SoftMethod(lm, 4).encode(ids)
        for own, soft in zip(ids, made, strict=True):
            states = run_until(lm, torch.tensor([own]), [merge_layer(lm)])[merge_layer(lm)][0]
            assert (len(soft.ends), soft.tokens) == (-(-len(own) // 4), len(own))
            for row, end, size in zip(
                soft.rows, soft.ends.tolist(), soft.sizes.tolist(), strict=True
            ):
                torch.testing.assert_close(
                    row, states[end - size + 1 : end + 1].sum(0) / size**0.5, atol=1e-4, rtol=1e-4
                )


@pytest.mark.parametrize("family", FAMILIES)
def test_where_nothing_is_merged_the_later_layers_see_the_passage_itself(family):
    """A window of one token each: the entries and the last states are those of the passage's own
    reading.
    """
    lm = tiny_frozen(tiny_model(family))
    ids, first, head = lm.ids(TEXT), merge_layer(lm), len(lm.prefix_ids)
    cache = lm.prefix_cache(1)
    with torch.inference_mode():
        (made,) = SoftMethod(lm, 1).encode([ids])
        notes, (latent,) = soft_cache(lm, [[made]]), last_hidden_states(lm, [made])
        positions = torch.arange(head, head + len(ids))[None]
        states = lm.forward(cache, input_ids=torch.tensor([ids]), position_ids=positions)
    torch.testing.assert_close(latent, states[0], atol=1e-3, rtol=1e-3)
    for number, layer in enumerate(cache.layers):
        if number < first:
            assert notes.keys[number].shape[2] == notes.values[number].shape[2] == head
        else:
            torch.testing.assert_close(notes.keys[number], layer.keys, atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(notes.values[number], layer.values, atol=1e-3, rtol=1e-3)
    assert notes.starts == [head + len(ids)]


def test_a_soft_token_counts_as_often_as_it_has_tokens(lm):
    """In attention, by the log of its window's length; a memory before the last has the prior,
    padding is closed.
    """
    soft = SoftTokens(torch.zeros(2, 128), torch.tensor([2, 3]))
    notes, head = soft_cache(lm, [[soft], [soft, soft]], bias=-1.0), len(lm.prefix_ids)
    log = float(torch.tensor(3.0).log())
    assert notes.bias[0].shape[3] == head
    for number in range(merge_layer(lm), len(notes.bias)):
        told = notes.bias[number][:, 0, 0, head:]
        torch.testing.assert_close(told[0], torch.tensor([log, 0.0, float("-inf"), float("-inf")]))
        torch.testing.assert_close(told[1], torch.tensor([log - 1, -1.0, log, 0.0]))


def test_a_memory_is_read_as_it_was_made(lm):
    """Rows through four bits, ends exactly; and nothing of one memory reaches the next one's
    entries.
    """
    texts = [TEXT, "The harbour is in Genoa, and it freezes."]
    memories = SoftMethod(lm, 4).compress(texts)
    first, second = unpacked(memories, lm)
    with torch.inference_mode():
        made = SoftMethod(lm, 4).encode([lm.passage_ids(text) for text in texts])
        both = [
            soft_cache(lm, [[one, second]]) for one in (first, SoftTokens(-first.rows, first.ends))
        ]
    for soft, read in zip(made, (first, second), strict=True):
        assert torch.equal(soft.ends, read.ends)
        torch.testing.assert_close(fake_quantize(soft.rows), read.rows, atol=1e-3, rtol=1e-3)
    count = len(lm.prefix_ids) + len(first.ends)
    assert not torch.allclose(both[0].keys[-1][:, :, :count], both[1].keys[-1][:, :, :count])
    torch.testing.assert_close(both[0].keys[-1][:, :, count:], both[1].keys[-1][:, :, count:])
    assert [m.arrays["soft_codes"].shape[1] for m in memories] == [64, 64]
    assert [m.arrays["soft_ends"].shape[1] for m in memories] == [2, 2]


def test_one_token_and_no_memory_stand_beside_others(lm):
    """A row without memories has the head alone open to it; a passage of one token is one soft
    token.
    """
    with torch.inference_mode():
        long, short = SoftMethod(lm, 4).encode([lm.ids(TEXT), lm.ids("a")])
        notes, alone = soft_cache(lm, [[long], [], [short]]), soft_cache(lm, [[short]])
    head = len(lm.prefix_ids)
    assert notes.starts == [head + long.tokens, head, head + 1]
    assert notes.bias[-1][1, :, :, head:].isinf().all()
    torch.testing.assert_close(
        notes.keys[-1][2, :, : head + 1], alone.keys[-1][0], atol=1e-4, rtol=1e-4
    )
    assert notes.bias[-1][2, 0, 0, head:].isinf().tolist() == [False] + [True] * (
        len(long.ends) - 1
    )


def test_an_answer_depends_on_the_memory(lm):
    """Prefilled are its soft tokens and the question; another memory makes another confidence."""
    confidences = []
    for text in (TEXT, "A harbour lies in Genoa, far from all."):
        memories = SoftMethod(lm, 4).compress([text])
        usage = list(
            TorchReader(lm, SoftMethod(lm, 4)).read(Prompt("Where?", memories=memories), 3)
        )[-1].usage
        assert usage.prompt_tokens == len(lm.question_ids("Where?")) + -(
            -len(lm.passage_ids(text)) // 4
        )
        confidences.append(usage.confidence)
    assert confidences[0] != confidences[1]


def changed(memory, **arrays):
    """The memory with other arrays."""
    return CompressedPassage("soft", memory.tokens, {**memory.arrays, **arrays})


def test_memories_that_are_none_are_told_apart(lm):
    """From elsewhere: windows that do not rise, do not end with the passage, are too few, or are
    missing.
    """
    compressor = SoftMethod(lm, 4)
    (memory,) = compressor.compress([TEXT])
    ends = memory.arrays["soft_ends"]
    assert compressor.is_valid(memory)
    assert not SoftMethod(lm, 8).is_valid(memory)
    assert not compressor.is_valid(replace(memory, tokens=memory.tokens + 1))
    assert not compressor.is_valid(replace(memory, kind="kv"))
    for wrong in (
        ends[::-1].copy(),
        ends[:-1],
        ends.astype(np.int64),
        np.zeros_like(ends) + ends[-1],
    ):
        assert not compressor.is_valid(changed(memory, soft_ends=wrong))
    assert not compressor.is_valid(
        replace(memory, arrays={k: v for k, v in memory.arrays.items() if k != "soft_ends"})
    )
    assert not compressor.is_valid(changed(memory, soft_codes=memory.arrays["soft_codes"][1:]))


@pytest.mark.parametrize(("layers", "expected"), [(3, 1), (16, 2), (30, 4), (32, 4)])
def test_how_deep_a_passage_goes_depends_on_the_model(layers, expected):
    """About an eighth of its layers, at least one."""
    assert merge_layer(SimpleNamespace(blocks=[None] * layers)) == expected


def test_what_cannot_be_is_told():
    """A model without a later layer, and a passage that its learned positions do not reach."""
    with pytest.raises(
        ModelUnsupported, match="a model of 1 layers: soft memories need a later one"
    ):
        SoftMethod(tiny_frozen(tiny_llama(num_hidden_layers=1)), 4)
    lm = tiny_frozen(tiny_model("gpt2"))
    room = 1024 - len(lm.prefix_ids)
    (memory,) = SoftMethod(lm, 16).compress(["a" * (room - len(lm.passage_ids("")))])
    assert memory.tokens == room
    with pytest.raises(
        InvalidInput,
        match=rf"a passage of {room + 1} tokens; behind .* this model holds {room}: choose a smaller",
    ):
        SoftMethod(lm, 16).compress(["a" * (room + 1 - len(lm.passage_ids("")))])
