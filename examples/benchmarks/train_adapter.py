"""Train or continue the default adapter bundle: python examples/benchmarks/train_adapter.py reader|matcher DATA OUT.

Makes OUT/log.jsonl, OUT/adapter (the weights) and OUT/state (to go on from). Run it again to continue after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import cmt_sdk
from cmt_sdk.neural.matching import Matcher
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.training.adapters import Trainable, trainable
from cmt_sdk.training.data import MIXTURE, Mixture, split_files
from cmt_sdk.training.loop import Plan, train
from cmt_sdk.training.matcher import MatcherTask, Neighbours
from cmt_sdk.training.packs import draw
from cmt_sdk.training.reader import ReaderTask

DEPTH, DIMENSION = 15, 256
VALIDATION = ("squad_v1_train_part", "squadshifts_new_wiki")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("reader", "matcher"))
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
    parser.add_argument("--held-out", type=int, default=12, help="packs (reader) or tens of passages (matcher)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def reader_task(options: argparse.Namespace, made: Trainable, mixture: Mixture, held: Mapping[str, Any]) -> ReaderTask:
    """The reader adapter's task."""
    validation = Mixture({n: held[n] for n in VALIDATION if n in held}, MIXTURE, 7)
    packs = [draw(made.lm, validation) for _ in range(options.held_out)]
    return ReaderTask(made.lm, Rotary(made.lm.model), mixture, packs, made.parameters, made.save)


def matcher_task(
    options: argparse.Namespace, made: Trainable, mixture: Mixture, files: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> MatcherTask:
    """The encoder adapter's and the matching head's task."""
    from safetensors.torch import load_file

    width = made.lm.model.config.hidden_size
    start = None if options.start is None else options.start.parent / "match.safetensors"
    first = torch.nn.init.orthogonal_(torch.empty(DIMENSION, width)) if start is None else load_file(start)["projection"]
    projection = torch.nn.Parameter(first.to(made.lm.device))

    def write(folder: Path) -> None:
        made.save(folder / "encoder")
        save_file({"projection": projection.detach().contiguous()}, folder / "match.safetensors")

    train_files, held = files
    pool = [p for name in VALIDATION for p in held.get(name, [])][: 10 * options.held_out]
    neighbours = {name: Neighbours(passages) for name, passages in train_files.items()}
    matcher = Matcher(made.lm, projection, DEPTH)
    return MatcherTask(matcher, mixture, neighbours, pool, [*made.parameters, projection], write)


def main() -> None:
    """Train until the steps or the minutes are over."""
    options = parsed()
    torch.manual_seed(options.seed)
    local = Path(options.model)
    path = local if local.is_dir() else cmt_sdk.show_model(options.model).path
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).to(options.device).requires_grad_(False)
    depth = DEPTH if options.part == "matcher" else None
    made = trainable(model, tokenizer, rank=options.rank, depth=depth, start=options.start)
    names = [n for n in MIXTURE if options.part == "reader" or n != "policyqa"]  # policyqa's questions repeat
    names = [n for n in names if any(options.data.glob(f"{n}.jsonl*"))]
    files = split_files(options.data, names)
    mixture = Mixture(files[0], {n: MIXTURE[n] for n in names}, options.seed)
    if options.part == "reader":
        task: Any = reader_task(options, made, mixture, files[1])
    else:
        task = matcher_task(options, made, mixture, files)
    plan = Plan(options.steps, options.rate, options.accumulate)
    train(task, plan, options.out, lambda figures: print(figures, flush=True), options.minutes)


if __name__ == "__main__":
    main()
