"""The documents say what is true: help pages, links, snippets, exported names."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cmt_sdk

ROOT = Path(__file__).parents[2]
PAGES = Path(__file__).parent


def test_help_pages_are_those_of_the_commands():
    """After a change of an option: python tests/docs/cli_pages.py."""
    # a fresh process: click keeps a command's first help
    code = "from cli_pages import render; print(render(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PAGES, capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == done.stdout


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")],
    ids=lambda p: p.name,
)
def test_links_lead_somewhere(page):
    """Every relative link of a page names a file of the repository."""
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_readme_begins_with_what_a_newcomer_needs():
    """By line 30: what it is, install, an example with its output, and the two commands that set
    everything up.
    """
    top = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:30])
    for words in (
        "pip install cmt-sdk",
        "cmt model pull",
        "memory.add(",
        "memory.model.ask(",
        "`make demo`",
        "`make test`",
    ):
        assert words in top


def test_exported_names_are_sorted_documented_and_there():
    """The front door is whole."""
    # as ruff sorts
    assert cmt_sdk.__all__ == sorted(cmt_sdk.__all__, key=lambda name: (not name.isupper(), name))
    # a Literal has no docstring; the calls that take one describe its values
    bare = {"__version__", "ReaderKind", "SearchMode"}
    undocumented = [n for n in cmt_sdk.__all__ if n not in bare and not getattr(cmt_sdk, n).__doc__]
    assert undocumented == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cmt_sdk.nonsense


@pytest.mark.model
def test_the_readmes_example_says_what_it_prints(tmp_path, monkeypatch):
    """The first Python block runs with the real model and prints the line below it."""
    monkeypatch.chdir(tmp_path)
    block, printed = re.search(
        r"```python\n(.+?)```\n\n    (.+?)\n",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    ).groups()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - our own README
    assert said.getvalue().strip() == printed.strip()
