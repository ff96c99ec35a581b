"""The probe for a model: shipped with the package, fitted before, or fitted now."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

from cmt_sdk.config.settings import models_dir
from cmt_sdk.ports import StateReader
from cmt_sdk.understanding import probe
from cmt_sdk.understanding.probe import IntentProbe, fit
from cmt_sdk.understanding.utterances import read_utterances

log = logging.getLogger(__name__)

FOLDER = ".probes"  # next to the pulled models


@cache
def digest() -> str:
    """Names the shipped messages and the way in which probes are fitted to them."""
    parts = [repr((u.text, sorted(u.labels))) for u in read_utterances()]
    ways = (probe.HASHED, probe.LONGEST, probe.RIDGE, probe.STATES_WEIGHT, probe.FOLDS)
    return hashlib.sha256("\n".join([repr(ways), *parts]).encode()).hexdigest()[:12]


_fitted: dict[str, IntentProbe] = {}


def intent_probe(state_reader: StateReader) -> IntentProbe:
    """The probe for these states. Fitting it takes seconds, and is done once."""
    name = f"{state_reader.name}-{digest()}.npz"
    if name not in _fitted:
        _fitted[name] = _found(state_reader, name)
    return _fitted[name]


def _found(state_reader: StateReader, name: str) -> IntentProbe:
    kept = models_dir() / FOLDER / name
    for place in (files(__package__) / "shipped" / name, kept):
        try:
            return IntentProbe.unpacked(place.read_bytes())
        except (OSError, ValueError, KeyError):  # not there, or damaged: it is made again
            continue
    utterances = read_utterances()
    made = fit(utterances, state_reader.states([u.text for u in utterances]))
    keep(kept, made.packed())
    return made


def keep(place: Path, data: bytes) -> None:
    """Write whole or not at all; where it cannot be written, it is made again next time."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
            file.write(data)
        os.replace(file.name, place)  # noqa: PTH105
    except OSError as error:
        log.info("%s is not kept: %s", place.name, error.strerror or error)
