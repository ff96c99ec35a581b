"""The shape of a model in a folder, from its configuration and the headers of its weights.

Reads no weights: a model of any size takes milliseconds. Knows no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.weights.registry import MAX_JSON_BYTES, read_json, weight_files
from cmt_sdk.weights.sizes import Shape


def shape_of(folder: Path) -> Shape:
    """The shape of a model; layers, heads and their size are 0 where its configuration has none.

    Args:
        folder: A folder with config.json and safetensors.

    Raises:
        ModelUnsupported: There are no weights, or a file is damaged.
    """
    whole = read_json(folder / "config.json")
    nested = whole.get("text_config")
    config = nested if isinstance(nested, dict) else whole
    shapes = [shape for file in weight_files(folder) for shape in _tensors(file)]
    heads = _number(config, "num_attention_heads", "n_head")
    width = _number(config, "hidden_size", "n_embd")
    rows = _number(config, "vocab_size")
    return Shape(
        parameters=sum(map(prod, shapes)),
        embedding=sum(prod(s) for s in shapes if len(s) == 2 and s[0] == rows),
        layers=_number(config, "num_hidden_layers", "n_layer"),
        kv_heads=_number(config, "num_key_value_heads") or heads,
        head_size=_number(config, "head_dim") or (width // heads if heads else 0),
    )


def _number(config: dict[str, Any], *names: str) -> int:
    """The first of these settings that is a whole number; 0 without one."""
    found = (config.get(name) for name in names)
    return next((v for v in found if isinstance(v, int) and 0 < v < 2**40), 0)


def _tensors(file: Path) -> Iterator[list[int]]:
    """The shape of each tensor in a safetensors file."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(size, MAX_JSON_BYTES)))
        yield from (list(v["shape"]) for k, v in header.items() if k != "__metadata__")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelUnsupported(
            f"{file} is not a safetensors file ({error!r:.100}): fetch or save the model again"
        ) from error
