"""The command line over real memories on disk with a fake language model: output, exit codes, and bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cmt_cli import common
from cmt_cli.main import COMMANDS, main
from cmt_sdk.testing.fakes import open_fake

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2021."


@pytest.fixture
def cmt(tmp_path, monkeypatch):
    """Run a command in an empty home; the language model is a fake."""
    monkeypatch.setenv("CMT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(common, "opener", open_fake)

    def run(*arguments, stdin=None, code=0):
        monkeypatch.setattr(sys, "argv", ["cmt", *arguments])
        done = CliRunner().invoke(main, arguments, input=stdin)
        assert done.exit_code == code, done.output
        return done

    return run


def test_add_and_ask(cmt, tmp_path):
    """A file is remembered, and answered from with its name and offsets."""
    (tmp_path / "trip.md").write_text(LISBON)
    assert cmt("add", str(tmp_path / "trip.md")).stdout == "1 added, 0 updated, 0 unchanged\n"
    said = cmt("ask", "Where did the museum move?").stdout
    assert said.startswith(LISBON)
    assert "1. trip.md[0:35]" in said


def test_adding_again_skips_and_updates(cmt, tmp_path):
    """A folder is taken with all beneath it; what is unchanged is skipped, what has changed is updated."""
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / "a.md").write_text(LISBON)
    (tmp_path / "notes" / "deep" / "b.txt").write_text("Ann likes tea.")
    (tmp_path / "notes" / ".hidden.md").write_text("not this")
    assert cmt("add", str(tmp_path / "notes")).stdout == "2 added, 0 updated, 0 unchanged\n"
    (tmp_path / "notes" / "a.md").write_text(PORTO)
    assert cmt("add", str(tmp_path / "notes")).stdout == "0 added, 1 updated, 1 unchanged\n"
    assert cmt("ask", "Where did the museum move?").stdout.startswith(PORTO)


def test_standard_input_and_typed_metadata(cmt):
    """Text comes through a pipe; metadata keeps its types and can be filtered by."""
    cmt("add", "-", "--source", "car", "--meta", "year=2026", "--meta", "paid=true", "--meta", 'code="7"', stdin=LISBON)
    cmt("add", "--text", PORTO, "--meta", "year=2019")
    document = json.loads(cmt("list", "--json", "--where", "year>=2020").stdout)
    assert document["metadata"] == {"year": 2026, "paid": True, "code": "7"}
    assert document["source"] == "car"
    assert len(cmt("list", "--json").stdout.splitlines()) == 2


def test_json_answers_have_everything(cmt):
    """One document on stdout: text, sources, costs."""
    cmt("add", "--text", LISBON)
    said = json.loads(cmt("ask", "--json", "Where did the museum move?").stdout)
    assert said["text"] == LISBON
    assert said["sources"][0]["start"] == 0
    assert set(said) >= {"reader", "abstained", "confidence", "prompt_tokens", "memory_tokens", "milliseconds"}


def test_show_update_rm(cmt):
    """The first four characters of an id name a document."""
    cmt("add", "--text", LISBON)
    whole = json.loads(cmt("list", "--json").stdout)["id"]
    assert cmt("update", whole[:4], "--text", PORTO).stdout == f"{whole[:8]} is now version 2\n"
    shown = cmt("show", whole[:6], "--history").stdout
    assert LISBON in shown
    assert PORTO in shown
    assert "version 1 (superseded)" in shown
    assert cmt("rm", whole[:4]).stdout == "1 removed\n"
    assert cmt("list").stdout == ""
    assert whole in cmt("show", whole, code=3).stderr


def test_an_ambiguous_prefix_names_its_candidates(cmt, tmp_path):
    """Nothing is guessed."""
    with open_fake(tmp_path / "home" / "default") as memory:
        memory.add(LISBON, id="abcd1111")
        memory.add(PORTO, id="abcd2222")
    assert "abcd1111, abcd2222" in cmt("rm", "abcd", code=2).stderr


def test_forget_prints_a_receipt(cmt, tmp_path):
    """Documents, versions, files, and no trace left."""
    cmt("add", "--text", "The word is zanzibarquartz.", "--source", "secret.md")
    receipt = json.loads(cmt("forget", "--source", "*.md", "--json").stdout)
    assert (receipt["versions"], receipt["traces_found"]) == (1, 0)
    assert "memory.db" in receipt["files_scanned"]
    files = [f for f in (tmp_path / "home").rglob("*") if f.is_file()]
    assert not any(b"zanzibarquartz" in f.read_bytes() for f in files)


def test_search_stats_doctor(cmt):
    """What waits is told, found by words, and compressed on demand."""
    cmt("add", "--text", LISBON, "--no-wait")
    assert "1 passages wait" in cmt("add", "--text", PORTO, "--no-wait").stdout
    assert "Lisbon" in cmt("search", "--mode", "text", "museum Lisbon", "-k", "1").stdout
    assert json.loads(cmt("stats", "--json").stdout)["pending"] == 2
    assert "cmt compress" in cmt("doctor", code=1).stdout
    assert cmt("compress").stdout == "2 passages compressed\n"
    assert "WRONG" not in cmt("doctor").stdout


def test_export_and_import(cmt, tmp_path):
    """A memory goes through one file; the file is not overwritten unasked."""
    cmt("add", "--text", LISBON)
    file = str(tmp_path / "backup.cmt")
    assert cmt("export", file).stdout.startswith("1 documents in ")
    assert "overwrite" in cmt("export", file, code=1).stderr
    assert cmt("import", file, "-m", "restored").stdout == "1 added, 0 unchanged\n"
    assert cmt("ask", "-m", "restored", "Where did the museum move?").stdout.startswith(LISBON)


def test_chat_takes_lines_from_a_pipe(cmt):
    """A conversation ends with its input; a command that is none explains those there are."""
    cmt("add", "--text", LISBON)
    said = cmt("chat", stdin="Where did the museum move?\n/sources\n/what\n/exit\nnever read\n").stdout
    assert said.splitlines()[0].strip() == LISBON
    assert "words #1" in said
    assert "/forget clears" in said


def test_config_shows_and_sets(cmt):
    """A setting is recorded for the memory; a bad one is refused."""
    cmt("add", "--text", LISBON)
    cmt("config", "set", "keep", "0.5")
    assert json.loads(cmt("config", "--json").stdout)["settings"]["keep"] == 0.5
    assert "choose a number from 0.01 to 1.0" in cmt("config", "set", "keep", "7", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["list"], 3, "`cmt add FILE`"),
        (["ask", "Where?"], 3, "there is no memory in"),
        (["ask", "-k", "0", "Where?"], 2, "x>=1"),
        (["add"], 2, "give files, folders"),
        (["add", "nowhere.md"], 3, "there is no file nowhere.md"),
        (["add", "--text", "  \n "], 2, "nothing to remember"),
        (["add", "--text", "a\0b"], 2, "NUL"),
        (["forget"], 2, "--scope ''"),
        (["model", "show", "nobody/nothing"], 4, "cmt model pull nobody/nothing"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_mistakes_have_an_exit_code_and_a_remedy(cmt, arguments, code, words):
    """One line that says what to do, and no traceback."""
    done = cmt(*arguments, code=code)
    assert words in done.stderr
    assert "Traceback" not in done.output


def test_reading_commands_make_no_memory(cmt, tmp_path):
    """Asking where nothing is leaves nothing behind."""
    cmt("stats", code=3)
    assert not (tmp_path / "home").exists()


def test_hostile_filter_keys_are_data(cmt):
    """A key is never part of the SQL."""
    cmt("add", "--text", LISBON)
    assert cmt("list", "--where", "a') OR 1=1 --=1").stdout == ""
    assert "quotation marks" in cmt("list", "--where", 'x"]=1', code=2).stderr


def test_errors_in_json_mode_are_json(cmt):
    """Programs read the kind and the message."""
    said = json.loads(cmt("list", "--json", code=3).stderr)
    assert said["error"]["type"] == "MemoryNotFound"


def test_control_characters_do_not_reach_the_terminal(cmt):
    """A stored escape sequence is shown as a replacement character."""
    cmt("add", "--text", "red \x1b[31m alert")
    assert "\x1b" not in cmt("list").stdout
    assert "\x1b" not in cmt("search", "--mode", "text", "alert").stdout


def test_text_like_markup_is_shown_as_it_is(cmt):
    """Square brackets are the user's."""
    cmt("add", "--text", "[bold]not markup[/bold]")
    assert "[bold]not markup[/bold]" in cmt("list").stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_helps_with_an_example(cmt, name):
    """`--help` works on each command and shows an example."""
    assert "Example:" in cmt(name, "--help").stdout


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["stats"], ["add", "--help"]])
def test_light_commands_load_no_torch(tmp_path, arguments):
    """Help and listing stay fast: nothing of the model stack is imported."""
    open_fake(tmp_path / "default").close()
    code = (
        "import sys; from cmt_cli.main import main\n"
        f"try: main({arguments!r}, prog_name='cmt')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'hnswlib', 'peft') if m in sys.modules])"
    )
    environment = {"CMT_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_binary_file_and_a_folder_with_nothing_to_read(cmt, tmp_path):
    """The first is an error that names it; the second adds nothing."""
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00\xd8binary")
    assert "x.txt" in cmt("add", str(tmp_path / "x.txt"), code=2).stderr
    (tmp_path / "empty").mkdir()
    assert cmt("add", str(tmp_path / "empty")).stdout == "0 added, 0 updated, 0 unchanged\n"


def test_completion_prints_a_script(cmt):
    """For each shell that is named."""
    assert "_CMT_COMPLETE" in cmt("completion", "bash").stdout


def test_a_closed_pipe_is_quiet(tmp_path):
    """`cmt list | head -1` ends without a complaint."""
    with open_fake(tmp_path / "default") as memory:
        memory.add_many([f"Fact number {i} is here." for i in range(300)])
    command = f"{sys.executable} -m cmt_cli.main list --all | head -1"
    environment = {"CMT_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=True)  # noqa: S602
    assert done.stderr == ""
    assert "Fact number 0" in done.stdout
    assert Path(tmp_path / "default" / "memory.db").exists()
