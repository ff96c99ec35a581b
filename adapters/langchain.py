"""LangChain: a memory as retriever, vector store and document store. Knows no language model; see
langchain_agent.py for those.

    notes = cmt_sdk.open("notes")
    retriever = CMTRetriever(memory=notes, k=5, scope="user/ann", where={"year": {">=": 2020}})
    retriever.invoke("Where does Ann live?", k=2)[0].metadata["source"]
    store = CMTVectorStore(notes, scope="user/ann")
    store.add_texts(["Ann moved to Lisbon."], [{"year": 2019}], ids=["move"])
    store.similarity_search("Where does Ann live?", k=2, filter={"year": {">=": 2020}})
    cmt_sdk.open("others", embedder=CMTEmbedder(OpenAIEmbeddings()))  # vectors of another model

A retriever gives passages, with their places; the stores give documents as they were added.
Metadata that is no plain value is kept as JSON in one field: it comes back, and cannot be filtered
by.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

import cmt_sdk
from cmt_adapters.langchain_options import refuse_unknown
from cmt_sdk.errors import DocumentNotFound, InvalidDocument, InvalidInput
from cmt_sdk.extras import unusable

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

NESTED = "langchain"  # the metadata field with what is no plain value
# what a search takes besides query and k
NARROWING = ("filter", "scope", "source", "score_threshold")
NAMING = ("model", "model_name", "dimensions")  # fields of Embeddings that change their vectors
Store = TypeVar("Store", bound="CMTVectorStore")


class CMTEmbedder:
    """Embeddings of LangChain as `cmt_sdk.open(embedder=...)` wants them.

    `name` tells them from others, whose vectors cannot be compared with theirs; where it is not
    given, it is class and model.
    """

    def __init__(self, embeddings: Embeddings, name: str = "") -> None:
        found = [getattr(embeddings, field, None) for field in NAMING]
        about = [str(value) for value in found if isinstance(value, str | int)]
        self.name = name or ":".join([type(embeddings).__name__, *about])
        self._embeddings = embeddings

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text."""
        return self._embeddings.embed_documents(list(texts))

    def embed_query(self, text: str) -> list[float]:
        """The question's vector in the same space."""
        return self._embeddings.embed_query(text)


class CMTRetriever(BaseRetriever):
    """The k passages of a memory that fit a query, best first; every field but `memory` can be
    given for one call too.

    Their metadata are the document's own, with its source where it has one, and scope, document_id,
    start and end (characters), score and why.
    """

    memory: Any = Field(
        exclude=True,
        repr=False,
        description="The memory of cmt_sdk.open; it stays the caller's to close.",
    )
    k: int = Field(default=5, description="Passages that come back.")
    mode: str = Field(
        default="fused", description="As for Memory.search: fused, vector, text or reranked."
    )
    scope: str | None = Field(default=None, description="Where to look; None: everywhere.")
    source: str | None = Field(
        default=None, description="Of which source; it may hold the wildcard *."
    )
    where: Mapping[str, Any] | None = Field(
        default=None, description="A filter on metadata, as for Memory.search."
    )

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - searching calls nothing that reports
        **options: Any,
    ) -> list[Document]:
        given = {name: getattr(self, name) for name in ("k", "mode", "scope", "source", "where")}
        refuse_unknown("CMTRetriever.invoke", options, given)
        return [_passage(match) for match in self.memory.search(query, **(given | options))]


class CMTVectorStore(VectorStore):
    """The documents in one scope of a memory; the memory stays the caller's to close.

    `mode` is how `similarity_search` looks: "vector" by meaning alone, or another one of
    `Memory.search`. A score is a cosine, so what gives scores always looks by meaning. Searches
    take `filter`, the memory's filter on metadata, `source`, `scope` in place of the store's own,
    and `score_threshold`, the least cosine. A long document is found by its best passage, and comes
    back whole. With `wait=False` documents are compressed in the background: they are found by
    meaning a little later, by words at once.
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
        self._shelf = _Shelf(memory, scope.strip("/"), wait)
        self._mode: Any = mode
        self._embedding = embedding

    @property
    def embeddings(self) -> Embeddings | None:
        """The Embeddings that the store was made with; None where the memory's own model makes the
        vectors.
        """
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
        """A store with these texts, in an open `memory` or in the one in folder `path`, which is
        opened with `embedding`.

        What is opened here is closed by `store.memory.close()`. An open memory makes its vectors as
        it did before. `options` are those of the constructor. Raises InvalidInput without memory
        and path, and what `cmt_sdk.open` raises.
        """
        with ExitStack() as stack:
            if memory is None:
                if path is None:
                    raise InvalidInput(
                        "from_texts() needs memory=, an open memory, or path=, the folder of one"
                    )
                embedder = CMTEmbedder(embedding) if embedding is not None else None
                memory = stack.enter_context(cmt_sdk.open(path, embedder=embedder))
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
        **kwargs: Any,  # noqa: ARG002 - what other stores are told
    ) -> list[str]:
        """Add texts, or replace those that have these ids here; returns the ids, made up where they
        are missing.

        Of several texts with one id the last stays. Raises InvalidInput for lists of different
        lengths, InvalidDocument.
        """
        texts = list(texts)
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given and len(given) != len(texts):
                raise InvalidInput(
                    f"{len(texts)} texts and {len(given)} {name}: give one for each text, or none"
                )
        names = [name or str(uuid.uuid4()) for name in ids or [None] * len(texts)]
        contents = zip(texts, metadatas or [{}] * len(texts), strict=True)
        self._shelf.put(
            {
                name: Document(text, metadata=about)
                for name, (text, about) in zip(names, contents, strict=True)
            }
        )
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:  # noqa: ARG002 - what other stores are told
        """Take out the documents with these ids, or, with None, all of the scope; unknown ids are
        passed over.

        Words of them may stay in the files until something is forgotten: `memory.forget(...)`
        erases.
        """
        self._shelf.delete(list(self._shelf.ids()) if ids is None else ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in their order, each once; unknown ids are passed over."""
        found = [self._shelf.find(name) for name in dict.fromkeys(ids)]
        return [self._document(document) for document in found if document]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k documents that fit best."""
        found = self._search("similarity_search", query, k, self._mode, kwargs)
        return [self._document(match.document) for match in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The k documents nearest in meaning, with the cosine, from -1 to 1."""
        found = self._search("similarity_search_with_score", query, k, "vector", kwargs)
        return [(self._document(match.document), match.vector_score or 0.0) for match in found]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(max(cosine, 0.0), 1.0)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """The k documents nearest to a vector of the memory's embedder, or of
        `memory.model.embed`.
        """
        found = self._nearest("similarity_search_by_vector", embedding, k, kwargs)
        return [self._document(match.document) for match in found]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Of the `fetch_k` documents nearest in meaning k that are, the more the smaller
        `lambda_mult`, unlike each other.
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
        """The same for a vector. All embeddings that the filter lets through are read: of a large
        memory, narrow it.
        """
        call = "max_marginal_relevance_search"
        found = self._nearest(call, embedding, fetch_k, kwargs)
        embeddings = self.memory.embeddings(**self._narrowed(call, kwargs))
        rows = dict(zip(embeddings.passages, embeddings.matrix, strict=True))
        found = [match for match in found if match.passage.id in rows]  # deleted in this moment
        order = _diverse(
            _unit(embedding), [rows[match.passage.id] for match in found], k, lambda_mult
        )
        return [self._document(found[n].document) for n in order]

    def _search(
        self, call: str, query: str, k: int, mode: Any, given: Mapping[str, Any]
    ) -> list[cmt_sdk.Match]:
        narrowed = self._narrowed(call, given)
        found = self.memory.search(query, k, mode=mode, per_document=True, **narrowed)
        return _near(found, given)

    def _nearest(
        self, call: str, embedding: ArrayLike, k: int, given: Mapping[str, Any]
    ) -> list[cmt_sdk.Match]:
        vector, narrowed = _unit(embedding), self._narrowed(call, given)
        found = self.memory.nearest(vector, k, per_document=True, **narrowed)
        return _near(found, given)

    def _narrowed(self, call: str, given: Mapping[str, Any]) -> dict[str, Any]:
        refuse_unknown(f"CMTVectorStore.{call}", given, NARROWING)
        scope = given.get("scope") or self._shelf.scope or None
        return {"scope": scope, "source": given.get("source"), "where": given.get("filter")}

    def _document(self, document: cmt_sdk.Document) -> Document:
        return Document(document.text, id=self._shelf.id_of(document), metadata=_metadata(document))


class CMTDocumentStore(BaseStore[str, Document]):
    """The documents in one scope of a memory by their ids, as a parent-document retriever wants
    them.

    It sees the same documents, by the same ids, as a CMTVectorStore. What comes back bears no id:
    the key is it.
    """

    def __init__(self, memory: cmt_sdk.Memory, *, scope: str = "", wait: bool = True) -> None:
        self._shelf = _Shelf(memory, scope.strip("/"), wait)

    def mget(self, keys: Sequence[str]) -> list[Document | None]:
        """The documents with these keys, in their order; None for unknown ones."""
        found = [self._shelf.find(key) for key in keys]
        return [None if d is None else Document(d.text, metadata=_metadata(d)) for d in found]

    def mset(self, key_value_pairs: Sequence[tuple[str, Document]]) -> None:
        """Add documents, or replace those with these keys. Raises InvalidDocument, also for an
        empty key.
        """
        self._shelf.put(dict(key_value_pairs))

    def mdelete(self, keys: Sequence[str]) -> None:
        """Take documents out; unknown keys are passed over."""
        self._shelf.delete(keys)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys that begin with `prefix`."""
        yield from (key for key in self._shelf.ids() if key.startswith(prefix or ""))


@dataclass(frozen=True)
class _Shelf:
    """The documents of a scope by LangChain's ids. An id in the memory is one document's of all, so
    there the scope leads it.
    """

    memory: cmt_sdk.Memory
    scope: str
    wait: bool

    def id_of(self, document: cmt_sdk.Document) -> str:
        """The document's id in this scope; one that came here another way keeps the one it has."""
        return document.id.removeprefix(f"{self.scope}/") if self.scope else document.id

    def ids(self) -> Iterator[str]:
        """All ids, in order of creation."""
        return map(self.id_of, self.memory.documents(scope=self.scope or None))

    def find(self, name: str) -> cmt_sdk.Document | None:
        """The document with an id, where there is one in this scope."""
        for whole in dict.fromkeys((self._whole(name), name)):
            with suppress(DocumentNotFound):
                document = self.memory.get(whole)
                if not self.scope or f"{document.scope}/".startswith(f"{self.scope}/"):
                    return document
        return None

    def put(self, documents: Mapping[str, Document]) -> None:
        """Add documents, or replace those that have these ids. Raises InvalidDocument."""
        made = {name: self._made(name, document) for name, document in documents.items()}
        new = []
        for name, document in made.items():
            old = self.find(name)
            if old is None:
                new.append(document)
                continue
            text = None if document.text == old.text else document.text
            source = document.source or old.source
            self.memory.update(
                old.id, text, metadata=document.metadata, source=source, wait=self.wait
            )
        self.memory.add_many(new, wait=self.wait)

    def delete(self, names: Iterable[str]) -> None:
        """Take out the documents with these ids, where they are there."""
        for name in names:
            if document := self.find(name):
                with suppress(DocumentNotFound):  # taken out by someone else in this moment
                    self.memory.delete(document.id)

    def _whole(self, name: str) -> str:
        return f"{self.scope}/{name}" if self.scope else name

    def _made(self, name: str, document: Document) -> cmt_sdk.Document:
        if not name:
            raise InvalidDocument(f"the key of {document.page_content!r:.60} is empty: give one")
        metadata = _packed(document.metadata)
        source = metadata.get("source")
        known = source if isinstance(source, str) and source else None
        return cmt_sdk.Document(
            document.page_content, self._whole(name), known, self.scope, metadata
        )


def _packed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as a memory holds it. Raises InvalidDocument for what is no JSON."""
    plain = {
        n: v
        for n, v in metadata.items()
        if n != NESTED and (v is None or isinstance(v, str | int | float))
    }
    nested = {name: value for name, value in metadata.items() if name not in plain}
    if not nested:
        return plain
    try:
        return {**plain, NESTED: json.dumps(nested)}
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDocument(
            f"metadata {sorted(map(str, nested))} are no JSON ({error}): give text, numbers, lists,"
            " dicts"
        ) from error


def _metadata(document: cmt_sdk.Document) -> dict[str, Any]:
    """Metadata as LangChain knows it: what was given, and the source."""
    metadata: dict[str, Any] = dict(document.metadata)
    nested: dict[str, Any] = json.loads(str(metadata.pop(NESTED, "{}")))
    return ({} if document.source is None else {"source": document.source}) | metadata | nested


def _passage(match: cmt_sdk.Match) -> Document:
    passage, document = match.passage, match.document
    place = {
        "scope": document.scope,
        "document_id": document.id,
        "start": passage.start,
        "end": passage.end,
    }
    metadata = {**_metadata(document), **place, "score": match.score, "why": match.why}
    return Document(
        passage.content, id=f"{document.id}:{passage.version}:{passage.ordinal}", metadata=metadata
    )


def _near(matches: Sequence[cmt_sdk.Match], given: Mapping[str, Any]) -> list[cmt_sdk.Match]:
    """Those with at least the cosine that a caller gives as `score_threshold`."""
    least = given.get("score_threshold")
    return [
        m
        for m in matches
        if least is None or (m.vector_score is not None and m.vector_score >= least)
    ]


def _unit(vector: ArrayLike) -> NDArray[np.float32]:
    """A vector of length 1, shape [dimension]."""
    row = np.asarray(vector, np.float32)
    unit: NDArray[np.float32] = row / max(float(np.linalg.norm(row)), 1e-12)
    return unit


def _diverse(
    query: NDArray[np.float32], rows: Sequence[NDArray[np.float32]], k: int, nearness: float
) -> list[int]:
    """The numbers of k rows by maximal marginal relevance (Carbonell and Goldstein 1998), each row
    of length 1.
    """
    chosen: list[int] = []
    if not rows:
        return chosen
    matrix = np.stack(rows)
    near, alike = matrix @ query, np.zeros(len(rows), np.float32)
    while len(chosen) < min(k, len(rows)):
        worth = nearness * near - (1 - nearness) * alike
        worth[chosen] = -np.inf
        chosen.append(int(worth.argmax()))
        latest = matrix @ matrix[chosen[-1]]
        alike = latest if len(chosen) == 1 else np.maximum(alike, latest)
    return chosen
