"""The LangChain retriever and stores: LangChain's own standard tests, and what those do not ask."""

import builtins
import importlib
import json
import sys
import threading

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from langchain_tests.integration_tests import (
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

import cmt_sdk
from cmt_adapters.langchain import CMTDocumentStore, CMTEmbedder, CMTRetriever, CMTVectorStore
from cmt_sdk.errors import InvalidDocument, InvalidFilter, InvalidInput, MissingExtra, ModelMismatch
from cmt_sdk.testing.fakes import open_fake

FACTS = [
    "The museum moved to Lisbon in 2019.",
    "The harbour of Genoa opens at nine.",
    "Ann likes green tea.",
]


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        yield opened


class TestVectorStoreWithTheMemorysOwnVectors(VectorStoreIntegrationTests):
    """The standard tests over vectors of the memory's compressor."""

    @pytest.fixture
    def vectorstore(self, memory):
        """An empty store."""
        return CMTVectorStore(memory)


class TestVectorStoreWithForeignVectors(VectorStoreIntegrationTests):
    """The standard tests with their own 6-dimensional embedder, in a scope of a memory that holds
    other things.
    """

    @pytest.fixture
    def vectorstore(self, tmp_path):
        """A store that is empty, though the memory is not."""
        embeddings = self.get_embeddings()
        with open_fake(tmp_path / "notes", embedder=CMTEmbedder(embeddings)) as memory:
            memory.add("foo", id="1", scope="others")
            yield CMTVectorStore(memory, scope="user/ann", embedding=embeddings)


class TestRetriever(RetrieversIntegrationTests):
    """The standard tests."""

    retriever_constructor = CMTRetriever
    retriever_query_example = "Where is the museum?"

    @pytest.fixture(autouse=True)
    def filled(self, memory):
        """A memory with three documents."""
        memory.add_many(FACTS)
        self.memory = memory

    @property
    def retriever_constructor_params(self):
        """The memory of this test."""
        return {"memory": self.memory}


VALUES = (
    Document("foo text", metadata={"n": 1}),
    Document("bar text", metadata={"deep": {"a": [1]}}),
    Document("buz text"),
)


class TestDocumentStore(BaseStoreSyncTests):
    """The standard tests."""

    @pytest.fixture
    def kv_store(self, memory):
        """An empty store."""
        return CMTDocumentStore(memory, scope="parents")

    @pytest.fixture
    def three_values(self):
        """Three documents."""
        return VALUES


class TestDocumentStoreAsync(BaseStoreAsyncTests):
    """The standard tests, without a scope."""

    @pytest.fixture
    async def kv_store(self, memory):
        """An empty store."""
        return CMTDocumentStore(memory)

    @pytest.fixture
    def three_values(self):
        """Three documents."""
        return VALUES


class Colours(DeterministicFakeEmbedding):
    """Knows three colours: red, green and blue are the axes."""

    size: int = 3
    model: str = "colours-3"

    def embed_query(self, text):
        """How much of each colour."""
        return [2.0 * (colour in text) + 0.1 for colour in ("red", "green", "blue")]

    def embed_documents(self, texts):
        """A vector a text."""
        return [self.embed_query(t) for t in texts]


@pytest.fixture
def colours(tmp_path):
    """A store of three colours."""
    with open_fake(tmp_path / "colours", embedder=CMTEmbedder(Colours())) as memory:
        store = CMTVectorStore(memory, embedding=Colours())
        store.add_texts(
            ["A red wine.", "A green tea.", "A blue sea."],
            [{"n": n} for n in range(3)],
            ids=["r", "g", "b"],
        )
        yield store


def long_text(*words):
    """A text of one passage a word."""
    return "\n\n".join(f"{word} " * 200 for word in words)


# -- the retriever


def test_a_passage_tells_where_it_stands(memory):
    """Source, scope, place and score are in its metadata; the place is that of its text, below the
    title, in the document.
    """
    memory.add(
        long_text("tea", "cake", "museum"),
        source="trip.md",
        scope="user/ann",
        metadata={"year": 2019},
    )
    (found,) = CMTRetriever(memory=memory, k=1).invoke("Where is the museum?")
    about = found.metadata
    assert {name: about[name] for name in ("source", "scope", "year")} == {
        "source": "trip.md",
        "scope": "user/ann",
        "year": 2019,
    }
    title, text = found.page_content.split("\n", 1)
    assert memory.get(about["document_id"]).text[about["start"] : about["end"]] == text
    assert (title, text.split()[0]) == ("trip", "museum")
    assert found.id == f"{about['document_id']}:1:2"
    assert about["score"] > 0
    assert "words #1" in about["why"]


def test_a_retriever_can_be_narrowed_for_all_calls_and_for_one(memory):
    """By scope, source and metadata, as any search; a call's own words come first."""
    memory.add("Tea in Lisbon.", scope="user/ann", source="a.md", metadata={"year": 2019})
    memory.add("Tea in Porto.", scope="user/ann/session/7", source="b.md", metadata={"year": 2021})
    memory.add("Tea in Genoa.", scope="user/bob", source="c.md", metadata={"year": 2021})

    def found(retriever, **options):
        return {d.page_content for d in retriever.invoke("tea", **options)}

    ann = CMTRetriever(memory=memory, scope="user/ann")
    assert found(ann) == {"Tea in Lisbon.", "Tea in Porto."}
    assert found(ann, where={"year": {">=": 2020}}) == {"Tea in Porto."}
    assert found(ann, scope="user/bob") == {"Tea in Genoa."}
    assert found(CMTRetriever(memory=memory, source="c.md")) == {"Tea in Genoa."}
    assert found(CMTRetriever(memory=memory), mode="text", k=1) <= {
        "Tea in Lisbon.",
        "Tea in Porto.",
        "Tea in Genoa.",
    }


def test_a_misspelt_option_is_an_error(memory):
    """Not a search without it: a filter that is passed over would show what it should hide."""
    memory.add("Tea.")
    with pytest.raises(TypeError, match="filters"):
        CMTRetriever(memory=memory).invoke("tea", filters={"year": 2019})
    with pytest.raises(TypeError, match="filters"):
        CMTVectorStore(memory).similarity_search("tea", filters={"year": 2019})


async def test_many_tasks_retrieve_together(memory):
    """Searches run in threads, and find the same."""
    memory.add_many(FACTS)
    retriever = CMTRetriever(memory=memory, k=1)
    found = await retriever.abatch(["museum Lisbon", "harbour Genoa", "green tea"] * 5)
    assert [d.page_content for (d,) in found] == FACTS * 5


# -- the vector store: searching


def test_a_foreign_embedder_decides_what_is_near(colours):
    """No word is shared with the question; the score is the cosine."""
    (best, score), *_ = colours.similarity_search_with_score("greenish", k=3)
    assert best == Document("A green tea.", id="g", metadata={"n": 1})
    assert score == pytest.approx(1.0, abs=1e-6)
    vector = [0.0, 0.0, 7.0]
    assert [d.id for d in colours.similarity_search_by_vector(vector, k=1)] == ["b"]


def test_relevance_lies_between_0_and_1(tmp_path):
    """Cosines below 0 are no relevance; a threshold cuts."""
    embeddings = DeterministicFakeEmbedding(size=2)
    with open_fake(tmp_path, embedder=CMTEmbedder(embeddings)) as memory:
        store = CMTVectorStore(memory, embedding=embeddings)
        store.add_texts([f"text {n}" for n in range(20)])
        scores = [s for _, s in store.similarity_search_with_score("text 3", k=20)]
        assert min(scores) < 0 < max(scores)
        relevance = [s for _, s in store.similarity_search_with_relevance_scores("text 3", k=20)]
        assert relevance == [max(0.0, s) for s in scores]
        above = store.as_retriever(
            search_type="similarity_score_threshold",
            search_kwargs={"score_threshold": 0.99, "k": 20},
        )
        assert above.invoke("text 3")[0].page_content == "text 3"
        assert len(above.invoke("text 3")) == sum(s >= 0.99 for s in relevance)


def test_a_store_can_look_by_words_too(tmp_path):
    """With mode="fused", what the embedder cannot tell apart is found by its words; the scores stay
    cosines.
    """
    with open_fake(tmp_path, embedder=CMTEmbedder(Colours())) as memory:
        store = CMTVectorStore(memory, mode="fused")
        store.add_texts(["The yellow room.", "The yellow hall."])
        assert store.similarity_search("hall", k=1)[0].page_content == "The yellow hall."
        assert (
            store.similarity_search_with_score("hall", k=1)[0][0].page_content == "The yellow room."
        )
        assert store.similarity_search_with_score("hall", k=1)[0][1] == pytest.approx(1.0, abs=1e-6)


def test_filters_scopes_and_sources_narrow_every_search(colours):
    """The filter is the memory's, with its operators; also for vectors and for diversity."""
    colours.add_texts(["A red car."], [{"n": 9, "source": "cars.md"}])
    narrowed = {"filter": {"n": {">": 0}}, "source": "cars.*"}
    searches = [
        colours.similarity_search("red", **narrowed),
        [d for d, _ in colours.similarity_search_with_score("red", **narrowed)],
        [d for d, _ in colours.similarity_search_with_relevance_scores("red", **narrowed)],
        colours.similarity_search_by_vector([1, 0, 0], **narrowed),
        colours.max_marginal_relevance_search("red", **narrowed),
        colours.max_marginal_relevance_search_by_vector([1, 0, 0], **narrowed),
        colours.as_retriever(search_kwargs=narrowed).invoke("red"),
    ]
    assert [[d.page_content for d in found] for found in searches] == [["A red car."]] * 7
    assert colours.similarity_search("red", scope="elsewhere") == []
    with pytest.raises(InvalidFilter, match="'\\$gt'"):
        colours.similarity_search("red", filter={"n": {"$gt": 0}})


def test_diversity_chooses_as_langchain_does(tmp_path):
    """Maximal marginal relevance, for every weight, against LangChain's own."""
    embeddings = DeterministicFakeEmbedding(size=6)
    texts = [f"text {n}" for n in range(30)]
    with open_fake(tmp_path, embedder=CMTEmbedder(embeddings)) as memory:
        store = CMTVectorStore(memory, embedding=embeddings)
        store.add_texts(texts)
        near = [d.page_content for d in store.similarity_search("a question", k=12)]
        rows, query = (
            embeddings.embed_documents(near),
            np.array(embeddings.embed_query("a question")),
        )
        for weight in (0.0, 0.3, 0.5, 0.9, 1.0):
            found = store.max_marginal_relevance_search(
                "a question", k=5, fetch_k=12, lambda_mult=weight
            )
            chosen = maximal_marginal_relevance(query, rows, lambda_mult=weight, k=5)
            assert [d.page_content for d in found] == [near[n] for n in chosen]


def test_diversity_prefers_what_was_not_said(colours):
    """Of two texts alike the second one waits; an empty store gives nothing."""
    colours.add_texts(["Another red wine.", "A red and blue flag."])
    near = [d.page_content for d in colours.similarity_search("red", k=2)]
    assert sorted(near) == ["A red wine.", "Another red wine."]
    diverse = colours.max_marginal_relevance_search("red", k=2, lambda_mult=0.3)
    assert len({d.page_content for d in diverse} & set(near)) == 1
    colours.delete()
    assert colours.max_marginal_relevance_search("red") == []


def test_a_long_document_comes_back_once_and_whole(memory):
    """Though several of its passages fit better than any other document."""
    store = CMTVectorStore(memory)
    book = long_text(*["museum"] * 30)
    store.add_texts([book, "A small museum of tea.", "Tea."], ids=["book", "small", "tea"])
    assert len(memory.passages("book")) == 30
    found = store.similarity_search("museum", k=2)
    assert {d.id for d in found} == {"book", "small"}
    assert next(d for d in found if d.id == "book").page_content == book
    assert len(store.max_marginal_relevance_search("museum", k=3)) == 3


# -- the vector store: adding, replacing, deleting


def test_metadata_of_any_shape_comes_back(memory):
    """What is no plain value too; what is plain can be filtered by, and the source is the
    document's own.
    """
    store = CMTVectorStore(memory)
    metadata = {
        "source": "a.pdf",
        "page": 1,
        "none": None,
        "loc": {"lines": [1, 2]},
        "langchain": "own",
        "ok": True,
    }
    store.add_documents([Document("Tea.", id="1", metadata=metadata)])
    assert store.get_by_ids(["1"]) == [Document("Tea.", id="1", metadata=metadata)]
    assert store.similarity_search("tea", filter={"page": 1, "ok": True})[0].metadata == metadata
    assert memory.get("1").source == "a.pdf"
    assert str(memory.model.ask("Tea?").sources[0]) == "a.pdf[0:4]"


def test_metadata_that_is_no_json_is_refused_before_anything_is_stored(memory):
    """The error names the field."""
    store = CMTVectorStore(memory)
    with pytest.raises(InvalidDocument, match=r"metadata \['when'\] is not JSON"):
        store.add_texts(["Tea.", "Cake."], [{}, {"when": object()}])
    assert memory.count() == 0


def test_texts_need_as_many_ids_and_metadatas(memory):
    """No text is left out without a word."""
    store = CMTVectorStore(memory)
    with pytest.raises(ValueError, match="2 texts and 1 ids: give one for each text, or none"):
        store.add_texts(["Tea.", "Cake."], ids=["1"])
    with pytest.raises(InvalidInput, match="1 texts and 2 metadatas"):
        store.add_texts(iter(["Tea."]), [{}, {}])
    assert store.add_texts([]) == []


def test_one_text_in_two_places_is_two_documents(memory):
    """Without ids too, as in any vector store; of one id given twice the last text stays."""
    store = CMTVectorStore(memory)
    ids = store.add_texts(["Tea.", "Tea."], [{"page": 1}, {"page": 2}])
    assert [d.metadata["page"] for d in store.get_by_ids(ids)] == [1, 2]
    assert store.add_texts(["Cake.", "Pie."], ids=["x", "x"]) == ["x", "x"]
    assert [d.page_content for d in store.get_by_ids(["x", "x"])] == ["Pie."]


def test_replacing_keeps_a_history_and_the_same_again_does_not(memory):
    """A new text under an id is its next version; metadata alone change in place."""
    store = CMTVectorStore(memory)
    store.add_texts(["Tea."], [{"n": 1, "source": "a.md"}], ids=["1"])
    store.add_texts(["Tea."], [{"n": 2}], ids=["1"])
    assert [d.version for d in memory.history("1")] == [1]
    assert store.get_by_ids(["1"])[0].metadata == {"n": 2, "source": "a.md"}
    store.add_texts(["Cake."], ids=["1"])
    assert [d.text for d in memory.history("1")] == ["Tea.", "Cake."]
    assert store.get_by_ids(["1"]) == [Document("Cake.", id="1", metadata={"source": "a.md"})]


def test_ids_of_two_scopes_do_not_meet(memory):
    """The same id in two scopes is two documents; neither store sees, replaces or deletes the
    other's.
    """
    ann, bob = CMTVectorStore(memory, scope="user/ann"), CMTVectorStore(memory, scope="user/bob")
    ann.add_texts(["Ann's tea."], ids=["1"])
    bob.add_texts(["Bob's tea."], ids=["1"])
    assert [d.page_content for d in ann.get_by_ids(["1"])] == ["Ann's tea."]
    assert [(d.id, d.page_content) for d in bob.similarity_search("tea")] == [("1", "Bob's tea.")]
    assert bob.get_by_ids(["user/ann/1"]) == []
    ann.delete(["1", "user/bob/1"])
    assert [d.page_content for d in bob.get_by_ids(["1"])] == ["Bob's tea."]
    assert CMTVectorStore(memory).get_by_ids(["user/bob/1"])[0].page_content == "Bob's tea."
    assert CMTVectorStore(memory, scope="user/an").similarity_search("tea") == []


def test_what_came_another_way_is_there_too(memory):
    """A document of `Memory.add` is found, replaced and deleted by its own id."""
    stored = memory.add("Ann likes tea.", id="note", scope="user/ann/session/7", source="chat")
    store = CMTVectorStore(memory, scope="user/ann")
    assert store.similarity_search("tea") == [
        Document("Ann likes tea.", id="note", metadata={"source": "chat"})
    ]
    store.add_texts(["Ann likes cake."], ids=["note"])
    assert memory.get(stored.id).text == "Ann likes cake."
    assert memory.get(stored.id).scope == "user/ann/session/7"
    store.delete(["note"])
    assert memory.count() == 0


def test_deleting_without_ids_empties_the_scope(memory):
    """And nothing else."""
    memory.add("Bob's tea.", scope="user/bob")
    store = CMTVectorStore(memory, scope="user/ann")
    store.add_texts(["Tea.", "Cake."])
    assert store.delete()
    assert [d.text for d in memory.documents()] == ["Bob's tea."]


def test_an_index_run_keeps_a_store_in_step(memory):
    """LangChain's indexing adds what is new, skips what it knows and deletes what has gone."""
    records, store = InMemoryRecordManager("notes"), CMTVectorStore(memory, scope="docs")
    records.create_schema()

    def run(*texts):
        documents = [Document(text, metadata={"source": "a.md"}) for text in texts]
        done = index(documents, records, store, cleanup="full", key_encoder="sha256")
        return done["num_added"], done["num_skipped"], done["num_deleted"]

    assert run("Tea.", "Cake.") == (2, 0, 0)
    assert run("Tea.", "Pie.") == (1, 1, 1)
    assert {d.text for d in memory.documents(scope="docs")} == {"Tea.", "Pie."}


def test_without_waiting_texts_are_found_by_words_at_once(memory):
    """Compression follows in the background, also of what is replaced."""
    store = CMTVectorStore(memory, mode="text", wait=False)
    store.add_texts(["Green tea."], ids=["1"])
    store.add_texts(["Green cake."], ids=["1"])
    assert store.similarity_search("green")[0].page_content == "Green cake."
    assert memory.wait(20)
    assert CMTVectorStore(memory).similarity_search("cake")[0].page_content == "Green cake."


def test_many_threads_add_to_one_store(memory):
    """No document is lost."""
    store = CMTVectorStore(memory, scope="docs")

    def add(n):
        store.add_texts([f"Text {n}.{m}." for m in range(5)], ids=[f"{n}.{m}" for m in range(5)])

    threads = [threading.Thread(target=add, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {d.id for d in store.similarity_search("text", k=99)} == {
        f"{n}.{m}" for n in range(6) for m in range(5)
    }


# -- opening


def test_a_store_made_from_texts_opens_the_folder_with_the_embedder(tmp_path, monkeypatch):
    """The vectors are the embedder's, in every process: another embedder is refused by name."""
    monkeypatch.setattr(cmt_sdk, "open", open_fake)
    store = CMTVectorStore.from_texts(
        ["A red wine.", "A green tea."], Colours(), [{"n": 1}, {"n": 2}], path=tmp_path / "n"
    )
    assert store.similarity_search("greenish", k=1)[0].metadata == {"n": 2}
    assert store.embeddings == Colours()
    store.memory.close()
    other = Colours(model="colours-4")
    with pytest.raises(ModelMismatch, match="matcher"):
        CMTVectorStore.from_texts(["A blue sea."], other, path=tmp_path / "n")


async def test_a_store_made_from_documents_takes_an_open_memory(memory):
    """With its own vectors, scope and ids; without memory and path the error says what to give."""
    documents = [Document("Tea.", id="1"), Document("Cake.", id="2", metadata={"n": 1})]
    store = CMTVectorStore.from_documents(documents, None, memory=memory, scope="docs")
    assert store.get_by_ids(["1", "2"]) == documents
    assert store.embeddings is None
    again = await CMTVectorStore.afrom_documents(documents, None, memory=memory, scope="docs")
    assert again.get_by_ids(["2"]) == documents[1:]
    with pytest.raises(InvalidInput, match="memory=, an open memory, or path="):
        CMTVectorStore.from_texts(["Tea."])


def test_what_was_opened_is_closed_where_adding_fails(tmp_path, monkeypatch):
    """An error leaves no memory open."""
    opened = []
    monkeypatch.setattr(
        cmt_sdk, "open", lambda *a, **o: opened.append(open_fake(*a, **o)) or opened[0]
    )
    with pytest.raises(InvalidDocument):
        CMTVectorStore.from_texts([" "], path=tmp_path / "n")
    assert opened[0]._closed.is_set()


def test_an_embedder_is_named_by_what_changes_its_vectors():
    """Class and model; or as the caller says."""
    assert CMTEmbedder(Colours()).name == "Colours:colours-3"
    assert CMTEmbedder(DeterministicFakeEmbedding(size=6)).name == "DeterministicFakeEmbedding"
    assert CMTEmbedder(Colours(), "mine").name == "mine"


# -- the document store


def test_documents_and_vectors_are_two_views_of_one_scope(memory):
    """What one store adds the other finds by the same id, and the memory answers from it."""
    documents, vectors = (
        CMTDocumentStore(memory, scope="docs"),
        CMTVectorStore(memory, scope="docs"),
    )
    documents.mset([("a/1", Document("The museum moved to Lisbon.", metadata={"source": "a.md"}))])
    assert vectors.similarity_search("museum")[0].id == "a/1"
    vectors.add_texts(["Tea."], ids=["b"])
    assert list(documents.yield_keys()) == ["a/1", "b"]
    assert list(documents.yield_keys(prefix="a/")) == ["a/1"]
    assert (
        memory.model.ask("Where is the museum?", scope="docs").text == "The museum moved to Lisbon."
    )


def test_metadata_are_stored_as_json_and_nothing_else(memory):
    """What is no plain value is readable by anyone: no pickle."""
    CMTDocumentStore(memory).mset([("1", Document("Tea.", metadata={"tags": ["a", "b"]}))])
    assert json.loads(memory.get("1").metadata["langchain"]) == {"tags": ["a", "b"]}


def test_an_empty_key_is_refused(memory):
    """It stands for no document; nothing is stored."""
    store = CMTDocumentStore(memory)
    with pytest.raises(InvalidDocument, match=r"the key of 'Tea\.' is empty"):
        store.mset([("1", Document("Cake.")), ("", Document("Tea."))])
    assert store.mget(["", "1"]) == [None, None]


@pytest.mark.parametrize("name", ["langchain", "langchain_agent"])
def test_without_langchain_the_error_is_its_install_line(monkeypatch, name):
    """Importing an adapter where LangChain is missing says what to install."""
    real = builtins.__import__

    def hidden(wanted, *rest, **options):
        if wanted.startswith(("langchain_core", "langchain.")):
            raise ImportError(wanted)
        return real(wanted, *rest, **options)

    monkeypatch.delitem(sys.modules, f"cmt_adapters.{name}", raising=False)
    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(MissingExtra, match=r"pip install 'cmt-sdk\[langchain\]'"):
        importlib.import_module(f"cmt_adapters.{name}")
