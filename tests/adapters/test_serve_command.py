"""`cmt serve` as a process: it begins, says where, ends with a signal; and the real model behind
OpenAI's client.
"""

import builtins
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx
import openai
import pytest

from cmt_sdk.errors import MissingExtra
from tests.unit.generator_server import says
from tests.unit.generator_server import serving as chatting

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.skipif(os.name != "posix", reason="a process is stopped by POSIX signals"),
]

FAKE = """
import sys
from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake
main(sys.argv[1:], prog_name="cmt", obj=open_fake)
"""
REAL = "from cmt_cli.main import main; main(prog_name='cmt')"


@contextmanager
def serving(program, memory, *options, end=signal.SIGINT, seconds=60, **environment):
    """The command in a process: its address, while it runs; it must end as it should when it is
    told to.
    """
    words = [
        sys.executable,
        "-W",
        "error",
        "-c",
        program,
        "serve",
        "-m",
        str(memory),
        "--port",
        "0",
        *options,
    ]
    given = {**os.environ, "CMT_TOKEN": "", "PYTHONUNBUFFERED": "1", **environment}
    with subprocess.Popen(words, env=given, stderr=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(seconds, process.kill)
        guard.start()
        try:
            told = process.stderr.readline()
            found = re.fullmatch(r"serving \S+ at (http://\S+:\d+); Ctrl-C ends\n", told)
            assert found, told + process.stderr.read()
            yield found[1]
            process.send_signal(end)
            said = process.stderr.read().splitlines()
            assert (process.wait(), said[-1]) == (0, "stopped; what was stored is safe"), said
        finally:
            process.kill()
            guard.cancel()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_memory_is_served_until_a_signal(tmp_path, end):
    """What is remembered by then is there when it is served again; a line tells of each request."""
    with serving(FAKE, tmp_path / "notes", end=end) as url, httpx.Client(base_url=url) as http:
        made = http.post(
            "/api/documents", json={"text": "The museum moved to Lisbon in 2019."}
        ).json()
        assert "<html" in http.get("/").text
    with serving(FAKE, tmp_path / "notes", end=end) as url:
        assert httpx.get(f"{url}/api/documents/{made['id']}").json()["ready"]


def test_the_token_may_come_from_the_environment(tmp_path):
    """And it is demanded then."""
    with serving(FAKE, tmp_path / "notes", "--max-body", "1", CMT_TOKEN="swordfish") as url:  # noqa: S106 - of a test
        assert httpx.get(f"{url}/api/stats").status_code == 401
        headers = {"Authorization": "Bearer swordfish"}
        assert httpx.get(f"{url}/api/stats", headers=headers).status_code == 200
        assert (
            httpx.post(f"{url}/api/ask", headers=headers, content=b"x" * 2**21).status_code == 413
        )


def test_beyond_this_machine_it_does_not_begin_without_a_token(tmp_path):
    """The remedy is told, and the exit code is that of a wrong argument."""
    words = [
        sys.executable,
        "-c",
        FAKE,
        "serve",
        "-m",
        str(tmp_path / "notes"),
        "--port",
        "0",
        "--host",
        "0.0.0.0",  # noqa: S104
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "CMT_TOKEN": ""}
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "set CMT_TOKEN or give --token" in done.stderr


def test_without_fastapi_the_error_is_its_install_line(monkeypatch):
    """Importing the adapter where FastAPI is missing says what to install."""
    real = builtins.__import__

    def hidden(name, *rest, **options):
        if name == "uvicorn":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "cmt_adapters.server.serve", raising=False)
    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(MissingExtra, match=r"pip install 'cmt-sdk\[serve\]'"):
        importlib.import_module("cmt_adapters.server.serve")


class Talker:
    """OpenAI's client of one user: it sends the rules and every turn so far with each message."""

    def __init__(self, user, rules):
        self.user = user
        self.messages = [{"role": "system", "content": rules}]

    def say(self, url, text):
        """The reply, streamed, and the texts of its sources."""
        self.messages.append({"role": "user", "content": text})
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            chunks = list(
                client.chat.completions.create(
                    model="cmt", user=self.user, messages=self.messages, stream=True
                )
            )
        assert chunks[-1].choices[0].finish_reason == "stop"
        reply = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        self.messages.append({"role": "assistant", "content": reply})
        return reply, [source["text"] for source in chunks[-1].sources]


def test_five_turns_over_two_processes_with_a_generator(tmp_path):
    """The generator gets the client's rules, the turns so far, and this user's notes: those of the
    earlier process too, and no other user's.
    """
    ann, bob = Talker("ann", "Answer like a pirate."), Talker("bob", "Be brief.")
    with chatting(says("Aye!")) as generator:
        options = ["--generator", generator.url, "--generator-model", "m"]

        def last():
            return generator.bodies[-1]["messages"]

        with serving(FAKE, tmp_path / "notes", *options) as url:
            assert ann.say(url, "My boat is called Tordalk.") == ("Aye!", [])
            assert ann.say(url, "Hello again!") == ("Aye!", [])
            bob.say(url, "My boat is called Heron.")
        with serving(FAKE, tmp_path / "notes", *options) as url:
            ann.say(url, "What is my boat called?")
            assert last()[0]["content"].startswith("Answer like a pirate.")
            roles = ["system", "user", "assistant", "user", "assistant", "user"]
            assert [message["role"] for message in last()] == roles
            assert "My boat is called Tordalk." in last()[-1]["content"]
            assert "Heron" not in str(last())
            ann.say(url, "Thanks!")
            generator.plays = [says("Tordalk.")]
            new = Talker("ann", "Be brief.")
            reply, sources = new.say(url, "What is my boat called?")
            assert (reply, sources) == ("Tordalk.", ["My boat is called Tordalk."])
            assert [message["role"] for message in last()] == ["system", "user"]
            bob.say(url, "What is my boat called?")
            assert "Tordalk" not in str(last())


@pytest.mark.model
def test_five_turns_over_two_processes_with_the_real_model(tmp_path):
    """What was stated to one process is answered by the next one, also where only the turns tell
    what is meant; another user is not answered from it.
    """
    fact = "My dog is called Rufus and he is a beagle."
    ann = Talker("ann", "You are a friendly assistant.")
    with serving(REAL, tmp_path / "notes", seconds=300) as url:
        ann.say(url, fact)
        ann.say(url, "Thanks!")
    with serving(REAL, tmp_path / "notes", seconds=300) as url:
        reply, sources = ann.say(url, "What is my dog called?")
        assert "Rufus" in reply
        assert sources == [fact]
        reply, _ = ann.say(url, "And what breed is he?")
        assert "beagle" in reply
        reply, sources = Talker("bob", "Be brief.").say(url, "What is my dog called?")
        assert ("Rufus" in reply, sources) == (False, [])
