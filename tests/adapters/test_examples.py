"""The examples run, each as its reader would run it; those of one framework's adapter alone are
with that adapter's tests.
"""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from matplotlib import pyplot as plt

import cmt_sdk
from cmt_sdk.testing.fakes import open_fake

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    """What a script has in it, `main` before all."""
    return runpy.run_path(str(EXAMPLES / name))


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path):
    """Two notes, in a folder within a folder."""
    folder = tmp_path / "notes.d" / "countries"
    folder.mkdir(parents=True)
    for name in ("mongolia.md", "kenya.md"):
        shutil.copy(EXAMPLES / "documents" / name, folder)
    return folder.parent


@pytest.fixture
def real(tmp_path):
    """A memory with the default model."""
    with cmt_sdk.open(tmp_path / "real") as opened:
        yield opened


def test_the_chatbot_remembers_each_user_alone(memory, capsys):
    """In a later conversation too; what one user said is no answer to another, whatever the other's
    name.
    """
    main = example("chatbot.py")["main"]
    main(memory, "ann", ["I live in Lisbon.\n", "\n"])
    main(memory, "bob", ["I live in Porto.\n"])
    capsys.readouterr()
    main(memory, "ann", ["Where do I live?\n"])
    assert capsys.readouterr().out.strip() == "I live in Lisbon."
    for stranger in ("eve", "ann/..", "a"):
        main(memory, stranger, ["Where do I live in Lisbon?"])
        assert "I live in Lisbon." not in capsys.readouterr().out


def test_the_chatbot_forgets_a_user_who_says_so(memory, capsys):
    """The receipt is told, and the next answer knows nothing; others stay."""
    main = example("chatbot.py")["main"]
    main(memory, "ann", ["I live in Lisbon."])
    main(memory, "bob", ["I live in Porto."])
    capsys.readouterr()
    main(memory, "ann", ["forget me", "Where do I live?"])
    assert capsys.readouterr().out.splitlines()[0] == "erased: 1, traces left: 0"
    assert [d.text for d in memory.documents(scope="user/ann")] == []
    assert [d.text for d in memory.documents(scope="user/bob")] == ["I live in Porto."]


def test_the_knowledge_base_follows_its_folder(memory, folder, capsys):
    """Files that were added, changed and deleted between two runs; answers name the note and its
    place.
    """
    main = example("knowledge_base.py")["main"]
    main(memory, folder, ["What is the highest point of Kenya?"])
    said = capsys.readouterr().out
    assert said.startswith("2 added, 0 updated, 0 removed, 0 as they were\n")
    assert "  The highest point of Kenya is Mount Kenya 5,199 m.\n" in said
    assert re.search(r"  \[countries/kenya\.md, characters \d+ to \d+\] ", said)
    (folder / "countries" / "kenya.md").unlink()
    (folder / "tea.md").write_text("Ann likes green tea.")
    with (folder / "countries" / "mongolia.md").open("a") as file:
        file.write("\nThe yurt stands by the lake.\n")
    main(memory, folder, ["Where is the yurt?"])
    said = capsys.readouterr().out
    assert said.startswith("1 added, 1 updated, 1 removed, 0 as they were\n")
    assert "  The yurt stands by the lake.\n" in said
    assert "kenya" not in said


def test_the_agent_learns_preferences_across_runs(tmp_path):
    """What the first run learns, the second run's model is told, as data in the user's turn."""
    main = example("langgraph_preferences.py")["main"]
    heard = []

    class Listening(GenericFakeChatModel):
        def _generate(self, messages, *rest, **options):
            heard.append(messages)
            return super()._generate(messages, *rest, **options)

    first = Listening(messages=iter([AIMessage("Noted!"), AIMessage("Ann likes green tea.")]))
    second = Listening(messages=iter([AIMessage("Green tea, as you like it."), AIMessage("NONE")]))
    with open_fake(tmp_path / "notes") as memory:
        assert main(memory, first, "ann", "I like green tea!") == "Noted!"
    with open_fake(tmp_path / "notes") as memory:
        assert main(memory, second, "ann", "Which tea do I like?") == "Green tea, as you like it."
        assert [d.text for d in memory.documents()] == ["preference: Ann likes green tea."]
    told = heard[2]
    assert "Ann likes green tea." in told[-1].content
    assert not any("Ann likes" in m.content for m in told if m.type == "system")


def test_the_notebook_compares_the_readers(tmp_path, monkeypatch, capsys):
    """Its cells run from top to bottom, in a folder with the example documents; the table has a row
    for each reader.
    """
    notebook = json.loads((EXAMPLES / "compare_readers.ipynb").read_text(encoding="utf-8"))
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    (tmp_path / "documents").symlink_to(EXAMPLES / "documents")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cmt_sdk, "open", lambda path: open_fake(Path(path)))
    plt.switch_backend("agg")
    names = {}
    for cell in code:
        exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)  # noqa: S102 - our own notebook
    said = capsys.readouterr().out
    assert said.startswith("12 documents, ")
    rows = [line.split() for line in said.partition("reader   right")[2].splitlines()]
    assert [row[0] for row in rows[1:5]] == ["memory", "text", "auto", "none"]
    # the fake model is no better
    assert [row[1] for row in rows[1:5]] == ["100%", "100%", "100%", "0%"]
    assert [len(ax.patches) for ax in names["axes"]] == [4, 4, 4]
    plt.close("all")


def test_the_notebook_is_committed_without_outputs():
    """As Jupyter reads it: format 4.5, an id for each cell, and nothing of a run."""
    notebook = json.loads((EXAMPLES / "compare_readers.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [c["id"] for c in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert [
        (c["outputs"], c["execution_count"]) for c in notebook["cells"] if c["cell_type"] == "code"
    ] == [([], None)] * 6


@pytest.mark.model
def test_the_chatbot_with_the_real_model(real, capsys):
    """It recalls in a second conversation what was said in the first."""
    main = example("chatbot.py")["main"]
    main(real, "ann", ["My dog is called Bruno."])
    assert real.wait(300)
    capsys.readouterr()
    main(real, "ann", ["What is my dog called?"])
    assert "Bruno" in capsys.readouterr().out


@pytest.mark.model
def test_the_knowledge_base_with_the_real_model(real, folder, capsys):
    """It answers from the right note."""
    example("knowledge_base.py")["main"](real, folder, ["What is the capital of Mongolia?"])
    said = capsys.readouterr().out
    assert "Ulaanbaatar" in said.splitlines()[3]
    assert "[countries/mongolia.md" in said
