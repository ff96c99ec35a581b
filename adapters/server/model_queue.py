"""The queue before the one model: turns, the thread it runs in, and answers in pieces. Knows no
HTTP but a hung-up client.

Generation is one after another: whoever has the turn has the model until the answer ends. Texts to
embed are the exception: those of all requests that wait are embedded in one pass.
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
EMBED_BATCH = 32  # texts between two looks whether their client is still there
MAX_CONVERSIONS = 2  # requests whose files are converted at the same time
SHUTTING_DOWN = "the server is shutting down"
LAST_STEP_SECONDS = 0.2  # seconds for the step under way, when all is over


Pieces = AsyncGenerator[str | cmt_sdk.Answer]
Start = Callable[[], "cmt_sdk.Stream"]


@dataclass
class _Client:
    """Whoever waits for an answer: takes its pieces, is there or not; `is_served` from its turn at
    the model on.
    """

    say: Callable[[str], None]
    is_there: bool = True
    is_served: bool = False


class Busy(Exception):
    """There is no turn to be had now; the message says why."""


class ModelQueue:
    """Turns at the model, at most `limit` requests waiting for one. Lives in one event loop;
    `close` ends it.

    `waiting`: how many are in the line. `closing`: whether it is over. `converting`: turns at
    uploaded files.
    """

    def __init__(self, memory: cmt_sdk.Memory, limit: int, *, remember: bool = True) -> None:
        self.memory, self.remember = memory, remember
        self._limit = limit
        self._turn = asyncio.Lock()
        self.waiting = 0
        self._texts: dict[int, Sequence[str]] = {}
        self._vectors: dict[int, Vectors] = {}
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[cmt_sdk.Answer | None]] = set()
        self.closing = False
        self._over: asyncio.Future[None] | None = None
        self.converting = asyncio.Semaphore(MAX_CONVERSIONS)
        # one thread: torch keeps a team of threads for each thread that calls it
        self._thread = ThreadPoolExecutor(1, "cmt-model")

    @property
    def running(self) -> bool:
        """True while a request has its turn."""
        return self._turn.locked()

    def refuse(self) -> None:
        """From now on, and for those that wait, there are no more turns."""
        self.closing = True

    def abort(self) -> None:
        """Answers under way break off: what waits for a step of theirs raises Busy."""
        self.refuse()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def close(self) -> None:
        """Let the thread go, once the step under way has ended; one that takes long is left to
        itself.
        """
        self.refuse()
        with contextlib.suppress(TimeoutError):
            self._thread.submit(lambda: None).result(LAST_STEP_SECONDS)
        self._thread.shutdown(wait=False)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The model for the length of the block, first come first served. Raises Busy."""
        self.check_room()
        self.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self.waiting -= 1
        try:
            self._check_open()  # it may have closed meanwhile
            yield
        finally:
            self._turn.release()

    def check_room(self) -> None:
        """Raise Busy where the line is full."""
        self._check_open()
        if self._turn.locked() and self.waiting >= self._limit:
            raise Busy(
                f"{self.waiting} requests wait for the model already, the limit is {self._limit}:"
                " try again later"
            )

    def _check_open(self) -> None:
        if self.closing:
            raise Busy(SHUTTING_DOWN)

    async def _step(self, work: Callable[..., T], *given: Any) -> T:
        """Run in the model's thread. A caller that is gone leaves a step that runs; the next one
        follows it. Raises Busy.
        """
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        step = asyncio.wrap_future(self._thread.submit(work, *given))
        either: set[asyncio.Future[Any]] = {step, self._over}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not step.done():
            step.cancel()
            raise Busy(SHUTTING_DOWN)
        return step.result()

    async def call(self, work: Callable[..., T], *given: Any) -> T:
        """`work(*given)` in a turn of its own. Raises Busy."""
        async with self.turn():
            return await self._step(work, *given)

    def pieces(self, question: str, **options: Any) -> Pieces:
        """An answer's text as it comes, then the Answer; options as for `MemoryModel.ask`. Closing
        it stops the generation.

        Raises Busy, and what `ask` raises. A client that reads slowly keeps nobody waiting: pieces
        are generated ahead.
        """
        return self._pieces(lambda: self.memory.model.ask(question, stream=True, **options))

    def replies(self, question: str, history: Sequence[cmt_sdk.Turn], **options: Any) -> Pieces:
        """The reply to a turn of a conversation, in pieces; options as for `Memory.chat`. See
        `pieces`.

        What the turn tells is kept in any case, also where the client hangs up before it has its
        turn at the model.
        """
        chat = self.memory.chat(turns=history, **options)
        return self._pieces(lambda: chat.stream(question), keeps=True)

    async def _pieces(self, start: Start, *, keeps: bool = False) -> Pieces:
        said: asyncio.Queue[str | None] = asyncio.Queue()
        client = _Client(said.put_nowait)

        def ended(task: asyncio.Task[cmt_sdk.Answer | None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()  # seen, even where the client has hung up by now
            said.put_nowait(None)

        task = asyncio.create_task(self._generate(client, start))
        self._tasks.add(task)
        task.add_done_callback(ended)
        try:
            while (piece := await said.get()) is not None:
                yield piece
            answer = await task
            assert answer is not None  # noqa: S101 - the client is there
            yield answer
        finally:
            client.is_there = False
            if client.is_served or not keeps:
                task.cancel()

    async def _generate(self, client: _Client, start: Start) -> cmt_sdk.Answer | None:
        """The Answer; None where the client has left before the first piece."""
        async with self.turn():
            stream = await self._step(start)
            client.is_served = True
            if not client.is_there:
                return None
            pieces = iter(stream)
            try:
                while (piece := await self._step(next, pieces, None)) is not None:
                    client.say(piece)
            finally:
                self._thread.submit(pieces.close)  # type: ignore[attr-defined] # a generator, in which a step may be running
            return stream.answer

    async def answer(self, question: str, **options: Any) -> cmt_sdk.Answer:
        """The whole answer; see `pieces`."""
        async with aclosing(self.pieces(question, **options)) as pieces:
            *_, answer = [piece async for piece in pieces]
        assert not isinstance(answer, str)  # noqa: S101 - pieces end with it
        return answer

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """A vector a text, float32 [n, dimension]; whoever gets the turn embeds the texts of all
        that wait. Raises Busy.
        """
        mine = next(self._numbers)
        self._texts[mine] = texts
        try:
            async with self.turn():
                if mine not in self._vectors:
                    await self._embed_all(dict(self._texts))
            return self._vectors[mine]
        finally:
            self._texts.pop(mine, None)
            self._vectors.pop(mine, None)

    async def _embed_all(self, waiting: dict[int, Sequence[str]]) -> None:
        texts = list(dict.fromkeys(itertools.chain(*waiting.values())))
        made = [
            await self._step(self.memory.model.embed, texts[n : n + EMBED_BATCH])
            for n in range(0, len(texts), EMBED_BATCH)
        ]
        found = dict(zip(texts, np.concatenate(made), strict=True))
        for number in waiting.keys() & self._texts.keys():  # the others have hung up meanwhile
            self._vectors[number] = np.stack([found[t] for t in waiting[number]])
            del self._texts[number]


async def cancel_on_disconnect(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` gives; it is cancelled when the client hangs up, which raises
    ClientDisconnect.
    """

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})  # until they have let go
        if not task.cancelled():
            task.exception()  # seen, even where the client has hung up by now


def _queue_of(request: Request) -> ModelQueue:
    work: ModelQueue = request.app.state.work
    return work


def _memory_of(request: Request) -> cmt_sdk.Memory:
    return _queue_of(request).memory


# What routes ask for: the work and the memory of the application that a request came to.
QueueDep = Annotated[ModelQueue, Depends(_queue_of)]
MemoryDep = Annotated[cmt_sdk.Memory, Depends(_memory_of)]
