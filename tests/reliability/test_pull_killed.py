"""A pull that is killed at any moment leaves no half model, and the next one ends what it began."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cmt_sdk import list_models, pull_model, remove_model
from tests.integration import test_pull
from tests.reliability.victims import Zygote

gguf_file = test_pull.gguf_file


def killed_pulls(rounds: int, file: Path, home: Path, tally: Callable[..., None]) -> None:
    """One undisturbed pull tells how long it takes; then kills at any moment of it."""
    chance, took, zygote = random.Random(), 0.0, Zygote()
    for number in range(rounds + 1):
        delay = chance.uniform(0, took) if number else None
        outcome = zygote("pull", home, home.with_name("notes"), delay=delay, file=str(file))
        took = took or outcome["seconds"]
        assert outcome["code"] in ((0, -9) if number else (0,))
        assert len(list_models()) == int(outcome["code"] == 0)
        info = pull_model(str(file))
        assert list_models() == [info]
        assert [p for p in (home / ".partial").rglob("*") if p.suffix != ".lock"] == []
        remove_model(str(file))
        tally("killed in model pull", rounds=int(outcome["code"] == -9), losses=0)
    zygote.close()


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="forks and watches processes as Linux does"
)
def test_a_pull_killed_at_any_moment(gguf_file, tmp_path, monkeypatch, tally):
    """The model is whole or not listed; the work area is empty after the next pull."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    killed_pulls(8, gguf_file, tmp_path / "models", tally)
