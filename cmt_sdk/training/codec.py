"""Fits the codec of kv memories (reading.codec) to a model: from entries and from gradients.

The codes cost bits, their rounding costs divergence of the answers. To second order the divergence
that an error e of an entry costs is eᵀ F e / 2, F being the mean of g gᵀ over gradients g of the
log probability of tokens that the model itself would answer (the Fisher information). So:

1. The model reads passages and answers a question about each. Per head, for keys and values apart,
   the covariance C of the entries and F are summed up.
2. In the metric of F, where every direction of an error costs the same, the principal axes of the
   entries are the basis: its coordinates are uncorrelated, and one step for all coordinates of all
   heads and layers spends each bit where it saves most (reverse water-filling).
3. Coordinates of like deviation, in steps, are a class.

Some fifty passages are enough; that takes minutes on a CPU. Knows no files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.questions.dataset import QuestionedPassage
from cmt_sdk.reading.codec import LIMIT, Codec
from cmt_sdk.training.kv_entries import Entries, kv_cache

PASSAGES = 100
MOST_TOKENS = 512
MOST_ANSWER_TOKENS = 48
STEP = 0.0021  # of all coordinates, in the root of nats
# Shares of the mean that are added to every direction, against what so few passages show: of an
# entry's variance, and of what its errors cost.
SPREAD = 0.02
EVEN = 0.3
# Deviations, in steps, between two classes; coordinates below the first are not stored.
BORDERS = (0.12, 0.17, 0.23, 0.3, 0.4, 0.52, 0.68, 0.88, 1.15, 1.5, 2, 2.7, 3.7, 5.2, 7.5, 11, 17)
LARGEST = LIMIT / 5  # deviations, in steps, of a coordinate whose largest codes still fit


@dataclass(frozen=True)
class FittedCodec:
    """A codec with the figures of its fit.

    Attributes:
        codec: The codec.
        passages: Passages that it was fitted to.
        bytes_per_token: Of the memories of held-out passages.
    """

    codec: Codec
    passages: int
    bytes_per_token: float


class _Sums:
    """What a codec needs of the entries seen, on the CPU; 2 stands for keys and values."""

    def __init__(self, rows: int, width: int) -> None:
        self.counts = torch.zeros(rows, dtype=torch.float64)
        self.firsts = torch.zeros(2, rows, width, dtype=torch.float64)
        self.products = torch.zeros(2, rows, width, width, dtype=torch.float64)
        self.costs = torch.zeros(2, rows, width, width, dtype=torch.float64)

    def add(self, entries: Entries, gradients: Sequence[Tensor]) -> None:
        """Add a passage's entries and the gradients of its keys and values."""
        kept = entries.kept.flatten(0, 1).cpu()  # (rows, n)
        self.counts += kept.sum(1)
        for kind, (found, gradient) in enumerate(zip(entries.tensors, gradients, strict=True)):
            chosen = kept[..., None].double()  # (rows, n, 1)
            x = found.detach().flatten(0, 1).cpu().double() * chosen  # (rows, n, d)
            g = gradient.flatten(0, 1).cpu().double() * chosen
            self.firsts[kind] += x.sum(1)
            self.products[kind] += x.transpose(1, 2) @ x
            self.costs[kind] += g.transpose(1, 2) @ g

    def solved(self, step: float) -> Codec:
        """The codec of all that was added."""
        counts = self.counts.clamp(min=1)[:, None]  # (rows, 1)
        mean = self.firsts / counts  # (2, rows, d)
        covariance = self.products / counts[..., None] - mean[..., None] * mean[:, :, None]
        spread = SPREAD + 8 / counts[..., None]
        metric = _evened(self.costs / counts[..., None], EVEN)
        values, axes = torch.linalg.eigh(metric)
        roots = values.clamp(min=1e-24).sqrt()[..., None, :]
        into, back = (axes * roots) @ axes.mT, (axes / roots) @ axes.mT  # symmetric
        variances, turns = torch.linalg.eigh(into @ _evened(covariance, spread) @ into)
        deviations = variances.clamp(min=0).sqrt().flip(-1) / step  # (2, rows, d), falling
        basis = step * (turns.mT.flip(-2) @ back)  # (2, rows, d, d)
        basis *= (deviations / LARGEST).clamp(min=1)[..., None]
        classes = torch.bucketize(deviations.float(), torch.tensor(BORDERS))
        rows, width = mean.shape[1:]
        tensors = {"mean": mean.numpy(), "basis": basis.half().numpy(), "classes": classes.numpy()}
        return Codec.of(tensors, rows, width)


def _evened(matrices: Tensor, share: float | Tensor) -> Tensor:
    """Matrices [..., d, d] with a share of the mean of their diagonal added to it."""
    mean = matrices.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)[..., None, None]
    return matrices + share * mean * torch.eye(matrices.shape[-1], dtype=matrices.dtype)


def fit_codec(
    method: KVMethod,
    learned: Sequence[QuestionedPassage],
    judged: Sequence[QuestionedPassage],
    *,
    step: float = STEP,
    minutes: float = float("inf"),
    on_passage: Callable[[int], None] = lambda _: None,
) -> FittedCodec:
    """Fit a codec for a model, with the adapters "encoder" and "reader" where it has them.

    Args:
        method: Makes the memories: chooses the entries.
        learned: Passages with questions to learn from; those with too many tokens are left out.
        judged: Held-out passages.
        step: That of all coordinates.
        minutes: No further passage is read after this time.
        on_passage: Called with the number of passages read.
    """
    lm = method.lm
    layers, heads, width = lm.kv_shape
    sums = _Sums(layers * heads, width)
    drawn = torch.Generator().manual_seed(0)
    began, read = time.monotonic(), 0
    for passage in learned:
        entries = _entries(method, passage)
        if entries is None:
            continue
        sums.add(entries, _gradients(lm, method, entries, passage, drawn))
        read += 1
        on_passage(read)
        if time.monotonic() - began > 60 * minutes:
            break
    codec = sums.solved(step)
    found = [e for e in (_entries(method, passage) for passage in judged) if e is not None]
    stored = sum(_size(codec, entries) for entries in found)
    return FittedCodec(codec, read, stored / max(1, sum(e.kept.shape[2] for e in found)))


@torch.no_grad()
def _entries(method: KVMethod, passage: QuestionedPassage) -> Entries | None:
    """The entries of a passage; None for one that is too long."""
    ids = method.lm.passage_ids(passage.context)
    if not 0 < len(ids) <= MOST_TOKENS:
        return None
    with method.lm.activate("encoder"):
        keys, values, scores = method.encode([ids])
    kept = method.chosen(None if scores is None else scores[0], len(ids))
    return Entries(keys[0].float(), values[0].float(), kept)


def _gradients(
    lm: FrozenModel,
    method: KVMethod,
    entries: Entries,
    passage: QuestionedPassage,
    drawn: torch.Generator,
) -> Sequence[Tensor]:
    """The gradients of an answer's log probability, [layers, kv_heads, n, d] of keys and values.

    The tokens are those that the reader would say after each token of the accepted answer.
    """
    number = int(torch.randint(len(passage.questions), (1,), generator=drawn))
    question = passage.questions[number]
    before = lm.question_ids(question.text)
    answer = [*lm.ids(question.answers[0])[:MOST_ANSWER_TOKENS], lm.end_id]
    keys, values = (tensor.clone().requires_grad_() for tensor in entries.tensors)
    cache = kv_cache(lm, method.rotary, [[Entries(keys, values, entries.kept)]])
    tokens = torch.tensor([before + answer], device=lm.device)
    with lm.activate("reader"):
        states = lm.forward(cache, **cache.inputs(tokens))[0, len(before) - 1 : -1]
        logs = lm.logits(states).log_softmax(-1)  # (answer, vocabulary)
        drawn_ids = torch.multinomial(logs.detach().cpu().exp(), 1, generator=drawn)  # (answer, 1)
        chosen = logs.gather(1, drawn_ids.to(lm.device)).sum()
        return torch.autograd.grad(chosen, (keys, values))


def _size(codec: Codec, entries: Entries) -> int:
    """Bytes of a memory."""
    kept = entries.kept
    keys, values = (tensor[kept].cpu().numpy() for tensor in entries.tensors)
    made = codec.encode(keys, values, kept.flatten(0, 1).cpu().numpy().astype(np.uint8))
    return made.nbytes
