"""The task of each part that `cmt train` trains: the model, the data and what is written."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cmt_sdk.config.methods import find_method
from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.neural.embedding import MatchHead
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.aggregation import Aggregator
from cmt_sdk.neural.methods.kv import check_kv
from cmt_sdk.questions.dataset import QuestionedPassage
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.cmt import CMTTask
from cmt_sdk.training.data import JUDGES, MIXTURE, Mixture
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.embedding import EmbeddingTask
from cmt_sdk.training.matcher import DIMENSION, MatchData, MatcherTask, first_head
from cmt_sdk.training.nf4_base import Bases
from cmt_sdk.training.packs import Pack, draw
from cmt_sdk.training.reader import SHARES, SHARES_WITHOUT_ENCODER, ReaderTask
from cmt_sdk.training.recipe import Recipe
from cmt_sdk.training.resources import tokens_at_once
from cmt_sdk.training.soft import PACKS_PER_PASS, SoftTask
from cmt_sdk.training.task import Task
from cmt_sdk.weights.bundle import Bundle, find_bundle, read_bundle
from cmt_sdk.weights.loading import load_tensors
from cmt_sdk.weights.registry import model_info

# Files whose questions fit many of their passages: good to read, misleading to find by.
NOT_TO_FIND = {"policyqa", "sgd_memory_qa"}
# Passages of a batch that embeddings learn to distinguish.
CANDIDATES_GPU = 160
CANDIDATES_CPU = 20
FIRST = 1000  # passages from which a first head is made
VALIDATION_SEED = 7  # the same held-out packs in every run
Passages = Mapping[str, Sequence[QuestionedPassage]]  # by file


def make_task(recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]) -> Task:
    """The task of a recipe's part.

    Args:
        recipe: The run.
        model: The base model.
        tokenizer: Its tokenizer.
        files: By file, the passages to learn from, and those that are held out.

    Raises:
        InvalidSetting: The objectives leave nothing to learn from for this model.
        ModelError: The bundle that the run starts from is damaged.
        ModelMismatch: It is for another base model.
        ModelNotFound: It is not on this machine.
        ModelUnsupported: The model cannot read such memories.
    """
    make = {
        "matcher": _matcher_task,
        "embedding": _embedding_task,
        "soft": _soft_task,
        "cmt": _cmt_task,
    }.get(recipe.part, _reader_task)
    return make(recipe, model, tokenizer, files)


def _weights(files: Passages, given: Mapping[str, float] | None = None) -> dict[str, float]:
    """How often each file is drawn: as given, by MIXTURE, else in proportion to its passages.

    Raises:
        InvalidSetting: A weight is given for a file that is not there.
    """
    given = given or {}
    if unknown := sorted(set(given) - set(files)):
        raise InvalidSetting(f"weight {unknown[0]}: choose among the files {', '.join(files)}")
    if set(files) & set(MIXTURE):
        return {name: MIXTURE.get(name, 1.0) for name in files} | dict(given)
    return {name: float(len(passages)) for name, passages in files.items()} | dict(given)


def _seed(recipe: Recipe) -> int:
    """A different seed for each process of a run, so that each draws its own examples."""
    return recipe.seed + 1000 * Workers().rank


def _mixture(recipe: Recipe, learned: Passages) -> Mixture:
    """The stream of passages to learn from, in this process."""
    return Mixture(learned, _weights(learned, recipe.weights), _seed(recipe))


def _reader_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
    """Training for kv memories: the reader alone, or the encoder too (part "compressor")."""
    both = recipe.part == "compressor"
    start = _start(recipe)
    made = trainable(
        model, tokenizer, rank=recipe.rank, start=start, checkpointing=recipe.checkpointing
    )
    kv = find_method("kv")
    gathers = bool(start.get("encoder")) or both
    packs = _held_out(recipe, made.lm, files[1])
    bases = Bases(made.lm.model) if 0 < recipe.nf4 < 1 else None
    mixture = _mixture(recipe, files[0])
    names = ("reader", "encoder") if both else ("reader",)
    learned = [p for name in names for p in made.parameters[name]]
    return ReaderTask(
        lm=made.lm,
        rotary=check_kv(made.lm),
        mixture=mixture,
        held_out=packs,
        learned=learned,
        write=made.save,
        bases=bases,
        nf4=recipe.nf4,
        shares=SHARES if gathers else SHARES_WITHOUT_ENCODER,
        served=1 / (kv.compression if gathers else kv.untrained_compression),
        encoder=both,
        ablate=recipe.ablate,
        objectives=recipe.objectives,
        batch=recipe.batch,
        at_least=Settings().keep_at_least,
    )


def _held_out(recipe: Recipe, lm: FrozenModel, judged: Passages) -> list[list[Pack]]:
    """The packs to validate on, of the files that judge a run where it has them."""
    judges = {n: judged[n] for n in JUDGES if judged.get(n)} or judged
    validation = Mixture(judges, _weights(judges), VALIDATION_SEED)
    return [draw(lm, validation) for _ in range(recipe.held_out)]


def _soft_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
    """Training for soft memories.

    The teacher is the bundle shipped for the model, where there is one; else only the answers
    teach.
    """
    shipped = find_bundle("default", model_info(recipe.model).sha256)
    begun = _bundle(recipe)
    uses_teacher = recipe.objectives.teacher or recipe.objectives.states
    reading = dict(shipped.adapters) if uses_teacher else {}
    reading.pop("matcher", None)
    teachers = {f"teacher_{name}": folder for name, folder in reading.items()}
    if not teachers and not recipe.objectives.answer:
        raise InvalidSetting(
            f"answer=0: no adapters are shipped for {recipe.model}, so there is no teacher: give"
            " answer a weight"
        )
    start = {"reader": begun.reader, "encoder": begun.encoder}
    is_continued = begun.compressor == "soft" and begun.aggregate is None
    ablate = {*recipe.ablate, *({"warm-start"} if is_continued else ())}
    made = trainable(
        model,
        tokenizer,
        rank=recipe.rank,
        start=start,
        frozen=teachers,
        checkpointing=recipe.checkpointing,
    )
    is_fast = (made.lm.device.type, made.lm.dtype) == ("cuda", torch.bfloat16)
    packs_per_pass = PACKS_PER_PASS if is_fast and not recipe.checkpointing else 1
    return SoftTask(
        lm=made.lm,
        rotary=check_kv(made.lm) if teachers else None,
        mixture=_mixture(recipe, files[0]),
        held_out=_held_out(recipe, made.lm, files[1]),
        adapters=[p for parameters in made.parameters.values() for p in parameters],
        write=made.save,
        objectives=recipe.objectives,
        examples=recipe.plan.steps * recipe.plan.accumulate,
        teachers=("teacher_encoder", "teacher_reader") if teachers else None,
        ablate=ablate,
        batch=recipe.batch,
        at_once=recipe.batch * packs_per_pass,
    )


def _cmt_task(recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]) -> Task:
    """Training for CMT as published. An encoder is continued with the psi and pi that it was
    trained with, never without.
    """
    begun = _bundle(recipe)
    made = trainable(
        model,
        tokenizer,
        rank=recipe.rank,
        start={"encoder": begun.encoder if begun.aggregate else None},
    )
    if begun.aggregate:
        first = Aggregator.of(load_tensors(begun.aggregate))
    else:
        width = model.get_input_embeddings().weight.shape[1]
        first = Aggregator.first(width, made.lm.kv_shape)
    return CMTTask(
        lm=made.lm,
        mixture=_mixture(recipe, files[0]),
        held_out=_held_out(recipe, made.lm, files[1]),
        encoder=made.parameters["encoder"],
        aggregator=first.to(made.lm.device),
        write=made.save,
        write_tensors=_write_tensors,
        objectives=recipe.objectives,
        ratio=recipe.ratio,
        ablate=recipe.ablate,
    )


def _start(recipe: Recipe) -> dict[str, Path | None]:
    """The adapters that the run needs, by name, each with the peft folder that it starts from."""
    bundle = _bundle(recipe)
    start = {"reader": bundle.reader}
    if recipe.part == "compressor" or bundle.encoder:
        start["encoder"] = bundle.encoder
    return start


def _bundle(recipe: Recipe) -> Bundle:
    """The bundle that the run starts from."""
    if recipe.start in ("default", "none"):
        kind = "soft" if recipe.part == "soft" else "kv"
        return find_bundle(recipe.start, model_info(recipe.model).sha256, kind)
    return read_bundle(Path(recipe.start))


def _matcher_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
    """Training for the match head, on the kept states of up to `passages` passages."""
    lm = FrozenModel(model, tokenizer, lambda _: nullcontext())
    rng = random.Random(_seed(recipe))  # noqa: S311 - a reproducible draw, no secret
    weights = _weights(files[0], recipe.weights)
    names = [n for n in files[0] if n not in NOT_TO_FIND]
    share = recipe.passages / sum(weights[n] for n in names)
    pool = []
    for name in names:
        count = min(len(files[0][name]), round(share * weights[name]))
        pool += rng.sample(list(files[0][name]), count)
    held = [p for n in names for p in files[1][n]][: 10 * recipe.held_out]
    negatives = "negatives" not in recipe.ablate
    held_data, data = (
        MatchData.of(lm, passages, _layers(model), negatives=negatives) for passages in (held, pool)
    )
    start = first_head(lm, data, _layers(model), DIMENSION).to(lm.device)
    return MatcherTask(start, data, held_data, _write_tensors, rng)


def _embedding_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
    """Training for embeddings. Without a trained head, the first is computed from some passages."""
    begun = _bundle(recipe)
    asked = {n: [p for p in passages if p.questions] for n, passages in files[0].items()}
    learned = {n: passages for n, passages in asked.items() if n not in NOT_TO_FIND} or asked
    names = [n for n in JUDGES if files[1].get(n)] or [n for n in files[1] if n in learned]
    head = MatchHead.of(load_tensors(begun.match)) if begun.match else None
    depth = max(_layers(model) if head is None else head.layers.tolist())
    made = trainable(
        model, tokenizer, rank=recipe.rank, start={"matcher": begun.matcher}, depth=depth
    )
    lm = made.lm
    size = recipe.candidates or (CANDIDATES_GPU if lm.device.type == "cuda" else CANDIDATES_CPU)
    held = [p for n in names for p in files[1][n]][: 10 * recipe.held_out]
    return EmbeddingTask(
        lm=lm,
        head=(head or _first_head(recipe, lm, learned)).to(lm.device),
        adapter=made.parameters["matcher"],
        mixture=_mixture(recipe, learned),
        files=learned,
        held_out=held,
        write=made.save,
        write_tensors=_write_tensors,
        size=size,
        tokens=tokens_at_once(model, depth),
        ablate=recipe.ablate,
    )


def _first_head(recipe: Recipe, lm: FrozenModel, learned: Passages) -> MatchHead:
    """The first head, the same in every process of a run."""
    rng = random.Random(recipe.seed)  # noqa: S311 - a reproducible draw, no secret
    pool = [p for passages in learned.values() for p in passages]
    layers = _layers(lm.model)
    some = rng.sample(pool, min(len(pool), recipe.passages, FIRST))
    return first_head(lm, MatchData.of(lm, some, layers, 1, negatives=False), layers, DIMENSION)


def _layers(model: Any) -> list[int]:
    """The states that the head pools: the embeddings, a quarter and a half of the way up."""
    depth = model.config.get_text_config().num_hidden_layers
    return [0, round(depth * 0.27), depth // 2]


def _write_tensors(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Write tensors to a safetensors file, and its folder where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), file)
