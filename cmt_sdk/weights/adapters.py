"""LoRA adapters on a frozen model, through peft: put on once, all off, and switched on for a while. Knows no training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmt_sdk.errors import ModelError, ModelNotFound, ModelUnsupported
from cmt_sdk.weights.loading import LoadedModel, import_bitsandbytes
from cmt_sdk.weights.registry import ADAPTER_WEIGHTS, adapter_hash


def attach_adapters(loaded: LoadedModel, folders: Mapping[str, Path]) -> None:
    """Put adapters on the model under the given names, all of them off.

    A folder holds adapter_config.json and adapter_model.safetensors, as peft's `save_pretrained` writes them. After
    an error the model must not be used. Raises ModelNotFound for a missing file, ModelUnsupported for anything but
    LoRA that fits this model, ModelError for a damaged file.
    """
    if not folders:
        return  # importing peft takes longer than a second: only where there is an adapter
    for name, folder in folders.items():
        _attach(loaded, name, folder)
    _freeze(loaded)
    _switch(loaded, None)


@contextmanager
def active(loaded: LoadedModel, name: str) -> Iterator[None]:
    """Within the block the adapter `name` is on; without one of that name the base stays bare. One thread at a time."""
    before = loaded.adapters.active
    _switch(loaded, name if name in loaded.adapters.hashes else None)
    try:
        yield
    finally:
        _switch(loaded, before)


def _attach(loaded: LoadedModel, name: str, folder: Path) -> None:
    import_bitsandbytes()  # peft imports it too, but not quietly
    from peft import LoraConfig, inject_adapter_in_model
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    digest = adapter_hash(folder)
    if not (folder / "adapter_config.json").is_file():
        raise ModelNotFound(f"adapter folder {folder} has no adapter_config.json: save it with save_pretrained")
    try:
        config = LoraConfig.from_pretrained(folder)
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise ModelError(f"adapter {folder} is damaged or no LoRA of peft: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # the second adapter beside the first
            inject_adapter_in_model(config, loaded.model, name)
        _fill(loaded.model, name, tensors)
    except (ValueError, KeyError) as error:
        raise ModelUnsupported(f"adapter {folder} was made for another model than {loaded.name!r}: {error}") from error
    loaded.adapters.hashes[name] = digest


def _fill(model: Any, name: str, tensors: Mapping[str, Any]) -> None:
    """Give the adapter its weights, one by one: peft's loader asks for the model's state_dict, and bitsandbytes 0.50
    repacks NF4 weights on a CPU when it is asked for that, after which the base computes something slightly else.
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
    """Nothing needs a gradient, and adapters compute in the base's own number format."""
    from peft.tuners.lora.layer import LoraLayer

    loaded.model.requires_grad_(False).eval()
    layers: list[Any] = [m for m in loaded.model.modules() if isinstance(m, LoraLayer)]
    loaded.adapters.layers = layers
    dtype = loaded.model.get_input_embeddings().weight.dtype
    for layer in layers:
        for side in (layer.lora_A, layer.lora_B):
            side.to(loaded.model.device, dtype)


def _switch(loaded: LoadedModel, name: str | None) -> None:
    """Set the two fields that a LoRA layer looks at; peft's own switch walks every module, 46 ms at every question."""
    loaded.adapters.active = name
    for layer in loaded.adapters.layers:
        layer._disable_adapters = name is None
        if name is not None:
            layer._active_adapter = [name]
