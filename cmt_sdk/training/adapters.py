"""Create, continue and save the peft adapters that a training run learns on a frozen model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
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

    Attributes:
        lm: The model.
        parameters: By adapter, its tensors, fp32.
        save: Writes each adapter to a folder of its name, in the folder given.
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

    Raises:
        ModelNotFound: A folder has no adapter.
        ModelUnsupported: An adapter is no plain LoRA.
        ModelError: An adapter's files are damaged.
    """
    import_bitsandbytes()  # peft imports it too, and lets its warnings through
    wrapped = _wrapped(model, rank, {**start, **frozen}, depth)
    learned = _unfreeze(wrapped, list(start))
    switch = _AdapterSwitch(wrapped, {*start, *frozen}, next(iter(start)))
    kind = CheckpointedModel if checkpointing else FrozenModel
    lm = kind(wrapped.get_base_model(), tokenizer, switch.activate)
    return Trainable(lm, learned, lambda folder: _save(wrapped, list(start), folder))


def _unfreeze(wrapped: Any, names: Sequence[str]) -> dict[str, list[Tensor]]:
    """Let the tensors of these adapters alone learn, in fp32; return them by adapter."""
    wrapped.eval().requires_grad_(False)
    learned = {
        name: [p for n, p in wrapped.named_parameters() if "lora_" in n and f".{name}." in n]
        for name in names
    }
    for parameter in (p for parameters in learned.values() for p in parameters):
        # In bf16 most steps of AdamW would round to nothing.
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return learned


class _AdapterSwitch:
    """Switches one adapter of a model in peft's wrapper on; the bare base is on at first.

    Sets the two fields that peft's layers read: peft's own switch takes 46 ms.

    Args:
        wrapped: The model.
        names: Its adapters; every other name stands for the bare base.
        any_name: One of them: a layer whose adapters are off names one all the same.
    """

    def __init__(self, wrapped: Any, names: Set[str], any_name: str) -> None:
        from peft.tuners.lora.layer import LoraLayer

        self._names = names
        self._any_name = any_name
        self._layers = [m for m in wrapped.modules() if isinstance(m, LoraLayer)]
        for layer in self._layers:
            layer.cast_input_dtype_enabled = False
        self._on: str | None = "the adapter that peft left on"
        self._switch(None)

    def _switch(self, name: str | None) -> None:
        if name == self._on:
            return
        self._on = name
        for layer in self._layers:
            layer._disable_adapters = name not in self._names
            layer._active_adapter = [name or self._any_name]

    @contextmanager
    def activate(self, name: str) -> Iterator[None]:
        """Switch `name` on within the block, then the previous one."""
        before = self._on
        self._switch(name)
        try:
            yield
        finally:
            self._switch(before)


def _wrapped(model: Any, rank: int, start: Mapping[str, Path | None], depth: int | None) -> Any:
    """The model in peft's wrapper, with an adapter for each name."""
    from peft import LoraConfig

    layers = None if depth is None else list(range(depth))
    new = LoraConfig(r=rank, lora_alpha=2 * rank, layers_to_transform=layers, **_targets(model))
    with _peft_quiet():
        return _with_adapters(model, new, start)


def _with_adapters(model: Any, new: Any, start: Mapping[str, Path | None]) -> Any:
    """Wrap a model, which peft does with its first adapter, and add the others.

    Args:
        model: The base model.
        new: peft's configuration of new adapters.
        start: By adapter, the folder that it is read from, or None for a new one.
    """
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

    Returns:
        Arguments of LoraConfig.
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

    The truncated SVD of each layer's change is its best approximation of that rank (Eckart & Young
    1936).

    Args:
        model: The base model.
        start: The folder of the adapter.
        rank: The new rank.
        folder: The folder to write.
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
    """Within the block, peft does not warn of what is meant."""
    with warnings.catch_warnings():
        # peft 0.21 reads this deprecated attribute
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        # `reduce_rank` converts LoRA to LoRA on purpose
        warnings.filterwarnings("ignore", "Converting a PEFT adapter to LoRA that is already")
        yield


def _save(wrapped: Any, names: Sequence[str], folder: Path) -> None:
    """Write each of these adapters to a folder of its name."""
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
