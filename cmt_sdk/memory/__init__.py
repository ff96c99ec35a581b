"""Memory: add, change, look up, forget, ask and converse, each in a module of its own. No
torch, no SQL.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cmt_sdk.answering.asking import Ask, Asking, Stream, filter_of, lists_parameters
from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.config.settings import MEMORY_FILES
from cmt_sdk.memory.assembly import Parts
from cmt_sdk.memory.forgetting import Forgetting
from cmt_sdk.memory.stores import exists_in
from cmt_sdk.memory.upkeep import Upkeep
from cmt_sdk.retrieval.question import LONGEST_QUESTION, check_question
from cmt_sdk.system.handles import watch
from cmt_sdk.types import Intent, ReaderKind, Turn, Where

if TYPE_CHECKING:
    from cmt_sdk.chat import Chat

__all__ = ["Memory"]


class Memory(Upkeep, Forgetting, Asking):
    """Documents that are remembered in one folder or database. `cmt_sdk.open` makes it; the
    language model is loaded when it is first needed.

    Several threads may use it, and several processes its folder. On a medium, or with files, that
    this user may not write it is `read_only`: it is listed, searched, asked and copied, and a
    change raises StorageDenied. A copy of it (`copy.deepcopy`) is itself. After a fork the child
    can use it if the model was not loaded yet and no call was under way; else it has to open the
    folder itself, as another process does, and the error says so.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        watch(self)
        self._finish_erasing()

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether there is a memory in a folder or a database; an empty file is none.

        Args:
            path: The folder, or the address of the database.

        Raises:
            StorageError: The database cannot be reached.
        """
        if address := DatabaseAddress.of(path):
            return exists_in(address)
        with suppress(OSError, ValueError):  # a closed folder, a name that no system takes
            return (Path(path).expanduser() / MEMORY_FILES[0]).stat().st_size > 0
        return False

    def start_answer(self, asked: Ask) -> Stream:
        """Start the answer to a checked question; see `ask`."""
        return self.model.start_answer(asked)

    def understand(self, text: str) -> Intent:
        """What a message wants: whether it asks, tells, and which part is worth keeping. Loads the
        model.

        Raises:
            InvalidInput: An empty text, or one with NUL or a lone surrogate.
        """
        from cmt_sdk.understanding.intent import understand

        check_question(text[:LONGEST_QUESTION])
        return understand(text, self._retriever.intent_scores)

    @lists_parameters
    def chat(
        self,
        *,
        remember: bool = False,
        scope: str = "",
        turns: Sequence[Turn] = (),
        k: int | None = None,
        budget: int | None = None,
        reader: ReaderKind = "memory",
        max_tokens: int | None = None,
        outside: str | None = None,
        source: str | None = None,
        where: Where | None = None,
    ) -> Chat:
        """A conversation over this memory.

        Args:
            remember: True adds what the user tells to `scope`, before the reply, and erases what
                the user asks to forget, once the next turn agrees.
            scope: A path of names, such as "user/ann"; the search is narrowed to it.
            turns: The turns so far, oldest first.
            k: Passages to read; see `ask`, as for all that follow.
            budget: Tokens of context that the passages may take.
            reader: "memory", "text", "auto" or "none".
            max_tokens: The longest reply, in tokens; None: 64 for an answer, 48 for small talk, 512
                for a generator's reply.
            outside: Leave this scope out of the search.
            source: Search only this source.
            where: Conditions on metadata.

        Returns:
            A Chat: `say` returns the reply to a turn, `stream` yields it in pieces.

        Raises:
            InvalidInput: An option outside its range, a bad filter.

        Example:
            >>> chat = memory.chat(remember=True, scope="user/ann")
            >>> chat.say("I live in Porto.").text
            'Noted: “I live in Porto.”'
        """
        from cmt_sdk.chat import Chat
        from cmt_sdk.memory.notebook import Notebook

        options = {
            "k": k,
            "budget": budget,
            "reader": reader,
            "max_tokens": max_tokens,
            "scope": scope or None,
            "outside": outside,
            "source": source,
            "where": where,
        }
        given = {name: value for name, value in options.items() if value is not None}
        # a wrong value is refused here, not by the first turn
        filter = filter_of(scope or None, source, where, outside=outside)
        Ask("?", k, budget, reader, 1 if max_tokens is None else max_tokens, filter)
        return Chat(self.model, Notebook(self, scope), given, remember=remember, turns=turns)
