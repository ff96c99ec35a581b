"""Does everything run on this GPU as on a CPU? Three minutes, and a report.

    python examples/benchmarks/gpu_check.py REPORT.md [--model NAME] [--device cuda]
    python examples/benchmarks/gpu_check.py REPORT.md --tiny   # rehearsal: a CPU, a random model

Every kernel of SDPA on the shapes and masks that memories are read with, next to attention written
out in fp32. Then for NF4, bf16 and fp16: adding and asking, `cmt eval`, and (not in fp16) one
training step whose first held-out loss must be the expected one. Each check has a line in the
report, with its seconds, and a check that fails does not end the others. Ends with 1 where one
failed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from click.testing import CliRunner
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import cmt_sdk
from cmt_cli.main import main as cmt
from cmt_sdk.testing.tiny import save_tiny
from cmt_sdk.training import Plan, Recipe, prepare

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
TINY = "tiny"  # the model of a rehearsal
PRECISIONS = ("nf4", "bf16", "fp16")
FACTS = (
    ("museum", "The city museum moved from Porto to Lisbon in 2019.", "Lisbon"),
    ("comet", "The comet was found by Elena Marsh on 3 March 2021 in Chile.", "Chile"),
    ("bridge", "Opened in 1932, the bridge over the Tarn stands in Albi.", "Albi"),
    ("market", "On Saturdays the market is held in Braga, next to the old mill.", "Braga"),
    ("archive", "After the flood the archive was taken to Toledo for good.", "Toledo"),
    ("school", "The school of music has been in Ghent since it was founded.", "Ghent"),
    ("library", "Its library burned down, and a new one was built in Leiden.", "Leiden"),
    ("theatre", "A theatre of wood was put up in Graz within eleven weeks.", "Graz"),
)
# Held-out loss before the first step, in nats an answer token, by model and by whether the base is
# in NF4, as a CPU finds it: `gpu_check.py REPORT.md --device cpu` prints both.
EXPECTED: dict[tuple[str, bool], float] = {}
APART = 0.05  # of losses: rounding in bf16 moves one by less
F1 = {"nf4": 40.0, "bf16": 40.0, "fp16": 40.0}  # of the questions, at least: most are copied


@dataclass(frozen=True)
class Case:
    """What a check runs with.

    Attributes:
        model: A pulled model or a folder.
        device: A torch device.
        precision: One of PRECISIONS.
        folder: A folder of its own.
        questions: The facts as a question file.
        is_tiny: The model is random: its answers mean nothing.
    """

    model: str
    device: str
    precision: str
    folder: Path
    questions: Path
    is_tiny: bool


def shapes() -> dict[str, tuple[int, int, int, int, Tensor]]:
    """Rows, heads, queries, keys and an additive mask, by name: as packs, as one question, and as
    passages are read.
    """
    draw = torch.Generator().manual_seed(0)
    ragged = torch.where(
        torch.rand(4, 3, 1, 1117, generator=draw) < 0.75, float("-inf"), 0.0
    ).expand(-1, -1, 1152, -1)
    own = torch.full((384, 384), float("-inf")).triu(1).repeat(3, 1).expand(4, 3, -1, -1)
    passages = torch.full((250, 281), float("-inf")).triu(32).expand(8, 9, -1, -1)
    return {
        "packs": (4, 3, 1152, 1501, torch.cat([ragged, own], dim=3)),
        "a token": (1, 3, 3, 1118, torch.cat([ragged[:1, :, :3], torch.zeros(1, 3, 3, 1)], dim=3)),
        "passages": (8, 9, 250, 281, passages),
    }


def kernels(device: str) -> Iterator[tuple[str, str]]:
    """By shape and kernel, the relative differences of the output and of the gradients of query,
    key and value.
    """
    draw = torch.Generator().manual_seed(1)
    for name, (rows, heads, count, total, mask) in shapes().items():
        sizes = [(rows, heads, count, 64), (rows, heads, total, 64), (rows, heads, total, 64)]
        inputs = [torch.randn(s, generator=draw).to(torch.bfloat16) for s in sizes]
        expected = with_gradients(written_out, [t.float() for t in inputs], mask)
        for kernel, backend in {"what SDPA takes": None, **KERNELS}.items():
            try:
                with sdpa_kernel([*KERNELS.values()] if backend is None else backend):
                    made = with_gradients(
                        fused, [t.to(device) for t in inputs], mask.to(device, torch.bfloat16)
                    )
            except RuntimeError as error:
                yield f"{name}, {kernel}", f"not here ({str(error).splitlines()[0][:60]})"
                continue
            pairs = zip(made, expected, strict=True)
            apart = (f"{float((m.cpu().float() - e).norm() / e.norm()):.4f}" for m, e in pairs)
            yield f"{name}, {kernel}", " ".join(apart)


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention as it is defined."""
    return (query @ key.transpose(2, 3) / 8 + mask).softmax(-1) @ value


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The same by one of SDPA's kernels."""
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def with_gradients(
    attention: Callable[..., Tensor], inputs: Sequence[Tensor], mask: Tensor
) -> list[Tensor]:
    """Output and gradients."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    made = attention(*leaves, mask)
    return [made.detach(), *torch.autograd.grad(made.float().square().sum(), leaves)]


def adding_and_asking(case: Case) -> str:
    """Add the facts to a memory and ask for each; the answers and the times."""
    settings = {"model": case.model, "device": case.device, "precision": case.precision}
    with cmt_sdk.open(case.folder / "memory", **settings) as memory:
        began = time.monotonic()
        for _, text, _ in FACTS:
            memory.add(text)
        added = time.monotonic() - began
        began = time.monotonic()
        answers = [memory.ask(f"Where is the {name}?", max_tokens=8) for name, _, _ in FACTS]
        asked = time.monotonic() - began
    right = sum(town in answer.text for (_, _, town), answer in zip(FACTS, answers, strict=True))
    if not case.is_tiny and right < len(FACTS) / 2:
        raise AssertionError(f"{right} of {len(FACTS)} right: {[a.text for a in answers]}")
    count = len(FACTS)
    return f"{right} of {count} right; {added / count:.2f} s to add, {asked / count:.2f} s to ask"


def evaluation(case: Case) -> str:
    """`cmt eval` on the facts; its F1."""
    report = case.folder / "report.json"
    settings = {"model": case.model, "device": case.device, "precision": case.precision}
    given = [part for n, value in settings.items() for part in ("--set", f"{n}={value}")]
    ways = ["--protocol", "gold", "--reader", "memory", "--max-tokens", "8"]
    done = CliRunner().invoke(cmt, ["eval", str(case.questions), *ways, *given, "--json", report])
    if done.exit_code:
        raise AssertionError(done.output[-500:])
    found = json.loads(report.read_text(encoding="utf-8"))["readers"]["memory"]["f1"]
    value = float(found["mean"])
    if not case.is_tiny and value < F1[case.precision]:
        raise AssertionError(f"F1 {value:.1f} is less than {F1[case.precision]}")
    return f"F1 {value:.1f}"


def training(case: Case) -> str:
    """One step of both adapters, with the base in NF4 or as the device multiplies it."""
    is_nf4 = case.precision == "nf4"
    recipe = Recipe(
        "compressor",
        case.folder / "run",
        [case.questions],
        model=case.model,
        device=case.device,
        plan=Plan(1, accumulate=1),
        nf4=1.0 if is_nf4 else 0.0,
        checkpointing=True,
        held_out=2,
    )
    if case.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    prepared = prepare(recipe)
    losses: list[float] = []
    scores: list[float] = []

    def on_step(line: Mapping[str, Any]) -> None:
        losses.extend([line["loss"]] if "loss" in line else [])
        figures = {n: v for n, v in line.items() if n.startswith("held_out")}
        scores.extend([prepared.task.score(figures)] if figures else [])

    prepared.run(on_step)
    if not all(map(math.isfinite, losses + scores)):
        raise AssertionError(f"losses {losses}, held-out {scores}")
    expected = EXPECTED.get((Path(case.model).name, is_nf4))
    if expected is not None and not abs(scores[0] - expected) <= APART:
        raise AssertionError(f"held-out loss {scores[0]:.3f} to begin with, expected {expected}")
    shown = f"held-out loss {scores[0]:.3f} to begin with, {scores[-1]:.3f} after a step"
    foretold = f"{prepared.needs.memory / 2**30:.1f} GiB foretold"
    if case.device == "cpu":
        return f"{shown}; {foretold}"
    peak = torch.cuda.max_memory_reserved()
    if peak > prepared.needs.memory:
        raise AssertionError(f"{shown}; {foretold}, {peak / 2**30:.1f} GiB taken")
    return f"{shown}; {foretold}, {peak / 2**30:.1f} GiB taken"


CHECKS: tuple[Callable[[Case], str], ...] = (adding_and_asking, evaluation, training)


def write_questions(file: Path) -> None:
    """The facts as a question file."""
    rows = [
        {"title": name, "context": text, "question": f"Where is the {name}?", "answers": [town]}
        for name, text, town in FACTS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def lines(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, bool]]:
    """Run everything; the report's lines, each with whether its check passed."""
    device = "cpu" if options.tiny else options.device
    named = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor()
    yield f"# {named or platform.machine()}, {device}\n", True
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    yield f"cmt-sdk {cmt_sdk.__version__}, {versions}, model {options.model}\n", True
    yield "| check | precision | seconds | |\n|---|---|---|---|", True
    if not options.tiny:
        for name, shown in kernels(device):
            yield f"| kernel | bf16 | | {name}: {shown} |", True
    model = str(save_tiny(folder / TINY)) if options.tiny else options.model
    questions = folder / "facts.jsonl"
    write_questions(questions)
    for precision in PRECISIONS:
        # training computes in fp16 nowhere: a loss in it needs scaling
        for number, check in enumerate(CHECKS[: 2 if precision == "fp16" else 3]):
            own = folder / f"{precision}-{number}"
            own.mkdir()
            began = time.monotonic()
            try:
                case = Case(model, device, precision, own, questions, options.tiny)
                shown_text, passed = check(case), True
            except Exception as error:  # noqa: BLE001 - the report has it, and the others go on
                shown_text, passed = f"FAILED: {error}", False
                traceback.print_exc()
            seconds = time.monotonic() - began
            name = check.__name__.replace("_", " ")
            yield f"| {name} | {precision} | {seconds:.1f} | {shown_text} |", passed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder, options.report.open("w", encoding="utf-8") as out:
        for line, passed in lines(options, Path(folder)):
            failed = failed or not passed
            print(line, flush=True)
            out.write(line + "\n")
            out.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
