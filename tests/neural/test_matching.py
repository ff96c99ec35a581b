"""Embeddings: one space for passages and questions, whatever else is in the batch."""

import numpy as np
import pytest
import torch

from cmt_sdk.neural.embedding import Matcher, MatchHead, unit_states
from cmt_sdk.testing.tiny import tiny_frozen, tiny_llama

TEXTS = ["Where is it?", "The museum moved to Lisbon in 2019.", "x"]


@pytest.fixture(scope="module")
def lm():
    return tiny_frozen()


def head(dimension=16, layers=(0, 2)):
    """A random head over two layers of the tiny model."""
    torch.manual_seed(0)
    width = 128 * len(layers)
    return MatchHead(
        torch.tensor(layers),
        torch.randn(258),
        torch.randn(128),
        torch.randn(dimension, width),
        torch.randn(dimension),
    )


@pytest.mark.parametrize("made", [None, head()], ids=["plain", "trained"])
def test_vectors_have_length_one_and_keep_their_order(lm, made):
    """Each text's vector is the same alone and in a batch."""
    matcher = Matcher(lm, made or MatchHead.plain(lm))
    vectors = matcher.vectors(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 128 if made is None else 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    for row, text in zip(vectors, TEXTS, strict=True):
        np.testing.assert_allclose(matcher.vectors([text])[0], row, atol=1e-4)


def test_states_are_those_of_the_layers_that_were_asked_for(lm):
    """After the prompt's head, of unit length; the layers above do not run."""
    ids = lm.ids("The museum")
    states = unit_states(lm, torch.tensor([ids]), [0, 2, 3])
    with torch.inference_mode():
        hidden = tiny_llama()(
            input_ids=torch.tensor([lm.prefix_ids + ids]), output_hidden_states=True
        ).hidden_states
    for place, layer in enumerate([0, 2, 3]):
        expected = torch.nn.functional.normalize(hidden[layer][:, len(lm.prefix_ids) :], dim=-1)
        torch.testing.assert_close(states[:, :, place], expected, atol=1e-4, rtol=1e-3)


def test_heavy_tokens_decide(lm):
    """With all the weight on one token, a text's vector is that token's."""
    tokens = torch.zeros(258)
    tokens[lm.ids("q")[0]] = 50.0
    made = MatchHead(torch.tensor([0]), tokens, torch.zeros(128), torch.eye(128), torch.zeros(128))
    one, other = Matcher(lm, made).vectors(["abcq", "qxyz"])
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_head_comes_back_from_its_file():
    """Half-precision tensors are computed with in fp32; layers stay whole numbers."""
    made = head()
    back = MatchHead.of(
        {name: t if name == "layers" else t.half() for name, t in vars(made).items()}
    )
    assert back.layers.dtype == torch.int64
    assert back.projection.dtype == torch.float32
    torch.testing.assert_close(back.projection, made.projection, atol=1e-2, rtol=1e-2)
