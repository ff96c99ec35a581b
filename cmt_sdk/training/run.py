"""A training run from question files to a bundle of adapters: what it learns from, what it will take, what it leaves.

Knows files and the pieces beside it; prints nothing.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cmt_sdk.config import DEFAULT_MODEL
from cmt_sdk.errors import InvalidInput, InvalidSetting, StorageFull
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.questions import QuestionedPassage
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.bases import Bases
from cmt_sdk.training.data import MIXTURE, Mixture, read_split
from cmt_sdk.training.loop import Plan, Progress, Task, train
from cmt_sdk.training.matcher import MatchData, MatcherTask, first_head
from cmt_sdk.training.packs import draw
from cmt_sdk.training.reader import ReaderTask
from cmt_sdk.weights.bundle import MANIFEST, find_bundle, read_bundle
from cmt_sdk.weights.registry import show_model

PARTS = ("reader", "matcher")
DIMENSION = 256
NOT_TO_FIND = {"policyqa"}  # its questions repeat over documents: good to read, misleading to find by
Files = Mapping[str, Sequence[QuestionedPassage]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained on what.

    data: question files, or folders of the files that MIXTURE names. start: "default" (the adapter shipped for this
    model, if any), "none", or a folder with a bundle or a peft adapter. nf4: the share of examples read by the base as
    NF4 makes it. held_out: packs of validation passages (reader), tens of passages (matcher).
    """

    part: str
    data: Sequence[Path]
    out: Path
    model: str = DEFAULT_MODEL
    device: str = "auto"
    start: str = "default"
    plan: Plan = field(default_factory=lambda: Plan(steps=1000))
    minutes: float = math.inf
    rank: int = 32
    nf4: float = 0.3
    passages: int = 3000
    held_out: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise InvalidSetting(f"part={self.part!r}: choose one of {', '.join(PARTS)}")
        for name, low, high in (("nf4", 0.0, 1.0), ("rank", 1, 256), ("held_out", 1, 1000), ("passages", 8, 10**7)):
            if not low <= getattr(self, name) <= high:
                raise InvalidSetting(f"{name}={getattr(self, name)}: choose {low} to {high}")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run will take: bytes of memory on the device while it lasts, bytes on the disk, and the numbers it learns."""

    memory: int
    disk: int
    parameters: int

    def check(self, device: torch.device, out: Path) -> None:
        """Raise StorageFull, InvalidSetting, before anything is begun, where the machine has less."""
        out.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(out).free) < self.disk:
            raise StorageFull(f"{out}: training needs {self.disk:,} bytes, {free:,} are free: give another folder")
        if device.type == "cuda" and (free := torch.cuda.mem_get_info(device)[0]) < self.memory:
            raise InvalidSetting(
                f"training needs about {self.memory:,} bytes on {device}, {free:,} are free: choose a smaller rank, "
                "a smaller model, or device='cpu'"
            )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin: its task, what it takes, and how many passages it learns from and is judged on."""

    recipe: Recipe
    task: Task
    needs: Needs
    learned: Mapping[str, int]
    judged: Mapping[str, int]

    def run(self, on_step: Callable[[Mapping[str, Any]], None]) -> Progress:
        """Train, or go on with what `out` holds, and leave a bundle there that `cmt_sdk.open(adapter=out)` takes."""
        r = self.recipe
        progress = train(self.task, r.plan, r.out, on_step, r.minutes)
        _write_bundle(r)
        return progress


def prepare(recipe: Recipe) -> Prepared:
    """Read the data, load the model and check the machine. Raises InvalidInput, ModelNotFound, StorageFull."""
    files = read_split(recipe.data)
    if not any(files[0].values()):
        raise InvalidInput(f"{', '.join(map(str, recipe.data))}: too few passages: some must be kept to judge the rest by")
    torch.manual_seed(recipe.seed)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if recipe.device == "auto" else recipe.device)
    model, tokenizer = _base(recipe, device)
    weights = {name: MIXTURE.get(name, 1.0 if set(files[0]) & set(MIXTURE) else float(len(files[0][name]))) for name in files[0]}
    make = _reader_task if recipe.part == "reader" else _matcher_task
    task = make(recipe, model, tokenizer, files, weights)
    needs = _needs(model, list(task.parameters()))
    needs.check(device, recipe.out)
    return Prepared(recipe, task, needs, *({n: len(p) for n, p in half.items()} for half in files))


def _base(recipe: Recipe, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = show_model(recipe.model).path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).to(device).requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(path)


def _needs(model: Any, parameters: Sequence[torch.Tensor]) -> Needs:
    """The base twice (as it is and as NF4 makes it), the learned tensors with gradients and moments, and activations."""
    base = sum(p.numel() * p.element_size() for p in model.parameters())
    learned = sum(p.numel() for p in parameters)
    return Needs(memory=2 * base + 16 * learned + 2 * 2**30, disk=2 * 12 * learned + 4 * learned, parameters=learned)


def _reader_task(recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Files, Files], weights: Mapping[str, float]) -> Task:
    made = trainable(model, tokenizer, rank=recipe.rank, start=_start(recipe))
    validation = Mixture(files[1], weights, 7)
    packs = [draw(made.lm, validation) for _ in range(recipe.held_out)]
    bases = Bases(made.lm.model) if recipe.nf4 else None
    mixture = Mixture(files[0], weights, recipe.seed)
    return ReaderTask(made.lm, Rotary(made.lm.model), mixture, packs, made.parameters, made.save, bases=bases, nf4=recipe.nf4)


def _start(recipe: Recipe) -> Path | None:
    """The peft folder of the reader to start from."""
    if recipe.start in ("default", "none"):
        return find_bundle(recipe.start, show_model(recipe.model).sha256).reader
    folder = Path(recipe.start)
    return read_bundle(folder).reader if (folder / MANIFEST).exists() else folder


def _matcher_task(recipe: Recipe, model: Any, tokenizer: Any, files: tuple[Files, Files], weights: Mapping[str, float]) -> Task:
    """The states of up to `passages` passages are computed first, and kept."""
    lm = FrozenModel(model, tokenizer, lambda _: nullcontext())
    rng = random.Random(recipe.seed)  # noqa: S311 - a reproducible draw, no secret
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
    """The trained part, and the other one of the bundle that training started from."""
    base = show_model(recipe.model).sha256
    before = find_bundle("default", base)
    weight = before.vector_weight if before.match else 1.0
    made = recipe.out / "adapter"
    reader = made if recipe.part == "reader" else before.reader
    match = made / "match.safetensors" if recipe.part == "matcher" else before.match
    if reader is not None:
        shutil.copytree(reader, recipe.out / "reader", dirs_exist_ok=True)
    if match is not None:
        shutil.copyfile(match, recipe.out / "match.safetensors")
    manifest = {"base": base, "vector_weight": weight}
    (recipe.out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
