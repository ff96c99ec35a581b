"""MemoryModel: asks: finds passages, loads their compressed forms, reads them. No torch, no SQL in
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cmt_sdk.answering.answerer import Answerer, TracedAnswer, timed, traced_answer
from cmt_sdk.answering.asking import Ask, Asking, FoundAsk, Stream, with_limit
from cmt_sdk.answering.conversation import or_from_conversation
from cmt_sdk.answering.generating import Writer, reminders
from cmt_sdk.answering.sources import sources_of
from cmt_sdk.config.settings import Settings
from cmt_sdk.ports import ChatGenerator
from cmt_sdk.retrieval.context import QUERY, as_passages, exchanges, shortened, system_turns
from cmt_sdk.retrieval.question import check_question
from cmt_sdk.retrieval.ranking import leading_within
from cmt_sdk.retrieval.retriever import CANDIDATES, Retriever
from cmt_sdk.system.background import Worker
from cmt_sdk.text.prompt_messages import UNKNOWN, abstains
from cmt_sdk.types import Answer, CompressedPassage, Intent, Match, Prompt, Turn, Usage, Vector

PASSAGES = 5


class MemoryModel(Asking):
    """The frozen LLM bound to a memory: `ask` answers from what was added. Made by `cmt_sdk.open`,
    as `memory.model`.
    """

    def __init__(
        self,
        retriever: Retriever,
        settings: Settings,
        worker: Worker,
        generator: ChatGenerator | None = None,
    ) -> None:
        self._retriever = retriever
        self._worker = worker
        self._settings = settings
        self._answerer = Answerer(retriever, copy_margin=settings.copy_margin)
        self._writer = None if generator is None else Writer(generator)

    @property
    def generates(self) -> bool:
        """Whether a generator writes in place of the frozen model."""
        return self._writer is not None

    def start_answer(self, asked: Ask) -> Stream:
        """Start the answer to a checked question; see `ask`."""
        if asked.history is not None:
            asked = replace(asked, question=self._retriever.shorten(asked.question))
        pieces = self._pieces(asked)
        passages = as_passages(asked.history or ())
        if passages and asked.reader != "none" and self._writer is None:
            pieces = or_from_conversation(pieces, asked, passages, self._answerer.pieces)
        return Stream(with_limit(pieces, asked.max_tokens))

    def converse(
        self, asked: Ask, intent: Intent, *, kept: str | None = None, keeps: bool = True
    ) -> Stream:
        """Reply to a turn of a conversation with the generator, from the passages that fit.

        Args:
            asked: The message with its options; its history holds the turns before it.
            intent: The wishes of the message.
            kept: The id of the document that holds what it states; None where nothing was kept.
            keeps: Whether the conversation is kept at all.

        Returns:
            The reply as it comes.

        Raises:
            GeneratorError: The generator gives none.
        """
        asked = replace(asked, question=self._retriever.shorten(asked.question))
        pieces = self._replied(asked, intent, kept=kept, keeps=keeps)
        return Stream(with_limit(pieces, asked.max_tokens))

    def _replied(
        self, ask: Ask, intent: Intent, *, kept: str | None, keeps: bool
    ) -> Iterator[str | Answer]:
        assert self._writer is not None  # noqa: S101 - see `generates`
        times: dict[str, float] = {}
        asks = intent.asks and not intent.chats
        matches: Sequence[Match] = []
        if ask.reader != "none" and not self._is_out_of_reach(ask, times):
            matches = self._find(ask, times).matches
        if not asks:
            matches = reminders(matches, kept)
        elif not (matches or ask.history or intent.general or intent.tells):
            yield from self._unknown_answer(ask, times)
            return
        if asks and not intent.general:
            answer = yield from self._writer.answer(ask, matches)
        else:
            answer = yield from self._writer.reply(ask, matches, kept=kept is not None, keeps=keeps)
        yield self._answer(answer, times)

    def talk(self, text: str, *, history: Sequence[Turn] = (), max_tokens: int = 64) -> Stream:
        """Answer small talk with the bare model, by its own chat template and without notes, or
        with the generator.

        Args:
            text: The message, at most 20,000 characters.
            history: The turns before it, oldest first.
            max_tokens: The longest reply, in tokens.

        Returns:
            The reply as it comes.

        Raises:
            InvalidInput: An empty or too long text, or one with NUL or a lone surrogate.
        """
        check_question(text)
        ask = Ask(text, reader="none", max_tokens=max_tokens, history=history)
        return Stream(with_limit(self._talked(ask), max_tokens))

    def small_talk(self, text: str) -> list[tuple[float, str, str]]:
        """Exchanges of small talk (nearness to the text, message, reply), nearest first; nearness
        is at most 1.
        """
        return self._retriever.small_talk(text)

    def _talked(self, ask: Ask) -> Iterator[str | Answer]:
        if self._writer is not None:
            answer = yield from self._writer.answer(ask, [])
            yield self._answer(answer, {})
            return
        prompt = Prompt(ask.question, ask.history or (), notes=False, talk=True)
        text, usage = [], None
        for piece in self._answerer.pieces(prompt, ask.max_tokens):
            text.append(piece.text)
            usage = piece.usage
            yield piece.text
        yield self._answer(traced_answer(ask, "none", [], "".join(text), usage), {})

    def embed(self, texts: Sequence[str]) -> Vector:
        """Embed texts as questions, for `Memory.nearest`.

        Args:
            texts: Questions, each of at most 20,000 characters.

        Returns:
            Float32 [n, dimension]; each row has length 1.

        Raises:
            InvalidInput: An empty text.
            ModelMismatch: Another model than the one that is open made the compressed passages.
        """
        for text in texts:
            check_question(text)
        found: Vector = (
            np.stack([self._retriever.embed_question(t) for t in texts])
            if texts
            else np.zeros((0, 0), np.float32)
        )
        return found

    def _pieces(self, ask: Ask) -> Iterator[str | Answer]:
        """The answer; behind it, passages that were read from their text are compressed."""
        passage_encoder = self._retriever.passage_encoder
        try:
            yield from self._answered(ask)
        finally:
            if passage_encoder.cold_read:
                self._worker.wake(passage_encoder.compress_cold)

    def _answered(self, ask: Ask) -> Iterator[str | Answer]:
        times: dict[str, float] = {}
        found = ask.with_found(ask.history)
        if ask.reader != "none" and not self._is_out_of_reach(ask, times):
            found = self._find(ask, times)
        if not found.matches and ask.reader != "none" and not (self._writer and ask.history):
            yield from self._unknown_answer(ask, times)
            return
        if self._writer is not None:
            answer = yield from self._writer.answer(ask, found.matches)
            yield self._answer(answer, times)
            return
        superseded = [m for m in found.matches if m.superseded_by is not None]
        current = [m for m in found.matches if m.superseded_by is None]
        if superseded or (ask.reader == "memory" and self._settings.reads_best_first):
            answer = self._answerer.read_best_first(found, current, superseded, times)
            yield answer.text
        elif ask.reader == "auto":
            answer = self._answerer.read_auto(found, current, times)
            yield answer.text
        else:
            answer = yield from self._answerer.stream(found, current, times)
        unread = [m for m in superseded if m not in answer.matches]
        yield self._answer(answer, times, [*answer.older, *unread])

    def _is_out_of_reach(self, ask: Ask, times: dict[str, float]) -> bool:
        """True if no document fits the filter; asked only while the model is not loaded, which
        would be loaded in vain.
        """
        if self._retriever.engine.loaded or timed(
            times, "search", lambda: self._retriever.store.count(ask.filter)
        ):
            return False
        times["encode"] = 0.0
        return True

    def _find(self, ask: Ask, times: dict[str, float]) -> FoundAsk:
        """The question with the passages to read, and the earlier exchange that it refers to."""
        query = ask.question if ask.history is None else shortened(ask.question, QUERY)
        vector = timed(times, "encode", lambda: self._retriever.embed_question(query))
        k = ask.k or (PASSAGES if ask.budget is None else CANDIDATES)
        earlier = exchanges(ask.history or ())
        found = timed(
            times, "search", lambda: self._retriever.gather(query, earlier, k, ask.filter, vector)
        )
        timed(times, "load", lambda: self._retriever.compress_missing(found))
        stage = "rerank" if self._settings.rerank_depth and len(found) > 1 else "search"
        loaded: dict[int, CompressedPassage] = {}
        read = 0 if self.generates or ask.reader == "text" else k  # else the text is read later
        found = timed(times, stage, lambda: self._retriever.rank(query, found, loaded, read))
        about = found[0].about if found else None
        history = ask.history
        if found and history is not None:
            history = [*system_turns(history), *(about.turns if about else ())]
        matches = [c.match for c in found[:k]]
        if len(matches) > 1:
            # Pairs that the probe can judge are left to Renewer, after the frozen model's answer.
            matches = timed(
                times,
                "newest",
                lambda: self._retriever.supersession.choose_by_time(
                    query, matches, with_statements=self.generates
                ),
            )
        if ask.budget is not None:
            costs = [self._cost(m.passage.tokens, ask.reader) for m in matches]
            matches = matches[: max(1, leading_within(costs, ask.budget))]
        return ask.with_found(history, matches, loaded)

    def _cost(self, tokens: int, reader: str) -> int:
        """Context entries that a passage of `tokens` tokens takes when it is read."""
        if reader == "text" or self.generates:
            return tokens
        return round(tokens * self._settings.method.share(self._settings, tokens))

    def _unknown_answer(self, ask: Ask, times: dict[str, float]) -> Iterator[str | Answer]:
        yield UNKNOWN
        yield self._answer(
            traced_answer(ask, ask.reader, [], UNKNOWN, Usage(0, 0, 0.0, 0.0, 0.0, 0.0)), times
        )

    def _answer(
        self, answer: TracedAnswer, times: Mapping[str, float], older: Sequence[Match] = ()
    ) -> Answer:
        usage, kind, stages = answer.usage, answer.kind, dict(times)
        stages["load"] = stages.get("load", 0.0) + usage.load_ms
        stages |= {"prefill": usage.prefill_ms, "decode": usage.decode_ms}
        text = answer.text.strip()
        sources, spans = sources_of(text, answer.matches, answer.found, older)
        return Answer(
            text=text,
            sources=sources,
            reader=kind,
            abstained=kind != "none" and abstains(answer.text),
            confidence=answer.confidence,
            prompt_tokens=usage.prompt_tokens,
            memory_tokens=sum(m.passage.tokens for m in answer.matches) if kind == "memory" else 0,
            answer_tokens=usage.answer_tokens,
            milliseconds=stages,
            spans=spans,
        )
