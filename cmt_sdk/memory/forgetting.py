"""Forgetting: documents are erased from every file, with a receipt. No torch, no SQL."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from cmt_sdk.answering.asking import filter_of
from cmt_sdk.errors import InvalidFilter, StorageError, StorageLocked
from cmt_sdk.memory.lookup import Lookup
from cmt_sdk.system import daemon
from cmt_sdk.types import DeletedObjects, Receipt, Where

log = logging.getLogger(__name__)

FORGET_WAIT = 30.0  # seconds for another process that writes or reads


class Forgetting(Lookup):
    """The calls that erase."""

    def forget(
        self,
        id: str | None = None,  # noqa: A002 - the word users know
        *,
        source: str | None = None,
        scope: str | None = None,
        where: Where | None = None,
    ) -> Receipt:
        """Delete the documents that fit every condition, and erase them from the files.

        Documents go with all their versions. The daemon of `cmt` ends, with the words that it has
        in its RAM. If only earlier versions match, only those versions
        are deleted. An erasure that was interrupted is finished at the next opening, or by the next
        call.

        Args:
            id: One document.
            source: A source; * is a wildcard.
            scope: A scope, with everything beneath it; "" for all documents.
            where: Conditions on metadata; see `Filter`.

        Returns:
            A Receipt of what went, and of what a scan of every byte of the files found left of it.
            It names the objects that were deleted with it, if the memory has any.

        Raises:
            InvalidFilter: No condition is given, or one that cannot be asked for.
            DocumentNotFound: No document has this id.
            StorageError: The files could not be erased from.
        """
        filter = filter_of(scope, source, where, ids=None if id is None else [id])
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
            complete, objects = self._erase(FORGET_WAIT)
        except StorageError as error:
            raise type(error)(
                f"{error}. The documents are gone; their bytes go when the memory is next opened"
            ) from error
        finally:
            _stop_daemon()
        files, traces = self._store.find_traces(removed.versions)
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
            objects=objects.names,
            objects_unproven=objects.unproven,
        )

    def keep_out(self, sources: Iterable[str], *, scope: str = "", out: bool = True) -> None:
        """Record that these sources are to stay out of `scope`; with `out=False`, that they may
        come in again.

        Only hashes are stored, no names. `add` stores what it is given: a program that adds folders
        asks `kept_out` first, as `cmt add` and `cmt watch` do.
        """
        self._store.keep_out(scope, sources, out=out)

    def kept_out(self, sources: Iterable[str], *, scope: str = "") -> Sequence[str]:
        """Those of the sources that `keep_out` recorded for this scope."""
        return self._store.kept_out(scope, sources)

    def _erase(self, wait: float) -> tuple[bool, DeletedObjects]:
        """Erase the deleted documents from the files, and delete their objects.

        Returns:
            False, and the erasure stays due, if a reader keeps the old state for `wait` seconds, or
            another process is deleting the objects; the objects that were deleted.
        """
        due = self._store.erasure_due()
        if due is None:
            return True, DeletedObjects()
        complete = self._store.erase(wait)
        self._index.erase()  # its files hold the embeddings
        objects = self._store.delete_unused_objects()
        if complete := complete and not objects.left:
            self._store.erased(due)
        return complete, objects

    def _finish_erasing(self) -> None:
        """Finish an erasure that a crash, a full disk or a reading process interrupted."""
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


def _stop_daemon() -> None:
    """End the daemon of `cmt`: its RAM may have words of what it has read."""
    try:
        daemon.stop()
    except OSError as error:
        log.warning(
            "the daemon of cmt cannot be ended (%s) and may have words of what was forgotten in its"
            " RAM: end it with `cmt daemon stop`",
            error,
        )
