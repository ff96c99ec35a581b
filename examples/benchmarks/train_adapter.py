"""Train or continue the default adapter bundle: python examples/benchmarks/train_adapter.py reader|matcher DATA OUT.

Makes OUT/log.jsonl, OUT/adapter (the weights) and OUT/state (to go on from). Run it again to continue after a kill.
`cut ADAPTER OUT --rank 16` writes a reader adapter with a smaller rank.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import cmt_sdk
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.questions import QuestionedPassage
from cmt_sdk.training.adapters import Trainable, cut, trainable
from cmt_sdk.training.bases import Bases
from cmt_sdk.training.data import MIXTURE, Mixture, split_files
from cmt_sdk.training.loop import Plan, train
from cmt_sdk.training.matcher import MatchData, MatcherTask, first_head
from cmt_sdk.training.packs import draw
from cmt_sdk.training.reader import ReaderTask

LAYERS, DIMENSION = (0, 8, 15), 256
Files = Mapping[str, Sequence[QuestionedPassage]]
VALIDATION = ("squad_v1_train_part", "squadshifts_new_wiki")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("reader", "matcher", "cut"))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a pulled model or a local folder")
    parser.add_argument("--start", type=Path, help="a peft folder to start from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--accumulate", type=int, default=3)
    parser.add_argument("--nf4", type=float, default=0.3, help="the share of examples with the base as NF4 makes it")
    parser.add_argument("--passages", type=int, default=3000, help="passages whose states the matcher is trained on")
    parser.add_argument("--held-out", type=int, default=12, help="packs (reader) or tens of passages (matcher)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def reader_task(options: argparse.Namespace, made: Trainable, mixture: Mixture, held: Mapping[str, Any]) -> ReaderTask:
    """The reader adapter's task."""
    validation = Mixture({n: held[n] for n in VALIDATION if n in held}, MIXTURE, 7)
    packs = [draw(made.lm, validation) for _ in range(options.held_out)]
    bases = Bases(made.lm.model) if options.nf4 else None
    return ReaderTask(made.lm, Rotary(made.lm.model), mixture, packs, made.parameters, made.save, bases=bases, nf4=options.nf4)


def matcher_task(options: argparse.Namespace, model: Any, tokenizer: Any, files: tuple[Files, Files]) -> MatcherTask:
    """The matching head's task: the states of up to `--passages` passages are computed first, and kept."""
    lm = FrozenModel(model, tokenizer, lambda _: nullcontext())
    rng, (train_files, held) = random.Random(options.seed), files
    weights = {n: w for n, w in MIXTURE.items() if n in train_files}
    share = options.passages / sum(weights.values())
    pool = [p for n, w in weights.items() for p in rng.sample(train_files[n], min(len(train_files[n]), round(share * w)))]
    validation = [p for name in VALIDATION for p in held.get(name, [])][: 20 * options.held_out]
    print(f"computing the states of {len(pool)} + {len(validation)} passages and their questions", flush=True)
    held_data, data = (MatchData.of(lm, passages, LAYERS) for passages in (validation, pool))
    start = first_head(lm, data, LAYERS, DIMENSION).to(lm.device)

    def write(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), file)

    task = MatcherTask(start, data, held_data, write, rng)
    print({"before": task.validate()}, flush=True)
    return task


def main() -> None:
    """Train until the steps or the minutes are over."""
    options = parsed()
    torch.manual_seed(options.seed)
    local = Path(options.model)
    path = local if local.is_dir() else cmt_sdk.show_model(options.model).path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).to(options.device).requires_grad_(False)
    if options.part == "cut":
        cut(model, options.data, options.rank, options.out)
        return
    tokenizer = AutoTokenizer.from_pretrained(path)
    names = [n for n in MIXTURE if options.part == "reader" or n != "policyqa"]  # policyqa's questions repeat
    names = [n for n in names if any(options.data.glob(f"{n}.jsonl*"))]
    files = split_files(options.data, names)
    if options.part == "reader":
        made = trainable(model, tokenizer, rank=options.rank, start=options.start)
        mixture = Mixture(files[0], {n: MIXTURE[n] for n in names}, options.seed)
        task: Any = reader_task(options, made, mixture, files[1])
    else:
        task = matcher_task(options, model, tokenizer, files)
    plan = Plan(options.steps, options.rate, options.accumulate)
    train(task, plan, options.out, lambda figures: print(figures, flush=True), options.minutes)


if __name__ == "__main__":
    main()
