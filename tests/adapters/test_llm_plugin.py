"""The plugin for llm: memories as models, through llm's own command line, over real memories with a
fake language model.
"""

import builtins
import importlib
import json
import runpy
import sys
import tomllib
from pathlib import Path

import llm
import pluggy
import pytest
from click.testing import CliRunner
from llm.cli import cli
from llm.plugins import load_plugins, pm

import cmt_sdk
from cmt_adapters import llm_plugin
from cmt_sdk.errors import InvalidInput, MissingExtra
from cmt_sdk.memory import Memory
from cmt_sdk.testing.fakes import open_fake

FACTS = [
    "The museum moved to Lisbon in 2019.",
    "The harbour of Genoa opens at nine.",
    "Ann likes green tea.",
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home with two memories, an llm of its own, and the plugin in it; memories are opened with a
    fake model.
    """
    monkeypatch.setenv("CMT_HOME", str(tmp_path / "data_dir"))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setattr(cmt_sdk, "open", open_fake)
    with open_fake(cmt_sdk.memory_path(None)) as memory:
        for place, fact in zip(["museum", "harbour", "ann"], FACTS, strict=True):
            memory.add(fact, source=f"{place}.txt", scope=f"places/{place}")
    with open_fake(cmt_sdk.memory_path("work")) as memory:
        memory.add("The deadline of the harbour project is Friday.")
    load_plugins()
    ours = not pm.is_registered(llm_plugin)  # the installed package brings it by its entry point
    if ours:
        pm.register(llm_plugin)
    yield tmp_path / "data_dir"
    if ours:
        pm.unregister(llm_plugin)


def run(*arguments, code=0, stdin=None):
    """What one `llm` command prints."""
    done = CliRunner().invoke(cli, list(arguments), input=stdin, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_every_memory_is_a_model(home):
    """The default memory is `cmt`, the others are named; files in the home are none."""
    (home / "notes.txt").write_text("no memory")
    (home / ".hidden").mkdir()
    assert [
        m.model.model_id
        for m in llm.get_models_with_aliases()
        if m.model.model_id.startswith("cmt")
    ] == ["cmt", "cmt/work"]
    assert "CMTModel: cmt/work" in run("models")


def test_the_installed_package_brings_the_plugin(tmp_path, monkeypatch):
    """It is found by the entry point that pyproject.toml declares, here in a distribution that has
    nothing else.
    """
    project = tomllib.loads(
        (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    points = [f"{name} = {module}\n" for name, module in project["entry-points"]["llm"].items()]
    info = tmp_path / "cmt_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cmt-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[llm]\n{''.join(points)}")
    monkeypatch.syspath_prepend(tmp_path)
    manager = pluggy.PluginManager("llm")
    manager.add_hookspecs(llm.hookspecs)
    manager.load_setuptools_entrypoints("llm")
    registered = []
    manager.hook.register_models(
        register=lambda model, async_model: registered.append(model.model_id), model_aliases=[]
    )
    assert registered == ["cmt", "cmt/work"]


def test_without_any_memory_there_is_the_default_one(monkeypatch, tmp_path):
    """Before anything was added, asking it says what to do."""
    monkeypatch.setenv("CMT_HOME", str(tmp_path / "nothing"))
    assert "cmt add" in run("-m", "cmt", "Where?", code=1)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("how", [[], ["--no-stream"]])
def test_a_memory_answers(how):
    """Streaming or not, from the memory that is named."""
    assert run("-m", "cmt", "When does the harbour open?", *how).strip() == FACTS[1]
    assert (
        run("-m", "cmt/work", "When is the deadline?", *how).strip()
        == "The deadline of the harbour project is Friday."
    )


def test_an_answer_comes_in_pieces():
    """Streamed as it is written."""
    pieces = list(llm.get_model("cmt").prompt("When does the harbour open?"))
    assert pieces == [word + " " for word in FACTS[1].split()]


async def test_the_async_way_answers_the_same():
    """From the command line and from Python, in pieces, with sources."""
    response = llm.get_async_model("cmt").prompt("When does the harbour open?", k=1)
    assert [piece async for piece in response] == [word + " " for word in FACTS[1].split()]
    assert [s["source"] for s in (await response.json())["sources"]] == ["harbour.txt"]


def test_the_command_line_asks_in_the_async_way_too():
    """As with any model of llm."""
    assert run("-m", "cmt", "When does the harbour open?", "--async").strip() == FACTS[1]


def test_sources_and_costs_are_logged():
    """response_json has sources with their places, and what the answer cost; llm has the tokens."""
    response = llm.get_model("cmt").prompt("When does the harbour open?", k=1)
    told = response.json()
    assert [(s["source"], s["start"], s["end"]) for s in told["sources"]] == [
        ("harbour.txt", 0, 35)
    ]
    assert (told["reader"], told["abstained"], told["memory_tokens"]) == ("memory", False, 9)
    assert (response.usage().input, response.usage().output) == (5, 7)
    assert json.loads(json.dumps(told)) == told
    run("-m", "cmt", "When does the harbour open?", "-o", "k", "1")
    assert "harbour.txt" in run("logs", "--json")


def test_options_decide_what_is_read():
    """k, reader, scope and source go to the memory; an unknown reader is refused."""
    model = llm.get_model("cmt")
    assert len(model.prompt("Where is the museum?", k=2).json()["sources"]) == 2
    assert model.prompt("Where is the museum?", reader="text").json()["reader"] == "text"
    narrowed = model.prompt("Where is the museum?", scope="places/ann").json()["sources"]
    assert [s["text"] for s in narrowed] == [FACTS[2]]
    assert [s["text"] for s in model.prompt("Where?", source="mus*").json()["sources"]] == [
        FACTS[0]
    ]
    assert "reader" in run("-m", "cmt", "Where?", "-o", "reader", "psychic", code=1)
    assert run("-m", "cmt", "Where is the museum?", "-o", "max_tokens", "2").strip() == "The museum"


def test_a_conversation_goes_on(monkeypatch):
    """What was said before is history of the next question, in this process and in the next; `-s`
    comes along as data.
    """
    histories = []
    chat = Memory.chat

    def listening(self, *, turns=(), **options):
        histories.append([(turn.role, turn.content.strip()) for turn in turns])
        return chat(self, turns=turns, **options)

    monkeypatch.setattr(Memory, "chat", listening)
    run("-m", "cmt", "When does the harbour open?", "-s", "Be brief.")
    run("-c", "And the museum?")
    before = [("user", "When does the harbour open?"), ("assistant", FACTS[1])]
    assert histories == [[("system", "Be brief.")], [("system", "Be brief."), *before]]


def test_a_chat_keeps_the_memory_open(monkeypatch):
    """Several questions open it once."""
    opened = []
    monkeypatch.setattr(cmt_sdk, "open", lambda *a, **o: opened.append(a) or open_fake(*a, **o))
    said = run(
        "chat", "-m", "cmt", stdin="When does the harbour open?\nWhat does Ann like?\nquit\n"
    )
    assert (FACTS[1] in said, FACTS[2] in said, len(opened)) == (True, True, 1)


def test_nothing_to_answer_is_refused():
    """An empty prompt is an error in words."""
    with pytest.raises(InvalidInput, match="question is empty"):
        llm.get_model("cmt").prompt("").text()


def test_the_example_answers_with_sources(capsys):
    """The example asks through llm's Python interface."""
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "llm_sources.py"))
    example["main"]("When does the harbour open?")
    assert capsys.readouterr().out.splitlines() == [
        FACTS[1] + " ",
        "  harbour.txt[0:35]: " + FACTS[1],
    ]


def test_without_llm_the_error_is_its_install_line(monkeypatch):
    """Importing the plugin where llm is missing says what to install."""
    real = builtins.__import__

    def hidden(name, *rest, **options):
        if name == "llm":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "cmt_adapters.llm_plugin")
    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(MissingExtra, match=r"pip install 'cmt-sdk\[llm\]'"):
        importlib.import_module("cmt_adapters.llm_plugin")
