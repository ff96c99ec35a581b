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


@pytest.mark.model
def test_the_real_model_remembers_what_an_earlier_server_was_told(tmp_path):
    """OpenAI's client tells a fact to one process, and streams it from the next one; another user
    is not told.
    """

    def said(client, user, text):
        messages = [{"role": "user", "content": text}]
        chunks = list(
            client.chat.completions.create(model="cmt", user=user, messages=messages, stream=True)
        )
        assert chunks[-1].choices[0].finish_reason == "stop"
        return "".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].sources

    fact = "My dog is called Rufus and my cat is called Mia."
    for asked, expected in ((fact, None), ("What is my dog called?", "Rufus")):
        with (
            serving(REAL, tmp_path / "notes", seconds=300) as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        ):
            text, sources = said(client, "ann", asked)
            if expected:
                assert expected in text
                assert [s["text"] for s in sources] == [fact]
                text, sources = said(client, "bob", asked)
                assert (expected in text, sources) == (False, [])
