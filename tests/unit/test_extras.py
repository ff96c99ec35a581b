"""What is said when an optional dependency cannot be imported: missing, too old, or broken."""

from importlib import metadata

import pytest

from cmt_sdk.errors import MissingExtra
from cmt_sdk.system.extras import unusable

DECLARED = [
    "numpy>=1.26",
    'langgraph>=1.0.6; extra == "graph"',
    'langgraph-checkpoint>=4.3; extra == "graph"',
    'llm>=0.32; extra == "llm"',
]
GONE = ImportError("cannot import name 'validate_op_namespace' from 'langgraph.store.base'")
ABSENT = ModuleNotFoundError("No module named 'langgraph'")


@pytest.fixture
def installed(monkeypatch):
    """Packages with their versions, in place of those of this machine."""
    here = {}

    def version(name):
        if name not in here:
            raise metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda _: DECLARED)
    return here


def said(error, extra="graph"):
    found = unusable("the store", extra, error)
    assert isinstance(found, MissingExtra)
    return str(found)


@pytest.mark.parametrize(
    ("here", "error", "message"),
    [
        ({}, ABSENT, "the store needs an optional dependency: pip install 'cmt-sdk[graph]'"),
        (
            {"langgraph": "1.2.0"},
            GONE,
            "the store needs an optional dependency: pip install 'cmt-sdk[graph]'",
        ),
        (
            {"langgraph": "1.2.0", "langgraph-checkpoint": "2.1.2"},
            GONE,
            (
                "the store needs langgraph-checkpoint>=4.3 (2.1.2 is installed): pip install"
                " 'langgraph-checkpoint>=4.3'"
            ),
        ),
        (
            {"langgraph": "0.6", "langgraph-checkpoint": "4.3rc1"},
            ModuleNotFoundError("No module named 'langgraph.runtime'"),
            (
                "the store needs langgraph>=1.0.6 (0.6 is installed), langgraph-checkpoint>=4.3"
                " (4.3rc1 is installed): pip install 'langgraph>=1.0.6' 'langgraph-checkpoint>=4.3'"
            ),
        ),
        (
            {"langgraph": "3.0", "langgraph-checkpoint": "7.0"},
            GONE,
            (
                "the store cannot be imported, though langgraph 3.0, langgraph-checkpoint 7.0 is"
                f" installed ({GONE}): update both, pip install 'cmt-sdk[graph]' --upgrade"
            ),
        ),
        (
            {"langgraph": "1.2", "langgraph-checkpoint": "4.3"},
            ModuleNotFoundError("No module named 'ormsgpack'"),
            (
                "the store cannot be imported, though langgraph 1.2, langgraph-checkpoint 4.3 is"
                " installed (No module named 'ormsgpack'): update both, pip install"
                " 'cmt-sdk[graph]' --upgrade"
            ),
        ),
    ],
    ids=[
        "missing",
        "one of two missing",
        "one too old",
        "both too old",
        "newer than we know",
        "broken",
    ],
)
def test_the_message_is_what_to_do(installed, here, error, message):
    """A version that is too old is named, with the one that is needed; a missing name is no missing
    package.
    """
    installed.update(here)
    assert said(error) == message


def test_an_extra_is_not_judged_by_the_packages_of_another(installed):
    """Nor by those that every installation has."""
    installed.update({"llm": "0.27", "numpy": "1.0", "langgraph": "0.1"})
    assert (
        said(GONE, "llm")
        == "the store needs llm>=0.32 (0.27 is installed): pip install 'llm>=0.32'"
    )


def test_without_an_installation_of_ours(monkeypatch):
    """Run from its folder, nothing is declared: a missing package is one, and another error is
    repeated.
    """

    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert said(ABSENT) == "the store needs an optional dependency: pip install 'cmt-sdk[graph]'"
    assert str(GONE) in said(GONE)


def test_the_extras_are_those_of_the_project():
    """Every extra that a message names is declared."""
    declared = metadata.requires("cmt-sdk") or []
    for extra in (
        "files",
        "encryption",
        "eval",
        "langchain",
        "langgraph",
        "llama-index",
        "llm",
        "mcp",
        "openai-agents",
        "postgres",
        "serve",
    ):
        assert any(f'extra == "{extra}"' in line for line in declared)
