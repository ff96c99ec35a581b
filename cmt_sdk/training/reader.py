"""Training the adapters that make and read kv memories.

The loss is the answers' cross-entropy on memories as they will be stored, and, where entries are
left out, the divergence from the same adapters reading all of them. The encoder adapter is on for
the tokens of the passages, the reader adapter for those of question and answer. Where only the
reader learns, existing memories stay valid; learning both reads better after as many questions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from cmt_sdk.config.methods import kept_share
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.training.answers import answer_loss, answer_states
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.kv_entries import Entries, encode, kv_cache
from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.nf4_base import Bases
from cmt_sdk.training.packs import Pack, Rows, batched, draw, passes

# The shares of kept entries that are drawn, each with its probability: more of them where no
# encoder has learned, or learns, to gather a passage into few.
SHARES = {1.0: 0.3, 0.5: 0.1, 0.25: 0.4, 0.125: 0.2}
SHARES_WITHOUT_ENCODER = {1.0: 0.5, 0.67: 0.3, 0.5: 0.2}


@dataclass
class ReaderTask:
    """Trains on packs of a mixture, whose passages are compressed to a share of their entries.

    The reader adapter reads them.

    Args:
        lm: The model with the adapters.
        rotary: Its rotary positions.
        mixture: The stream that packs are drawn from.
        held_out: Packs of validation titles, as drawn.
        learned: The adapters' tensors.
        write: Saves the adapters to a folder.
        shares: The shares of kept entries, each with its probability.
        served: The share that a compressed passage keeps in use, to validate on.
        bases: With it, the share `nf4` of the examples is compressed and read in NF4.
        nf4: That share.
        encoder: The encoder adapter learns too.
        ablate: Names of `recipe.INGREDIENTS` to leave out of training.
        objectives: The weights of the loss.
        batch: Examples computed together.
        at_least: Tokens of a passage whose entries are kept in any case.
    """

    lm: FrozenModel
    rotary: Rotary
    mixture: Mixture
    held_out: Sequence[Sequence[Pack]]
    learned: Sequence[Tensor]
    write: Callable[[Path], None]
    shares: Mapping[float, float] = field(default_factory=SHARES.copy)
    served: float = 0.25
    bases: Bases | None = None
    nf4: float = 0.3
    encoder: bool = False
    ablate: Collection[str] = ()
    objectives: Objectives = field(default_factory=Objectives)
    batch: int = 1
    at_least: int = 0

    def __post_init__(self) -> None:
        # A second object over the same model: it keeps the prefix's entries as NF4 makes them.
        self._nf4_lm = replace(self.lm)

    def parameters(self) -> Sequence[Tensor]:
        """The adapters' tensors."""
        return self.learned

    def learn(self) -> tuple[float, int, int]:
        """The next packs' loss, answer tokens and questions; adds the gradients."""
        keeps: dict[str, float] = {}
        packs = []
        for _ in range(self.batch):
            drawn = draw(self.lm, self.mixture, self.ablate)
            # A passage of two examples is encoded once, with the share of the first one.
            keeps = self._kept(drawn, self._draw_share()) | keeps
            packs += drawn
        nf4 = self.bases is not None and self.mixture.random.random() < self.nf4
        loss, tokens = self._read(packs, keeps, self.objectives, nf4=nf4)
        return loss, tokens, sum(p.questions for p in packs)

    def _draw_share(self) -> float:
        """The share of entries that the next example keeps."""
        # Drawn in any case, so that an ablation sees the same examples.
        keep = self.mixture.random.choices(list(self.shares), list(self.shares.values()))[0]
        return 1.0 if "pruning" in self.ablate else keep

    def _kept(self, packs: Sequence[Pack], keep: float) -> dict[str, float]:
        """The share of kept entries by passage, where `keep` is that of long ones."""
        contents = {c for pack in packs for c in pack.contents}
        lengths = {c: len(self.lm.passage_ids(c)) for c in sorted(contents)}
        return {c: kept_share(n, keep, self.at_least) for c, n in lengths.items()}

    def _read(
        self,
        packs: Sequence[Pack],
        keeps: Mapping[str, float],
        objectives: Objectives,
        *,
        nf4: bool = False,
    ) -> tuple[float, int]:
        """The packs' summed loss and their answer tokens.

        1. Encode the passages once, by the encoder, to memories.
        2. In passes of `batch` packs: read them by the reader. Where gradients are on, each pass
           runs backward at once, down to the memories, so that only one pass and the passages are
           held at a time.
        3. Where the encoder learns, run backward from the memories through it, once.

        Args:
            packs: The packs.
            keeps: By passage, the share of entries that it keeps.
            objectives: The weights of the loss.
            nf4: Whether the base computes with its weights after NF4.
        """
        if self.bases is not None:
            self.bases.use(nf4=nf4)
        lm = self._nf4_lm if nf4 else self.lm
        total = 0.0
        tokens = 0
        with torch.autocast(lm.device.type, torch.bfloat16, enabled=lm.dtype == torch.bfloat16):
            made = self._memories(lm, keeps)
            memories = {c: m.cut_off() for c, m in made.items()}  # gradients are added up here
            with lm.activate("reader"):
                for some in passes(packs, self.batch):
                    read = [[memories[c] for c in pack.contents] for pack in some]
                    rows = Rows.of(some, lm.device)
                    pruned = any(keeps[c] < 1.0 for pack in some for c in pack.contents)
                    loss, count = self._loss(lm, read, rows, objectives, pruned=pruned)
                    if torch.is_grad_enabled():
                        loss.backward()  # type: ignore[no-untyped-call]
                    total = total + float(loss.detach())
                    tokens = tokens + count
        if self.encoder and torch.is_grad_enabled():
            pairs = [
                (a, b.grad)
                for c, m in made.items()
                for a, b in zip(m.tensors, memories[c].tensors, strict=True)
            ]
            reached = [(a, grad) for a, grad in pairs if grad is not None]
            # Checkpointed layers compute again, and must find the adapter on that was on before.
            with lm.activate("encoder"):
                torch.autograd.backward([a for a, _ in reached], [grad for _, grad in reached])
        return total, tokens

    def _loss(
        self,
        lm: FrozenModel,
        read: Sequence[Sequence[Entries]],
        rows: Rows,
        objectives: Objectives,
        *,
        pruned: bool,
    ) -> tuple[Tensor, int]:
        """The summed loss of the answers, and the number of their tokens.

        The teacher is the same model reading all entries. It would say the same where none is left
        out.

        Args:
            lm: The model.
            read: The memories of each pack.
            rows: The packs.
            objectives: The weights of the loss.
            pruned: Whether any entry is left out.
        """
        states = answer_states(lm, kv_cache(lm, self.rotary, read), rows)
        labels = rows.labels[rows.labels >= 0]
        teacher = None
        if objectives.teacher and pruned:
            unpruned = [[m.unpruned() for m in memories] for memories in read]
            with torch.no_grad():
                teacher = answer_states(lm, kv_cache(lm, self.rotary, unpruned), rows)
        return answer_loss(lm, objectives, states, labels, teacher), len(labels)

    def _memories(self, lm: FrozenModel, keeps: Mapping[str, float]) -> dict[str, Entries]:
        """The memories by passage, each with its share of kept entries."""
        rounding = "rounding" not in self.ablate or not torch.is_grad_enabled()
        with (
            torch.set_grad_enabled(self.encoder and torch.is_grad_enabled()),
            lm.activate("encoder"),
        ):
            made = encode(lm, self.rotary, list(keeps), list(keeps.values()), rounding=rounding)
        return dict(zip(keeps, made, strict=True))

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss per answer token on the held-out packs, by the share of kept entries and the base.

        The cases are all entries, the share that is kept in use, and that with the base in NF4.
        """
        figures = {}
        served = self.served
        for keep, nf4 in [(1.0, False), (served, False), *([(served, True)] if self.bases else [])]:
            losses = [
                self._judge(several, keep, nf4=nf4)
                for several in batched(self.held_out, self.batch)
            ]
            name = f"held_out@{round(keep, 3)}{' nf4' if nf4 else ''}"
            figures[name] = sum(x for x, _ in losses) / sum(n for _, n in losses)
        return figures

    def _judge(
        self, several: Sequence[Sequence[Pack]], keep: float, *, nf4: bool
    ) -> tuple[float, int]:
        """The summed loss of held-out examples and their answer tokens, at one share."""
        packs = [pack for drawn in several for pack in drawn]
        return self._read(packs, self._kept(packs, keep), Objectives(), nf4=nf4)

    def score(self, figures: Mapping[str, float]) -> float:
        """The mean of these losses."""
        return sum(figures.values()) / len(figures)

    def save(self, folder: Path) -> None:
        """Write the adapters in peft's format, each to a folder of its name."""
        self.write(folder)

    def state(self) -> object:
        """The position of the mixture."""
        return self.mixture.state()

    def restore(self, state: list[object]) -> None:
        """Continue from that position."""
        self.mixture.restore(state)
