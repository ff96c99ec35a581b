"""A model's folder in the form for transformers: weights, tokenizer, harmless settings. No torch.

Settings of a foreign folder can name code on the hub (`attn_implementation`, `auto_map`), other
files and base models (`*_file`, adapter_config.json), and programs that read quantised weights.
None of that reaches transformers: it gets a folder of links, with JSON files rewritten to numbers
and plain names.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.weights.registry import read_json

# The files that transformers reads of a causal LM without code of its own.
SHOWN = (
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
# Settings that choose code, kernels, devices or other files, and those private to transformers.
CODE = re.compile(
    r"_.*|.*_implementation|auto_map|kernel_config|custom_.*|trust_.*|.*_plan|.*_file|name_or_path|init_inputs"
)
PLAIN = re.compile(r"[\w.+-]*", re.ASCII)
GENERATION = ("eos_token_id", "bos_token_id", "pad_token_id")


@contextmanager
def vetted(folder: Path) -> Iterator[Path]:
    """A folder that shows a model and nothing else, removed when the block ends.

    Raises:
        ModelUnsupported: The weights are quantised, a setting has another shape, or the index names
            files elsewhere.
    """
    config = read_json(folder / "config.json")
    if config.get("quantization_config"):
        raise ModelUnsupported(
            f"{folder} holds quantised weights (quantization_config in config.json): give the"
            " folder of the model before that; precision='nf4' quantises it as it is loaded"
        )
    with tempfile.TemporaryDirectory(prefix="cmt-model-", ignore_cleanup_errors=True) as made:
        shown = Path(made)
        for file in sorted(folder.iterdir()):
            if any(fnmatch(file.name, pattern) for pattern in SHOWN):
                _check_index(file)
                _show(file, shown / file.name)
        _write(shown / "config.json", _numbers(config))
        for name, keep in (
            ("tokenizer_config.json", _of_tokenizer),
            ("generation_config.json", _of_generation),
        ):
            if (folder / name).is_file():
                _write(shown / name, keep(read_json(folder / name)))
        yield shown


def _numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are numbers, truth values and plain names, also in lists and objects."""
    return {
        name: _plain(value)
        for name, value in settings.items()
        if not _is_code(name) and _is_plain(value)
    }


def _is_code(name: str) -> bool:
    return CODE.fullmatch(name) is not None


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return PLAIN.fullmatch(value) is not None
    return not isinstance(value, list) or all(map(_is_plain, value))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _numbers(value)
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _of_tokenizer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a tokenizer. Its tokens can be any text, so only names decide."""
    return {name: value for name, value in settings.items() if not _is_code(name)}


def _of_generation(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in GENERATION if name in settings}


def _check_index(file: Path) -> None:
    """Check that the index of several weight files names only files in its folder."""
    if not file.name.endswith(".index.json"):
        return
    named = read_json(file).get("weight_map")
    if not isinstance(named, dict) or not all(
        isinstance(n, str) and Path(n).name == n for n in named.values()
    ):
        raise ModelUnsupported(
            f"{file} names weights outside of its folder: get the model from its maker again"
        )


def _write(file: Path, settings: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(settings), encoding="utf-8")


def _show(file: Path, shown: Path) -> None:
    """Put the file under another name: a link where the system has them, else a copy."""
    target = file.resolve()
    ways: tuple[Callable[[], object], ...] = (
        lambda: shown.symlink_to(target),
        lambda: shown.hardlink_to(target),
    )
    for way in ways:
        try:
            way()
        except OSError:  # Windows wants a privilege for one, and one disk for the other
            continue
        return
    shutil.copyfile(target, shown)
