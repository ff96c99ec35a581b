"""Models and adapters from strangers: nothing in their folders runs, imports or is unpickled; what
is wrong has our error.
"""

import json
import pickle
import struct
import sys

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cmt_sdk.errors import CMTError, ModelError, ModelUnsupported
from cmt_sdk.neural.embedding import MatchHead
from cmt_sdk.testing.tiny import save_tiny
from cmt_sdk.weights.adapters import attach_adapters, read_adapter
from cmt_sdk.weights.bundle import read_bundle
from cmt_sdk.weights.loading import load_base, load_part

LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


class Planted:
    """An object whose unpickling writes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return self.file.write_text, ("it ran",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model on disk."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def model(folder, tmp_path, monkeypatch):
    """It, loaded, with an empty place for pulled models."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    return load_base(str(folder), precision="fp32", device="cpu")


@pytest.fixture
def adapter(tmp_path):
    """A sound adapter for it."""
    path = tmp_path / "adapter"
    path.mkdir()
    save_file(
        {f"{LAYER}A.weight": torch.ones(4, 128), f"{LAYER}B.weight": torch.ones(128, 4)},
        path / "adapter_model.safetensors",
    )
    configure(path)
    return path


def configure(path, **changes):
    """Write an adapter's configuration."""
    plain = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (path / "adapter_config.json").write_text(json.dumps(plain | changes))


@pytest.mark.parametrize(
    "setting",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "planted"},
        {"corda_config": {"cache_file": "planted.py"}, "init_lora_weights": "corda"},
        {"lora_ga_config": {"cache_file": "planted.py"}},
        {"eva_config": {"rho": 2.0}},
        {"loftq_config": {"loftq_bits": 4}},
        {"layer_replication": [[0, 900]]},
        {"auto_map": {"AutoModel": "planted.Model"}},
        {"trust_remote_code": True},
        {"of_a_later_release": 1},
    ],
)
def test_an_adapter_that_asks_for_more_than_numbers_is_refused(
    model, adapter, tmp_path, monkeypatch, setting
):
    """Otherwise peft would import the module that `megatron_core` names, and read files of any
    path.
    """
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    configure(adapter, **setting)
    with pytest.raises(ModelUnsupported, match=r"sets '\w+': plain LoRA is read"):
        attach_adapters(model, {"reader": adapter})
    assert not (tmp_path / "ran").exists()
    assert "planted" not in sys.modules


@pytest.mark.parametrize(
    "setting",
    [
        {"r": 0},
        {"r": "four"},
        {"r": -1, "use_rslora": True},
        {"lora_alpha": {}},
        {"lora_alpha": 10**400},
        {"peft_type": "PROMPT_TUNING"},
        {"peft_type": ["LORA"]},
        {"alpha_pattern": {"(": 3}},
        {"target_modules": "(", "rank_pattern": {"q_proj": 7}},
    ],
)
def test_numbers_that_cannot_be_are_our_error(model, adapter, setting):
    """Whatever stands in a configuration, it is refused as an adapter is, not by an exception from
    deep inside.
    """
    configure(adapter, **setting)
    with pytest.raises(ModelError):
        attach_adapters(model, {"reader": adapter})


@pytest.mark.parametrize(
    "text", ["[1]", "null", "{", "[" * 100_000, '{"r": 1' + "0" * 5000 + "}", "\ufeff{}", '"LORA"']
)
def test_a_configuration_that_is_none_is_our_error(model, adapter, text):
    """Lists, half an object, deep nesting, endless numbers."""
    (adapter / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError):
        attach_adapters(model, {"reader": adapter})


@pytest.mark.parametrize(
    "tensor", [torch.ones(3, 128), torch.ones(128), torch.ones(0, 128), torch.ones(4, 128, 1)]
)
def test_tensors_of_another_shape_are_our_error(model, adapter, tensor):
    """Nothing is broadcast, cut or cast to make them fit."""
    save_file(
        {f"{LAYER}A.weight": tensor, f"{LAYER}B.weight": torch.ones(128, 4)},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(ModelError):
        attach_adapters(model, {"reader": adapter})


def test_pickled_adapter_weights_are_never_read(model, adapter, tmp_path):
    """Neither in place of safetensors nor under their name; by the reader of folders that training
    uses too.
    """
    for name in ("adapter_model.bin", "adapter_model.safetensors"):
        (adapter / "adapter_model.safetensors").unlink(missing_ok=True)
        (adapter / name).write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
        for call in (
            lambda: attach_adapters(model, {"reader": adapter}),
            lambda: read_adapter(adapter),
        ):
            with pytest.raises(CMTError):
                call()
    assert not (tmp_path / "ran").exists()


def test_a_model_that_brings_code_is_read_without_it(folder, tmp_path, monkeypatch):
    """Configuration, tokenizer and generation name a class in the folder: it is not imported, and
    an unknown kind is refused.
    """
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    ran = tmp_path / "ran"
    strange = save_tiny(tmp_path / "strange")
    (strange / "planted.py").write_text(
        f"open({str(ran)!r}, 'w')\nclass Config: pass\nclass Model: pass\nclass Tokenizer: pass\n"
    )
    mapped = {
        "AutoConfig": "planted.Config",
        "AutoModelForCausalLM": "planted.Model",
        "AutoTokenizer": ["planted.Tokenizer", None],
    }
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((strange / name).read_text())
        (strange / name).write_text(
            json.dumps(said | {"auto_map": mapped, "model_type": "planted"})
        )
    with pytest.raises(ModelError):
        load_base(str(strange), precision="fp32", device="cpu")
    assert not ran.exists()


def test_a_chat_template_cannot_reach_out(tmp_path):
    """Templates are Jinja in a sandbox: one that looks for Python beneath its values is refused."""
    from cmt_sdk.testing.tiny import tiny_frozen

    lm = tiny_frozen()
    lm.tokenizer.chat_template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(ModelUnsupported, match="refuses the prompt"):
        lm.bare_ids("Where?")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"base": 1, "vector_weight": "much"}', "[" * 100_000, "\x00"]
)
def test_a_bundle_that_is_none_is_our_error(tmp_path, text):
    """The manifest of an adapter folder is checked as the rest is."""
    (tmp_path / "cmt-adapter.json").write_text(text)
    with pytest.raises(ModelError, match=r"cmt-adapter\.json is damaged"):
        read_bundle(tmp_path)


def test_a_part_that_holds_something_else_is_our_error(tmp_path):
    """A matching head without its tensors."""
    save_file({"weights": torch.ones(3)}, tmp_path / "match.safetensors")
    with pytest.raises(ModelError, match=r"match\.safetensors holds other tensors than it should"):
        load_part(tmp_path / "match.safetensors", MatchHead.of)


def safetensors(header: object, data: bytes = b"\0" * 16) -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


F4 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
HOSTILE = [
    b"",
    struct.pack("<Q", 2**63) + b"{}",
    struct.pack("<Q", 2**64 - 1) + b"{}",
    safetensors(b"[" * 50_000),
    safetensors({"a": F4 | {"shape": [2**62, 4]}}),
    safetensors({"a": F4 | {"shape": [2**32, 2**32]}}),
    safetensors({"a": F4 | {"data_offsets": [0, 2**60]}}),
    safetensors({"a": F4 | {"data_offsets": [16, 0]}}),
    safetensors({"a": F4 | {"data_offsets": [-1, 15]}}),
    safetensors({"a": F4, "b": F4}),
    safetensors({"a": F4 | {"dtype": "O"}}),
    safetensors({"a": F4}, b""),
    pickle.dumps({"a": 1}),
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_malformed_safetensors_file_is_our_error(model, adapter, data):
    """Lengths, shapes and offsets beyond the file, overlaps, nesting, other formats."""
    (adapter / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(CMTError):
        attach_adapters(model, {"reader": adapter})


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
@example(None)
def test_noise_in_an_adapter_is_refused_or_read(adapter, data):
    """Any bytes anywhere in the weights: our error, or tensors of the shapes that the header
    says.
    """
    file = adapter / "adapter_model.safetensors"
    whole = file.read_bytes()
    try:
        if data is not None:
            at = data.draw(st.integers(0, min(len(whole), 400)))
            noise = data.draw(st.binary(max_size=24))
            file.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
        try:
            _, tensors = read_adapter(adapter)
        except ModelError:
            return
        assert all(t.numel() * t.element_size() <= len(whole) for t in tensors.values())
        assert tensors.keys() == load_file(file).keys()
    finally:
        file.write_bytes(whole)
