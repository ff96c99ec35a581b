"""Settings: one frozen dataclass, checked when it is made, and the folders that are used by
default.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import platformdirs

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.methods import MethodInfo, find_method, method_names

DEFAULT_MODEL = "smollm2-135m-instruct"
RERANKED = 10  # passages that `search(mode="reranked")` reranks where the settings rerank none


@dataclass(frozen=True, slots=True)
class Settings:
    """How a memory is made and read.

    model: a hub id, a local folder, a .gguf file, or the name of a pulled model. adapter: a folder
        with adapters, "default" for the ones shipped for the default model, "none" for none.
        precision: "nf4" (4-bit weights), "bf16", "fp32", or "auto": nf4 on CUDA, elsewhere bf16
        where the device multiplies it, else fp32. Memories made in bf16 and in fp32 are read by
        each other.
    compressor: "kv" keeps the KV-cache entries that matter, "soft" merges neighbouring tokens to
        soft tokens (CMT). keep: the share of KV entries kept, 0 < keep <= 1, for "kv".
        keep_at_least: tokens whose KV entries are kept of every passage, whatever `keep` is, for
        "kv": a passage of up to so many tokens, such as a short note, is kept whole. 0: `keep`
        alone decides. Of 59 questions about 24 notes of one sentence the default model answers 46
        right with a quarter, 50 with all; notes of fifty tokens gain nothing from 64 in place of
        32, and passages of SQuAD grow by 2 % with 32, by 60 % with 64.
    compression: text tokens per soft token, 4, 8 or 16, for "soft". aggregation: how soft memories
        are read: "concat", one after another, or "cmt", gathered into a few keys and values before
        the question, as published (needs an adapter of `cmt train --part cmt`).
    fidelity: measure how much of a passage the model reads from its memory, as memories are made,
        for "kv"; adding then takes a little over twice as long.
    rerank: so many of the passages that a search finds are put in a new order by how much the
        model, having read each one's memory, expects the question; 0: none; -1: ten for "kv", none
        for "soft": reading ten of those takes seconds, and the answers are no better for it
        (examples/benchmarks/runs.md).
    passage_tokens: the longest passage, in tokens. memory_budget: bytes of compressed memory kept
    on disk; colder passages are encoded again when needed. 0: no limit. exact_limit: up to so many
    vectors search is exact; above, HNSW. max_document_bytes: the largest text that `add` takes, in
    UTF-8 bytes.
    """

    model: str = DEFAULT_MODEL
    adapter: str = "default"
    device: str = "auto"
    precision: str = "auto"
    compressor: str = "kv"
    keep: float = 0.25
    keep_at_least: int = 32
    compression: int = 4
    aggregation: str = "concat"
    fidelity: bool = False
    rerank: int = -1
    passage_tokens: int = 256
    memory_budget: int = 0
    exact_limit: int = 20_000
    max_document_bytes: int = 10_000_000

    def __post_init__(self) -> None:
        allowed = {
            "precision": ("auto", "nf4", "bf16", "fp32"),
            "compressor": method_names(),
            "compression": (4, 8, 16),
            "aggregation": ("concat", "cmt"),
            "fidelity": (False, True),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise InvalidSetting(
                    f"{name}={getattr(self, name)!r}: choose one of {', '.join(map(str, values))}"
                )
        method = self.method  # refuses an aggregation that the compressor does not have
        if not isinstance(self.fidelity, bool):  # 0 and 1 are equal to them
            raise InvalidSetting(f"fidelity={self.fidelity!r}: choose one of False, True")
        if self.fidelity and "fidelity" not in method.uses:
            raise InvalidSetting(
                "fidelity=True: only the memories of compressor='kv' are measured; choose"
                " fidelity=False"
            )
        bounds = {
            "keep": (0.01, 1.0),
            "keep_at_least": (0, 4096),
            "rerank": (-1, 50),
            "passage_tokens": (16, 4096),
            "memory_budget": (0, 2**62),
            "exact_limit": (0, 2**31),
            "max_document_bytes": (1, 2**31 - 1),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not low <= value <= high
            ):
                raise InvalidSetting(f"{name}={value!r}: choose a number from {low} to {high}")

    @property
    def method(self) -> MethodInfo:
        """The compression method that `compressor` and `aggregation` name."""
        return find_method(self.compressor, self.aggregation)

    @property
    def reranked(self) -> int:
        """The passages that the model reranks: `rerank`, or the default of the method."""
        method = self.method
        return min(method.max_rerank, method.default_rerank if self.rerank < 0 else self.rerank)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(f.name for f in fields(cls))


def data_dir() -> Path:
    """The folder that holds memories by name: $CMT_HOME, else the platform's data folder."""
    given = os.environ.get("CMT_HOME")
    return Path(given).expanduser() if given else platformdirs.user_data_path("cmt")


def models_dir() -> Path:
    """The folder that holds pulled models: $CMT_MODELS, else the platform's cache folder."""
    given = os.environ.get("CMT_MODELS")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("cmt") / "models"


def archive_key() -> Path:
    """The file with the key that seals archives: $CMT_ARCHIVE_KEY, else `archive.key` beside the
    memories in `data_dir()`.
    """
    given = os.environ.get("CMT_ARCHIVE_KEY")
    return Path(given).expanduser() if given else data_dir() / "archive.key"


def memory_path(name_or_path: str | os.PathLike[str] | None) -> Path:
    """The folder of a memory. A bare name lies in `data_dir()`; anything with a separator, or "."
    and "..", is a path.
    """
    text = os.fspath(name_or_path) if name_or_path is not None else "default"
    if not text.strip() or "\x00" in text:
        raise InvalidSetting(f"memory name {text!r}: give a name or the path of a folder")
    is_path = text in {".", ".."} or "/" in text or os.sep in text or text.startswith("~")
    try:
        return Path(text).expanduser() if is_path else data_dir() / text
    except RuntimeError as error:  # a ~ that stands for nobody's home
        raise InvalidSetting(f"memory name {text!r}: {error}") from error
