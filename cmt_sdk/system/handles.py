"""Objects that hold open files or a loaded model: copying and forking them.

A copy is the same object, as it is of a logger: frameworks copy the settings that hold one, and a
second memory of the same folder would load the model again. Knows no memory.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, NoReturn, Protocol, TypeVar

from cmt_sdk.errors import InvalidInput, ModelError

T = TypeVar("T")
OPEN_HERE = "open it in this process: cmt_sdk.open(path)"


class Handle:
    """Copies of it, deep ones too, are itself; it cannot be pickled."""

    def __copy__(self: T) -> T:
        return self

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InvalidInput(
            f"{type(self).__name__} cannot be pickled, it holds open files and a model: give the"
            " other process the path of its folder, and call cmt_sdk.open(path) there"
        )


class Forked(Protocol):
    """An object that reacts to a fork."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""


_watched: weakref.WeakSet[Any] = weakref.WeakSet()


def watch(forked: Forked) -> None:
    """Call `after_fork` in every child that this process forks, as long as the object lives."""
    _watched.add(forked)


def _in_child() -> None:
    for forked in list(_watched):
        forked.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def is_held(lock: Any) -> bool:
    """Whether another thread holds a lock; after a fork that thread is not there to release it."""
    if not lock.acquire(blocking=False):
        return True
    lock.release()
    return False


class NoModel:
    """Takes the place of the lock around a model that was loaded before a fork.

    The threads that compute are not there any more, and it would wait for them for ever.
    """

    def __enter__(self) -> NoReturn:
        raise ModelError(
            "the language model was loaded before this process was forked, and can compute in the"
            f" parent only: {OPEN_HERE}"
        )

    def __exit__(self, *error: object) -> None: ...

    def acquire(self, blocking: bool = True) -> bool:  # noqa: ARG002 - a lock's
        """Like a free lock."""
        return True

    def release(self) -> None:
        """Do nothing: `acquire` took no lock."""

    def after_others(self, stop: object = None, quiet: float = 0.0) -> NoModel:  # noqa: ARG002 - a lock's
        """Return an object that raises ModelError when it is entered."""
        return self

    def give_way(self, longest: float) -> None:
        """Return at once: no thread waits for the model here."""
