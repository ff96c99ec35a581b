"""The frozen language model as the tensor code sees it: its parts, its sizes, its prompt. Loads
nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.attention import NAME, leave_out_cudnn
from cmt_sdk.text.prompt_tokens import Prompts


@dataclass(frozen=True)
class FrozenModel(Prompts):
    """A causal LM of transformers whose weights never change, and its adapters.

    Attributes:
        model: The PreTrainedModel, in eval mode.
        tokenizer: Its tokenizer.
        activate: A context manager that switches one adapter ("reader", "encoder", "matcher") on,
            and back to the previous one afterwards. Outside of it, and within "bare", the model is
            the bare base.
    """

    model: Any
    tokenizer: Any
    activate: Callable[[str], AbstractContextManager[None]]

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            leave_out_cudnn()
        if self.model.config._attn_implementation == NAME:
            return
        try:
            self.model.set_attn_implementation(NAME)
        except ValueError as error:
            raise ModelUnsupported(
                f"{self.family}: its attention cannot be replaced ({error}); use another model"
            ) from error

    @property
    def family(self) -> str:
        """The architecture as its configuration names it: "llama", "gpt2"."""
        family: str = self.model.config.model_type
        return family

    @property
    def generation_stops(self) -> int | Sequence[int] | None:
        """The tokens that end an answer, by the model's generation_config.json."""
        stops: int | Sequence[int] | None = self.model.generation_config.eos_token_id
        return stops

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the model computes in."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @cached_property
    def kv_shape(self) -> tuple[int, int, int]:
        """Layers, key-value heads, and values per head.

        Read from real keys, as families name these sizes differently in their configurations.
        """
        keys = [layer.keys for layer in self.prefix_cache(1).layers]  # (1, KV, prefix, d) each
        return len(keys), keys[0].shape[1], keys[0].shape[3]

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The model's layers, first to last; families name the list differently."""
        depth = self.model.config.get_text_config().num_hidden_layers
        for module in self.model.base_model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return module
        raise ModelUnsupported(
            f"{self.family}: there is no list of its {depth} layers in it; use another model"
        )

    @cached_property
    def context(self) -> int | None:
        """The most tokens that a prompt and its answer may have, if the model names a limit.

        LongRoPE rotates keys by other frequencies beyond the length of its first training; only
        keys up to there are comparable.
        """
        config = self.model.config.get_text_config()
        limits = [getattr(config, "max_position_embeddings", None)]
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get("original_max_position_embeddings"))
        return min((limit for limit in limits if limit), default=None)

    @cached_property
    def window(self) -> int | None:
        """Tokens that layers with sliding-window attention look back over, None without such
        layers. Memories are read within it.
        """
        windows = [getattr(m, "sliding_window", None) for m in self.blocks.modules()]
        config = self.model.config.get_text_config()
        # Mistral and Phi-3 name one window for all layers.
        if not any(windows) and getattr(config, "layer_types", None) is None:
            windows = [getattr(config, "sliding_window", None)]
        return min((window for window in windows if window), default=None)

    # -- computing --------------------------------------------------------------------------------

    @cached_property
    def _cache_name(self) -> str:
        """The name of the cache among the arguments of forward; transformers 5.24 renamed it."""
        names = signature(self.model.base_model.forward).parameters
        return "cache" if "cache" in names else "past_key_values"

    def forward(self, cache: Any, **inputs: Any) -> Tensor:
        """Run n new tokens, by the adapter that is on.

        Args:
            cache: Takes their keys and values: MemoryCache or a cache of transformers.
            inputs: input_ids [batch, n] and other arguments of the model's forward.

        Returns:
            Last hidden states [batch, n, d], after the final norm.
        """
        # The base model has no output layer: logits are computed for the few states that need any.
        output = self.model.base_model(**inputs, **{self._cache_name: cache}, use_cache=True)
        states: Tensor = output.last_hidden_state
        return states

    def forward_with_states(self, cache: Any, **inputs: Any) -> list[Tensor]:
        """As `forward`; returns what each layer gets, [batch, n, d] each."""
        output = self.model.base_model(
            **inputs, **{self._cache_name: cache}, use_cache=True, output_hidden_states=True
        )
        return list(output.hidden_states[:-1])  # the last ones go to the output layer

    @cached_property
    def _prefix_entries(self) -> list[tuple[Tensor, Tensor]]:
        """By layer, the keys and values [1, kv_heads, prefix, d] of `prefix_ids`.

        By the bare model, whichever adapter is on: all memories share them. Ordinary tensors, not
        those of inference mode: gradients flow through what training computes from them.
        """
        with self.activate("bare"), torch.inference_mode(False), torch.no_grad():
            ids = torch.tensor([self.prefix_ids], device=self.device)  # (1, prefix)
            # Without the model's configuration, so that layers with a window keep every entry too.
            cache = DynamicCache()
            self.forward(cache, input_ids=ids)
        return [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]

    def prefix_cache(self, batch: int) -> DynamicCache:
        """A new cache of transformers with the entries of `prefix_ids` for each of `batch` rows,
        made by the bare model.
        """
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._prefix_entries):
            batch_keys = keys.expand(batch, -1, -1, -1)  # (batch, KV, prefix, d)
            batch_values = values.expand(batch, -1, -1, -1)
            cache.update(batch_keys, batch_values, layer)
        return cache

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits, fp32 [n, vocabulary], of hidden states [n, d]."""
        logits: Tensor = self.model.get_output_embeddings()(hidden).float()
        # Gemma 2 caps the logits of its output too (arXiv 2408.00118).
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)
