"""Report every retired word in code, help and documents: python tests/docs/retired_words.py.

`retired_words.txt` maps each word to the one that replaces it. A line that needs the word as data,
such as a pattern over people's texts, ends with the comment `# retired-word: REASON`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("retired_words.txt")
FOLDERS = ("cmt_sdk", "cli", "adapters", "docs", "examples")
FILES = ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")
SUFFIXES = {".py", ".md", ".js", ".html", ".j2", ".sh", ".toml"}
DATA = ("examples/everyday/", "examples/conversations/dialogues/", "examples/documents/")
EXEMPT = "retired-word:"


def retired() -> dict[str, str]:
    """Each retired word, lower case, with its replacement."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(" -> ") for line in lines if line and not line.startswith("#"))
    return {word.strip().lower(): instead.strip() for word, _, instead in pairs}


def files() -> Iterator[Path]:
    """The files in which no retired word may stand."""
    for name in FOLDERS:
        for path in sorted((ROOT / name).rglob("*")):
            place = path.relative_to(ROOT).as_posix()
            if path.suffix in SUFFIXES and not place.startswith(DATA):
                yield path
    yield from (ROOT / name for name in FILES)


def found(words: dict[str, str]) -> Iterator[str]:
    """One line per retired word: file, line, the word and its replacement."""
    pattern = re.compile(
        rf"(?<![^\W_])({'|'.join(map(re.escape, words))})(?![^\W_])", re.IGNORECASE
    )
    for path in files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if EXEMPT in line:
                continue
            for match in pattern.finditer(line):
                word = match[0]
                place = f"{path.relative_to(ROOT)}:{number}"
                yield f"{place}: {word!r} is retired: use {words[word.lower()]}"


def main() -> None:
    """See the module."""
    lines = list(found(retired()))
    print("\n".join(lines) or "no retired word is left")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
