"""Training soft memories (CMT, arXiv 2412.07393): an encoder that makes soft tokens, and a reader.

The teacher is the same model reading the text with the adapters shipped for it; its divergence
alone taught small models best (arXiv 2510.20797). Examples also repeat passages from their soft
tokens, fewer as training goes on. Each step draws a ratio. Without soft adapters to continue,
training starts warm, with little compression.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmt_sdk.neural.batching import batches
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.soft import SoftMethod
from cmt_sdk.neural.methods.soft_tokens import SoftTokens, merge_layer, soft_cache
from cmt_sdk.neural.partial_forward import capture
from cmt_sdk.neural.quantization import fake_quantize
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.reading.limits import NON_BEST_BIAS
from cmt_sdk.training.answers import answer_loss, answer_states
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.kv_entries import (
    AT_ONCE,
    Entries,
    encode,
    kv_cache,
)
from cmt_sdk.training.losses import Objectives, state_distance
from cmt_sdk.training.packs import Pack, Rows, batched, draw, passes, repetition

RATIOS = {4: 0.5, 8: 0.3, 16: 0.2}  # how often each is drawn
# Packs of an example that a GPU reads in one pass in bf16: all of them, as fewer leave it idle.
PACKS_PER_PASS = 5
REPEATED = 0.6  # the share of examples with a passage to repeat, at first; it falls to 0
WARM = ((2, 0.1),)  # ratios of the warm start, each with its share of the examples


@dataclass
class SoftTask:
    """Trains the adapters "encoder" and "reader" on packs of a mixture, read from soft tokens.

    Args:
        lm: The model with the adapters.
        rotary: Its rotary positions, which the teacher needs.
        mixture: The stream that packs are drawn from.
        held_out: Packs of validation titles.
        adapters: The tensors that learn.
        write: Saves the adapters to a folder.
        objectives: The weights of the loss.
        examples: How often the run will learn, which paces warm start and repetition.
        teachers: The names of the teacher's encoder and reader adapters, or None.
        ablate: Names of `recipe.INGREDIENTS` to leave out.
        batch: Examples computed together.
        at_once: Packs of one pass, over which the distance of states is measured.
        seen: Examples seen so far.
    """

    lm: FrozenModel
    rotary: Rotary | None
    mixture: Mixture
    held_out: Sequence[Sequence[Pack]]
    adapters: Sequence[Tensor]
    write: Callable[[Path], None]
    objectives: Objectives
    examples: int
    teachers: tuple[str, str] | None = None
    ablate: Collection[str] = ()
    batch: int = 1
    at_once: int = 1
    seen: int = 0

    def parameters(self) -> Sequence[Tensor]:
        """The adapters' tensors."""
        return self.adapters

    def learn(self) -> tuple[float, int, int]:
        """The next packs' loss, answer tokens and questions; adds the gradients."""
        packs = [pack for _ in range(self.batch) for pack in self._drawn()]
        loss, tokens = self._read(packs, self._draw_ratio(), self.objectives)
        self.seen += 1
        return loss, tokens, sum(p.questions for p in packs)

    def _drawn(self) -> list[Pack]:
        """An example; most also get one of their passages to repeat, at first."""
        packs = draw(self.lm, self.mixture, self.ablate)
        rng = self.mixture.random
        if (
            "repetition" in self.ablate
            or not self.objectives.answer
            or rng.random() >= REPEATED * (1 - self._done)
        ):
            return packs
        return [*packs, repetition(self.lm, rng.choice(rng.choice(packs).contents))]

    @property
    def _done(self) -> float:
        """The share of the run that is over, in [0, 1]."""
        return min(1.0, self.seen / max(1, self.examples))

    def _draw_ratio(self) -> int:
        """The ratio of the warm start's stage, later a random one of RATIOS."""
        ratios = [*RATIOS]
        drawn = ratios[0]
        if "ratios" not in self.ablate:
            # Drawn in the warm start too: later draws are then the same without it.
            drawn = self.mixture.random.choices(ratios, [*RATIOS.values()])[0]
        done = self._done
        for ratio, share in () if "warm-start" in self.ablate else WARM:
            if done < share:
                return ratio
            done -= share
        return drawn

    def _read(self, packs: Sequence[Pack], ratio: int, objectives: Objectives) -> tuple[float, int]:
        """The packs' summed loss and their answer tokens.

        1. Encode the passages to soft tokens; the teacher encodes those that it is asked about.
        2. In passes of `at_once` packs: read the packs with the reader, and with the teacher.
        3. Where gradients are on, run backward after each pass, down to the soft tokens.
        4. At the end, run backward from the soft tokens through the encoder.

        So the activations of one pass are held at a time, and those of the encoder. `_cut` ends the
        gradients between 3 and 4, and within 3 between the two adapters.

        Args:
            packs: The packs.
            ratio: Tokens per soft token.
            objectives: The weights of the loss.
        """
        total = 0.0
        tokens = 0
        uses_teacher = objectives.teacher or objectives.states
        is_bf16 = self.lm.dtype == torch.bfloat16
        with torch.autocast(self.lm.device.type, torch.bfloat16, enabled=is_bf16):
            contents = list(dict.fromkeys(c for pack in packs for c in pack.contents))
            made = self._soft(contents, ratio)
            soft = {c: replace(s, rows=_cut(s.rows)) for c, s in made.items()}  # gradients add up
            taught = self._taught([p for p in packs if p.questions]) if uses_teacher else {}
            # Packs with questions come first: the teacher reads those only.
            order = sorted(packs, key=lambda p: (not p.questions, p.ids.shape[1]))
            for some in passes(order, self.at_once):
                cache = reading_cache(self.lm, [[soft[c] for c in pack.contents] for pack in some])
                leaf = replace(
                    cache,
                    keys=[_cut(k) for k in cache.keys],
                    values=[_cut(v) for v in cache.values],
                )
                loss, count = self._loss(some, leaf, taught, objectives)
                if torch.is_grad_enabled():
                    self._backward(loss, cache, leaf)
                total += float(loss.detach())
                tokens += count
        if torch.is_grad_enabled():
            rows = [made[c].rows for c in soft]  # (m, d) each
            gradients = [s.rows.grad for s in soft.values()]
            with self.lm.activate("encoder"):
                torch.autograd.backward(rows, gradients)
        return total, tokens

    def _loss(
        self,
        packs: Sequence[Pack],
        cache: MemoryCache,
        taught: Mapping[str, Entries],
        objectives: Objectives,
    ) -> tuple[Tensor, int]:
        """The summed loss of packs that are read in one pass, and their answer tokens.

        Args:
            packs: Those with questions first.
            cache: Their memories.
            taught: The teacher's entries by passage; empty without a teacher.
            objectives: The weights of the loss.
        """
        rows = Rows.of(packs, self.lm.device)
        labels = rows.labels[rows.labels >= 0]  # (t,)
        layers = self._compared_layers(objectives)
        with self.lm.activate("reader"), capture(self.lm, layers) as own_states:
            states = answer_states(self.lm, cache, rows)  # (t, d)
        asking = [p for p in packs if p.questions]
        with capture(self.lm, layers) as teacher_states:
            entries = [[taught[c] for c in pack.contents] for pack in asking] if taught else []
            teacher = self._teach(entries, asking) if taught else None  # (n, d), n <= t
        without = self._unaided(rows) if objectives.alpha else None
        loss = answer_loss(self.lm, objectives, states, labels, teacher, without)
        if teacher is not None and teacher_states:
            distance = _distance(own_states, teacher_states, rows.supervised)
            # A mean over tokens; the other terms are sums over the n that the teacher answers.
            loss = loss + objectives.states * len(teacher) * distance
        return loss, len(labels)

    def _compared_layers(self, objectives: Objectives) -> Sequence[int]:
        """The layers whose states are compared with the teacher's.

        Every second one, from some way above the layer where soft tokens enter.
        """
        if not objectives.states or not self.teachers:
            return ()
        return range(2 * merge_layer(self.lm) - 1, len(self.lm.blocks), 2)

    def _backward(self, loss: Tensor, cache: MemoryCache, leaf: MemoryCache) -> None:
        """Run backward through the reader to `leaf`, then through the encoder to the soft tokens.

        Checkpointed layers compute again, and must find the adapter on that was on before.

        Args:
            loss: Of one pass.
            cache: The memories as the encoder made them.
            leaf: The same, cut off: the reader's gradients end here.
        """
        with self.lm.activate("reader"):
            loss.backward()  # type: ignore[no-untyped-call]
        pairs = zip([*cache.keys, *cache.values], [*leaf.keys, *leaf.values], strict=True)
        reached = [(a, b.grad) for a, b in pairs if a.requires_grad and b.grad is not None]
        with self.lm.activate("encoder"):
            torch.autograd.backward([a for a, _ in reached], [grad for _, grad in reached])

    def _soft(self, contents: Sequence[str], ratio: int) -> dict[str, SoftTokens]:
        """Soft tokens by passage, after the round trip through four bits."""
        is_rounded = "rounding" not in self.ablate or not torch.is_grad_enabled()
        rounded = fake_quantize if is_rounded else Tensor.float
        ids = [self.lm.passage_ids(content) for content in contents]
        soft: dict[str, SoftTokens] = {}
        for some in batches([len(i) for i in ids], AT_ONCE):
            with self.lm.activate("encoder"):
                made = SoftMethod(self.lm, ratio).encode([ids[i] for i in some])
            flat = rounded(torch.cat([m.rows for m in made]))  # (soft tokens of all, d)
            rows = torch.split(flat, [len(m.ends) for m in made])
            for i, one, own in zip(some, made, rows, strict=True):
                soft[contents[i]] = replace(one, rows=own)
        return soft

    @torch.no_grad()
    def _taught(self, packs: Sequence[Pack]) -> dict[str, Entries]:
        """The teacher's memories by passage, with all entries; empty without a teacher."""
        if self.teachers is None or self.rotary is None:
            return {}
        contents = list(dict.fromkeys(c for pack in packs for c in pack.contents))
        with self.lm.activate(self.teachers[0]):
            made = encode(self.lm, self.rotary, contents, [1.0] * len(contents))
        return dict(zip(contents, made, strict=True))

    @torch.no_grad()
    def _teach(self, memories: Sequence[Sequence[Entries]], packs: Sequence[Pack]) -> Tensor | None:
        """The teacher's states [t, d] of these packs' answer tokens, by its own adapters."""
        if self.teachers is None or self.rotary is None or not packs:
            return None
        cache = kv_cache(self.lm, self.rotary, memories)
        with self.lm.activate(self.teachers[1]):
            return answer_states(self.lm, cache, Rows.of(packs, self.lm.device))

    @torch.no_grad()
    def _unaided(self, rows: Rows) -> Tensor:
        """The bare model's states [t, d] of the answer tokens, without memories."""
        return answer_states(self.lm, reading_cache(self.lm, [[] for _ in rows.ids]), rows)

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss per answer token on the held-out packs, in nats, by ratio."""
        figures = {}
        for ratio in RATIOS:
            judged = (
                [pack for drawn in several for pack in drawn]
                for several in batched(self.held_out, self.batch)
            )
            losses = [self._read(packs, ratio, Objectives()) for packs in judged]
            figures[f"held_out@{ratio}x"] = sum(x for x, _ in losses) / sum(n for _, n in losses)
        return figures

    def score(self, figures: Mapping[str, float]) -> float:
        """The mean of these losses."""
        return sum(figures.values()) / len(figures)

    def save(self, folder: Path) -> None:
        """Write the adapters in peft's format."""
        self.write(folder)

    def state(self) -> Any:
        """The positions of the mixture and of the warm start."""
        return [self.seen, self.mixture.state()]

    def restore(self, state: list[Any]) -> None:
        """Continue from these positions."""
        self.seen = state[0]
        self.mixture.restore(state[1])


def reading_cache(lm: FrozenModel, rows: Sequence[Sequence[SoftTokens]]) -> MemoryCache:
    """Each row's memories as `neural.reader` reads them, with gradients.

    Args:
        lm: The model.
        rows: The memories of each prompt, in the order in which they are read.
    """
    with lm.activate("encoder"):
        return soft_cache(lm, rows, NON_BEST_BIAS)


def _distance(
    own_states: Sequence[Tensor], teacher_states: Sequence[Tensor], supervised: Tensor
) -> Tensor:
    """state_distance of the rows that the teacher read: the reader's first ones, to the length of
    the longest among them.

    Args:
        own_states: By layer, the reader's states [n, m, d].
        teacher_states: By layer, the teacher's [rows, longest, d].
        supervised: bool [n, m], True for the tokens that count.
    """
    rows, longest = teacher_states[0].shape[:2]
    counted = supervised[:rows, :longest]  # (rows, longest)
    own = [states[:rows, :longest][counted].float() for states in own_states]  # (t, d) each
    target = [states[counted].float() for states in teacher_states]
    return state_distance(own, target)


def _cut(tensor: Tensor) -> Tensor:
    """The same with gradients of its own, which end here."""
    return tensor.detach().requires_grad_(tensor.requires_grad)
