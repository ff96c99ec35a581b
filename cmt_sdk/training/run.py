"""A training run, from question files to a bundle of adapters that a memory opens with.

Knows files and the rest of the package; prints nothing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cmt_sdk.errors import InvalidInput, InvalidSetting, StorageDenied, StorageFull
from cmt_sdk.neural.aggregation import Aggregator
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import BATCH_TOKENS
from cmt_sdk.neural.matching import MatchHead
from cmt_sdk.neural.proof import kv_rotary
from cmt_sdk.questions import QuestionedPassage
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.card import write_card
from cmt_sdk.training.cmt import CMTTask
from cmt_sdk.training.data import JUDGES, MIXTURE, Mixture, hold_out, read_questions
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.embedding import EmbeddingTask
from cmt_sdk.training.loop import Progress, Task, time_one_step, train
from cmt_sdk.training.matcher import MatchData, MatcherTask, first_head
from cmt_sdk.training.nf4_base import NF4Base
from cmt_sdk.training.packs import Pack, draw
from cmt_sdk.training.reader import ReaderTask
from cmt_sdk.training.recipe import DatasetSizes, Recipe, ResourceEstimate
from cmt_sdk.training.soft import SoftTask
from cmt_sdk.training.texts import read_texts
from cmt_sdk.weights.bundle import MANIFEST, Bundle, find_bundle, read_bundle
from cmt_sdk.weights.loading import load_base, load_tensors
from cmt_sdk.weights.registry import model_info

DIMENSION = 256
# files whose questions fit many of their passages: they train readers, and mislead embeddings
NOT_TO_FIND = {"policyqa", "sgd_memory_qa"}
GPU_CANDIDATES = 160  # passages of an embedding batch on a GPU
CPU_CANDIDATES = 20  # and on a CPU
MIN_PASSAGES = {"matcher": 8, "embedding": 8}  # other parts: 2, to learn from and to validate on
# packs of an example that a GPU reads in one pass in bf16: all of them, fewer leave it idle
GPU_PACKS = 5
MAX_HELD_TOKENS = 16384  # whose activations are held for the gradients of embeddings
FIRST_HEAD_PASSAGES = 1000  # from which the first head is computed
HELD_TOKENS = 1400  # of passages and one pack, whose activations are held for the gradients
# bytes of activations for a token, a layer and a hidden value: measured with the default model on a
# CPU; for four examples of `soft`, four packs of each at once, an H200 held the 20 GB that follow
ACTIVATION_BYTES = 200
# the same where layers recompute, next to one layer that holds all
CHECKPOINT_BYTES = 16
Passages = Mapping[str, Sequence[QuestionedPassage]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin.

    recipe: its settings. task: the model part with its data. estimate: the resources that it takes.
    sizes: the numbers of passages and questions.
    """

    recipe: Recipe
    task: Task
    estimate: ResourceEstimate
    sizes: DatasetSizes

    @property
    def _counts(self) -> dict[str, Any]:
        """Passages and questions by file: other data under the same name makes another run."""
        m = self.sizes
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
        """True for the process of the run that reports progress."""
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
            choices=r.choices | self._counts,
        )
        if self.is_main:
            _write_bundle(r)
            write_card(r, self.estimate, self.sizes, progress)
        return progress


def prepare(recipe: Recipe) -> Prepared:
    """Read the data, load the model, check memory and disk, and time one step.

    Args:
        recipe: The settings of the run.

    Returns:
        The run, ready to begin.

    Raises:
        InvalidInput: There are too few passages, or a file is no question file.
        InvalidSetting: The model's device has too little memory, or a setting does not fit.
        ModelNotFound: The model is not on this machine.
        StorageDenied: The folder cannot be written.
        StorageFull: The disk has too little room.
    """
    torch.manual_seed(recipe.seed)
    loaded = load_base(recipe.model, precision="full", device=Workers().device(recipe.device))
    model = loaded.model
    tokenizer = loaded.tokenizer
    device = loaded.model.device
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the default for tensors that name no device
    files = _read(recipe, tokenizer)
    make = {
        "matcher": _matcher_task,
        "embedding": _embedding_task,
        "soft": _soft_task,
        "cmt": _cmt_task,
    }.get(recipe.part, _reader_task)
    _check(_estimate(recipe, model, 0), device, recipe.out)
    task = make(recipe, model, tokenizer, files)
    estimate = _estimate(recipe, model, sum(p.numel() for p in task.parameters()))
    _check(estimate, device, recipe.out)
    sizes = DatasetSizes(
        *(
            {n: (len(ps), sum(len(p.questions) for p in ps)) for n, ps in half.items()}
            for half in files
        )
    )
    return Prepared(
        recipe, task, replace(estimate, seconds=time_one_step(task, recipe.plan)), sizes
    )


def _read(recipe: Recipe, tokenizer: Any) -> tuple[Passages, Passages]:
    """All passages to learn from by file, and those held out."""

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    files = read_questions(recipe.questions) | {
        path.name.split(".")[0]: read_texts(path, count) for path in recipe.texts
    }
    total = len({p.context for whole in files.values() for p in whole})
    fewest = MIN_PASSAGES.get(recipe.part, 2)
    if total < fewest:
        raise InvalidInput(
            f"passages to learn from: {total}; some are held out for validation, so give at least"
            f" {fewest}"
        )
    return hold_out(files)


def _estimate(recipe: Recipe, model: Any, learned: int) -> ResourceEstimate:
    """Estimate a run: the base twice (own and NF4 weights), learned tensors, and activations.

    The learned tensors count with their gradients and moments.
    """
    base = sum(p.numel() * p.element_size() for p in model.parameters())
    config = model.config.get_text_config()
    layers = config.num_hidden_layers
    if recipe.checkpointing:
        held = ACTIVATION_BYTES + CHECKPOINT_BYTES * layers
    else:
        held = ACTIVATION_BYTES * layers
    activations = held * HELD_TOKENS * config.hidden_size * recipe.batch
    if recipe.part == "embedding":
        activations = _activations(model, layers // 2) * _at_once(model, layers // 2)
    return ResourceEstimate(
        memory=2 * base + 16 * learned + activations,
        disk=2 * 12 * learned + 4 * learned,
        parameters=learned,
    )


def _check(estimate: ResourceEstimate, device: torch.device, out: Path) -> None:
    """Raise, before the run creates anything, where the machine has less than it takes."""
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not os.access(place, os.W_OK):
        raise StorageDenied(f"{out}: nothing can be written in {place}: choose another folder")
    if (free := shutil.disk_usage(place).free) < estimate.disk:
        raise StorageFull(
            f"{out}: training needs {_size(estimate.disk)} on the disk, {_size(free)} are free:"
            " choose another folder"
        )
    if (free := _free_memory(device)) < estimate.memory:
        raise InvalidSetting(
            f"training needs about {_size(estimate.memory)} of memory on {device}, {_size(free)}"
            " are free: end other programs, choose a smaller --batch, --model or another --device,"
            " or --checkpointing (in Python checkpointing=True)"
        )


def _size(count: int) -> str:
    """Bytes in the unit in which people know their machine."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _free_memory(device: torch.device) -> int:
    """Bytes that are free on the device for this process; sys.maxsize where the OS reports none."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(free, total // Workers().on_one_gpu))
    try:
        fields = Path("/proc/meminfo").read_text(encoding="ascii").split()
        return 1024 * int(fields[fields.index("MemAvailable:") + 1])
    except (OSError, ValueError):
        return sys.maxsize


def _weights(files: Passages) -> dict[str, float]:
    """The weight of each file in the draw: as in MIXTURE, else in proportion to its passages."""
    return (
        {n: MIXTURE.get(n, 1.0) for n in files}
        if set(files) & set(MIXTURE)
        else {n: float(len(p)) for n, p in files.items()}
    )


def _seed(recipe: Recipe) -> int:
    """The seed of this process: each process of a run draws its own examples."""
    return recipe.seed + 1000 * Workers().rank


def _mixture(recipe: Recipe, learned: Passages) -> Mixture:
    return Mixture(learned, _weights(learned), _seed(recipe))


def _reader_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
    both = recipe.part == "compressor"
    made = trainable(
        model, tokenizer, rank=recipe.rank, start=_start(recipe), checkpointing=recipe.checkpointing
    )
    packs = _held_out(recipe, made.lm, files[1])
    nf4_base = NF4Base(made.lm.model) if recipe.nf4 else None
    mixture = _mixture(recipe, files[0])
    learned = [
        p
        for name in (("reader", "encoder") if both else ("reader",))
        for p in made.parameters[name]
    ]
    rotary = kv_rotary(made.lm)
    return ReaderTask(
        made.lm,
        rotary,
        mixture,
        packs,
        learned,
        made.save,
        nf4_base=nf4_base,
        nf4=recipe.nf4,
        encoder=both,
        ablate=recipe.ablate,
        objectives=recipe.objectives,
        batch=recipe.batch,
    )


def _held_out(recipe: Recipe, lm: FrozenModel, judged: Passages) -> list[list[Pack]]:
    judges = {n: judged[n] for n in JUDGES if judged.get(n)} or judged
    validation = Mixture(judges, _weights(judges), 7)
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
    taught = recipe.objectives.teacher or recipe.objectives.states
    reading = {
        name: folder for name, folder in shipped.adapters.items() if name != "matcher" and taught
    }
    teachers = {f"teacher_{name}": folder for name, folder in reading.items()}
    if not teachers and not recipe.objectives.answer:
        raise InvalidSetting(
            f"answer=0: no adapters are shipped for {recipe.model}, so there is no teacher: give"
            " answer a weight"
        )
    start = {"reader": begun.reader, "encoder": begun.encoder}
    goes_on = begun.compressor == "soft" and begun.aggregate is None
    ablate = {*recipe.ablate, *({"warm-start"} if goes_on else ())}
    made = trainable(
        model,
        tokenizer,
        rank=recipe.rank,
        start=start,
        frozen_adapters=teachers,
        checkpointing=recipe.checkpointing,
    )
    at_once = GPU_PACKS if (made.lm.device.type, made.lm.dtype) == ("cuda", torch.bfloat16) else 1
    return SoftTask(
        made.lm,
        kv_rotary(made.lm) if teachers else None,
        _mixture(recipe, files[0]),
        _held_out(recipe, made.lm, files[1]),
        [p for parameters in made.parameters.values() for p in parameters],
        made.save,
        recipe.objectives,
        recipe.plan.steps * recipe.plan.accumulate,
        ("teacher_encoder", "teacher_reader") if teachers else None,
        ablate,
        recipe.batch,
        recipe.batch * at_once,
    )


def _cmt_task(recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]) -> Task:
    begun = _bundle(recipe)
    made = trainable(
        model,
        tokenizer,
        rank=recipe.rank,
        start={"encoder": begun.encoder if begun.aggregate else None},
    )
    width = model.get_input_embeddings().weight.shape[1]
    first = (
        Aggregator.of(load_tensors(begun.aggregate))
        if begun.aggregate
        else Aggregator.first(width, made.lm.kv_shape)
    )
    return CMTTask(
        made.lm,
        _mixture(recipe, files[0]),
        _held_out(recipe, made.lm, files[1]),
        made.parameters["encoder"],
        first.to(made.lm.device),
        made.save,
        _write_tensors,
        recipe.objectives,
        recipe.ratio,
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
        return find_bundle(
            recipe.start, model_info(recipe.model).sha256, "soft" if recipe.part == "soft" else "kv"
        )
    return read_bundle(Path(recipe.start))


def _matcher_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
    """Training for the match head, on the kept states of up to `passages` passages."""
    lm = FrozenModel(model, tokenizer, lambda _: nullcontext())
    rng = random.Random(_seed(recipe))  # noqa: S311 - a reproducible draw, no secret
    weights = _weights(files[0])
    names = [n for n in files[0] if n not in NOT_TO_FIND]
    share = recipe.passages / sum(weights[n] for n in names)
    pool = [
        p
        for n in names
        for p in rng.sample(list(files[0][n]), min(len(files[0][n]), round(share * weights[n])))
    ]
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
    """Training for embeddings.

    Without a trained head, the first one is computed from some passages.
    """
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
    mixture = _mixture(recipe, learned)
    size = recipe.candidates or (GPU_CANDIDATES if lm.device.type == "cuda" else CPU_CANDIDATES)
    return EmbeddingTask(
        lm,
        (head or _first_head(recipe, lm, learned)).to(lm.device),
        made.parameters["matcher"],
        mixture,
        learned,
        [p for n in names for p in files[1][n]][: 10 * recipe.held_out],
        made.save,
        _write_tensors,
        size,
        _at_once(model, depth),
        recipe.ablate,
    )


def _first_head(recipe: Recipe, lm: FrozenModel, learned: Passages) -> MatchHead:
    """The first head, the same in every process of a run."""
    rng = random.Random(recipe.seed)  # noqa: S311 - a reproducible draw, no secret
    pool = [p for passages in learned.values() for p in passages]
    layers = _layers(lm.model)
    some = rng.sample(pool, min(len(pool), recipe.passages, FIRST_HEAD_PASSAGES))
    return first_head(lm, MatchData.of(lm, some, layers, 1, negatives=False), layers, DIMENSION)


def _activations(model: Any, layers: int) -> int:
    """Bytes of the activations of one token that backward needs."""
    size: int = ACTIVATION_BYTES * layers * model.config.get_text_config().hidden_size
    return size


def _at_once(model: Any, layers: int) -> int:
    """Tokens whose activations fit into half of a GPU's free memory.

    More of them are no faster on a CPU.
    """
    if model.device.type != "cuda":
        return BATCH_TOKENS
    return max(
        BATCH_TOKENS // 4,
        min(MAX_HELD_TOKENS, _free_memory(model.device) // 2 // _activations(model, layers)),
    )


def _layers(model: Any) -> list[int]:
    """The states that the head pools: the embeddings, a quarter and a half of the way up."""
    depth = model.config.get_text_config().num_hidden_layers
    return [0, round(depth * 0.27), depth // 2]


def _write_tensors(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), file)


def _write_bundle(recipe: Recipe) -> None:
    """Write the trained parts, with the other parts of the bundle that the run started from.

    Where it started from none, these are those of the bundle shipped for the model.
    """
    base = model_info(recipe.model).sha256
    finds = recipe.part in ("matcher", "embedding")
    before = (
        find_bundle("default", base)
        if recipe.start in ("default", "none")
        else read_bundle(Path(recipe.start))
    )
    kept = (
        (before.reader, before.encoder, before.aggregate)
        if finds
        else (before.match, before.matcher)
    )
    for part in (*filter(None, kept), *(recipe.out / "adapter").iterdir()):
        if part.is_dir():
            shutil.copytree(part, recipe.out / part.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(part, recipe.out / part.name)
    kind = before.compressor if finds else "soft" if recipe.part in ("soft", "cmt") else "kv"
    weight = 1.0 if finds and before.match is None else before.vector_weight
    (recipe.out / MANIFEST).write_text(
        json.dumps({"base": base, "compressor": kind, "vector_weight": weight}, indent=2) + "\n",
        encoding="utf-8",
    )
