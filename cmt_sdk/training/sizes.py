"""The memory that serving a model takes, and the memory and disk of a training run.

Computed from the recipe and the outline of the model, before weights are loaded. Knows no machine
and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cmt_sdk.neural.batching import BATCH_TOKENS
from cmt_sdk.neural.methods.aggregation import HIDDEN
from cmt_sdk.neural.methods.soft_tokens import EARLY_LAYERS
from cmt_sdk.training.answers import LOGITS_AT_ONCE
from cmt_sdk.training.matcher import DIMENSION
from cmt_sdk.training.packs import LENGTHS, PASSAGES
from cmt_sdk.training.recipe import Recipe, ResourceEstimate
from cmt_sdk.training.soft import PACKS_PER_PASS
from cmt_sdk.weights.sizes import FOUR_BITS

PACK_TOKENS = LENGTHS[-1]  # the longest questions and answers of a pack
PREFIX_TOKENS = 64  # of the prompt before the passages
# What a layer holds for the gradients, next to the inputs and outputs of its linear layers.
OTHER_ACTIVATIONS = 1.3
# Bytes of a passage's key or value, over all its copies: as made, in fp32 for four bits, in the
# cache of a pack, and gradients.
ENTRY_BYTES = 40
MERGED = 2  # tokens of a soft token, at the least ratio that `soft` trains with
LOSS_COPIES = 6  # of a chunk's logits
PROCESS_BYTES = 2**29  # libraries, kernels and what the allocator leaves unused


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The numbers of a model that its training's memory follows from.

    Attributes:
        layers: Its blocks.
        hidden: Values of a token's state.
        heads: Query heads of a layer.
        entries: Values of a token's keys and values in a layer.
        vocabulary: Its tokens.
        adapted: Inputs and outputs of a block's linear layers, added up, on average.
        quantised: Weights of all linear layers but the output layer.
        others: All other weights.
    """

    layers: int
    hidden: int
    heads: int
    entries: int
    vocabulary: int
    adapted: int
    quantised: int
    others: int

    @classmethod
    def of(cls, model: Any) -> ModelSizes:
        """The sizes of a model of transformers, with or without weights."""
        from transformers.pytorch_utils import Conv1D

        config = model.config.get_text_config()
        output = model.get_output_embeddings()
        linear = [
            m.weight
            for m in model.modules()
            if isinstance(m, nn.Linear | Conv1D) and m is not output
        ]
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        quantised = sum(w.numel() for w in linear)
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=heads,
            entries=2 * (getattr(config, "num_key_value_heads", None) or heads) * width,
            vocabulary=config.vocab_size,
            adapted=sum(sum(w.shape) for w in linear) // config.num_hidden_layers,
            quantised=quantised,
            others=sum(p.numel() for p in model.parameters()) - quantised,
        )


def published(numbers: Mapping[str, Any]) -> ModelSizes:
    """The sizes of a model from its config.json, without more of it.

    Args:
        numbers: The settings that decide sizes, and `model_type`, in the words of transformers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**numbers))
        model.tie_weights()  # transformers 5.0 leaves that out
    return ModelSizes.of(model)


def serving_memory(sizes: ModelSizes, passage: int, width: int) -> int:
    """Bytes that a model with NF4 weights takes while it compresses a batch of `kv` passages.

    Answering takes less.

    Args:
        sizes: Those of the model.
        passage: Tokens of a passage.
        width: Bytes of a number that the model computes with.
    """
    read = 2 * BATCH_TOKENS  # each passage twice
    entries = sizes.layers * sizes.entries * BATCH_TOKENS * 3 * width
    layer = read * width * sizes.adapted / 2
    scores = 8 * sizes.heads * BATCH_TOKENS * (2 * passage + PREFIX_TOKENS)
    weights = FOUR_BITS * sizes.quantised + width * sizes.others
    return round(weights + entries + layer + scores + PROCESS_BYTES)


def estimate(
    recipe: Recipe, sizes: ModelSizes, passage: int, width: int, *, is_gpu: bool
) -> ResourceEstimate:
    """The resources of a run.

    Args:
        recipe: The run.
        sizes: Those of its model.
        passage: Tokens of a long passage of its data.
        width: Bytes of a number that the model computes with.
        is_gpu: It runs on a GPU.
    """
    learned = learned_numbers(recipe, sizes)
    moments = 2 if is_gpu and recipe.nf4 == 1 else 8
    # weights, gradients and moments in fp32, and the weights as the model computes with them
    adapters = learned * (4 + 4 + moments + width)
    return ResourceEstimate(
        memory=round(
            _base(recipe, sizes, width)
            + adapters
            + _activations(recipe, sizes, passage, width, is_gpu=is_gpu)
            + PROCESS_BYTES
        ),
        disk=learned * (2 * (4 + moments) + 4),
        parameters=learned,
    )


def learned_numbers(recipe: Recipe, sizes: ModelSizes) -> int:
    """The numbers that the adapters and heads of a run have."""
    adapter = sizes.layers * sizes.adapted * recipe.rank
    head = sizes.vocabulary + sizes.hidden + (3 * sizes.hidden + 1) * DIMENSION
    spread = HIDDEN * (sizes.hidden + sizes.layers * sizes.entries)
    return {
        "reader": adapter,
        "cmt": adapter + 3 * sizes.hidden**2 + spread,
        "matcher": head,
        "embedding": adapter // 2 + head,
    }.get(recipe.part, 2 * adapter)


def _base(recipe: Recipe, sizes: ModelSizes, width: int) -> float:
    """Bytes of the base's weights: its own, those in NF4 alone, or both in the type of its own."""
    if recipe.nf4 == 1:
        return FOUR_BITS * sizes.quantised + width * sizes.others
    copies = 2 if recipe.nf4 and recipe.part in ("reader", "compressor") else 1
    return width * (copies * sizes.quantised + sizes.others)


def _activations(
    recipe: Recipe, sizes: ModelSizes, passage: int, width: int, *, is_gpu: bool
) -> float:
    """Bytes of activations, of memories with their gradients, and of logits."""
    token = OTHER_ACTIVATIONS * width * sizes.adapted  # of a layer
    if recipe.part in ("matcher", "embedding"):
        return token * BATCH_TOKENS * (sizes.layers // 2 if recipe.part == "embedding" else 1)
    passages = recipe.batch * PASSAGES * passage  # tokens
    side_by_side = is_gpu and recipe.part == "soft" and not recipe.checkpointing
    rows = recipe.batch * (PACKS_PER_PASS if side_by_side else 1)
    read = rows * PACK_TOKENS
    encoded = 0 if recipe.part == "reader" else passages
    seen = PASSAGES * passage + PREFIX_TOKENS + PACK_TOKENS  # by a token of the questions
    reading = read * (token + width * sizes.heads * seen)  # of a layer, with its attention mask
    reading += 2 * width * sizes.entries * rows * seen  # keys and values, with their gradients
    # SDPA written out on a CPU: attention in fp32 and in the model's type
    attention = 0 if is_gpu else sizes.heads * (passage + PREFIX_TOKENS) * (4 + width)
    encoding = encoded * (token + attention)
    # of every token the first layers of `soft`, of merged tokens all
    encoders = sizes.layers * (EARLY_LAYERS + 1 / MERGED if recipe.part == "soft" else 1)
    if recipe.checkpointing:
        inputs = sizes.layers * (read + encoded) * sizes.hidden * width
        held = inputs + 2 * max(reading, encoding)
    else:
        held = sizes.layers * reading + encoders * encoding
    scored = 2 * passages * token  # a layer reads each passage twice to score its entries
    memories = sizes.layers * sizes.entries * passages * ENTRY_BYTES / 2
    logits = LOSS_COPIES * 4 * min(LOGITS_AT_ONCE, read * sizes.vocabulary)
    return max(held, scored) + memories + logits
