"""Adapter bundles: parts trained for one base model to make, find and read compressed passages.

A bundle is a folder with `cmt-adapter.json` and the trained parts: `reader/`, `encoder/` and
`matcher/` (peft's own format), `match.safetensors` (neural.embedding.MatchHead),
`gates.safetensors` (neural.methods.gates.Gates), `codec.safetensors` (reading.codec.Codec) and
`aggregate.safetensors` (neural.methods.aggregation.Aggregator). Knows no torch.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from cmt_sdk.config.methods import DEFAULT_METHOD, MethodInfo, find_method
from cmt_sdk.errors import ModelError, ModelMismatch, ModelNotFound
from cmt_sdk.weights.hashes import sha256_of
from cmt_sdk.weights.registry import model_info

MANIFEST = "cmt-adapter.json"
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts trained for a base model; None for a part that was not trained.

    Attributes:
        base: The hash of the base model.
        reader: The adapter that reads questions and answers, a peft folder.
        encoder: The adapter that reads passages, a peft folder.
        matcher: The adapter for embeddings, a peft folder.
        match: The head that makes embeddings of states, a safetensors file.
        aggregate: psi and pi, a safetensors file.
        gates: What predicts the scores of KV entries, a safetensors file.
        codec: What encodes KV entries, a safetensors file.
        compressor: The method of the compressed passages that the adapters make and read.
        vector_weight: The weight of similar meaning against common words.
    """

    base: str = ""
    reader: Path | None = None
    encoder: Path | None = None
    matcher: Path | None = None
    match: Path | None = None
    aggregate: Path | None = None
    gates: Path | None = None
    codec: Path | None = None
    compressor: str = DEFAULT_METHOD
    vector_weight: float = 0.1

    @property
    def adapters(self) -> dict[str, Path]:
        """The peft folders by adapter name."""
        folders = {"reader": self.reader, "encoder": self.encoder, "matcher": self.matcher}
        return {name: folder for name, folder in folders.items() if folder is not None}

    def default_compression(self, method: MethodInfo) -> float:
        """The compression that fits: a model that was trained to make memories needs fewer entries.

        A reader alone does not suffice: Qwen2.5-Coder-0.5B with one of 3,658 questions has 73.6 F1
        from text, 72.8 from half of the entries and 66.4 from a quarter; without any adapter 44.2
        from text, 44.2 from two thirds and 41.6 from half (its card in weights/shipped).

        Args:
            method: The compression method.
        """
        return method.compression if self.encoder else method.untrained_compression

    @property
    def matcher_hash(self) -> str:
        """The hash of the parts that make embeddings; "plain" where none was trained."""
        parts = [self.match, self.matcher]
        return _hash(parts) if any(parts) else "plain"

    @property
    def encoder_hash(self) -> str:
        """The hash of the part that makes compressed passages; "plain" where none was trained."""
        return _hash([self.encoder]) if self.encoder else "plain"

    @property
    def gates_hash(self) -> str:
        """The hash of the gates; "" where none were fitted."""
        return _hash([self.gates]) if self.gates else ""

    @property
    def codec_hash(self) -> str:
        """The hash of the codec; "" where none was fitted."""
        return _hash([self.codec]) if self.codec else ""


def _hash(parts: list[Path | None]) -> str:
    """Eight hexadecimal digits of each part's weights, one part after another."""
    files = [p / "adapter_model.safetensors" if p.is_dir() else p for p in parts if p is not None]
    return "".join(sha256_of(f)[:8] for f in files)


def find_bundle(adapter: str, base: str, compressor: str = DEFAULT_METHOD) -> Bundle:
    """The bundle for a base model.

    A method without adapters of its own uses those of its lender (`MethodInfo.lender`), if less
    well; not the other way round. The parts that find passages are shipped once, with the
    lender's.

    Args:
        adapter: "default" for the bundle shipped for the model, if there is one; "none"; or a
            folder.
        base: The hash of the base model.
        compressor: A value of the setting `compressor`.

    Raises:
        ModelNotFound: The folder has no manifest.
        ModelMismatch: The folder's bundle is for another base or another compressor.
        ModelError: The manifest is damaged.
    """
    if adapter == "none":
        return Bundle()
    lender = find_method(compressor).lender
    if adapter == "default":
        shipped = [read_bundle(m.parent) for m in sorted(SHIPPED.glob(f"*/{MANIFEST}"))]
        fitting = {b.compressor: b for b in shipped if b.base == base}  # at most one per method
        lent = fitting.get(lender, Bundle())
        own = fitting.get(compressor)
        return (
            replace(own, match=lent.match, matcher=lent.matcher, vector_weight=lent.vector_weight)
            if own
            else lent
        )
    bundle = read_bundle(Path(adapter).expanduser())
    if bundle.base != base:
        raise ModelMismatch(
            f"adapter {adapter} was trained for a base model with hash {bundle.base[:16]}, the one"
            f" that is open has {base[:16]}; open the model that it was trained for, or use"
            " adapter='none'"
        )
    if bundle.compressor not in (lender, compressor):
        raise ModelMismatch(
            f"adapter {adapter} was trained for compressor={bundle.compressor!r}, this memory has"
            f" {compressor!r}; open it with compressor={bundle.compressor!r}, or use adapter='none'"
        )
    return bundle


def is_adapter(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an adapter of `cmt train`."""
    try:
        return (Path(path).expanduser() / MANIFEST).exists()
    except (OSError, ValueError):  # a closed folder, a name that no system takes
        return False


def has_shipped_adapter(model: str) -> bool:
    """True where a bundle is shipped for this model.

    Without one, compressed passages are read by the bare model, and found mostly by words.

    Args:
        model: The name of a model on this machine.

    Raises:
        ModelNotFound: The model is not on this machine.
    """
    return find_bundle("default", model_info(model).sha256) != Bundle()


def read_bundle(folder: Path) -> Bundle:
    """The bundle in a folder.

    Args:
        folder: A folder that `cmt train` wrote.

    Raises:
        ModelNotFound: The folder has no manifest.
        ModelError: The manifest is damaged.
        ModelMismatch: The bundle is of an earlier form.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        base = str(manifest["base"])
        compressor = str(manifest.get("compressor", DEFAULT_METHOD))
        vector_weight = float(manifest.get("vector_weight", 1.0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFound(
            f"adapter {folder}: there is no {MANIFEST} in it; `cmt train` writes one"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"adapter {folder}: its {MANIFEST} is damaged ({error!r}); `cmt train` writes one"
        ) from error

    if (folder / "soft.safetensors").exists():
        raise ModelMismatch(
            f"adapter {folder} was trained for an earlier form of soft passages: train one with"
            " `cmt train`"
        )

    def part(name: str) -> Path | None:
        return folder / name if (folder / name).exists() else None

    return Bundle(
        base=base,
        reader=part("reader"),
        encoder=part("encoder"),
        matcher=part("matcher"),
        match=part("match.safetensors"),
        aggregate=part("aggregate.safetensors"),
        gates=part("gates.safetensors"),
        codec=part("codec.safetensors"),
        compressor=compressor,
        vector_weight=vector_weight,
    )
