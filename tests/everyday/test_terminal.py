"""Kind 8: any terminal, any pipe. Subprocesses of `cmt` over a real memory with a fake language
model.
"""

from __future__ import annotations

import io
import os
import re
import select
import shlex
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from cmt_cli.main import main
from cmt_cli.output import display_width, one_line, short_id
from cmt_cli.streams import terminal_width
from cmt_sdk.testing.fakes import open_fake

RUN = """
import sys
from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake
main(sys.argv[1:], prog_name="cmt", obj=open_fake)
"""
WAY = "0123456789abcdef0123456789abcdef"
TEXTS = {
    WAY: ("/n/way → home.md", "Take the path north → bridge … “now”. The key is under the stone."),
    "c" * 32: ("/メモ/会議室.md", "打印机在三楼的会议室。合言葉は青いイルカです。"),
    "d" * 32: ("/שלום/דירה 12.md", "The דירה rent is 950 שקלים a month."),
    "e" * 32: ("/emoji/👨‍👩‍👧‍👦.md", "family 👨‍👩‍👧‍👦 flag 🇩🇪 e\u0301 " * 9),
}
STEERING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
posix = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are those of POSIX")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A home with a memory of four documents in as many scripts, and nothing else from outside."""
    home = tmp_path_factory.mktemp("data_dir")
    with open_fake(home / "default") as memory:
        for name, (source, text) in TEXTS.items():
            memory.add(text, id=name, source=source)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return kept | {
        "CMT_HOME": str(home),
        "CMT_MODELS": str(home / "models"),
        "TERM": "xterm-256color",
    }


@dataclass
class Here:
    """Runs `cmt` in this process with streams of an encoding, which may look like those of a
    terminal.
    """

    monkeypatch: pytest.MonkeyPatch
    environment: dict[str, str]

    def __call__(self, line, *, encoding="utf-8", terminal=False, stdin=b"", code=0, **more):
        """What stdout holds, without colours."""
        errors = encoding.partition(":")[2] or "strict"
        encoding = encoding.partition(":")[0]
        streams = [Stream(io.BytesIO(), encoding=encoding, errors=errors) for _ in range(2)]
        with self.monkeypatch.context() as patch:
            for name, value in (self.environment | more).items():
                patch.setenv(name, value)
            for stream, name in zip(streams, ("stdout", "stderr"), strict=True):
                stream.is_terminal = terminal
                patch.setattr(sys, name, stream)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(line), prog_name="cmt", obj=open_fake)
        assert (ended.value.code or 0) in {code, 0}
        for stream in streams:
            stream.flush()
        text = streams[0].buffer.getvalue().decode(encoding)
        return STEERING.sub("", text).replace("\r\n", "\n")


class Stream(io.TextIOWrapper):
    """A stream of an encoding that says whether somebody looks at it."""

    is_terminal = False

    def isatty(self):
        """As told."""
        return self.is_terminal


@pytest.fixture
def here(monkeypatch, environment):
    """`cmt` in this process."""
    monkeypatch.delenv("COLUMNS", raising=False)
    return Here(monkeypatch, environment)


def run(environment, line, *, stdin=b"", **more):
    """A command whose output is redirected, with more environment variables."""
    words = [sys.executable, "-c", RUN, *shlex.split(line)]
    done = subprocess.run(
        words, env=environment | more, input=stdin, capture_output=True, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def shown(environment, line, columns=80, **more):
    """What a pseudo-terminal of so many columns shows, without colours."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    words = [sys.executable, "-c", RUN, *shlex.split(line)]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(words, env=environment | more, start_new_session=True, **streams)
    os.close(theirs)
    guard = threading.Timer(120, process.kill)
    guard.start()
    read = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not piece:
            break
        read += piece
    os.close(ours)
    guard.cancel()
    assert b"Traceback" not in read, read.decode()
    assert process.wait() in (0, 1)
    return STEERING.sub("", read.decode(more.get("PYTHONIOENCODING", "utf-8"))).replace("\r", "")


# -- encodings -----------------------------------------------------------------------------------

ENCODED = [
    ("cp1252", f"show {WAY}", "Take the path north \\u2192 bridge … “now”."),
    ("cp437", f"show {WAY}", "Take the path north \\u2192 bridge ... \\u201cnow\\u201d."),
    ("latin-1", f"show {WAY}", "source: /n/way \\u2192 home.md"),
    ("ascii", f"show {WAY}", "Take the path north \\u2192 bridge ... \\u201cnow\\u201d."),
    ("cp500", f"show {WAY}", "north \\u2192 bridge"),
    ("cp1252:replace", f"show {WAY}", "Take the path north ? bridge"),
    ("cp932", "list", "The \\u05d3\\u05d9\\u05e8\\u05d4 rent is 950"),
    ("cp932", "list", "打印机在三楼的会".encode("cp932", "backslashreplace").decode("cp932")),
    ("cp1252", "list", "/emoji/\\U0001f468\\u200d\\U0001f469"),
    ("cp437", "search --mode text 'key stone'", "/n/way \\u2192 home.md"),
    ("cp1252", "ask 'Where is the key?'", "The key is under the stone."),
    ("cp1252", "ask 'Where is the key?'", "/n/way \\u2192 home.md"),
    ("latin-1", "ask '打印机在三楼的会议室 合言葉は青いイルカです'", "\\u6253\\u5370\\u673a"),
    ("utf-8", f"show {WAY}", "Take the path north → bridge … “now”."),
    ("utf-16-le", f"show {WAY}", "Take the path north → bridge … “now”."),
    ("cp1252", "stats", "documents\t4"),
    ("cp1252", "config", "smollm2-135m-instruct"),
    ("cp1252", "check", "4 readable"),
    ("cp1252", "list --json", '"source": "/n/way \\u2192 home.md"'),
    ("ascii", "--help", "Remember documents on this machine"),
]


@pytest.mark.parametrize(("encoding", "line", "expected"), ENCODED, ids=lambda v: str(v)[:24])
def test_an_encoding_that_lacks_a_character_writes_its_escape(here, encoding, line, expected):
    """No error, and no question mark in its place unless the user asked for one."""
    assert expected in here(line, encoding=encoding, code=1)


@pytest.mark.parametrize(
    "line",
    ["ask 'Where is the key?'", "ask '打印机在三楼的会议室 合言葉は青いイルカです'"],
    ids=["latin", "cjk"],
)
def test_redirected_as_windows_does_it(environment, line):
    """A process of its own whose streams are cp1252."""
    done = run(environment, line, PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    assert done.returncode == 0
    assert b"/n/way \\u2192 home.md" in done.stdout


def test_a_locale_without_utf_8_writes_escapes(environment):
    """LC_ALL=C where Python is kept from UTF-8, as a cron job or a Windows service may be."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(environment, f"show {WAY}", **plain)
    assert b"north \\u2192 bridge ... \\u201cnow\\u201d" in done.stdout


def test_a_piped_conversation_in_another_encoding(environment):
    """Every answer comes, the one in another script too."""
    said = "Where is the key?\n合言葉は青いイルカです 打印机在三楼的会议室\nWhere is the key?\n".encode()
    done = run(environment, "chat", stdin=said, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0
    assert done.stdout.count(b"The key is under the stone.") == 2


@pytest.mark.parametrize(
    "line",
    ["list", "ask 'Where is the key?'", "forget nowhere-at-all --yes", "search key", "check"],
)
def test_a_terminal_of_another_encoding(here, line):
    """Tables, spinners and progress bars draw with what the encoding has."""
    seen = here(line, encoding="cp437", terminal=True, code=3 if "forget" in line else 1)
    assert "\\u2192" in seen or line.split()[0] in ("forget", "check")


@posix
def test_names_of_files_that_are_no_utf_8(environment, tmp_path):
    """They are passed over with the remedy, and the rest is added; as an argument they are refused
    in a line.
    """
    folder = os.fsencode(tmp_path) + b"/notes"
    os.mkdir(folder)  # noqa: PTH102 - as bytes
    Path(os.fsdecode(folder + b"/caf\xe9.md")).write_text("The latin file.", "utf-8")
    Path(os.fsdecode(folder), "turned \u202egnp.md").write_text("The turned file.", "utf-8")
    words = [sys.executable, "-c", RUN]
    there = environment | {"CMT_HOME": str(tmp_path)}
    done = subprocess.run([*words, "add", folder], env=there, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"1 added, 0 updated, 0 unchanged\n")
    assert (
        "caf\ufffd.md: its name, or that of a folder above it, is not UTF-8: rename it"
        in done.stderr.decode()
    )
    listed = subprocess.run([*words, "list"], env=there, capture_output=True, check=False)
    assert "turned \ufffdgnp.md" in listed.stdout.decode()
    for arguments in (
        [b"ask", b"caf\xe9"],
        [b"show", b"caf\xe9"],
        [b"list", b"--where", b"k=\xe9"],
        [b"caf\xe9"],
    ):
        refused = subprocess.run([*words, *arguments], env=there, capture_output=True, check=False)
        assert refused.returncode == 2
        assert b"Traceback" not in refused.stderr


@posix
def test_a_current_folder_that_was_deleted(environment, tmp_path):
    """Sources are shown in full, then."""
    line = f'cd {tmp_path}; mkdir gone; cd gone; rmdir ../gone; "$@"'
    words = ["bash", "-c", line, "bash", sys.executable, "-c", RUN]
    for arguments in (["list"], ["ask", "Where is the key?"]):
        done = subprocess.run(
            [*words, *arguments], env=environment, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert "/n/way → home.md" in done.stdout.decode()


# -- narrow terminals ----------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("columns", "more"),
    [(40, {}), (20, {}), (80, {"COLUMNS": "0"}), (0, {})],
    ids=["40", "20", "COLUMNS=0", "a terminal of 0"],
)
def test_a_narrow_terminal_shows_ids_that_can_be_typed(environment, columns, more):
    """Every document with its id, source and the beginning of its text; nothing of the id is
    cut.
    """
    _has_all(shown(environment, "list", columns, **more))


@pytest.mark.parametrize(
    "columns", ["200", "80", "60", "40", "30", "20", "10", "3", "x", "-5", "0"]
)
def test_any_width_shows_ids_that_can_be_typed(here, columns):
    """Side by side or line by line."""
    _has_all(here("list", terminal=True, COLUMNS=columns))


def _has_all(seen):
    assert all(name[:8] in seen for name in TEXTS)
    assert "way" in seen
    assert "会" in seen


def test_columns_that_fit_stand_side_by_side(here):
    """With their headings; empty columns are left out."""
    seen = here("list", terminal=True, COLUMNS="120")
    (heading,) = (line for line in seen.splitlines() if "source" in line)
    assert heading.split() == ["id", "source", "version", "updated", "text"]


@pytest.mark.parametrize("columns", ["40", "20"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stats", ["smollm2-135m-instruct"]),
        ("config", ["smollm2-135m-instruct", "max_document_bytes"]),
        ("check", ["cmtmodelpullsmollm2-135m-instruct", "full-textsearch"]),
        (f"show {WAY}", ["compressed", "0:65"]),
    ],
    ids=lambda v: str(v)[:6],
)
def test_no_value_is_cut_on_a_narrow_terminal(here, line, words, columns):
    """Model, path and remedy are there to the last character, over several lines where they must
    be.
    """
    shown_lines = [
        line.rstrip() for line in here(line, terminal=True, code=1, COLUMNS=columns).splitlines()
    ]
    seen = "".join("".join(shown_lines).split())
    columns_apart = "".join(line.split()[-1] for line in shown_lines if line.split())
    for word in words:
        assert word in seen or word in columns_apart
    assert "…" not in seen.replace("bridge…", "")


@pytest.mark.parametrize(
    "more", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"COLUMNS": "7"}, {"COLUMNS": "0"}], ids=str
)
@pytest.mark.parametrize("line", ["list", "search key", "ask 'Where is the key?'"])
def test_terminals_that_can_do_little(here, line, more):
    """They get the same words."""
    assert "key" in "".join(here(line, terminal=True, **more).split())


# -- what people write ---------------------------------------------------------------------------

CUT = [
    ("a long line", 6, "a lon…"),
    ("会議室のプリンター", 9, "会議室の…"),
    ("会議室のプリンター", 10, "会議室の…"),
    ("会議室", 6, "会議室"),
    ("ab👨‍👩‍👧‍👦cd efg", 5, "ab👨‍👩‍👧‍👦…"),
    ("ab👨‍👩‍👧‍👦cd efg", 4, "ab…"),
    ("🇩🇪🇫🇷🇵🇱", 5, "🇩🇪🇫🇷…"),
    ("e\u0301" * 8, 5, "e\u0301" * 4 + "…"),
    ("กำลังทดสอบ", 4, "กำลั…"),
    ("हिन्दी में", 30, "हिन्दी में"),
    ("שלום עולם", 5, "שלום…"),
    ("x" + "\u0301" * 5000, 20, None),
    ("", 5, ""),
]


@pytest.mark.parametrize(("text", "width", "expected"), CUT, ids=[f"{n}" for n in range(len(CUT))])
def test_a_line_is_cut_between_characters_as_people_see_them(text, width, expected):
    """It fills at most so many cells; families, flags and accents stay whole."""
    line = one_line(text, width)
    assert display_width(line) <= width
    if expected is not None:
        assert line == expected


def test_ids_that_begin_alike_are_shown_longer():
    """What is shown stands for one document; ids that users chose are shown whole."""
    one, two = "0123456789" + "a" * 22, "0123456789" + "b" * 22
    assert short_id(one, [one]) == "01234567"
    assert short_id(one, [one, two]) == "0123456789a"
    assert short_id(one, [one, "01234567"]) == "012345678"
    assert short_id("invoice-1", ["invoice-10"]) == "invoice-1"


def test_shown_ids_can_be_typed(cmt):
    """Also where generated ids share their first digits, or begin with an id that a user chose."""
    ids = ["0123456789" + "a" * 22, "0123456789" + "b" * 22, "01234567"]
    with open_fake(cmt.home / "default") as memory:
        for name in ids:
            memory.add(f"The text of {name}.", id=name)
    listed = [line.split("\t")[0] for line in cmt("list").stdout.splitlines()]
    assert len(set(listed)) == 3
    assert [cmt.json("show", given)["versions"][0]["id"] for given in listed] == ids


def test_the_width_of_a_terminal_is_never_nothing(monkeypatch):
    """COLUMNS=0 means that nobody knows it."""
    monkeypatch.setenv("COLUMNS", "0")
    assert terminal_width() > 0
    monkeypatch.setenv("COLUMNS", "33")
    assert terminal_width() == 33
