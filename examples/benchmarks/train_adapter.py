"""Train or continue an adapter bundle: python examples/benchmarks/train_adapter.py PART DATA OUT,
PART as `cmt train` names them.

What `cmt train` does, without the installed command: a rented accelerator has torch and peft, and
this folder. Run it again to continue after a kill. `cut ADAPTER OUT --rank 16` writes a reader
adapter with a smaller rank.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import cmt_sdk
from cmt_sdk.training.adapters import reduce_rank
from cmt_sdk.training.recipe import Recipe, objectives_for, rate_for
from cmt_sdk.training.run import prepare
from cmt_sdk.training.task import Plan

FROM_ELSEWHERE = 0.05  # nats an answer token: rounding in bf16 moves the loss by less


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "part", choices=("reader", "compressor", "soft", "cmt", "matcher", "embedding", "cut")
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="a pulled model or a local folder"
    )
    parser.add_argument("--start", default="none", help="default, none, or a folder with a bundle")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--rate", type=float, help="peak learning rate (soft: 2e-3, else 1e-3)")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--accumulate", type=int, default=3)
    parser.add_argument(
        "--nf4", type=float, default=0.3, help="the share of examples with the base as NF4 makes it"
    )
    parser.add_argument(
        "--passages", type=int, default=3000, help="passages whose states the matcher is trained on"
    )
    parser.add_argument(
        "--candidates",
        type=int,
        default=0,
        help="passages that keys tell apart at once; 0: by the device",
    )
    parser.add_argument("--batch", type=int, default=1, help="examples computed together")
    parser.add_argument(
        "--checkpointing", action="store_true", help="layers hold less and compute again"
    )
    parser.add_argument("--fit", action="store_true", help="the rate falls as the minutes pass")
    parser.add_argument(
        "--answer", type=float, default=0.5, help="weight of the answers' cross-entropy"
    )
    parser.add_argument(
        "--teacher", type=float, default=1.0, help="weight of the divergence from the teacher"
    )
    parser.add_argument("--alpha", type=float, help="weight of the memory-aware logits (cmt: 0.5)")
    parser.add_argument(
        "--states", type=float, help="weight of the distance from the teacher's states (soft: 3)"
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=12,
        help="packs (reader) or tens of passages (matcher, embedding)",
    )
    parser.add_argument(
        "--expect",
        type=float,
        help="the held-out score at the start, as a CPU finds it; else it ends there",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train until the steps or the minutes are over."""
    options = parsed()
    if options.part == "cut":
        path = cmt_sdk.model_info(options.model).path
        reduce_rank(
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16),
            options.data,
            options.rank,
            options.out,
        )
        return
    same = (
        "part",
        "out",
        "model",
        "start",
        "device",
        "minutes",
        "rank",
        "nf4",
        "passages",
        "candidates",
        "held_out",
    )
    same += ("batch", "checkpointing", "fit", "seed")
    recipe = Recipe(
        questions=[options.data],
        plan=Plan(options.steps, rate_for(options.part, options.rate), options.accumulate),
        objectives=objectives_for(
            options.part,
            **{n: getattr(options, n) for n in ("answer", "teacher", "alpha", "states")},
        ),
        **{name: getattr(options, name) for name in same},
    )
    prepared = prepare(recipe)
    if options.expect is not None:
        found = prepared.task.score(prepared.task.validate())
        print(f"held-out score to begin with: {found:.3f}", flush=True)
        if not abs(found - options.expect) <= FROM_ELSEWHERE:
            raise SystemExit(
                f"{found:.3f} is not {options.expect}: another device, model or tokenizer: of no"
                " use elsewhere"
            )
    prepared.run(lambda figures: print(figures, flush=True))


if __name__ == "__main__":
    main()
