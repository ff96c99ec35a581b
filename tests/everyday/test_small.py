"""Kind 16: small things that stopped people. No model."""

from __future__ import annotations

import copy
import json
import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import cmt_sdk
from cmt_cli import train as train_command
from cmt_cli.main import main
from cmt_cli.options import parse_value
from cmt_sdk import errors
from cmt_sdk.config.settings import Settings
from cmt_sdk.memory import assembly
from cmt_sdk.testing.fakes import FakeEngine, open_fake
from tests.unit.conftest import Command

LISBON = "The museum moved to Lisbon in 2019."


@pytest.fixture
def memory(tmp_path):
    """Three documents."""
    with open_fake(tmp_path / "notes") as opened:
        opened.add_many([LISBON, "Ann likes tea.", "The boat is in Genoa."])
        yield opened


# -- a page of a listing -------------------------------------------------------------------------


def test_a_page_is_iterated_for_its_documents(memory):
    """As `documents` is; it has a length, and an empty one is nothing."""
    assert [d.text for d in memory.list()] == [LISBON, "Ann likes tea.", "The boat is in Genoa."]
    page = memory.list(limit=2)
    assert (len(page), LISBON in [d.text for d in page]) == (2, True)
    assert [d.text for d in memory.list(limit=2, cursor=page.next_cursor)] == [
        "The boat is in Genoa."
    ]
    assert not memory.list(scope="nobody")
    assert list(copy.copy(page)) == list(page.documents)


# -- names ---------------------------------------------------------------------------------------

FAMILY = sorted(name for name, value in vars(errors).items() if isinstance(value, type))


@pytest.mark.parametrize("name", FAMILY)
def test_errors_are_at_the_front_door(name):
    """`except cmt_sdk.DocumentNotFound` needs no other module."""
    assert getattr(cmt_sdk, name) is getattr(errors, name)
    assert name in cmt_sdk.__all__


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("DocumentNotfound", "DocumentNotFound"), ("opne", "open"), ("Memry", "Memory")],
)
def test_a_name_that_there_is_not_names_its_module(wrong, right):
    """Python proposes the nearest one: the error carries what it needs for that."""
    with pytest.raises(
        AttributeError, match=f"module 'cmt_sdk' has no attribute '{wrong}'"
    ) as raised:
        getattr(cmt_sdk, wrong)
    assert (raised.value.name, raised.value.obj) == (wrong, cmt_sdk)
    assert right in dir(cmt_sdk)


def test_a_memory_tells_where_it_is(tmp_path):
    """And whether it is closed."""
    with open_fake(tmp_path / "notes") as opened:
        assert repr(opened) == f"<Memory in '{tmp_path}/notes', model 'smollm2-135m-instruct'>"
    assert repr(opened).endswith("model 'smollm2-135m-instruct', closed>")


def test_help_names_every_mode_of_search():
    """Reranked too."""
    for mode in ("fused", "reranked", "vector", "text"):
        assert f'"{mode}"' in cmt_sdk.Memory.search.__doc__


MISSPELT: list[tuple[str, Any, str]] = [
    (
        "ask scop",
        lambda m: m.model.ask("q", scop="a"),
        "ask() has no argument 'scop': did you mean 'scope'? It takes budget, history,",
    ),
    ("ask stream", lambda m: m.model.ask("q", stream=True, reder="text"), "did you mean 'reader'?"),
    (
        "ask other",
        lambda m: m.model.ask("q", temperature=1),
        "ask() has no argument 'temperature': it takes budget, history, k, max_tokens",
    ),
    ("chat", lambda m: m.chat(kk=3), "chat() has no argument 'kk': did you mean 'k'?"),
    ("chat stream", lambda m: m.chat(stream=True), "chat() has no argument 'stream'"),
    ("chat history", lambda m: m.chat(history=[]), "chat() has no argument 'history'"),
    (
        "update",
        lambda m: m.update("x", soruce="y"),
        "update() has no argument 'soruce': did you mean 'source'? It takes expires_at,",
    ),
    (
        "update other",
        lambda m: m.update("x", tags="y"),
        "it takes expires_at, metadata, scope, source, text, wait",
    ),
]


@pytest.mark.parametrize(
    ("call", "expected"), [m[1:] for m in MISSPELT], ids=[m[0] for m in MISSPELT]
)
def test_a_misspelt_option_is_refused_at_once(memory, call, expected):
    """With the nearest name and all others; by `chat` when it is made."""
    with pytest.raises(TypeError) as raised:
        call(memory)
    assert expected in str(raised.value)


@pytest.mark.parametrize("options", [{"reader": "txt"}, {"k": 0}, {"max_tokens": 0}], ids=str)
def test_a_wrong_value_is_refused_when_the_conversation_is_made(memory, options):
    """Not at the first thing that is said."""
    with pytest.raises(errors.InvalidSetting):
        memory.chat(**options)


# -- folders and settings ------------------------------------------------------------------------


def test_a_new_memory_among_notes_says_so(tmp_path, caplog):
    """They are not read; once it is there, and in a folder of its own, nothing is said."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("a.md", "b.md", "c.txt", "d.pdf", ".hidden"):
        (notes / name).write_text("A note.", "utf-8")
    with caplog.at_level(logging.WARNING, "cmt_sdk"):
        open_fake(notes).close()
        assert (
            "holds other files (a.md, b.md, c.txt, …), which opening it does not read"
            in caplog.text
        )
        assert "cmt_sdk.memory_path(NAME)" in caplog.text
        caplog.clear()
        for folder in (notes, tmp_path / "own", tmp_path / "own"):
            open_fake(folder).close()
        (tmp_path / "empty").mkdir()
        open_fake(tmp_path / "empty").close()
    assert caplog.text == ""


def test_the_command_says_it_as_a_warning(cmt: Command, tmp_path):
    """On stderr, and goes on."""
    (tmp_path / "a.md").write_text("A note.", "utf-8")
    done = cmt("add", "--text", LISBON, "-m", f"{tmp_path}/")
    assert "warning: " in done.stderr
    assert "a.md" in done.stderr
    assert done.stdout == "1 added, 0 updated, 0 unchanged\n"


@pytest.mark.parametrize(
    ("has", "adapter", "shown"),
    [
        (False, "default", "default (none for this model)"),
        (True, "default", "default"),
        (False, "none", "none"),
    ],
)
def test_config_says_whether_there_is_an_adapter(cmt: Command, monkeypatch, has, adapter, shown):
    """The shipped one is for the default model alone; JSON keeps the setting's value."""
    monkeypatch.setattr("cmt_sdk.weights.bundle.has_shipped_adapter", lambda _model: has)
    with open_fake(cmt.home / "default", adapter=adapter) as opened:
        opened.add(LISBON)
    assert f"adapter\t{shown}\n" in cmt("config").stdout
    assert cmt.json("config")["settings"]["adapter"] == adapter
    assert cmt("config", "set", "adapter", adapter).stdout == f"adapter = {shown}\n"


def test_config_without_the_model_shows_the_setting(cmt: Command):
    """Whether there is an adapter cannot be told then."""
    assert "adapter\tdefault\n" in cmt("config").stdout


@pytest.mark.parametrize(
    ("trained", "compressor", "warned"),
    [("kv", "soft", True), ("soft", "soft", False), ("kv", "kv", False), ("", "soft", True)],
)
def test_soft_without_training_is_warned_of(monkeypatch, caplog, trained, compressor, warned):
    """When the memory is opened, with the command that trains it."""
    bundle = SimpleNamespace(compressor=trained or "kv")
    monkeypatch.setattr("cmt_sdk.weights.bundle.find_bundle", lambda *_: bundle)
    monkeypatch.setattr(
        "cmt_sdk.weights.registry.model_info", lambda _: SimpleNamespace(sha256="0" * 64)
    )
    with caplog.at_level(logging.WARNING, "cmt_sdk"):
        assembly._warn_of_untrained(Settings(compressor=compressor))
    assert ("`cmt train --part soft`" in caplog.text) == warned


# -- metadata ------------------------------------------------------------------------------------

TYPED: list[tuple[str, Any]] = [
    ("2020", 2020), ("-3", -3), ("0", 0), ("0.5", 0.5), ("1.0", 1.0), ("1e-07", 1e-07), ("true", True), ("null", None),
    ("1.10", "1.10"), ("12.50", "12.50"), ("007", "007"), ("12e3", "12e3"), ("1e3", "1e3"), ("-0", "-0"), ("+5", "+5"),
    (" 5", " 5"), ("5 ", "5 "), ("1_000", "1_000"), ("0.10000000000000000001", "0.10000000000000000001"), ("1E5", "1E5"),
    ("3.0.1", "3.0.1"), ('"2020"', "2020"), ('"1.10"', "1.10"), ("0x1F", "0x1F"), ("NaN", "NaN"), ("٣", "٣"), ("", ""),
    ("9007199254740993", 9007199254740993), ("0049301234567", "0049301234567"), ("1,5", "1,5"), ("True", "True"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), TYPED, ids=[repr(t) for t, _ in TYPED])
def test_a_number_is_one_only_where_nothing_of_it_is_lost(text, value):
    """Versions, article and telephone numbers stay what was typed."""
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


WHERE = [
    ("version=1.10", ["new", "old"]),
    ("version==1.10", ["new", "old"]),
    ("version=1.1", ["old"]),
    ('version="1.10"', ["new"]),
    ("version!=1.10", ["old", "other"]),
    ("version>1.05", ["new", "old", "other"]),
    ("version<=1.10", ["new", "old"]),
    ("version>1.2", ["other"]),
    ('version=["1.10", 2]', ["new", "other"]),
    ("price>12", ["new", "other"]),
    ("price<12.60", ["new", "old"]),
    ("price=12.50", ["new"]),
    ("id=12e3", ["new"]),
    ("id<13000", ["new"]),
    ("id=007", ["old"]),
]


@pytest.mark.parametrize(("condition", "found"), WHERE, ids=[w[0] for w in WHERE])
def test_a_filter_finds_what_was_typed(cmt: Command, condition, found):
    """Also what an earlier release made a number of; less and more are asked of the numbers."""
    with open_fake(cmt.home / "default") as opened:
        opened.add("The old one.", id="old", metadata={"version": 1.1, "price": 9.99, "id": "007"})
    cmt(
        "add",
        "--text",
        "The new one.",
        "--source",
        "new",
        "--meta",
        "version=1.10",
        "--meta",
        "price=12.50",
        "--meta",
        "id=12e3",
    )
    cmt(
        "add",
        "--text",
        "The other one.",
        "--source",
        "other",
        "--meta",
        "version=2",
        "--meta",
        "price=13",
    )
    shown = [
        json.loads(line) for line in cmt("list", "--json", "--where", condition).stdout.splitlines()
    ]
    assert sorted(d["source"] or d["id"] for d in shown) == found


# -- answers that were cut -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "text", "truncated"),
    [(64, LISBON, False), (3, "The museum moved", True), (7, LISBON, True), (8, LISBON, False)],
)
def test_an_answer_says_whether_it_was_cut(memory, most, text, truncated):
    """As OpenAI's finish_reason does; of a stream too."""
    answer = memory.model.ask("Where did the museum move?", max_tokens=most)
    assert (answer.text, answer.truncated) == (text, truncated)
    assert (
        memory.model.ask(
            "Where did the museum move?", max_tokens=most, stream=True
        ).answer.truncated
        == truncated
    )
    assert memory.chat(max_tokens=most).say("Where did the museum move?").truncated == truncated


@pytest.mark.parametrize("reader", ["memory", "text", "auto"])
def test_a_cut_answer_is_marked(cmt: Command, reader):
    """An ellipsis at its end, and the option that allows more; nothing where it is whole."""
    cmt("add", "--text", LISBON)
    cut = cmt("ask", "Where did the museum move?", "--max-tokens", 3, "--reader", reader)
    assert cut.stdout.splitlines()[0].replace(" …", "…") == "The museum moved…"
    assert cut.stderr == "the answer was truncated at 3 tokens: --max-tokens 12 allows more\n"
    whole = cmt("ask", "Where did the museum move?")
    assert (whole.stdout.splitlines()[0], whole.stderr) == (LISBON, "")
    assert cmt.json("ask", "Where did the museum move?", "--max-tokens", 3)["truncated"] is True


def test_a_cut_turn_is_marked(cmt: Command):
    """In a conversation too, which takes the option."""
    cmt("add", "--text", LISBON)
    said = cmt("chat", "--max-tokens", 3, stdin="Where did the museum move?\n")
    assert said.stdout.replace(" …", "…") == "The museum moved…\n"
    assert "--max-tokens 12 allows more" in said.stderr


def test_nothing_found_is_not_cut(memory):
    """However short an answer may be."""
    assert not memory.model.ask("Anything?", max_tokens=1, scope="nobody").truncated


# -- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "seconds", "expected"),
    [
        (1, 39.3, "; --minutes 1 ends it after about 1 step"),
        (0.1, 39.3, "; --minutes 0.1 ends it after about 1 step"),
        (30, 2.0, "; --minutes 30 ends it after about 900 steps"),
        (math.inf, 39.3, ""),
        (10_000, 1.0, ""),
    ],
)
def test_the_announcement_counts_the_steps_that_fit(minutes, seconds, expected):
    """Hours for a thousand steps say nothing to who has a minute."""
    recipe = SimpleNamespace(minutes=minutes, plan=SimpleNamespace(steps=1000))
    prepared = SimpleNamespace(recipe=recipe, needs=SimpleNamespace(seconds=seconds))
    assert train_command._limit(prepared) == expected


def test_help_tells_the_rules(cmt: Command):
    """Of metadata and imports."""
    assert "also 1.10, 007" in " ".join(cmt("add", "--help").stdout.split())
    assert "The import deletes nothing" in " ".join(cmt("import", "--help").stdout.split())
    assert CliRunner().invoke(main, ["chat", "--help"]).output.count("--max-tokens") == 1
    assert FakeEngine().loaded
