"""What all tests share: the key for archives, one engine of the real model, a collector that skips
what outlives every test.
"""

from __future__ import annotations

import functools
import gc
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

with warnings.catch_warnings():
    # hypothesis' plugin would import it after the last test, where warnings are errors: trio's hook
    # warns there
    warnings.simplefilter("ignore")
    import hypothesis  # noqa: F401

# comes with langchain-tests, which compares with it
pytest_plugins = ["syrupy"] if find_spec("syrupy") else []
gc.disable()  # until all tests are collected: what their modules hold stays until the end


def pytest_collection_finish() -> None:
    """Modules and collected tests leave the collector's sight: a full run of it looks at nothing
    but what tests make.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _one_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Memories of the same settings share an engine where the real model is tested: its weights are
    loaded once.
    """
    if not any(item.get_closest_marker("model") for item in request.session.items):
        yield
        return
    from cmt_sdk.memory import assembly
    from examples.conversations import ways

    shared = functools.cache(assembly.LocalEngine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "LocalEngine", shared)
        patch.setattr(ways, "LocalEngine", shared)
        yield


@pytest.fixture(autouse=True)
def _archive_key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for the key, empty at first; the same one throughout a session."""
    monkeypatch.setenv("CMT_ARCHIVE_KEY", str(tmp_path_factory.getbasetemp() / "archive.key"))


@pytest.fixture(scope="session", autouse=True)
def _no_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No command of a test starts a daemon or meets the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMT_KEEP_ALIVE", "0")
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _postgres_ends() -> Iterator[None]:
    """A server that tests have started ends with them."""
    yield
    if (started := sys.modules.get("tests.postgres")) is not None:
        started.finish()


@pytest.fixture
def benchmark():
    """What langchain-tests times a piece of work with: here it runs once, untimed."""
    return lambda work, *arguments, **options: work(*arguments, **options)


@pytest.fixture
def vcr() -> None:
    """What langchain-tests records calls with: nothing is recorded here, and what needs it is
    skipped.
    """
