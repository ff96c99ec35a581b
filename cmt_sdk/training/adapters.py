"""Making and continuing peft adapters on a frozen model: what is trained, how it is switched on, how it is saved."""

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

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Trainable:
    """A frozen model with one adapter that is on inside `lm.activate(...)` and learns; its tensors are fp32."""

    lm: FrozenModel
    parameters: Sequence[Tensor]
    save: Callable[[Path], None]


def trainable(model: Any, tokenizer: Any, *, rank: int = 32, depth: int | None = None, start: Path | None = None) -> Trainable:
    """A new adapter of `rank` on all linear layers (of the first `depth` blocks), or the one in the folder `start`."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.tuners.lora.layer import LoraLayer

    if start is not None:
        wrapped = PeftModel.from_pretrained(model, start, is_trainable=True)
    else:
        blocks = None if depth is None else list(range(depth))
        wrapped = get_peft_model(
            model,
            LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(LINEAR), layers_to_transform=blocks),
        )
    wrapped.eval()
    learned = [p for n, p in wrapped.named_parameters() if "lora_" in n]
    for parameter in learned:
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    layers = [m for m in wrapped.modules() if isinstance(m, LoraLayer)]
    for layer in layers:
        layer.cast_input_dtype_enabled = False

    def switch(*, off: bool) -> None:
        for layer in layers:
            layer._disable_adapters = off

    @contextmanager
    def activate(_name: str) -> Iterator[None]:
        switch(off=False)
        try:
            yield
        finally:
            switch(off=True)

    switch(off=True)
    lm = FrozenModel(wrapped.get_base_model(), tokenizer, activate)
    return Trainable(lm, learned, lambda folder: _save(wrapped, folder))


def cut(model: Any, start: Path, rank: int, folder: Path) -> None:
    """Write the adapter in `start` with a smaller rank: the best approximation of each layer's change, by its SVD."""
    from peft import PeftModel, convert_to_lora

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a PEFT adapter to LoRA that is already")  # and this is the need for it
        config, state = convert_to_lora(PeftModel.from_pretrained(model, start), rank=rank)
    _write(state, config.to_dict() | {"target_modules": sorted(LINEAR)}, folder)


def _save(wrapped: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    _write(get_peft_model_state_dict(wrapped), wrapped.peft_config["default"].to_dict(), folder)


def _write(state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """In peft's own format, in bf16, without the path of this machine."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in state.items()}, folder / "adapter_model.safetensors")
    named = {**config, "base_model_name_or_path": None, "inference_mode": True}
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in named.items()}
    (folder / "adapter_config.json").write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
