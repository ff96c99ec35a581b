"""The LangGraph store: the same answers as LangGraph's own in-memory store, and what that one
lacks: expiry and recall.
"""

import asyncio
import builtins
import importlib
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from cmt_adapters.langgraph import CMTStore
from cmt_sdk.errors import InvalidDocument, InvalidFilter, InvalidInput, MissingExtra
from cmt_sdk.testing.fakes import open_fake

ANN = ("users", "ann")


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        yield opened


@pytest.fixture
def store(memory):
    return CMTStore(memory)


class Oracle(InMemoryStore):
    """LangGraph's store, less one thing: it lists namespaces that were only read, or that hold
    nothing any more.
    """

    def _handle_list_namespaces(self, op):
        for namespace in [n for n, items in self._data.items() if not items]:
            del self._data[namespace]
        return super()._handle_list_namespaces(op)


labels = st.sampled_from(["a", "b", "a/b", "%2F", "ä", "*", " ", "\ud800"])
namespaces = st.lists(labels, max_size=3).map(tuple)
keys = st.sampled_from(["k", "l", "k/l", "", "\0", "\udfff", "long " * 20])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.just("x\ud83d\0")
)
deep = st.recursive(
    scalars,
    lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=3), s, max_size=3),
    max_leaves=6,
)
values = st.dictionaries(st.sampled_from(["n", "kind", "deep", "", "$odd"]), deep, max_size=3)
numbers = st.integers(-3, 3) | st.sampled_from([0.5, -1.5])
items = values | st.fixed_dictionaries({"n": numbers, "kind": st.sampled_from(["tea", "cake"])})
orderings = st.dictionaries(
    st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"]), numbers, min_size=1, max_size=2
)
filters = (
    st.none()
    | st.fixed_dictionaries(
        {"kind": st.sampled_from(["tea", "cake", {"$ne": "tea"}, {"$eq": "cake"}])}
    )
    | st.fixed_dictionaries({"n": orderings})
    | st.fixed_dictionaries(
        {"deep": st.fixed_dictionaries({"a": scalars}) | st.lists(scalars, max_size=2)}
    )
    | st.dictionaries(st.sampled_from(["n", "deep", "none"]), scalars, max_size=2)
)
conditions = st.builds(
    MatchCondition,
    st.sampled_from(["prefix", "suffix"]),
    st.lists(labels | st.just("*"), min_size=1, max_size=3).map(tuple),
)
operations = st.one_of(
    st.builds(
        PutOp,
        namespaces,
        keys,
        items,
        st.sampled_from([None, False, ["kind"], ["deep[*]"]]),
        st.none(),
    ),
    st.builds(PutOp, namespaces, keys, st.none(), st.none(), st.none()),
    st.builds(GetOp, namespaces, keys, st.booleans()),
    st.builds(
        SearchOp,
        namespaces,
        filters,
        st.integers(0, 12),
        st.integers(0, 3),
        st.none(),
        st.booleans(),
    ),
    st.builds(
        ListNamespacesOp,
        st.none() | st.lists(conditions, max_size=2).map(tuple),
        st.none() | st.integers(0, 3),
        st.integers(0, 8),
        st.integers(0, 2),
    ),
)


def plain(found):
    """A result without its times, which are checked to be there."""
    if isinstance(found, Item):
        assert found.created_at.tzinfo is not None
        assert found.updated_at >= found.created_at
        return type(found), found.namespace, found.key, found.value
    return [plain(f) for f in found] if isinstance(found, list) else found


def whole(op):
    """The same search or listing without pages."""
    return op._replace(limit=1000, offset=0)


def by_namespace(found):
    """Results grouped: the order among namespaces is not defined, the order in each is that of
    creation.
    """
    groups = {}
    for item in found:
        groups.setdefault(item.namespace, []).append(plain(item))
    return groups


def expected(oracle, batch):
    """What LangGraph's store answers, and for searches all pages of it; None where it cannot
    compare.
    """
    full = [whole(op) if isinstance(op, SearchOp) else op for op in batch]
    try:
        return oracle.batch(full)
    except (TypeError, ValueError):
        # a number against what is none: it raises, a database finds nothing
        return None


@pytest.mark.parametrize(
    "run", [lambda s, b: s.batch(b), lambda s, b: asyncio.run(s.abatch(b))], ids=["batch", "abatch"]
)
@pytest.mark.parametrize("scope", ["", "graphs/mine"])
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=st.lists(st.lists(operations, max_size=6), max_size=6))
def test_the_same_operations_have_the_same_results_as_in_langgraphs_store(run, scope, batches):
    """Values, keys, namespaces, order and pages; reads of a batch come before its puts, the last
    put of a key counts.

    A query only changes the order.
    """
    with tempfile.TemporaryDirectory() as folder, open_fake(Path(folder) / "notes") as memory:
        store, oracle = CMTStore(memory, scope=scope), Oracle()
        for batch in batches:
            wanted = expected(oracle, batch)
            if wanted is None:
                continue
            searches = [whole(op) for op in batch if isinstance(op, SearchOp)]
            everything = run(store, searches)
            for every, asked in zip(
                everything,
                run(store, [s._replace(query="tea or cake") for s in searches]),
                strict=True,
            ):
                assert sorted(map(repr, map(plain, asked))) == sorted(map(repr, map(plain, every)))
            for op, mine, theirs in zip(batch, run(store, batch), wanted, strict=True):
                if not isinstance(op, SearchOp):
                    assert plain(mine) == plain(theirs)
                    continue
                every = everything.pop(0)
                assert by_namespace(every) == by_namespace(theirs)
                assert plain(mine) == plain(every[op.offset : op.offset + op.limit])


def test_values_outlive_the_process(tmp_path):
    """A store opened again over the same folder holds the same items."""
    value = {
        "text": "Ann likes tea.",
        "deep": [{"a": [1, 2.5, None, {"b": "\0\ud800"}]}],
        "big": 2**80,
    }
    with open_fake(tmp_path / "notes") as memory:
        CMTStore(memory).put(ANN, "tea", value)
    with open_fake(tmp_path / "notes") as memory:
        found = CMTStore(memory).get(ANN, "tea")
    assert (found.value, found.key, found.namespace) == (value, "tea", ANN)


def test_a_put_keeps_the_time_of_creation(store):
    """An item that is written over is still as old as it is, and updated now; reading changes
    neither.
    """
    store.put(ANN, "tea", {"n": 1}, ttl=60)
    first = store.get(ANN, "tea")
    store.put(ANN, "tea", {"n": 2}, ttl=60)
    second = store.get(ANN, "tea")
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    assert store.get(ANN, "tea").updated_at == second.updated_at


def test_what_is_changed_outside_leaves_the_store_alone(store):
    """Neither the value that was put nor one that was read is a way into the store."""
    given = {"likes": ["tea"]}
    store.put(ANN, "k", given)
    given["likes"].append("cake")
    store.get(ANN, "k").value["likes"].append("cake")
    assert store.get(ANN, "k").value == {"likes": ["tea"]}


def test_a_query_finds_by_words_and_meaning(store):
    """Best first, with scores that fall; what the query cannot find follows without a score."""
    store.put(ANN, "tea", {"text": "Ann likes green tea."})
    store.put(ANN, "boat", {"text": "The ferry to Genoa leaves at nine."})
    store.put(ANN, "secret", {"text": "green tea, and which one Ann likes"}, index=False)
    found = store.search(("users",), query="Which tea does Ann like?")
    assert [f.key for f in found] == ["tea", "boat", "secret"]
    assert found[0].score > found[1].score >= 0
    assert found[2].score is None
    assert [
        f.key for f in store.search(("users",), query="Which tea does Ann like?", limit=1, offset=1)
    ] == ["boat"]
    assert all(isinstance(f, SearchItem) for f in found)


def test_a_query_stays_in_its_namespace_and_filter(store):
    """Other namespaces, also those whose names begin alike, and items that the filter refuses are
    not found.
    """
    for n in range(30):
        store.put(
            ("users", "bob"), f"b{n}", {"text": f"Bob likes tea number {n}.", "year": 2000 + n}
        )
    store.put(("users", "bobby"), "b", {"text": "Bobby likes tea.", "year": 2025})
    found = store.search(
        ("users", "bob"), query="likes tea", filter={"year": {"$gte": 2028}}, limit=5
    )
    assert {f.key for f in found} == {"b28", "b29"}
    assert all(f.score for f in found)


def test_a_long_value_is_one_result(store):
    """Several passages of one item that fit a query are one item, and do not crowd out another."""
    store.put(ANN, "long", {"text": " ".join(f"Tea number {n} is green tea." for n in range(400))})
    store.put(ANN, "short", {"text": "A cup of green tea."})
    assert {f.key for f in store.search(ANN, query="green tea", limit=2)} == {"long", "short"}


def test_only_the_fields_that_are_named_are_searched(memory):
    """`index` of a put, else `fields` of the store, say what is seen of a value; the rest stays in
    the value.
    """
    store = CMTStore(memory, fields=["title"])
    store.put(ANN, "a", {"title": "Tea", "body": "zebra"})
    store.put(
        ANN,
        "b",
        {"title": "Cake", "notes": [{"said": "zebra"}, {"said": "koala"}]},
        index=["notes[*].said"],
    )
    assert sorted(d.text for d in memory.documents(scope="users/ann")) == ["Tea", "zebra\nkoala"]
    assert store.search(ANN, query="zebra")[0].key == "b"


def test_a_memory_answers_from_what_a_graph_has_stored(store, memory):
    """A namespace is a scope, and a value reads as lines of text."""
    store.put(ANN, "tea", {"drinks": {"tea": "Ann likes green tea."}, "cups": 3})
    answer = memory.model.ask("Which tea does Ann like?", scope=store.scope(ANN))
    assert "Ann likes green tea." in answer.text
    assert (
        memory.get(answer.sources[0].document_id).text
        == "drinks.tea: Ann likes green tea.\ncups: 3"
    )


def test_namespaces_are_scopes_that_can_be_read_back(memory):
    """Labels with slashes and percent signs are escaped, so that ("a", "b") and ("a/b",) are two
    namespaces.
    """
    store = CMTStore(memory, scope="graphs")
    for namespace in [("a", "b"), ("a/b",), ("a%2Fb",), ("ä ö",)]:
        store.put(namespace, "k", {"is": list(namespace)})
    assert store.list_namespaces() == [("a", "b"), ("a%2Fb",), ("a/b",), ("ä ö",)]
    assert [f.value for f in store.search(("a/b",))] == [{"is": ["a/b"]}]
    assert {d.scope for d in memory.documents()} == {
        "graphs/a/b",
        "graphs/a%2Fb",
        "graphs/a%252Fb",
        "graphs/ä ö",
    }


def test_namespaces_are_listed_by_pattern_and_depth(store):
    """Prefix, suffix, wildcards and a depth, as documented."""
    for namespace in [
        ("a", "b", "c"),
        ("a", "b", "d", "e"),
        ("a", "b", "d", "i"),
        ("a", "b", "f"),
        ("a", "c", "f"),
    ]:
        store.put(namespace, "k", {"n": 1})
    assert store.list_namespaces(prefix=("a", "b"), max_depth=3) == [
        ("a", "b", "c"),
        ("a", "b", "d"),
        ("a", "b", "f"),
    ]
    assert store.list_namespaces(prefix=("a", "*", "f")) == [("a", "b", "f"), ("a", "c", "f")]
    assert store.list_namespaces(suffix=("d", "*")) == [("a", "b", "d", "e"), ("a", "b", "d", "i")]
    assert store.list_namespaces(suffix=("f",), limit=1, offset=1) == [("a", "c", "f")]


def test_documents_of_others_are_left_alone(store, memory):
    """What stands in the same scope and is no item is neither found nor listed nor swept."""
    memory.add("Ann moved to Lisbon.", scope="users/ann")
    store.put(ANN, "tea", {"n": 1})
    assert [f.key for f in store.search(ANN, query="Lisbon")] == ["tea"]
    store.sweep_ttl()
    assert memory.count(scope="users/ann") == 2


def patiently(asked, seconds=20):
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not asked():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_item_expires_and_its_bytes_are_swept(store, memory):
    """After its time an item is not returned, and a sweep erases it from the disk; others stay."""
    store.put(ANN, "brief", {"text": "xylophone"}, ttl=0.2 / 60)
    store.put(ANN, "long", {"text": "zebra"}, ttl=60)
    store.put(ANN, "ever", {"text": "koala"})
    patiently(lambda: store.get(ANN, "brief", refresh_ttl=False) is None)
    assert [f.key for f in store.search(ANN)] == ["long", "ever"]
    assert memory.stats().versions == 3
    assert store.sweep_ttl() == 1
    assert memory.stats().versions == 2
    assert store.sweep_ttl() == 0
    assert [f.key for f in store.search(ANN)] == ["long", "ever"]


def test_a_sweep_with_nothing_to_do_leaves_the_files_alone(store, memory):
    """Every few minutes the whole database would be much to write."""
    store.put(ANN, "tea", {"text": "zebra"}, ttl=60)
    before = {file: file.stat().st_mtime_ns for file in memory.path.iterdir()}
    assert store.sweep_ttl() == 0
    assert {file: file.stat().st_mtime_ns for file in memory.path.iterdir()} == before


def test_reading_refreshes_the_time_to_live(store, memory):
    """Get and search begin it anew, unless they say not to; a sweep knows about it."""
    store.put(ANN, "tea", {"n": 1}, ttl=60)
    (document,) = memory.documents()

    def expires():
        return memory.get(document.id).expires_at

    before = expires()
    store.get(ANN, "tea", refresh_ttl=False)
    store.search(ANN, refresh_ttl=False)
    assert expires() == before
    store.get(ANN, "tea")
    once = expires()
    store.search(ANN, query="n")
    assert before < once < expires()


def test_an_item_that_was_read_outlives_the_sweep_of_its_first_time(store, memory):
    """The sweep goes by the last access, not by the put: here the time of the put is over, that of
    the reading is not.
    """
    store.put(ANN, "tea", {"n": 1}, ttl=60)
    (document,) = memory.documents()
    memory.update(document.id, metadata={**document.metadata, "langgraph_expires": time.time() - 1})
    store.put(ANN, "old", {"n": 2})
    store.put(ANN, "old", {"n": 3})  # so that there is something to sweep
    assert store.sweep_ttl() == 0
    assert store.get(ANN, "tea").value == {"n": 1}
    assert memory.get(document.id).metadata["langgraph_expires"] > time.time() + 3000


def test_a_put_without_a_time_to_live_ends_it(store, memory):
    """Written over without one, an item stays."""
    store.put(ANN, "tea", {"n": 1}, ttl=60)
    store.put(ANN, "tea", {"n": 1})
    store.get(ANN, "tea")
    assert next(memory.documents()).expires_at is None


def test_the_configuration_gives_times_to_live(memory):
    """`default_ttl` holds for puts that do not say; `refresh_on_read` for reads that do not."""
    store = CMTStore(memory, ttl={"default_ttl": 60, "refresh_on_read": False})
    store.put(ANN, "tea", {"n": 1})
    before = next(memory.documents()).expires_at
    store.get(ANN, "tea")
    assert before is not None
    assert next(memory.documents()).expires_at == before


def test_a_thread_sweeps_until_it_is_stopped(store, memory):
    """Expired items go from the disk by themselves."""
    store.put(ANN, "brief", {"text": "xylophone"}, ttl=0.1 / 60)
    store.start_ttl_sweeper(0.05 / 60)
    patiently(lambda: memory.stats().versions == 0)
    assert store.stop_ttl_sweeper(timeout=20)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), True])
def test_a_time_to_live_that_is_none_is_refused(store, ttl):
    """The error names the value, and nothing is stored."""
    with pytest.raises(InvalidInput, match="ttl="):
        store.put(ANN, "tea", {"n": 1}, ttl=ttl)
    assert store.get(ANN, "tea") is None


def test_a_very_long_time_to_live_is_possible(store):
    """Times beyond the calendar are cut to what it can hold."""
    store.put(ANN, "tea", {"n": 1}, ttl=float("inf"))
    assert store.get(ANN, "tea").value == {"n": 1}


def test_what_is_no_json_is_refused_before_anything_is_stored(store):
    """A batch with one bad value puts nothing."""
    too_deep = {}
    for _ in range(5000):
        too_deep = {"in": too_deep}
    for bad in ({"x": object()}, too_deep):
        with pytest.raises(InvalidDocument, match="is not JSON"):
            store.batch([PutOp(ANN, "good", {"n": 1}), PutOp(ANN, "bad", bad)])
    assert store.search(ANN) == []


def test_unknown_operators_and_labels_are_refused(store):
    """Also where operations are given to `batch` directly."""
    store.put(ANN, "tea", {"n": 1})
    with pytest.raises(InvalidFilter, match=r"'\$near': choose one of \$eq"):
        store.search(ANN, filter={"n": {"$near": 1}})
    with pytest.raises(InvalidNamespaceError):
        store.batch([GetOp(("a.b",), "k")])
    with pytest.raises(InvalidInput, match="limit=-1"):
        store.search(ANN, limit=-1)


def test_what_cannot_be_ordered_does_not_fit(store):
    """A missing field or a list is neither above nor below a number; dates as text are ordered."""
    store.put(ANN, "tea", {"when": "2024-05-01", "list": [1]})
    assert [f.key for f in store.search(ANN, filter={"when": {"$gt": "2023-12-31"}})] == ["tea"]
    for name in ("missing", "list", "when"):
        assert store.search(ANN, filter={name: {"$gt": 0}}) == []


async def test_many_tasks_put_and_read_together(store):
    """No put is lost, and a put of one key by many leaves one item."""
    await asyncio.gather(*(store.aput(ANN, f"k{n % 5}", {"n": n}) for n in range(40)))
    assert len(await store.asearch(ANN, limit=100)) == 5
    await asyncio.gather(*(store.adelete(ANN, f"k{n}") for n in range(5)))
    assert await store.alist_namespaces() == []


def test_without_langgraph_the_error_is_its_install_line(monkeypatch):
    """Importing the adapter where LangGraph is missing says what to install."""
    real = builtins.__import__

    def hidden(name, *rest, **options):
        if name.startswith("langgraph"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "cmt_adapters.langgraph")
    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(MissingExtra, match=r"pip install 'cmt-sdk\[langgraph\]'"):
        importlib.import_module("cmt_adapters.langgraph")
