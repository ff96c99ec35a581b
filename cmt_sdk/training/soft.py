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

from cmt_sdk.neural.depth import watching
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import batches
from cmt_sdk.neural.quantization import through
from cmt_sdk.neural.reading import PRIOR
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.soft import Soft, SoftCompressor, depth, notes_of
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.losses import Objectives, state_distance
from cmt_sdk.training.packs import Pack, Rows, batched, draw, passes, repetition
from cmt_sdk.training.reader import AT_ONCE, Entries, GradientPrefix, answer_logits, encode
from cmt_sdk.training.reader import notes_of as kv_notes_of

RATIOS = {4: 0.5, 8: 0.3, 16: 0.2}  # with the probability of each
REPEATED = 0.6  # share of examples with a passage to repeat, at first; it falls to 0
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
        loss, tokens = self._read(packs, self._ratio(), self.objectives)
        self.seen += 1
        return loss, tokens, sum(p.questions for p in packs)

    def _drawn(self) -> list[Pack]:
        """An example; most also get one of their passages to repeat, at first."""
        packs, rng = draw(self.lm, self.mixture, self.ablate), self.mixture.random
        if (
            "repetition" in self.ablate
            or not self.objectives.answer
            or rng.random() >= REPEATED * (1 - self._done)
        ):
            return packs
        return [*packs, repetition(self.lm, rng.choice(rng.choice(packs).contents))]

    @property
    def _done(self) -> float:
        """The share of the run that is over."""
        return min(1.0, self.seen / max(1, self.examples))

    def _ratio(self) -> int:
        """The ratio of the warm start's stage, later a random one of RATIOS."""
        done, ratios = self._done, [*RATIOS]
        drawn = (
            ratios[0]
            if "ratios" in self.ablate
            else self.mixture.random.choices(ratios, [*RATIOS.values()])[0]
        )
        for ratio, share in () if "warm-start" in self.ablate else WARM:
            if done < share:
                return ratio
            done -= share
        return drawn

    def _read(self, packs: Sequence[Pack], ratio: int, objectives: Objectives) -> tuple[float, int]:
        """The packs' summed loss and their answer tokens; each pass runs backward at once."""
        total, tokens = 0.0, 0
        with torch.autocast(
            self.lm.device.type, torch.bfloat16, enabled=self.lm.dtype == torch.bfloat16
        ):
            made = self._soft(
                list(dict.fromkeys(c for pack in packs for c in pack.contents)), ratio
            )
            soft = {c: replace(s, rows=_cut(s.rows)) for c, s in made.items()}
            taught = (
                self._taught([p for p in packs if p.questions])
                if objectives.teacher or objectives.states
                else {}
            )
            # packs with questions first: the teacher reads these
            order = sorted(packs, key=lambda p: (not p.questions, p.ids.shape[1]))
            for some in passes(order, self.at_once):
                rows, asking = Rows.of(some, self.lm.device), [p for p in some if p.questions]
                labels = rows.labels[rows.labels >= 0]
                whole = soft_notes(self.lm, [[soft[c] for c in pack.contents] for pack in some])
                notes = replace(
                    whole,
                    keys=[_cut(k) for k in whole.keys],
                    values=[_cut(v) for v in whole.values],
                )
                with (
                    self.lm.activate("reader"),
                    watching(self.lm, self._watched(objectives)) as mine,
                ):
                    logits = answer_logits(self.lm, notes, rows)
                with watching(self.lm, self._watched(objectives)) as theirs:
                    teacher = (
                        self._teach([[taught[c] for c in pack.contents] for pack in asking], asking)
                        if taught
                        else None
                    )
                without = self._unaided(rows) if objectives.alpha else None
                loss = objectives.loss(logits, labels, teacher, without)
                if teacher is not None and theirs:
                    loss = loss + objectives.states * len(teacher) * _distance(
                        mine, theirs, rows.supervised
                    )
                if torch.is_grad_enabled():
                    self._backward(loss, whole, notes)
                total, tokens = total + float(loss.detach()), tokens + len(labels)
        if torch.is_grad_enabled():
            with self.lm.activate("encoder"):
                torch.autograd.backward(
                    [made[c].rows for c in soft], [s.rows.grad for s in soft.values()]
                )
        return total, tokens

    def _watched(self, objectives: Objectives) -> Sequence[int]:
        """The layers whose states are compared with the teacher's: every second above the entry."""
        return (
            range(2 * depth(self.lm) - 1, len(self.lm.blocks), 2)
            if objectives.states and self.teachers
            else ()
        )

    def _backward(self, loss: Tensor, whole: GradientPrefix, notes: GradientPrefix) -> None:
        """Run backward through the reader, then through the encoder.

        Layers that recompute need the adapter that was on in forward.
        """
        with self.lm.activate("reader"):
            loss.backward()  # type: ignore[no-untyped-call]
        pairs = zip([*whole.keys, *whole.values], [*notes.keys, *notes.values], strict=True)
        reached = [(a, b.grad) for a, b in pairs if a.requires_grad and b.grad is not None]
        with self.lm.activate("encoder"):
            torch.autograd.backward([a for a, _ in reached], [grad for _, grad in reached])

    def _soft(self, contents: Sequence[str], ratio: int) -> dict[str, Soft]:
        """Soft tokens by passage, after the round trip through four bits."""
        rounded = (
            through
            if "rounding" not in self.ablate or not torch.is_grad_enabled()
            else Tensor.float
        )
        ids, soft = [self.lm.passage_ids(c) for c in contents], dict[str, Soft]()
        for some in batches([len(i) for i in ids], AT_ONCE):
            with self.lm.activate("encoder"):
                made = SoftCompressor(self.lm, ratio).forward([ids[i] for i in some])
            rows = torch.split(
                rounded(torch.cat([m.rows for m in made])), [len(m.ends) for m in made]
            )
            soft.update(
                {contents[i]: replace(m, rows=r) for i, m, r in zip(some, made, rows, strict=True)}
            )
        return soft

    @torch.no_grad()
    def _taught(self, packs: Sequence[Pack]) -> dict[str, Entries]:
        """The teacher's memories by passage, with all entries; empty without a teacher."""
        if self.teachers is None or self.rotary is None:
            return {}
        contents = list(dict.fromkeys(c for pack in packs for c in pack.contents))
        with self.lm.activate(self.teachers[0]):
            return dict(
                zip(
                    contents,
                    encode(self.lm, self.rotary, contents, [1.0] * len(contents)),
                    strict=True,
                )
            )

    @torch.no_grad()
    def _teach(self, memories: Sequence[Sequence[Entries]], packs: Sequence[Pack]) -> Tensor | None:
        """The teacher's logits [t, v] of these packs' answer tokens, by its own adapters."""
        if self.teachers is None or self.rotary is None or not packs:
            return None
        with self.lm.activate(self.teachers[1]):
            return answer_logits(
                self.lm, kv_notes_of(self.lm, self.rotary, memories), Rows.of(packs, self.lm.device)
            )

    @torch.no_grad()
    def _unaided(self, rows: Rows) -> Tensor:
        """The bare model's logits [t, v] of the answer tokens, without memories."""
        return answer_logits(self.lm, soft_notes(self.lm, [[] for _ in rows.ids]), rows)

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss per answer token on the held-out packs, by ratio."""
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


def soft_notes(lm: FrozenModel, rows: Sequence[Sequence[Soft]]) -> GradientPrefix:
    """Each row's memories as a prefix, as `neural.generator` reads them."""
    with lm.activate("encoder"):
        made = notes_of(lm, rows, PRIOR)
    starts = torch.tensor(made.starts, device=lm.device)[:, None]
    return GradientPrefix(
        made.keys, made.values, made.bias, [k.shape[2] for k in made.keys], max(made.starts), starts
    )


def _distance(mine: Sequence[Tensor], theirs: Sequence[Tensor], supervised: Tensor) -> Tensor:
    """state_distance of the rows that the teacher read, the reader's first ones.

    `supervised` [n, m] selects their tokens.
    """
    rows, longest = theirs[0].shape[:2]
    supervised = supervised[:rows, :longest]
    return state_distance(
        [s[:rows, :longest][supervised].float() for s in mine],
        [s[supervised].float() for s in theirs],
    )


def _cut(tensor: Tensor) -> Tensor:
    """The same with gradients of its own, which end here."""
    return tensor.detach().requires_grad_(tensor.requires_grad)
