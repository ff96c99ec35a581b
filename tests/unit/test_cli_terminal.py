"""What reaches a terminal, a pipe and a closed stream: subprocesses of `cmt` with a fake language
model.
"""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cmt_cli.output import one_line, printable, short_id, short_source, to_jsonable
from cmt_sdk.testing.fakes import open_fake

LISBON = "The museum moved to Lisbon in 2019."
ESCAPES = "red \x1b[31m alert \x9b2J \x07 and\r\nmore"
RUN = """
import os, sys
if os.isatty(0):  # make it the terminal whose Ctrl-C stops this process
    import fcntl, termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake
main(sys.argv[1:], prog_name="cmt", obj=open_fake)
"""
LIGHT = (
    "--help", "--version", "list", "stats", "config", "show abcd", "search --mode text museum", "add --help", "model list",
)  # fmt: skip
LOADED = """
import sys
from cmt_cli.main import main
for line in sys.argv[1:]:
    try:
        main(line.split(), prog_name="cmt")
    except SystemExit as end:
        assert end.code in (0, None), line
    heavy = [m for m in ("torch", "transformers", "hnswlib", "peft", "rich") if m in sys.modules]
    assert not heavy, (line, heavy)
"""
STEERING = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
posix = pytest.mark.skipif(
    os.name != "posix", reason="pseudo-terminals and shells are those of POSIX"
)


@pytest.fixture
def environment(tmp_path):
    """A home with a memory of one document, and nothing else from outside."""
    with open_fake(tmp_path / "data_dir" / "default") as memory:
        memory.add(LISBON, source="trip.md", id="abcd1111")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return kept | {
        "CMT_HOME": str(tmp_path / "data_dir"),
        "CMT_MODELS": str(tmp_path / "models"),
        "TERM": "xterm-256color",
        "COLUMNS": "160",
        "PYTHONIOENCODING": "utf-8",
    }


def command(*arguments):
    """The words that run `cmt` over a fake language model."""
    return [sys.executable, "-W", "error", "-c", RUN, *map(str, arguments)]


def run(environment, *arguments, **options):
    """Run `cmt` without a terminal."""
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, check=False, **options
    )


def on_terminal(environment, *arguments, typed=()):
    """Run `cmt` on a pseudo-terminal, typing an answer to each prompt; returns what was shown and
    the exit code.
    """
    import pty

    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(
        command(*arguments), env=environment, start_new_session=True, **streams
    )
    os.close(theirs)
    guard = threading.Timer(120, process.kill)
    guard.start()
    shown, answers, last = b"", list(typed), b""
    while piece := _read(ours, last):
        shown += piece
        # a second Ctrl-C would meet an interpreter that is ending
        last = b"" if b"stopped" in shown else last
        # the line editor moves its cursor over a space
        seen = STEERING.sub(b"", shown.replace(b"\x08\x1b[2C", b" "))
        if answers and seen.endswith((b"> ", b"[y/N]: ")):
            os.write(ours, last := answers.pop(0))
    os.close(ours)
    guard.cancel()
    return shown.decode(), process.wait()


def _read(terminal, last):
    """What is shown next; nothing at the end. A Ctrl-C that met no ear is pressed again, as people
    do.
    """
    while last == b"\x03" and not select.select([terminal], [], [], 5.0)[0]:
        os.write(terminal, last)
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_control_characters_become_harmless():
    """Escapes, bells, C1 codes and what cannot be encoded; lines and tabs stay."""
    assert printable("a\x1b[31mb\x07\x9b\x7f\ud800c\td\ne\r\nf") == "a�[31mb����c\td\ne\nf"
    assert one_line("a\n\t b\x1b", 4) == "a b�"
    assert printable("gnp\u202egpj.exe \u2066 a\u200fb") == "gnp�gpj.exe � a\u200fb"
    assert one_line("a long line", 6) == "a lon…"
    assert one_line(None) == ""


def test_names_are_short_and_clear(tmp_path, monkeypatch):
    """Generated ids by eight digits; files beneath the current folder by their relative path."""
    monkeypatch.chdir(tmp_path)
    assert short_id("0123456789abcdef0123456789abcdef") == "01234567"
    assert short_id("invoice-1") == "invoice-1"
    assert short_source(str(tmp_path / "deep" / "a.md"), "x") == os.path.join("deep", "a.md")  # noqa: PTH118 - as text
    assert short_source("/elsewhere/a.md", "x") == "/elsewhere/a.md"
    assert short_source("https://a.example/b", "x") == "https://a.example/b"
    assert short_source(None, "invoice-1") == "invoice-1"


def test_json_takes_every_value_of_the_package(tmp_path):
    """Dataclasses, times, paths, mappings, sequences."""
    with open_fake(tmp_path / "m") as memory:
        document = memory.add(LISBON, metadata={"year": 2019})
        made = to_jsonable({"d": document, "p": [tmp_path], "r": memory.forget(document.id)})
    assert made["p"] == [str(tmp_path)]
    assert made["d"]["created_at"].endswith("+00:00")
    assert json.loads(json.dumps(made))["r"]["documents"] == [document.id]


@pytest.mark.parametrize(
    "words",
    [["list"], ["show", "beef1111"], ["search", "alert"], ["ask", "What alert?"]],
    ids=lambda w: w[0],
)
def test_stored_control_characters_reach_no_output(cmt, words):
    """Neither as text nor as JSON, whatever holds them."""
    with open_fake(cmt.home / "default") as memory:
        memory.add(
            ESCAPES, id="beef1111", source="s\x1b]0;x", scope="a\x1bb", metadata={"k\x1b": "v\x1b"}
        )
    for arguments in (words, [*words, "--json"]):
        output = cmt(*arguments).output
        assert "alert" in output
        assert not set(output) & set(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))


@posix
def test_a_terminal_gets_tables_and_colours(environment):
    """Headings, colours, and the user's brackets as they are."""
    with open_fake(Path(environment["CMT_HOME"], "default")) as memory:
        memory.add(f"[bold]not markup[/bold] :smile: {ESCAPES}", id="beef1111")
    shown, code = on_terminal(environment, "list")
    assert code == 0
    assert "updated" in shown
    assert "[bold]not markup[/bold] :smile: red �[31m alert" in shown
    assert "\x1b[1m" in shown
    assert "\x1b[31m" not in shown


@posix
def test_colours_can_be_switched_off(environment):
    """In tables, lines and errors; a terminal that can do nothing gets plain text."""
    for words in (["list"], ["ask", "Where did the museum move?"]):
        assert "\x1b" not in on_terminal(environment | {"TERM": "dumb"}, *words)[0]
    without, _ = on_terminal(environment | {"NO_COLOR": "1"}, "show", "zzzz")
    assert not re.search(r"\x1b\[(3[0-7]|9[0-7]|[34]8;)", without)
    assert "\x1b[31merror:" in on_terminal(environment, "show", "zzzz")[0]


@posix
def test_an_answer_streams_to_a_terminal(environment):
    """The words, then the sources."""
    shown, code = on_terminal(environment, "ask", "Where did the museum move?")
    assert code == 0
    assert shown.index("The museum moved to Lisbon in 2019.") < shown.index("trip.md")


@posix
def test_a_question_must_come_from_somewhere(environment):
    """On a terminal nobody is kept waiting for standard input."""
    shown, code = on_terminal(environment, "ask")
    assert code == 2
    assert "give a QUESTION, or pipe one in" in shown


@posix
@pytest.mark.parametrize(
    "more", [{}, {"PYTHONIOENCODING": "cp1252", "COLUMNS": "20"}, {"COLUMNS": "0"}], ids=str
)
def test_chat_on_a_terminal(environment, more):
    """It greets, prompts and answers; Ctrl-D ends it. Also on terminals that can do little."""
    shown, code = on_terminal(
        environment | more, "chat", typed=[b"Where did the museum move?\r", b"\x04"]
    )
    assert code == 0
    assert "1 document. /sources" in shown
    assert shown.count("The museum moved to Lisbon in 2019.") == 1


@posix
def test_ctrl_c_at_a_prompt(environment):
    """130 and one line, in a chat and at the question before forgetting."""
    for words in (["chat"], ["forget", "abcd"]):
        shown, code = on_terminal(environment, *words, typed=[b"\x03"])
        assert code == 130
        assert "stopped; what was stored is safe" in shown
        assert "Traceback" not in shown
    assert b"Lisbon" in run(environment, "list").stdout


@posix
def test_adding_shows_its_progress_on_a_terminal(environment, tmp_path):
    """On stderr, and it vanishes: with stdout in a file there is the summary alone."""
    shown, code = on_terminal(environment, "add", "--text", "Ann likes tea.")
    assert code == 0
    assert "compressing" in shown
    assert "1 added, 0 updated, 0 unchanged" in shown
    assert run(environment, "add", "--text", "Bob likes tea.").stderr == b""


@posix
@pytest.mark.parametrize(
    ("redirection", "code", "error"),
    [
        ("| head -c 1 >/dev/null", 0, ""),
        (">&-", 0, ""),
        (">/dev/full", 1, "the output cannot be written"),
    ],
)
def test_output_that_nobody_takes(environment, redirection, code, error):
    """A closed pipe is quiet, a closed stdout too; a full disk is told."""
    with open_fake(Path(environment["CMT_HOME"], "default")) as memory:
        memory.add_many(
            (f"Fact number {i}, of many. {'x' * 5000}" for i in range(40)), compress=False
        )
    line = f'set -o pipefail; "$@" {redirection}'
    for arguments in (["list", "--all"], ["list", "--all", "--json"]):
        done = subprocess.run(
            ["bash", "-c", line, "bash", *command(*arguments)],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code
        assert error in done.stderr.decode()
        assert bool(error) == bool(done.stderr)


@posix
def test_closed_standard_input_is_empty(environment):
    """It is refused as an empty text is."""
    done = subprocess.run(
        ["bash", "-c", '"$@" <&-', "bash", *command("add", "-")],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"nothing to remember" in done.stderr


@posix
@pytest.mark.skipif(ROOT and not shutil.which("setpriv"), reason="root may open everything")
def test_what_the_system_keeps_closed(environment, tmp_path):
    """A closed folder is not taken for an empty one; what is closed in an open one is passed
    over.
    """
    limited = UNPRIVILEGED if ROOT else []

    def add(*arguments):
        return subprocess.run(
            [*limited, *command("add", *arguments)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    notes, closed, inner = (
        tmp_path / "notes",
        tmp_path / "notes" / "closed.md",
        tmp_path / "notes" / "inner",
    )
    notes.mkdir()
    (notes / "open.md").write_text("Ann likes tea.")
    closed.touch(mode=0)
    inner.mkdir(mode=0)
    done = add(notes)
    assert (done.returncode, done.stdout) == (0, "1 added, 0 updated, 0 unchanged\n")
    assert all(f"{path} cannot be read" in done.stderr for path in (closed, inner))
    for arguments in ([inner], [closed], ["--text", "x", "-m", inner / "memory"]):
        refused = add(*arguments)
        assert (refused.returncode, refused.stdout) == (5, "")
        assert str(notes) in refused.stderr


def test_light_commands_load_nothing_heavy(environment):
    """No part of the model stack, and without a terminal no rich either; over the real engine."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *LIGHT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        0,
        "no models yet: `cmt model pull` fetches the default one\n",
    )


def test_the_installed_command_runs(environment, tmp_path):
    """As `python -m cmt_cli.main`, from another folder."""
    words = [sys.executable, "-m", "cmt_cli.main", "list"]
    done = subprocess.run(
        words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "Lisbon" in done.stdout
