"""The frozen language model as the tensor rooms see it: its parts, its sizes, its prompt. Loads nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cmt_sdk.neural.attention import NAME
from cmt_sdk.prompting import SLOT, messages, passage_text
from cmt_sdk.types import Turn


@dataclass(frozen=True)
class FrozenModel:
    """A causal LM of transformers whose weights never change, and its adapters.

    model: the PreTrainedModel, in eval mode. tokenizer: its tokenizer. activate: a context manager that switches
    one adapter ("reader", "encoder") on; without it the model is the bare base.
    """

    model: Any
    tokenizer: Any
    activate: Callable[[str], AbstractContextManager[None]]

    def __post_init__(self) -> None:
        if self.model.config._attn_implementation != NAME:
            self.model.set_attn_implementation(NAME)

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
        """Layers, key-value heads, and values a head."""
        keys = [layer.keys for layer in self.head_cache(1).layers]
        return len(keys), keys[0].shape[1], keys[0].shape[3]

    # -- prompt -------------------------------------------------------------------------------------------------

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _render(self, question: str, history: Sequence[Turn], *, notes: bool) -> str:
        said = messages(question, history, notes=notes)
        if self.tokenizer.chat_template is None:
            return "\n".join(m["content"] for m in said) + "\nAnswer:"
        text: str = self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        return text

    @cached_property
    def head_ids(self) -> list[int]:
        """Token ids of everything before the notes: the same for every question, read once."""
        return self.ids(self._render("", (), notes=True).split(SLOT)[0])

    def question_ids(self, question: str, history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of everything after the notes."""
        return self.ids(self._render(question, history, notes=True).split(SLOT)[1])

    def bare_ids(self, question: str, history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of a prompt without notes."""
        return self.ids(self._render(question, history, notes=False))

    def passage_ids(self, content: str) -> list[int]:
        """Token ids of a passage as it stands among the notes."""
        return self.ids(passage_text(content))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        given = self.model.generation_config.eos_token_id
        many = given if isinstance(given, list) else [given]
        return frozenset(i for i in [*many, self.tokenizer.eos_token_id] if i is not None)

    # -- computing ----------------------------------------------------------------------------------------------

    @cached_property
    def _head_entries(self) -> list[tuple[Tensor, Tensor]]:
        with torch.inference_mode():
            ids = torch.tensor([self.head_ids], device=self.device)
            cache = self.model.base_model(input_ids=ids, use_cache=True).past_key_values
        return [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]

    def head_cache(self, batch: int) -> DynamicCache:
        """A fresh cache that holds the entries of `head_ids` for each of `batch` rows, made by the bare model."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._head_entries):
            cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), layer)
        return cache

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits, fp32, of hidden states [n, d]."""
        return self.model.get_output_embeddings()(hidden).float()  # type: ignore[no-any-return]
