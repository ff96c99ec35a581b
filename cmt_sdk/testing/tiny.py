"""Tiny random models and a byte tokenizer, built in code: tests of tensors need no download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cmt_sdk.neural.frozen import FrozenModel

SPECIALS = ("<end>", "<start>")
TEMPLATE = (
    "{% for m in messages %}<start>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)
# Of every tiny model: 3 layers, 4 query and 2 key-value heads of 32 values.
SIZES = {
    "vocab_size": 258,
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "initializer_range": 0.2,
}


def byte_tokenizer() -> Any:
    """A tokenizer with a token for each byte, two special tokens, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",  # noqa: S106
        bos_token="<start>",  # noqa: S106
    )
    fast.chat_template = TEMPLATE
    return fast


def tiny_llama(seed: int = 0, **changes: Any) -> Any:
    """A random Llama of 3 layers, 4 query and 2 key-value heads of 32 values, fp32, in eval mode.

    Args:
        seed: Draws the weights.
        changes: Values of the configuration to change.
    """
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**(SIZES | changes))).eval().requires_grad_(False)


@contextmanager
def _nothing(_name: str) -> Iterator[None]:
    yield


def tiny_frozen(model: Any = None) -> FrozenModel:
    """A tiny model as a FrozenModel without adapters."""
    return FrozenModel(model or tiny_llama(), byte_tokenizer(), _nothing)


def save_tiny(
    folder: Path, model: Any = None, template: str | None = TEMPLATE, **changes: Any
) -> Path:
    """Save a tiny model with its tokenizer and a chat template as a local model folder.

    Args:
        folder: The folder to write.
        model: The model; by default `tiny_llama` with `changes`.
        template: The chat template, or None.
        changes: Values of the configuration to change.

    Returns:
        The folder.
    """
    (model or tiny_llama(**changes)).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder
