"""Prompts as token ids: the messages of a prompt in the model's chat template, tokenized, in the
parts before and after the notes. Knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.text.prompt_messages import SLOT, messages, passage_text, talk
from cmt_sdk.text.template_sandbox import render_template
from cmt_sdk.text.token_bytes import SPACE, token_bytes
from cmt_sdk.types import Turn

# Some chat templates write the date at the top (Llama 3, SmolLM3). Memories are made behind a
# prefix that must be the same every day, so the date is always Llama 3's default.
TEMPLATE_DATE = "26 Jul 2024"
# A user's words, to find the text that the template writes after them.
EXAMPLE_WORDS = "Hello there."


class Prompts:
    """A model's prompts as token ids.

    A subclass gives `tokenizer`, `family` (the architecture as its configuration names it) and
    `generation_stops`.
    """

    tokenizer: Any

    @property
    def family(self) -> str:
        """The architecture as its configuration names it: "llama", "gpt2"."""
        raise NotImplementedError

    @property
    def generation_stops(self) -> int | Sequence[int] | None:
        """The tokens that end an answer, by generation_config.json."""
        raise NotImplementedError

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _special_tokens(self) -> re.Pattern[str]:
        """Matches every spelling that the tokenizer reads as a special token."""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in added if token.special}
        names.update(self.tokenizer.all_special_tokens)
        longest_first = sorted(names, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    def escape_special_tokens(self, text: str) -> str:
        """A text in which no special token is spelled: with "<|im_end|>" in it a question could end
        its turn and speak as the system. A space goes after the first character of each spelling.
        """
        if not self._special_tokens.pattern:  # "" would match everywhere
            return text
        return self._special_tokens.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _prompt(self, question: str, history: Sequence[Turn], *, notes: bool) -> str:
        """The text of a prompt, with SLOT where its notes go, or without notes."""
        asked = self.escape_special_tokens(question)
        return self._chat_text(messages(asked, self._escaped(history), notes=notes))

    def _escaped(self, history: Sequence[Turn]) -> list[Turn]:
        return [Turn(turn.role, self.escape_special_tokens(turn.content)) for turn in history]

    def _chat_text(self, turns: list[dict[str, str]]) -> str:
        """Turns in the model's chat format, up to where the answer begins."""
        if self.tokenizer.chat_template is None:  # a base model without chat training
            return self._bos + "\n".join(m["content"] for m in turns) + "\nAnswer:"
        template = self.tokenizer.get_chat_template()
        names = dict(self.tokenizer.special_tokens_map)
        # a reasoning trace (Qwen3, SmolLM3) would become part of the answer
        names |= {"date_string": TEMPLATE_DATE, "enable_thinking": False}
        try:
            return render_template(
                template, turns, TEMPLATE_DATE, **names, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ModelUnsupported(
                f"{self.family}: its chat template refuses the prompt ({error}); use another model"
            ) from error

    @cached_property
    def _bos(self) -> str:
        """The token that the tokenizer puts before every text, "" where it puts none. A chat
        template writes it itself.
        """
        bos = self.tokenizer.bos_token
        # Some tokenizers name such a token, and put it nowhere.
        if bos is None or self.tokenizer("a")["input_ids"][0] != self.tokenizer.bos_token_id:
            return ""
        return str(bos)

    def _split_at_slot(self, question: str, history: Sequence[Turn]) -> tuple[str, str]:
        """The text of a prompt before and after the notes.

        Raises:
            ModelUnsupported: The chat template changes the user's words, or writes them twice.
        """
        text = self._prompt(question, history, notes=True)
        before, slot, after = text.partition(SLOT)
        if not slot or SLOT in after:
            raise ModelUnsupported(
                f"{self.family}: its chat template does not show the user's words once; use another"
                " model"
            )
        return before, after

    @cached_property
    def _prefix(self) -> str:
        return self._split_at_slot("", ())[0]

    @cached_property
    def prefix_ids(self) -> list[int]:
        """Token ids of everything before the notes: the same for every question, so the model reads
        them once.
        """
        return self.ids(self._prefix)

    def question_ids(self, question: str, history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of everything after the notes.

        Args:
            question: The question.
            history: The turns before it.

        Raises:
            ModelUnsupported: The text before the notes depends on the question, so that memories
                could not be made behind it beforehand.
        """
        before, after = self._split_at_slot(question, history)
        if before != self._prefix:
            raise ModelUnsupported(
                f"{self.family}: its chat template begins differently for every prompt; use another"
                " model"
            )
        return self.ids(after)

    def question_span(self, question: str) -> tuple[list[int], list[int]]:
        """Token ids from the notes to a question's first word, and the ids of its words.

        The two parts are tokenized apart, so that all memories are scored on the same tokens.
        """
        after = self._split_at_slot(question, ())[1]
        before, words, _ = after.partition(self.escape_special_tokens(question).strip())
        # Most tokenizers put a space into the token of the word that follows.
        gap = before[len(before.rstrip()) :]
        return self.ids(before.rstrip()), self.ids(gap + words)

    def bare_ids(self, question: str, history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of a prompt without notes."""
        return self.ids(self._prompt(question, history, notes=False))

    def talk_ids(self, message: str, history: Sequence[Turn] = ()) -> list[int]:
        """Token ids of small talk: the model's own chat template and no instruction."""
        turns = talk(self.escape_special_tokens(message), self._escaped(history))
        return self.ids(self._chat_text(turns))

    @cached_property
    def _turn_end(self) -> list[int]:
        """Token ids from the end of a user's words to where the answer begins."""
        return self.ids(self._split_at_slot(EXAMPLE_WORDS, ())[1].partition(EXAMPLE_WORDS)[2])

    def heard_ids(self, message: str, longest: int) -> list[int]:
        """Token ids of a user's message, at most its first `longest`, and of the turn's end."""
        ids = self.ids(self.escape_special_tokens(message.strip()))
        return [*ids[:longest], *self._turn_end]

    def passage_ids(self, content: str) -> list[int]:
        """Token ids of a passage as it stands among the notes. A special token that the passage
        spells is read as letters.
        """
        text = passage_text(content)
        tokenized = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = tokenized["input_ids"]
        return ids

    def piece(self, token: int) -> bytes:
        """The bytes that a token writes, a space before its word included; none for special tokens.

        Args:
            token: Its id.
        """
        if token not in self._pieces:
            name = None if token in self._added else self._name(token)
            self._pieces[token] = token_bytes(name, by_bytes=self._by_bytes) if name else b""
        return self._pieces[token]

    @cached_property
    def tokens_by_piece(self) -> dict[bytes, list[int]]:
        """The tokens that write each piece."""
        found: dict[bytes, list[int]] = {}
        for token in self.tokenizer.get_vocab().values():
            if piece := self.piece(token):
                found.setdefault(piece, []).append(token)
        return found

    @cached_property
    def _pieces(self) -> dict[int, bytes]:
        return {}

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self.tokenizer.added_tokens_decoder)

    def _name(self, token: int) -> str | None:
        name: str | None = self.tokenizer.convert_ids_to_tokens(token)
        return name

    @cached_property
    def _by_bytes(self) -> bool:
        """Whether each character of a token's name stands for a byte."""
        return (self._name(self.ids(" a")[0]) or "").startswith(SPACE)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer.

        Raises:
            ModelUnsupported: The model names none: its answers would never end.
        """
        eos = self.generation_stops
        all_eos = [eos] if eos is None or isinstance(eos, int) else eos
        ids = frozenset(i for i in [*all_eos, self.tokenizer.eos_token_id] if i is not None)
        if not ids:
            raise ModelUnsupported(
                f"{self.family}: neither generation_config.json nor the tokenizer names an eos"
                " token; set one"
            )
        return ids

    @cached_property
    def end_id(self) -> int:
        """The one of `stop_ids` that ends an answer in a chat: the one that the template writes
        after an answer, else the tokenizer's eos token.

        Adapters learn to end answers with it. A family may stop at several tokens, and its
        tokenizer may name another one first.
        """
        try:
            chat = self._prompt("?", [Turn("user", "?"), Turn("assistant", SLOT)], notes=False)
        except ModelUnsupported:  # the template accepts a single turn only
            chat = ""
        # SLOT stands for an answer in an earlier turn: the template ends that one.
        _, slot, after = chat.rpartition(SLOT)
        candidates = [*(self.ids(after) if slot else ()), self.tokenizer.eos_token_id]
        return next((i for i in candidates if i in self.stop_ids), min(self.stop_ids))
