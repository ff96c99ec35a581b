"""Memory: the story of adding, updating, forgetting and searching, told in calls to ports. No
torch, no SQL.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from cmt_sdk import archive
from cmt_sdk.assembly import Parts, checked
from cmt_sdk.background import Turns
from cmt_sdk.chat import Chat
from cmt_sdk.config import Settings
from cmt_sdk.errors import (
    DocumentNotFound,
    InvalidFilter,
    InvalidSetting,
    StorageError,
    StorageLocked,
)
from cmt_sdk.handles import Handle, NoModel, is_held, watch
from cmt_sdk.ingestion import Addable, Ingestor, OnProgress, When, document_of
from cmt_sdk.model import MemoryModel, check_names, check_options
from cmt_sdk.notebook import Notebook
from cmt_sdk.retrieval import LONGEST_QUESTION, check_question
from cmt_sdk.types import (
    CheckResult,
    Document,
    Filter,
    Fingerprint,
    Intent,
    Match,
    Metadata,
    Page,
    Passage,
    Progress,
    Receipt,
    SearchMode,
    Stats,
    Turn,
    Vector,
)
from cmt_sdk.understanding import understand
from cmt_sdk.vectors import Embeddings

log = logging.getLogger(__name__)

FORGET_WAIT = 30.0  # seconds for another process that writes or reads


class Memory(Handle):
    """Documents that are remembered in one folder. The language model is loaded when it is first
    needed.

    Safe to use from several threads, and the folder from several processes. Made by `cmt_sdk.open`.
    On a medium, or with files, that this user may not write it is `read_only`: it is listed,
    searched, asked and copied, and what would change it raises StorageDenied. A copy of it
    (`copy.deepcopy`) is itself. After a fork the child can use it where the model was not loaded
    yet and nothing was under way; else it has to open the folder itself, as another process does,
    and the error says so.
    """

    def __init__(self, parts: Parts) -> None:
        self._store = parts.store
        self._index = parts.index
        self._engine = parts.engine
        self._queue = parts.queue
        self._retriever = parts.retriever
        self._worker = parts.worker
        self._ingestor = Ingestor(
            parts.store, parts.engine, parts.queue, parts.worker, parts.settings
        )
        self.path: Path = parts.path
        self.settings: Settings = parts.settings
        self.encrypted: bool = parts.encrypted
        self.read_only: bool = parts.store.read_only
        self.model = MemoryModel(self._retriever, self.settings)
        self._closed = threading.Event()
        watch(self)
        self._finish_erasing()

    def __repr__(self) -> str:
        state = ", closed" if self._closed.is_set() else ", read-only" if self.read_only else ""
        return f"<Memory in {str(self.path)!r}, model {self.settings.model!r}{state}>"

    def after_fork(self) -> None:
        """In a forked child: what other threads of the parent were at is not here, and would be
        waited for.
        """
        parts = (self._store, self._index, self._worker)
        at_work = is_held(self._queue.lock) or any(part.at_work() for part in parts)
        if at_work:
            for part in parts:
                part.leave()
        if at_work or not self._engine.forks:
            self._queue.lock = Turns() if self._engine.forks else NoModel()

    # -- adding -----------------------------------------------------------------------------------

    def add(
        self,
        document: Addable,
        *,
        id: str = "",  # noqa: A002 - the word users know
        source: str | None = None,
        scope: str = "",
        metadata: Metadata | None = None,
        expires_at: datetime | None = None,
        wait: bool = True,
    ) -> Document:
        """Remember a text (`str`), a file (`pathlib.Path`) or a Document; returns it as stored.

        The text is durable when this returns; with `wait=False` compression follows in the
        background, and so does that of whatever else still waits. The same text in the same scope
        is one document, unless another `id` is given: the one already there is returned, with the
        fields given now in place of its own, metadata key by key, except that it keeps its source.
        Raises InvalidDocument, AlreadyExists (the id stands for another text), StorageError.
        """
        given: dict[str, Any] = {
            "id": id,
            "source": source,
            "scope": scope,
            "metadata": metadata,
            "expires_at": expires_at,
        }
        whole = replace(
            document_of(document), **{name: value for name, value in given.items() if value}
        )
        stored: list[Document] = []
        self._ingestor.add([whole], "now" if wait else "background", on_stored=stored.append)
        # left by a crash, or added without compressing: not the caller's to wait for
        if wait and self._store.pending(1):
            self._worker.wake()
        return self._as_it_is(stored[0])

    def add_many(
        self,
        documents: Iterable[Addable],
        *,
        replace: bool = False,
        wait: bool = True,
        compress: bool = True,
        on_progress: OnProgress | None = None,
    ) -> Progress:
        """Remember a stream of documents, of any length; `on_progress` is called after every step.

        With `replace=True` a document that has a source is known by it in its scope: another text
        becomes the next version, and two sources with one text are two documents. A Document with
        the `id` of a known one takes that one's place, source and text, as a file that was moved
        does. With `compress=False` only the text is stored; it is found by words, and compressed
        when it is needed or by `compress`. Stops at the first document that cannot be added; what
        came before it is stored.
        """
        if isinstance(documents, str | bytes | Document | os.PathLike):
            raise TypeError("add_many() takes several documents: for one there is add()")
        whole = (document_of(d) for d in documents)
        when: When = "later" if not compress else "now" if wait else "background"
        return self._ingestor.add(whole, when, replace=replace, on_progress=on_progress)

    def add_together(self, documents: Sequence[Document], *, wait: bool = True) -> Progress:
        """Remember all of these documents or, where one cannot be added or the process dies, none.

        Each becomes a document of its own, also where its text is here already. Raises
        InvalidDocument, AlreadyExists.
        """
        return self._ingestor.add_together(documents, wait=wait)

    def compress(self, on_progress: OnProgress | None = None) -> int:
        """Compress whatever still waits, now; returns the number of passages. Resumes what a crash
        cut off.
        """
        return self._ingestor.compress(on_progress)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the background compression; False when `timeout` seconds passed first. Raises
        what it raised.
        """
        return self._worker.wait(timeout)

    # -- changing ---------------------------------------------------------------------------------

    def update(
        self,
        id: str,  # noqa: A002 - the word users know
        text: str | None = None,
        *,
        wait: bool = True,
        **fields: Any,
    ) -> Document:
        """Store the next version; the old one stops answering at once and stays in `history` until
        forgotten.

        `fields` may be source, scope, metadata and expires_at; without `text` they change in place.
        Raises DocumentNotFound, InvalidDocument.
        """
        check_names("update", fields, ("text", "wait", "source", "scope", "metadata", "expires_at"))
        changes = fields if text is None else {**fields, "text": text}
        stored = self._ingestor.change(self.get(id), changes)
        if stored.ready:
            return stored
        if not wait:
            self._worker.wake()
            return stored
        self._queue.encode_backlog(of=[id])
        return self._as_it_is(stored)

    def _as_it_is(self, stored: Document) -> Document:
        try:
            return self.get(stored.id)
        except DocumentNotFound:  # taken out by someone else in this moment
            return stored

    def delete(self, id: str) -> Document:  # noqa: A002
        """Take a document out, with its history; returns what it was.

        Words of it may stay in the files until something is forgotten: where they must not, use
        `forget` instead.
        """
        document = self.get(id)
        self._store.delete(Filter(ids=[id]))
        return document

    def forget(
        self,
        id: str | None = None,  # noqa: A002
        *,
        source: str | None = None,
        scope: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Delete what fits every condition and rewrite the files without it; the receipt says what
        a byte scan found.

        Documents go with all their versions; of one that fits no longer, those versions go that
        did. An erasure that was cut short is finished when the memory is next opened, or at the
        next call. Raises InvalidFilter without any condition, DocumentNotFound for an unknown id.
        """
        filter = _filter(scope, source, where, ids=None if id is None else [id])
        if filter.empty:
            raise InvalidFilter(
                "forget() needs an id, a source, a scope or a filter; to forget all, scope=''"
            )
        self._finish_erasing()
        if id is not None:
            self.history(id)  # an expired document can be forgotten too
        before = self._store.stats().file_bytes
        removed = self._store.delete(filter, erase=True)
        try:
            complete = self._erase(FORGET_WAIT)
        except StorageError as error:
            raise type(error)(
                f"{error}. The documents are gone; their bytes go when the memory is next opened"
            ) from error
        files, traces = self._store.traces(removed.versions)
        return Receipt(
            documents=sorted({d.id for d in removed.versions}),
            versions=len(removed.versions),
            passages=removed.passages,
            bytes_freed=max(0, before - self._store.stats().file_bytes),
            files_scanned=files,
            traces_found=traces,
            complete=complete,
            at=self._store.now(),
            copies=self._store.copies(),
        )

    def keep_out(self, sources: Iterable[str], *, scope: str = "", out: bool = True) -> None:
        """Record that these sources are to stay out of `scope`; with `out=False`, that they may
        come in again.

        Only hashes are stored, no names. `add` stores what it is given: whoever adds whole folders
        asks `kept_out` first, as `cmt add` and `cmt watch` do.
        """
        self._store.keep_out(scope, sources, out=out)

    def kept_out(self, sources: Iterable[str], *, scope: str = "") -> Sequence[str]:
        """Those of the sources that were recorded by `keep_out` for this scope."""
        return self._store.kept_out(scope, sources)

    def _erase(self, wait: float) -> bool:
        """Rewrite the files without what was deleted; False, and it stays due, when a reader keeps
        the old state.
        """
        due = self._store.erasure_due()
        if due is None:
            return True
        complete = self._store.erase(wait)
        self._index.rebuild()  # its files hold the embeddings
        if complete:
            self._store.erased(due)
        return complete

    def _finish_erasing(self) -> None:
        """Go on with an erasure that was cut short: by a crash, a full disk, another process that
        was reading.
        """
        if self.read_only:
            return
        try:
            self._erase(wait=0)
        except StorageLocked:
            log.warning(
                "another process is writing: what was forgotten earlier is erased when the memory"
                " is next opened"
            )
        except StorageError as error:
            log.warning(
                "%s; what was forgotten earlier is erased when the memory is next opened", error
            )

    # -- looking ----------------------------------------------------------------------------------

    def get(self, id: str) -> Document:  # noqa: A002
        """The current version of a document; DocumentNotFound."""
        page = self._store.page(Filter(ids=[id]), 1, None)
        if not page.documents:
            raise DocumentNotFound(f"no document has the id {id!r}; `list` shows those there are")
        return page.documents[0]

    def history(self, id: str) -> Sequence[Document]:  # noqa: A002
        """Every version, oldest first; DocumentNotFound."""
        versions = self._store.history(id)
        if not versions:
            raise DocumentNotFound(f"no document has the id {id!r}; `list` shows those there are")
        return versions

    def passages(self, id: str) -> Sequence[Passage]:  # noqa: A002
        """The passages of a document's current version, in order; DocumentNotFound."""
        return self._store.passages_of(self.get(id).id)

    def list(
        self,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Current documents in order of creation, `limit` a page; `cursor` is the last page's
        `next_cursor`.
        """
        return self._store.page(_filter(scope, source, where), limit, cursor)

    def documents(
        self,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Iterator[Document]:
        """All current documents that fit, one by one."""
        cursor: str | None = None
        while True:
            page = self._store.page(_filter(scope, source, where), 200, cursor)
            yield from page.documents
            cursor = page.next_cursor
            if cursor is None:
                return

    def ids(self, prefix: str = "") -> Sequence[str]:
        """The ids of current documents that begin with `prefix`."""
        return self._store.ids(prefix)

    def count(
        self,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> int:
        """How many current documents fit."""
        return self._store.count(_filter(scope, source, where))

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        mode: SearchMode = "fused",
        history: Sequence[Turn] | None = None,
        scope: str | None = None,
        source: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[Match]:
        """The k best passages, best first.

        `mode` is "fused", by meaning and words; "reranked", which then lets the model read the
        query after the memory of each of the first few, as `model.ask` does; "vector", by meaning;
        or "text", by words, which needs no model. But for "text", what a newer passage among them
        supersedes is marked so, and comes after it.

        With `history`, the turns before it, even none, the query is a message of a conversation: it
        is searched by itself and after earlier turns, and ranked, as `model.ask` does; its middle
        is left out where it is long. `mode` is not used then.
        """
        filter = _filter(scope, source, where)
        if history is not None:
            found = self._retriever.search_after(query, history, k, filter)
        else:
            found = self._retriever.search(query, k, filter, mode)
        return (
            found
            if mode == "text" and history is None
            else self._retriever.newest_first(query, found)
        )

    def superseded(self, text: str, k: int = 5, *, scope: str | None = None) -> Sequence[Match]:
        """Of the k passages nearest to a text that is told now, those that say an older value of
        what it says.

        A judgement of the model by itself, without a question; empty for models that no probe is
        shipped for.
        """
        return self._retriever.superseded(
            text, self._retriever.search(text, k, _filter(scope, None, None), "fused")
        )

    def nearest(
        self,
        vector: Vector,
        k: int = 5,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[Match]:
        """The k passages nearest to a vector of `model.embed`, shape [dimension], by cosine."""
        return self._retriever.nearest(vector, k, _filter(scope, source, where))

    def embeddings(
        self,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Embeddings:
        """The embeddings of the passages that fit; what is not compressed yet has none. Loads no
        model.
        """
        return self._store.embeddings(_filter(scope, source, where))

    def stats(self) -> Stats:
        """The memory in numbers."""
        return replace(self._store.stats(), index=self._index.describe(), model=self.settings.model)

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes the memories here: weights, quantisation, tokenizer, adapters, settings. Loads
        the model.
        """
        return self._engine.compressor.fingerprint

    def understand(self, text: str) -> Intent:
        """What a message wants: whether it asks, tells, and which part is worth keeping. Loads the
        model.

        Raises InvalidInput for an empty text.
        """
        check_question(text[:LONGEST_QUESTION])
        return understand(text, self._retriever.scores)

    def chat(
        self, *, remember: bool = False, scope: str = "", turns: Sequence[Turn] = (), **options: Any
    ) -> Chat:
        """A conversation over this memory, which goes on from `turns`.

        With `remember=True` what the user tells is added to `scope`, before the reply; and what the
        user asks to forget is erased, once the next turn agrees. `options` are those of `model.ask`
        but `history` and `stream`; the search is narrowed to `scope` where one is given. Raises
        TypeError for an option that there is not, InvalidSetting for a value that cannot be.
        """
        check_options(options)
        options = {"scope": scope, **options} if scope else options
        return Chat(self.model, Notebook(self, scope), options, remember=remember, turns=turns)

    # -- upkeep -----------------------------------------------------------------------------------

    def export(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
        """Write everything to one archive (JSON lines and safetensors in a zip file); returns the
        documents in it.

        Its memories are sealed with the user's key (`$CMT_ARCHIVE_KEY`, else `archive.key` in the
        data folder), which is made where there is none. Where it cannot be kept they go out
        unsealed, and are made again from the text where they are read. Raises AlreadyExists,
        NotFound (no such folder), StorageFull, StorageDenied, InvalidInput (a file of the memory).
        """
        count = archive.write(
            self._store, Path(path), overwrite=overwrite, seal=archive.seal_here(create=True)
        )
        self._note_copy(Path(path))
        return count

    def _note_copy(self, path: Path) -> None:
        """Record where a copy is, for the receipts of `forget`; the copy itself stands, whether or
        not that can be written.
        """
        if self.read_only:
            return
        try:
            self._store.note_copy(path)
        except StorageError as error:
            log.warning("%s; receipts of `forget` will not name the copy %s", error, path)

    def import_archive(
        self,
        path: str | os.PathLike[str],
        *,
        diverged: archive.Choice | None = None,
        trust: bool = False,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> Progress:
        """Add what an archive holds, histories included.

        Its memories are taken over where this model can read them and the user's key has sealed
        them, else made again. A document that is here already goes on with the archive's later
        versions; where the archive is older it stays as it is. Of fields that differ the later
        change counts, metadata key by key. Nothing is taken out, and what was deleted or forgotten
        here comes back if the archive has it.

        Args:
            path: A file of `export`.
            diverged: Which text becomes current of a document that went on here and there: "ours"
                or "theirs", the other one then stands in its history, or "both", the archive's then
                becomes another document. None refuses such an archive.
            trust: Take memories and embeddings without a seal, too: they are then believed to be of
                the texts beside them.
            wait: False lets compression follow in the background.
            on_progress: Called after every step.

        Raises:
            AlreadyExists: Documents went on here and there, with their names, versions and dates.
                Nothing is stored. StorageDamaged, StorageNewer: The archive cannot be read. Nothing
                is stored.
        """
        if diverged not in (None, *archive.CHOICES):
            raise InvalidSetting(
                f"diverged={diverged!r}: choose one of {', '.join(archive.CHOICES)}"
            )
        report = on_progress or (lambda _: None)
        progress = Progress()
        for progress in self._ingestor.from_archive(Path(path), diverged, trust=trust):
            report(progress)
        if not wait:
            self._worker.wake()
            return progress
        return progress.plus(
            compressed=self.compress(lambda p: report(progress.plus(compressed=p.compressed)))
        )

    def reindex(self) -> str:
        """Write the index anew; returns its description."""
        self._index.rebuild()
        return self._index.describe()

    def reencode(self, on_progress: OnProgress | None = None) -> int:
        """Encode again, with this model and these settings, every passage that something else
        encoded; resumable.

        Documents that an earlier release or other settings cut are cut again first.
        """
        self._ingestor.split_outdated()
        self._store.forget_encodings(self._engine.compressor.fingerprint)
        return self.compress(on_progress)

    def check(self) -> Sequence[CheckResult]:
        """A check-up of files, database, index and memories, with remedies; `cmt_sdk.repair` mends
        what can be mended.
        """
        return self._store.check()

    def finish_repair(self, on_progress: OnProgress | None = None) -> int:
        """Make again what `cmt_sdk.repair` left to the model: passages, memories, index; returns
        the passages compressed.
        """
        self._ingestor.split_missing()
        count = self.compress(on_progress)
        self._index.rebuild()
        return count

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Copy the memory as of one moment, while others write: to a file *.db, else to a folder
        that opens as a memory.

        Returns the file; to restore one, name it memory.db in an empty folder. Raises
        AlreadyExists, StorageFull, StorageDenied.
        """
        made = self._store.back_up(Path(path).expanduser(), overwrite=overwrite)
        self._note_copy(made)
        return made

    def configure(self, **settings: Any) -> Settings:
        """Change recorded settings; they hold for this folder from its next opening. Raises
        InvalidSetting.
        """
        changed = checked({**self._store.settings(), **settings})
        self._store.set_settings(asdict(changed))
        return changed

    def close(self) -> None:
        """Stop the background compression after its batch and release the files; what still waits
        resumes later.
        """
        if not self._closed.is_set():
            self._closed.set()
            self._worker.close()
            self._store.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def _filter(
    scope: str | None,
    source: str | None,
    where: Mapping[str, Any] | None,
    ids: Sequence[str] | None = None,
) -> Filter:
    if where is not None and not isinstance(where, Mapping):
        raise InvalidFilter(f"where={where!r:.60}: give a dict of metadata keys and values")
    return Filter(ids=ids, scope=scope, source=source, where=where or {})
