"""Who may ask from a browser: pages, desktop apps and extensions; and requests that are framed
twice, or that fail.
"""

import logging
import re
import socket
import time

import pytest

from cmt_adapters.origins import Origins
from cmt_sdk.errors import InvalidSetting
from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

TOKEN = "sesame"  # noqa: S105 - of the test; `null` is refused without one
NAMED = {
    "app://obsidian.md": ["app://obsidian.md"],
    "chrome-extension://abcdefgh": ["chrome-extension://abcdefgh"],
    "moz-extension://*": ["moz-extension://5d2a0b8e-1111", "moz-extension://x"],
    "tauri://localhost": ["tauri://localhost"],
    "http://tauri.localhost": ["http://tauri.localhost"],
    "capacitor://localhost": ["capacitor://localhost"],
    "file://": ["file://"],
    "null": ["null"],
    "http://localhost:*": ["http://localhost", "http://localhost:5173", "http://LOCALHOST:1"],
    "https://notes.example:8443/": ["https://notes.example:8443"],
    "http://[::1]:3000": ["http://[::1]:3000"],
}
FOREIGN = [
    "http://evil.example",
    "app://obsidian.md.evil",
    "app://obsidianxmd",
    "xapp://obsidian.md",
    "chrome-extension://abcdefghi",
    "moz-extension://",
    "https://localhost:5173",
    "http://localhost:5173.evil.example",
    "http://localhost:",
    "http://notes.example:8443",
    "nullx",
    "",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(
        tmp_path_factory.mktemp("served") / "notes", origins=list(NAMED), token=TOKEN
    ) as made:
        yield made


def test_null_is_refused_without_a_token(tmp_path):
    """A sandboxed frame of any site sends it."""
    with (
        pytest.raises(InvalidSetting, match=r"origin null.*CMT_TOKEN"),
        running(tmp_path / "notes", origins=["null"]),
    ):
        pass


@pytest.mark.parametrize("origin", [o for origins in NAMED.values() for o in origins])
def test_named_pages_apps_and_extensions_may_ask(server, origin):
    """And read the answer; before it they may ask whether they may, from a public page of a private
    address, too.
    """
    answer = server.http.get("/api/stats", headers={"Origin": origin})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    before = server.http.options("/v1/chat/completions", headers=asked)
    assert (before.status_code, before.headers["access-control-allow-headers"]) == (
        200,
        "authorization",
    )
    assert "access-control-allow-private-network" not in before.headers
    private = server.http.options(
        "/v1/responses", headers=asked | {"Access-Control-Request-Private-Network": "true"}
    )
    assert (private.status_code, private.headers["access-control-allow-private-network"]) == (
        200,
        "true",
    )


@pytest.mark.parametrize("origin", FOREIGN)
def test_others_may_not(server, origin):
    """Whatever they resemble."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Private-Network": "true",
    }
    for answer in (
        server.http.get("/api/stats", headers={"Origin": origin}),
        server.http.options("/v1/models", headers=asked),
    ):
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("scheme", ["evil", "", "https", "ws", "http+x"])
def test_the_own_page_has_the_own_scheme(server, scheme):
    """Another one at the same host is another origin."""
    host = server.url.removeprefix("http://")
    assert (
        server.http.get("/api/stats", headers={"Origin": f"{scheme}://{host}"}).status_code == 403
    )
    assert server.http.get("/api/stats", headers={"Origin": server.url}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "http://*",
        "https://*.example",
        "notes.example",
        "http://a/b",
        "http://a:b",
        "app://a:1",
        "app://",
        "ftp://a",
        "",
        "http://a b",
    ],
)
def test_what_is_no_origin_is_refused(origin):
    """With what can be given."""
    with pytest.raises(InvalidSetting, match="give scheme, host and port, such as"):
        Origins([origin])


def sent(server, head, body=b""):
    """What a socket answers, first line by first line, and whether it is open then."""
    host, port = server.url.removeprefix("http://").split(":")
    bearer = f"Authorization: Bearer {server.token}"
    lines = [*head, f"Host: {host}:{port}", bearer, "Content-Type: application/json", "", ""]
    after = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode() + body + after.encode())
        got = b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")
    return re.findall(r"HTTP/1\.1 (\d+)", got), got


CHUNKED = b'11\r\n{"text": "x y z"}\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    "framed",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 999"],
        ["transfer-encoding: CHUNKED", "content-length: 0"],
    ],
)
def test_a_body_that_is_framed_twice_is_refused(server, framed):
    """And the connection closed: what follows is not taken for a request."""
    for line in (
        "POST /api/documents HTTP/1.1",
        "POST /v1/chat/completions HTTP/1.1",
        "GET /healthz HTTP/1.1",
    ):
        statuses, text = sent(server, [line, *framed], CHUNKED)
        assert statuses == ["400"]
        assert "send one of them" in text
        assert "nosniff" in text
    assert server.memory.count() == 0


def test_a_body_that_is_framed_once_is_read(server):
    """In either way, and the connection stays for the next request."""
    server.empty()
    assert sent(server, ["POST /api/documents HTTP/1.1", "Transfer-Encoding: chunked"], CHUNKED)[
        0
    ] == ["201", "200"]
    assert sent(
        server, ["POST /api/documents HTTP/1.1", "Content-Length: 17"], b'{"text": "x y z"}'
    )[0] == ["200", "200"]
    server.empty()


def test_a_failure_is_an_answer_like_others(server, caplog, monkeypatch):
    """With the headers that keep it safe, those that let a named page read it, and its line in the
    log.
    """
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(type(server.memory), "stats", lambda _: {}["zanzibarquartz"])
    answer = server.http.get("/api/stats", headers={"Origin": "app://obsidian.md"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "InternalError")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert (answer.headers["x-content-type-options"], answer.headers["x-frame-options"]) == (
        "nosniff",
        "DENY",
    )
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == (
        "no-store",
        "no-referrer",
    )
    assert answer.headers["access-control-allow-origin"] == "app://obsidian.md"
    end = time.monotonic() + 10
    while not (
        lines := [r.getMessage() for r in caplog.records if r.name == "cmt_adapters.server.serve"]
    ):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert lines[0].startswith("GET /api/stats 500 ")
