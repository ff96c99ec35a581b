"""Loading frozen models and their adapters, on a random two-layer Llama that is built here."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cmt_sdk import errors
from cmt_sdk.weights import adapters, loading
from cmt_sdk.weights.adapters import active, attach_adapters
from cmt_sdk.weights.loading import LoadedModel, load_base, load_tensors
from cmt_sdk.weights.registry import model_info

IDS = torch.tensor([[1, 5, 9, 3, 7]])
MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty place for pulled models."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with hidden size 64 and a tokenizer of 64 words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
    )
    path = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(path)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(path)
    return path


def adapter_at(
    path: Path, *, seed: int = 1, dtype: torch.dtype = torch.bfloat16, **settings: object
) -> Path:
    """A random LoRA adapter of rank 4 in peft's format."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"self_attn.q_proj": (64, 64), "self_attn.v_proj": (64, 32), "mlp.down_proj": (128, 64)}
    tensors: dict[str, Tensor] = {}
    for layer in range(2):
        for module in MODULES:
            wide, out = sizes[module]
            key = f"base_model.model.model.layers.{layer}.{module}.lora_"
            tensors[f"{key}A.weight"] = torch.randn(4, wide, generator=generator).to(dtype)
            tensors[f"{key}B.weight"] = torch.randn(out, 4, generator=generator).to(dtype)
    path.mkdir(parents=True)
    save_file(tensors, path / "adapter_model.safetensors")
    plain = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": [m.split(".")[1] for m in MODULES],
    }
    (path / "adapter_config.json").write_text(
        json.dumps(plain | {"bias": "none", "lora_dropout": 0.1} | settings)
    )
    return path


def logits(loaded: LoadedModel) -> Tensor:
    """Next-token logits of a fixed input."""
    with torch.inference_mode():
        result: Tensor = loaded.model(IDS).logits
    return result


def base_digest(model: nn.Module) -> str:
    """A hash of every parameter of the base."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            continue
        digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("precision", "quantization", "dtype"),
    [("bf16", "bf16", torch.bfloat16), ("fp32", "fp32", torch.float32)],
)
def test_a_model_is_loaded_frozen(
    folder: Path, precision: str, quantization: str, dtype: torch.dtype
) -> None:
    """In eval mode, in the precision asked for, and no parameter wants a gradient."""
    loaded = load_base(str(folder), precision=precision, device="cpu")
    assert loaded.quantization == quantization
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.model.config._attn_implementation == "sdpa"
    assert loaded.tokenizer("w3 w5")["input_ids"] == [3, 5]


@pytest.mark.parametrize("precision", ["auto", "full"])
@pytest.mark.parametrize(
    ("unit", "expected"), [("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx2", "fp32")]
)
def test_a_cpu_computes_in_bf16_where_it_has_units_for_it(
    folder: Path, precision: str, unit: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imitated, bf16 takes several times as long as fp32."""
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {unit: True, "architecture": "x86_64"}, raising=False
    )
    assert load_base(str(folder), precision=precision, device="cpu").quantization == expected
    nf4 = load_base(str(folder), precision="nf4", device="cpu")
    assert nf4.quantization == "nf4"
    assert nf4.model.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[expected]
    assert nf4.model.get_submodule("model.layers.0.mlp.down_proj").compute_dtype == nf4.model.dtype


@pytest.mark.parametrize(("told", "expected"), [(True, "bf16"), (False, "fp32"), (None, "fp32")])
def test_an_older_torch_tells_less_of_the_cpu(
    folder: Path, *, told: bool | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it tells nothing, fp32 is sure to work."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    if told is not None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: told, raising=False)
    assert load_base(str(folder), device="cpu").quantization == expected


def test_the_hashes_are_those_of_the_files(folder: Path) -> None:
    """Sixteen digits of the SHA-256 of the weights and of the tokenizer, the same in every
    precision.
    """
    tokenizer = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    expected = [model_info(str(folder)).sha256[:16], tokenizer[:16]]
    for precision in ("fp32", "nf4"):
        loaded = load_base(str(folder), precision=precision, device="cpu")
        assert [loaded.base_hash, loaded.tokenizer_hash] == expected


def test_nf4_runs_on_the_cpu(folder: Path) -> None:
    """Linear layers hold 4-bit codes, and the logits are near those of the full weights."""
    from bitsandbytes.nn import Linear4bit

    loaded = load_base(str(folder), precision="nf4", device="cpu")
    layer = loaded.model.get_submodule("model.layers.0.mlp.down_proj")
    assert isinstance(layer, Linear4bit)
    assert layer.weight.quant_state.quant_type == "nf4"
    assert not layer.weight.quant_state.nested
    assert layer.weight.numel() == 64 * 128 / 2
    assert not any(p.requires_grad for p in loaded.model.parameters())
    full = logits(load_base(str(folder), precision="fp32", device="cpu"))
    assert torch.cosine_similarity(logits(loaded).float().flatten(), full.flatten(), dim=0) > 0.95


def test_loading_is_quiet(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing on the terminal, no foreign warning in the log, and transformers' own settings are
    left as they were.
    """
    from transformers.utils import logging as theirs

    before = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    with caplog.at_level(logging.WARNING):
        load_base(str(folder), precision="nf4", device="cpu")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert (theirs.get_verbosity(), theirs.is_progress_bar_enabled()) == before


def test_impossible_places_and_precisions_are_refused(folder: Path) -> None:
    """The message names the value and what to choose."""
    with pytest.raises(
        errors.InvalidSetting,
        match=r"device='quantum' is not usable here .*: choose 'auto' or 'cpu'",
    ):
        load_base(str(folder), device="quantum")
    with pytest.raises(
        errors.InvalidSetting, match="precision='int3': choose one of auto, nf4, bf16, fp16, fp32"
    ):
        load_base(str(folder), precision="int3", device="cpu")
    with pytest.raises(errors.InvalidSetting, match="'nf4' does not run on 'meta'"):
        load_base(str(folder), precision="nf4", device="meta")


def test_a_model_that_is_not_here_names_the_remedy() -> None:
    """Loading never downloads."""
    with pytest.raises(errors.ModelNotFound, match="run `cmt model pull org/name`"):
        load_base("org/name")


def copy_of(folder: Path, target: Path) -> Path:
    """A model's folder to damage."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_damaged_weights_are_an_error(folder: Path, tmp_path: Path) -> None:
    """A truncated file names the model and the folder."""
    broken = copy_of(folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(errors.ModelError, match="cannot be loaded"):
        load_base(str(broken), device="cpu")


def test_missing_weights_are_never_made_up(folder: Path, tmp_path: Path) -> None:
    """A file that lacks one tensor is an error that names it."""
    partial = copy_of(folder, tmp_path / "partial")
    tensors = load_file(partial / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, partial / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        errors.ModelError, match=r"lacks 1 weights, such as model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load_base(str(partial), device="cpu")


def test_pickled_weights_are_never_loaded(folder: Path, tmp_path: Path) -> None:
    """Even beside a whole configuration."""
    pickled = copy_of(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(errors.ModelUnsupported, match="pickled weights can run code"):
        load_base(str(pickled), device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "unheard-of", "architectures": ["Unheard"]},
        {
            "model_type": "custom",
            "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        },
    ],
)
def test_an_unknown_architecture_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    """Code that comes with a model is never run."""
    odd = copy_of(folder, tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | change))
    (odd / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(errors.ModelUnsupported, match="not a causal LM that transformers can load"):
        load_base(str(odd), device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.fixture(params=["bf16", "nf4"])
def loaded(request: pytest.FixtureRequest, folder: Path) -> LoadedModel:
    """The tiny model, as it is served on a CPU and as it is in four bits."""
    return load_base(str(folder), precision=request.param, device="cpu")


def test_without_an_adapter_the_base_is_bit_identical(loaded: LoadedModel, tmp_path: Path) -> None:
    """Before attaching, after it, and after every use; the base's bytes never change."""
    digest = base_digest(loaded.model)
    bare = logits(loaded)
    attach_adapters(
        loaded,
        {"reader": adapter_at(tmp_path / "r"), "encoder": adapter_at(tmp_path / "e", seed=2)},
    )
    assert torch.equal(logits(loaded), bare)
    with active(loaded, "reader"):
        reader = logits(loaded)
    with active(loaded, "encoder"):
        encoder = logits(loaded)
    assert torch.equal(logits(loaded), bare)
    assert not torch.equal(reader, bare)
    assert not torch.equal(encoder, bare)
    assert not torch.equal(encoder, reader)
    assert base_digest(loaded.model) == digest
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_merged_weights_compute_what_the_adapter_computes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two adapters, one after the other, each merged or computed beside the base: the same but for
    rounding.
    """
    found, paths = [], (adapter_at(tmp_path / "r"), adapter_at(tmp_path / "e", seed=2))
    for limit in (adapters.MERGED_LIMIT, 0):
        monkeypatch.setattr(adapters, "MERGED_LIMIT", limit)
        loaded = load_base(str(folder), precision="fp32", device="cpu")
        for name, path in zip(("reader", "encoder"), paths, strict=True):
            attach_adapters(loaded, {name: path})
        assert set(loaded.adapters.merged) == ({"reader", "encoder"} if limit else set())
        with active(loaded, "reader"):
            reader = logits(loaded)
        with active(loaded, "encoder"):
            found.append((reader, logits(loaded)))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(*found[0], atol=1e-2)


def test_an_adapter_that_is_more_than_plain_lora_runs_through_peft(
    folder: Path, tmp_path: Path
) -> None:
    """A rank of its own for some layers, say, is peft's business; both kinds live on one model."""
    loaded = load_base(str(folder), precision="fp32", device="cpu")
    path = adapter_at(tmp_path / "r")
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"alpha_pattern": {"q_proj": 16}}))
    attach_adapters(loaded, {"reader": path})
    attach_adapters(loaded, {"encoder": adapter_at(tmp_path / "e", seed=2)})
    assert set(loaded.adapters.merged) == {"encoder"}
    bare = logits(loaded)
    with active(loaded, "reader"):
        reader = logits(loaded)
    with active(loaded, "encoder"):
        encoder = logits(loaded)
    assert torch.equal(logits(loaded), bare)
    assert not torch.allclose(reader, encoder, atol=1e-2)


def test_an_adapter_is_off_after_an_error(loaded: LoadedModel, tmp_path: Path) -> None:
    """What goes wrong within the block does not leave the adapter on."""
    attach_adapters(loaded, {"reader": adapter_at(tmp_path / "r")})
    with pytest.raises(KeyError), active(loaded, "reader"):
        raise KeyError
    assert loaded.adapters.active is None


def test_the_adapter_takes_the_bases_number_format(folder: Path, tmp_path: Path) -> None:
    """An fp32 file on a bf16 base computes in bf16."""
    loaded = load_base(str(folder), precision="bf16", device="cpu")
    attach_adapters(loaded, {"reader": adapter_at(tmp_path / "r", dtype=torch.float32)})
    assert {merged.dtype for _, _, merged in loaded.adapters.merged["reader"]} == {torch.bfloat16}
    with active(loaded, "reader"):
        assert logits(loaded).dtype == torch.bfloat16


def test_a_name_that_is_not_attached_leaves_the_base_bare(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """A model without trained adapters is read with its own weights."""
    bare = logits(loaded)
    attach_adapters(loaded, {"reader": adapter_at(tmp_path / "r")})
    with active(loaded, "encoder"):
        assert torch.equal(logits(loaded), bare)


def test_an_adapter_for_another_model_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    """Layers of another shape, and layers that are not there."""
    path = adapter_at(tmp_path / "bad")
    tensors = load_file(path / "adapter_model.safetensors")
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    save_file(tensors | {key: torch.zeros(32, 4)}, path / "adapter_model.safetensors")
    with pytest.raises(errors.ModelUnsupported, match="made for another model than"):
        attach_adapters(loaded, {"reader": path})


def test_layers_that_the_model_does_not_have_are_refused(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """An adapter of a deeper model is not silently cut."""
    path = adapter_at(tmp_path / "bad")
    key = "base_model.model.model.layers.7.mlp.down_proj.lora_B.weight"
    tensors = load_file(path / "adapter_model.safetensors")
    save_file(tensors | {key: torch.zeros(64, 4)}, path / "adapter_model.safetensors")
    with pytest.raises(errors.ModelUnsupported, match=r"layers\.7.* has no place"):
        attach_adapters(loaded, {"reader": path})


def test_missing_and_damaged_adapter_files_are_named(loaded: LoadedModel, tmp_path: Path) -> None:
    """No folder, weights that cannot be read, no configuration."""
    with pytest.raises(errors.ModelNotFound, match=r"has no adapter_model\.safetensors"):
        attach_adapters(loaded, {"reader": tmp_path / "nowhere"})
    path = adapter_at(tmp_path / "r")
    (path / "adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(errors.ModelError, match="is damaged"):
        attach_adapters(loaded, {"reader": path})
    (path / "adapter_config.json").unlink()
    with pytest.raises(errors.ModelNotFound, match=r"has no adapter_config\.json"):
        attach_adapters(loaded, {"reader": path})


def test_attached_adapters_are_known_by_their_hash(loaded: LoadedModel, tmp_path: Path) -> None:
    """Also when they come one after the other."""
    reader, encoder = adapter_at(tmp_path / "r"), adapter_at(tmp_path / "e", seed=2)
    attach_adapters(loaded, {"reader": reader})
    attach_adapters(loaded, {"encoder": encoder})
    expected = {
        name: hashlib.sha256((path / "adapter_model.safetensors").read_bytes()).hexdigest()[:16]
        for name, path in {"reader": reader, "encoder": encoder}.items()
    }
    assert loaded.adapters.hashes == expected


def test_tensors_are_read(tmp_path: Path) -> None:
    """They come back as they were saved; a damaged file is an error."""
    file = tmp_path / "match.safetensors"
    save_file({"projection": torch.arange(6.0).view(2, 3)}, file)
    assert load_tensors(file)["projection"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    file.write_bytes(b"")
    with pytest.raises(errors.ModelError, match="not a safetensors file"):
        load_tensors(file)


@pytest.mark.parametrize(
    ("precision", "fitting"),
    [
        ("fp32", "precision='bf16' (0.2 MiB) or precision='nf4' (0.1 MiB) or a smaller model"),
        ("bf16", "precision='nf4' (0.1 MiB) or a smaller model"),
    ],
)
def test_a_model_larger_than_the_free_memory_is_foretold(
    folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str, fitting: str
) -> None:
    """With its size, what is free, and what would fit; no weight is read."""
    room = {"fp32": 250_000, "bf16": 160_000}[precision]
    monkeypatch.setattr(loading, "free_memory", lambda: room)
    monkeypatch.setattr(loading, "multiplies_bf16", lambda _: True)
    monkeypatch.setattr(loading, "_load", lambda *_: pytest.fail("it must not be read"))
    with pytest.raises(errors.ModelUnsupported) as caught:
        load_base(str(folder), precision=precision, device="cpu")
    message = str(caught.value)
    assert f"of memory in {precision}; {room / 2**20:.1f} MiB are free on cpu" in message
    assert fitting in message
