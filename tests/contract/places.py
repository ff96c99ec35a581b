"""Places for objects that tests share: a folder, obstore's memory, and moto's S3 with faults."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cmt_sdk.storage.references import LARGE
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import Encoded
from tests.contract.stores import encoded, put

SECRET = "s3cret-of-a-bucket"  # noqa: S105 - looked for in messages
SLOW_S = 3.0
SIGNED = (  # moto takes any signature
    "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request, SignedHeaders=host,"
    " Signature=0"
)


def big(seed: int = 1) -> Encoded:
    """What is stored as an object."""
    return encoded(seed, LARGE)


def put_big(store, text: str, seed: int = 1, **fields: object) -> int:
    """Store a document of one passage, with a large compressed form; its passage id."""
    document = put(store, text, **fields)
    (passage,) = store.passages_of(document.id)
    store.save({passage.id: big(seed)}, FINGERPRINT)
    return passage.id


def files_in(folder: Path) -> dict[str, Path]:
    """The objects in a folder, by name."""
    return {p.name: p for p in folder.rglob("*") if p.is_file() and len(p.name) == 64}


@dataclass
class Double:
    """moto's S3 on this machine, with faults.

    Attributes:
        faults: of the next requests, one each: a status, "slow", or "cut" in the middle of a body.
        always: the fault of every request.
        requests: the methods and paths of what was asked.
    """

    address: str
    faults: list[int | str] = field(default_factory=list)
    always: int | str | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)

    def application(self, environ: dict[str, Any], start_response: Any) -> Any:
        """A WSGI application."""
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        fault = self.faults.pop(0) if self.faults else self.always
        if isinstance(fault, int):
            start_response(f"{fault} Fault", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code></Error>"]
        if fault == "slow":
            time.sleep(SLOW_S)
        answer = self._moto(environ, start_response)
        if fault == "cut":
            whole = b"".join(answer)
            return [whole[: len(whole) // 2]]
        return answer

    def __post_init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._moto = DomainDispatcherApplication(create_backend_app)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Ask it directly, without faults."""
        request = urllib.request.Request(  # noqa: S310 - http, of this machine
            f"{self.address}{path}",
            body,
            {"Content-Type": "application/xml", "Authorization": SIGNED},
            method=method,
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return answer.read()


@contextmanager
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """A server with the bucket `mem`, which the environment names."""
    pytest.importorskip("moto", reason="needs the wheel moto")
    serving = pytest.importorskip("werkzeug.serving")

    class Quiet(serving.WSGIRequestHandler):
        def log(self, *arguments: object) -> None:
            """Nothing."""

    def application(environ, start_response):
        return double.application(environ, start_response)

    server = serving.make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    double = Double(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": double.address,
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    double.ask("POST", "/moto-api/reset", b"")  # what earlier tests have made
    double.ask("PUT", "/mem")
    double.requests.clear()
    yield double
    server.shutdown()
    thread.join()
    server.server_close()
