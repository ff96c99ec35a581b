"""Does this GPU remember and answer as a CPU does? python examples/benchmarks/gpu_check.py
MODEL_FOLDER.

Every kernel of SDPA on the shapes and masks that memories are read with, next to attention written
out in fp32; then questions answered from kv and soft memories by the device and by the CPU, both in
bf16, and by the device in NF4 where bitsandbytes is installed. Ends with 1 where the answers in
bf16 differ, be it by one word that was as likely as another.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median

import torch
import transformers
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.kv import KVMethod, check_kv
from cmt_sdk.neural.methods.soft import SoftMethod
from cmt_sdk.neural.reader import TorchReader
from cmt_sdk.types import Prompt
from cmt_sdk.weights.adapters import active, attach_adapters
from cmt_sdk.weights.bundle import find_bundle
from cmt_sdk.weights.loading import load_base
from cmt_sdk.weights.registry import model_info

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
FACTS = {
    "Where did the museum move?": (
        "The city museum, founded in 1871, moved from Porto to Lisbon in 2019, into a tram depot."
    ),
    "Who found the comet?": (
        "The comet was found by Elena Marsh on 3 March 2021, while she was testing a new camera in"
        " Chile."
    ),
    "What does the bridge carry?": (
        "Opened in 1932, the bridge over the Tarn carries a railway; cars take the tunnel"
        " next to it."
    ),
}  # questions, each with its passage


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


def kernels(device: str) -> None:
    """The relative differences of each kernel's output and of the gradients of query, key and
    value, by shape.
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
                print(f"{name}, {kernel}: not here ({str(error).splitlines()[0][:60]})")
                continue
            pairs = zip(made, expected, strict=True)
            print(
                f"{name}, {kernel}:",
                *(f"{float((m.cpu().float() - e).norm() / e.norm()):.4f}" for m, e in pairs),
            )


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


def answers(model: str, device: str, precision: str, compressor: str) -> list[str]:
    """What is answered from each passage's memory, with the adapters shipped; prints it and the
    median time to a first token.
    """
    loaded = load_base(model, precision=precision, device=device)
    bundle = find_bundle("default", model_info(model).sha256, compressor)
    attach_adapters(loaded, bundle.adapters)
    lm = FrozenModel(loaded.model, loaded.tokenizer, lambda name: active(loaded, name))
    method = SoftMethod(lm, 4) if compressor == "soft" else KVMethod(lm, check_kv(lm), 0.25)
    memories = method.compress(list(FACTS.values()))
    reader = TorchReader(lm, method)
    found: list[str] = []
    waited: list[float] = []
    for question, memory in zip(FACTS, memories, strict=True):
        words: list[str] = []
        began = time.monotonic()
        for piece in reader.read(Prompt(question, memories=[memory]), 16):
            waited += [] if words else [time.monotonic() - began]
            words.append(piece.text)
        found.append("".join(words))
    print(
        f"{device}, {precision}, {compressor}: {found}, {1000 * median(waited):.0f} ms to the first"
        " token",
        flush=True,
    )
    return found


def main() -> int:
    """Print both, and say whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a pulled model or a local folder")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, cuDNN"
        f" {torch.backends.cudnn.version()}"
    )
    kernels(options.device)
    same = [
        answers(options.model, options.device, "bf16", c)
        == answers(options.model, "cpu", "bf16", c)
        for c in ("kv", "soft")
    ]
    if options.device != "cpu" and find_spec("bitsandbytes"):
        for compressor in ("kv", "soft"):
            answers(options.model, options.device, "nf4", compressor)
    return int(not all(same))


if __name__ == "__main__":
    sys.exit(main())
