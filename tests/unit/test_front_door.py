"""The front door: the short form of asking, one passage per document, rules and names for clients,
errors that carry what they name.
"""

from __future__ import annotations

import inspect
import pickle
from dataclasses import replace

import pytest

import cmt_sdk
from cmt_sdk.testing.fakes import FakeEngine, open_fake

LISBON = "The museum moved to Lisbon in 2019."
HARBOUR = "The harbour opens at nine."


@pytest.fixture
def memory(tmp_path):
    """An open memory with a fake language model."""
    with open_fake(tmp_path / "notes") as opened:
        yield opened


def test_a_memory_is_asked_as_its_model_is(memory):
    """`memory.ask` is the short form: the same parameters, answer, stream and errors."""
    memory.add(LISBON, scope="user/ann", metadata={"year": 2019})
    memory.add(HARBOUR)
    question = "Where did the museum move?"
    short, long = memory.ask(question, k=1), memory.model.ask(question, k=1)
    assert replace(short, milliseconds={}) == replace(long, milliseconds={})
    assert short.text == LISBON
    assert memory.ask(question, scope="user/bob").abstained
    assert memory.ask(question, outside="user").sources[0].text == HARBOUR
    assert memory.ask(question, where={"year": {"<": 2019}}).abstained
    running = memory.ask(question, stream=True)
    assert isinstance(running, cmt_sdk.Stream)
    assert "".join(running).strip() == running.answer.text == LISBON
    with pytest.raises(cmt_sdk.InvalidSetting, match="reader='txt': choose one of memory, text"):
        memory.ask(question, reader="txt")
    with pytest.raises(cmt_sdk.InvalidFilter, match="where="):
        memory.ask(question, where=["year"])


def test_asking_and_conversing_spell_their_parameters():
    """As an editor shows them: with names and defaults, and no `**options`."""
    ask = inspect.signature(cmt_sdk.Memory.ask).parameters
    assert [(n, p.default) for n, p in ask.items() if n in ("reader", "max_tokens", "k")] == [
        ("k", None),
        ("reader", "memory"),
        ("max_tokens", 64),
    ]
    for call in (cmt_sdk.Memory.ask, cmt_sdk.Memory.chat, cmt_sdk.Memory.update):
        kinds = {p.kind for p in inspect.signature(call).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds
        assert "Args:" in (call.__doc__ or "")
    assert inspect.signature(cmt_sdk.MemoryModel.ask) == inspect.signature(cmt_sdk.Memory.ask)


def test_a_field_that_is_not_given_stays_and_none_empties_it(memory):
    """`update` changes what it is given, no more."""
    known = memory.add(LISBON, source="trip.md", scope="user/ann", metadata={"year": 2019})
    changed = memory.update(known.id, metadata={"year": 2020})
    assert (changed.source, changed.scope, changed.version) == ("trip.md", "user/ann", 1)
    assert dict(changed.metadata) == {"year": 2020}
    assert memory.update(known.id, source=None).source is None


@pytest.mark.parametrize("history", [None, []])
def test_a_search_can_find_each_document_once(tmp_path, history):
    """With its best passage, though several passages of one document come first."""
    with open_fake(tmp_path / "notes", FakeEngine(), passage_tokens=16) as memory:
        museum = memory.add("\n\n".join(f"The museum has hall number {n}." * 2 for n in range(9)))
        harbour = memory.add(HARBOUR)
        assert {m.document.id for m in memory.search("museum hall", 2)} == {museum.id}
        found = memory.search("museum hall", 2, per_document=True, history=history)
        assert [m.document.id for m in found] == [museum.id, harbour.id]
        assert found[0].passage.id == memory.search("museum hall", 1)[0].passage.id
        assert len(memory.search("museum hall", 9, per_document=True)) == 2
        (vector,) = memory.model.embed(["museum hall"])
        near = memory.nearest(vector, 2, per_document=True)
        assert [m.document.id for m in near] == [museum.id, harbour.id]


def test_a_folder_says_whether_a_memory_is_in_it(tmp_path, memory):
    """An empty file is none, nor is a name that no system takes."""
    assert cmt_sdk.Memory.exists(memory.path)
    assert not cmt_sdk.Memory.exists(tmp_path)
    (tmp_path / cmt_sdk.MEMORY_FILES[0]).touch()
    assert not cmt_sdk.Memory.exists(str(tmp_path))
    assert not cmt_sdk.Memory.exists("a\0b")


def test_a_folder_says_whether_an_adapter_is_in_it(tmp_path):
    """By its manifest."""
    assert not cmt_sdk.is_adapter(tmp_path)
    (tmp_path / "cmt-adapter.json").write_text("{}")
    assert cmt_sdk.is_adapter(str(tmp_path))
    assert not cmt_sdk.is_adapter("a\0b")


def test_texts_and_scopes_have_one_rule():
    """Clients and the memory apply the same."""
    assert cmt_sdk.clean_text("a\0b\ud800c") == "a\ufffdb\ufffdc"
    assert all(map(cmt_sdk.is_scope, ("", "user", "user/ann", "a b/..c")))
    assert not any(map(cmt_sdk.is_scope, ("/", "user/", "/user", "a//b", "..", "a/./b", 3, None)))
    with pytest.raises(cmt_sdk.InvalidDocument, match="'a//b': give names with a slash"):
        cmt_sdk.check_scope("a//b")


def test_values_of_options_are_listed():
    """For menus and schemas of clients."""
    assert cmt_sdk.READERS == ("memory", "text", "auto", "none")
    assert cmt_sdk.SEARCH_MODES == ("reranked", "fused", "vector", "text")
    assert cmt_sdk.TURNS_KEPT > 0


def test_errors_carry_what_they_name(tmp_path, memory):
    """The id that was given, the fields that differ; also after a pickle."""
    with pytest.raises(cmt_sdk.DocumentNotFound) as missing:
        memory.get("nosuch")
    assert missing.value.id == "nosuch"
    again = pickle.loads(pickle.dumps(missing.value))  # noqa: S301 - our own bytes
    assert (again.id, str(again)) == ("nosuch", str(missing.value))
    with pytest.raises(cmt_sdk.DocumentNotFound) as gone:
        memory.update("nosuch", HARBOUR)
    assert gone.value.id == "nosuch"
    memory.add(LISBON)
    memory.close()
    with (
        open_fake(memory.path, FakeEngine.of(model="other", base="another")) as other,
        pytest.raises(cmt_sdk.ModelMismatch) as mismatch,
    ):
        other.search("museum")
    assert [d.partition(":")[0] for d in mismatch.value.differences] == ["base"]


def test_a_page_is_iterated_for_its_documents(memory):
    """And has their number."""
    memory.add(LISBON)
    memory.add(HARBOUR)
    page = memory.list(limit=1)
    assert ([d.text for d in page], len(page)) == ([LISBON], 1)
    assert [d.text for d in memory.list(cursor=page.next_cursor)] == [HARBOUR]
