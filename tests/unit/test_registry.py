"""The registry of models: what is listed, shown, removed and refused. Folders of a few bytes stand
for models.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from cmt_sdk import errors
from cmt_sdk.weights import hashes, registry

WEIGHTS = save({"b": np.arange(3, dtype=np.float32), "a": np.ones((1, 2), np.float32)})
FILE_DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
LINES = [
    f"a F32 [1, 2] {hashlib.sha256(np.ones(2, '<f4').tobytes()).hexdigest()}",
    f"b F32 [3] {hashlib.sha256(np.arange(3, dtype='<f4').tobytes()).hexdigest()}",
]
DIGEST = hashlib.sha256("\n".join(LINES).encode()).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for pulled models."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def folder_at(path: Path, *, weights: str = "model.safetensors") -> Path:
    """A model's folder of a few bytes."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    )
    (path / "tokenizer.json").write_text("{}")
    (path / weights).write_bytes(WEIGHTS)
    return path


def pulled(tmp_path: Path, name: str) -> registry.ModelInfo:
    """A model installed under a name, as a pull leaves it."""
    facts = {"source": "hub", "licence": "Apache-2.0", "pulled_at": "2025-11-23T10:00:00+00:00"}
    return registry.install(folder_at(tmp_path / "new"), name, facts)


def test_nothing_is_listed_on_a_fresh_machine() -> None:
    """No models, and no error for the folder that is not there."""
    assert registry.list_models() == []


def test_an_installed_model_is_described(tmp_path: Path, home: Path) -> None:
    """Every fact of a pulled model comes back, from `install`, `model_info` and `list_models`
    alike.
    """
    info = pulled(tmp_path, "org/tiny")
    assert info == registry.ModelInfo(
        name="org/tiny",
        path=home / "org" / "tiny",
        source="hub",
        bytes=len(WEIGHTS),
        sha256=DIGEST,
        licence="Apache-2.0",
        architecture="LlamaForCausalLM",
        pulled_at=datetime(2025, 11, 23, 10, tzinfo=UTC),
    )
    assert registry.model_info("org/tiny") == info
    assert registry.list_models() == [info]


def test_models_are_listed_by_name(tmp_path: Path) -> None:
    """One level deep for plain names, two for organisations, sorted."""
    for name in ("b/two", "alone", "b/one"):
        pulled(tmp_path, name)
    assert [info.name for info in registry.list_models()] == ["alone", "b/one", "b/two"]


def test_a_missing_model_names_the_command_that_gets_it() -> None:
    """The remedy is in the message."""
    with pytest.raises(
        errors.ModelNotFound,
        match=r"'org/name' is not on this machine: run `cmt model pull org/name`",
    ):
        registry.model_info("org/name")


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "/nowhere/at/all", "a/b/c", "", " ", ".", "a\x00b", "-rf"]
)
def test_no_name_leads_out_of_the_model_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is neither a name nor a model's folder is refused."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((errors.ModelNotFound, errors.ModelUnsupported)):
        registry.model_info(name)


def test_a_local_folder_is_a_model_where_it_is(tmp_path: Path) -> None:
    """Its name is its path, its weights are hashed, and nothing is written into it."""
    folder = folder_at(tmp_path / "mine")
    before = sorted(folder.iterdir())
    info = registry.model_info(str(folder))
    assert (info.name, info.path, info.sha256, info.source) == (
        str(folder),
        folder,
        DIGEST,
        "local folder",
    )
    assert info.pulled_at is None
    assert sorted(folder.iterdir()) == before
    assert registry.list_models() == []


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """The message says what is missing."""
    with pytest.raises(errors.ModelUnsupported, match=r"has no config\.json"):
        registry.model_info(str(tmp_path))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """A folder with only a .bin file names that file and the reason."""
    folder = folder_at(tmp_path / "old", weights="pytorch_model.bin")
    with pytest.raises(
        errors.ModelUnsupported, match=r"only pytorch_model\.bin, and pickled weights can run code"
    ):
        registry.model_info(str(folder))


def test_a_configuration_that_is_not_json_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    folder = folder_at(tmp_path / "odd")
    (folder / "config.json").write_text("{")
    with pytest.raises(errors.ModelUnsupported, match=r"config\.json cannot be read"):
        registry.model_info(str(folder))


def test_weights_that_changed_since_the_pull_are_not_served(tmp_path: Path) -> None:
    """A damaged model is named with its remedy, and left out of the list."""
    info = pulled(tmp_path, "org/tiny")
    save_file({"a": np.zeros(9, np.float32)}, info.path / "model.safetensors")
    with pytest.raises(
        errors.ModelNotFound, match=r"have changed since they were pulled: run `cmt model pull"
    ):
        registry.model_info("org/tiny")
    assert registry.list_models() == []


def test_installing_again_replaces_what_was_there(tmp_path: Path) -> None:
    """A damaged model gives way to a whole one."""
    info = pulled(tmp_path, "org/tiny")
    (info.path / "model.safetensors").unlink()
    assert pulled(tmp_path, "org/tiny") == info


def test_removing_deletes_the_folder(tmp_path: Path) -> None:
    """The files are gone, the name is free, and what was removed is told."""
    info = pulled(tmp_path, "org/tiny")
    assert registry.remove_model("org/tiny") == info
    assert not info.path.exists()
    with pytest.raises(errors.ModelNotFound):
        registry.remove_model("org/tiny")


def test_a_local_folder_is_never_removed(tmp_path: Path) -> None:
    """Only pulled models can be removed."""
    folder = folder_at(tmp_path / "mine")
    with pytest.raises(errors.InvalidSetting, match="a folder of your own"):
        registry.remove_model(str(folder))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_missing_gguf_file_is_named() -> None:
    """A path that ends in .gguf is a file, never a name."""
    with pytest.raises(errors.ModelNotFound, match=r"there is no file nowhere\.gguf"):
        registry.model_info("nowhere.gguf")


def test_a_gguf_file_that_was_not_converted_names_the_command(tmp_path: Path) -> None:
    """It must be pulled once."""
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(errors.ModelNotFound, match="run `cmt model pull"):
        registry.model_info(str(file))


def test_a_digest_is_kept_until_the_file_changes(tmp_path: Path, home: Path) -> None:
    """The second look reads the cache; another size or time of change reads the file."""
    file = tmp_path / "weights"
    file.write_bytes(WEIGHTS)
    assert hashes.known_sha256(file) == FILE_DIGEST
    cache = json.loads((home / "hashes.json").read_text())
    cache[str(file)][2] = "from the cache"
    (home / "hashes.json").write_text(json.dumps(cache))
    assert hashes.known_sha256(file) == "from the cache"
    file.write_bytes(b"changed")
    assert hashes.known_sha256(file) == hashlib.sha256(b"changed").hexdigest()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 1}'])
def test_a_damaged_digest_cache_is_made_again(damage: str, tmp_path: Path, home: Path) -> None:
    """It is only a cache."""
    file = tmp_path / "weights"
    file.write_bytes(WEIGHTS)
    home.mkdir()
    (home / "hashes.json").write_text(damage)
    assert hashes.known_sha256(file) == FILE_DIGEST
    assert list(json.loads((home / "hashes.json").read_text())) == [str(file)]


def test_the_same_weights_are_the_same_in_whatever_files(tmp_path: Path) -> None:
    """Order, number of files and other metadata do not matter; names, shapes and bytes do."""
    save_file(
        {"b": np.arange(3, dtype=np.float32)},
        tmp_path / "2.safetensors",
        metadata={"made": "elsewhere"},
    )
    save_file({"a": np.ones((1, 2), np.float32)}, tmp_path / "1.safetensors")
    save_file({"a": np.ones((2, 1), np.float32)}, tmp_path / "3.safetensors")
    assert (
        hashes.known_sha256_of_tensors([tmp_path / "2.safetensors", tmp_path / "1.safetensors"])
        == DIGEST
    )
    assert (
        hashes.known_sha256_of_tensors([tmp_path / "2.safetensors", tmp_path / "3.safetensors"])
        != DIGEST
    )
    (tmp_path / "4.safetensors").write_bytes(b"12345678 no header")
    with pytest.raises(errors.ModelUnsupported, match="not a safetensors file"):
        hashes.known_sha256_of_tensors([tmp_path / "4.safetensors"])


def test_several_files_have_one_digest(tmp_path: Path) -> None:
    """That of the lines "digest  name", in order of name, as sha256sum writes them."""
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(WEIGHTS)
    lines = f"{FILE_DIGEST}  a\n{FILE_DIGEST}  b\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert hashes.known_sha256_of_all([tmp_path / "b", tmp_path / "a"]) == expected


def test_a_tokenizer_is_named_by_its_files(tmp_path: Path) -> None:
    """tokenizer.json alone where there is one, else the older files; none is an error."""
    folder = folder_at(tmp_path / "m")
    (folder / "vocab.json").write_text("[]")
    assert registry.tokenizer_hash(folder) == hashlib.sha256(b"{}").hexdigest()[:16]
    (folder / "tokenizer.json").unlink()
    assert registry.tokenizer_hash(folder) == hashlib.sha256(b"[]").hexdigest()[:16]
    (folder / "vocab.json").unlink()
    with pytest.raises(errors.ModelUnsupported, match=r"no tokenizer\.json"):
        registry.tokenizer_hash(folder)


def test_an_adapter_is_named_by_its_weights(tmp_path: Path) -> None:
    """Sixteen digits of the SHA-256; a folder without weights is an error."""
    (tmp_path / "adapter_model.safetensors").write_bytes(WEIGHTS)
    assert registry.adapter_hash(tmp_path) == FILE_DIGEST[:16]
    with pytest.raises(errors.ModelNotFound, match=r"has no adapter_model\.safetensors"):
        registry.adapter_hash(tmp_path / "nowhere")
