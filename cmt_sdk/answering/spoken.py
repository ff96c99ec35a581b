"""What the conversation itself tells: read where the memory does not tell. No torch, no SQL in
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from cmt_sdk.retrieval.retriever import Retriever
from cmt_sdk.text.prompting import UNKNOWN, abstains
from cmt_sdk.text.provenance import repeats, traces, trust
from cmt_sdk.text.words.folding import legible
from cmt_sdk.types import Answer, Prompt


def or_spoken(
    pieces: Iterable[str | Answer],
    question: str,
    passages: Sequence[str],
    retriever: Retriever,
    max_tokens: int,
) -> Iterator[str | Answer]:
    """The pieces of an answer, or of one from `passages` of the conversation where the memory does
    not tell.

    Words that may become "I don't know." are held back until it is clear.
    """
    held = ""
    for piece in pieces:
        if isinstance(piece, Answer):
            answer = (
                _spoken(piece, question, passages, retriever, max_tokens)
                if abstains(held)
                else piece
            )
            if held:
                yield held if answer is piece else answer.text
            yield answer
            return
        held += piece
        if not UNKNOWN.startswith(held.strip()):
            yield held
            held = ""


def _spoken(
    known: Answer, question: str, passages: Sequence[str], retriever: Retriever, max_tokens: int
) -> Answer:
    """An answer from the conversation, read as notes are; the one that is `known` where that does
    not tell either.
    """
    prompt = Prompt(legible(question), passages=passages)
    with retriever.lock:
        read = list(retriever.engine.reader.read(prompt, max_tokens))
    text, usage = "".join(p.text for p in read).strip(), read[-1].usage
    assert usage is not None  # noqa: S101 - the port says that the last piece has it
    more = {"prefill": usage.prefill_ms, "decode": usage.decode_ms}
    spent = dict(known.milliseconds) | {
        k: known.milliseconds.get(k, 0.0) + v for k, v in more.items()
    }
    tokens = known.prompt_tokens + usage.prompt_tokens
    if not text or abstains(text):
        return replace(known, prompt_tokens=tokens, milliseconds=spent)
    found = traces(question, text, [("", passage) for passage in passages])
    return replace(
        known,
        text=text,
        sources=[],
        abstained=False,
        confidence=usage.confidence * trust(found, 0.0, echoes=repeats(question, text)),
        prompt_tokens=tokens,
        answer_tokens=usage.answer_tokens,
        milliseconds=spent,
    )
