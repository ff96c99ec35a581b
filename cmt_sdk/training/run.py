"""A training run from files to a bundle of adapters that a memory can be opened with.

Knows files and the pieces beside it; prints nothing.
"""

from __future__ import annotations

import json
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

from cmt_sdk.errors import InvalidInput, InvalidSetting, StorageFull
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.questions import QuestionedPassage
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.bases import Bases
from cmt_sdk.training.card import write_card
from cmt_sdk.training.data import MIXTURE, Mixture, hold_out, read_questions
from cmt_sdk.training.loop import Progress, Task, rehearse, train
from cmt_sdk.training.matcher import MatchData, MatcherTask, first_head
from cmt_sdk.training.packs import draw
from cmt_sdk.training.reader import ReaderTask
from cmt_sdk.training.recipe import Material, Needs, Recipe
from cmt_sdk.training.texts import read_texts
from cmt_sdk.weights.bundle import MANIFEST, find_bundle, read_bundle
from cmt_sdk.weights.loading import load_base
from cmt_sdk.weights.registry import show_model

DIMENSION = 256
NOT_TO_FIND = {"policyqa"}  # its questions repeat over documents: good to read, misleading to find by
ACTIVATIONS = 2 * 2**30  # bytes, beside the weights: measured with the default model
Passages = Mapping[str, Sequence[QuestionedPassage]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin."""

    recipe: Recipe
    task: Task
    needs: Needs
    material: Material

    def run(self, on_step: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Progress:
        """Train, or go on with what `out` holds; a bundle is left there that `cmt_sdk.open(adapter=out)` takes."""
        r = self.recipe
        progress = train(self.task, r.plan, r.out, on_step, r.minutes)
        _write_bundle(r)
        write_card(r, self.needs, self.material, progress)
        return progress


def prepare(recipe: Recipe) -> Prepared:
    """Read the data, load the model, look whether the machine has what it takes, and rehearse a step.

    Raises InvalidInput, InvalidSetting, ModelNotFound, StorageFull.
    """
    torch.manual_seed(recipe.seed)
    loaded = load_base(recipe.model, precision="bf16", device=recipe.device)
    model, tokenizer, device = loaded.model, loaded.tokenizer, loaded.model.device
    files = _read(recipe, tokenizer)
    make = _reader_task if recipe.part == "reader" else _matcher_task
    _check(_needs(model, 0), device, recipe.out)
    task = make(recipe, model, tokenizer, files)
    needs = _needs(model, sum(p.numel() for p in task.parameters()))
    _check(needs, device, recipe.out)
    material = Material(*({n: (len(ps), sum(len(p.questions) for p in ps)) for n, ps in half.items()} for half in files))
    return Prepared(recipe, task, replace(needs, seconds=rehearse(task, recipe.plan)), material)


def _read(recipe: Recipe, tokenizer: Any) -> tuple[Passages, Passages]:
    """All passages by file, and of each file those that are held out."""

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    files = read_questions(recipe.questions) | {path.name.split(".")[0]: read_texts(path, count) for path in recipe.texts}
    learned, judged = hold_out(files)
    if not any(learned.values()) or not any(judged.values()):
        total = sum(map(len, files.values()))
        raise InvalidInput(f"{total} passages are too few: some must be kept to judge the rest by; give at least 20")
    return learned, judged


def _needs(model: Any, learned: int) -> Needs:
    """The base twice (as it is and as NF4 makes it), the learned numbers with gradients and moments, and activations."""
    base = sum(p.numel() * p.element_size() for p in model.parameters())
    return Needs(memory=2 * base + 16 * learned + ACTIVATIONS, disk=2 * 12 * learned + 4 * learned, parameters=learned)


def _check(needs: Needs, device: torch.device, out: Path) -> None:
    """Raise, before anything is begun, where the machine has less than a run needs."""
    out.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out).free) < needs.disk:
        raise StorageFull(f"{out}: training needs {needs.disk:,} bytes on the disk, {free:,} are free: choose another folder")
    if (free := _free_memory(device)) < needs.memory:
        raise InvalidSetting(
            f"training needs about {needs.memory:,} bytes of memory on {device}, {free:,} are free: end other programs, or "
            "choose a smaller model or another device"
        )


def _free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; no end of them where a system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        told = Path("/proc/meminfo").read_text(encoding="ascii").split()
        return 1024 * int(told[told.index("MemAvailable:") + 1])
    except (OSError, ValueError):
        return sys.maxsize


def _weights(files: Passages) -> dict[str, float]:
    """How often each file is drawn: as MIXTURE says, else in proportion to its passages."""
    return {n: MIXTURE.get(n, 1.0) for n in files} if set(files) & set(MIXTURE) else {n: float(len(p)) for n, p in files.items()}


def _reader_task(recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]) -> Task:
    made = trainable(model, tokenizer, rank=recipe.rank, start=_start(recipe))
    validation = Mixture(files[1], _weights(files[1]), 7)
    packs = [draw(made.lm, validation) for _ in range(recipe.held_out)]
    bases = Bases(made.lm.model) if recipe.nf4 else None
    mixture = Mixture(files[0], _weights(files[0]), recipe.seed)
    return ReaderTask(made.lm, Rotary(made.lm.model), mixture, packs, made.parameters, made.save, bases=bases, nf4=recipe.nf4)


def _start(recipe: Recipe) -> Path | None:
    """The peft folder of the reader to start from."""
    if recipe.start in ("default", "none"):
        return find_bundle(recipe.start, show_model(recipe.model).sha256).reader
    folder = Path(recipe.start)
    return read_bundle(folder).reader if (folder / MANIFEST).exists() else folder


def _matcher_task(recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Passages, Passages]) -> Task:
    """The states of up to `passages` passages are computed first, and kept."""
    lm = FrozenModel(model, tokenizer, lambda _: nullcontext())
    rng, weights = random.Random(recipe.seed), _weights(files[0])  # noqa: S311 - a reproducible draw, no secret
    names = [n for n in files[0] if n not in NOT_TO_FIND]
    share = recipe.passages / sum(weights[n] for n in names)
    pool = [p for n in names for p in rng.sample(list(files[0][n]), min(len(files[0][n]), round(share * weights[n])))]
    held = [p for n in names for p in files[1][n]][: 10 * recipe.held_out]
    held_data, data = (MatchData.of(lm, passages, _layers(model)) for passages in (held, pool))
    start = first_head(lm, data, _layers(model), DIMENSION).to(lm.device)
    return MatcherTask(start, data, held_data, _write_tensors, rng)


def _layers(model: Any) -> list[int]:
    """The states that the head pools: the embeddings, a quarter and a half of the way up."""
    depth = model.config.get_text_config().num_hidden_layers
    return [0, round(depth * 0.27), depth // 2]


def _write_tensors(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), file)


def _write_bundle(recipe: Recipe) -> None:
    """The trained part, and the other parts of the bundle shipped for this model, if there is one."""
    base = show_model(recipe.model).sha256
    before, made = find_bundle("default", base), recipe.out / "adapter"
    reader = made if recipe.part == "reader" else before.reader
    match = made / "match.safetensors" if recipe.part == "matcher" else before.match
    if reader is not None:
        shutil.copytree(reader, recipe.out / "reader", dirs_exist_ok=True)
    if match is not None:
        shutil.copyfile(match, recipe.out / "match.safetensors")
    manifest = {"base": base, "vector_weight": before.vector_weight if before.match else 1.0}
    (recipe.out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
