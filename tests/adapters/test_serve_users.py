"""Who asks /v1, by which header or field, and whose memory they get. Nobody's name is nobody, never
everybody.
"""

import httpx
import openai
import pytest

from cmt_adapters.server.serve import app
from cmt_adapters.server.users import HEADERS, user_scope
from cmt_sdk.testing.fakes import open_fake
from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

CODE = [{"role": "user", "content": "What is my safe code?"}]
UNKNOWN = "I don't know."


def code_of(name):
    """What one user has told."""
    return f"My safe code is 4711 {name}."


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("served") / "notes") as made:
        for name in ("ann", "ben"):
            made.memory.add(code_of(name), scope=f"user/{name}")
        made.memory.add("The office opens at nine.")
        yield made


def asked(server, headers=None, messages=CODE, **body):
    """What /v1 answers."""
    whole = {"model": "cmt", "messages": messages, "remember": False, **body}
    answer = server.http.post("/v1/chat/completions", json=whole, headers=headers)
    if answer.status_code != 200:
        return answer.status_code, answer.json()["error"]["message"]
    return 200, answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("header", HEADERS)
def test_the_usual_headers_name_the_user(server, header):
    """In any spelling, as front ends and proxies send them."""
    assert asked(server, {header: "ann"}) == (200, code_of("ann"))
    assert asked(server, {header.lower(): "ben"}) == (200, code_of("ben"))
    assert asked(server, {header: "mallory"}) == (200, UNKNOWN)


@pytest.mark.parametrize(
    "body", [{"user": "ben"}, {"safety_identifier": "ben"}, {"metadata": {"user_id": "ben"}}]
)
def test_the_fields_of_the_body_name_the_user(server, body):
    """Of which `user` counts before the others; the key of a cache names nobody."""
    assert asked(server, **body) == (200, code_of("ben"))
    assert asked(server, **{**body, "user": "ann"}) == (200, code_of("ann"))
    assert asked(server, **body, prompt_cache_key="ann") == (200, code_of("ben"))


def test_nobody_reads_what_belongs_to_users(server):
    """Without a name only what belongs to no user is read, and what is told belongs to none."""
    assert asked(server) == (200, UNKNOWN)
    assert asked(server, prompt_cache_key="ann", user=None) == (200, UNKNOWN)
    opens = [{"role": "user", "content": "When does the office open?"}]
    assert asked(server, messages=opens) == (200, "The office opens at nine.")
    told = [{"role": "user", "content": "Tea is in the cupboard."}]
    asked(server, messages=told, remember=True)
    assert [d.scope for d in server.memory.documents(source="chat")] == [""]
    with server.client() as client:
        assert client.responses.create(model="cmt", input=CODE[0]["content"]).output_text == UNKNOWN


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"user": ""}, "user: the name is empty"),
        ({"user": " \t"}, "user: the name is empty"),
        ({"safety_identifier": ""}, "safety_identifier: the name is empty"),
        ({"metadata": {"user_id": ""}}, "metadata.user_id: the name is empty"),
        ({"scope": ""}, "scope: it is empty"),
        ({"user": "mallory", "scope": ""}, "scope: it is empty"),
        ({"user": "a" * 201}, "user: the name has 201 characters, the limit is 200"),
        ({"user": ["ann"]}, "user: give a text"),
    ],
)
def test_an_empty_name_is_refused(server, body, word):
    """Somebody was meant: it must not be everybody."""
    status, told = asked(server, **body)
    assert (status, told[: len(word)]) == (400, word)


@pytest.mark.parametrize("header", ["X-OpenWebUI-User-Id", "Remote-User", "x-user-id"])
def test_a_header_without_a_value_is_refused(server, header):
    """Also beside a user in the body, whom the front end did not name."""
    for more in ({}, {"user": "ann"}):
        status, told = asked(server, {header: ""}, **more)
        assert status == 400
        assert "the name is empty" in told


def test_an_empty_scope_is_nowhere_everybody(server):
    """Nor where documents are listed, searched or asked for; left out, it is the owner who asks."""
    for path in ("/api/documents?scope=", "/api/search?q=code&scope=", "/api/map?scope="):
        answer = server.http.get(path)
        assert (answer.status_code, answer.json()["error"]["message"][:18]) == (
            400,
            "scope: it is empty",
        )
    asked = {"question": "What is my safe code?"}
    assert server.http.post("/api/ask", json={**asked, "scope": ""}).status_code == 400
    assert server.http.post("/api/ask", json={**asked, "scope": None}).status_code == 200


def test_a_header_counts_before_the_body(server):
    """Which the user of a front end may have written: neither its user nor its scope opens another
    one's memory.
    """
    mallory = {"X-OpenWebUI-User-Id": "mallory"}
    assert asked(server, mallory, user="ann") == (200, UNKNOWN)
    for scope in ("user/ann", "user", "team", "user/mallory2"):
        status, told = asked(server, mallory, scope=scope)
        assert (status, told.startswith(f"scope: '{scope}' does not belong to the user")) == (
            400,
            True,
        )
    assert asked(server, {"X-OpenWebUI-User-Id": "ann"}, scope="user/ann") == (200, code_of("ann"))
    status, told = asked(server, [("X-User-Id", "mallory"), ("X-User-Id", "ann")])
    assert (status, "send it once" in told) == (400, True)


@pytest.mark.parametrize(
    "name", ["Zoë", "张伟", "a/b", "..", "user/ann", "ann\x7f", "ann@example.com"]
)
def test_one_name_is_one_user_by_header_and_body(server, name):
    """Whatever it holds."""
    server.memory.add(code_of("x") + name, scope=user_scope(name))
    by_header = asked(server, {"X-User-Id": name.encode()})
    assert by_header == asked(server, user=name)
    assert by_header[1].endswith(name)
    assert name not in asked(server, user="mallory")[1]


def test_a_server_can_demand_a_name(tmp_path):
    """By a flag; then a scope alone is not enough, and none of another user opens."""
    with running(tmp_path / "notes", require_user=True, user_headers=["X-Who"]) as server:
        server.memory.add(code_of("ann"), scope="user/ann")
        for body in ({}, {"user": None}, {"scope": "user/ann"}, {"prompt_cache_key": "ann"}):
            status, told = asked(server, **body)
            assert (status, told.startswith("user: the request names no user")) == (400, True)
            assert "X-Who" in told
        assert asked(server, user="ann") == asked(server, {"X-Who": "ann"}) == (200, code_of("ann"))
        assert asked(server, user="mallory", scope="user/ann")[0] == 400
        with (
            server.client() as client,
            pytest.raises(openai.BadRequestError, match="names no user"),
        ):
            client.responses.create(model="cmt", input="Hello?")


async def test_a_header_is_believed_with_a_token_or_on_this_machine(tmp_path):
    """From elsewhere and without one, anybody could send it."""
    body = {"model": "cmt", "messages": CODE, "remember": False}
    with open_fake(tmp_path / "notes") as memory:
        for client, token, status in (
            ("192.0.2.7", None, 403),
            ("192.0.2.7", "swordfish", 200),
            ("127.0.0.1", None, 200),
        ):
            transport = httpx.ASGITransport(app(memory, token=token), client=(client, 1))
            headers = {"X-User-Id": "ann", "Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", headers=headers
            ) as http:
                assert (await http.post("/v1/chat/completions", json=body)).status_code == status
