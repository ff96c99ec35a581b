"""Marks mean what their format says: which lines are headings and which are code, by the suffix of
a text's source.
"""

import re

import pytest

from cmt_sdk.text.splitting import passages, rules_for, split


def tokens(texts):
    """A token counter: parts of words, marks, line ends."""
    return [len(re.findall(r"\w{1,4}|[^\w\s]|\n", text)) for text in texts]


@pytest.fixture(autouse=True)
def short_documents_are_cut(monkeypatch):
    """As long ones are: the texts here are short."""
    monkeypatch.setattr(passages, "SHORT_DOCUMENT", 0)


def cut(text, suffix, budget=120):
    """The passages of a text with the heading each stands under."""
    return [
        (s.heading, text[s.start : s.end])
        for s in split(text, tokens, budget, rules=rules_for(f"notes/x{suffix}"))
    ]


MARKDOWN = {
    "fence-with-a-backtick-in-its-line": (
        (
            "# Porto office\n\n```badge print``` makes a new badge.\n\n# Lyon office\n\nThe door"
            " code is 22.\n"
        ),
        [
            ("Porto office", "```badge print``` makes a new badge."),
            ("Lyon office", "The door code is 22."),
        ],
    ),
    "fence-that-begins-and-ends-in-a-line": (
        "# A\n\n```js``` and more\n\n# B\n\ntext b\n",
        [("A", "```js``` and more"), ("B", "text b")],
    ),
    "longer-fence-around-a-shorter": (
        "# A\n\n````md\n```\n# no\n```\n````\n\n# B\n\ntext b\n",
        [("A", "````md\n```\n# no\n```\n````"), ("B", "text b")],
    ),
    "tilde-fence-with-words": (
        "# A\n\n~~~~ note ~~~~\n# no\n~~~~\n\n# B\n\nb\n",
        [("A", "~~~~ note ~~~~\n# no\n~~~~"), ("B", "b")],
    ),
    "closing-fence-with-words-closes-nothing": (
        "```\na\n``` b\n# no\n```\n\n# B\n\nb\n",
        [("", "```\na\n``` b\n# no\n```"), ("B", "b")],
    ),
    "fence-never-closed": (
        "# A\n\n```sh\nls\n# comment\n\n## Contact\n\nAnn Abel\n\n## Hours\n\n9 to 5\n",
        [("A", "```sh\nls\n# comment"), ("A > Contact", "Ann Abel"), ("A > Hours", "9 to 5")],
    ),
    "comment-never-closed": (
        "# A\n\n<!-- to do\n\n# B\n\nAnn Abel\n",
        [("A", "<!-- to do"), ("B", "Ann Abel")],
    ),
    "comment-that-is-closed": (
        "# A\n\n<!--\n\n# no\n\n-->\n\nb\n",
        [("A", "<!--\n\n# no\n\n-->\n\nb")],
    ),
    "fence-in-a-list": (
        "# A\n\n1. do\n   ```sh\n   # comment\n   ```\n2. then\n",
        [("A", "1. do\n   ```sh\n   # comment\n   ```\n2. then")],
    ),
    "indented-code": (
        "# A\n\n    # comment\n    run\n\ntext\n",
        [("A", "# comment\n    run\n\ntext")],
    ),
    "html-block": (
        "# A\n\n<div>\n# no\n</div>\n\nafter\n",
        [("A", "<div>\n# no\n</div>\n\nafter")],
    ),
    "pre-with-blank-lines": (
        "# A\n\n<pre>\n\n# no\n\n</pre>\n\nafter\n",
        [("A", "<pre>\n\n# no\n\n</pre>\n\nafter")],
    ),
    "heading-in-a-quotation": (
        "# A\n\n> # Quoted\n> words\n\nafter\n",
        [("A", "> # Quoted\n> words\n\nafter")],
    ),
    "short-underlines": (
        "Porto\n=\n\nDoor 11.\n\nHours\n--\n\n9 to 5.\n",
        [("Porto", "Door 11."), ("Porto > Hours", "9 to 5.")],
    ),
    "front-matter": (
        "---\ntags: a\n---\n\n# A\n\ntext\n",
        [("", "---\ntags: a\n---"), ("A", "text")],
    ),
    "rule-below-several-lines": (
        "It is open.\nIt sells books.\n---\nEnd.\n",
        [("", "It is open.\nIt sells books.\n---\nEnd.")],
    ),
    "tag-of-obsidian": ("#boat #pier\n\ntext\n", [("", "#boat #pier\n\ntext")]),
}


@pytest.mark.parametrize(("text", "wanted"), MARKDOWN.values(), ids=MARKDOWN)
def test_markdown(text, wanted):
    """By CommonMark, except that nothing that was left open swallows the sections after it."""
    assert cut(text, ".md") == wanted


OTHERS = {
    "rst-tildes": (
        ".rst",
        (
            "Porto office\n============\n\nOpening hours\n~~~~~~~~~~~~~\n\n9 to 5.\n\nBerlin"
            " office\n=============\n\nDoor 33.\n"
        ),
        [("Porto office > Opening hours", "9 to 5."), ("Berlin office", "Door 33.")],
    ),
    "rst-overlines": (
        ".rst",
        (
            "=====\nPorto\n=====\n\nHours\n-----\n\nAs here::\n\n    Title\n   "
            " -----\n\nContact\n+++++++\n\nAnn\n"
        ),
        [
            ("Porto > Hours", "As here::\n\n    Title\n    -----"),
            ("Porto > Hours > Contact", "Ann"),
        ],
    ),
    "rst-windows-lines": (
        ".rst",
        "Porto\r\n=====\r\n\r\nHours\r\n~~~~~\r\n9 to 5.\r\n",
        [("Porto > Hours", "9 to 5.")],
    ),
    "rst-levels-by-appearance": (
        ".rst",
        "Abc\n***\n\na\n\nDef\n^^^\n\nb\n\nGhi\n***\n\nc\n",
        [("Abc", "a"), ("Abc > Def", "b"), ("Ghi", "c")],
    ),
    "asciidoc": (
        ".adoc",
        (
            "= Depots\nAnn Abel\n\n== North depot\n\n----\n== no\n----\n\n=== Hours\n\n9 to 5.\n//"
            " == no\n"
        ),
        [
            ("Depots", "Ann Abel"),
            ("Depots > North depot", "----\n== no\n----"),
            ("Depots > North depot > Hours", "9 to 5.\n// == no"),
        ],
    ),
    "org": (
        ".org",
        (
            "#+TITLE: Depots\n\n* North depot\n#+begin_src sh\n* no\n# no\n#+end_src\n**"
            " Hours\n:LOG:\nx\n:END:\n9 to 5.\n"
        ),
        [
            ("Depots > North depot", "#+begin_src sh\n* no\n# no\n#+end_src"),
            ("Depots > North depot > Hours", ":LOG:\nx\n:END:\n9 to 5."),
        ],
    ),
    "latex": (
        ".tex",
        (
            "\\section{North \\emph{depot}}\nDoor 11. % \\section{no}\n"
            "\\begin{verbatim}\n\\section{no}\n\\end{verbatim}\n\\subsection*{Hours}\n9\n"
        ),
        [
            (
                "North depot",
                "Door 11. % \\section{no}\n\\begin{verbatim}\n\\section{no}\n\\end{verbatim}",
            ),
            ("North depot > Hours", "9"),
        ],
    ),
    "mediawiki": (
        ".wiki",
        "= Depots =\n== North ==\nDoor 11.\n== South ==\nDoor 22.\n",
        [("Depots > North", "Door 11."), ("Depots > South", "Door 22.")],
    ),
    "typst": (".typ", "= Depots\n== North\nDoor 11.\n", [("Depots > North", "Door 11.")]),
    "conf": (
        ".conf",
        "# no\nport = 80\n; no\n[mail]\nhost = k\n",
        [("", "# no\nport = 80\n; no"), ("mail", "host = k")],
    ),
    "toml": (
        ".toml",
        "[server.mail]\nlist = [\n  'a',\n]\n",
        [("server.mail", "list = [\n  'a',\n]")],
    ),
    "yaml": (
        ".yaml",
        "# do not use in production\nport: 8080\n",
        [("", "# do not use in production\nport: 8080")],
    ),
    "shell": (
        ".sh",
        "#!/bin/sh\n# Backup\nrsync a b\n\n# Second\nls\n",
        [("", "#!/bin/sh\n# Backup\nrsync a b\n\n# Second\nls")],
    ),
    "dockerfile": ("/Dockerfile", "# Build\nFROM a\n", [("", "# Build\nFROM a")]),
    "python": (
        ".py",
        "# Boats\nx = 1\n\n# Piers\ny = 2\n",
        [("", "# Boats\nx = 1\n\n# Piers\ny = 2")],
    ),
    "log": (".log", "# start\n2026-03-04 a\n", [("", "# start\n2026-03-04 a")]),
    "subtitles": (
        ".srt",
        "1\n00:00:01,000 --> 00:00:02,000\n# song\n",
        [("", "1\n00:00:01,000 --> 00:00:02,000\n# song")],
    ),
    "text-underlined": (
        ".txt",
        "Porto\n-----\nDoor 11.\n\nRome\n----\nDoor 22.\n",
        [("Porto", "Door 11."), ("Rome", "Door 22.")],
    ),
    "text-like-markdown": (
        ".txt",
        "# Porto\n\nDoor 11.\n\n## Hours\n\n9\n",
        [("Porto", "Door 11."), ("Porto > Hours", "9")],
    ),
    "text-with-comments": (
        ".txt",
        "# one\n# two\nrun x\n# three\n",
        [("", "# one\n# two\nrun x\n# three")],
    ),
    "text-rule-between": (
        ".txt",
        "We met at the pier.\n---\nThen we left.\n",
        [("", "We met at the pier.\n---\nThen we left.")],
    ),
    "no-suffix": ("", "# Porto\n\nDoor 11.\n", [("Porto", "Door 11.")]),
}


@pytest.mark.parametrize(("suffix", "text", "wanted"), OTHERS.values(), ids=OTHERS)
def test_other_formats(suffix, text, wanted):
    """Each by its own rules; a comment is nowhere a heading."""
    assert cut(text, suffix) == wanted


def test_a_path_that_is_too_long_keeps_its_top():
    """The title tells documents apart; then come the last headings."""
    text = (
        "# Payments and other duties of the tenant\n\n## Rent and side costs, month by month\n\n950"
        " euros.\n"
    )
    (span,) = split(text, tokens, 80, title="Kestrel lease of the year 2026")
    assert span.heading == "Kestrel lease of the year 2026 > Rent and side costs, month by month"
    assert text[span.start : span.end] == text.strip()
    (span,) = split(text, tokens, 400, title="Kestrel lease of the year 2026")
    assert (
        span.heading
        == "Kestrel lease of the year 2026 > Payments and other duties of the tenant > Rent and"
        " side costs, month by month"
    )


def test_a_title_that_is_too_long_is_shortened_at_a_word():
    """And the heading below it keeps its place."""
    title = "Minutes of the yearly meeting of all the members of the harbour club"
    (span,) = split("# Fees\n\n20 euros.\n", tokens, 64, title=title)
    assert span.heading == "Minutes of the yearly meeting of all the members of > Fees"


@pytest.mark.parametrize("title", ["Kestrel – Router", "KESTREL: router", "Notes > kestrel router"])
def test_a_title_does_not_stand_twice(title):
    """Capitals and punctuation make no difference."""
    (span,) = split("# Kestrel: router\n\n10.0.0.7\n", tokens, 64, title=title)
    assert span.heading == title
