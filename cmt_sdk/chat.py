"""Chat: a conversation over a memory. It understands a turn, keeps its statements and answers it.

It keeps a statement before it writes the reply: a reply that is stopped loses nothing. It answers
questions from memory, acknowledges statements, and answers small talk as in the most similar
exchange, else with the bare model. A generator, where there is one, writes all of these replies
from the memories that fit. "Forget …" names what it concerns, and erases once the next
turn agrees. The turns alone carry that over, so that a client that sends them all, as those of
OpenAI's API do, can confirm as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cmt_sdk.answering.asking import Ask, Stream, filter_of
from cmt_sdk.answering.model import MemoryModel
from cmt_sdk.errors import DocumentNotFound
from cmt_sdk.retrieval.context import shortened
from cmt_sdk.retrieval.question import LONGEST_QUESTION
from cmt_sdk.text import fixed_replies
from cmt_sdk.text.provenance import words_of
from cmt_sdk.text.splitting.boundaries import sentence_ends
from cmt_sdk.types import Answer, Document, Intent, Receipt, Turn
from cmt_sdk.understanding.utterances import common_words

TURNS_KEPT = 24
TALK_TOKENS = 48  # of a reply to small talk, of which SENTENCES are given
SENTENCES = 2
WRITTEN_TOKENS = 512  # of a reply of a generator
# Nearness from which an exchange of small talk is taken for the same. Of 43 messages that are not
# among the exchanges 24 were nearer than that to one, whose reply fitted 22 of them; questions
# about the world lay below.
ALIKE = 0.5
SHOWN = 4  # exchanges that show the model how other small talk is answered
LONGEST_TALK = 2000  # characters of small talk that the model reads, its end


class ChatNotebook(Protocol):
    """The calls of a memory that a conversation needs, next to its model."""

    def understand(self, text: str) -> Intent:
        """What a message wants."""

    def keep(self, text: str) -> tuple[Document, Sequence[Document], bool]:
        """Remember a statement; returns it as stored, the documents that it replaces, and whether
        it was new.
        """

    def notes(self) -> Sequence[Document]:
        """What conversations have kept, oldest first."""

    def concerned(self, request: str) -> Sequence[Document]:
        """What a request to forget concerns."""

    def erase(self, documents: Sequence[Document]) -> Sequence[Receipt]:
        """Forget documents, with their receipts."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A turn as it was understood, and its effects on the memory.

    Attributes:
        intent: The wishes of the message.
        kept: The document that holds the statement; None where nothing was kept.
        is_new: Whether that document was not there before.
        replaced: The documents that it replaces.
        reply: The reply, where it needs no model; else empty.
        receipts: Those of forgotten documents.
    """

    intent: Intent
    kept: Document | None = None
    is_new: bool = False
    replaced: Sequence[Document] = ()
    reply: str = ""
    receipts: Sequence[Receipt] = ()


class Chat:
    """A conversation, made by `Memory.chat`.

    `turns` holds all of it; the last `TURNS_KEPT` turns go with each question. `last` is the last
    answer, with its sources; `heard` is what came of the last turn; `stated` holds the turns whose
    statements were kept and are still there, oldest first.
    """

    def __init__(
        self,
        model: MemoryModel,
        notebook: ChatNotebook,
        options: Mapping[str, Any],
        *,
        remember: bool = False,
        turns: Sequence[Turn] = (),
    ) -> None:
        self._model = model
        self._notebook = notebook
        self._options = dict(options)
        self._remember = remember
        self.turns: list[Turn] = fixed_replies.without_erased(turns)
        self.last: Answer | None = None
        self.heard: Heard | None = None
        self.stated: list[Heard] = []
        self._has_offered = False  # by `forget`, to erase

    def say(self, text: str) -> Answer:
        """Say something and get the reply; options as for `MemoryModel.ask`."""
        return self.stream(text).answer

    def stream(self, text: str) -> Stream:
        """Send a message and get the reply in pieces; a statement is kept when this returns."""
        return self.reply(self.hear(text))

    def hear(self, text: str) -> Heard:
        """Understand a turn, and keep or forget what it says; `reply` answers it."""
        pending = self._pending()
        self._has_offered = False
        intent = self._notebook.understand(text)
        self.heard = self._obeyed(intent, pending) or self._kept(intent)
        return self.heard

    def reply(self, heard: Heard) -> Stream:
        """The reply to a turn that was heard, in pieces; at its end the turn is part of `turns`."""
        return Stream(self._pieces(heard))

    def keep(self, text: str) -> Heard:
        """Keep a text, whatever it says, without a reply."""
        kept, replaced, is_new = self._notebook.keep(text)
        self.heard = Heard(Intent(text, statement=text), kept, is_new, replaced)
        self.stated.append(self.heard)
        return self.heard

    def forget(self, text: str) -> Stream:
        """Name what conversations have kept about something; the next turn erases it if it agrees.

        The reply is that to "Forget ...", whatever the words of the text, and also where the
        conversation keeps nothing.
        """
        self.heard = self._offer(Intent(text, forgets=True))
        self._has_offered = True
        return self.reply(self.heard)

    def undo(self) -> Heard:
        """Take back the last statement that this conversation kept, with its turn and answer.

        What it replaced is the newest again. A text that was there before stays.

        Returns:
            The turn as it was heard, with the receipt where its document was erased.

        Raises:
            DocumentNotFound: No statement is left to take back.
        """
        if not self.stated:
            raise DocumentNotFound(
                "nothing was remembered in this conversation; `cmt forget` erases what was before"
            )
        heard = self.stated.pop()
        assert heard.kept is not None  # noqa: S101 - only such turns are in `stated`
        text = heard.kept.text
        places = [n for n, t in enumerate(self.turns) if t.role == "user" and text in t.content]
        for place in reversed(places):
            del self.turns[place : place + 2]  # the turn and its answer
        receipts = self._notebook.erase([heard.kept]) if heard.is_new else ()
        return replace(heard, receipts=receipts)

    def memories(self) -> Sequence[Document]:
        """What conversations in this scope have kept, oldest first."""
        return self._notebook.notes()

    # -- before the reply ------------------------------------------------------------------------

    def _pending(self) -> Sequence[Document]:
        """The documents whose erasure the last reply offered and the next turn may confirm.

        They are found again: only documents that the question named are erased.
        """
        contents = [turn.content for turn in self.turns if turn.role != "system"]
        request, question = contents[-2:] if len(contents) > 1 else ("", "")
        may_erase = self._remember or self._has_offered
        if not may_erase or fixed_replies.ASSENT not in question:
            return []
        found = self._notebook.concerned(request)
        named = fixed_replies.confirmation([d.text for d in found])
        return found if named.split() == question.split() else []

    def _obeyed(self, intent: Intent, pending: Sequence[Document]) -> Heard | None:
        """A request to forget, and the answer to the question whether to; None for other turns."""
        if pending and intent.agrees:
            receipts = self._notebook.erase(pending)
            gone = {document.id for document in pending}
            self.stated = [h for h in self.stated if h.kept and h.kept.id not in gone]
            traces = sum(r.traces_found for r in receipts)
            complete = all(r.complete for r in receipts)
            reply = fixed_replies.erased(len(pending), traces, complete=complete)
            return Heard(intent, reply=reply, receipts=receipts)
        if intent.forgets and not intent.machine:
            return (
                self._offer(intent)
                if self._remember
                else Heard(intent, reply=fixed_replies.UNCHANGED)
            )
        if pending and not (intent.tells or intent.asks or intent.machine):
            return Heard(intent, reply=fixed_replies.STAYS)
        return None

    def _offer(self, intent: Intent) -> Heard:
        """The question whether to erase what a request concerns."""
        found = self._notebook.concerned(intent.text)
        question = fixed_replies.confirmation([d.text for d in found])
        return Heard(intent, reply=question if found else fixed_replies.CONCERNS_NOTHING)

    def _kept(self, intent: Intent) -> Heard:
        if intent.machine or not intent.tells:
            return Heard(intent)
        if not self._remember and self._model.generates:
            return Heard(intent)
        if not self._remember:
            reply = fixed_replies.UNCHANGED if intent.remembers else fixed_replies.HEARD
            return Heard(intent, reply="" if intent.asks else reply)
        kept, replaced, is_new = self._notebook.keep(intent.statement)
        noted = fixed_replies.noted(intent.statement, [d.text for d in replaced])
        reply = fixed_replies.NOTED if intent.asks else noted
        reply = "" if self._model.generates else reply
        heard = Heard(intent, kept, is_new, replaced, reply)
        self.stated.append(heard)
        return heard

    # -- the reply -------------------------------------------------------------------------------

    def _pieces(self, heard: Heard) -> Iterator[str | Answer]:
        intent = heard.intent
        if heard.reply and not (intent.asks and heard.kept):
            yield heard.reply
            answer = _fixed(heard.reply)
        elif heard.reply:
            answer = self._noted_and_answered(heard)
            yield answer.text
        else:
            running = self._generated(heard) if self._model.generates else self._running(intent)
            yield from running
            answer = running.answer
        self.last = answer
        self.turns += [Turn("user", intent.text), Turn("assistant", answer.text)]
        if heard.receipts:
            self.turns = fixed_replies.without_erased(self.turns)
        yield answer

    def _noted_and_answered(self, heard: Heard) -> Answer:
        """The receipt for a statement, and the answer where it adds something.

        It adds nothing where it is from the kept text itself, and where one sentence both tells and
        seems to ask, and the memory has no answer.
        """
        answer = self._running(heard.intent).answer
        is_echo = bool(
            heard.kept and answer.sources and answer.sources[0].document_id == heard.kept.id
        )
        if is_echo or (answer.abstained and heard.intent.asked in heard.intent.statement):
            return _fixed(
                fixed_replies.noted(heard.intent.statement, [d.text for d in heard.replaced])
            )
        return replace(answer, text=f"{heard.reply}\n\n{answer.text}")

    def _generated(self, heard: Heard) -> Stream:
        """The generator at work on a turn; a prompt that no person wrote gets no notes."""
        intent, options = heard.intent, self._options
        most = options.get("max_tokens", WRITTEN_TOKENS)
        if intent.machine:
            return self._model.talk(intent.text, max_tokens=most)
        asked = Ask(
            intent.text,
            k=options.get("k"),
            budget=options.get("budget"),
            reader=options.get("reader", "memory"),
            max_tokens=most,
            filter=filter_of(
                options.get("scope"),
                options.get("source"),
                options.get("where"),
                outside=options.get("outside"),
            ),
            history=self._history(),
        )
        kept = heard.kept.id if heard.kept else None
        return self._model.converse(asked, intent, kept=kept, keeps=self._remember)

    def _running(self, intent: Intent) -> Stream:
        """The model at work on a turn: from memory where it asks, else bare."""
        most = self._options.get("max_tokens", TALK_TOKENS)
        if intent.machine:
            return self._model.talk(shortened(intent.text, LONGEST_QUESTION), max_tokens=most)
        if not intent.asks or intent.chats:
            return self._small_talk(intent, min(most, TALK_TOKENS))
        asked = intent.asked if intent.tells else intent.text
        running = self._model.ask(asked, stream=True, history=self._history(), **self._options)
        answer = running.answer if intent.general else None
        if (
            answer is not None
            and answer.abstained
            and not _shares_a_name(asked, [s.text for s in answer.sources])
        ):
            return self._model.ask(asked, stream=True, **(self._options | {"reader": "none"}))
        return running

    def _small_talk(self, intent: Intent, most: int) -> Stream:
        """The reply of an exchange that the message is like; else the model's.

        A conversation with rules of its own, which may say how to talk, is answered by the model.
        """
        text = intent.text[-LONGEST_TALK:]
        rules = [turn for turn in self.turns if turn.role == "system"]
        near = self._model.small_talk(text)
        nearness, _, reply = near[0]
        if nearness >= ALIKE and not rules:
            return Stream(iter([reply, _fixed(reply)]))
        shown = (
            []
            if intent.asks
            else [turn for _, *exchange in near[SHOWN - 1 :: -1] for turn in _turns(*exchange)]
        )
        running = self._model.talk(text, history=[*rules, *shown], max_tokens=most)
        return Stream(_in_short(running))

    def _history(self) -> Sequence[Turn]:
        """The turns that go with a question: all of the system's, and the last of the others."""
        turns = [turn for turn in self.turns if turn.role != "system"]
        return [*(turn for turn in self.turns if turn.role == "system"), *turns[-TURNS_KEPT:]]


def _shares_a_name(question: str, texts: Sequence[str]) -> bool:
    """Whether the question and a text share a word that is not common: the question is then about
    own notes, not about the world.
    """
    names = {word.form for word in words_of(question)} - common_words()
    return any(word.form in names for text in texts for word in words_of(text))


def _turns(message: str, reply: str) -> list[Turn]:
    return [Turn("user", message), Turn("assistant", reply)]


def _in_short(running: Stream) -> Iterator[str | Answer]:
    """The first sentences of the first line: a small model that goes on repeats itself.

    Of a sentence that does not end its first clause is given.
    """
    answer = running.answer
    line = answer.text.partition("\n")[0]
    ends = list(sentence_ends(f"{line}\n"))[:SENTENCES]
    is_cut = answer.truncated and line == answer.text
    text = line[: ends[-1]] if ends and (is_cut or len(ends) == SENTENCES) else line
    if is_cut and not ends:
        text = line.partition(",")[0] + "."
    yield text
    yield replace(answer, text=text, truncated=False)


def _fixed(text: str) -> Answer:
    """A reply that no model wrote."""
    return Answer(
        text,
        [],
        "none",
        abstained=False,
        confidence=1.0,
        prompt_tokens=0,
        memory_tokens=0,
        answer_tokens=0,
        milliseconds={},
    )
