"""LoRA adapters in peft's format on a frozen model, one of them on or none. Knows no training.

The layers are our own: switching is one assignment, and the base runs untouched while no adapter is on. peft's own
switching walks all modules (46 ms for 30 layers, at every question), and importing peft imports bitsandbytes and
torch's inductor (1.6 s at every start). A test holds the outputs equal to peft's, bit by bit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmt_sdk.errors import ModelError, ModelNotFound, ModelUnsupported
from cmt_sdk.weights.loading import Adapters, LoadedModel
from cmt_sdk.weights.registry import ADAPTER_WEIGHTS, adapter_hash

_KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
# Settings that leave an adapter plain LoRA, W x + scale * B A x. Any other that is set is a variant unknown here.
_PLAIN = {
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "target_modules", "task_type",
    "use_rslora",
}  # fmt: skip
_BASE_KEEPING_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # others train against a changed base


class LowRank(nn.Module):
    """What one adapter adds to one layer: scale * B A x, with A [rank, in] and B [out, rank]."""

    down: torch.Tensor
    up: torch.Tensor

    def __init__(self, down: torch.Tensor, up: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("down", down, persistent=False)
        self.register_buffer("up", up, persistent=False)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        return nn.functional.linear(nn.functional.linear(x, self.down), self.up) * self.scale


class AdaptedLinear(nn.Module):
    """A linear layer of the base and what the adapters add to it; `adapters` says which of them is on."""

    def __init__(self, base: nn.Linear, adapters: Adapters) -> None:
        super().__init__()
        self.base = base
        self.adapters = adapters
        self.added = nn.ModuleDict()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        y: torch.Tensor = self.base(x)
        name = self.adapters.active
        if name is not None and name in self.added:
            y = y + self.added[name](x)
        return y


def attach_adapters(loaded: LoadedModel, folders: Mapping[str, Path]) -> None:
    """Put adapters on the model under the given names, all of them off.

    A folder holds adapter_config.json and adapter_model.safetensors, as peft's `save_pretrained` writes them. Every
    folder is read and checked before the first layer changes. Raises ModelNotFound for a missing folder,
    ModelUnsupported for anything but plain LoRA on linear layers of this model, ModelError for a damaged file.
    """
    hashes = {name: adapter_hash(folder) for name, folder in folders.items()}
    read = {name: _read(loaded, folder) for name, folder in folders.items()}
    for name, layers in read.items():
        for path, low_rank in layers.items():
            _adapted(loaded, path).added[name] = low_rank
    loaded.adapters.hashes.update(hashes)


@contextmanager
def active(loaded: LoadedModel, name: str | None) -> Iterator[None]:
    """Within the block the adapter `name` is on; None is the bare base, bit for bit. One thread at a time."""
    adapters = loaded.adapters
    if name is not None and name not in adapters.hashes:
        attached = ", ".join(adapters.hashes) or "none"
        raise ModelNotFound(f"adapter {name!r} is not attached to {loaded.name!r}: attached are {attached}")
    before, adapters.active = adapters.active, name
    try:
        yield
    finally:
        adapters.active = before


def _adapted(loaded: LoadedModel, path: str) -> AdaptedLinear:
    layer = loaded.model.get_submodule(path)
    if not isinstance(layer, AdaptedLinear):
        layer = AdaptedLinear(layer, loaded.adapters)
        loaded.model.set_submodule(path, layer)
    return layer


def _read(loaded: LoadedModel, folder: Path) -> dict[str, LowRank]:
    config = _config(folder)
    pairs = _pairs(folder)
    layers = {}
    for path, sides in pairs.items():
        _check_fit(loaded, folder, path, sides)
        rank = sides["A"].shape[0]
        scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        # the base's own number format: in another one, every layer would convert there and back
        down, up = (sides[side].to(loaded.model.device, loaded.model.dtype) for side in "AB")
        layers[path] = LowRank(down, up, scale)
    return layers


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"adapter folder {folder} has no {file.name}: save it with save_pretrained") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    odd = [key for key, value in config.items() if key not in _PLAIN and value not in (None, False, "none", {}, [])]
    if config.get("init_lora_weights") not in _BASE_KEEPING_STARTS:
        odd.append("init_lora_weights")
    if config.get("peft_type") != "LORA":
        odd.append("peft_type")
    if odd:
        named = ", ".join(f"{key}={config.get(key)!r}" for key in odd)
        raise ModelUnsupported(f"{file}: only plain LoRA can be served, not {named}")
    return config


def _pairs(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Read the matrices A and B by the path of their layer."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / ADAPTER_WEIGHTS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is damaged: {error}") from error
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        found = _KEY.fullmatch(key)
        if not found:
            raise ModelUnsupported(f"{file}: only plain LoRA on linear layers can be served, not {key}")
        pairs.setdefault(found["layer"], {})[found["side"]] = tensor
    return pairs


def _check_fit(loaded: LoadedModel, folder: Path, path: str, sides: Mapping[str, torch.Tensor]) -> None:
    try:
        layer = loaded.model.get_submodule(path)
    except AttributeError as error:
        raise ModelUnsupported(f"{folder} was made for another model: {loaded.name!r} has no layer {path}") from error
    base = layer.base if isinstance(layer, AdaptedLinear) else layer
    if not isinstance(base, nn.Linear):
        raise ModelUnsupported(f"{folder} adapts {path}, a {type(base).__name__}: only linear layers can be adapted")
    given = {side: tuple(tensor.shape) for side, tensor in sides.items()}
    rank = given.get("A", (0,))[0]
    fitting = {"A": (rank, base.in_features), "B": (base.out_features, rank)}
    if given != fitting:
        raise ModelUnsupported(f"{folder} was made for another model: {path} has shapes {given}, here {fitting} fit")
