"""/api over the loopback: documents, files, search, questions, the map; and what OpenAPI says of
it.
"""

import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import numpy as np
import pytest

import cmt_sdk
from cmt_adapters.server.projection import clusters, neighbours, plane
from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

LISBON = "The museum moved to Lisbon in 2019."
GENOA = "The harbour of Genoa opens at nine."


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("served") / "notes") as made:
        yield made


@pytest.fixture
def api(server):
    """HTTP to the one server, whose memory is empty."""
    server.empty()
    return server.http


def added(api, text, **fields):
    """A document, remembered."""
    answer = api.post("/api/documents", json={"text": text, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def failure(answer, status, code=None):
    """The message of a failure, in the shape that all have."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert code in (None, error["code"])
    return error["message"]


def events(answer):
    """The server-sent events of an answer: names and data."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [e.split("\n") for e in answer.text.strip().split("\n\n")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in lines
    ]


def test_a_document_from_beginning_to_end(api, server):
    """Added, seen with its passages, changed, erased with a receipt, gone."""
    later = (datetime.now(UTC) + timedelta(days=9)).isoformat()
    fields = {
        "source": "trip.md",
        "scope": "user/ann",
        "metadata": {"year": 2019, "seen": True, "by": None},
        "expires_at": later,
    }
    made = added(api, LISBON, **fields)
    assert {name: made[name] for name in ("source", "scope", "metadata", "ready", "version", "length")} == {
        "source": "trip.md", "scope": "user/ann", "metadata": fields["metadata"], "ready": True, "version": 1, "length": 35,
    }  # fmt: skip
    assert datetime.fromisoformat(made["expires_at"]) == datetime.fromisoformat(later)
    whole = api.get(f"/api/documents/{made['id']}").json()
    assert (whole["text"], [(p["text"], p["ordinal"], p["ready"]) for p in whole["passages"]]) == (
        LISBON,
        [(LISBON, 0, True)],
    )
    changed = api.patch(
        f"/api/documents/{made['id']}", json={"text": GENOA, "source": None, "scope": None}
    ).json()
    assert (changed["text"], changed["version"], changed["source"], changed["scope"]) == (
        GENOA,
        2,
        None,
        "user/ann",
    )
    assert (
        api.patch(f"/api/documents/{made['id']}", json={"expires_at": None}).json()["expires_at"]
        is None
    )
    receipt = api.delete(f"/api/documents/{made['id']}").json()
    assert (receipt["documents"], receipt["versions"], receipt["passages"]) == ([made["id"]], 2, 1)
    assert (receipt["traces_found"], receipt["complete"]) == (0, True)
    for method in ("GET", "DELETE", "PATCH"):
        body = {} if method == "PATCH" else None
        assert made["id"] in failure(
            api.request(method, f"/api/documents/{made['id']}", json=body), 404, "DocumentNotFound"
        )
    assert server.memory.count() == 0


def test_the_same_text_is_one_document(api):
    """The second time it is 200, not 201; a taken id is a conflict."""
    first = added(api, LISBON, id="museum")
    again = api.post("/api/documents", json={"text": LISBON})
    assert (again.status_code, again.json()["id"]) == (200, "museum")
    failure(api.post("/api/documents", json={"text": GENOA, "id": "museum"}), 409, "AlreadyExists")
    assert added(api, LISBON, scope="elsewhere")["id"] != first["id"]


def test_an_id_may_hold_anything(api):
    """Slashes too, in its address."""
    for name in ("a/b", "user:7", "é ü", "100%"):
        added(api, f"Called {name}.", id=name)
        assert api.get(f"/api/documents/{quote(name, safe='')}").json()["text"] == f"Called {name}."
        assert api.delete(f"/api/documents/{quote(name, safe='')}").json()["documents"] == [name]


def test_a_document_can_be_compressed_later(api, server):
    """With wait=false the answer comes first."""
    made = added(api, LISBON, wait=False)
    assert server.memory.wait(20)
    assert api.get(f"/api/documents/{made['id']}").json()["ready"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "text"),
        ({"text": " \n"}, 400, "give text"),
        ({"text": "a\0b"}, 400, "give text"),
        ({"text": "x", "scope": "a//b"}, 400, "scope: give names"),
        ({"text": "x", "scope": ".."}, 422, "scope"),
        ({"text": "x", "expires_at": "2027-01-01T00:00:00"}, 400, "expires_at"),
        ({"text": "x", "expires_at": "2001-01-01T00:00:00Z"}, 422, "has passed"),
        ({"text": "x", "metadata": {"a": [1]}}, 400, "metadata.a"),
        ({"text": "x", "metadata": {"a": 2**70}}, 422, "whole numbers"),
        ({"text": "x", "wait": "maybe"}, 400, "wait"),
    ],
)
def test_what_cannot_be_remembered_is_refused(api, server, body, status, words):
    """With the field that is wrong, and nothing stored."""
    assert words in failure(api.post("/api/documents", json=body), status)
    assert server.memory.count() == 0


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"NaN",
        b"",
    ],
)
def test_what_is_no_json_is_refused(api, body):
    """Whatever python's parser thinks of it. Without the content type of JSON, as foreign pages can
    send it, no body is read.
    """
    failure(
        api.post("/api/documents", content=body, headers={"Content-Type": "application/json"}), 400
    )
    good = json.dumps({"text": LISBON})
    told = failure(
        api.post("/api/documents", content=good, headers={"Content-Type": "text/plain"}), 400
    )
    assert told == "body: give a JSON object, and the header Content-Type: application/json"


def test_a_list_comes_in_pages(api):
    """In order of creation, texts cut, by scope, by source, by a part of the source."""
    for n in range(5):
        added(
            api, f"Note {n}. " + "x" * 400, source=f"dir/{n}.md", scope=f"user/{n % 2}", wait=False
        )
    first = api.get("/api/documents", params={"limit": 3}).json()
    second = api.get("/api/documents", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    listed = first["documents"] + second["documents"]
    assert ([d["source"] for d in listed], second["next_cursor"]) == (
        [f"dir/{n}.md" for n in range(5)],
        None,
    )
    assert {(len(d["text"]), d["length"]) for d in listed} == {(300, 408)}

    def found(**params):
        return [d["source"] for d in api.get("/api/documents", params=params).json()["documents"]]

    assert found(scope="user/1") == ["dir/1.md", "dir/3.md"]
    assert found(q="/3") == ["dir/3.md"]
    assert found(source="dir/*") == [f"dir/{n}.md" for n in range(5)]
    assert found(source="3") == []
    failure(api.get("/api/documents", params={"cursor": "x"}), 400)
    failure(api.get("/api/documents", params={"limit": 0}), 400)


def docx(text):
    """The bytes of a small Word document."""
    body = (
        "<w:document"
        f" xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>"
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as parts:
        parts.writestr("word/document.xml", body)
    return made.getvalue()


def test_files_are_read_by_their_kinds(api, server):
    """Under their own names; what cannot be read is told with its name, not with a path of this
    machine, and stops nothing.
    """
    files = [
        ("file", ("a.md", LISBON.encode())),
        ("file", ("C:\\notes\\b.html", f"<h1>Harbour</h1><p>{GENOA}</p>".encode())),
        ("file", ("../../c.docx", docx("Ann likes tea."))),
        ("file", ("bad.pdf", b"no pdf")),
        ("file", ("picture.png", b"\x89PNG\xff")),
        ("file", ("empty.txt", b"")),
    ]
    said = api.post("/api/files", files=files, data={"scope": "user/ann"}).json()
    assert [(d["source"], d["text"], d["scope"]) for d in said["documents"]] == [
        ("a.md", LISBON, "user/ann"),
        ("b.html", f"# Harbour\n\n{GENOA}", "user/ann"),
        ("c.docx", "Ann likes tea.", "user/ann"),
    ]
    assert [r["name"] for r in said["refused"]] == ["bad.pdf", "picture.png", "empty.txt"]
    assert all(
        r["message"].startswith(r["name"]) and "/" not in r["message"].split()[0]
        for r in said["refused"]
    )
    assert server.memory.wait(20)
    failure(api.post("/api/files", data={"scope": "x"}), 400)
    failure(api.post("/api/files", files=files[:1], data={"scope": "//"}), 400)


def test_search_finds_passages_with_their_places(api):
    """In every mode, and within a scope."""
    added(api, LISBON, source="trip.md")
    ann = added(api, "Ann likes the museum of tea.", scope="user/ann")
    for mode in ("fused", "vector", "text", "reranked"):
        best = api.get("/api/search", params={"q": "Lisbon museum moved", "mode": mode}).json()[
            "matches"
        ][0]
        assert (best["source"], best["text"], best["start"], best["end"]) == (
            "trip.md",
            LISBON,
            0,
            35,
        )
        assert best["why"]
    (only,) = api.get("/api/search", params={"q": "museum", "scope": "user/ann"}).json()["matches"]
    assert (only["document_id"], only["scope"]) == (ann["id"], "user/ann")
    assert len(api.get("/api/search", params={"q": "museum", "k": 1}).json()["matches"]) == 1
    for wrong in ({}, {"q": " "}, {"q": "x", "k": 0}, {"q": "x", "mode": "magic"}):
        failure(api.get("/api/search", params=wrong), 400)


def test_a_question_is_answered_with_sources(api):
    """As JSON, or in pieces that end with the same answer."""
    added(api, LISBON, source="trip.md", metadata={"year": 2019})
    asked = {"question": "Where did the museum move to?", "k": 1, "where": {"year": {">=": 2019}}}
    answer = api.post("/api/ask", json=asked).json()
    assert (answer["text"], answer["reader"], answer["abstained"]) == (LISBON, "memory", False)
    (source,) = answer["sources"]
    assert (source["source"], answer["memory_tokens"]) == ("trip.md", 9)
    assert (
        source["rank"],
        source["holds_answer"],
        source["answer_start"],
        source["answer_end"],
    ) == (1, True, 0, 35)
    (span,) = answer["spans"]
    assert (span["document_id"], span["start"], span["end"], span["text"]) == (
        source["document_id"],
        0,
        35,
        LISBON,
    )
    *pieces, (last, streamed) = events(api.post("/api/ask", json={**asked, "stream": True}))
    assert {name for name, _ in pieces} == {"piece"}
    assert "".join(data["text"] for _, data in pieces).strip() == LISBON
    assert last == "answer"
    assert {**streamed, "milliseconds": 0} == {**answer, "milliseconds": 0}
    nothing = api.post("/api/ask", json={**asked, "where": {"year": 1066}}).json()
    assert (nothing["abstained"], nothing["sources"]) == (True, [])
    for wrong in (
        {"question": ""},
        {**asked, "k": 0},
        {**asked, "where": {"year": {"~": 1}}},
        {**asked, "max_tokens": 10**6},
    ):
        failure(api.post("/api/ask", json=wrong), 400)
        failure(api.post("/api/ask", json={**wrong, "stream": True}), 400)


def test_a_stream_that_breaks_off_says_so(api, server, monkeypatch):
    """After the first piece there is no status to be had: the failure is the last event."""
    added(api, LISBON)
    read = type(server.reader).read

    def breaking(self, prompt, max_tokens):
        yield next(read(self, prompt, max_tokens))
        raise cmt_sdk.errors.ModelError("the GPU is gone")

    monkeypatch.setattr(type(server.reader), "read", breaking)
    said = events(api.post("/api/ask", json={"question": "Which museum?", "stream": True}))
    assert [name for name, _ in said] == ["piece", "error"]
    assert said[1][1]["error"]["message"] == "the GPU is gone"
    failure(api.post("/api/ask", json={"question": "Which museum?"}), 503, "ModelError")
    body = {
        "model": "cmt",
        "messages": [{"role": "user", "content": "Which museum?"}],
        "stream": True,
    }
    *_, last = api.post("/v1/chat/completions", json=body).text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "the GPU is gone"


def test_forgetting_by_source_scope_or_metadata(api, server):
    """What fits goes, the rest stays; without a condition nothing does."""
    added(api, LISBON, source="a.md", metadata={"year": 2019})
    added(api, GENOA, source="b.md", scope="user/ann")
    assert (
        api.post("/api/forget", json={"source": "a*", "where": {"year": 2020}}).json()["documents"]
        == []
    )
    assert api.post("/api/forget", json={"scope": "user/ann"}).json()["passages"] == 1
    failure(api.post("/api/forget", json={}), 400, "InvalidFilter")
    failure(api.post("/api/forget", json={"source": None}), 400, "InvalidFilter")
    assert [d.source for d in server.memory.documents()] == ["a.md"]


def test_the_map_shows_every_passage_near_its_like(api):
    """In the plane, with a cluster, a label and its neighbours."""
    assert api.get("/api/map").json() == {"points": [], "neighbours": {}}
    alone = added(api, LISBON)
    assert [(p["x"], p["y"], p["label"]) for p in api.get("/api/map").json()["points"]] == [
        (0, 0, LISBON)
    ]
    added(api, "The museum moved to Lisbon in spring.", scope="user/ann")
    added(api, "Tea tastes best with ginger, says Bob.", source="tea.md")
    shown = api.get("/api/map").json()
    points = {p["label"]: p for p in shown["points"]}
    near, far = (
        points["The museum moved to Lisbon in spring."],
        points["Tea tastes best with ginger, says Bob."],
    )
    lisbon = points[LISBON]
    assert lisbon["document_id"] == alone["id"]
    assert shown["neighbours"][str(lisbon["passage_id"])] == [near["passage_id"], far["passage_id"]]
    assert abs(lisbon["x"] - near["x"]) < abs(lisbon["x"] - far["x"])
    assert max(abs(p[axis]) for p in points.values() for axis in "xy") == 1
    assert [p["label"] for p in api.get("/api/map", params={"scope": "user"}).json()["points"]] == [
        near["label"]
    ]
    assert len(api.get("/api/map", params={"limit": 2}).json()["points"]) == 2


def test_the_map_of_two_heaps_has_two_halves():
    """Rows of one heap share a cluster, a side and their neighbours; the same rows give the same
    map; few rows are no fault.
    """
    noise = np.random.default_rng(0).normal(size=(20, 32)) * 0.05
    rows = noise + np.repeat(np.eye(32)[:2], 10, axis=0)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    of = clusters(rows, 2)
    assert of.tolist() in ([0] * 10 + [1] * 10, [1] * 10 + [0] * 10)
    sides = plane(rows)[:, 0] > 0
    assert len(set(sides[:10])) == len(set(sides[10:])) == 1
    assert sides[0] != sides[10]
    near = neighbours(rows, 5)
    assert near.shape == (20, 5)
    assert (near[:10] < 10).all()
    assert not (near == np.arange(20)[:, None]).any()
    assert np.array_equal(plane(rows), plane(rows))
    same = np.repeat(rows[:1], 3, axis=0)
    assert (clusters(same, 8).tolist(), np.abs(plane(same)).max()) == ([0, 0, 0], 0)
    assert neighbours(rows[:1], 5).shape == (1, 0)


def test_the_memory_in_numbers(api):
    """With the version, beside what `cmt stats` tells."""
    added(api, LISBON)
    stats = api.get("/api/stats").json()
    assert (stats["documents"], stats["passages"], stats["pending"]) == (1, 1, 0)
    assert stats["version"] == cmt_sdk.__version__
    assert api.get("/healthz").json() == {"ok": True}


def test_openapi_describes_every_route(api):
    """With a summary, the shape of what comes back, and failures in the one shape that they
    have.
    """
    described = api.get("/openapi.json").json()
    assert described["info"]["version"] == cmt_sdk.__version__
    operations = [
        (f"{m} {p}", o) for p, methods in described["paths"].items() for m, o in methods.items()
    ]
    assert len(operations) == 18
    for name, operation in operations:
        assert operation["description"], name
        for status, answer in operation["responses"].items():
            schema = answer["content"]["application/json"]["schema"]
            assert (schema == {"$ref": "#/components/schemas/Failure"}) == (status >= "400"), name
    assert "HTTPValidationError" not in described["components"]["schemas"]


def test_methods_that_a_route_has_not_are_told(api):
    """With all that it has; and what is not there is 404 in the one shape of failures."""
    for path, methods in {
        "/api/documents": "GET, POST",
        "/api/documents/x": "DELETE, GET, PATCH",
        "/v1/models": "GET",
    }.items():
        answer = api.put(path)
        failure(answer, 405)
        assert answer.headers["allow"] == methods
    failure(api.get("/api/nowhere"), 404)
    failure(api.get("/docs"), 404)
