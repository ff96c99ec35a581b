"""MCP over HTTP, asked by pages: only those that were named, by scheme, host and port; and they may
read the answers.
"""

import contextlib
import json

import httpx
import pytest

from cmt_adapters.mcp import http_app, mcp_server
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.testing.fakes import open_fake

NAMED = [
    "http://localhost:6274",
    "chrome-extension://abc",
    "app://obsidian.md",
    "https://127.0.0.1:*",
]
OWN = "http://127.0.0.1:8766"
FIRST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "page", "version": "1"},
    },
}
JSON = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@contextlib.asynccontextmanager
async def served(folder, *, origins=NAMED, token=None):
    """A client of the application."""
    with open_fake(folder / "notes") as memory:
        app = http_app(mcp_server(memory, token=token), ["127.0.0.1", "localhost"], origins)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as http,
        ):
            yield http


def before(origin, **more):
    """The headers of a preflight."""
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,mcp-session-id",
    }
    return {"Origin": origin, **asked, **more}


async def test_a_named_page_begins_a_session(tmp_path):
    """After its preflight, and sees the session's id; a token is still demanded where there is
    one.
    """
    for token in (None, "swordfish"):
        async with served(tmp_path / str(token), token=token) as http:
            for origin in (
                "http://localhost:6274",
                "chrome-extension://abc",
                "app://obsidian.md",
                "https://127.0.0.1:8766",
            ):
                private = {"Access-Control-Request-Private-Network": "true"}
                allowed = await http.options("/mcp", headers=before(origin, **private))
                assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (
                    200,
                    origin,
                )
                assert allowed.headers["access-control-allow-private-network"] == "true"
                assert "mcp-session-id" in allowed.headers["access-control-allow-headers"].lower()
                bearer = {"Authorization": f"Bearer {token}"} if token else {}
                answer = await http.post(
                    "/mcp", json=FIRST, headers={**JSON, **bearer, "Origin": origin}
                )
                assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
                    200,
                    origin,
                )
                assert "Mcp-Session-Id" in answer.headers["access-control-expose-headers"]
                data = next(line for line in answer.text.splitlines() if line.startswith("data: {"))
                assert (
                    json.loads(data.removeprefix("data: "))["result"]["serverInfo"]["name"] == "cmt"
                )
            if token:
                assert (
                    await http.post("/mcp", json=FIRST, headers={**JSON, "Origin": NAMED[0]})
                ).status_code == 401


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:9999",
        "http://localhost",
        "http://127.0.0.1:8767",
        "https://localhost:6274",
        "evil://127.0.0.1:8766",
        "://127.0.0.1:8766",
        "null",
        "http://evil.example",
        "chrome-extension://abcd",
        "",
    ],
)
async def test_other_pages_may_not_ask(tmp_path, origin):
    """Neither before nor at all."""
    async with served(tmp_path) as http:
        for answer in (
            await http.post("/mcp", json=FIRST, headers={**JSON, "Origin": origin}),
            await http.options("/mcp", headers=before(origin)),
        ):
            assert answer.status_code == 403
            assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_programs_and_the_own_page_ask_as_ever(tmp_path):
    """Programs send no origin."""
    async with served(tmp_path, origins=()) as http:
        assert (await http.post("/mcp", json=FIRST, headers=JSON)).status_code == 200
        assert (
            await http.post("/mcp", json=FIRST, headers={**JSON, "Origin": OWN})
        ).status_code == 200
        assert (
            await http.post("/mcp", json=FIRST, headers={**JSON, "Host": "evil.example"})
        ).status_code == 421


async def test_what_is_no_origin_is_refused(tmp_path):
    """When the server is made."""
    with pytest.raises(InvalidSetting, match="give scheme, host and port"):
        async with served(tmp_path, origins=["everybody"]):
            pass
