"""Create, continue and save the peft adapters that a training run learns on a frozen model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.training.checkpointing import CheckpointedModel
from cmt_sdk.weights.adapters import read_adapter
from cmt_sdk.weights.loading import import_bitsandbytes

READER: Mapping[str, Path | None] = {"reader": None}
NOTHING: Mapping[str, Path] = {}


@dataclass(frozen=True)
class Trainable:
    """A frozen model with adapters that learn, each on inside `lm.activate(NAME)`.

    The adapters' tensors are fp32. parameters: the tensors of each adapter, by name. save: writes
    each adapter to a folder of its name.
    """

    lm: FrozenModel
    parameters: Mapping[str, Sequence[Tensor]]
    save: Callable[[Path], None]


def trainable(
    model: Any,
    tokenizer: Any,
    *,
    rank: int = 32,
    start: Mapping[str, Path | None] = READER,
    frozen: Mapping[str, Path] = NOTHING,
    checkpointing: bool = False,
    depth: int | None = None,
) -> Trainable:
    """Put adapters that learn on a model, and freeze everything else.

    Args:
        model: The base model.
        tokenizer: Its tokenizer.
        rank: Of new adapters.
        start: Adapters by name: a folder to start from, or None for a new adapter on all linear
            layers.
        frozen: Folders of further adapters by name, which do not learn.
        checkpointing: Layers compute again what backward needs, and hold less memory.
        depth: The first layers that a new adapter covers; all if left out.
    """
    import_bitsandbytes()  # peft imports it too, and lets its warnings through
    from peft.tuners.lora.layer import LoraLayer

    wrapped = _wrapped(model, rank, {**start, **frozen}, depth)
    wrapped.eval().requires_grad_(False)
    learned = {
        name: [p for n, p in wrapped.named_parameters() if "lora_" in n and f".{name}." in n]
        for name in start
    }
    for parameter in (p for parameters in learned.values() for p in parameters):
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    layers = [m for m in wrapped.modules() if isinstance(m, LoraLayer)]
    for layer in layers:
        layer.cast_input_dtype_enabled = False

    on: list[str | None] = ["the adapter that peft left on"]

    def switch(name: str | None) -> None:
        if name == on[0]:
            return
        on[0] = name
        for layer in layers:
            layer._disable_adapters = name not in start and name not in frozen
            layer._active_adapter = [name or next(iter(start))]

    @contextmanager
    def activate(name: str) -> Iterator[None]:
        before = on[0]
        switch(name)
        try:
            yield
        finally:
            switch(before)

    switch(None)
    lm = (CheckpointedModel if checkpointing else FrozenModel)(
        wrapped.get_base_model(), tokenizer, activate
    )
    return Trainable(lm, learned, lambda folder: _save(wrapped, list(start), folder))


def _wrapped(model: Any, rank: int, start: Mapping[str, Path | None], depth: int | None) -> Any:
    """The model in peft's wrapper, with an adapter for each name."""
    from peft import LoraConfig

    layers = None if depth is None else list(range(depth))
    new = LoraConfig(r=rank, lora_alpha=2 * rank, layers_to_transform=layers, **_targets(model))
    with _peft_quiet():
        return _with_adapters(model, new, start)


def _with_adapters(model: Any, new: Any, start: Mapping[str, Path | None]) -> Any:
    from peft import PeftModel, get_peft_model

    for given in filter(None, start.values()):
        read_adapter(given)  # refuses pickled weights and modules to import: peft accepts both
    (first, folder), *rest = start.items()
    if folder is None:
        wrapped = get_peft_model(model, new, adapter_name=first)
    else:
        wrapped = PeftModel.from_pretrained(model, folder, adapter_name=first, is_trainable=True)
    for name, folder in rest:
        if folder is None:
            wrapped.add_adapter(name, new)
        else:
            wrapped.load_adapter(folder, name, is_trainable=True)
    return wrapped


def _targets(model: Any) -> dict[str, Any]:
    """The layers for peft to adapt: the linear ones of every block, whatever a family calls them.

    In GPT-2 they are Conv1D, whose weight is transposed.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()
    named = [
        (name.rpartition(".")[2], module)
        for name, module in model.named_modules()
        if module is not output
    ]
    linear = {
        name: isinstance(module, Conv1D)
        for name, module in named
        if isinstance(module, nn.Linear | Conv1D)
    }
    return {"target_modules": sorted(linear), "fan_in_fan_out": any(linear.values())}


def reduce_rank(model: Any, start: Path, rank: int, folder: Path) -> None:
    """Write the adapter in `start` to `folder` with a smaller rank.

    The truncated SVD of each layer's change is its best approximation of that rank.
    """
    from peft import PeftModel, convert_to_lora

    with _peft_quiet():
        loaded = PeftModel.from_pretrained(model, start)
        # the result names each layer by its full path
        layers = sorted(loaded.peft_config["default"].target_modules)
        config, state = convert_to_lora(loaded, rank=rank)
    _write(state, config.to_dict() | {"target_modules": layers}, folder)


@contextmanager
def _peft_quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft 0.21 reads this deprecated attribute
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        # `reduce_rank` converts LoRA to LoRA on purpose
        warnings.filterwarnings("ignore", "Converting a PEFT adapter to LoRA that is already")
        yield


def _save(wrapped: Any, names: Sequence[str], folder: Path) -> None:
    from peft import get_peft_model_state_dict

    for name in names:
        state = get_peft_model_state_dict(wrapped, adapter_name=name)
        _write(state, wrapped.peft_config[name].to_dict(), folder / name)


def _write(state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Write the adapter in peft's own format, in bf16, without the path of this machine."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.to(torch.bfloat16).contiguous() for k, v in state.items()},
        folder / "adapter_model.safetensors",
    )
    named = {**config, "base_model_name_or_path": None, "inference_mode": True}
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in named.items()}
    (folder / "adapter_config.json").write_text(
        json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8"
    )
