"""LangGraph: a memory as the long-term store of a graph (BaseStore). Knows no model and no prompt.

    store = CMTStore(cmt_sdk.open("notes"))
    store.put(("users", "ann"), "tea", {"text": "Ann likes green tea."}, ttl=60)
    store.get(("users", "ann"), "tea").value
    store.search(("users",), query="What does Ann drink?", filter={"year": {"$gte": 2020}})
    store.list_namespaces(prefix=("users",), max_depth=1)
    graph = builder.compile(store=store)

A namespace is a scope: ("users", "ann") is `users/ann`, so that `memory.model.ask(question,
scope="users/ann")` answers from the same items. An item is a document. Its text is what search and
reader are to see: `field: value` lines, or only the fields that `index` names. The value itself
stands beside it, as JSON (see payload): a text that left out fields could not give it back, and
metadata holds plain values only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import operator
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import cmt_sdk
from cmt_adapters.payload import packed, unpacked
from cmt_sdk.errors import (
    AlreadyExists,
    CMTError,
    DocumentNotFound,
    InvalidDocument,
    InvalidFilter,
    InvalidInput,
)
from cmt_sdk.extras import unusable
from cmt_sdk.handles import Handle

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        MatchCondition,
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
# one a memory: what refreshes an expiry reads before it writes
LOCKS: dict[Path, threading.RLock] = {}
# metadata
ITEM, INDEXED, TTL, EXPIRES = "langgraph", "langgraph_indexed", "langgraph_ttl", "langgraph_expires"
OURS = {ITEM: {"exists": True}}
NOT_INDEXED = "(not indexed)"
LONGEST_TTL = 500_000_000  # minutes: some 950 years; later moments may not be dates any more
SPECIAL = re.compile("[%/\ud800-\udfff]")  # what a label may hold and a name in a scope may not
ORDERED = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
OPERATORS = {"$eq": operator.eq, "$ne": operator.ne, **ORDERED}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LOCKS.clear)  # a thread of the parent may hold one


class CMTStore(Handle, BaseStore):
    """A BaseStore over a memory, beneath `scope`; the memory stays the caller's to close.

    `fields` are the paths that are indexed where a put does not say ("$": the whole value). With
    `wait=False` passages are compressed in the background: an item is found by its words at once,
    and by meaning a little later. What has expired is never returned; it goes from the disk with
    `sweep_ttl`. The score of a search is the fused one of `Memory.search`.
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
        return LOCKS.setdefault(self._memory.path.resolve(), threading.RLock())

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations: the reads see what was there before, then the puts follow, the last
        one of each key.

        Raises InvalidNamespaceError, InvalidDocument (no JSON, too large), InvalidFilter; then no
        put has happened.
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
        """As `batch`, in a thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    def scope(self, namespace: Sequence[str]) -> str:
        """The scope in the memory that a namespace stands for; labels with / or % in them are
        escaped.
        """
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
        """What fits the filter, in order of creation."""
        for document in self._memory.documents(
            scope=self.scope(op.namespace_prefix) or None, where=OURS
        ):
            if not op.filter or _fits(self._content(document)["value"], op.filter):
                yield document, None

    def _ranked(self, op: SearchOp) -> Iterator[tuple[cmt_sdk.Document, float | None]]:
        """What fits the filter: first what the query finds, best first; then, without a score, all
        else.
        """
        assert op.query is not None  # noqa: S101 - _search asks
        scope = self.scope(op.namespace_prefix) or None
        wanted = k = max(1, op.offset + op.limit)
        while True:
            matches = self._memory.search(
                op.query, k, per_document=True, scope=scope, where={INDEXED: True}
            )
            fitting = [
                m for m in matches if _fits(self._content(m.document)["value"], op.filter or {})
            ]
            if len(fitting) >= wanted or len(matches) < k:
                break
            k *= 4  # items that the filter refuses
        yield from ((m.document, m.score) for m in fitting)
        found = {m.document.id for m in matches}
        yield from (
            (document, score) for document, score in self._listed(op) if document.id not in found
        )

    def _namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        scopes = {d.scope for d in self._memory.documents(scope=self._root or None, where=OURS)}
        found = [
            n
            for n in map(self._namespace, scopes)
            if all(_matches(c, n) for c in op.match_conditions or ())
        ]
        cut = found if op.max_depth is None else {n[: op.max_depth] for n in found}
        return sorted(cut)[op.offset : op.offset + op.limit]

    def _namespace(self, scope: str) -> Namespace:
        labels = scope.removeprefix(self._root).strip("/")
        return (
            tuple(unquote(name, errors="surrogatepass") for name in labels.split("/"))
            if labels
            else ()
        )

    def _content(self, document: cmt_sdk.Document) -> dict[str, Any]:
        """The fields of an Item."""
        kept = json.loads(unpacked(document, ITEM))
        created_at, put = document.created_at, datetime.fromisoformat(kept["put"])
        return {
            "namespace": self._namespace(document.scope),
            "key": kept["key"],
            "value": kept["value"],
            "created_at": created_at,
            # the document's own changes with every refresh
            "updated_at": max(put, created_at or put),
        }

    # -- writing ----------------------------------------------------------------------------------

    def _id(self, namespace: Namespace, key: str) -> str:
        """One id for a key in a scope, found without a search; a key may hold what an id may
        not.
        """
        return (
            "langgraph-"
            + hashlib.sha256(json.dumps([self.scope(namespace), key]).encode()).hexdigest()[:32]
        )

    def _document(self, op: PutOp) -> cmt_sdk.Document | None:
        """The document that an item is kept as; None for a deletion. Raises InvalidDocument."""
        if op.value is None:
            return None
        value = dict(op.value)
        try:
            kept = json.dumps({"key": op.key, "value": value, "put": datetime.now(UTC).isoformat()})
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidDocument(
                f"the value of {op.key!r:.60} is no JSON ({error}): give text, numbers, lists,"
                " dicts"
            ) from error
        text = self._text(value, op.index)
        expires_at = None if op.ttl is None else _in(op.ttl)
        whole, metadata = packed(text or NOT_INDEXED, kept, ITEM)
        metadata[INDEXED] = bool(text)
        if op.ttl is not None and expires_at:
            metadata |= {TTL: min(op.ttl, LONGEST_TTL), EXPIRES: expires_at.timestamp()}
        scope, name = self.scope(op.namespace), self._id(op.namespace, op.key)
        return cmt_sdk.Document(whole, name, scope=scope, metadata=metadata, expires_at=expires_at)

    def _text(self, value: dict[str, Any], index: Any) -> str:
        """What search and reader see of a value; empty when it is not indexed."""
        paths = [] if index is False else index or self._fields
        parts = [
            part
            for path in paths
            for part in (_lines(value) if path == "$" else get_text_at_path(value, path))
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
                except AlreadyExists:  # another process has put it in this moment
                    self._replace(new)

    def _replace(self, new: cmt_sdk.Document) -> None:
        self._memory.update(
            new.id, new.text, metadata=new.metadata, expires_at=new.expires_at, wait=self._wait
        )

    # -- expiry -----------------------------------------------------------------------------------

    def _refresh(self, document: cmt_sdk.Document) -> None:
        """Begin an item's time to live anew. Only the one column: another process may be putting a
        value now.
        """
        ttl = document.metadata.get(TTL)
        if isinstance(ttl, int | float):
            with suppress(DocumentNotFound):
                self._memory.update(document.id, expires_at=_in(ttl))

    def sweep_ttl(self) -> int:
        """Erase expired items, and what was written over, from the files; returns how many items
        have gone.

        `Memory.forget` reaches expired documents by metadata only, so first the living ones that
        were read since they were put get their new time there.
        """
        stats = self._memory.stats()
        # nothing has expired or was written over: the files need not be written anew
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
        """Sweep in a thread, every so many minutes (those of `ttl`, else 5), until
        `stop_ttl_sweeper`.
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
        """Stop sweeping; False when the thread was still at it after `timeout` seconds. Call it
        before closing the memory.
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


def _in(minutes: float) -> datetime:
    """The moment in so many minutes. Raises InvalidInput."""
    if (
        isinstance(minutes, bool)
        or not isinstance(minutes, int | float)
        or math.isnan(minutes)
        or minutes <= 0
    ):
        raise InvalidInput(f"ttl={minutes!r}: give minutes above 0, or None for no end")
    return datetime.now(UTC) + timedelta(minutes=min(minutes, LONGEST_TTL))


def _lines(value: Any) -> list[str]:
    """A JSON value as lines `path: value`. With a stack of its own: values may lie deep."""
    lines: list[str] = []
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        path, this = left.pop()
        if isinstance(this, Mapping):
            left += [
                (f"{path}.{name}" if path else str(name), inner)
                for name, inner in reversed(list(this.items()))
            ]
        elif isinstance(this, list | tuple):
            left += [(path, inner) for inner in reversed(this)]
        elif this is not None and this != "":
            lines.append(f"{path}: {this if isinstance(this, str) else json.dumps(this)}")
    return lines


def _matches(condition: MatchCondition, namespace: Namespace) -> bool:
    """A namespace against a path whose * stands for any one label, from its start or from its
    end.
    """
    path = condition.path
    if condition.match_type not in ("prefix", "suffix"):
        raise InvalidFilter(f"match_type={condition.match_type!r}: choose one of prefix, suffix")
    part = (
        namespace[: len(path)]
        if condition.match_type == "prefix"
        else namespace[max(0, len(namespace) - len(path)) :]
    )
    return len(part) == len(path) and all(
        wanted in ("*", label) for wanted, label in zip(path, part, strict=True)
    )


def _fits(value: Any, wanted: Any) -> bool:
    """A value against a filter, at every depth: an operator, the same list, or a dict with at least
    these entries.
    """
    if isinstance(wanted, Mapping):
        if any(name.startswith("$") for name in wanted):
            return all(_compares(value, name, bound) for name, bound in wanted.items())
        return isinstance(value, Mapping) and all(
            _fits(value.get(name), inner) for name, inner in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list) and len(value) == len(wanted) and all(map(_fits, value, wanted))
        )
    return bool(value == wanted)


def _compares(value: Any, name: str, bound: Any) -> bool:
    """One operator. Numbers, and text that reads as numbers, are ordered by size, other text by its
    letters.
    """
    if name not in OPERATORS:
        raise InvalidFilter(f"filter operator {name!r}: choose one of {', '.join(OPERATORS)}")
    if name in ORDERED:
        try:
            value, bound = float(value), float(bound)
        except (TypeError, ValueError):
            if not (isinstance(value, str) and isinstance(bound, str)):
                return False
    return bool(OPERATORS[name](value, bound))
