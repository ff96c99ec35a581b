"""One conversation of ten turns by an OpenAI client, an MCP client and `cmt chat`: one memory."""

import json

import pytest
from click.testing import CliRunner
from mcp import Client

from cmt_adapters.mcp import mcp_server
from cmt_cli.main import main
from examples.conversations.judging import holds
from examples.conversations.ways import by_http, default_opener

pytestmark = [pytest.mark.model, pytest.mark.enable_socket]

USER, SCOPE = "greta", "user/greta"
TALK = (  # kind, what is said, what the reply to a question holds
    ("talk", "Hello!", None),
    ("tells", "I'm Greta and I tune pianos in Ghent.", None),
    ("asks", "What do I tune?", "pianos"),
    ("tells", "My van is parked on level 3 of the car park.", None),
    ("asks", "Which level is my van parked on?", "3"),
    ("tells", "I moved the van, it is parked on level 5 now.", None),
    ("asks", "what level is my van parked on", "5"),
    ("tells", "Please remember that the client on Thursday is Mr Baeten.", None),
    ("asks", "Who is the client on Thursday?", "Baeten"),
    ("talk", "Thanks, that is all!", None),
)
LEAST = 3  # of the four questions


@pytest.fixture(scope="module")
def open_memory():
    """Opens memories of the default model, which is loaded once."""
    return default_opener()


def by_openai(folder, open_memory):
    """The replies of `/v1` to a client that sends what was said before."""
    with open_memory(folder) as memory, by_http(memory) as way:
        return [way.say(USER, text).text for _, text, _ in TALK]


def by_command(folder, open_memory):
    """The replies of `cmt chat`, a line a turn."""
    words = ["chat", "--remember", "--scope", SCOPE, "--json", "-m", str(folder)]
    lines = "".join(f"{text}\n" for _, text, _ in TALK)
    done = CliRunner().invoke(main, words, input=lines, obj=open_memory)
    assert done.exit_code == 0, done.output
    return [json.loads(line)["text"] for line in done.stdout.splitlines()]


async def by_mcp(folder, open_memory):
    """An assistant's: it remembers what it is told, asks what it is asked, and talks by itself."""
    replies = []
    with open_memory(folder) as memory:
        async with Client(mcp_server(memory), read_timeout_seconds=120) as client:
            for kind, text, _ in TALK:
                if kind == "tells":
                    result = await client.call_tool("remember", {"text": text, "scope": SCOPE})
                elif kind == "asks":
                    result = await client.call_tool("ask", {"question": text, "scope": SCOPE})
                else:
                    replies.append("Hello.")
                    continue
                assert not result.is_error, result.content[0].text
                replies.append(str(result.structured_content.get("answer", "Kept.")))
    return replies


async def test_three_clients_end_with_the_same_memory(tmp_path, open_memory):
    """Texts and scopes are equal, what is only talk is not kept, and the answers are right."""
    replies = {
        "openai": by_openai(tmp_path / "openai", open_memory),
        "cmt chat": by_command(tmp_path / "cmt chat", open_memory),
        "mcp": await by_mcp(tmp_path / "mcp", open_memory),
    }
    kept = {}
    for name in replies:
        with open_memory(tmp_path / name) as memory:
            kept[name] = sorted((d.text, d.scope) for d in memory.documents())
    assert kept["openai"] == kept["cmt chat"] == kept["mcp"], (kept, replies)
    assert {scope for _, scope in kept["mcp"]} == {SCOPE}
    for name, said in replies.items():
        assert len(said) == len(TALK), (name, said)
        wanted = [form for _, _, form in TALK]
        right = [r for r, form in zip(said, wanted, strict=True) if form and holds(r, form)]
        assert len(right) >= LEAST, (name, said)
