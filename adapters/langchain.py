"""LangChain: a memory as retriever, vector store and document store.

For agents, tools and the chat model see langchain_agent.py.

    notes = cmt_sdk.open("notes")
    retriever = CMTRetriever(memory=notes, k=5, scope="user/ann", where={"year": {">=": 2020}})
    retriever.invoke("Where does Ann live?", k=2)[0].metadata["source"]
    store = CMTVectorStore(notes, scope="user/ann")
    store.add_texts(["Ann moved to Lisbon."], [{"year": 2019}], ids=["move"])
    store.similarity_search("Where does Ann live?", k=2, filter={"year": {">=": 2020}})
    cmt_sdk.open("others", embedder=CMTEmbedder(OpenAIEmbeddings()))  # vectors of another model

A retriever returns passages with their positions; the stores return documents as they were added.
Metadata values that are not plain are stored as JSON in one field: they are returned, but filters
cannot use them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from numpy.typing import ArrayLike

import cmt_sdk
from cmt_adapters.diversity import maximal_marginal_relevance, normalized
from cmt_adapters.langchain_documents import ScopedStore, metadata_of, passage_document
from cmt_adapters.langchain_options import reject_unknown
from cmt_sdk.errors import InvalidInput
from cmt_sdk.system.extras import unusable

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.stores import BaseStore
    from langchain_core.vectorstores import VectorStore
    from pydantic import Field
except ImportError as error:
    raise unusable("the LangChain retriever and stores", "langchain", error) from error

# options of a search besides query and k
FILTER_OPTIONS = ("filter", "scope", "source", "score_threshold")
NAME_FIELDS = (
    "model",
    "model_name",
    "dimensions",
)  # fields of Embeddings that change their vectors
Store = TypeVar("Store", bound="CMTVectorStore")


class CMTEmbedder:
    """LangChain Embeddings as an embedder for `cmt_sdk.open(embedder=...)`.

    Args:
        embeddings: The LangChain Embeddings.
        name: Distinguishes them from other embedders, whose vectors are not comparable; the default
            is the class with its model.
    """

    def __init__(self, embeddings: Embeddings, name: str = "") -> None:
        found = [getattr(embeddings, field, None) for field in NAME_FIELDS]
        details = [str(value) for value in found if isinstance(value, str | int)]
        self.name = name or ":".join([type(embeddings).__name__, *details])
        self._embeddings = embeddings

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text."""
        return self._embeddings.embed_documents(list(texts))

    def embed_query(self, text: str) -> list[float]:
        """Return the question's vector, in the same space."""
        return self._embeddings.embed_query(text)


class CMTRetriever(BaseRetriever):
    """Retrieves the k passages of a memory that match a query, best first.

    Every field except `memory` can also be given to one call. The metadata of a passage are those
    of its document, its source if it has one, and scope, document_id, start and end (characters),
    score and why.
    """

    memory: Any = Field(
        exclude=True,
        repr=False,
        description="The memory of cmt_sdk.open; it stays the caller's to close.",
    )
    k: int = Field(default=5, description="Passages to return.")
    mode: str = Field(
        default="fused", description="As in Memory.search: fused, vector, text or reranked."
    )
    scope: str | None = Field(default=None, description="Scope to search; None: all scopes.")
    source: str | None = Field(
        default=None, description="Source to search; * is a wildcard; None: all sources."
    )
    where: Mapping[str, Any] | None = Field(
        default=None, description="A filter on metadata, as in Memory.search."
    )

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - the search has no steps to report
        **options: Any,
    ) -> list[Document]:
        given = {name: getattr(self, name) for name in ("k", "mode", "scope", "source", "where")}
        reject_unknown("CMTRetriever.invoke", options, given)
        matches = self.memory.search(query, **(given | options))
        return [passage_document(match) for match in matches]


class CMTVectorStore(VectorStore):
    """The documents in one scope of a memory. The caller closes the memory.

    Searches accept `filter` (the memory's filter on metadata), `source`, `scope` instead of the
    store's, and `score_threshold` (the minimum cosine). A long document is found by its best
    passage and returned in full.

    Args:
        memory: An open memory.
        scope: The scope of the documents.
        mode: How `similarity_search` searches: "vector" by meaning, or another mode of
            `Memory.search`. Searches with scores always use "vector": the score is a cosine.
        embedding: The LangChain Embeddings that the memory was opened with, if any.
        wait: False compresses documents in the background: they are found by words at once, and by
            meaning a little later.
    """

    def __init__(
        self,
        memory: cmt_sdk.Memory,
        *,
        scope: str = "",
        mode: str = "vector",
        embedding: Embeddings | None = None,
        wait: bool = True,
    ) -> None:
        self.memory = memory
        self._store = ScopedStore(memory, scope.strip("/"), wait)
        self._mode: Any = mode
        self._embedding = embedding

    @property
    def embeddings(self) -> Embeddings | None:
        """Return the LangChain Embeddings of the store; None if the memory's model embeds."""
        return self._embedding

    @classmethod
    def from_texts(
        cls: type[Store],
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        memory: cmt_sdk.Memory | None = None,
        path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Store:
        """Create a store and add texts to it.

        Args:
            texts: The texts to add.
            embedding: Embeddings for a memory that is opened here; an open memory keeps its own.
            metadatas: Metadata, one per text.
            ids: Ids, one per text.
            memory: An open memory.
            path: The folder of a memory to open; close it with `store.memory.close()`.
            **options: As for the constructor.

        Raises:
            InvalidInput: Neither `memory` nor `path` is given. Also raises what `cmt_sdk.open`
                raises.
        """
        with ExitStack() as stack:
            if memory is None:
                if path is None:
                    raise InvalidInput(
                        "from_texts() needs memory=, an open memory, or path=, the folder of one"
                    )
                embedder = CMTEmbedder(embedding) if embedding is not None else None
                opened = cmt_sdk.open(path, embedder=embedder)
                memory = stack.enter_context(opened)
            store = cls(memory, embedding=embedding, **options)
            store.add_texts(texts, metadatas, ids=ids)
            stack.pop_all()
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,  # noqa: ARG002 - options of other stores
    ) -> list[str]:
        """Add texts, or replace the documents with these ids.

        Of several texts with one id, the last counts.

        Args:
            texts: The texts.
            metadatas: Metadata, one per text.
            ids: Ids, one per text; a missing id is generated.
            **kwargs: Ignored.

        Returns:
            The ids.

        Raises:
            InvalidInput: The lists have different lengths.
            InvalidDocument: A text or its metadata cannot be stored.
        """
        texts = list(texts)
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given and len(given) != len(texts):
                raise InvalidInput(
                    f"{len(texts)} texts and {len(given)} {name}: give one for each text, or none"
                )
        names = [name or str(uuid.uuid4()) for name in ids or [None] * len(texts)]
        contents = zip(texts, metadatas or [{}] * len(texts), strict=True)
        self._store.put(
            {
                name: Document(text, metadata=metadata)
                for name, (text, metadata) in zip(names, contents, strict=True)
            }
        )
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:  # noqa: ARG002 - options of other stores
        """Delete the documents with these ids, or all of the scope; unknown ids are skipped.

        Traces of a deleted document may remain in the files; `memory.forget(...)` erases them.
        """
        self._store.delete(list(self._store.ids()) if ids is None else ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, in order, each once; unknown ids are skipped."""
        found = [self._store.find(name) for name in dict.fromkeys(ids)]
        return [self._document(document) for document in found if document]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the k best documents."""
        found = self._search("similarity_search", query, k, self._mode, kwargs)
        return [self._document(match.document) for match in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the k documents nearest in meaning, with the cosine in [-1, 1]."""
        found = self._search("similarity_search_with_score", query, k, "vector", kwargs)
        return [(self._document(match.document), match.vector_score or 0.0) for match in found]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(max(cosine, 0.0), 1.0)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Return the k documents nearest to a vector of the memory's embedder.

        `memory.model.embed` makes such vectors.
        """
        found = self._nearest("similarity_search_by_vector", embedding, k, kwargs)
        return [self._document(match.document) for match in found]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Return k diverse documents of the `fetch_k` nearest in meaning.

        A smaller `lambda_mult`, in [0, 1], gives more weight to diversity.
        """
        (vector,) = self.memory.model.embed([query])
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Return k diverse documents of the `fetch_k` nearest to a vector.

        Reads all embeddings that match the filter; use a narrow filter for a large memory.
        """
        call = "max_marginal_relevance_search"
        found = self._nearest(call, embedding, fetch_k, kwargs)
        embeddings = self.memory.embeddings(**self._filter(call, kwargs))
        rows = dict(zip(embeddings.passage_ids, embeddings.matrix, strict=True))
        found = [match for match in found if match.passage.id in rows]  # others were just deleted
        order = maximal_marginal_relevance(
            normalized(embedding), [rows[match.passage.id] for match in found], k, lambda_mult
        )
        return [self._document(found[n].document) for n in order]

    def _search(
        self, call: str, query: str, k: int, mode: Any, given: Mapping[str, Any]
    ) -> list[cmt_sdk.Match]:
        filters = self._filter(call, given)
        found = self.memory.search(query, k, mode=mode, per_document=True, **filters)
        return _above_threshold(found, given)

    def _nearest(
        self, call: str, embedding: ArrayLike, k: int, given: Mapping[str, Any]
    ) -> list[cmt_sdk.Match]:
        filters = self._filter(call, given)
        found = self.memory.nearest(normalized(embedding), k, per_document=True, **filters)
        return _above_threshold(found, given)

    def _filter(self, call: str, given: Mapping[str, Any]) -> dict[str, Any]:
        reject_unknown(f"CMTVectorStore.{call}", given, FILTER_OPTIONS)
        scope = given.get("scope") or self._store.scope or None
        return {"scope": scope, "source": given.get("source"), "where": given.get("filter")}

    def _document(self, document: cmt_sdk.Document) -> Document:
        return Document(
            document.text, id=self._store.id_of(document), metadata=metadata_of(document)
        )


class CMTDocumentStore(BaseStore[str, Document]):
    """The documents in one scope of a memory by id, for a parent-document retriever.

    It has the same documents under the same ids as a CMTVectorStore. Returned documents have no id:
    the key is the id.
    """

    def __init__(self, memory: cmt_sdk.Memory, *, scope: str = "", wait: bool = True) -> None:
        self._store = ScopedStore(memory, scope.strip("/"), wait)

    def mget(self, keys: Sequence[str]) -> list[Document | None]:
        """Return the documents with these keys, in order; None for unknown keys."""
        found = [self._store.find(key) for key in keys]
        return [None if d is None else Document(d.text, metadata=metadata_of(d)) for d in found]

    def mset(self, key_value_pairs: Sequence[tuple[str, Document]]) -> None:
        """Add documents, or replace those with these keys.

        Raises:
            InvalidDocument: A document cannot be stored, or a key is empty.
        """
        self._store.put(dict(key_value_pairs))

    def mdelete(self, keys: Sequence[str]) -> None:
        """Delete documents; unknown keys are skipped."""
        self._store.delete(keys)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield the keys that begin with `prefix`."""
        yield from (key for key in self._store.ids() if key.startswith(prefix or ""))


def _above_threshold(
    matches: Sequence[cmt_sdk.Match], given: Mapping[str, Any]
) -> list[cmt_sdk.Match]:
    """Return the matches with at least the cosine `score_threshold`, if that is given."""
    least = given.get("score_threshold")
    return [
        m
        for m in matches
        if least is None or (m.vector_score is not None and m.vector_score >= least)
    ]
