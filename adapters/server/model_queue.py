"""The queue for the one model of a server: slots, the model's thread, and answers in pieces.

Generation is sequential: a request holds its slot until its answer ends. Embedding is batched: the
request that gets the slot embeds the texts of all waiting requests in one pass. Of HTTP this module
uses only the event that a client has disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Depends
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

import cmt_sdk

T = TypeVar("T")
Vectors = NDArray[np.float32]
Pieces = AsyncGenerator[str | cmt_sdk.Answer]
Start = Callable[[], "cmt_sdk.Stream"]

EMBED_BATCH = 32  # texts per call of the model; between calls, disconnected clients are dropped
MAX_CONVERSIONS = 2  # requests whose files are converted at the same time
SHUTTING_DOWN = "the server is shutting down"
LAST_STEP_SECONDS = 0.2  # for the running step when the queue is closed


@dataclass
class _Client:
    """A client that waits for an answer.

    Attributes:
        put: Passes a piece of the answer to the client.
        is_connected: False after the client has disconnected.
        is_served: True from the moment that the client has its slot.
    """

    put: Callable[[str], None]
    is_connected: bool = True
    is_served: bool = False


class Busy(Exception):
    """The model has no free slot; the message says why."""


class ModelQueue:
    """Slots for the model, first come first served. Lives in one event loop.

    Args:
        memory: The memory whose model answers.
        limit: How many requests may wait for a slot.
        remember: Whether chats store what users state, unless a request says otherwise.
        on_answer: Called with each complete answer, in the context of its request.

    Attributes:
        waiting: How many requests wait for a slot.
        closing: True after `refuse`, `abort` or `close`.
        converting: Slots for the conversion of uploaded files.
    """

    def __init__(
        self,
        memory: cmt_sdk.Memory,
        limit: int,
        *,
        remember: bool = True,
        on_answer: Callable[[cmt_sdk.Answer], None] = lambda _: None,
    ) -> None:
        self.memory = memory
        self.remember = remember
        self._on_answer = on_answer
        self._limit = limit
        self._lock = asyncio.Lock()
        self.waiting = 0
        self._texts: dict[int, Sequence[str]] = {}
        self._vectors: dict[int, Vectors] = {}
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[cmt_sdk.Answer | None]] = set()
        self.closing = False
        self._aborted: asyncio.Future[None] | None = None
        self.converting = asyncio.Semaphore(MAX_CONVERSIONS)
        # one thread: torch keeps a team of threads for each thread that calls it
        self._thread = ThreadPoolExecutor(1, "cmt-model")

    @property
    def running(self) -> bool:
        """Return whether a request holds the slot."""
        return self._lock.locked()

    def refuse(self) -> None:
        """Refuse new requests and those that wait."""
        self.closing = True

    def abort(self) -> None:
        """Break off running answers: requests that wait for a step of the model get Busy."""
        self.refuse()
        if self._aborted is not None and not self._aborted.done():
            self._aborted.set_result(None)

    def close(self) -> None:
        """Release the thread after the running step; a step that takes long is abandoned."""
        self.refuse()
        with contextlib.suppress(TimeoutError):
            self._thread.submit(lambda: None).result(LAST_STEP_SECONDS)
        self._thread.shutdown(wait=False)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold the model while the block runs, first come first served. Raises Busy."""
        self.check_room()
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1
        try:
            self._check_open()  # the queue may have closed while the request waited
            yield
        finally:
            self._lock.release()

    def check_room(self) -> None:
        """Raise Busy if the queue is full."""
        self._check_open()
        if self._lock.locked() and self.waiting >= self._limit:
            raise Busy(
                f"{self.waiting} requests wait for the model already, the limit is {self._limit}:"
                " try again later"
            )

    def _check_open(self) -> None:
        if self.closing:
            raise Busy(SHUTTING_DOWN)

    async def _step(self, work: Callable[..., T], *given: Any) -> T:
        """Run one step in the model's thread.

        A cancelled caller leaves the step running; the next step follows it. Raises Busy.
        """
        if self._aborted is None:
            self._aborted = asyncio.get_running_loop().create_future()
        step = asyncio.wrap_future(self._thread.submit(work, *given))
        either: set[asyncio.Future[Any]] = {step, self._aborted}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not step.done():
            step.cancel()
            raise Busy(SHUTTING_DOWN)
        return step.result()

    async def call(self, work: Callable[..., T], *given: Any) -> T:
        """Return `work(*given)`, run in a slot of its own. Raises Busy."""
        async with self.slot():
            return await self._step(work, *given)

    def pieces(self, question: str, **options: Any) -> Pieces:
        """Yield an answer's text piece by piece, then the Answer.

        Closing the generator stops the generation. Pieces are generated ahead, so a client that
        reads slowly delays no other request.

        Args:
            question: The question.
            **options: As for `MemoryModel.ask`.

        Raises:
            Busy: The model has no free slot. Also raises what `ask` raises.
        """

        def start() -> cmt_sdk.Stream:
            return self.memory.model.ask(question, stream=True, **options)

        return self._pieces(start)

    def replies(self, question: str, history: Sequence[cmt_sdk.Turn], **options: Any) -> Pieces:
        """Yield the reply to a turn of a conversation piece by piece, then the Answer.

        Facts that the turn states are stored even if the client disconnects before its slot.

        Args:
            question: The text of the turn.
            history: The turns before it.
            **options: As for `Memory.chat`.

        Raises:
            Busy: The model has no free slot.
        """
        chat = self.memory.chat(turns=history, **options)
        return self._pieces(lambda: chat.stream(question), stores=True)

    async def _pieces(self, start: Start, *, stores: bool = False) -> Pieces:
        produced: asyncio.Queue[str | None] = asyncio.Queue()
        client = _Client(produced.put_nowait)

        def ended(task: asyncio.Task[cmt_sdk.Answer | None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()  # marks it as retrieved, even if the client has disconnected
            produced.put_nowait(None)

        task = asyncio.create_task(self._generate(client, start))
        self._tasks.add(task)
        task.add_done_callback(ended)
        try:
            while (piece := await produced.get()) is not None:
                yield piece
            answer = await task
            assert answer is not None  # noqa: S101 - the client is connected
            yield answer
        finally:
            client.is_connected = False
            if client.is_served or not stores:
                task.cancel()

    async def _generate(self, client: _Client, start: Start) -> cmt_sdk.Answer | None:
        """Return the Answer; None if the client disconnected before the first piece."""
        async with self.slot():
            stream = await self._step(start)
            client.is_served = True
            if not client.is_connected:
                return None
            pieces = iter(stream)
            try:
                while (piece := await self._step(next, pieces, None)) is not None:
                    client.put(piece)
            finally:
                self._thread.submit(pieces.close)  # type: ignore[attr-defined] # a generator, in which a step may be running
            self._on_answer(stream.answer)
            return stream.answer

    async def answer(self, question: str, **options: Any) -> cmt_sdk.Answer:
        """Return the complete answer. See `pieces`."""
        async with aclosing(self.pieces(question, **options)) as pieces:
            *_, answer = [piece async for piece in pieces]
        assert not isinstance(answer, str)  # noqa: S101 - the last piece is the Answer
        return answer

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the embeddings of texts, float32 [n, dimension].

        The request that gets the slot embeds the texts of all waiting requests. Raises Busy.
        """
        mine = next(self._numbers)
        self._texts[mine] = texts
        try:
            async with self.slot():
                if mine not in self._vectors:
                    await self._embed_all(dict(self._texts))
            return self._vectors[mine]
        finally:
            self._texts.pop(mine, None)
            self._vectors.pop(mine, None)

    async def _embed_all(self, waiting: dict[int, Sequence[str]]) -> None:
        texts = list(dict.fromkeys(itertools.chain(*waiting.values())))
        batches = [
            await self._step(self.memory.model.embed, texts[n : n + EMBED_BATCH])
            for n in range(0, len(texts), EMBED_BATCH)
        ]
        vectors = dict(zip(texts, np.concatenate(batches), strict=True))
        for number in waiting.keys() & self._texts.keys():  # the other clients have disconnected
            self._vectors[number] = np.stack([vectors[text] for text in waiting[number]])
            del self._texts[number]


async def cancel_on_disconnect(receive: Receive, work: Awaitable[T]) -> T:
    """Return the result of `work`; cancel it if the client disconnects.

    Raises:
        ClientDisconnect: The client has disconnected.
    """

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})  # until both have ended
        if not task.cancelled():
            task.exception()  # marks it as retrieved, even if the client has disconnected


def _queue_of(request: Request) -> ModelQueue:
    queue: ModelQueue = request.app.state.queue
    return queue


def _memory_of(request: Request) -> cmt_sdk.Memory:
    return _queue_of(request).memory


# Dependencies of routes: the queue and the memory of the application.
QueueDep = Annotated[ModelQueue, Depends(_queue_of)]
MemoryDep = Annotated[cmt_sdk.Memory, Depends(_memory_of)]
