"""The models to choose from: the named ones, and those on this machine. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

from cmt_sdk.config.methods import DEFAULT_METHOD, find_method
from cmt_sdk.config.settings import Settings
from cmt_sdk.weights.bundle import MANIFEST, SHIPPED, Bundle, find_bundle, read_bundle
from cmt_sdk.weights.named import NAMED, Measured, NamedModel
from cmt_sdk.weights.registry import ModelInfo, list_models
from cmt_sdk.weights.shapes import shape_of
from cmt_sdk.weights.sizes import PASSAGE_TOKENS, Shape


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model to choose, with what it costs at the default settings.

    Attributes:
        name: What `pull_model` and the setting `model` take.
        is_here: Whether it is on this machine.
        parameters: All of them.
        licence: Its name.
        download_bytes: What a pull fetches; 0 for a model that is here and has no name of ours.
        disk_bytes: Its files on this machine, or what they will take: the weights in 16 bits.
        nf4_bytes: Its weights in 4 bits, as a GPU holds them.
        has_adapters: Whether adapters for it are shipped.
        compression: The default of a memory made with it.
        passage_bytes: A passage of 150 tokens, some hundred words, on the disk: measured where a
            codec for the model is shipped, else computed; 0 where the configuration does not say.
        token_bytes: The same per token.
        measured: Its figures; None where nothing was measured.
    """

    name: str
    is_here: bool
    parameters: int
    licence: str
    download_bytes: int
    disk_bytes: int
    nf4_bytes: int
    has_adapters: bool
    compression: float
    passage_bytes: int
    token_bytes: float
    measured: Measured | None


def catalogue() -> list[CatalogueEntry]:
    """The named models, smallest first, then the others on this machine, by name.

    Example:
        >>> [entry.name for entry in catalogue()][0]
        'smollm2-135m-instruct'
    """
    here = {info.name: info for info in list_models()}
    named = [_named_entry(model, here.get(name)) for name, model in NAMED.items()]
    return named + [_other_entry(info) for name, info in here.items() if name not in NAMED]


def _named_entry(model: NamedModel, info: ModelInfo | None) -> CatalogueEntry:
    folder = SHIPPED / model.name
    bundle = read_bundle(folder) if (folder / MANIFEST).is_file() else Bundle()
    disk = info.bytes if info else 2 * model.shape.parameters
    return _entry(model.name, model.licence, model.shape, disk, bundle, info, model)


def _other_entry(info: ModelInfo) -> CatalogueEntry:
    bundle = find_bundle("default", info.sha256)
    return _entry(info.name, info.licence, shape_of(info.path), info.bytes, bundle, info, None)


def _entry(
    name: str,
    licence: str,
    shape: Shape,
    disk: int,
    bundle: Bundle,
    info: ModelInfo | None,
    named: NamedModel | None,
) -> CatalogueEntry:
    compression = bundle.default_compression(find_method(DEFAULT_METHOD))
    measured = named.measured if named else None
    passage = shape.passage(compression, Settings().keep_at_least)
    if measured and measured.token_bytes:
        passage = round(PASSAGE_TOKENS * measured.token_bytes)
    return CatalogueEntry(
        name=name,
        is_here=info is not None,
        parameters=named.parameters if named else shape.parameters,
        licence=licence,
        download_bytes=named.bytes if named else 0,
        disk_bytes=disk,
        nf4_bytes=shape.weights("nf4"),
        has_adapters=bundle != Bundle(),
        compression=compression,
        passage_bytes=passage,
        token_bytes=passage / PASSAGE_TOKENS,
        measured=measured,
    )
