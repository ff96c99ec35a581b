"""Who may ask the server and how much: tokens, hosts, origins, sizes; headers; and what the log
tells.
"""

import logging
import re
import socket
import time

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from cmt_adapters.server.logs import RedactingFormatter
from cmt_adapters.server.serve import app, serve
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.testing.fakes import open_fake
from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

TOKEN = "swordfish-0123456789"  # noqa: S105 - of a server that lives for a test
PARTNER = "http://notes.example:8080"
LISBON = "The museum moved to Lisbon in 2019."


@pytest.fixture(scope="module")
def open_server(tmp_path_factory):
    """A server that needs no token, with one page elsewhere that may ask, and small bodies."""
    with running(
        tmp_path_factory.mktemp("served") / "notes", origins=[f"{PARTNER}/"], max_body=10_000
    ) as made:
        yield made


@pytest.fixture(scope="module")
def closed_server(tmp_path_factory):
    """A server that needs a token."""
    with running(tmp_path_factory.mktemp("served") / "notes", token=TOKEN) as made:
        yield made


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        TOKEN,
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        "Bearer \xe9",
    ],
)
def test_without_the_token_nothing_is_answered(closed_server, given):
    """Nor is it told whether a route is there; the page and the description of the routes are
    open.
    """
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    with httpx.Client(base_url=closed_server.url, headers=headers) as http:
        for path in ("/api/documents", "/v1/models", "/api/nowhere", "/metrics"):
            answer = http.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"]["type"] == "authentication_error"
        assert http.post("/api/forget", json={"scope": ""}).status_code == 401
        assert http.get("/").status_code == 200
        assert http.get("/openapi.json").status_code == 200


def test_the_token_opens(closed_server):
    """As OpenAI's client sends it; with a wrong key the client raises its own exception."""
    with closed_server.client() as client:
        assert client.models.list().data[0].id == "cmt"
        with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer TOKEN"):
            client.with_options(api_key="wrong").models.list()
    assert (
        closed_server.http.get(
            "/api/stats", headers={"Authorization": f"bearer {TOKEN}"}
        ).status_code
        == 200
    )
    described = closed_server.http.get("/openapi.json").json()
    assert described["components"]["securitySchemes"] == {
        "HTTPBearer": {"type": "http", "scheme": "bearer"}
    }


@pytest.mark.parametrize(
    ("root", "at"), [("/memory", "/memory"), ("/a", ""), ("/memory/", "/memory/"), ("", "")]
)
async def test_the_token_is_demanded_beneath_a_path_too(tmp_path, root, at):
    """Where a server or another app has put this one; what is remembered is cached nowhere, and the
    page is open there too.
    """
    with open_fake(tmp_path / "notes") as memory:
        transport = httpx.ASGITransport(app(memory, token=TOKEN), root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            for path in (f"{at}/api/documents", f"{at}/v1/models", f"{at}/api/nowhere"):
                assert (await http.get(path)).status_code == 401
            answer = await http.get(
                f"{at}/api/documents", headers={"Authorization": f"Bearer {TOKEN}"}
            )
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            assert (await http.get(f"{at}/")).status_code == 200


async def test_the_token_is_demanded_of_a_mounted_app(tmp_path):
    """Starlette leaves the whole path in the scope."""
    with open_fake(tmp_path / "notes") as memory:
        outer = Starlette(routes=[Mount("/api/memory", app(memory, token=TOKEN))])
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(outer), base_url="http://localhost"
        ) as http:
            assert (await http.get("/api/memory/api/documents")).status_code == 401
            assert (await http.get("/api/memory/v1/models")).status_code == 401
            assert (await http.get("/api/memory/")).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "http://[",
        "a@b",
        "\xe9",
    ],
)
def test_foreign_names_of_this_machine_are_refused(open_server, host):
    """A name that somebody has bound to this address (DNS rebinding) is not the server's."""
    answer = open_server.http.get("/api/stats", headers={"Host": host.encode("latin-1")})
    assert answer.status_code in (400, 421)
    assert open_server.http.get("/", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8765", "192.168.0.7", "notes.example:8080"],
)
def test_own_names_are_known(open_server, host):
    """Every address, for a page cannot choose it, and the hosts of the origins that may ask."""
    assert open_server.http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:1",
        "https://notes.example:8080",
        "http://notes.example",
        "http://[",
        PARTNER + ".evil",
    ],
)
def test_pages_of_other_origins_are_refused(open_server, origin):
    """Even for what they could send without asking first; and nothing is done for them."""
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    open_server.empty()
    answer = open_server.http.post("/api/documents", content='{"text": "planted"}', headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert open_server.http.options("/api/documents", headers=asked).status_code == 403
    assert open_server.memory.count() == 0


def test_the_own_page_and_named_ones_may_ask(open_server):
    """The server's own origin as a browser sees it, and a named one, with the headers that let it
    read the answer.
    """
    assert open_server.http.get("/healthz", headers={"Origin": open_server.url}).status_code == 200
    asked = {
        "Origin": PARTNER,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization",
    }
    before = open_server.http.options("/api/documents/x", headers=asked)
    assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, PARTNER)
    assert (
        open_server.http.get("/healthz", headers={"Origin": PARTNER}).headers[
            "access-control-allow-origin"
        ]
        == PARTNER
    )


def test_pictures_of_other_sites_make_no_work(open_server):
    """<img src="http://127.0.0.1:8765/api/search?q=x"> has no origin, but browsers tell where it
    stands; links may lead here.
    """
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert (
        open_server.http.get("/api/search", params={"q": "x"}, headers=foreign).status_code == 403
    )
    assert (
        open_server.http.get("/", headers={**foreign, "Sec-Fetch-Mode": "navigate"}).status_code
        == 200
    )


def test_answers_bring_headers_that_keep_them_safe(open_server):
    """The page runs only its own files, nothing is guessed, framed, or told to other sites; what is
    remembered is not cached.
    """
    for path in ("/", "/api/stats", "/v1/models", "/nowhere"):
        headers = open_server.http.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; ")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
    assert open_server.http.get("/api/stats").headers["cache-control"] == "no-store"


def test_the_page_is_served_with_all_its_files(open_server):
    """Each by its name and kind, and nothing beside them."""
    page = open_server.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"#:]+)"', page.text)
    assert "app.js" in named
    for name in named:
        file = open_server.http.get(f"/{name}")
        assert (file.status_code, file.headers["cache-control"]) == (200, "no-cache"), name
    assert "javascript" in open_server.http.get("/app.js").headers["content-type"]
    for path in ("/../serve.py", "/%2e%2e/serve.py", "/..%2fserve.py", "/serve.py"):
        assert open_server.http.get(path).status_code == 404


def test_bodies_have_a_limit(open_server):
    """Counted as they come, whether a length is announced or not; at the limit all is well."""
    open_server.empty()
    over = b"x" * 10_001

    def pieces():
        for n in range(0, 30_000, 1000):
            yield over[:1000] if n < 30_000 else b""

    fits = b'{"text": "' + b"x" * (10_000 - 12) + b'"}'
    kind = {"Content-Type": "application/json"}
    assert open_server.http.post("/api/documents", content=fits, headers=kind).status_code == 201
    for body in (over, pieces()):
        answer = open_server.http.post("/api/documents", content=body, headers=kind)
        assert (answer.status_code, answer.json()["error"]["message"]) == (
            413,
            "the body has more than 10,000 bytes, which is the limit",
        )
    assert open_server.http.post("/api/files", files={"file": ("a.txt", over)}).status_code == 413
    assert open_server.memory.count() == 1


def test_the_log_tells_no_words(open_server, caplog):
    """Neither of documents nor of questions, in addresses, bodies, names of files, nor in what went
    wrong.
    """
    caplog.set_level(logging.DEBUG)
    http = open_server.http
    secret = "zanzibarquartz"  # noqa: S105 - a word
    http.post(
        "/api/documents", json={"text": f"The word is {secret}.", "source": secret, "scope": secret}
    )
    http.get("/api/search", params={"q": secret})
    http.get(f"/api/documents/{secret}")
    http.get(f"/{secret}")
    http.get("/api/stats", headers={"Origin": f"http://{secret}"})
    http.post("/api/ask", json={"question": f"{secret}?", "k": secret})
    http.post("/api/ask", json={"question": f"{secret}?", "stream": True})
    http.post(
        "/v1/chat/completions",
        json={"model": secret, "messages": [{"role": "user", "content": secret}]},
    )
    http.post("/api/files", files={"file": (f"{secret}.pdf", secret.encode())})
    own = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    lines = [r.getMessage() for r in own if r.name == "cmt_adapters.server.serve"]
    assert len(lines) == 9
    assert re.fullmatch(r"POST /api/documents 201 \d+ ms", lines[0])
    assert re.fullmatch(r"GET /api/documents/\{id\} 404 \d+ ms", lines[2])
    assert secret not in "".join(RedactingFormatter("%(name)s %(message)s").format(r) for r in own)


def test_a_bug_is_logged_by_kind_and_place(open_server, caplog, monkeypatch):
    """Without the message, which may hold anybody's words; the client learns that it is not to
    blame.
    """
    monkeypatch.setattr(type(open_server.memory), "stats", lambda _: {}["zanzibarquartz"])
    answer = open_server.http.get("/api/stats")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "zanzibarquartz" not in answer.text
    # it is logged after the answer
    while not (failed := [r for r in caplog.records if r.exc_info]):
        time.sleep(0.01)
    (record,) = failed
    shown = RedactingFormatter().format(
        logging.makeLogRecord({**record.__dict__, "exc_text": None})
    )
    assert shown.endswith("KeyError")
    assert "rest_api.py" in shown
    assert ": 'zanzibarquartz'" not in shown


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])  # noqa: S104 - it must not listen there
def test_beyond_this_machine_a_token_is_demanded(tmp_path, host):
    """Else the server does not begin, and says what to do."""
    with open_fake(tmp_path / "notes") as memory, pytest.raises(InvalidSetting, match="CMT_TOKEN"):
        serve(memory, host=host, port=0)


def test_a_port_that_is_taken_is_told(tmp_path):
    """And a host that nobody knows, a token that no header can hold, an origin that is none."""
    with open_fake(tmp_path / "notes") as memory:
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            pytest.raises(InvalidSetting, match="--port"),
        ):
            serve(memory, port=taken.getsockname()[1])
        with pytest.raises(InvalidSetting, match="--host"):
            serve(memory, host="nowhere.invalid")
        with pytest.raises(InvalidSetting, match="--port"):
            serve(memory, port=70_000)
        for token in ("", "two words", "\xe9", "a\n"):
            with pytest.raises(InvalidSetting, match="token"):
                app(memory, token=token)
        for origin in (
            "notes.example",
            "ftp://notes.example",
            "http://",
            "http://a/b",
            "http://u:p@a",
            "*",
            "http://a\n",
        ):
            with pytest.raises(InvalidSetting, match="origin"):
                app(memory, origins=[origin])


def test_nothing_is_told_to_anybody(tmp_path, monkeypatch):
    """Where the environment asks FastAPI for telemetry, this application has none."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    with open_fake(tmp_path / "notes") as memory:
        made = app(memory)
    if not hasattr(made, "_telemetry"):
        pytest.skip("this FastAPI has no telemetry")
    assert made._telemetry["auto_configure"] is False
    assert not made._native_telemetry.enabled()
