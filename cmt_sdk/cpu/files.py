"""The files of a model's graph: built once from its folder, checked when they are opened.

They lie in a folder named by the model's hash, the version of the graph and the bits of a weight.
They appear there in one rename, so a folder is complete or absent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.cpu.entries import Prefix
from cmt_sdk.cpu.shape import Shape
from cmt_sdk.errors import ModelError, StorageDenied
from cmt_sdk.system.disk import flush_file, sha256_of
from cmt_sdk.weights.hashes import known_sha256
from cmt_sdk.weights.registry import ModelInfo, graphs_dir

VERSION = 3  # of the graph; another one is built again
BITS = 8  # of a weight
FACTS = "graph.json"
REFUSED = "refused"  # a key of the facts
NAMES = ("first.onnx", "first.onnx.data", "second.onnx", "second.onnx.data", "prefix.npz")

Array = NDArray[Any]


@dataclass(frozen=True)
class GraphFiles:
    """The folder of a model's graph.

    Attributes:
        folder: Holds NAMES and the facts.
        split: The number of layers of the first half.
        quantization: How the model itself computes on this machine: "bf16" or "fp32".
    """

    folder: Path
    split: int
    quantization: str

    def prefix(self, ids: Sequence[int]) -> Prefix | None:
        """The entries of a prompt's prefix; None where they are of another prefix."""
        with np.load(self.folder / "prefix.npz") as stored:
            if stored["ids"].tolist() != list(ids):
                return None
            return Prefix(stored["keys"], stored["values"])


def folder_of(info: ModelInfo, bits: int = BITS) -> Path:
    """Where a model's graph is, or would be."""
    return graphs_dir() / f"{info.sha256[:16]}-{VERSION}-{bits}bit"


def find_graph(info: ModelInfo, bits: int = BITS) -> GraphFiles | None:
    """The graph of a model; None where it was not built, or a file is not as it was written.

    As with a model's weights, a file is hashed again when its size or modification time changes;
    `damaged` always reads it.
    """
    folder = folder_of(info, bits)
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if {name: known_sha256(folder / name) for name in NAMES} != facts["sha256"]:
            return None
        return GraphFiles(folder, int(facts["split"]), str(facts["quantization"]))
    except (OSError, ValueError, KeyError, TypeError, StorageDenied):
        return None


def build_graph(
    info: ModelInfo,
    shape: Shape,
    weights: Mapping[str, Array],
    prefix: tuple[Sequence[int], Prefix],
    states: Sequence[int],
    quantization: str,
    bits: int = BITS,
) -> GraphFiles:
    """Build the graph of a model.

    Args:
        info: The model.
        shape: Its sizes.
        weights: Its tensors by their names in the checkpoint.
        prefix: Token ids and entries of the prompt's prefix.
        states: Numbers of layers after which the first half gives states.
        quantization: How the model itself computes here, for fingerprints.
        bits: Of a weight.
    """
    from cmt_sdk.cpu.graph import write_half

    folder = folder_of(info, bits)
    split = max(states)
    made: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(prefix="tmp-", dir=folder.parent))
        half = range(split)
        write_half(made / NAMES[0], shape, half, weights.get, states=states, bits=bits)
        rest = range(split, shape.layers)
        write_half(made / NAMES[2], shape, rest, weights.get, bits=bits)
        ids, entries = prefix
        np.savez(made / "prefix.npz", ids=list(ids), keys=entries.keys, values=entries.values)
        hashes = {name: sha256_of(made / name) for name in NAMES}
        facts = {"split": split, "quantization": quantization, "sha256": hashes}
        (made / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        for name in (*NAMES, FACTS):
            flush_file(made / name)
        if other := find_graph(info, bits):  # another process was faster
            return other
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
        _remove_older(info)
    except OSError as error:
        raise ModelError(
            f"the graph of {info.name} cannot be written to {folder.parent} ({error}); free some"
            " space, or open with runtime='torch'"
        ) from error
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)
    return GraphFiles(folder, split, quantization)


def _remove_older(info: ModelInfo) -> None:
    """Delete the graphs of earlier versions, which nothing reads any more."""
    for graph in graphs_dir().glob(f"{info.sha256[:16]}-*-*bit"):
        version = graph.name.split("-")[1]
        if version.isdigit() and int(version) < VERSION:
            shutil.rmtree(graph, ignore_errors=True)


def refuse(info: ModelInfo, bits: int = BITS) -> None:
    """Put a note in the place of a graph that reads otherwise than its model."""
    folder = folder_of(info, bits)
    (folder / FACTS).write_text(json.dumps({REFUSED: True}), encoding="utf-8")
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)


def is_refused(info: ModelInfo, bits: int = BITS) -> bool:
    """Whether a graph was built of the model that reads otherwise."""
    try:
        facts = json.loads((folder_of(info, bits) / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and REFUSED in facts


def damaged(info: ModelInfo, bits: int = BITS) -> list[str] | None:
    """The names of files of a model's graph whose bytes are not those that were written; None where
    it has no graph.
    """
    folder = folder_of(info, bits)
    if is_refused(info, bits):
        return None
    try:
        written = json.loads((folder / FACTS).read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return [FACTS]
    return [name for name in NAMES if _hash(folder / name) != written.get(name)]


def _hash(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError:
        return ""
