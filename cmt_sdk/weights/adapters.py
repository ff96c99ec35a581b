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
    # others change the base
    usual = config.get("init_lora_weights", True) in (True, False, "gaussian")
    plain = (
        kind == ("LORA", "none")
        and usual
        and not any(v for k, v in config.items() if k not in HARMLESS)
    )
    size = sum(p.numel() for p in loaded.model.parameters())
    return plain and loaded.quantization != "nf4" and size <= MERGED_LIMIT


def _merged(
    model: Any, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> list[tuple[Any, Tensor, Tensor]]:
    """Each layer of the adapter with its own weight and the merged one."""
    scale = config["lora_alpha"] / (
        math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    )
    rest = dict(tensors)
    found = []
    for key in [k for k in tensors if k.endswith(".lora_A.weight")]:
        path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        before = rest.pop(key)
        after = rest.pop(key.replace(".lora_A.", ".lora_B."))
        layer, turned = _linear(model, path, (len(after), before.shape[1]))
        weight = layer.weight.data
        change = after.to(weight.device).float() @ before.to(weight.device).float()
        change = change.T if turned else change
        found.append((layer, weight, (weight.float() + scale * change).to(weight.dtype)))
    if rest or not found:
        raise ValueError(f"{next(iter(rest), 'an empty file')} has no place in it")
    return found


def _linear(model: Any, path: str, shape: tuple[int, int]) -> tuple[Any, bool]:
    """The linear layer at a path, inside any wrappers.

    The second value is True where its weight is [in, out], as in GPT-2.
    """
    from transformers.pytorch_utils import Conv1D

    layer = model.get_submodule(path)
    layer = getattr(layer, "base_layer", layer)
    turned = isinstance(layer, Conv1D)
    if (
        layer.weight.shape != (shape[::-1] if turned else shape)
        or layer.weight is model.get_input_embeddings().weight
    ):
        raise ValueError(
            f"{path}, of shape {tuple(layer.weight.shape)}, cannot take a change of shape {shape}"
        )
    return layer, turned


def _inject(loaded: LoadedModel, name: str, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    import_bitsandbytes()  # peft imports it too, and lets its warnings through
    from peft import LoraConfig, inject_adapter_in_model

    try:
        config = LoraConfig.from_pretrained(folder)
    except (ValueError, TypeError) as error:
        raise ModelError(f"adapter {folder} is not a LoRA of peft: {error}") from error
    with warnings.catch_warnings():
        # the second adapter next to the first
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
    """Switch all gradients off; adapters compute in the base's own number format."""
    from peft.tuners.lora.layer import LoraLayer

    loaded.model.requires_grad_(False).eval()
    layers: list[Any] = [m for m in loaded.model.modules() if isinstance(m, LoraLayer)]
    loaded.adapters.layers = layers
    dtype = loaded.model.get_input_embeddings().weight.dtype
    for layer in layers:
        for side in (layer.lora_A, layer.lora_B):
            side.to(loaded.model.device, dtype)


def _switch(loaded: LoadedModel, name: str | None) -> None:
    """Swap merged weights, or set the two fields that a LoRA layer reads.

    peft's own switch takes 46 ms.
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
