"""The parts of an open memory and its end: close, fork, repr. No torch, no SQL."""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from cmt_sdk.config.settings import Settings
from cmt_sdk.memory.assembly import Parts
from cmt_sdk.system.background import PriorityLock
from cmt_sdk.system.handles import Handle, NoModel, is_held

if TYPE_CHECKING:
    from cmt_sdk.answering.model import MemoryModel
    from cmt_sdk.memory.ingestion import Ingestor
    from cmt_sdk.retrieval.retriever import Retriever

M = TypeVar("M", bound="Core")


class Core(Handle):
    """What all calls of a memory use.

    Attributes:
        path: Its folder; None for one in a database.
        location: Its folder, or the address of its database without the password.
        settings: The settings that it was made with, changed by those given at opening.
        encrypted: Whether the database is encrypted.
        read_only: Whether this user may not write its files: it is listed, searched, asked and
            copied, and a change raises StorageDenied.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store
        self._index = parts.index
        self._engine = parts.engine
        self._passage_encoder = parts.passage_encoder
        self._worker = parts.worker
        self.path = parts.path if isinstance(parts.path, Path) else None
        self.location = str(parts.path)
        self.settings: Settings = parts.settings
        self.encrypted: bool = parts.encrypted
        self.read_only: bool = parts.store.read_only
        self._closed = threading.Event()

    @cached_property
    def model(self) -> MemoryModel:
        """The language model bound to this memory."""
        from cmt_sdk.answering.model import MemoryModel

        return MemoryModel(self._retriever, self.settings, self._worker, self._parts.generator)

    @cached_property
    def _retriever(self) -> Retriever:
        from cmt_sdk.retrieval.retriever import Retriever

        parts = self._parts
        return Retriever(
            parts.store,
            parts.index,
            parts.engine,
            parts.passage_encoder,
            parts.settings.rerank_depth,
        )

    @cached_property
    def _ingestor(self) -> Ingestor:
        from cmt_sdk.memory.ingestion import Ingestor

        parts = self._parts
        return Ingestor(
            parts.store, parts.engine, parts.passage_encoder, parts.worker, parts.settings
        )

    def __repr__(self) -> str:
        state = ", closed" if self._closed.is_set() else ", read-only" if self.read_only else ""
        return f"<Memory in {self.location!r}, model {self.settings.model!r}{state}>"

    def after_fork(self) -> None:
        """In a forked child: give up what other threads of the parent held, since they are not
        here to release it.
        """
        parts = (self._store, self._index, self._worker)
        at_work = is_held(self._passage_encoder.lock) or any(part.at_work() for part in parts)
        if at_work:
            for part in parts:
                part.leave()
        if at_work or not self._engine.fork_safe:
            self._passage_encoder.lock = PriorityLock() if self._engine.fork_safe else NoModel()

    def close(self) -> None:
        """Stop the background compression after its batch and release the files; pending passages
        are compressed after the next opening.
        """
        if not self._closed.is_set():
            self._closed.set()
            self._worker.close()
            self._store.close()

    def __enter__(self: M) -> M:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
