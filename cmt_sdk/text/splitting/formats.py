"""The splitting rules of a text, by the suffix of its source, or its name where it has none.

A new suffix of a known format is one word here; a new format is a function that gives the headings
and blocks of a text, and a line here. The text can be a converted one: the rules of `.pdf` are for
the plain text that converting makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TypeAlias

from cmt_sdk.text.splitting.elements import Block, Heading
from cmt_sdk.text.splitting.lines import (
    read_cues,
    read_log,
    read_nested,
    read_rows,
    read_settings,
    read_written,
)
from cmt_sdk.text.splitting.markdown import read_markdown
from cmt_sdk.text.splitting.markup import ASCIIDOC, ORG, TYPST, WIKI, by_marks, read_latex, read_rst
from cmt_sdk.text.splitting.plain import read_plain

Rules: TypeAlias = Callable[[str], Iterator[Heading | Block]]

MARKDOWN: Rules = read_markdown
SUFFIXES: dict[Rules, str] = {  # and names without one
    read_plain: ".txt .text .pdf",
    read_rst: ".rst .rest",
    by_marks(ASCIIDOC): ".adoc .asciidoc .asc",
    by_marks(ORG): ".org",
    by_marks(WIKI): ".wiki .mediawiki",
    by_marks(TYPST): ".typ",
    read_latex: ".tex .ltx .latex .sty .cls .bib",
    read_settings: (
        ".ini .cfg .conf .cnf .toml .properties .env .desktop .service .editorconfig .gitconfig"
        " .reg"
    ),
    read_nested: (
        ".yaml .yml .json5 .jsonc .tf .hcl .py .pyi .js .mjs .ts .tsx .jsx .java .kt .c .h .cc .cpp"
        " .hpp .cs .go .rs .rb .php .swift .scala .lua .pl .r .jl .hs .sh .bash .zsh .fish .ps1"
        " .bat .cmd .sql .css .scss .less .xml .gradle .cmake .mk .nix .vim .el .lisp .clj .ex .exs"
        " .erl .dart .vue .svelte .graphql .proto dockerfile makefile jenkinsfile .bashrc .zshrc"
        " .profile .vimrc .gitignore .dockerignore"
    ),
    read_log: ".log .out .err",
    read_cues: ".srt .vtt .sbv",
    read_written: ".xlsx .xlsm .xls .ods",
    read_rows: ".csv .tsv .tab .psv .json .jsonl .ndjson .geojson",
}
RECORDS = (read_written, read_rows)  # formats of like rows
RULES = {suffix: rules for rules, suffixes in SUFFIXES.items() for suffix in suffixes.split()}


def rules_for(source: str | None) -> Rules:
    """The rules for the text of a source.

    Args:
        source: A path or an address, or None.

    Returns:
        The rules of its suffix; Markdown's for texts without a source and for other suffixes.
    """
    path = (source or "").split("?")[0].split("#")[0] if "://" in (source or "") else source or ""
    name = PurePosixPath(path.replace("\\", "/")).name.lower()
    return RULES.get(PurePosixPath(name).suffix, RULES.get(name, MARKDOWN))
