"""Fit the probes of models to `utterances.tsv` and put them into the package.

    python tests/fit_probe.py [MODEL ...]

Without names: those of every model with adapters of ours. The default model takes a minute or two
on a CPU. Prints the accuracy of each label on messages that were held out.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import cmt_sdk
from cmt_sdk.understanding import utterances as shipped_messages
from cmt_sdk.understanding.fitted import digest
from cmt_sdk.understanding.probe import fit
from cmt_sdk.understanding.utterances import LABELS, Utterance, read_utterances

MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")
HELD_OUT = Path(__file__).parent / "everyday" / "held_out_messages.tsv"


def held_out() -> list[Utterance]:
    """Messages of other topics and wordings; no probe and no threshold was chosen on them."""
    rows = [line.split("\t", 2) for line in HELD_OUT.read_text(encoding="utf-8").splitlines()]
    return [
        Utterance(
            text.replace("\\n", "\n"), frozenset(LABELS[letter] for letter in letters), language
        )
        for letters, language, text in rows
    ]


def accuracy(scores: np.ndarray, utterances: list[Utterance]) -> dict[str, float]:
    """The share of messages for which each label is decided rightly."""
    wanted = np.array([[name in u.labels for name in LABELS.values()] for u in utterances])
    return dict(
        zip(LABELS.values(), ((scores > 0) == wanted).mean(0).round(3).tolist(), strict=True)
    )


def main() -> None:
    """Fit, write, report."""
    for model in sys.argv[1:] or MODELS:
        fit_for(model)


def fit_for(model: str) -> None:
    """Fit the probe of a model, in the place of its former one."""
    with (
        tempfile.TemporaryDirectory() as folder,
        cmt_sdk.open(Path(folder) / "memory", model=model) as memory,
    ):
        engine = memory._engine
        state_reader = engine.state_reader
        utterances = read_utterances()
        probe = fit(utterances, state_reader.states([u.text for u in utterances]))
        place = Path(shipped_messages.__file__).parent / "shipped"
        place.mkdir(exist_ok=True)
        for old in place.glob(f"{state_reader.name}-*.npz"):
            old.unlink()
        (place / f"{state_reader.name}-{digest()}.npz").write_bytes(probe.packed())
        scores = engine.intent_scores([u.text for u in held_out()])
        print(model, accuracy(scores, held_out()))  # noqa: T201


if __name__ == "__main__":
    main()
