"""Training soft memories (CMT, arXiv 2412.07393): an encoder that makes soft tokens, and a reader for them, together.

The teacher is the same model reading the text with the adapters shipped for it; its divergence alone taught small models best
(arXiv 2510.20797). Ratios are drawn for each example, after a warm start in which nothing, then half is squeezed out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.quantization import through
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.soft import SoftCompressor
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.packs import Pack, draw
from cmt_sdk.training.reader import answer_logits, encode, notes_of

RATIOS = (4, 8, 16)
WARM = ((1, 0.1), (2, 0.1))  # ratios of the warm start, each with its share of the examples


@dataclass
class SoftTask:
    """Packs of a mixture read from soft tokens; adapters "encoder" and "reader" learn, and the map `projection` [d, d].

    teachers: the adapter names ("encoder", "reader") of the teacher, or None without one. examples: how many the run will
    see, which paces the warm start. without: names of recipe.PIECES that are left out. write: saves the adapters to a folder;
    write_map: the projection to a file.
    """

    lm: FrozenModel
    rotary: Rotary | None
    mixture: Mixture
    held_out: Sequence[Sequence[Pack]]
    adapters: Sequence[Tensor]
    projection: Tensor
    write: Callable[[Path], None]
    write_map: Callable[[Mapping[str, Tensor], Path], None]
    objectives: Objectives
    examples: int
    teachers: tuple[str, str] | None = None
    without: Collection[str] = ()
    seen: int = 0

    def parameters(self) -> Sequence[Tensor]:
        """The adapters' tensors and the map."""
        return [*self.adapters, self.projection]

    def learn(self) -> tuple[float, int, int]:
        """The next packs' loss, their answer tokens and their questions; gradients are added."""
        packs = draw(self.lm, self.mixture, self.without)
        loss, tokens = self._read(packs, self._ratio(), self.objectives)
        self.seen += 1
        return loss, tokens, sum(p.questions for p in packs)

    def _ratio(self) -> int:
        """In the warm start the ratio of its stage, then one of RATIOS."""
        done, drawn = self.seen / max(1, self.examples), self.mixture.random.choice(RATIOS)
        if "ratios" in self.without:
            drawn = RATIOS[0]
        for ratio, share in () if "warm-start" in self.without else WARM:
            if done < share:
                return ratio
            done -= share
        return drawn

    def _read(self, packs: Sequence[Pack], ratio: int, objectives: Objectives) -> tuple[float, int]:
        """The packs' summed loss and their answer tokens. Where gradients are on, each pack's are taken at once."""
        total, tokens = 0.0, 0
        with torch.autocast(self.lm.device.type, torch.bfloat16, enabled=self.lm.dtype == torch.bfloat16):
            made = self._soft(list(dict.fromkeys(c for pack in packs for c in pack.contents)), ratio)
            soft = {c: s.detach().requires_grad_(s.requires_grad) for c, s in made.items()}
            for pack in packs:
                labels = pack.labels[pack.labels >= 0]
                logits = soft_logits(self.lm, [soft[c] for c in pack.contents], pack)
                teacher = self._teach(pack) if objectives.teacher else None
                without = self._unaided(pack) if objectives.alpha else None
                loss = objectives.loss(logits, labels, teacher, without)
                if torch.is_grad_enabled():
                    with self.lm.activate("reader"):  # layers that compute again must find what was on before
                        loss.backward()  # type: ignore[no-untyped-call]
                total, tokens = total + float(loss.detach()), tokens + len(labels)
        if torch.is_grad_enabled():
            with self.lm.activate("encoder"):
                torch.autograd.backward([made[c] for c in soft], [s.grad for s in soft.values()])
        return total, tokens

    def _soft(self, contents: Sequence[str], ratio: int) -> dict[str, Tensor]:
        """Soft tokens [windows, d] by passage, after the round trip through four bits."""
        with self.lm.activate("encoder"):
            made, counts = SoftCompressor(self.lm, self.projection, ratio).forward([self.lm.passage_ids(c) for c in contents])
        rounded = through if "rounding" not in self.without or not torch.is_grad_enabled() else Tensor.float
        return {content: rounded(made[row, : counts[row]]) for row, content in enumerate(contents)}

    @torch.no_grad()
    def _teach(self, pack: Pack) -> Tensor | None:
        """The teacher's logits of the answer tokens [t, v]: memories with all entries, by its own adapters."""
        if self.teachers is None or self.rotary is None:
            return None
        encoder, reader = self.teachers
        with self.lm.activate(encoder):
            memories = encode(self.lm, self.rotary, pack.contents, 1.0)
        with self.lm.activate(reader):
            return answer_logits(self.lm, notes_of(self.lm, self.rotary, memories), pack)

    @torch.no_grad()
    def _unaided(self, pack: Pack) -> Tensor:
        """The bare model's logits of the answer tokens [t, v], without memories."""
        return soft_logits(self.lm, [], pack, adapter="bare")

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss an answer token on the held-out packs, by ratio."""
        figures = {}
        for ratio in RATIOS:
            losses = [self._read(packs, ratio, Objectives()) for packs in self.held_out]
            figures[f"held_out@{ratio}x"] = sum(x for x, _ in losses) / sum(n for _, n in losses)
        return figures

    def score(self, figures: Mapping[str, float]) -> float:
        """The mean of these losses."""
        return sum(figures.values()) / len(figures)

    def save(self, folder: Path) -> None:
        """Write the adapters in peft's format, and the map."""
        self.write(folder)
        self.write_map({"projection": self.projection.detach().float().cpu().contiguous()}, folder / "soft.safetensors")

    def state(self) -> Any:
        """Where the mixture and the warm start stand."""
        return [self.seen, self.mixture.state()]

    def restore(self, state: list[Any]) -> None:
        """Go on from there."""
        self.seen = state[0]
        self.mixture.restore(state[1])


def soft_logits(lm: FrozenModel, soft: Sequence[Tensor], pack: Pack, adapter: str = "reader") -> Tensor:
    """Logits of a pack's answer tokens [t, v], read after soft tokens [n, d] in one pass, as `neural.generator` reads them."""
    cache, head = lm.head_cache(1), len(lm.head_ids)
    words = lm.model.get_input_embeddings()(pack.ids)
    notes = torch.cat([s[None].to(words.dtype) for s in soft], dim=1) if soft else words[:, :0]
    count, asked = notes.shape[1], pack.ids.shape[1]
    before = torch.arange(head, head + count, device=lm.device)[None]
    with lm.activate(adapter):
        hidden = lm.states(
            cache,
            inputs_embeds=torch.cat([notes, words], dim=1),
            position_ids=torch.cat([before, pack.offsets + head + count], dim=1),
            attention_mask=_mask(pack.mask, head, count, asked),
        )[0, count:]
        return lm.logits(hidden[pack.labels >= 0])


def _mask(questions: Tensor, head: int, count: int, asked: int) -> Tensor:
    """Additive [1, 1, count + asked, head + count + asked]: soft tokens see those before them, questions all of them."""
    mask = questions.new_zeros(1, 1, count + asked, head + count + asked)
    mask[..., :count, head : head + count] = torch.full((count, count), float("-inf")).triu(1)
    mask[..., :count, head + count :] = float("-inf")
    mask[..., count:, head + count :] = questions
    return mask
