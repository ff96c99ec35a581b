"""Question files to training examples: passages with questions, split by title, drawn by weight.

Knows no torch.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from cmt_sdk.errors import InvalidInput
from cmt_sdk.questions.dataset import QuestionedPassage, read_passages

LONGEST_CONTEXT = 2400  # characters; longer ones are left out of training
NEIGHBOURS = 5  # passages of one title that are drawn together, at most
Files: TypeAlias = dict[str, list[QuestionedPassage]]  # by file


def is_validation(title: str, percent: int = 3) -> bool:
    """True for titles held out for early stopping, chosen by hash; never for an empty title.

    Args:
        title: The title.
        percent: The share of titles that are held out.
    """
    # By hash and not by chance: a title is held out in every run and every file.
    return bool(title) and hashlib.sha256(title.encode()).digest()[0] * 100 < 256 * percent


class Mixture:
    """An endless, seeded stream of passages over several files, each file drawn by its weight.

    Passages of one title come in runs of up to `NEIGHBOURS`, in random order, as a search finds
    them next to the right one.

    Args:
        files: By file, its passages.
        weights: By file, how often it is drawn; files without passages are left out.
        seed: Of everything that is drawn.
    """

    def __init__(
        self,
        files: Mapping[str, Sequence[QuestionedPassage]],
        weights: Mapping[str, float],
        seed: int,
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a reproducible draw, no secret
        self._names = [n for n in weights if files.get(n)]
        self._weights = [weights[n] for n in self._names]
        self._queues = {n: _in_runs(files[n], self.random) for n in self._names}
        self._next = dict.fromkeys(self._names, 0)  # by file, passages taken so far

    def name(self) -> str:
        """Draw a file."""
        return self.random.choices(self._names, self._weights)[0]

    def take(self, name: str) -> QuestionedPassage:
        """The file's next passage; after the last one comes the first again."""
        queue = self._queues[name]
        passage = queue[self._next[name] % len(queue)]
        self._next[name] += 1
        return passage

    def state(self) -> list[object]:
        """The position of the stream, as JSON."""
        version, numbers, gauss = self.random.getstate()
        return [version, list(numbers), gauss, dict(self._next)]

    def restore(self, state: list[Any]) -> None:
        """Continue from the `state` of a mixture over the same files."""
        version, numbers, gauss, taken = state
        self._next = dict(taken)
        self.random.setstate((version, tuple(numbers), gauss))


def _in_runs(passages: Sequence[QuestionedPassage], rng: random.Random) -> list[QuestionedPassage]:
    """The passages shuffled in runs of one title. An untitled passage is its own run."""
    by_title: dict[str, list[QuestionedPassage]] = {}
    for number, passage in enumerate(rng.sample(list(passages), len(passages))):
        by_title.setdefault(passage.title or str(number), []).append(passage)
    runs = [
        same[i : i + NEIGHBOURS]
        for same in by_title.values()
        for i in range(0, len(same), NEIGHBOURS)
    ]
    return [passage for run in rng.sample(runs, len(runs)) for passage in run]


def read_questions(paths: Sequence[Path]) -> dict[str, list[QuestionedPassage]]:
    """Read question files; of a folder, the files that MIXTURE names.

    Args:
        paths: Question files, or folders of them.

    Returns:
        The passages by the file's name without suffixes.

    Raises:
        InvalidInput: A folder has none of the files, or a file is no question file.
    """
    found = {}
    for path in (file for given in paths for file in _files(given)):
        found[path.name.split(".")[0]] = [
            p for p in read_passages(path) if len(p.context) <= LONGEST_CONTEXT
        ]
    return found


def hold_out(files: Mapping[str, Sequence[QuestionedPassage]]) -> tuple[Files, Files]:
    """The passages to learn from, and those to validate on: complete titles, chosen by hash.

    Where no title happens to be held out, because there are few or none, passages are chosen by
    their text: a tenth, at least one.

    Args:
        files: By file, its passages; at least two of them differ.
    """
    tried = (lambda p: is_validation(p.title), lambda p: is_validation(p.context, percent=10))
    for held in tried:
        halves = _split_by(files, held)
        if all(any(half.values()) for half in halves):  # neither half is empty
            return halves
    contexts = [p.context for passages in files.values() for p in passages]
    first = min(contexts, key=lambda text: hashlib.sha256(text.encode()).digest())
    return _split_by(files, lambda p: p.context == first)


def _split_by(
    files: Mapping[str, Sequence[QuestionedPassage]], held: Callable[[QuestionedPassage], bool]
) -> tuple[Files, Files]:
    """The passages of each file to learn from, and those for which `held` is true."""
    return (
        {name: [p for p in passages if not held(p)] for name, passages in files.items()},
        {name: [p for p in passages if held(p)] for name, passages in files.items()},
    )


def _files(given: Path) -> list[Path]:
    """The question files of a path: itself, or those of a folder."""
    if not given.is_dir():
        return [given]
    found = [
        p
        for name in MIXTURE
        for p in (given / f"{name}.jsonl.gz", given / f"{name}.jsonl")
        if p.exists()
    ]
    if not found:
        raise InvalidInput(
            f"{given}: none of the files {', '.join(MIXTURE)} is in it; name the question files"
            " themselves"
        )
    return found


# Files that validate a run on several of the files below, where it has them.
JUDGES = ("squad_v1_train_part", "squadshifts_new_wiki", "short_notes", "changes")
# How often each file is drawn.
MIXTURE = {
    "squad_v1_train_part": 0.46,
    "squadshifts_new_wiki": 0.14,
    "squadshifts_reddit": 0.06,
    "squadshifts_amazon_reviews": 0.06,
    "fairytaleqa_train": 0.04,
    "timeqa_human": 0.02,
    "qamr_dev": 0.04,
    "policyqa": 0.02,
    "openstax_terms_qa": 0.04,
    "factbook": 0.05,
    "sgd_memory_qa": 0.07,
    # examples/notes100/make_training.py makes it; a draw of five notes has a third of the answer
    # tokens of a draw of five passages
    "short_notes": 5.0,
    # examples/conversations/make_training.py makes it; statements in the order of time
    "changes": 5.0,
}
