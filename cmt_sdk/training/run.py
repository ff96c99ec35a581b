"""A training run, from question files to a bundle of adapters that a memory opens with.

Knows files and the rest of the package; prints nothing.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cmt_sdk.config.methods import find_method
from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import InvalidInput
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.gates import Gates
from cmt_sdk.neural.methods.kv import KVMethod, check_kv
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.questions.dataset import QuestionedPassage
from cmt_sdk.training import codec, gates, resources
from cmt_sdk.training.card import write_card
from cmt_sdk.training.codec import FittedCodec, fit_codec
from cmt_sdk.training.data import hold_out, read_questions
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.gates import FittedGates, fit_gates
from cmt_sdk.training.loop import time_one_step, train
from cmt_sdk.training.recipe import DatasetSizes, Recipe, ResourceEstimate
from cmt_sdk.training.sizes import ModelSizes
from cmt_sdk.training.task import Progress, Task
from cmt_sdk.training.tasks import Passages, make_task
from cmt_sdk.training.texts import PASSAGE_TOKENS, read_texts
from cmt_sdk.weights.adapters import active, attach_adapters
from cmt_sdk.weights.bundle import MANIFEST, Bundle, find_bundle, read_bundle
from cmt_sdk.weights.loading import find_device, load_base, load_part, outline
from cmt_sdk.weights.registry import model_info

# Passages that a part needs to distinguish; other parts need 2, one to learn from and one to judge.
MIN_PASSAGES = {"matcher": 8, "embedding": 8}
JUDGED_BY = 30  # held-out passages that gates and codecs are judged by
LONG = 0.95  # the share of passages that are at most as long as the one that memory is counted for
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin.

    Attributes:
        recipe: Its settings.
        task: The model part with its data.
        needs: The resources that it takes.
        material: The numbers of passages and questions.
        eight_bit: The optimiser holds its moments in eight bits.
    """

    recipe: Recipe
    task: Task
    needs: ResourceEstimate
    material: DatasetSizes
    eight_bit: bool = False

    @property
    def _counts(self) -> dict[str, Any]:
        """Passages and questions by file: other data under the same name makes another run."""
        m = self.material
        return {
            name: {n: list(c) for n, c in half.items()}
            for name, half in (("learned", m.learned), ("judged", m.judged))
        }

    @property
    def alone(self) -> bool:
        """True where the run has one process."""
        return Workers().size == 1

    @property
    def is_main(self) -> bool:
        """True for the process of the run that reports progress and writes files."""
        return Workers().is_main

    def run(self, on_step: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Progress:
        """Train, or resume the run in `recipe.out`, and write a bundle there.

        Args:
            on_step: Called with each line of the log.

        Returns:
            The progress of the run. `cmt_sdk.open(adapter=out)` opens a memory with the bundle.

        Raises:
            InvalidSetting: `out` holds a run of other settings.
        """
        r = self.recipe
        progress = train(
            self.task,
            r.plan,
            r.out,
            on_step,
            r.minutes,
            fit=r.fit,
            eight_bit=self.eight_bit,
            choices=r.choices | self._counts,
        )
        if self.is_main:
            _write_bundle(r)
            write_card(r, self.needs, self.material, progress)
        return progress


def prepare(recipe: Recipe) -> Prepared:
    """Read the data, check the machine's memory and disk, load the model, and time one step.

    Args:
        recipe: The run.

    Raises:
        InvalidInput: Too few passages, or files that are no questions.
        InvalidSetting: The device has too little memory.
        ModelNotFound: The model or an adapter is not on this machine.
        StorageFull: The disk has too little space.
    """
    torch.manual_seed(recipe.seed)
    questions = read_questions(recipe.questions)
    if not recipe.texts:
        _check_count(recipe, questions)
    device = find_device(Workers().device(recipe.device))
    sizes = ModelSizes.of(outline(recipe.model))
    passage = _long_passage(questions, recipe.texts)
    resources.check(recipe, sizes, passage, device)
    precision = "nf4" if recipe.nf4 == 1 else "full"
    loaded = load_base(recipe.model, precision=precision, device=str(device), gradients=True)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the default device of new tensors
    files = _parted(recipe, questions, loaded.tokenizer)
    task = make_task(recipe, loaded.model, loaded.tokenizer, files)
    needs = replace(
        resources.needs(recipe, sizes, passage, device),
        parameters=sum(p.numel() for p in task.parameters()),
        seconds=time_one_step(task, recipe.plan),
    )
    material = DatasetSizes(
        *(
            {n: (len(ps), sum(len(p.questions) for p in ps)) for n, ps in half.items()}
            for half in files
        )
    )
    return Prepared(
        recipe, task, needs, material, eight_bit=precision == "nf4" and device.type == "cuda"
    )


def train_gates(recipe: Recipe, on_passage: Callable[[int], None] = lambda _: None) -> FittedGates:
    """Fit the gates that score KV entries (part "gates"), and write a bundle with them.

    Args:
        recipe: The run.
        on_passage: Called with the number of passages read.

    Raises:
        InvalidInput: Too few passages, or files that are no questions.
        ModelNotFound: The model or an adapter is not on this machine.
        ModelUnsupported: The model cannot read KV memories.
    """
    lm, _ = _opened(recipe)
    learned, judged = _drawn(recipe, lm, gates.PASSAGES)
    fitted = fit_gates(
        lm,
        [p.context for p in learned],
        [p.context for p in judged],
        minutes=recipe.minutes,
        on_passage=on_passage,
    )
    _write_part(
        recipe, {"weight": fitted.gates.weight.half(), "bias": fitted.gates.bias.contiguous()}
    )
    return fitted


def train_codec(recipe: Recipe, on_passage: Callable[[int], None] = lambda _: None) -> FittedCodec:
    """Fit the codec that encodes KV entries (part "codec"), and write a bundle with it.

    Args:
        recipe: The run.
        on_passage: Called with the number of passages read.

    Raises:
        InvalidInput, ModelNotFound, ModelUnsupported: As in `train_gates`.
    """
    lm, before = _opened(recipe)
    scorer = load_part(before.gates, partial(Gates.of, lm)) if before.gates else None
    keep = 1 / before.default_compression(find_method("kv"))
    method = KVMethod(lm, Rotary(lm.model), keep, Settings().keep_at_least, scorer)
    learned, judged = _drawn(recipe, lm, codec.PASSAGES)
    fitted = fit_codec(method, learned, judged, minutes=recipe.minutes, on_passage=on_passage)
    found = fitted.codec
    tensors = {"mean": found.mean, "basis": found.basis.astype("f2"), "classes": found.classes}
    _write_part(recipe, {name: torch.from_numpy(array) for name, array in tensors.items()})
    return fitted


def _opened(recipe: Recipe) -> tuple[FrozenModel, Bundle]:
    """The recipe's model, which can read KV memories, and the bundle that it starts from."""
    loaded = load_base(recipe.model, precision="auto", device=recipe.device)
    before = _started_from(recipe)
    attach_adapters(loaded, before.adapters)
    lm = FrozenModel(loaded.model, loaded.tokenizer, lambda name: active(loaded, name))
    check_kv(lm)
    return lm, before


def _drawn(
    recipe: Recipe, lm: FrozenModel, count: int
) -> tuple[list[QuestionedPassage], list[QuestionedPassage]]:
    """Up to `count` passages to learn from, and some held out."""
    learned, judged = _parted(recipe, read_questions(recipe.questions), lm.tokenizer)
    rng = random.Random(recipe.seed)  # noqa: S311 - a reproducible draw, no secret
    return _spread(learned, count, rng), _spread(judged, JUDGED_BY, rng)


def _write_part(recipe: Recipe, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors that were fitted, and the bundle."""
    folder = recipe.out / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / f"{recipe.part}.safetensors")
    _write_bundle(recipe)


def _spread(files: Passages, count: int, rng: random.Random) -> list[QuestionedPassage]:
    """Up to `count` passages, as many of one file as of another where they have them."""
    drawn: list[QuestionedPassage] = []
    for left, passages in zip(
        range(len(files), 0, -1), sorted(files.values(), key=len), strict=True
    ):
        drawn += rng.sample(list(passages), min(len(passages), (count - len(drawn)) // left))
    rng.shuffle(drawn)
    return drawn


def _long_passage(questions: Passages, texts: Sequence[Path]) -> int:
    """Tokens of a passage that few of a run's are longer than, by its bytes.

    No tokenizer is loaded for it.
    """
    sizes = sorted(len(p.context.encode()) for passages in questions.values() for p in passages)
    longest = sizes[int(LONG * len(sizes))] // BYTES_PER_TOKEN if sizes else 0
    return max(longest, PASSAGE_TOKENS if texts else 1)


def _parted(recipe: Recipe, questions: Passages, tokenizer: Any) -> tuple[Passages, Passages]:
    """All passages to learn from by file, and those held out."""

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    files = dict(questions) | {
        path.name.split(".")[0]: read_texts(path, count) for path in recipe.texts
    }
    _check_count(recipe, files)
    return hold_out(files)


def _check_count(recipe: Recipe, files: Passages) -> None:
    """Raise InvalidInput where the passages are too few to learn from and to judge."""
    total = len({p.context for passages in files.values() for p in passages})
    fewest = MIN_PASSAGES.get(recipe.part, 2)
    if total < fewest:
        raise InvalidInput(
            f"passages to learn from: {total}; some are held out for validation, so give at least"
            f" {fewest} for --part {recipe.part}"
        )


def _started_from(recipe: Recipe) -> Bundle:
    """The bundle whose other parts are kept."""
    if recipe.start in ("default", "none"):
        return find_bundle("default", model_info(recipe.model).sha256)
    return read_bundle(Path(recipe.start))


def _write_bundle(recipe: Recipe) -> None:
    """Write the trained parts, with the other parts of the bundle that the run started from.

    Where it started from none, these are those of the bundle shipped for the model.
    """
    base = model_info(recipe.model).sha256
    finds = recipe.part in ("matcher", "embedding")  # makes embeddings, not memories
    before = _started_from(recipe)
    kept: tuple[Path | None, ...] = (before.match, before.matcher)
    if finds:
        kept = (before.reader, before.encoder, before.aggregate, before.gates, before.codec)
    elif recipe.part in ("gates", "codec"):
        other = before.codec if recipe.part == "gates" else before.gates
        kept = (*kept, before.reader, before.encoder, other)
    elif recipe.part == "reader":  # the entries stay as they are: so do their scores and codes
        kept = (*kept, before.gates, before.codec)
    for part in (*filter(None, kept), *(recipe.out / "adapter").iterdir()):
        if part.is_dir():
            shutil.copytree(part, recipe.out / part.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(part, recipe.out / part.name)
    kind = "soft" if recipe.part in ("soft", "cmt") else "kv"
    if finds:
        kind = before.compressor
    weight = 1.0 if finds and before.match is None else before.vector_weight
    (recipe.out / MANIFEST).write_text(
        json.dumps({"base": base, "compressor": kind, "vector_weight": weight}, indent=2) + "\n",
        encoding="utf-8",
    )
