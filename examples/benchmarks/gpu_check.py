"""Does this GPU compute attention as a CPU does? python examples/benchmarks/gpu_check.py MODEL_FOLDER DATA_FOLDER.

Every kernel of SDPA on the shapes and masks that memories are read with, beside attention written out in fp32; then the loss of
the adapters to begin with, on the device and on the CPU. Ends with 1 where they differ: what is trained there could not be used.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from cmt_sdk.training.recipe import Recipe
from cmt_sdk.training.run import prepare

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
ALLOWED = 0.02  # nats: rounding in bf16 moves the loss by less


def shapes() -> dict[str, tuple[int, int, int, int, Tensor]]:
    """Rows, heads, queries, keys and an additive mask, by name: as packs, as one question, and as passages are read."""
    draw = torch.Generator().manual_seed(0)
    ragged = torch.where(torch.rand(4, 3, 1, 1117, generator=draw) < 0.75, float("-inf"), 0.0).expand(-1, -1, 1152, -1)
    own = torch.full((384, 384), float("-inf")).triu(1).repeat(3, 1).expand(4, 3, -1, -1)
    passages = torch.full((250, 281), float("-inf")).triu(32).expand(8, 9, -1, -1)
    return {
        "packs": (4, 3, 1152, 1501, torch.cat([ragged, own], dim=3)),
        "a token": (1, 3, 3, 1118, torch.cat([ragged[:1, :, :3], torch.zeros(1, 3, 3, 1)], dim=3)),
        "passages": (8, 9, 250, 281, passages),
    }


def kernels(device: str) -> None:
    """The relative differences of each kernel's output and of the gradients of query, key and value, by shape."""
    draw = torch.Generator().manual_seed(1)
    for name, (rows, heads, count, total, mask) in shapes().items():
        sizes = [(rows, heads, count, 64), (rows, heads, total, 64), (rows, heads, total, 64)]
        inputs = [torch.randn(s, generator=draw).to(torch.bfloat16) for s in sizes]
        expected = with_gradients(written_out, [t.float() for t in inputs], mask)
        for kernel, backend in {"what SDPA takes": None, **KERNELS}.items():
            try:
                with sdpa_kernel([*KERNELS.values()] if backend is None else backend):
                    made = with_gradients(fused, [t.to(device) for t in inputs], mask.to(device, torch.bfloat16))
            except RuntimeError as error:
                print(f"{name}, {kernel}: not here ({str(error).splitlines()[0][:60]})")
                continue
            pairs = zip(made, expected, strict=True)
            print(f"{name}, {kernel}:", *(f"{float((m.cpu().float() - e).norm() / e.norm()):.4f}" for m, e in pairs))


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention as it is defined."""
    return (query @ key.transpose(2, 3) / 8 + mask).softmax(-1) @ value


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The same by one of SDPA's kernels."""
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def with_gradients(attention: Callable[..., Tensor], inputs: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """Output and gradients."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    made = attention(*leaves, mask)
    return [made.detach(), *torch.autograd.grad(made.float().square().sum(), leaves)]


def losses(model: str, data: Path, device: str) -> dict[str, dict[str, float]]:
    """The held-out loss of the adapters to begin with, by device."""
    found = {}
    with tempfile.TemporaryDirectory() as out:
        recipe = Recipe("compressor", Path(out), [data], model=model, nf4=0.0, held_out=6)
        for place, batch in (("cpu", 1), (device, 6)):
            found[place] = {}
            for part in ("compressor", "soft"):
                task = prepare(replace(recipe, part=part, device=place, batch=batch)).task
                found[place] |= task.validate()
            print(f"{place}: {found[place]}", flush=True)
    return found


def main() -> int:
    """Print both, and say whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a pulled model or a local folder")
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, cuDNN {torch.backends.cudnn.version()}")
    kernels(options.device)
    here, there = losses(options.model, options.data, options.device).values() if options.device != "cpu" else ({}, {})
    return int(any(not abs(there[name] - here[name]) <= ALLOWED for name in here))


if __name__ == "__main__":
    sys.exit(main())
