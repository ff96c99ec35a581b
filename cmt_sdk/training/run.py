"""A training run from files to a bundle of adapters that a memory can be opened with.

Knows files and the pieces beside it; prints nothing.
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
from cmt_sdk.neural.batching import BATCH_TOKENS
from cmt_sdk.neural.embedding import MatchHead
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.aggregation import Aggregator
from cmt_sdk.neural.methods.kv import check_kv
from cmt_sdk.questions import QuestionedPassage
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.card import write_card
from cmt_sdk.training.cmt import CMTTask
from cmt_sdk.training.data import JUDGES, MIXTURE, Mixture, hold_out, read_questions
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.embedding import EmbeddingTask
from cmt_sdk.training.loop import Progress, Task, time_one_step, train
from cmt_sdk.training.matcher import MatchData, MatcherTask, first_head
from cmt_sdk.training.nf4_base import Bases
from cmt_sdk.training.packs import Pack, draw
from cmt_sdk.training.reader import ReaderTask
from cmt_sdk.training.recipe import DatasetSizes, Recipe, ResourceEstimate
from cmt_sdk.training.soft import SoftTask
from cmt_sdk.training.texts import read_texts
from cmt_sdk.weights.bundle import MANIFEST, Bundle, find_bundle, read_bundle
from cmt_sdk.weights.loading import load_base, load_tensors
from cmt_sdk.weights.registry import model_info

DIMENSION = 256
# their questions fit many of their passages: good to read, misleading to find by
NOT_TO_FIND = {"policyqa", "sgd_memory_qa"}
SIZE, SMALL = 160, 20  # passages that keys are told apart from at once, on a GPU and elsewhere
# passages to tell apart; else 2, one to learn from and one to judge by
FEWEST = {"matcher": 8, "embedding": 8}
# packs of an example that a GPU reads in one pass in bf16, all that it has: a few at a time leave
# it waiting
ABREAST = 5
AT_ONCE = 16384  # tokens whose activations are held at most for the gradients of keys
FIRST = 1000  # passages from which a first head is made
HELD_TOKENS = 1400  # of passages and one pack, whose activations are held for the gradients
# bytes of these for a token, a layer and a hidden value: measured with the default model on a CPU;
# for four
ACTIVATIONS = 200
# examples of `soft`, four packs of each abreast, an H200 held the 20 GB that this says
KEPT = 16  # the same where layers compute again, beside one layer that holds all
Passages = Mapping[str, Sequence[QuestionedPassage]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin."""

    recipe: Recipe
    task: Task
    needs: ResourceEstimate
    material: DatasetSizes

    @property
    def _counts(self) -> dict[str, Any]:
        """Passages and questions by file: other ones under the same name make another run."""
        m = self.material
        return {
            name: {n: list(c) for n, c in half.items()}
            for name, half in (("learned", m.learned), ("judged", m.judged))
        }

    @property
    def alone(self) -> bool:
        """Whether this is the run's only process."""
        return Workers().size == 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one of the run's processes that tells how it goes."""
        return Workers().is_main

    def run(self, on_step: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Progress:
        """Train, or go on with what `out` holds; a bundle is left there that
        `cmt_sdk.open(adapter=out)` takes.
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
            write_card(r, self.needs, self.material, progress)
        return progress


def prepare(recipe: Recipe) -> Prepared:
    """Read the data, load the model, look whether the machine has what it takes, and rehearse a
    step.

    Raises InvalidInput, InvalidSetting, ModelNotFound, StorageFull.
    """
    torch.manual_seed(recipe.seed)
    loaded = load_base(recipe.model, precision="full", device=Workers().device(recipe.device))
    model, tokenizer, device = loaded.model, loaded.tokenizer, loaded.model.device
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what names no other one is made there
    files = _read(recipe, tokenizer)
    make = {
        "matcher": _matcher_task,
        "embedding": _embedding_task,
        "soft": _soft_task,
        "cmt": _paper_task,
    }.get(recipe.part, _reader_task)
    _check(_needs(recipe, model, 0), device, recipe.out)
    task = make(recipe, model, tokenizer, files)
    needs = _needs(recipe, model, sum(p.numel() for p in task.parameters()))
    _check(needs, device, recipe.out)
    material = DatasetSizes(
        *(
            {n: (len(ps), sum(len(p.questions) for p in ps)) for n, ps in half.items()}
            for half in files
        )
    )
    return Prepared(
        recipe, task, replace(needs, seconds=time_one_step(task, recipe.plan)), material
    )


def _read(recipe: Recipe, tokenizer: Any) -> tuple[Passages, Passages]:
    """All passages by file, and of each file those that are held out."""

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    files = read_questions(recipe.questions) | {
        path.name.split(".")[0]: read_texts(path, count) for path in recipe.texts
    }
    total = len({p.context for whole in files.values() for p in whole})
    fewest = FEWEST.get(recipe.part, 2)
    if total < fewest:
        raise InvalidInput(
            f"passages to learn from: {total}; one must be kept to judge the rest by, so give at"
            f" least {fewest}"
        )
    return hold_out(files)


def _needs(recipe: Recipe, model: Any, learned: int) -> ResourceEstimate:
    """The base twice (as it is and as NF4 makes it), the learned numbers with gradients and
    moments, and activations.
    """
    base, config = (
        sum(p.numel() * p.element_size() for p in model.parameters()),
        model.config.get_text_config(),
    )
    layers = config.num_hidden_layers
    held = ACTIVATIONS + KEPT * layers if recipe.checkpointing else ACTIVATIONS * layers
    activations = held * HELD_TOKENS * config.hidden_size * recipe.batch
    if recipe.part == "embedding":
        activations = _activations(model, layers // 2) * _at_once(model, layers // 2)
    return ResourceEstimate(
        memory=2 * base + 16 * learned + activations,
        disk=2 * 12 * learned + 4 * learned,
        parameters=learned,
    )


def _check(needs: ResourceEstimate, device: torch.device, out: Path) -> None:
    """Raise, before anything is begun and made, where the machine has less than a run needs."""
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not os.access(place, os.W_OK):
        raise StorageDenied(f"{out}: nothing can be written in {place}: choose another folder")
    if (free := shutil.disk_usage(place).free) < needs.disk:
        raise StorageFull(
            f"{out}: training needs {_size(needs.disk)} on the disk, {_size(free)} are free: choose"
            " another folder"
        )
    if (free := _free_memory(device)) < needs.memory:
        raise InvalidSetting(
            f"training needs about {_size(needs.memory)} of memory on {device}, {_size(free)} are"
            " free: end other programs, choose a smaller --batch, --model or another --device, or"
            " --checkpointing (in Python checkpointing=True)"
        )


def _size(count: int) -> str:
    """Bytes as people compare them with their machine."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _free_memory(device: torch.device) -> int:
    """Bytes that are free on the device for this process; no end of them where a system does not
    tell.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(free, total // Workers().on_one_gpu))
    try:
        told = Path("/proc/meminfo").read_text(encoding="ascii").split()
        return 1024 * int(told[told.index("MemAvailable:") + 1])
    except (OSError, ValueError):
        return sys.maxsize


def _weights(files: Passages) -> dict[str, float]:
    """How often each file is drawn: as MIXTURE says, else in proportion to its passages."""
    return (
        {n: MIXTURE.get(n, 1.0) for n in files}
        if set(files) & set(MIXTURE)
        else {n: float(len(p)) for n, p in files.items()}
    )


def _seed(recipe: Recipe) -> int:
    """Another one for each process of a run, so that each draws its own examples."""
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
    bases = Bases(made.lm.model) if recipe.nf4 else None
    mixture = _mixture(recipe, files[0])
    learned = [
        p
        for name in (("reader", "encoder") if both else ("reader",))
        for p in made.parameters[name]
    ]
    rotary = check_kv(made.lm)
    return ReaderTask(
        made.lm,
        rotary,
        mixture,
        packs,
        learned,
        made.save,
        bases=bases,
        nf4=recipe.nf4,
        encoder=both,
        without=recipe.without,
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
    """The teacher, of answers and of states, is the bundle shipped for the model, where there is
    one; else the answers alone teach.
    """
    shipped, begun = find_bundle("default", model_info(recipe.model).sha256), _bundle(recipe)
    taught = recipe.objectives.teacher or recipe.objectives.states
    reading = {
        name: folder for name, folder in shipped.adapters.items() if name != "matcher" and taught
    }
    teachers = {f"teacher_{name}": folder for name, folder in reading.items()}
    if not teachers and not recipe.objectives.answer:
        raise InvalidSetting(
            f"answer=0: no adapters are shipped for {recipe.model}, so nobody teaches: give answer"
            " a weight"
        )
    start = {"reader": begun.reader, "encoder": begun.encoder}
    goes_on = begun.compressor == "soft" and begun.aggregate is None
    without = {*recipe.without, *({"warm-start"} if goes_on else ())}
    made = trainable(
        model,
        tokenizer,
        rank=recipe.rank,
        start=start,
        beside=teachers,
        checkpointing=recipe.checkpointing,
    )
    abreast = ABREAST if (made.lm.device.type, made.lm.dtype) == ("cuda", torch.bfloat16) else 1
    return SoftTask(
        made.lm,
        check_kv(made.lm) if teachers else None,
        _mixture(recipe, files[0]),
        _held_out(recipe, made.lm, files[1]),
        [p for parameters in made.parameters.values() for p in parameters],
        made.save,
        recipe.objectives,
        recipe.plan.steps * recipe.plan.accumulate,
        ("teacher_encoder", "teacher_reader") if teachers else None,
        without,
        recipe.batch,
        recipe.batch * abreast,
    )


def _paper_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
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
        without=recipe.without,
    )


def _start(recipe: Recipe) -> dict[str, Path | None]:
    """The adapters that the run needs, by name, each with the peft folder that it starts from."""
    bundle = _bundle(recipe)
    start = {"reader": bundle.reader}
    if recipe.part == "compressor" or bundle.encoder:
        start["encoder"] = bundle.encoder
    return start


def _bundle(recipe: Recipe) -> Bundle:
    """What the run starts from."""
    if recipe.start in ("default", "none"):
        return find_bundle(
            recipe.start, model_info(recipe.model).sha256, "soft" if recipe.part == "soft" else "kv"
        )
    return read_bundle(Path(recipe.start))


def _matcher_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
    """The states of up to `passages` passages are computed first, and kept."""
    lm = FrozenModel(model, tokenizer, lambda _: nullcontext())
    rng, weights = random.Random(_seed(recipe)), _weights(files[0])  # noqa: S311 - a reproducible draw, no secret
    names = [n for n in files[0] if n not in NOT_TO_FIND]
    share = recipe.passages / sum(weights[n] for n in names)
    pool = [
        p
        for n in names
        for p in rng.sample(list(files[0][n]), min(len(files[0][n]), round(share * weights[n])))
    ]
    held = [p for n in names for p in files[1][n]][: 10 * recipe.held_out]
    negatives = "negatives" not in recipe.without
    held_data, data = (
        MatchData.of(lm, passages, _layers(model), negatives=negatives) for passages in (held, pool)
    )
    start = first_head(lm, data, _layers(model), DIMENSION).to(lm.device)
    return MatcherTask(start, data, held_data, _write_tensors, rng)


def _embedding_task(
    recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]
) -> Task:
    """Where no head was trained before, it starts from some passages."""
    begun, asked = (
        _bundle(recipe),
        {n: [p for p in passages if p.questions] for n, passages in files[0].items()},
    )
    learned = {n: passages for n, passages in asked.items() if n not in NOT_TO_FIND} or asked
    names = [n for n in JUDGES if files[1].get(n)] or [n for n in files[1] if n in learned]
    head = MatchHead.of(load_tensors(begun.match)) if begun.match else None
    depth = max(_layers(model) if head is None else head.layers.tolist())
    made = trainable(
        model, tokenizer, rank=recipe.rank, start={"matcher": begun.matcher}, depth=depth
    )
    lm, mixture = made.lm, _mixture(recipe, learned)
    size = recipe.candidates or (SIZE if lm.device.type == "cuda" else SMALL)
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
        recipe.without,
    )


def _first_head(recipe: Recipe, lm: FrozenModel, learned: Passages) -> MatchHead:
    """The same in every process of a run."""
    rng = random.Random(recipe.seed)  # noqa: S311 - a reproducible draw, no secret
    pool = [p for passages in learned.values() for p in passages]
    layers = _layers(lm.model)
    some = rng.sample(pool, min(len(pool), recipe.passages, FIRST))
    return first_head(lm, MatchData.of(lm, some, layers, 1, negatives=False), layers, DIMENSION)


def _activations(model: Any, layers: int) -> int:
    """Bytes that are held for the gradients of a token."""
    size: int = ACTIVATIONS * layers * model.config.get_text_config().hidden_size
    return size


def _at_once(model: Any, layers: int) -> int:
    """Tokens whose activations fit into half of a GPU's free memory; on a CPU more of them are no
    faster.
    """
    if model.device.type != "cuda":
        return BATCH_TOKENS
    return max(
        BATCH_TOKENS // 4,
        min(AT_ONCE, _free_memory(model.device) // 2 // _activations(model, layers)),
    )


def _layers(model: Any) -> list[int]:
    """The states that the head pools: the embeddings, a quarter and a half of the way up."""
    depth = model.config.get_text_config().num_hidden_layers
    return [0, round(depth * 0.27), depth // 2]


def _write_tensors(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), file)


def _write_bundle(recipe: Recipe) -> None:
    """What was trained, and the other parts of the bundle that the run started from, else of the
    one shipped for the model.
    """
    base, finds = model_info(recipe.model).sha256, recipe.part in ("matcher", "embedding")
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
