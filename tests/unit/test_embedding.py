"""A foreign embedder makes the embeddings: passages are found by it, and by no other one."""

from collections.abc import Sequence

import numpy as np
import pytest

from cmt_sdk.errors import InvalidSetting, ModelMismatch
from cmt_sdk.testing.fakes import open_fake


class Colours:
    """Knows three colours: red, green and blue are the axes."""

    name = "colours-3"

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector a text."""
        return [self.embed_query(t) for t in texts]

    def embed_query(self, text: str) -> list[float]:
        """How much of each colour."""
        return [2.0 * (colour in text) + 0.1 for colour in ("red", "green", "blue")]


def test_passages_are_found_by_the_embedder(tmp_path):
    """The wine's name shares no word with the question, and its colour decides."""
    with open_fake(tmp_path, embedder=Colours()) as memory:
        memory.add_many(["A red wine.", "A green tea.", "A blue sea."])
        (best,) = memory.search("something greenish", 1, mode="vector")
        assert best.passage.text == "A green tea."
        assert best.vector_score == pytest.approx(1.0, abs=1e-6)


def test_key_vectors_have_the_embedder_s_dimension_and_length_one(tmp_path):
    """Whatever length the embedder gives them."""
    with open_fake(tmp_path, embedder=Colours()) as memory:
        vector = memory.model._retriever.embed_question("red")
        assert vector.shape == (3,)
        assert np.linalg.norm(vector) == pytest.approx(1.0)


def test_a_vector_finds_its_nearest_passages(tmp_path):
    """Those of a scope alone, where one is given; vectors come from the model's own `embed`."""
    with open_fake(tmp_path, embedder=Colours()) as memory:
        memory.add("A red wine.", scope="cellar")
        memory.add("A red sea.")
        (vector,) = memory.model.embed(["red"])
        assert [m.passage.text for m in memory.nearest(vector, 1, scope="cellar")] == [
            "A red wine."
        ]
        assert len(memory.nearest(vector)) == 2
        with pytest.raises(InvalidSetting, match="k=0: ask for at least one passage"):
            memory.nearest(vector, 0)


def test_key_vectors_can_be_looked_at(tmp_path):
    """A row a passage, of the documents that fit; what waits for compression has none yet."""
    with open_fake(tmp_path, embedder=Colours()) as memory:
        assert memory.embeddings().matrix.shape == (0, 0)
        red = memory.passages(memory.add("A red wine.", scope="cellar").id)[0]
        memory.add("A green tea.")
        memory.add_many(["A blue sea."], compress=False)
        assert memory.embeddings().matrix.shape == (2, 3)
        keys = memory.embeddings(scope="cellar")
        assert list(keys.passage_ids) == [red.id]
        assert keys.matrix @ memory.model.embed(["red"]).T == pytest.approx(1.0)


def test_without_the_embedder_the_memories_are_another_kind(tmp_path):
    """Vectors of two models are never compared; the error names what differs."""
    with open_fake(tmp_path, embedder=Colours()) as memory:
        memory.add("A red wine.")
    with open_fake(tmp_path) as memory, pytest.raises(ModelMismatch, match="matcher"):
        memory.search("red", 1, mode="vector")


@pytest.mark.parametrize("rows", [[[1.0, float("nan")]], [[1.0], [2.0]], [1.0]])
def test_what_are_no_vectors_is_refused(tmp_path, rows):
    """Not finite, too many, or flat: the error names the embedder, and the text is kept."""
    broken = Colours()
    broken.embed_documents = lambda _: rows
    with open_fake(tmp_path, embedder=broken) as memory:
        with pytest.raises(
            InvalidSetting, match=r"embedder='colours-3' gave an array of shape .* for 1 texts"
        ):
            memory.add("A red wine.")
        assert memory.count() == 1
