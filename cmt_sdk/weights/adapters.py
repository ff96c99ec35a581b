"""LoRA adapters on a frozen model, in peft's format: attached once, all off, then switched on.

Plain LoRA on an unquantised base of up to `MERGED_LIMIT` parameters is merged into a second copy of
the weights: computed layer by layer next to them, it makes a short prompt and every new token about
half as slow again, and the import of peft takes longer than a second. All other adapters run
through peft. Knows no training.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmt_sdk.errors import ModelError, ModelNotFound, ModelUnsupported
from cmt_sdk.weights.loading import LoadedModel, import_bitsandbytes
from cmt_sdk.weights.registry import ADAPTER_WEIGHTS, adapter_hash

if TYPE_CHECKING:
    from torch import Tensor

MERGED_LIMIT = 2**29
HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
# Further fields that peft may get from a foreign folder. All others are refused: they let peft
# import a module by name (`megatron_core`), read files of any path (`corda_config`), or change the
# base, and later releases add more.
KNOWN = HARMLESS | {"alpha_pattern", "rank_pattern", "use_dora", "lora_bias"}

PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "alpha_pattern", "rank_pattern")
ALL_LINEAR = "all-linear"
NAME = re.compile(r"[\w.]{0,500}", re.ASCII)
MAX_NAMES = 10_000


def attach_adapters(loaded: LoadedModel, folders: Mapping[str, Path]) -> None:
    """Put adapters on the model under the given names, all of them off.

    After an error the model must not be used.

    Args:
        loaded: The model.
        folders: For each name a folder with adapter_config.json and adapter_model.safetensors, as
            peft's `save_pretrained` writes them.

    Raises:
        ModelNotFound: A file is missing.
        ModelUnsupported: The adapter is no LoRA, or does not fit this model.
        ModelError: A file is damaged.
    """
    for name, folder in folders.items():
        digest = adapter_hash(folder)
        config, tensors = read_adapter(folder)
        try:
            if _mergeable(loaded, config):
                loaded.adapters.merged[name] = _merged(loaded.model, config, tensors)
            else:
                _inject(loaded, name, folder, tensors)
        except (
            ValueError,
            LookupError,
            AttributeError,
            TypeError,
            ArithmeticError,
            RuntimeError,
            re.error,
        ) as error:
            raise ModelUnsupported(
                f"adapter {folder} was made for another model than {loaded.name!r}: {error}"
            ) from error
        loaded.adapters.hashes[name] = digest
    _switch(loaded, None)


@contextmanager
def active(loaded: LoadedModel, name: str) -> Iterator[None]:
    """Switch the adapter `name` on within the block; without such an adapter the base stays bare.

    One thread at a time.
    """
    before = loaded.adapters.active
    _switch(loaded, name if name in loaded.adapters.hashes else None)
    try:
        yield
    finally:
        _switch(loaded, before)


def read_adapter(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """Read an adapter's configuration and tensors, and check them before peft sees the folder.

    Args:
        folder: The folder of the adapter.

    Returns:
        The configuration, and the tensors by name.

    Raises:
        ModelNotFound, ModelUnsupported, ModelError: As in `attach_adapters`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / "adapter_config.json"
    if not file.is_file():
        raise ModelNotFound(
            f"adapter folder {folder} has no adapter_config.json: save it with save_pretrained"
        )
    try:
        config = dict[str, Any](json.loads(file.read_text(encoding="utf-8")))
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"adapter {folder} is damaged: {error}") from error
    if config.get("peft_type") != "LORA":
        raise ModelUnsupported(
            f"adapter {folder} is not a LoRA of peft but {config.get('peft_type')!r:.40}: train one"
            " with `cmt train`"
        )
    if strange := sorted(key for key, value in config.items() if value and key not in KNOWN):
        raise ModelUnsupported(
            f"adapter {folder} sets {strange[0]!r}: plain LoRA is read; train one with `cmt train`"
        )
    _check_names(folder, config)
    return config, tensors


def _check_names(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse values that peft would compile as regular expressions: a search may never end."""
    for field in PATTERNS:
        given = config.get(field)
        if given is None or (field == "target_modules" and given == ALL_LINEAR):
            continue
        is_one = field == "layers_pattern" and isinstance(given, str)
        names = [given] if is_one or not isinstance(given, list | dict) else list(given)
        whole = is_one or isinstance(given, list | dict)
        wrong = [n for n in names if not (whole and isinstance(n, str) and NAME.fullmatch(n))]
        if wrong or len(names) > MAX_NAMES:
            found = f"{wrong[0]!r:.60}" if wrong else f"a list of {len(names):,}"
            raise ModelUnsupported(
                f"adapter {folder}: {field!r} has {found}; at most {MAX_NAMES:,} names of layers"
                " are read and no regular expression: write the names out in a list, or train an"
                " adapter with `cmt train`"
            )


def _mergeable(loaded: LoadedModel, config: Mapping[str, Any]) -> bool:
    """True for plain LoRA on an unquantised base of bounded size."""
    kind = (config.get("peft_type"), config.get("bias", "none"))
    # Other ways to start a LoRA (PiSSA, OLoRA, LoftQ) take its first change off the base.
    keeps_base = config.get("init_lora_weights", True) in (True, False, "gaussian")
    sets_more = any(v for k, v in config.items() if k not in HARMLESS)
    is_plain = kind == ("LORA", "none") and keeps_base and not sets_more
    size = sum(p.numel() for p in loaded.model.parameters())
    # A second copy of large weights would not fit; NF4 weights cannot be added to.
    return is_plain and loaded.quantization != "nf4" and size <= MERGED_LIMIT


def _merged(
    model: Any, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> list[tuple[Any, Tensor, Tensor]]:
    """Each layer of the adapter with its own weight and the merged one.

    The merged weight is W + scale * B A (LoRA, Hu et al. 2021, arXiv 2106.09685, section 4.1), with
    scale alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023, arXiv 2312.03732).

    Args:
        model: The base model.
        config: The adapter's configuration.
        tensors: Its tensors: A [r, in] and B [out, r] of each layer.

    Raises:
        ValueError: A tensor belongs to no layer of this model.
        LookupError: A layer has one of the two tensors only.
    """
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    rest = dict(tensors)  # those that found no layer yet
    found = []
    for key in [k for k in tensors if k.endswith(".lora_A.weight")]:
        path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        down = rest.pop(key)  # A: (r, in)
        up = rest.pop(key.replace(".lora_A.", ".lora_B."))  # B: (out, r)
        layer, is_transposed = _linear(model, path, (len(up), down.shape[1]))
        weight = layer.weight.data
        change = up.to(weight.device).float() @ down.to(weight.device).float()  # (out, in)
        if is_transposed:
            change = change.T
        merged = (weight.float() + scale * change).to(weight.dtype)
        found.append((layer, weight, merged))
    if rest or not found:
        raise ValueError(f"{next(iter(rest), 'an empty file')} has no place in it")
    return found


def _linear(model: Any, path: str, shape: tuple[int, int]) -> tuple[Any, bool]:
    """The linear layer at a path, inside any wrappers.

    Args:
        model: The base model.
        path: Its name in the model.
        shape: out, in.

    Returns:
        The layer, and whether its weight is [in, out], as in GPT-2.

    Raises:
        ValueError: The layer has another shape.
        AttributeError: There is no such layer.
    """
    from transformers.pytorch_utils import Conv1D

    layer = model.get_submodule(path)
    layer = getattr(layer, "base_layer", layer)
    is_transposed = isinstance(layer, Conv1D)
    stored_shape = shape[::-1] if is_transposed else shape
    # A weight that is shared with the embeddings would change the input of the model too.
    is_tied = layer.weight is model.get_input_embeddings().weight
    if layer.weight.shape != stored_shape or is_tied:
        raise ValueError(
            f"{path}, of shape {tuple(layer.weight.shape)}, cannot take a change of shape {shape}"
        )
    return layer, is_transposed


def _inject(loaded: LoadedModel, name: str, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Put an adapter into the model's layers through peft, under a name."""
    import_bitsandbytes()  # peft imports it too, and lets its warnings through
    from peft import LoraConfig, inject_adapter_in_model

    try:
        config = LoraConfig.from_pretrained(folder)
    except (ValueError, TypeError) as error:
        raise ModelError(f"adapter {folder} is not a LoRA of peft: {error}") from error
    with warnings.catch_warnings():
        # It warns of the second adapter next to the first.
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        inject_adapter_in_model(config, loaded.model, name)
    _fill(loaded.model, name, tensors)
    _freeze(loaded)


def _fill(model: Any, name: str, tensors: Mapping[str, Any]) -> None:
    """Give the adapter its weights, one by one.

    peft's loader asks for the model's state_dict. At that, bitsandbytes 0.50 repacks NF4 weights on
    a CPU, and the base then computes slightly different values.
    """
    places = {k: p for k, p in model.named_parameters() if ".lora_" in k and f".{name}." in k}
    for key, tensor in tensors.items():
        place = key.removeprefix("base_model.model.").removesuffix("weight") + f"{name}.weight"
        if place not in places or places[place].shape != tensor.shape:
            raise ValueError(f"{key} of shape {tuple(tensor.shape)} has no place in it")
        places.pop(place).data = tensor
    if places:
        raise ValueError(f"{next(iter(places))} is not in the adapter")


def _freeze(loaded: LoadedModel) -> None:
    """Switch all gradients off; adapters compute in the base's own type."""
    from peft.tuners.lora.layer import LoraLayer

    loaded.model.requires_grad_(False).eval()
    layers: list[Any] = [m for m in loaded.model.modules() if isinstance(m, LoraLayer)]
    loaded.adapters.layers = layers
    dtype = loaded.model.get_input_embeddings().weight.dtype
    for layer in layers:
        for side in (layer.lora_A, layer.lora_B):
            side.to(loaded.model.device, dtype)


def _switch(loaded: LoadedModel, name: str | None) -> None:
    """Switch an adapter on, or all off: swap merged weights by pointer, and set the two fields that
    a LoRA layer of peft reads. peft's own switch takes 46 ms.

    Args:
        loaded: The model.
        name: The adapter; None for the bare base.
    """
    adapters = loaded.adapters
    for layer, weight, _ in adapters.merged.get(adapters.active or "", ()):
        layer.weight.data = weight
    for layer, _, weight in adapters.merged.get(name or "", ()):
        layer.weight.data = weight
    adapters.active = name
    for layer in adapters.layers:
        layer._disable_adapters = name is None or name in adapters.merged
        if name is not None:
            layer._active_adapter = [name]
