"""`cmt mcp` as a process of its own, over stdio and over HTTP, and what it refuses to open."""

import contextlib
import json
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake

FACT = "The museum moved to Lisbon in 2019."
TOKEN = "a-token-for-tests"  # noqa: S105 - it guards nothing
# `cmt` with a fake language model, which prints as some libraries do.
FAKE_CMT = """
import sys
from pathlib import Path
from cmt_cli.main import main
from cmt_sdk.testing.fakes import FakeEngine, open_fake

class Loud(FakeEngine):
    def count_tokens(self, texts):
        print("counting", flush=True)
        return super().count_tokens(texts)

main(sys.argv[1:], obj=lambda folder, **options: open_fake(folder, Loud(), **options))
"""


async def call(client, tool, /, **arguments):
    """What a tool answers."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    return result.structured_content


async def test_over_stdio_what_one_process_remembers_another_recalls(tmp_path):
    """On stdout there is nothing but the protocol, a message a line, whatever is sent or printed.
    Ctrl-C ends it.
    """
    command = ["-c", FAKE_CMT, "mcp", "-m", str(tmp_path / "m")]
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    sent = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "remember", "arguments": {"text": FACT}},
        },
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *command], text=True, **pipes) as process:
        process.stdin.write("".join(f"{line}\n" for line in ["no JSON", *map(json.dumps, sent)]))
        process.stdin.flush()
        received = [json.loads(process.stdout.readline())]
        while received[-1].get("id") != 2:
            received.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT
        rest, said = process.stdout.read(), process.stderr.read()
    stored = received[-1]["result"]["structuredContent"]
    assert [m["result"]["serverInfo"]["name"] for m in received if m.get("id") == 1] == ["cmt"]
    assert (rest, set(said.split())) == ("", {"counting"})

    reading = StdioServerParameters(command=sys.executable, args=[*command, "--read-only"])
    async with Client(reading, read_timeout_seconds=30) as client:
        assert len((await client.list_tools()).tools) == 3
        reply = await call(client, "ask", question="Where is the museum?")
    assert reply["answer"] == FACT
    assert reply["sources"][0]["document_id"] == stored["document_id"]


@contextlib.contextmanager
def served(folder, *arguments, **env):
    """`cmt mcp --http` on a free port, with a fake model: its address. Ctrl-C ends it."""
    command = [
        sys.executable,
        "-c",
        FAKE_CMT,
        "mcp",
        "--http",
        "--port",
        "0",
        "-m",
        str(folder),
        *arguments,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield re.search(r"http://\S+/mcp", process.stderr.readline()).group()
        finally:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert said.splitlines()[-1] == "stopped; what was stored is safe"
    assert "Traceback" not in said


@pytest.mark.enable_socket
async def test_over_http_who_asks_brings_the_token(tmp_path):
    """Without it, or from another site's page, there is no answer."""
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with served(tmp_path / "m", CMT_TOKEN=TOKEN) as url:
        async with httpx2.AsyncClient(
            headers={"Accept": "application/json, text/event-stream"}, trust_env=False
        ) as http:

            async def status(**headers):
                return (await http.post(url, json=ping, headers=headers)).status_code

            assert await status() == 401
            assert await status(Authorization=f"Bearer {TOKEN}x") == 401
            assert await status(**bearer, Host="evil.example") == 421
            assert await status(**bearer, Origin="http://evil.example") == 403
            assert await status(**bearer, Origin="http://localhost:3000") == 403
        async with (
            httpx2.AsyncClient(headers=bearer, trust_env=False) as http,
            Client(
                streamable_http_client(url, http_client=http), read_timeout_seconds=30
            ) as client,
        ):
            await call(client, "remember", text=FACT)
            assert (await call(client, "ask", question="Where is the museum?"))["answer"] == FACT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "1"], "--port applies only with --http"),
        (
            ["--http", "--host", "0.0.0.0"],  # noqa: S104 - it is refused
            "give a --token, or set CMT_TOKEN",
        ),
        (["--http", "--host", "192.0.2.1"], "give a --token, or set CMT_TOKEN"),
        (["--http", "--host", "::", "--token", "x"], "--allow-host"),
        (["--http", "--token", ""], "the token is empty"),
        (
            ["--http", "--token", "two words"],
            "the token is empty, or has characters that a header cannot transmit",
        ),
    ],
)
def test_nobody_is_let_in_by_mistake(tmp_path, monkeypatch, arguments, words):
    """What would open the memory to others, or mean something else than it looks, is refused with
    the remedy.
    """
    monkeypatch.delenv("CMT_TOKEN", raising=False)
    done = CliRunner().invoke(main, ["mcp", "-m", str(tmp_path / "m"), *arguments], obj=open_fake)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_port_that_is_taken_is_told(tmp_path, monkeypatch):
    """With what to do."""

    def taken(*_, **__):
        raise OSError(98, "Address already in use")

    monkeypatch.setattr("socket.create_server", taken)
    done = CliRunner().invoke(main, ["mcp", "--http", "-m", str(tmp_path / "m")], obj=open_fake)
    assert done.exit_code == 2
    assert "port 8766" in done.stderr
    assert "choose another --host or --port" in done.stderr


def test_a_memory_that_is_not_there_is_not_made_to_be_read(tmp_path):
    """With --read-only."""
    done = CliRunner().invoke(
        main, ["mcp", "--read-only", "-m", str(tmp_path / "m")], obj=open_fake
    )
    assert done.exit_code == 3
    assert not (tmp_path / "m").exists()


@pytest.mark.model
async def test_the_real_command_remembers_in_one_process_and_answers_in_another(tmp_path):
    """`cmt mcp` with the default model, as an assistant starts it."""
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "cmt_cli.main", "mcp", "-m", str(tmp_path / "m")]
    )
    async with Client(command, read_timeout_seconds=120) as client:
        await call(
            client,
            "remember",
            text="The city museum moved to Lisbon in 2019. Its director is Marta Quintela.",
        )
    async with Client(command, read_timeout_seconds=120) as client:
        reply = await call(client, "ask", question="Where did the city museum move to?")
    assert "Lisbon" in reply["answer"]
    assert reply["known"] is True


async def test_the_example_runs(tmp_path, capsys):
    """As an assistant would: it remembers, asks, and names the source."""
    main_of = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "mcp_client.py"))["main"]
    await main_of(
        StdioServerParameters(
            command=sys.executable, args=["-c", FAKE_CMT, "mcp", "-m", str(tmp_path / "m")]
        )
    )
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "tools: ask, forget, list, remember, search, undo, update",
        f"{FACT} ['trip.md']",
    ]
