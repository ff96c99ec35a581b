"""The documents say what is true: help pages, links, commands, settings, errors, names, layers."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import cmt_sdk
from cmt_cli.main import main
from tests.docs.blocks import ROOT, blocks, pages

HERE = Path(__file__).parent
DOCS = ROOT / "docs"
SOURCES = [
    file for folder in ("cmt_sdk", "cli", "adapters") for file in (ROOT / folder).rglob("*.py")
]


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


def test_help_pages_are_those_of_the_commands():
    """After a change of an option: make pages."""
    # a fresh process: click keeps a command's first help
    code = "from cli_pages import render; print(render(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True
    )
    assert text_of("cli.md") == done.stdout


def test_generated_parts_are_those_of_the_code():
    """After a change of the layers, a module's first docstring or the catalogue: make pages."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, shown in (
        ("architecture.md", "| 1 | `training` |"),
        ("how-to/own-model.md", "| qwen2.5-coder-0.5b-instruct | 494 M | Apache-2.0 |"),
    ):
        page = text_of(name)
        assert shown in page
        assert generate.render(page) == page


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/**/*.md")],
    ids=lambda p: p.name,
)
def test_links_lead_somewhere(page):
    """Every relative link of a page names a file of the repository."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_page_is_in_the_navigation():
    """mkdocs.yml lists all pages of docs/ and no other."""
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md"))


@pytest.mark.parametrize(
    "page", sorted({*pages(), *ROOT.glob("*.md")} - {DOCS / "cli.md"}), ids=lambda p: p.name
)
def test_pages_have_short_lines(page):
    """Lines within 100 columns, but for tables and generated lists."""
    generated = re.compile(r"<!-- generated.*?<!-- end -->", re.DOTALL)
    text = generated.sub("", page.read_text(encoding="utf-8"))
    assert [line for line in text.splitlines() if len(line) > 100 and line[0] != "|"] == []


def test_readme_begins_with_what_a_newcomer_needs():
    """By line 30: what it is, install, an example with its output, and the two commands that set
    everything up.
    """
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    top = "\n".join(lines[:30])
    for words in (
        "pip install cmt-sdk",
        "cmt model pull",
        "memory.add(",
        ".ask(",
        "```text\nLisbon",
        "`make demo`",
        "`make test`",
    ):
        assert words in top


def command_lines():
    """Each `cmt ...` in a fenced block of the pages, with where it stands."""
    for page in pages():
        for block in blocks(page):
            if block.kind in ("sh", "console"):
                for line in block.body.splitlines():
                    found = re.match(r"(?:\$ )?(?:\w+=\S+ )*(cmt (?!\.\.\.).*)", line)
                    if found:
                        yield pytest.param(found[1], id=f"{block}: {found[1]}"[:80])


@pytest.mark.parametrize("line", list(command_lines()))
def test_commands_in_the_pages_exist_with_their_options(line):
    """Each parses as the command would parse it; what it names need not be there."""
    import shlex

    words = shlex.split(line, comments=True)[1:]
    command, context = main, click.Context(main, info_name="cmt")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command = command.get_command(context, words.pop(0))
        assert command is not None
        context = click.Context(command, parent=context, info_name=command.name)
    _, rest, _ = command.make_parser(context).parse_args(words)
    assert rest == []


def test_configuration_names_every_setting_with_its_default():
    """The table has a row for each setting and none besides, in order."""
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", text_of("configuration.md"), re.MULTILINE)
    shown = {name: default for name, default in rows if name.islower()}
    defaults = {n: str(getattr(cmt_sdk.Settings(), n)) for n in cmt_sdk.Settings.names()}
    assert shown == defaults
    assert list(shown) == list(defaults)


def test_configuration_names_every_environment_variable():
    """Those of our own that the code reads, and none besides."""
    read = {
        name
        for file in SOURCES
        for name in re.findall(r"\bCMT_[A-Z_]+\b", file.read_text(encoding="utf-8"))
    }
    named = re.findall(r"^\| `(CMT_[A-Z_]+)`", text_of("configuration.md"), re.MULTILINE)
    assert sorted(named) == sorted(read - {"CMT_COMPLETE"})  # click makes that one up


def test_troubleshooting_has_every_error_with_its_remedy():
    """One heading for each class of `cmt_sdk.errors`, with text below it."""
    page = text_of("troubleshooting.md")
    sections = dict(re.findall(r"^### (\w+)\n\n(.+?)\n\n", page, re.MULTILINE | re.DOTALL))
    classes = [
        name
        for name, value in vars(cmt_sdk.errors).items()
        if isinstance(value, type) and issubclass(value, cmt_sdk.CMTError)
    ]
    assert list(sections) == classes
    assert [name for name, text in sections.items() if len(text.split()) < 10] == []


def is_code(name):
    """Whether a public name is a class or a function, which has a docstring of its own."""
    return inspect.isclass(getattr(cmt_sdk, name)) or inspect.isfunction(getattr(cmt_sdk, name))


def test_the_api_page_has_every_exported_name():
    """Classes and functions from their docstrings, errors as one module, other names in prose."""
    page = text_of("api.md")
    from_code = re.findall(r"^::: cmt_sdk\.(\w+)$", page, re.MULTILINE)
    in_prose = re.findall(r"`cmt_sdk\.([A-Za-z_]+)`", page)
    assert len(from_code) == len(set(from_code))
    exported = set(cmt_sdk.__all__) - set(vars(cmt_sdk.errors))
    assert set(from_code) - {"errors"} == {name for name in exported if is_code(name)}
    assert set(in_prose) >= {name for name in exported if not is_code(name)}


def test_the_file_formats_are_those_that_are_read():
    """Each suffix is in the table once, and none besides."""
    table = re.findall(r"^\|.*\|$", text_of("files.md"), re.MULTILINE)
    suffixes = re.findall(r"`(\.\w+)`", "\n".join(row.split("|")[2] for row in table))
    assert sorted(suffixes) == sorted(cmt_sdk.FILE_SUFFIXES)


def test_exported_names_are_sorted_documented_and_there():
    """Each public name exists and has a docstring."""
    # as ruff sorts
    assert cmt_sdk.__all__ == sorted(cmt_sdk.__all__, key=lambda name: (not name.isupper(), name))
    undocumented = [n for n in cmt_sdk.__all__ if is_code(n) and not getattr(cmt_sdk, n).__doc__]
    assert undocumented == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cmt_sdk.nonsense
