"""`cmt chat`: the line editor, over a terminal made of a pipe, and the commands that begin with a
slash.
"""

import json
import re
import stat

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from cmt_cli.ask import print_pieces
from cmt_cli.conversation import COMMANDS, Conversation
from cmt_cli.prompt import Commands, Prompt
from cmt_sdk.errors import AlreadyExists, DocumentNotFound, GeneratorError, StorageDenied
from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake

LISBON = "The museum moved to Lisbon in 2019."
ENTER, CTRL_C, CTRL_D, UP = "\r", "\x03", "\x04", "\x1b[A"


@pytest.fixture
def keyboard():
    """A terminal on which keys are pressed."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


@pytest.fixture
def typed(keyboard):
    """What the editor hands on for each turn that is typed; then Ctrl-D ends it."""

    def run(*turns, history=None, is_kept=lambda _: True):
        heard = iter(Prompt(COMMANDS, history, is_kept))
        said = []
        for turn in turns:
            keyboard.send_text(turn + ENTER)
            said.append(next(heard))
        keyboard.send_text(CTRL_D)
        assert next(heard, None) is None
        return said

    return run


def completions(text):
    """What a text can go on as."""
    return [c.text for c in Commands(COMMANDS).get_completions(Document(text), CompleteEvent())]


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        yield opened


def talking(memory, *, remember=False, scope=""):
    """A conversation that nobody reads as JSON."""
    return Conversation(memory, scope, {}, remember=remember, as_json=False)


def test_enter_sends_and_ctrl_d_ends(typed):
    """Each turn without the spaces around it."""
    assert typed("Hello.", "  And? ") == ["Hello.", "And?"]


@pytest.mark.parametrize(
    "newline", ["\x1b\r", "\\\r", "\x1b[200~\n\x1b[201~"], ids=["Alt-Enter", "backslash", "paste"]
)
def test_a_turn_can_have_several_lines(typed, newline):
    """By Alt-Enter, by a backslash at the end, and as a paste brings them."""
    assert typed(f"one{newline}two") == ["one\ntwo"]


def test_ctrl_c_clears_what_was_begun_and_then_ends(typed, keyboard):
    """On an empty line it is passed on, as the end of the command."""
    assert typed(f"nev{CTRL_C}this") == ["this"]
    keyboard.send_text(CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        list(Prompt(COMMANDS, None, bool))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/re", ["/remember", "/reader"]),
        ("/reader ", ["memory", "text", "auto", "none"]),
        ("/reader t", ["text"]),
        ("/reader x", []),
        ("/what ", []),
        ("re", []),
        ("", []),
    ],
)
def test_commands_and_readers_are_completed(text, found):
    """What is no command is left alone."""
    assert completions(text) == found


def test_what_was_typed_is_fetched_back_in_the_next_conversation(typed, tmp_path):
    """From a file that only its owner may read, also where it was there with other rights."""
    file = tmp_path / "chat-history"
    file.touch(0o644)
    typed("Where is the museum?", history=file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert typed(UP, history=file) == ["Where is the museum?"]


def test_what_becomes_a_document_is_kept_in_this_run_alone(typed, tmp_path):
    """It can be fetched back, and stands in no file."""
    file = tmp_path / "chat-history"
    assert (
        typed("Ann likes tea.", UP, history=file, is_kept=lambda t: "Ann" not in t)
        == ["Ann likes tea."] * 2
    )
    assert "Ann" not in file.read_text()


def test_a_history_that_cannot_be_written_is_told(typed, tmp_path, capsys):
    """The conversation goes on without."""
    assert typed("Hello.", UP, history=tmp_path / "nowhere" / "file") == ["Hello.", "Hello."]
    assert "what you type is not kept" in capsys.readouterr().err


def test_what_will_be_remembered_is_known_before():
    """Turns with --remember, and the text of /remember; commands and questions else are no
    documents.
    """
    keeps, asks = Conversation.becomes_document, type("Talk", (), {"remember": False})()
    assert keeps(asks, "/remember Ann likes tea.")
    assert not keeps(asks, "Which tea?")
    told = type("Talk", (), {"remember": True})()
    assert keeps(told, "Ann likes tea.")
    assert not keeps(told, "/sources")
    assert keeps(told, "/home/ann/notes is the folder")


def test_what_is_told_is_confirmed(memory, capsys):
    """Whatever the answer is: "I don't know." to a fact would look as if it had been lost. A
    question is not remembered.
    """
    talk = talking(memory, remember=True)
    talk.hear("Ann likes tea.")
    assert capsys.readouterr().err == "remembered; /undo takes it back\n"
    talk.hear("Who likes tea?")
    assert capsys.readouterr().err == ""
    assert memory.count() == 1


def test_remembered_and_taken_back(memory, capsys):
    """/remember adds to the scope, /undo erases what was remembered last, with its traces
    counted.
    """
    memory.add("Ann likes tea.", source="a.md")
    talk = talking(memory, scope="user/ann")
    talk.hear("/remember Bob likes\nxylographs.")
    assert memory.wait(20)
    assert [(d.text, d.source) for d in memory.documents(scope="user/ann")] == [
        ("Bob likes\nxylographs.", "chat")
    ]
    talk.hear("/undo")
    assert "erased: Bob likes xylographs.; no trace left in" in capsys.readouterr().err
    assert [d.source for d in memory.documents()] == ["a.md"]
    assert not any(b"xylograph" in f.read_bytes() for f in memory.path.iterdir() if f.is_file())
    with pytest.raises(DocumentNotFound, match="nothing was remembered in this conversation"):
        talk.hear("/undo")


def test_what_was_said_can_be_taken_back_with_its_answer(memory):
    """With --remember: the turn goes from later questions too, the other turns stay."""
    talk = talking(memory, remember=True)
    talk.hear("Ann likes tea.")
    talk.hear("The bridge is closed.")
    talk.hear("/undo")
    assert [t.content for t in talk.talk.turns if t.role == "user"] == ["Ann likes tea."]
    assert [d.text for d in memory.documents()] == ["Ann likes tea."]


def test_a_text_that_was_there_before_is_not_taken_back(memory, capsys):
    """It belongs to its own source."""
    memory.add("Ann likes tea.", source="a.md")
    talk = talking(memory)
    talk.hear("/remember Ann likes tea.")
    assert "already remembered: a.md" in capsys.readouterr().err
    with pytest.raises(DocumentNotFound):
        talk.hear("/undo")
    assert memory.count() == 1


def test_what_was_said_before_from_elsewhere_stays(memory, capsys):
    """And that is told: its own source keeps it, though the turn goes from later questions."""
    memory.add("Ann likes tea.", source="a.md")
    talk = talking(memory, remember=True)
    talk.hear("Ann likes tea.")
    talk.hear("/undo")
    assert "stays: Ann likes tea.; it was there before" in capsys.readouterr().err
    assert memory.count() == 1
    assert talk.talk.turns == []


def test_a_text_is_forgotten_after_a_yes(memory, capsys):
    """/forget shows what would go and asks once, also without --remember; another turn keeps it."""
    talk = talking(memory)
    talk.hear("/remember My phone number is 555 0134.")
    talk.hear("/forget phone number")
    shown = capsys.readouterr().out
    assert "- “My phone number is 555 0134.”" in shown
    assert "Answer yes" in shown
    talk.hear("Hello?")
    talk.hear("Yes.")
    assert memory.count() == 1
    talk.hear("/forget phone number")
    talk.hear("Yes.")
    assert "Erased: 1 text; no trace is left." in capsys.readouterr().out
    assert memory.count() == 0
    with pytest.raises(DocumentNotFound):
        talk.hear("/undo")


def test_forget_needs_a_text(cmt):
    """The message says how to write it."""
    cmt("add", "--text", LISBON)
    assert "write /forget TEXT" in cmt("chat", stdin="/forget\n").stderr


def test_nothing_that_a_text_concerns_is_said(memory, capsys):
    """And nothing is asked; files are no notes of a conversation."""
    memory.add("My phone number is 555 0134.", source="phone.md")
    talk = talking(memory)
    talk.hear("/forget phone number")
    assert "nothing was erased" in capsys.readouterr().out
    talk.hear("Yes.")
    assert memory.count() == 1


def test_memories_lists_what_conversations_have_kept(memory, capsys):
    """Of this very scope, with the day; no files."""
    memory.add("Ann likes tea.", source="a.md")
    talk = talking(memory, remember=True, scope="user/ann")
    talk.hear("/memories")
    assert "no conversation has kept anything" in capsys.readouterr().err
    talk.hear("I live in Porto.")
    talk.hear("I keep bees.")
    talking(memory, remember=True, scope="user/bob").hear("I keep hens.")
    capsys.readouterr()
    talk.hear("/memories")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["I live in Porto.", "I keep bees."]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", line.split("  ")[0]) for line in lines)


def test_undo_names_what_is_valid_again(memory, capsys, monkeypatch):
    """The statement that the newer one replaced stays, and is the newest again."""
    talk = talking(memory, remember=True)
    talk.hear("I live in Bristol.")
    older = memory.search("Bristol", 1)
    monkeypatch.setattr(type(memory), "superseded", lambda *_, **__: older)
    talk.hear("I live in Cardiff.")
    talk.hear("/undo")
    told = capsys.readouterr().err
    assert "erased: I live in Cardiff." in told
    assert "valid again: I live in Bristol." in told
    assert [d.text for d in memory.documents()] == ["I live in Bristol."]


def test_undo_lasts_over_a_change_of_the_reader(memory):
    """`/reader` and `/k` go on with the same conversation."""
    talk = talking(memory, remember=True)
    talk.hear("I live in Bristol.")
    talk.hear("/k 2")
    talk.hear("/undo")
    assert memory.count() == 0


def test_why_shows_passages_in_full_with_reasons_and_costs(memory, capsys):
    """And what the last answer was read from."""
    memory.add(f"{LISBON} " + "It is open on Sundays. " * 10, source="trip.md")
    talk = talking(memory)
    talk.hear("/why")
    assert capsys.readouterr().err == "there was no answer yet\n"
    talk.hear("Where did the museum move?")
    talk.hear("/why")
    said = capsys.readouterr().out
    assert re.search(r"^1\. trip\.md\[0:\d+\]  score 1\.0000, meaning #1", said, re.MULTILINE)
    assert said.count("It is open on Sundays.") == 10
    assert "read from memory" in said
    assert re.search(
        r"tokens: \d+ from compressed passages, \d+ in the prompt, \d+ in the answer; encode \d+ ms",
        said,
    )


def test_reader_and_number_of_passages_change_for_what_follows(cmt):
    """The conversation goes on; values that are none are told, with those there are."""
    cmt("add", "--text", LISBON)
    cmt("add", "--text", "The museum is open on Sundays.")
    turns = (
        "Which museum moved?\n/reader text\n/k 1\nWhich museum moved?\n/reader psychic\n/k"
        " 0\n/k\n/sources\n"
    )
    said = cmt("chat", "--json", stdin=turns)
    first, second = map(json.loads, said.stdout.splitlines()[:2])
    assert (first["reader"], len(first["sources"])) == ("memory", 2)
    assert (second["reader"], len(second["sources"])) == ("text", 1)
    assert [json.loads(line)["error"]["message"] for line in said.stderr.splitlines()] == [
        "reader 'psychic': choose one of memory, text, auto, none",
        "k '0': give a whole number from 1",
        "write /k N: read this many passages",
    ]


def test_a_conversation_is_saved_to_a_new_file_only(memory, tmp_path, capsys):
    """What was said by whom; a file that is there, and nothing to say, are errors."""
    memory.add(LISBON)
    talk, file = talking(memory), tmp_path / "talk.txt"
    talk.hear(f"/save {file}")
    assert "the conversation is empty" in capsys.readouterr().err
    talk.hear("Where did the museum move?")
    talk.hear(f"/save {file}")
    assert file.read_text() == f"User: Where did the museum move?\n\nAssistant: {LISBON}\n"
    with pytest.raises(AlreadyExists, match="choose another name"):
        talk.hear(f"/save {file}")
    with pytest.raises(StorageDenied, match="cannot be written"):
        talk.hear(f"/save {tmp_path / 'nowhere' / 'file'}")


def test_a_path_at_the_beginning_is_something_said(memory, capsys):
    """Only one name after the slash is a command."""
    memory.add("The file /etc/hosts names the machines.")
    talking(memory).hear("/etc/hosts names what?")
    assert "names the machines" in capsys.readouterr().out


def test_on_a_terminal_no_error_ends_the_conversation(memory, tmp_path, monkeypatch, capsys):
    """Nor does Ctrl-C, which stops an answer; that turn was not said."""

    class Slow(FakeReader):
        def read(self, prompt, max_tokens):
            yield next(iter(super().read(prompt, max_tokens)))
            raise KeyboardInterrupt

    with open_fake(tmp_path / "slow", FakeEngine(reader=Slow())) as slow:
        slow.add(LISBON)
        with pytest.raises(KeyboardInterrupt):
            talking(slow).hear("Where did the museum move?")
        monkeypatch.setattr("cmt_cli.conversation.on_terminal", lambda _: True)
        talk = talking(slow)
        talk.hear("Where did the museum move?")
        assert talk.talk.turns == []
    assert capsys.readouterr().err.endswith("\n(stopped)\n")
    talking(memory).hear("/undo")
    assert "error: nothing was remembered" in capsys.readouterr().err


def test_help_lists_every_command(memory, capsys):
    """With their arguments."""
    talking(memory).hear("/help")
    told = capsys.readouterr().err
    assert all(
        f"{name}{f' {c.argument}' if c.argument else ''}: {c.does}" in told
        for name, c in COMMANDS.items()
    )


def test_an_answer_that_breaks_off_ends_its_line(monkeypatch, capsys):
    """What is said next on a terminal begins a line."""

    def pieces():
        yield "Once"
        raise GeneratorError("it broke off")

    monkeypatch.setattr("cmt_cli.ask.on_terminal", lambda _: True)
    with pytest.raises(GeneratorError):
        print_pieces(pieces())
    assert capsys.readouterr().out == "Once\n"
