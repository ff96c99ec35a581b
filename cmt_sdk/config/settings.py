"""Settings: one frozen dataclass, checked when it is made, and the default folders."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypedDict, get_args, get_type_hints

import platformdirs

from cmt_sdk.config.address import object_fault, web_address
from cmt_sdk.config.methods import (
    DEFAULT_METHOD,
    MethodInfo,
    find_method,
    method_names,
    specific_settings,
)
from cmt_sdk.errors import InvalidSetting

MEMORY_FILES = ("memory.db", "memory.lock")  # in every memory: its database, its locks
DEFAULT_MODEL = "smollm2-135m-instruct"
# passages that `search(mode="reranked")` reranks where the settings rerank none
DEFAULT_RERANK_DEPTH = 10
CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": ("auto", "nf4", "bf16", "fp16", "fp32"),
    "runtime": ("auto", "torch", "onnx"),
    "aggregation": ("concat", "cmt"),
    "scores": ("auto", "repeat"),
    "codec": ("auto", "4bit"),
    "copy": ("auto", "on", "off"),
}
BOUNDS: Mapping[str, tuple[float, float]] = {
    "compression": (1, 100),
    "keep_at_least": (0, 4096),
    "rerank": (0, 50),
    "passage_tokens": (16, 4096),
    "memory_budget": (0, 2**62),
    "exact_limit": (0, 2**31),
    "max_document_bytes": (1, 2**31 - 1),
    "generator_timeout": (1, 86_400),
    "object_cache": (0, 2**62),
}


class SettingsFields(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments of `open` and `configure`."""

    model: str
    adapter: str
    device: str
    precision: str
    runtime: str
    compressor: str
    compression: float | None
    keep_at_least: int
    scores: str
    codec: str
    aggregation: str
    fidelity: bool
    rerank: int | None
    copy: str
    passage_tokens: int
    memory_budget: int
    exact_limit: int
    max_document_bytes: int
    generator: str | None
    generator_model: str | None
    generator_timeout: float
    objects: str | None
    object_cache: int


@dataclass(frozen=True, slots=True)
class Settings:
    """How a memory is made and read.

    Args:
        model: A name of `catalogue`, a hub id, "organisation/name:file.gguf" on the hub, a folder,
            or a .gguf file.
        adapter: A folder with adapters, "default" for those shipped for the default model, "none"
            for none.
        device: A torch device such as "cpu" or "cuda:1"; "auto" takes a GPU where there is one.
        precision: "nf4" (4-bit weights), "bf16", "fp16", "fp32", or "auto": nf4 on CUDA, elsewhere
            bf16 where the device multiplies it, else fp32. Compressed passages made in 16 and in 32
            bits are read by each other.
        runtime: Reads compressed passages and embeds questions on a CPU: "onnx" by onnxruntime with
            8-bit weights, which opens in a second and writes faster, for "kv" and models like
            Llama and Qwen; "torch" by torch, as passages are compressed; "auto" by onnxruntime for
            pulled models of that form, and folders that `prepare_model` has prepared, where
            precision is "auto"; else by torch.
        compressor: "kv" keeps the KV-cache entries that matter, "soft" merges neighbouring tokens
            to soft tokens (CMT).
        compression: Source tokens per stored entry: with 4 a passage takes a quarter of its
            entries. From 1 (all) to 100 for "kv"; 4, 8 or 16 for "soft". None: what fits the model:
            for "kv" 3 with an encoder trained to make such memories and 1.5 without (figures in
            docs/how-to/own-model.md), for "soft" 4. It is decided when a memory is made and
            recorded there, so that `Memory.settings` has a number.
        keep_at_least: Tokens whose KV entries are kept of every passage, whatever `compression`
            is, for "kv": a passage of up to that many tokens, such as a short note, keeps all. 0:
            `compression` alone decides. Of 59 questions about 24 notes of one sentence the default
            model answers 46 right with a quarter, 50 with all; notes of fifty tokens gain nothing
            from 64 in place of 32, and passages of SQuAD grow by 2 % with 32, by 60 % with 64.
        scores: How "kv" scores the entries that a passage may keep: "auto" by gates fitted for the
            model, in one reading, where the adapter has them (the default model's has); "repeat" by
            a second reading, in which the model repeats the passage. Both kinds can be in one
            memory.
        codec: How "kv" stores entries: "auto" by the codec fitted for the model, where the adapter
            has one (the default model's has), in a third of the bytes of four-bit codes; "4bit"
            in four-bit codes, as models without a codec store them. With "auto" both kinds can be
            in one memory.
        aggregation: How passages compressed by soft are read: "concat", one after another, or
            "cmt", gathered into a few keys and values before the question, as published (needs an
            adapter of `cmt train --part cmt`).
        fidelity: Measure how much of a passage the model reads from its compressed form, as
            passages are made, for "kv"; adding then takes a little over twice as long.
        rerank: Passages of a search that are put in a new order by how much the model, having read
            the memory of each, expects the question. 0: none. None: ten for "kv", none for "soft":
            reading ten of those takes seconds, and the answers are no better for it
            (examples/benchmarks/runs.md).
        copy: Copies an answer from compressed passages word for word from their texts: "on", "off"
            for what the model writes freely, "auto": on for "soft", and for "kv" unless the model
            finds a word of its own much likelier. The texts are looked up for output only: no
            token of them goes through the model. "soft" then copies from the best passage alone
            where that answers.
        passage_tokens: The longest passage, in tokens.
        memory_budget: Bytes of compressed passages kept on disk; cold ones are read from their
            text, and compressed behind the answer. 0: no limit.
        exact_limit: Vectors up to which search is exact; above, HNSW.
        max_document_bytes: The largest text that `add` takes, in UTF-8 bytes.
        generator: The address of an OpenAI-compatible server, up to /v1, whose model writes answers
            and replies from the passages that are found. None: the frozen model writes them. One
            on another machine is used only where the caller names it.
        generator_model: The name by which that server knows its model.
        generator_timeout: Seconds to wait for the next piece of its answer.
        objects: Where compressed passages of 32 KB and more are kept, in place of the database:
            "s3://bucket/prefix", "gs://bucket/prefix", "az://container/prefix" or
            "file:///folder". None: new ones go into the database.
        object_cache: Bytes of objects that are kept on this machine's disk. 0: none.

    Raises:
        InvalidSetting: A value outside its range, or a setting that the chosen compressor does not
            use and that is not at its default.
    """

    model: str = DEFAULT_MODEL
    adapter: str = "default"
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    compressor: str = DEFAULT_METHOD
    compression: float | None = None
    keep_at_least: int = 32
    scores: str = "auto"
    codec: str = "auto"
    aggregation: str = "concat"
    fidelity: bool = False
    rerank: int | None = None
    copy: str = "auto"
    passage_tokens: int = 256
    memory_budget: int = 0
    exact_limit: int = 20_000
    max_document_bytes: int = 10_000_000
    generator: str | None = None
    generator_model: str | None = None
    generator_timeout: float = 120
    objects: str | None = None
    object_cache: int = 2_000_000_000

    def __post_init__(self) -> None:
        for name, values in {**CHOICES, "compressor": method_names()}.items():
            _check_choice(name, getattr(self, name), values)
        if not isinstance(self.fidelity, bool):  # 0 and 1 are equal to them
            raise InvalidSetting(f"fidelity={self.fidelity!r}: choose one of False, True")
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if value is None and _default(name) is None:
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not low <= value <= high:
                raise InvalidSetting(f"{name}={value!r}: choose a number from {low} to {high}")
        self._check_method()
        self._check_generator()
        if self.objects is not None and (fault := object_fault(self.objects)):
            raise InvalidSetting(fault)

    def _check_generator(self) -> None:
        """Raise InvalidSetting for an address that is none, or that would hold a secret."""
        if self.generator is None:
            return
        parts = web_address(self.generator)
        if parts is None or parts.username or parts.password or parts.query or parts.fragment:
            shown = self.generator if parts is None else f"{parts.scheme}://…{parts.path}"
            raise InvalidSetting(
                f"generator={shown!r:.80}: give an address such as http://127.0.0.1:11434/v1,"
                " without a password, ? or #, and the key in CMT_GENERATOR_KEY"
            )
        if not (isinstance(self.generator_model, str) and self.generator_model.strip()):
            raise InvalidSetting(
                f"generator={self.generator!r} needs generator_model, the name of the server's"
                " model: give that too, or first"
            )

    def _check_method(self) -> None:
        """Raise InvalidSetting for a value that the compression method does not use."""
        method = self.method  # refuses an aggregation that the compressor does not have
        if method.compressions and self.compression is not None:
            _check_choice("compression", self.compression, method.compressions)
        for name, reason in specific_settings().items():
            value = getattr(self, name)
            default = _default(name)
            if name not in method.uses and value != default:
                raise InvalidSetting(
                    f"{name}={value!r}: {reason}; choose that too, or {name}={default!r}"
                )
        if (self.rerank or 0) > method.max_rerank:
            raise InvalidSetting(
                f"rerank={self.rerank}: gathered passages cannot be read one by one; choose"
                " rerank=None, or aggregation='concat'"
            )

    @property
    def keep(self) -> float:
        """The share of its entries that a passage keeps: 1 / `compression`.

        Rounded to twelve digits: a memory made with keep=0.98 keeps its fingerprint.
        """
        return float(f"{1 / self.tokens_per_entry:.12g}")

    @property
    def tokens_per_entry(self) -> float:
        """Source tokens per stored entry: `compression`, or that of a model with adapters."""
        return self.method.compression if self.compression is None else self.compression

    @property
    def method(self) -> MethodInfo:
        """The compression method that `compressor` and `aggregation` name."""
        return find_method(self.compressor, self.aggregation)

    @property
    def copy_margin(self) -> float | None:
        """By how many nats another word must be likelier for an answer not to be copied from the
        passages; None: none is. It follows from `copy`, or is the default of the method.
        """
        return {"auto": self.method.copy_margin, "on": math.inf, "off": None}[self.copy]

    @property
    def reads_best_first(self) -> bool:
        """Whether the best passage is read alone before any other is."""
        return self.copy_margin is not None and self.method.copies_from_one

    @property
    def rerank_depth(self) -> int:
        """The passages that the model reranks: `rerank`, or the default of the method."""
        method = self.method
        wanted = method.default_rerank if self.rerank is None else self.rerank
        return min(method.max_rerank, wanted)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Settings:
        """Settings with these values, the others at their defaults.

        Raises:
            InvalidSetting: A name that no setting has, with the nearest and all others; a bad
                value.
        """
        for name in sorted(set(values) - set(cls.names())):
            near = get_close_matches(name, cls.names(), 1)
            meant = f"; did you mean {near[0]!r}? There" if near else "; there"
            raise InvalidSetting(f"there is no setting {name!r}{meant} are {_all_names()}")
        return cls(**values)

    @classmethod
    def parse(cls, name: str, text: str) -> Any:
        """The value of a setting from its text, as on a command line; "default" for the default.

        Raises:
            InvalidSetting: No setting has this name, or the text is no value of its type.
        """
        if name not in cls.names():
            raise InvalidSetting(f"there is no setting {name!r}; there are {_all_names()}")
        if text == "default":
            return _default(name)
        hint = get_type_hints(cls)[name]
        kinds = get_args(hint) or (hint,)
        if bool in kinds:
            return {"true": True, "false": False}.get(text.lower(), text)
        if str in kinds:
            return text
        plain, is_whole = text.replace("_", ""), float not in kinds
        with suppress(ValueError):
            return int(plain)
        try:
            return int(plain) if is_whole else float(plain)
        except ValueError as error:
            wanted = "a whole number" if is_whole else "a number"
            raise InvalidSetting(f"{name}={text!r}: choose {wanted}") from error

    @classmethod
    def from_recorded(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """Recorded settings in today's names. Earlier releases recorded the share `keep` for "kv"
        next to the compression of "soft", -1 for the default of `rerank`, and what the compressor
        does not use.
        """
        values = dict(recorded)
        if "keep" not in values:
            return values
        keep = values.pop("keep")
        if values.get("compressor", "kv") == "kv":
            inverse = 1 / keep
            values["compression"] = int(inverse) if inverse.is_integer() else inverse
        else:
            values.pop("keep_at_least", None)
        if values.get("rerank") == -1 or values.get("aggregation") == "cmt":
            values["rerank"] = None
        return values


def _all_names() -> str:
    return ", ".join(Settings.names())


def _default(name: str) -> Any:
    return next(f.default for f in fields(Settings) if f.name == name)


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise InvalidSetting(f"{name}={value!r}: choose one of {', '.join(map(str, choices))}")


def data_dir() -> Path:
    """The folder that holds memories by name: $CMT_HOME, else the platform's data folder."""
    given = os.environ.get("CMT_HOME")
    return Path(given).expanduser() if given else platformdirs.user_data_path("cmt")


def models_dir() -> Path:
    """The folder that holds pulled models: $CMT_MODELS, else the platform's cache folder."""
    given = os.environ.get("CMT_MODELS")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("cmt") / "models"


def objects_dir() -> Path:
    """The folder that keeps objects on this machine: `objects` in the platform's cache folder."""
    return platformdirs.user_cache_path("cmt") / "objects"


def archive_key() -> Path:
    """The file with the key that seals archives: $CMT_ARCHIVE_KEY, else `archive.key` in
    `data_dir()`.
    """
    given = os.environ.get("CMT_ARCHIVE_KEY")
    return Path(given).expanduser() if given else data_dir() / "archive.key"


def memory_path(name_or_path: str | os.PathLike[str] | None) -> Path:
    """The folder of a memory.

    Args:
        name_or_path: A bare name stands for a folder in `data_dir()`; a text with a separator, "."
            and ".." are paths. None is the default memory.

    Raises:
        InvalidSetting: An empty name, or a home directory that does not exist.
    """
    text = os.fspath(name_or_path) if name_or_path is not None else "default"
    if not text.strip() or "\x00" in text:
        raise InvalidSetting(f"memory name {text!r}: give a name or the path of a folder")
    is_path = text in {".", ".."} or "/" in text or os.sep in text or text.startswith("~")
    try:
        return Path(text).expanduser() if is_path else data_dir() / text
    except RuntimeError as error:  # a ~ without a home directory
        raise InvalidSetting(f"memory name {text!r}: {error}") from error
