"""What the conversation itself tells: read where the memory does not tell. No torch, no SQL in
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from cmt_sdk.answering.asking import Ask
from cmt_sdk.text.prompt_messages import UNKNOWN, abstains
from cmt_sdk.text.provenance import repeats, trace_answer, trust
from cmt_sdk.text.words.folding import legible
from cmt_sdk.types import Answer, Piece, Prompt

Read = Callable[[Prompt, int], Iterator[Piece]]  # prompt and tokens at most: see ports.Reader.read


def or_from_conversation(
    pieces: Iterable[str | Answer], ask: Ask, passages: Sequence[str], read: Read
) -> Iterator[str | Answer]:
    """The pieces of an answer, or of one from `passages` of the conversation where the memory does
    not tell.

    The first words, which may become "I don't know.", are held back until it is clear.
    """
    held, is_shown = "", False
    for piece in pieces:
        if isinstance(piece, Answer):
            answer = piece
            if abstains(held):
                answer = _from_conversation(piece, ask, passages, read)
            if held:
                yield held if answer is piece else answer.text
            yield answer
            return
        held += piece
        if is_shown or not UNKNOWN.startswith(held.strip()):
            yield held
            held, is_shown = "", True


def _from_conversation(known: Answer, ask: Ask, passages: Sequence[str], read: Read) -> Answer:
    """An answer from the conversation, read as notes are; the one that is `known` where that does
    not tell either, or is less probable than that the memory does not tell.
    """
    pieces = list(read(Prompt(legible(ask.question), texts=passages), ask.max_tokens))
    text, usage = "".join(p.text for p in pieces).strip(), pieces[-1].usage
    assert usage is not None  # noqa: S101 - the port says that the last piece has it
    more = {"prefill": usage.prefill_ms, "decode": usage.decode_ms}
    spent = dict(known.milliseconds) | {
        k: known.milliseconds.get(k, 0.0) + v for k, v in more.items()
    }
    tokens = known.prompt_tokens + usage.prompt_tokens
    found = trace_answer(ask.question, text, [("", passage) for passage in passages])
    confidence = usage.confidence * trust(found, 0.0, echoes=repeats(ask.question, text))
    # the confidence of "I don't know." is the probability that it is wrong; without a passage
    # nothing was read that could be less probable
    unknown = 1.0 - known.confidence if known.answer_tokens else 0.0
    if not text or abstains(text) or confidence < unknown:
        return replace(known, prompt_tokens=tokens, milliseconds=spent)
    return replace(
        known,
        text=text,
        sources=[],
        spans=[],
        abstained=False,
        confidence=confidence,
        prompt_tokens=tokens,
        answer_tokens=usage.answer_tokens,
        milliseconds=spent,
    )
