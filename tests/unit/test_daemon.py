"""The daemon of `cmt ask` and `cmt search`: it answers as the command itself does, for its user
alone, and whatever happens to it, the user gets an answer. Subprocesses with a fake language model.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from filelock import FileLock

from cmt_cli import daemon_client
from cmt_sdk.storage.driver import available
from cmt_sdk.system import daemon
from cmt_sdk.system.links import HEAD, Link, LinkError
from cmt_sdk.testing.fakes import open_fake

LISBON = "The museum moved to Lisbon in 2019."
VAULT = "The vault opens with the word xylophonequark."
QUESTION = "Where did the museum move?"
PROGRAM = [sys.executable, str(Path(__file__).with_name("daemon_program.py"))]
SERVER = [*PROGRAM, "--serve"]
ROOT = Path(__file__).parents[2]
LEAN = "import sys; from cmt_cli import start; print(*sorted(sys.modules))"
pytestmark = pytest.mark.skipif(not daemon.IS_UNIX, reason="Unix sockets and their peers")


@pytest.fixture
def home():
    """A short path, as a Unix socket needs, with a memory of two documents."""
    folder = Path(tempfile.mkdtemp(prefix="cmt-"))
    (folder / "run").mkdir(mode=0o700)
    with open_fake(folder / "data" / "default") as memory:
        memory.add(LISBON, source="trip.md", scope="user/ann")
        memory.add(VAULT, source="vault.md")
    yield folder
    with suppress(OSError):
        daemon.stop(str(folder / "run" / "cmt"))
    shutil.rmtree(folder)


@pytest.fixture
def environment(home):
    """Nothing from outside but where the modules are."""
    names = [str(ROOT), *(path for path in sys.path if path)]
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(names),
        "CMT_HOME": str(home / "data"),
        "CMT_MODELS": str(home / "models"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "CMT_KEEP_ALIVE": "60",
        "MARKER": str(home / "marker"),
    }


@pytest.fixture
def cmt(environment):
    """Runs `cmt` to its end."""

    def run(*arguments, text=None, cwd="/", **variables):
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            env=environment | variables,
            cwd=cwd,
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def status(home):
    """What `cmt daemon status --json` tells."""

    def facts():
        try:
            with closing(daemon.connect(str(home / "run" / "cmt"))) as link:
                link.send(daemon.STATUS)
                return {"running": True} | link.receive_object(daemon.STATUS, 60)
        except (FileNotFoundError, ConnectionRefusedError):
            return {"running": False}

    return facts


def shown(done):
    """What a finished process said."""
    return done.returncode, done.stdout, done.stderr


def until(condition):
    """Wait for something that comes soon; it fails when it does not come at all."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def has_ended(process):
    """Whether a process is gone, or waits for its parent to hear that."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_it_answers_as_the_command_itself_does(cmt, status, home):
    """The same output on both streams and the same exit code, from one process that stays."""
    (home / "here").mkdir()
    with open_fake(home / "here" / "notes") as memory:
        memory.add("The harbour opens at nine.", source=str(home / "here" / "harbour.md"))
    cases = [
        (("ask", QUESTION), {}),
        (("ask", "-v", "--reader", "text", "-k", "1", QUESTION), {}),
        (("ask", "--scope", "user/bob", QUESTION), {}),
        (("ask", "-"), {"text": "Wann öffnet das Museum?\n"}),
        (("ask", "-m", "./notes", "When does it open?"), {"cwd": home / "here"}),
        (("ask", "When does the harbour open?"), {"CMT_MEMORY": str(home / "here" / "notes")}),
        (("ask", "-m", "nowhere", QUESTION), {}),
        (("ask", "--json", "two", "words"), {}),
        (("ask", "--redaer", "text", QUESTION), {}),
        (("search", "museum"), {"COLUMNS": "40"}),
        (("search", "--json", "--mode", "text", "museum"), {"PYTHONIOENCODING": "ascii"}),
    ]
    processes = set()
    for arguments, options in cases:
        alone = cmt(*arguments, **options | {"CMT_KEEP_ALIVE": "0"})
        together = cmt(*arguments, **options)
        assert shown(together) == shown(alone), arguments
        processes.add(status()["process"])
    assert len(processes) == 2  # PYTHONIOENCODING is read when Python starts
    answer = json.loads(cmt("ask", "--json", QUESTION).stdout)
    assert answer["text"] == LISBON
    assert answer["sources"][0]["source"] == "trip.md"


def test_help_and_other_commands_need_no_daemon(cmt, status):
    """Nothing is started for them."""
    assert cmt("ask", "--help").stdout.startswith("Usage: cmt ask")
    assert cmt("list").returncode == 0
    assert cmt("ask", QUESTION, CMT_KEEP_ALIVE="0").stdout.startswith(LISBON)
    assert status() == {"running": False}
    assert cmt("daemon", "stop").stdout == "not running\n"


def test_a_wrong_time_to_stay_is_named(cmt, status):
    """The question is answered; -v says why without a daemon."""
    done = cmt("ask", "-v", QUESTION, CMT_KEEP_ALIVE="soon")
    assert done.stdout.startswith(LISBON)
    assert "without the daemon: CMT_KEEP_ALIVE='soon' is not a number of seconds" in done.stderr
    assert not status()["running"]


def test_it_is_shown_and_ended(cmt, status):
    """`cmt daemon status` and `cmt daemon stop`."""
    cmt("ask", QUESTION)
    facts = status()
    assert facts["running"]
    assert 0 < facts["leaves_in"] <= 60
    lines = cmt("daemon", "status").stdout
    assert f"running: process {facts['process']}, cmt {facts['version']}" in lines
    assert cmt("daemon", "stop").stdout == "stopped\n"
    until(lambda: has_ended(facts["process"]))
    assert cmt("daemon", "status").stdout == "not running\n"
    assert json.loads(cmt("daemon", "status", "--json").stdout) == status() == {"running": False}


def test_it_leaves_when_nobody_asks(cmt, status, home):
    """After CMT_KEEP_ALIVE seconds; no file stays but the lock."""
    cmt("ask", QUESTION, CMT_KEEP_ALIVE="0.2")
    until(lambda: not status()["running"])
    assert [f.name for f in (home / "run" / "cmt").iterdir()] == [daemon.LOCK]


def test_only_its_owner_reaches_the_socket(cmt, home):
    """Folder 0700, also where it was open before, and files 0600."""
    folder = home / "run" / "cmt"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    cmt("ask", QUESTION)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} <= {0o600, 0o644}
    assert stat.S_IMODE((folder / daemon.SOCKET).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / daemon.FACTS).stat().st_mode) == 0o600


def test_a_folder_that_is_a_link_is_not_used(cmt, home):
    """It may lead to another user's; the question is answered without a daemon."""
    (home / "elsewhere").mkdir()
    (home / "run" / "cmt").symlink_to(home / "elsewhere")
    done = cmt("ask", "-v", QUESTION)
    assert done.stdout.startswith(LISBON)
    assert "is a link, or another user's" in done.stderr
    assert list((home / "elsewhere").iterdir()) == []


def test_another_user_is_refused_on_both_sides(home, monkeypatch):
    """The system tells who is at the other end."""
    folder = home / "run" / "cmt"
    daemon.make_private(str(folder))
    listener, token = daemon.listen(str(folder))
    with listener:
        daemon.connect(str(folder)).close()
        served, _ = listener.accept()
        daemon.accept(served, token, 1.0).close()
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(folder / daemon.SOCKET))
        served, _ = listener.accept()
        assert daemon.peer(served)[1] == os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with client, pytest.raises(LinkError, match="of another user"):
            daemon.accept(served, token, 1.0)
        with pytest.raises(LinkError, match="of another user"):
            daemon.connect(str(folder))


@pytest.mark.enable_socket
def test_without_unix_sockets_both_sides_prove_that_they_know_the_token(home):
    """As on Windows: a port of this machine, and a file that only the user reads."""
    folder = str(home / "run")
    listener, token = daemon.listen(folder, unix=False)
    facts = home / "run" / daemon.FACTS
    assert stat.S_IMODE(facts.stat().st_mode) == 0o600
    assert listener.getsockname()[0] == "127.0.0.1"
    heard = []

    def serve(known):
        served, _ = listener.accept()
        try:
            link = daemon.accept(served, known, 5.0)
            heard.append(link.receive(5.0))
            link.close()
        except LinkError as error:
            heard.append(str(error))

    for known, hears in ((token, (b"S", b"")), (b"x" * 32, "it does not know this user's token")):
        thread = threading.Thread(target=serve, args=(known,))
        thread.start()
        if known == token:
            link = daemon.connect(folder, unix=False)
            link.send(b"S")
        else:
            with pytest.raises(LinkError, match=r"token|closed"):
                daemon.connect(folder, unix=False)
        thread.join()
        assert heard[-1] == hears
    link.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        daemon.connect(folder, unix=False)
    daemon.unlist(folder)
    with pytest.raises(FileNotFoundError):
        daemon.connect(folder, unix=False)


def test_a_socket_without_a_daemon_is_taken_over(cmt, status):
    """It stays behind when a daemon is killed."""
    cmt("ask", QUESTION)
    before = status()["process"]
    os.kill(before, signal.SIGKILL)
    until(lambda: has_ended(before))
    assert cmt("ask", QUESTION).stdout.startswith(LISBON)
    assert status()["process"] != before


def test_of_two_that_start_at_once_one_stays_and_all_are_answered(environment, status):
    """Four clients, no daemon: the same answer four times, and one process is left."""
    clients = [
        subprocess.Popen(
            [*PROGRAM, "ask", QUESTION],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for _ in range(4)
    ]
    assert [client.communicate(timeout=120)[0].splitlines()[0] for client in clients] == [
        LISBON
    ] * 4
    stays = status()["process"]
    until(lambda: _daemons(environment["XDG_RUNTIME_DIR"]) == [stays])


def _daemons(folder):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            if f"{folder}/cmt" in words and not has_ended(entry.name):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "PYTHONUTF8"])
def test_another_environment_or_release_gets_a_daemon_of_its_own(cmt, status, variable):
    """What is read when a process starts cannot be changed in one that runs."""
    cmt("ask", QUESTION)
    before = status()["process"]
    assert cmt("ask", QUESTION, **{variable: "1"}).stdout.startswith(LISBON)
    assert status()["process"] != before
    until(lambda: has_ended(before))


def test_a_daemon_of_another_release_is_replaced(cmt, status, environment, home):
    """The package may be upgraded while it runs."""
    folder = home / "run" / "cmt"
    daemon.make_private(str(folder))
    old = subprocess.Popen(
        [*SERVER, str(folder)], env=environment, stdin=subprocess.PIPE, encoding="utf-8"
    )
    old.stdin.write("('0.0.9', ...)")
    old.stdin.close()
    until((folder / daemon.SOCKET).exists)
    assert cmt("ask", QUESTION).stdout.startswith(LISBON)
    assert old.wait(60) == 0
    assert status()["process"] != old.pid


def test_the_identity_is_that_of_release_place_and_packages(monkeypatch):
    """An installation changes it, and so does a variable that a library reads at its start."""
    before = daemon_client.identity()
    assert daemon_client.identity() == before
    monkeypatch.setenv("CMT_MEMORY", "other")
    assert daemon_client.identity() == before
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert daemon_client.identity() != before


def silent(link):
    """Say nothing."""
    until(lambda: link.has_news(0.5) and not _open(link))


def _open(link):
    with suppress(LinkError):
        link.receive(1)
        return True
    return False


def garbage(link):
    """Say what is no message."""
    link._socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


def huge(link):
    """Announce more than there can be."""
    link._socket.sendall(HEAD.pack(b"W", 1 << 31))


def welcoming(link):
    """Welcome, and be gone."""
    link.receive(5)
    link.send(b"W")


def half(link):
    """End in the middle of an answer."""
    welcoming(link)
    link.receive(5)
    link.send(b"B")
    link.send(b"1", b"The museum mo")


def refusing(link):
    """Close at once."""


def test_a_sick_daemon_is_not_waited_for(cmt, home):
    """The command answers by itself, with nothing of the daemon's, and -v says why."""
    folder = home / "run" / "cmt"
    daemon.make_private(str(folder))
    listener, _ = daemon.listen(str(folder))
    behaviour = []
    heard = []

    def serve():
        while True:
            try:
                served, _ = listener.accept()
            except OSError:
                return
            heard.append(behaviour[-1])
            with suppress(LinkError):
                behaviour[-1](Link(served, 5))
            served.close()

    thread = threading.Thread(target=serve)
    thread.start()
    alone = cmt("ask", "-v", QUESTION, CMT_KEEP_ALIVE="0")
    with FileLock(folder / daemon.LOCK):  # no other daemon starts
        for one in (silent, garbage, huge, welcoming, half, refusing):
            behaviour.append(one)
            done = cmt("ask", "-v", QUESTION, PATIENCE="0.5")
            reasons = [x for x in done.stderr.splitlines(True) if x.startswith("without the")]
            assert len(reasons) == 1, one
            errors = done.stderr.replace(reasons[0], "")
            assert (done.returncode, done.stdout, errors) == shown(alone), one
            assert heard[-1] == one
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_daemon_that_hangs_is_ended_by_stop(cmt, status):
    """It does not answer, and is killed."""
    cmt("ask", QUESTION)
    process = status()["process"]
    os.kill(process, signal.SIGSTOP)
    done = cmt("ask", "-v", QUESTION, PATIENCE="0.5")
    assert "without the daemon: there was no answer in time" in done.stderr
    assert cmt("daemon", "stop").stdout == "stopped\n"
    until(lambda: has_ended(process))
    assert cmt("ask", QUESTION).stdout.startswith(LISBON)


def slow_client(environment, *arguments, seconds="600"):
    """A client whose answer does not end by itself, once it has begun."""
    client = subprocess.Popen(
        [*PROGRAM, "ask", *arguments, QUESTION],
        env=environment | {"SLOW": seconds},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    until(Path(environment["MARKER"]).exists)
    return client


def test_killed_in_the_middle_of_an_answer_the_client_answers_itself(cmt, environment, status):
    """In full, once, and nothing is lost."""
    client = slow_client(environment, "-v")
    os.kill(status()["process"], signal.SIGKILL)
    output, errors = client.communicate(timeout=120)
    assert client.returncode == 0
    assert output.startswith(LISBON)
    assert output.count("Lisbon") == cmt("ask", "-v", QUESTION).stdout.count("Lisbon")
    assert "without the daemon: the connection was closed" in errors


def test_ctrl_c_of_the_client_stops_the_work_in_the_daemon(cmt, environment, status):
    """With the command's own words and exit code; the daemon goes on."""
    client = slow_client(environment)
    process = status()["process"]
    assert status()["leaves_in"] is None
    client.send_signal(signal.SIGINT)
    output, errors = client.communicate(timeout=60)
    assert (client.returncode, output) == (130, "")
    assert "stopped; what was stored is safe" in errors
    assert cmt("ask", QUESTION).stdout.startswith(LISBON)
    assert status()["process"] == process


def test_a_client_that_is_killed_stops_the_work_too(cmt, environment, status):
    """Nobody waits for the answer."""
    client = slow_client(environment)
    process = status()["process"]
    client.kill()
    client.communicate()
    until(lambda: status()["leaves_in"] is not None)
    assert cmt("ask", QUESTION).stdout.startswith(LISBON)
    assert status()["process"] == process


def test_a_client_does_not_wait_for_ever_while_another_is_answered(cmt, environment):
    """It answers by itself after some seconds."""
    client = slow_client(environment)
    done = cmt("ask", "-v", QUESTION, PATIENCE="2")
    assert done.stdout.startswith(LISBON)
    assert "without the daemon: there was no answer in time" in done.stderr
    client.kill()
    client.communicate()


def test_it_compresses_cold_passages_behind_the_answer(cmt, home, status):
    """Once no client comes; the command itself waits for nothing."""
    folder = home / "data" / "default"
    with open_fake(folder) as memory:
        memory.configure(memory_budget=200)
        memory._store.evict(0)
    assert LISBON in cmt("ask", QUESTION, "-k", "1").stdout
    assert status()["running"]

    def is_compressed() -> bool:
        with open_fake(folder) as memory:
            return memory.stats().compressed == 1

    until(is_compressed)
    assert LISBON in cmt("ask", QUESTION, "-k", "1").stdout


def test_it_waits_its_turn(cmt, environment, status):
    """Behind an answer that is soon complete."""
    client = slow_client(environment, seconds="0.5")
    done = cmt("ask", "-v", QUESTION)
    assert "without the daemon" not in done.stderr
    assert done.stdout.startswith(LISBON)
    assert client.communicate()[0].startswith(LISBON)


def test_a_memory_that_is_moved_or_deleted_is_found_or_missed(cmt, home, status):
    """The daemon holds no memory open between two questions."""
    cmt("ask", QUESTION)
    process = status()["process"]
    assert not [
        f for f in Path(f"/proc/{process}/fd").iterdir() if "memory.db" in str(f.readlink())
    ]
    (home / "data" / "default").rename(home / "data" / "other")
    assert cmt("ask", "-m", "other", QUESTION).stdout.startswith(LISBON)
    gone = cmt("ask", QUESTION)
    assert gone.returncode == 3
    assert "no memory" in gone.stderr
    shutil.rmtree(home / "data" / "other")
    assert cmt("ask", "-m", "other", QUESTION).returncode == 3
    with open_fake(home / "data" / "default") as memory:
        memory.add("The museum moved to Porto in 2024.")
    assert "Porto" in cmt("ask", QUESTION).stdout
    assert status()["process"] == process


def test_after_forget_no_byte_is_in_the_ram_of_a_daemon(cmt, home, status):
    """What was read may be anywhere in it, so `forget` ends it; its files never had a word."""
    cmt("ask", "What opens the vault?")
    process = status()["process"]
    assert b"xylophonequark" in _ram(process)
    cmt("forget", "vault.md", "--yes")
    until(lambda: has_ended(process))
    for file in (home / "run").rglob("*"):
        assert file.is_socket() or file.is_dir() or b"xylophone" not in file.read_bytes()
    assert "xylophone" not in cmt("ask", "What opens the vault?").stdout
    assert b"xylophonequark" not in _ram(status()["process"])


def _ram(process):
    """What a process has in its writable memory."""
    found = bytearray()
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb", 0) as ram:  # noqa: PTH123
        for line in maps:
            place, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(n, 16) for n in place.split("-"))
                with suppress(OSError):
                    ram.seek(start)
                    found += ram.read(end - start)
    return bytes(found)


def test_forgetting_from_python_ends_the_daemon_too(cmt, home, status, monkeypatch):
    """Every way to forget does."""
    cmt("ask", QUESTION)
    process = status()["process"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    with open_fake(home / "data" / "default") as memory:
        memory.forget(source="vault.md")
    until(lambda: has_ended(process))


@pytest.mark.skipif(not available(), reason="needs the extra encryption")
def test_an_encrypted_memory_is_read_by_it_only_where_the_user_says_so(
    cmt, home, status, monkeypatch
):
    """Otherwise the key does not leave the client."""
    key = "a passphrase of the tests"
    monkeypatch.setenv("CMT_KEY", key)
    with open_fake(home / "data" / "diary", encrypted=True) as memory:
        memory.add(LISBON)
    arguments = ("ask", "-v", "-m", "diary", QUESTION)
    cmt("ask", QUESTION, CMT_KEY=key)
    alone = cmt(*arguments, CMT_KEY=key)
    assert alone.stdout.startswith(LISBON)
    assert "is encrypted; CMT_KEEP_ENCRYPTED=1 lets the daemon read it" in alone.stderr
    assert key.encode() not in _ram(status()["process"])
    assert key.encode() not in Path(f"/proc/{status()['process']}/environ").read_bytes()
    told = cmt(*arguments, CMT_KEY=key, CMT_KEEP_ENCRYPTED="1")
    assert told.stdout.startswith(LISBON)
    assert "without the daemon" not in told.stderr


def test_on_a_terminal_it_looks_the_same(environment):
    """Colours, width and pieces are those of the client's terminal."""
    import pty

    def on_terminal(**variables):
        ours, theirs = pty.openpty()
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        process = subprocess.Popen(
            [*PROGRAM, "search", "museum"],
            env=environment | {"TERM": "xterm-256color"} | variables,
            start_new_session=True,
            **streams,
        )
        os.close(theirs)
        seen = b""
        with suppress(OSError):
            while piece := os.read(ours, 65536):
                seen += piece
        os.close(ours)
        assert process.wait() == 0
        return seen

    alone = on_terminal(CMT_KEEP_ALIVE="0")
    first, second = on_terminal(), on_terminal()
    assert b"\x1b[1m" in alone  # bold
    last = alone[alone.rindex(b"\x1b[1m") :]
    assert first.endswith(last)
    assert second.endswith(last)


def test_the_client_imports_next_to_nothing(environment):
    """It has to be there at once."""
    loaded = subprocess.run(
        [sys.executable, "-c", LEAN], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "numpy",
        "click",
        "sqlalchemy",
        "onnxruntime",
        "torch",
        "rich",
        "httpx",
        "platformdirs",
    }
    assert not heavy & set(loaded)


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_any_moment_no_answer_and_no_document_is_lost(environment, home, status, rounds):
    """While a client asks and another process adds."""
    texts = [LISBON, VAULT]
    for number in range(rounds):
        client = subprocess.Popen(
            [*PROGRAM, "ask", QUESTION],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        victim = threading.Timer(random.uniform(0, 2), _kill_daemons, [environment])
        victim.start()
        with open_fake(home / "data" / "default") as memory:
            texts.append(f"Note {number} is about lamp {number}.")
            memory.add(texts[-1])
        output, _ = client.communicate(timeout=300)
        assert (client.returncode, output.splitlines()[0]) == (0, LISBON)
        victim.join()
    with open_fake(home / "data" / "default") as memory:
        assert sorted(document.text for document in memory.documents()) == sorted(texts)
        assert [found for found in memory.check() if not found.ok] == []


def _kill_daemons(environment):
    for process in _daemons(environment["XDG_RUNTIME_DIR"]):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_no_runtime_folder_of_the_system_is_no_warning(monkeypatch, recwarn):
    """A container has none."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert daemon.runtime_folder()
    assert not recwarn
