"""What commands say: once, in the terminal's words, and with the way to go on."""

import io

import click
import pytest
from rich.console import Console

from cmt_cli import progress

LISBON = "The museum moved to Lisbon in 2019."
FERRY = "The ferry to Tarn leaves the old pier at eight."


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A folder with one note; commands run beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text(LISBON)
    return tmp_path / "notes"


# -- once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman"])
@pytest.mark.parametrize("command", [["add"], ["watch", "--once"]], ids=["add", "watch"])
def test_a_guess_is_said_once(cmt, notes, command, encoding):
    """And again when the file has another text."""
    file = notes / "b.txt"
    file.write_bytes("Café in der Straße, grün und schön".encode(encoding))
    assert "which is a guess" in cmt(*command, notes).stderr
    assert "guess" not in cmt(*command, notes).stderr
    file.write_bytes("Café in der Straße, grün und groß".encode(encoding))
    assert "which is a guess" in cmt(*command, notes).stderr


@pytest.mark.parametrize(
    ("name", "data"),
    [("e.md", b""), ("e.txt", b" \n\t\n"), ("e.html", b"<p> </p>"), ("e.csv", b"\n")],
)
def test_empty_files_of_a_folder_are_counted(cmt, notes, name, data):
    """There is no warning for each, at each run; one that is named itself is refused."""
    (notes / name).write_bytes(data)
    done = cmt("add", notes)
    assert (done.stdout, done.stderr) == (
        f"1 added, 0 updated, 0 unchanged, 1 empty (notes/{name})\n",
        "",
    )
    assert cmt.json("add", notes)["empty"] == 1
    assert "nothing to remember" in cmt("add", notes / name, code=2).stderr


@pytest.mark.parametrize("suffix", ["service", "reg", "py", "xyz"])
def test_kinds_that_are_remembered_are_not_passed_over(cmt, notes, suffix):
    """A file that was named once is kept up to date with its folder: only others of its kind
    count.
    """
    file = notes / f"settings.{suffix}"
    file.write_text("[server]\nport = 80\n")
    assert f"1 file of other kinds (1 {suffix})" in cmt("add", notes).stderr
    cmt("add", file)
    assert "other kinds" not in cmt("add", notes).stderr
    (notes / f"other.{suffix}").write_text("[x]\n")
    assert (
        f"1 file of other kinds (1 {suffix}): other.{suffix}; a text file is read where it is named"
        " itself" in cmt("add", notes).stderr
    )


@pytest.mark.parametrize("at", ["m", "deep/m"])
def test_a_memory_in_its_own_notes_does_not_count_its_own_files(cmt, notes, at):
    """Its database and locks are no files of the user's; what else is of other kinds counts."""
    for _ in range(2):
        assert "other kinds" not in cmt("add", notes, "-m", notes / at).stderr
    (notes / "plan.xyz").write_text("x")
    assert "1 file of other kinds (1 xyz): plan.xyz" in cmt("add", notes, "-m", notes / at).stderr


@pytest.mark.parametrize("command", [["rm"], ["forget", "--yes"]], ids=["rm", "forget"])
@pytest.mark.parametrize("name", [".hidden.md", "run.py", "plain.xyz", "a~"])
def test_what_a_folder_does_not_bring_back(cmt, notes, command, name):
    """A hidden file and one of another kind stay out when the folder is added."""
    (notes / name).write_text("The rent is 950 euros.")
    cmt("add", notes / name, "--no-wait")
    said = cmt(*command, notes / name).stdout
    assert "of the folder leaves it out" in said
    assert "brings" not in said
    assert "bytes freed" not in said  # nothing was compressed
    assert "1 added" in cmt("add", notes).stdout  # the other note


def test_several_files_are_brought_back(cmt, notes):
    """In the plural, beside one that is not."""
    for name in ("x.md", "y.md", ".z.md"):
        (notes / name).write_text(f"This is {name}.")
        cmt("add", notes / name)
    said = cmt("forget", "--yes", "--scope", "").stdout
    assert "2 files still in their folder: " in said
    assert "of the folder brings them back, --keep-out keeps them out" in said
    assert "1 file still in its folder: " in said


@pytest.mark.parametrize("count", [1, 3, 4])
def test_few_empty_files_are_named(cmt, notes, count):
    """Up to three."""
    for n in range(count):
        (notes / f"e{n}.md").write_text("")
    names = ", ".join(f"notes/e{n}.md" for n in range(count))
    said = cmt("add", notes).stdout
    assert (
        f", {count} empty ({names})\n" in said
        if count <= 3
        else said.endswith(f", {count} empty\n")
    )


@pytest.mark.parametrize("target", ["nowhere.md", "/nowhere/x.md", "notes/gone.md"])
def test_a_link_that_leads_nowhere_is_named_with_its_target(cmt, notes, target):
    """Named itself, and in a folder."""
    for link in (notes.parent / "link.md", notes / "link.md"):
        link.symlink_to(target)
    assert (
        f"the link link.md points to {target}, which is not there"
        in cmt("add", "link.md", code=3).stderr
    )
    assert f"link.md points to {target}, which is not there" in cmt("add", notes).stderr
    assert "points to" not in cmt("add", "gone.md", code=3).stderr


def test_a_memory_of_the_same_name_here_is_hinted_at(cmt, notes):
    """A bare name is one in the data folder; with ./ it is this one."""
    cmt("add", notes, "-m", "./m2")
    said = cmt("add", notes, "-m", "m2").stderr
    assert "./m2 is another memory" in said
    assert "-m ./m2" in said
    assert "another memory" not in cmt("add", notes, "-m", "m2").stderr
    (notes.parent / "m3").mkdir()
    assert "another memory" not in cmt("add", notes, "-m", "m3").stderr


def test_watch_says_that_it_compressed_what_waited(cmt, notes):
    """As add does, off a terminal too; nothing of what it took in itself."""
    cmt("add", notes, "--no-wait")
    (notes / "b.md").write_text(FERRY)
    said = cmt("watch", notes, "--once").stderr
    assert said.endswith(
        "1 added, 0 updated, 0 renamed, 0 removed, 1 unchanged; 1 passage of earlier runs"
        " compressed\n"
    )
    (notes / "c.md").write_text("The rent is 950 euros.")
    assert "compressed" not in cmt("watch", notes, "--once").stderr


def test_ctrl_c_at_a_question_ends_its_line(cmt, notes, monkeypatch):
    """The message has a line of its own."""

    def stopped(question, **_):
        click.echo(f"{question} [y/N]: ", err=True, nl=False)
        aborted = click.Abort()
        aborted.__context__ = KeyboardInterrupt()
        raise aborted

    monkeypatch.setattr(click, "confirm", stopped)
    cmt("add", notes)
    lines = cmt("forget", notes / "a.md", code=130).stderr.splitlines()
    assert lines[-1] == "error: stopped; what was stored is safe"


# -- in the terminal's words --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "there is no file or folder nowhere"),
        ("nowhere/", "there is no file or folder nowhere/"),
        ("nowhere/a.md", "there is no file or folder nowhere/a.md"),
        ("*.zzz", "no file matches *.zzz"),
        ("notes/[xy].md", "no file matches notes/[xy].md"),
        ("notes/**/z?.md", "no file matches notes/**/z?.md"),
    ],
)
def test_what_is_not_there(cmt, notes, path, said):
    """A file, a folder, or what fits a pattern."""
    assert said in cmt("add", path, code=3).stderr


@pytest.mark.parametrize(
    "command", [["forget", "notes/a.md"], ["rm", "--source", "*"], ["forget", "--scope", ""]]
)
def test_no_answer_has_a_line_of_its_own(cmt, notes, command):
    """The question ends before the error begins."""
    cmt("add", notes)
    lines = cmt(*command, stdin="", code=1).output.splitlines()
    assert lines[-2].endswith("[y/N]: ")
    assert lines[-1].startswith("error: there was no answer")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("ad", "add"), ("serach", "search"), ("forgte", "forget"), ("LIST", "list"), ("updaet", "update"), ("imp", "import"),
     ("exprot", "export"), ("chek", "check"), ("re", "reencode or reindex")],
)  # fmt: skip
def test_a_mistyped_command(cmt, given, meant):
    """What is like it is named."""
    assert f"No such command '{given}'. Did you mean {meant}?" in cmt(given, code=2).stderr


@pytest.mark.parametrize(
    ("group", "given", "meant"),
    [("model", "pul", "pull"), ("model", "lst", "list"), ("config", "ste", "set")],
)
def test_a_mistyped_command_of_a_group(cmt, group, given, meant):
    """As those above."""
    assert f"Did you mean {meant}?" in cmt(group, given, code=2).stderr


def test_a_command_that_is_like_none(cmt):
    """Nothing is guessed."""
    assert "Did you mean" not in cmt("xyzzy", code=2).stderr


def test_conflicts_are_in_the_words_of_the_command(cmt, notes):
    """No argument of Python."""
    cmt("add", notes)
    cmt("export", "a.cmt")
    cmt("backup", "copy.db")
    cmt("import", "a.cmt", "-m", "other")
    cmt("update", "a.md", "--text", FERRY)
    cmt("update", "a.md", "--text", "Something else.", "-m", "other")
    cmt("export", "b.cmt", "-m", "other")
    said = [
        cmt("import", "b.cmt", code=1).stderr,
        cmt("export", "a.cmt", code=1).stderr,
        cmt("backup", "copy.db", code=1).stderr,
        cmt("list", "-m", "nowhere", code=3).stderr,
    ]
    assert "--theirs makes" in said[0]
    assert "--ours keeps" in said[0]
    assert "--both adds" in said[0]
    assert "give --overwrite" in said[1]
    assert "give --overwrite" in said[2]
    assert all(word not in text for text in said for word in ("=True", "diverged", "cmt_sdk"))


# -- the way to go on ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [["show"], ["rm"], ["forget", "--yes"], ["update", "--text", FERRY]],
    ids=lambda c: c[0],
)
@pytest.mark.parametrize("name", ["notes", "notes/", "./notes", "notes/deep"])
def test_a_folder_says_what_is_in_it(cmt, notes, command, name):
    """And how all of it is named; nothing changes."""
    (notes / "deep").mkdir()
    (notes / "deep" / "b.md").write_text(FERRY)
    cmt("add", notes)
    said = cmt(command[0], name, *command[1:], code=3).stderr
    count = "1 document" if "deep" in name else "2 documents"
    assert f"{name} is a folder, from which {count} came" in said
    assert "notes/deep/b.md" in said
    pattern = f"{name.strip('./')}/*"
    assert f"--source '{pattern}'" in said
    assert len(cmt("list", "--source", pattern).stdout.splitlines()) == int(count[0])


def test_search_leaves_out_what_does_not_fit(cmt, notes):
    """It says how much, and -k shows it; programs get all."""
    for number in range(8):
        (notes / f"{number}.md").write_text(
            f"Note {number}: soup, bread and {'salt ' * number}for the evening."
        )
    (notes / "ferry.md").write_text(FERRY)
    cmt("add", notes)
    done = cmt("search", "ferry to Tarn pier")
    names = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert names[0] == "1. notes/ferry.md"
    assert len(names) < 5
    left = 5 - len(names)
    assert (
        f"{left} passage{'s' * (left > 1)} that fit{'s' * (left == 1)} much less left out; -k 5"
        " shows all" in done.stderr
    )
    every = cmt("search", "ferry to Tarn pier", "-k", "5")
    assert len([line for line in every.stdout.splitlines() if not line.startswith(" ")]) == 5
    assert every.stderr == ""
    assert len(cmt.json("search", "ferry to Tarn pier")) == 5


def test_a_count_without_a_total(monkeypatch):
    """No question mark stands for what nobody knows."""
    shown = io.StringIO()
    monkeypatch.setattr(progress, "on_terminal", lambda _: True)
    monkeypatch.setattr(
        progress, "console", lambda **_: Console(file=shown, force_terminal=True, width=80)
    )
    with progress.progress_bars() as update:
        update("adding", 11, 0)
        update("compressing", 3, 12)
    assert "11" in shown.getvalue()
    assert "/?" not in shown.getvalue()
    assert "3/12" in shown.getvalue()
