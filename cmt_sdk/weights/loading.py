"""Loads a model's folder as a frozen model in memory: precision, device, quiet.

torch and transformers are imported inside `load_base`: importing this file costs nothing. Knows no
memory and no network.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cmt_sdk.errors import CMTError, InvalidSetting, ModelError, ModelUnsupported
from cmt_sdk.system.ram import free_memory, size_text
from cmt_sdk.weights.download import pull_model
from cmt_sdk.weights.registry import ModelInfo, is_gguf, model_info, tokenizer_hash
from cmt_sdk.weights.shapes import shape_of
from cmt_sdk.weights.sizes import WIDTHS
from cmt_sdk.weights.vetted import vetted

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# CPUs that multiply bf16 themselves. Others imitate it: with AVX2 alone a matrix product takes 6.5
# times as long as in fp32 (8.7 against 57 GFLOPS, one core of a Zen 3, torch 2.13).
_BF16_UNITS = ("avx512_bf16", "amx_bf16")
_NF4_DEVICES = {"cuda", "cpu"}
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Adapters:
    """The adapters on a model.

    Attributes:
        hashes: By name, the hash of the adapter's weights.
        active: The one that is on; None for the bare base.
        layers: Those that peft put in.
        merged: By name, each changed layer with its own weight and the changed one.
    """

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}
        self.active: str | None = None
        self.layers: list[Any] = []
        self.merged: dict[str, list[tuple[Any, torch.Tensor, torch.Tensor]]] = {}


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A frozen language model, its tokenizer, and their identity.

    Attributes:
        model: The model, in eval mode, without gradients.
        tokenizer: Its tokenizer.
        name: As `model_info` names it.
        base_hash: SHA-256 prefix, 16 hexadecimal digits, of its weights' files, whatever the
            precision.
        tokenizer_hash: The same of the tokenizer's files.
        quantization: "nf4", "bf16", "fp16" or "fp32".
        adapters: Those that `attach_adapters` puts on.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    base_hash: str
    tokenizer_hash: str
    quantization: str
    adapters: Adapters = field(default_factory=Adapters)


def load_base(
    model: str, *, precision: str = "auto", device: str = "auto", gradients: bool = False
) -> LoadedModel:
    """Load a model, frozen and in eval mode.

    Args:
        model: A pulled model, a local folder, or a .gguf file (converted on first use).
        precision: "nf4" (4-bit weights through bitsandbytes, the arithmetic of "full"), "bf16",
            "fp16", "fp32", "full" (bf16 where the device multiplies it itself, else fp32:
            `multiplies_bf16`), or "auto": nf4 on CUDA, else "full".
        device: "auto" (CUDA where there is one, else the CPU), or a device of torch.
        gradients: Gradients flow through NF4 weights on a CPU too. Such a model reads slower.

    Raises:
        ModelNotFound: The model is not on this machine.
        ModelUnsupported: transformers cannot load it as a causal LM, or it is larger than the free
            memory.
        InvalidSetting: The precision or the device does not exist here.
        ModelError: The files are damaged.
    """
    info = pull_model(model) if is_gguf(model) else model_info(model)
    with _collector_paused():
        place = find_device(device)
        chosen = _precision(precision, place)
        _check_memory(info, chosen, place)
        network, tokenizer = _load(info, chosen, place)
        network.eval().requires_grad_(False)
        if (chosen, place.type) == ("nf4", "cpu"):
            _settle(network, gradients=gradients)
    _log.info("%s in %s on %s", info.name, chosen, place)
    return LoadedModel(
        model=network,
        tokenizer=tokenizer,
        name=info.name,
        base_hash=info.sha256[:16],
        tokenizer_hash=tokenizer_hash(info.path),
        quantization=chosen,
    )


def outline(model: str) -> PreTrainedModel:
    """The layers of a model without weights, from its config.json alone.

    Args:
        model: A pulled model, a local folder, or a .gguf file (converted on first use).

    Raises:
        ModelNotFound: The model is not on this machine.
        ModelUnsupported: transformers cannot make a causal LM of its configuration.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    info = pull_model(model) if is_gguf(model) else model_info(model)
    try:
        with _quiet_transformers(), without_kernels(), vetted(info.path) as shown:
            config = AutoConfig.from_pretrained(
                shown, local_files_only=True, trust_remote_code=False
            )
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(config)
    except CMTError:
        raise
    except Exception as error:  # libraries raise any error for settings that they did not expect
        raise _unsupported(info, error) from error


def _unsupported(info: ModelInfo, error: Exception) -> ModelUnsupported:
    return ModelUnsupported(
        f"model {info.name!r} is not a causal LM that transformers can load: {error!r:.500}"
    )


def _check_memory(info: ModelInfo, precision: str, device: torch.device) -> None:
    """Check that the weights fit into the free memory of the device, before any is read.

    Raises:
        ModelUnsupported: They do not.
    """
    import torch

    shape = shape_of(info.path)
    sizes = {name: shape.weights(name, _full(device)) for name in ("fp32", "fp16", "bf16", "nf4")}
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    if sizes[precision] <= free:
        return
    fitting = [f"precision={n!r} ({size_text(s)})" for n, s in sizes.items() if s <= free]
    raise ModelUnsupported(
        f"model {info.name!r} has {shape.parameters / 1e9:,.1f} billion parameters, which take"
        f" {size_text(sizes[precision])} of memory in {precision}; {size_text(free)} are free on"
        f" {device}: end other programs, or choose {' or '.join([*fitting, 'a smaller model'])}"
        " (`cmt model list --all` has sizes)"
    )


def load_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file, by name.

    Raises:
        ModelError: The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)  # type: ignore[no-any-return]
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is not a safetensors file: {error}") from error


def load_part(file: Path, make: Callable[[dict[str, torch.Tensor]], T]) -> T:
    """Build an object from the tensors in a file.

    Args:
        file: A safetensors file.
        make: Builds the object.

    Raises:
        ModelError: The file is damaged, or holds other tensors.
    """
    tensors = load_tensors(file)
    try:
        return make(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"{file} holds other tensors than it should ({error!r:.100}): `cmt train` writes it"
        ) from error


def _load(
    info: ModelInfo, precision: str, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer from a folder that shows nothing else (`vetted`)."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"use_safetensors": True, "output_loading_info": True}
    try:
        with _quiet_transformers(), without_kernels(), vetted(info.path) as shown:
            source = {
                "pretrained_model_name_or_path": shown,
                "local_files_only": True,
                "trust_remote_code": False,
            }
            tokenizer = AutoTokenizer.from_pretrained(**source)
            network, found = AutoModelForCausalLM.from_pretrained(
                **source, **options, **_numbers(precision, device), device_map={"": device}
            )
    except CMTError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model {info.name!r} in {info.path} cannot be loaded: {error}") from error
    except Exception as error:  # libraries raise any error for settings that they did not expect
        raise _unsupported(info, error) from error
    # transformers would go on with random numbers in their place
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"model {info.name!r} in {info.path} lacks {len(missing)} weights, such as {missing[0]}"
        )
    # peft reads the settings of the model again from its folder
    network.name_or_path = network.config.name_or_path = str(info.path)
    return network, tokenizer


def _numbers(precision: str, device: torch.device) -> dict[str, Any]:
    import torch

    computed = _full(device) if precision == "nf4" else precision
    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    dtype = types[computed]
    if precision != "nf4":
        return {"dtype": dtype}
    import_bitsandbytes()
    from transformers import BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=False,
    )
    return {"dtype": dtype, "quantization_config": nf4}


def find_device(name: str) -> torch.device:
    """The device of this name; "auto": CUDA where there is one, else the CPU.

    Raises:
        InvalidSetting: It does not exist here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        # AssertionError: torch's word for a build without CUDA
        reason = str(error).splitlines()[0]
        raise InvalidSetting(
            f"device={name!r} is not usable here ({reason}): choose 'auto' or 'cpu'"
        ) from error


def _precision(name: str, device: torch.device) -> str:
    # On a CPU, NF4 takes three times as long to load as bf16 and reads slower (477 ms for 192
    # tokens of the default model on one thread, against 369); it decodes faster (36 ms per token
    # against 55) and halves the memory.
    if name == "auto" and device.type == "cuda":
        return "nf4"
    if name in {"auto", "full"}:
        return _full(device)
    if name not in {"nf4", *WIDTHS}:
        raise InvalidSetting(f"precision={name!r}: choose one of auto, nf4, {', '.join(WIDTHS)}")
    if name == "nf4" and device.type not in _NF4_DEVICES:
        raise InvalidSetting(
            f"precision='nf4' does not run on {device.type!r}: choose 'bf16', or device 'cpu' or"
            " 'cuda'"
        )
    return name


def multiplies_bf16(device: torch.device) -> bool:
    """True for a device with units for bf16.

    Of CPUs only x86 with these units counts: the gain on others was not measured.
    """
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    if hasattr(torch.cpu, "get_capabilities"):
        return any(torch.cpu.get_capabilities().get(name) for name in _BF16_UNITS)
    # torch before 2.10 says no more
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def _full(device: torch.device) -> str:
    return "bf16" if multiplies_bf16(device) else "fp32"


def import_bitsandbytes() -> None:
    """Import bitsandbytes where it is installed, without its search for kernels on the hub.

    Its warning about them is suppressed.
    """
    # On CPUs with AVX512-BF16 its import fetches native code from the hub through the `kernels`
    # package, and warns where that is missing. We fetch nothing without a request; its own kernels
    # suffice.
    if "bitsandbytes" in sys.modules:
        return
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.disabled = True
    try:
        # code that needs it raises; a training in bf16 does not need it
        with without_kernels(), suppress(ModuleNotFoundError):
            import bitsandbytes  # noqa: F401 - for its side effects only
    finally:
        logger.disabled = False


@contextmanager
def without_kernels() -> Iterator[None]:
    """Block the import of the package `kernels`, which fetches native code from the hub."""
    modules: dict[str, Any] = sys.modules
    kernels = modules.get("kernels")
    modules["kernels"] = None
    try:
        yield
    finally:
        modules.pop("kernels", None)
        if kernels is not None:
            modules["kernels"] = kernels


def _settle(network: PreTrainedModel, *, gradients: bool) -> None:
    import torch

    if gradients:
        # the rewritten form has no gradient (bitsandbytes 0.50): keep the first one
        for layer in network.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
        return
    # On some CPUs bitsandbytes rewrites each layer's weights for its kernel in the first pass that
    # reaches it. We want that now, so that the base's bytes never change later, and never under two
    # threads at once. (Never ask such a model for its state_dict: bitsandbytes 0.50 writes them
    # back in a wrong order.)
    with torch.no_grad():
        network(torch.zeros(1, 1, dtype=torch.long))


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    from transformers.utils import logging as theirs

    level = theirs.get_verbosity()
    bars = theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()


@contextmanager
def _collector_paused() -> Iterator[None]:
    # importing torch and transformers makes a million objects that stay: looking through them costs
    # half a second
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
