"""Key vectors: one space for passages and questions, whatever else is in the batch."""

import numpy as np
import pytest
import torch

from cmt_sdk.neural.matching import Matcher, hidden_after
from cmt_sdk.testing.tiny import tiny_frozen, tiny_llama

TEXTS = ["Where is it?", "The museum moved to Lisbon in 2019.", "x"]


@pytest.fixture(scope="module")
def lm():
    return tiny_frozen()


@pytest.mark.parametrize("projection", [None, torch.eye(16, 128)])
def test_vectors_have_length_one_and_keep_their_order(lm, projection):
    """Each text's vector is the same alone and in a batch."""
    matcher = Matcher(lm, projection, 2)
    vectors = matcher.vectors(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 128 if projection is None else 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    for row, text in zip(vectors, TEXTS, strict=True):
        np.testing.assert_allclose(matcher.vectors([text])[0], row, atol=1e-4)


def test_only_the_first_layers_run(lm):
    """Stopping after two layers gives their hidden states, and a model cut to two layers gives the same."""
    ids = torch.tensor([lm.ids("The museum")])
    with torch.inference_mode():
        early = hidden_after(lm.model, 2, input_ids=ids, use_cache=False)
        states = tiny_llama()(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(early, states[2])


def test_the_whole_depth_is_the_models_output(lm):
    """A depth of all layers gives the last hidden state."""
    ids = torch.tensor([lm.ids("The museum")])
    with torch.inference_mode():
        whole = hidden_after(lm.model, 3, input_ids=ids, use_cache=False)
        assert torch.equal(whole, lm.model.base_model(input_ids=ids).last_hidden_state)


def test_a_trained_head_sees_both_directions(lm):
    """With a matching head the first token's state depends on the last token; without one it does not."""
    a, b = lm.ids("abc"), lm.ids("abd")
    with torch.inference_mode():
        both = Matcher(lm, torch.eye(128), 1)
        assert not torch.allclose(both.forward([a]), both.forward([b]))
