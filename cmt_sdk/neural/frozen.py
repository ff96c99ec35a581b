"""The frozen language model as the tensor rooms see it: its parts, its sizes, its prompt. Loads
nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import DynamicCache

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.attention import NAME, leave_out_cudnn
from cmt_sdk.neural.templates import render
from cmt_sdk.prompting import SLOT, messages, passage_text, talk
from cmt_sdk.types import Turn

# Some chat templates write the date at the top (Llama 3, SmolLM3). Memories are made after a head
# that must be the same every day, so it is always the day that Llama 3 takes where it has no clock.
DAY = "26 Jul 2024"
# stands for a user's words, to see what the template writes after them
SLOT_WORDS = "What is said."


@dataclass(frozen=True)
class FrozenModel:
    """A causal LM of transformers whose weights never change, and its adapters.

    model: the PreTrainedModel, in eval mode. tokenizer: its tokenizer. activate: a context manager
    that switches one adapter ("reader", "encoder", "matcher") on, and back to what was on before;
    without it, and within "bare", the model is the bare base.
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
        """The architecture, as its configuration names it: "llama", "gpt2"."""
        family: str = self.model.config.model_type
        return family

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

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The model's layers, first to last, under whatever name the family has for them."""
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

        LongRoPE turns keys by other frequencies beyond the length of its first training: up to
        there they stay comparable.
        """
        config = self.model.config.get_text_config()
        limits = [getattr(config, "max_position_embeddings", None)]
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get("original_max_position_embeddings"))
        return min((limit for limit in limits if limit), default=None)

    @cached_property
    def window(self) -> int | None:
        """How many tokens back its layers see, where some see less than all: KV memories are read
        within it.
        """
        windows = [getattr(m, "sliding_window", None) for m in self.blocks.modules()]
        config = self.model.config.get_text_config()
        # one window for all: Mistral, Phi-3
        if not any(windows) and getattr(config, "layer_types", None) is None:
            windows = [getattr(config, "sliding_window", None)]
        return min((window for window in windows if window), default=None)

    # -- prompt -----------------------------------------------------------------------------------

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        """Whatever the tokenizer reads as one of the tokens that frame turns and texts; at least
        the names it has for them.
        """
        added = [
            str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special
        ]
        return re.compile(
            "|".join(
                map(
                    re.escape,
                    sorted({*added, *self.tokenizer.all_special_tokens}, key=len, reverse=True),
                )
            )
        )

    def spelled(self, text: str) -> str:
        """A text that frames nothing: with "<|im_end|>" in it a question could end its turn and
        speak as the system.
        """
        return (
            self._marks.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)
            if self._marks.pattern
            else text
        )

    def _render(self, question: str, history: Sequence[Turn], *, notes: bool) -> str:
        return self._chat(messages(self.spelled(question), self._spelled(history), notes=notes))

    def _spelled(self, history: Sequence[Turn]) -> list[Turn]:
        return [Turn(turn.role, self.spelled(turn.content)) for turn in history]

    def _chat(self, said: list[dict[str, str]]) -> str:
        if self.tokenizer.chat_template is None:
            return self._bos + "\n".join(m["content"] for m in said) + "\nAnswer:"
        template, names = (
            self.tokenizer.get_chat_template(),
            dict(self.tokenizer.special_tokens_map),
        )
        # thinking aloud (Qwen3, SmolLM3) would be taken for the answer
        asked = {"date_string": DAY, "enable_thinking": False}
        try:
            return render(template, said, DAY, **(names | asked), add_generation_prompt=True)
        except TemplateError as error:
            raise ModelUnsupported(
                f"{self.family}: its chat template refuses the prompt ({error}); use another model"
            ) from error

    @cached_property
    def _bos(self) -> str:
        """The token that begins every text, where the tokenizer sets one: a chat template writes it
        itself.
        """
        bos = self.tokenizer.bos_token
        return (
            bos
            if bos is not None
            and self.tokenizer("a")["input_ids"][0] == self.tokenizer.bos_token_id
            else ""
        )

    def _around(self, question: str, history: Sequence[Turn]) -> tuple[str, str]:
        """What stands before and after the notes."""
        text = self._render(question, history, notes=True)
        before, slot, after = text.partition(SLOT)
        if not slot or SLOT in after:
            raise ModelUnsupported(
                f"{self.family}: its chat template does not show the user's words once; use another"
                " model"
            )
        return before, after

    @cached_property
    def _head(self) -> str:
        return self._around("", ())[0]

    @cached_property
    def head_ids(self) -> list[int]:
        """Token ids of everything before the notes: the same for every question, read once."""
        return self.ids(self._head)

    def question_ids(self, question: str, history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of everything after the notes."""
        before, after = self._around(question, history)
        if before != self._head:
            raise ModelUnsupported(
                f"{self.family}: its chat template begins differently for every prompt; use another"
                " model"
            )
        return self.ids(after)

    def question_span(self, question: str) -> tuple[list[int], list[int]]:
        """Token ids from the notes to a question's first word, and those of its words."""
        after = self._around(question, ())[1]
        before, words, _ = after.partition(self.spelled(question).strip())
        # most tokenizers put a space into the word that follows
        gap = before[len(before.rstrip()) :]
        return self.ids(before.rstrip()), self.ids(gap + words)

    def bare_ids(self, question: str, history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of a prompt without notes."""
        return self.ids(self._render(question, history, notes=False))

    def talk_ids(self, said: str, history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of small talk: the model's own chat template and no instruction."""
        return self.ids(self._chat(talk(self.spelled(said), self._spelled(history))))

    @cached_property
    def _turn_end(self) -> list[int]:
        """Token ids from the end of a user's words to where the answer begins."""
        return self.ids(self._around(SLOT_WORDS, ())[1].partition(SLOT_WORDS)[2])

    def heard_ids(self, said: str, longest: int) -> list[int]:
        """Token ids of at most `longest` tokens of what a user says, and of the turn's end."""
        return [*self.ids(self.spelled(said.strip()))[:longest], *self._turn_end]

    def passage_ids(self, content: str) -> list[int]:
        """Token ids of a passage as it stands among the notes: as letters, also where it spells a
        token that frames turns.
        """
        text = passage_text(content)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return ids

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        given = self.model.generation_config.eos_token_id
        many = given if isinstance(given, list) else [given]
        ids = frozenset(i for i in [*many, self.tokenizer.eos_token_id] if i is not None)
        if not ids:
            raise ModelUnsupported(
                f"{self.family}: neither generation_config.json nor the tokenizer names an eos"
                " token; set one"
            )
        return ids

    @cached_property
    def end_id(self) -> int:
        """The one of `stop_ids` that ends an answer in a chat: what the template writes after it,
        else the tokenizer's eos token.

        Adapters learn to end answers with it. A family may stop at several, and its tokenizer may
        name another one first.
        """
        try:
            chat = self._render("?", [Turn("user", "?"), Turn("assistant", SLOT)], notes=False)
        except ModelUnsupported:  # a template for one turn alone
            chat = ""
        _, slot, after = chat.rpartition(SLOT)
        told = [*(self.ids(after) if slot else ()), self.tokenizer.eos_token_id]
        return next((i for i in told if i in self.stop_ids), min(self.stop_ids))

    # -- computing --------------------------------------------------------------------------------

    @cached_property
    def _cache_name(self) -> str:
        """What this family's forward calls the cache: transformers has renamed it in 5.24."""
        return (
            "cache"
            if "cache" in signature(self.model.base_model.forward).parameters
            else "past_key_values"
        )

    def states(self, cache: Any, **inputs: Any) -> Tensor:
        """Last hidden states [batch, n, d] of n new tokens, by the adapter that is on; `cache`
        takes their keys and values.
        """
        states: Tensor = self.model.base_model(
            **inputs, **{self._cache_name: cache}, use_cache=True
        ).last_hidden_state
        return states

    @cached_property
    def _head_entries(self) -> list[tuple[Tensor, Tensor]]:
        # by the bare model, whichever adapter is on; ordinary tensors: training goes on from them
        with self.activate("bare"), torch.inference_mode(False), torch.no_grad():
            ids = torch.tensor([self.head_ids], device=self.device)
            # without the model's configuration: also layers with a window keep every entry
            cache = DynamicCache()
            self.states(cache, input_ids=ids)
        return [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]

    def head_cache(self, batch: int) -> DynamicCache:
        """A fresh cache that holds the entries of `head_ids` for each of `batch` rows, made by the
        bare model.
        """
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._head_entries):
            cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), layer)
        return cache

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits, fp32, of hidden states [n, d]."""
        logits: Tensor = self.model.get_output_embeddings()(hidden).float()
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)
