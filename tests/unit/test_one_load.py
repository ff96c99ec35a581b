"""The model is loaded once, whatever the threads that need it first call."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from cmt_sdk.testing.fakes import FakeEngine, open_fake
from cmt_sdk.types import Filter

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2012."


class LazyEngine:
    """A fake engine that loads when a part is first used, and not safely: as the real one."""

    def __init__(self) -> None:
        self.loads = 0
        self._made = FakeEngine()
        self._is_loaded = False

    def __getattr__(self, name: str) -> Any:
        if name in ("compressor", "reader", "state_reader", "intent_scores", "small_talk"):
            if not self._is_loaded:
                time.sleep(0.05)
                self.loads += 1
            self._is_loaded = True
        return getattr(self._made, name)

    def unload(self) -> None:
        """As after a new start."""
        self.loads, self._is_loaded = 0, False


CALLS = {
    "fingerprint": lambda memory, _: memory.fingerprint,
    "load": lambda memory, matches: memory._passage_encoder.load([m.passage.id for m in matches]),
    "superseded": lambda memory, matches: memory._retriever.supersession.superseded(
        LISBON + " Yes.", matches
    ),
    "supersession_scores": lambda memory, matches: memory._retriever.supersession.scores(
        [(matches[0], matches[1])]
    ),
    "reencode": lambda memory, _: memory.reencode(),
    "ask": lambda memory, _: memory.ask("Where is the museum?"),
    "understand": lambda memory, _: memory.understand("Where is the museum?"),
}


@pytest.mark.parametrize("name", CALLS)
def test_two_threads_load_the_model_once(tmp_path, name):
    """Both calls begin while no model is loaded; the second one waits for the first."""
    engine = LazyEngine()
    with open_fake(tmp_path / "notes", engine) as memory:
        memory.add(PORTO)
        memory.add(LISBON)
        matches = memory._retriever.search("museum", 2, Filter(), "text")
        engine.unload()
        start = threading.Barrier(2)
        failed = []

        def call() -> None:
            start.wait()
            try:
                CALLS[name](memory, matches)
            except Exception as error:  # noqa: BLE001 - the assertion shows it
                failed.append(error)

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (engine.loads, failed) == (1, [])
