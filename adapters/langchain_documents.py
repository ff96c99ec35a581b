"""LangChain documents in a memory: conversion both ways, and access by LangChain's ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cmt_sdk
from cmt_adapters.matches import passage_key
from cmt_adapters.payload import dump_json
from cmt_sdk.errors import DocumentNotFound, InvalidDocument
from cmt_sdk.system.extras import unusable

try:
    from langchain_core.documents import Document
except ImportError as error:
    raise unusable("the LangChain retriever and stores", "langchain", error) from error

NESTED = "langchain"  # metadata field for values that are not plain


@dataclass(frozen=True)
class ScopedStore:
    """The documents of a scope by LangChain's ids.

    An id in a memory is unique across all scopes, so there the scope is put before LangChain's id.
    """

    memory: cmt_sdk.Memory
    scope: str
    wait: bool

    def id_of(self, document: cmt_sdk.Document) -> str:
        """Return the document's LangChain id.

        A document that was added in another way keeps its id.
        """
        return document.id.removeprefix(f"{self.scope}/") if self.scope else document.id

    def ids(self) -> Iterator[str]:
        """Return all ids, in order of creation."""
        return map(self.id_of, self.memory.documents(scope=self.scope or None))

    def find(self, name: str) -> cmt_sdk.Document | None:
        """Return the document with an id, or None if this scope has none."""
        for memory_id in dict.fromkeys((self._memory_id(name), name)):
            with suppress(DocumentNotFound):
                document = self.memory.get(memory_id)
                if not self.scope or f"{document.scope}/".startswith(f"{self.scope}/"):
                    return document
        return None

    def put(self, documents: Mapping[str, Document]) -> None:
        """Add documents, or replace those with these ids. Raises InvalidDocument."""
        converted = {name: self._converted(name, d) for name, d in documents.items()}
        new = []
        for name, document in converted.items():
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
        """Delete the documents with these ids; unknown ids are skipped."""
        for name in names:
            if document := self.find(name):
                with suppress(DocumentNotFound):  # another process has just deleted it
                    self.memory.delete(document.id)

    def _memory_id(self, name: str) -> str:
        return f"{self.scope}/{name}" if self.scope else name

    def _converted(self, name: str, document: Document) -> cmt_sdk.Document:
        if not name:
            raise InvalidDocument(f"the key of {document.page_content!r:.60} is empty: give one")
        metadata = _to_memory_metadata(document.metadata)
        source = metadata.get("source")
        return cmt_sdk.Document(
            document.page_content,
            self._memory_id(name),
            source if isinstance(source, str) and source else None,
            self.scope,
            metadata,
        )


def _to_memory_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as a memory stores it: nested values become JSON in one field.

    Raises:
        InvalidDocument: A value cannot be written as JSON.
    """
    plain = {
        name: value
        for name, value in metadata.items()
        if name != NESTED and (value is None or isinstance(value, str | int | float))
    }
    nested = {name: value for name, value in metadata.items() if name not in plain}
    if not nested:
        return plain
    return {**plain, NESTED: dump_json(nested, f"metadata {sorted(map(str, nested))}")}


def metadata_of(document: cmt_sdk.Document) -> dict[str, Any]:
    """Return metadata as LangChain has it: the given values, and the source."""
    metadata: dict[str, Any] = dict(document.metadata)
    nested: dict[str, Any] = json.loads(str(metadata.pop(NESTED, "{}")))
    source = {} if document.source is None else {"source": document.source}
    return source | metadata | nested


def passage_document(match: cmt_sdk.Match) -> Document:
    """Return a passage as a LangChain document, with its position, score and reasons."""
    passage = match.passage
    document = match.document
    metadata = {
        **metadata_of(document),
        "scope": document.scope,
        "document_id": document.id,
        "start": passage.start,
        "end": passage.end,
        "score": match.score,
        "why": match.why,
    }
    return Document(passage.content, id=passage_key(match), metadata=metadata)
