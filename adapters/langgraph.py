"""LangGraph: a memory as the long-term store of a graph (BaseStore).

    store = CMTStore(cmt_sdk.open("notes"))
    store.put(("users", "ann"), "tea", {"text": "Ann likes green tea."}, ttl=60)
    store.get(("users", "ann"), "tea").value
    store.search(("users",), query="What does Ann drink?", filter={"year": {"$gte": 2020}})
    store.list_namespaces(prefix=("users",), max_depth=1)
    graph = builder.compile(store=store)

A namespace is a scope: ("users", "ann") is `users/ann`, so `memory.model.ask(question,
scope="users/ann")` answers from the same items. An item is a document. The text of the document is
for search and reader: `field: value` lines, or only the fields that `index` names. The value itself
is stored next to the text, as JSON (see payload), because the text may lack fields and metadata
hold only plain values.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote

import cmt_sdk
from cmt_adapters.langgraph_filters import fits, lines_of, matches_path
from cmt_adapters.payload import attach_json, attached_json, dump_json, memory_lock
from cmt_sdk.errors import (
    AlreadyExists,
    CMTError,
    DocumentNotFound,
    InvalidInput,
)
from cmt_sdk.system.extras import unusable
from cmt_sdk.system.handles import Handle

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        get_text_at_path,
        validate_op_namespace,
    )
except ImportError as error:
    raise unusable("the LangGraph store", "langgraph", error) from error

log = logging.getLogger(__name__)

Namespace = tuple[str, ...]
# metadata fields
ITEM = "langgraph"
INDEXED = "langgraph_indexed"
TTL = "langgraph_ttl"
EXPIRES = "langgraph_expires"
IS_ITEM = {ITEM: {"exists": True}}
NOT_INDEXED = "(not indexed)"
MAX_TTL = 500_000_000  # minutes, some 950 years; later times may exceed the range of datetime
SPECIAL = re.compile("[%/\ud800-\udfff]")  # allowed in a label, but not in a component of a scope


class CMTStore(Handle, BaseStore):
    """A BaseStore over a memory. The caller closes the memory.

    Expired items are never returned; `sweep_ttl` erases them from the disk. The score of a search
    is the fused score of `Memory.search`.

    Args:
        memory: An open memory.
        scope: The scope of the store; namespaces are below it.
        fields: Paths to index if a put names none; "$" is the complete value.
        ttl: Default time to live, in minutes, and how to refresh it.
        wait: False compresses in the background: an item is found by its words at once, and by
            meaning a little later.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: cmt_sdk.Memory,
        *,
        scope: str = "",
        fields: Sequence[str] = ("$",),
        ttl: TTLConfig | None = None,
        wait: bool = True,
    ) -> None:
        self._memory = memory
        self._root = scope.strip("/")
        self._fields = fields
        self._wait = wait
        self.ttl_config = ttl
        self._sweeper: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def _lock(self) -> threading.RLock:
        return memory_lock(self._memory)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations: first all reads, then the last put of each key.

        If an operation is refused, no put is run.

        Raises:
            InvalidNamespaceError: A namespace is not valid.
            InvalidDocument: A value is not JSON or too large.
            InvalidFilter: A filter is not valid.
        """
        puts: dict[tuple[Namespace, str], tuple[PutOp, cmt_sdk.Document | None]] = {}
        results: list[Result] = []
        for op in ops:
            validate_op_namespace(op)
            if isinstance(op, PutOp):
                puts[op.namespace, op.key] = op, self._document(op)
                results.append(None)
            else:
                results.append(self._read(op))
        for op, document in puts.values():
            self._put(op, document)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run `batch` in a thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    def scope(self, namespace: Sequence[str]) -> str:
        """Return the scope of a namespace; / and % in labels are escaped."""
        return "/".join(filter(None, [self._root, *map(_escaped, namespace)]))

    # -- reading ----------------------------------------------------------------------------------

    def _read(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            return self._get(op)
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return self._namespaces(op)
        raise InvalidInput(f"operation {op!r:.60}: give GetOp, SearchOp, PutOp or ListNamespacesOp")

    def _get(self, op: GetOp) -> Item | None:
        with self._lock:
            try:
                document = self._memory.get(self._id(op.namespace, op.key))
            except DocumentNotFound:
                return None
            if op.refresh_ttl:
                self._refresh(document)
        return Item(**self._content(document))

    def _search(self, op: SearchOp) -> list[SearchItem]:
        if min(op.limit, op.offset) < 0:
            raise InvalidInput(f"limit={op.limit}, offset={op.offset}: give numbers from 0")
        found = self._ranked(op) if op.query and op.query.strip() else self._listed(op)
        page = list(islice(found, op.offset, op.offset + op.limit))
        if op.refresh_ttl:
            with self._lock:
                for document, _ in page:
                    self._refresh(document)
        return [SearchItem(**self._content(document), score=score) for document, score in page]

    def _listed(self, op: SearchOp) -> Iterator[tuple[cmt_sdk.Document, float | None]]:
        """Yield the items that match the filter, in order of creation."""
        scope = self.scope(op.namespace_prefix) or None
        for document in self._memory.documents(scope=scope, where=IS_ITEM):
            if not op.filter or fits(self._content(document)["value"], op.filter):
                yield document, None

    def _ranked(self, op: SearchOp) -> Iterator[tuple[cmt_sdk.Document, float | None]]:
        """Yield the items that match the filter: first the query's, best first, then all others.

        The others have no score.
        """
        assert op.query is not None  # noqa: S101 - the caller checks it
        query = op.query
        scope = self.scope(op.namespace_prefix) or None

        wanted = k = max(1, op.offset + op.limit)
        while True:
            matches = self._memory.search(
                query, k, per_document=True, scope=scope, where={INDEXED: True}
            )
            found = [
                m for m in matches if fits(self._content(m.document)["value"], op.filter or {})
            ]
            if len(found) >= wanted or len(matches) < k:
                break
            k *= 4  # the filter refuses some items
        yield from ((match.document, match.score) for match in found)
        ranked = {match.document.id for match in found}
        yield from (item for item in self._listed(op) if item[0].id not in ranked)

    def _namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        scopes = {d.scope for d in self._memory.documents(scope=self._root or None, where=IS_ITEM)}
        found = [
            n
            for n in map(self._namespace, scopes)
            if all(matches_path(c, n) for c in op.match_conditions or ())
        ]
        shortened = found if op.max_depth is None else {n[: op.max_depth] for n in found}
        return sorted(shortened)[op.offset : op.offset + op.limit]

    def _namespace(self, scope: str) -> Namespace:
        labels = scope.removeprefix(self._root).strip("/")
        return (
            tuple(unquote(name, errors="surrogatepass") for name in labels.split("/"))
            if labels
            else ()
        )

    def _content(self, document: cmt_sdk.Document) -> dict[str, Any]:
        """Return the fields of an Item."""
        item = json.loads(attached_json(document, ITEM))
        created_at = document.created_at
        put = datetime.fromisoformat(item["put"])
        return {
            "namespace": self._namespace(document.scope),
            "key": item["key"],
            "value": item["value"],
            "created_at": created_at,
            # not the document's updated_at, which changes with every refresh
            "updated_at": max(put, created_at or put),
        }

    # -- writing ----------------------------------------------------------------------------------

    def _id(self, namespace: Namespace, key: str) -> str:
        """Return the document id of a key in a namespace: a hash, since a key may hold any text."""
        digest = hashlib.sha256(json.dumps([self.scope(namespace), key]).encode()).hexdigest()
        return f"langgraph-{digest[:32]}"

    def _document(self, op: PutOp) -> cmt_sdk.Document | None:
        """Return the document of an item; None for a deletion. Raises InvalidDocument."""
        if op.value is None:
            return None
        value = dict(op.value)
        item = {"key": op.key, "value": value, "put": datetime.now(UTC).isoformat()}
        content = dump_json(item, f"the value of {op.key!r:.60}")
        words = self._text(value, op.index)
        expires_at = None if op.ttl is None else _expiry(op.ttl)
        text, metadata = attach_json(words or NOT_INDEXED, content, ITEM)
        metadata[INDEXED] = bool(words)
        if op.ttl is not None and expires_at:
            metadata |= {TTL: min(op.ttl, MAX_TTL), EXPIRES: expires_at.timestamp()}
        return cmt_sdk.Document(
            text,
            self._id(op.namespace, op.key),
            scope=self.scope(op.namespace),
            metadata=metadata,
            expires_at=expires_at,
        )

    def _text(self, value: dict[str, Any], index: Any) -> str:
        """Return the text of a value for search and reader; "" if it is not indexed."""
        paths = [] if index is False else index or self._fields
        parts = [
            part
            for path in paths
            for part in (lines_of(value) if path == "$" else get_text_at_path(value, path))
        ]
        return cmt_sdk.clean_text("\n".join(parts)).strip()

    def _put(self, op: PutOp, new: cmt_sdk.Document | None) -> None:
        with self._lock:
            if new is None:
                with suppress(DocumentNotFound):
                    self._memory.delete(self._id(op.namespace, op.key))
                return
            try:
                self._replace(new)
            except DocumentNotFound:
                try:
                    self._memory.add(new, wait=self._wait)
                except AlreadyExists:  # another process has just added it
                    self._replace(new)

    def _replace(self, new: cmt_sdk.Document) -> None:
        self._memory.update(
            new.id, new.text, metadata=new.metadata, expires_at=new.expires_at, wait=self._wait
        )

    # -- expiry -----------------------------------------------------------------------------------

    def _refresh(self, document: cmt_sdk.Document) -> None:
        """Restart an item's time to live.

        Only expires_at is written, since another process may be putting a value at the same time.
        """
        ttl = document.metadata.get(TTL)
        if isinstance(ttl, int | float):
            with suppress(DocumentNotFound):
                self._memory.update(document.id, expires_at=_expiry(ttl))

    def sweep_ttl(self) -> int:
        """Erase expired items and replaced values from the files. Returns how many items expired.

        `Memory.forget` selects expired documents only by metadata, so items that were refreshed
        first get their new expiry there.
        """
        stats = self._memory.stats()
        # nothing has expired or was replaced: do not rewrite the files
        if stats.versions == stats.documents:
            return 0
        due = {EXPIRES: {"<=": datetime.now(UTC).timestamp()}}
        with self._lock:
            for document in self._memory.documents(scope=self._root or None, where=due):
                if document.expires_at:
                    later = {**document.metadata, EXPIRES: document.expires_at.timestamp()}
                    with suppress(DocumentNotFound):
                        self._memory.update(document.id, metadata=later)
            gone = self._memory.forget(scope=self._root or None, where=due).documents
        return sum(not self._memory.ids(name) for name in gone)

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """Sweep in a thread until `stop_ttl_sweeper`.

        Args:
            sweep_interval_minutes: Minutes between sweeps; the default is that of `ttl`, else 5.
        """
        minutes = (
            sweep_interval_minutes or (self.ttl_config or {}).get("sweep_interval_minutes") or 5
        )
        self.stop_ttl_sweeper()
        self._stop.clear()
        self._sweeper = threading.Thread(
            target=self._sweep_on, args=(60 * minutes,), name="cmt-ttl-sweeper", daemon=True
        )
        self._sweeper.start()

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop sweeping. Call it before you close the memory.

        Returns:
            False if the thread is still sweeping after `timeout` seconds.
        """
        self._stop.set()
        if self._sweeper is None:
            return True
        self._sweeper.join(timeout)
        return not self._sweeper.is_alive()

    def _sweep_on(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.sweep_ttl()
            except CMTError as error:
                log.warning("expired items were not swept: %s", error)


def _escaped(label: str) -> str:
    return SPECIAL.sub(lambda found: quote(found[0], safe="", errors="surrogatepass"), label)


def _expiry(minutes: float) -> datetime:
    """Return the time in `minutes` from now. Raises InvalidInput."""
    if (
        isinstance(minutes, bool)
        or not isinstance(minutes, int | float)
        or math.isnan(minutes)
        or minutes <= 0
    ):
        raise InvalidInput(f"ttl={minutes!r}: give minutes above 0, or None for no end")
    return datetime.now(UTC) + timedelta(minutes=min(minutes, MAX_TTL))
