"""Settings of model folders, adapters and .gguf files name no code, no network address and no
regular expression; counts in them fit the file; and conversions end with whoever asked for them.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cmt_sdk.errors import ModelDownload, ModelError, ModelUnsupported
from cmt_sdk.testing.tiny import save_tiny
from cmt_sdk.weights.adapters import attach_adapters
from cmt_sdk.weights.headers import check_gguf
from cmt_sdk.weights.loading import load_base
from cmt_sdk.weights.processes import Job
from cmt_sdk.weights.registry import model_info

KERNELS = (
    "def get_kernel(*a, **k):\n    open({file!r}, 'a').write('asked')\n    raise"
    " OSError\nhas_kernel = get_kernel\n"
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A tiny model on disk."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def folder(plain, tmp_path, monkeypatch):
    """A copy that a test may change, an empty place for pulled models, and a package that would
    fetch code.
    """
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    (tmp_path / "kernels.py").write_text(KERNELS.format(file=str(tmp_path / "asked")))
    monkeypatch.syspath_prepend(tmp_path)
    copy = tmp_path / "strange"
    copy.mkdir()
    for file in plain.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def changed(folder, name, **settings):
    said = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps(said | settings))


def loaded(folder):
    return load_base(str(folder), precision="fp32", device="cpu")


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config.json", {"attn_implementation": "kernels-community/flash-attn"}),
        ("config.json", {"_attn_implementation": "evil/repo@main:fn"}),
        ("config.json", {"_attn_implementation_internal": "evil/repo"}),
        ("config.json", {"attn_implementation": {"": "evil/repo"}}),
        ("config.json", {"attn_implementation": "flash_attention_2"}),
        ("config.json", {"experts_implementation": "evil/repo"}),
        ("config.json", {"auto_map": {"AutoConfig": "evil/repo--planted.Config"}}),
        ("config.json", {"kernel_config": {"RMSNorm": "evil/repo:Norm"}, "use_kernels": True}),
        ("config.json", {"_name_or_path": "evil/repo", "transformers_weights": "../x/y"}),
        ("config.json", {"base_model_tp_plan": {"(a+)+$": "colwise"}}),
        (
            "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": ["evil/repo--planted.Tokenizer", None]}},
        ),
        (
            "tokenizer_config.json",
            {"name_or_path": "evil/repo", "vocab_file": "/etc/passwd", "tokenizer_file": "../x"},
        ),
        (
            "generation_config.json",
            {"custom_generate": "evil/repo", "cache_implementation": "evil/repo"},
        ),
        ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "evil/repo"}),
    ],
)
def test_a_setting_that_names_code_or_an_address_is_not_handed_on(folder, tmp_path, file, settings):
    """The model loads as without it; nothing is asked of a hub, and nothing is imported."""
    changed(folder, file, **settings)
    model = loaded(folder)
    assert model.model.config._attn_implementation in ("sdpa", "eager")
    assert not (tmp_path / "asked").exists()
    assert "planted" not in sys.modules


def test_what_a_model_is_stays(folder):
    """Numbers, names and lists of them, nested; the template, the tokens and the end of a text."""
    changed(folder, "config.json", rope_parameters={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 500000.0}, head_dim=32)  # fmt: skip
    model = loaded(folder)
    rope = model.model.config.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("llama3", 8.0, 500000.0)
    assert model.model.generation_config.eos_token_id == 0
    assert "<start>" in model.tokenizer.chat_template
    assert model.tokenizer.eos_token.strip("<>") == "end"


@pytest.mark.parametrize(
    "settings",
    [
        {"architectures": 5},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [5]},
        {"architectures": {"a": 1}},
        {"model_type": 7},
        {"model_type": ["llama"]},
        {"hidden_size": "many"},
        {"hidden_size": -1},
        {"hidden_size": None},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 1e300},
        {"num_hidden_layers": [3]},
        {"rope_parameters": 5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": "x"}},
        {"hidden_act": "os.system"},
        {"dtype": {"a": 1}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"vocab_size": 10**12},
        {"layer_types": ["x", "y", "z"]},
        {"text_config": 3, "vision_config": []},
    ],
)
def test_a_setting_of_another_type_is_our_error_or_harmless(folder, settings):
    """Never an exception from deep inside."""
    changed(folder, "config.json", **settings)
    try:
        loaded(folder)
    except ModelError as error:
        assert str(folder) in str(error)  # noqa: PT017 - some of them are harmless


@pytest.mark.parametrize("text", ["5", "[]", "null", "{", "[" * 100_000, '{"a": ' * 50_000, "\x00"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_file_of_settings_that_is_none_is_our_error(folder, name, text):
    """Whichever of the three it is."""
    (folder / name).write_text(text)
    with pytest.raises(ModelError):
        loaded(folder)


def test_an_index_names_weights_beside_it(folder):
    """No path out of the folder."""
    for named in ("../model.safetensors", "/etc/passwd", 5, ["x"]):
        changed(folder, "model.safetensors.index.json", weight_map={"a": named})
        with pytest.raises(ModelUnsupported, match="names weights outside of its folder"):
            loaded(folder)


def test_facts_of_a_pulled_model_are_checked(folder, tmp_path):
    """A time that is none."""
    home = tmp_path / "models" / "org" / "name"
    home.parent.mkdir(parents=True)
    folder.rename(home)
    for when in (5, "yesterday", []):
        (home / "cmt-model.json").write_text(json.dumps({"pulled_at": when or 1}))
        with pytest.raises(ModelUnsupported, match=r"cmt-model\.json is damaged"):
            model_info("org/name")


EVIL = "(([a-z_0-9.]+)+)+!"


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": EVIL, "alpha_pattern": {"q_proj": 1}},
        {"target_modules": EVIL},
        {"target_modules": ["q_proj", EVIL]},
        {"target_modules": 5},
        {"target_modules": [5]},
        {"exclude_modules": EVIL},
        {"exclude_modules": "q_proj|k_proj"},
        {"alpha_pattern": {EVIL: 3}},
        {"rank_pattern": {EVIL: 3}},
        {"rank_pattern": {".*": 3}},
        {"layers_pattern": EVIL, "layers_to_transform": [0]},
        {"layers_pattern": ["layers", EVIL], "layers_to_transform": [0]},
        {"alpha_pattern": {f"m{n}": 3 for n in range(10_001)}},
    ],
)
def test_an_adapter_holds_no_regular_expression(folder, tmp_path, settings):
    """Names alone, and not too many of them; the error says so."""
    layer = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    save_file({f"{layer}A.weight": torch.zeros(4, 128), f"{layer}B.weight": torch.zeros(128, 4)},
              folder / "adapter_model.safetensors")  # fmt: skip
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
    } | settings
    (tmp_path / "adapter").mkdir()
    (folder / "adapter_model.safetensors").rename(
        tmp_path / "adapter" / "adapter_model.safetensors"
    )
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelUnsupported, match="no regular expression"):
        attach_adapters(loaded(folder), {"reader": tmp_path / "adapter"})


# -- .gguf files ---------------------------------------------------------------------------------


def text(said):
    return struct.pack("<Q", len(said)) + said


def gguf(keys=b"", count=0, tensors=b"", tensor_count=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensor_count, count) + keys + tensors


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def tensor(*shape, offset=0, axes=None):
    sizes = b"".join(struct.pack("<Q", n) for n in shape)
    return (
        text(b"t")
        + struct.pack("<I", len(shape) if axes is None else axes)
        + sizes
        + struct.pack("<IQ", 0, offset)
    )


NESTED = b"".join(struct.pack("<IQ", 9, 1) for _ in range(3000))
HOSTILE = {
    "empty": b"",
    "not one": b"PK\x03\x04" + b"\0" * 60,
    "cut off": gguf()[:11],
    "an array of 2^40": gguf(key(b"x", 9, struct.pack("<IQ", 0, 2**40)), 1),
    "an array of 2^63": gguf(key(b"x", 9, struct.pack("<IQ", 10, 2**63)), 1),
    "arrays in arrays": gguf(key(b"x", 9, NESTED), 1),
    "texts of 2^40": gguf(key(b"x", 9, struct.pack("<IQ", 8, 2**40)), 1),
    "a text of 2^62": gguf(key(b"x", 8, struct.pack("<Q", 2**62)), 1),
    "a name of 2^40": gguf(struct.pack("<Q", 2**40), 1),
    "keys of 2^60": gguf(count=2**60),
    "tensors of 2^60": gguf(tensor_count=2**60),
    "a type that is none": gguf(key(b"x", 99, b"\0" * 40), 1),
    "an axis of 2^50": gguf(tensors=tensor(2**50) + b"\0" * 64, tensor_count=1),
    "axes without end": gguf(tensors=tensor(2, axes=2**31) + b"\0" * 64, tensor_count=1),
    "far away": gguf(tensors=tensor(2, offset=2**50) + b"\0" * 64, tensor_count=1),
    "more layers than tensors": gguf(key(b"llama.block_count", 4, struct.pack("<I", 10**9)), 1),
    "of a later version": gguf(version=99),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, data):
    """At once, before a library believes it."""
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(ModelUnsupported, match=r"x\.gguf is not a valid \.gguf file: "):
        check_gguf(tmp_path / "x.gguf")


def test_a_sound_header_passes(tmp_path):
    """As the format's own library writes it."""
    import gguf as library
    import numpy as np

    writer = library.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "é", "<end>"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_string("name", "x" * 70_000)
    writer.add_bool("b", True)
    for name in ("a", "b"):
        writer.add_tensor(name, np.ones((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_gguf(tmp_path / "x.gguf")


# -- children ------------------------------------------------------------------------------------


def job(tmp_path, code, **bounds):
    (tmp_path / "work").mkdir(exist_ok=True)
    (tmp_path / "child.py").write_text(code)
    command = [str(tmp_path / "child.py"), str(tmp_path / "work")]
    return Job(
        command=command,
        folder=tmp_path / "work",
        stage="x",
        task="the work",
        remedy="Try less",
        **bounds,
    )


def test_a_program_runs_as_ever(tmp_path):
    """Its arguments, its output, its error."""
    assert (
        job(tmp_path, "import sys; print(sys.argv[1:])").run(lambda *_: None)
        == f"['{tmp_path / 'work'}']\n"
    )
    with pytest.raises(ModelDownload, match=r"the work failed: ValueError: no\. Try less"):
        job(tmp_path, "raise ValueError('no')").run(lambda *_: None)
    module = Job(command=["-m", "this"], folder=tmp_path, stage="x", task="t", remedy="r").run(
        lambda *_: None
    )
    assert "Zen of Python" in module


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="bounds of memory are the system's"
)
@pytest.mark.parametrize(
    ("code", "bounds", "word"),
    [
        ("import time; time.sleep(60)", {"seconds": 1}, r"took longer than 1 s and was ended"),
        ("x = [0] * 10**6\nwhile True: x = x + x", {"memory": 300_000_000}, "needs more than"),
        ("x = bytearray(10**9)", {"memory": 300_000_000}, "needs more than"),
    ],
)
def test_a_program_has_bounds(tmp_path, code, bounds, word):
    """Time and memory; the message says which, and the remedy."""
    started = time.monotonic()
    with pytest.raises(ModelDownload, match=word):
        job(tmp_path, code, **bounds).run(lambda *_: None)
    assert time.monotonic() - started < 30


# A test run under `nohup`, or in the background, ignores signals that its programs then ignore too.
PARENT = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from cmt_sdk.weights.processes import Job
from pathlib import Path
Job(command=[sys.argv[1], sys.argv[2]], folder=Path(sys.argv[2]), stage="x", task="t", remedy="r").run(lambda *_: None)
"""


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with Path(f"/proc/{pid}/stat").open() as stat:  # ended, and nobody has asked for its code yet
        return stat.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("busy", ["time.sleep(120)", "sum(range(10**11))"])
def test_a_program_ends_with_its_parent(tmp_path, how, busy):
    """However the parent ends, and whatever the program is doing."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "child.py").write_text(
        f"import os, sys, time\nopen(sys.argv[1] + '/pid', 'w').write(str(os.getpid()))\n{busy}"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path / "child.py", work], stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while not ((work / "pid").exists() and (work / "pid").read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    child = int((work / "pid").read_text())
    parent.send_signal(how)
    parent.wait(30)
    until = time.monotonic() + 20
    while not gone(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(child)
