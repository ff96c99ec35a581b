"""No text costs more than its length: from a file to its passages, time grows as the length does, not
as its square.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cmt_sdk.converting import read_document
from cmt_sdk.errors import InvalidInput
from cmt_sdk.text.splitting import rules_for, split
from cmt_sdk.text.titles import title_of
from cmt_sdk.text.words import indexed

FIRST, LAST = 4_000, 1_000_000  # bytes
FLOOR = 0.03  # seconds: below, noise decides
ENOUGH = 0.25  # seconds: what is quadratic has shown by then
EXPONENT = 1.5  # of the length: halfway from linear to quadratic
WORD = re.compile(r"\w+|[^\w\s]")
Shape = Callable[[int], str]


def of(piece: str, before: str = "", after: str = "") -> Shape:
    """A text that repeats a piece."""
    return lambda n: before + piece * (n // len(piece)) + after


def numbered(form: str, before: str = "", after: str = "") -> Shape:
    """A text of pieces that differ by a number."""
    return lambda n: (
        before + "".join(form.replace("@", str(i)) for i in range(n // len(form))) + after
    )


NOTE = "<en-export><note><title>a</title><content>"
SHAPES: dict[str, tuple[str, Shape]] = {
    "html: spaces in a row": (".html", of(" ", "<p>x", "x")),
    "html: line ends in a row": (".html", of("\n ", "<p>x", "x")),
    "html: breadcrumbs as heading": (".html", of("a &gt; ", "<h1>", "</h1><p>x")),
    "html: < without end": (".html", of("<")),
    "html: comments without end": (".html", of("<!--")),
    "html: a numbered list": (".html", of("<li>a", "<ol>", "</ol>")),
    "html: footnotes": (".html", numbered('<li id="footnote-@">a', "<ol>", "</ol>")),
    "html: unknown elements": (".html", of("<x-a>a</x-a>\n")),
    "html: links in a row": (".html", of("<a href=x>1</a>")),
    "html: cells of one row": (".html", of("<td>a</td>", "<table><tr>", "</table>")),
    "html: rows": (".html", of("<tr><td>a</td><td>b</td></tr>", "<table>", "</table>")),
    "html: cells over many rows": (".html", of("<tr><td rowspan=60000>a</td><td colspan=900>b</td></tr>", "<table>")),
    "html: definitions": (".html", of("<dt>a<dd>b")),
    "html: rules of style": (".html", of("a b c{}", "<style>", "</style><p>x")),
    "html: formulas": (".html", of("<math><mfrac><mi>a</mi><mi>b</mi></mfrac></math>")),
    "html: fractions without end": (".html", of("<mfrac><mi>a</mi>", "<math>", "</math>")),
    "html: fields": (".html", of("<b><i><u>a</u></i></b>")),
    "md: breadcrumbs as heading": (".md", of("a > ", "# ", "b\n\ntext\n")),
    "md: headings": (".md", of("# a\n")),
    "md: hashes": (".md", of("#")),
    "md: dots": (".md", of(".")),
    "md: quotation marks": (".md", of('"')),
    "md: pipes": (".md", of("|")),
    "md: columns": (".md", lambda n: "|a" * (n // 6) + "|\n" + "|-" * (n // 6) + "|\n" + "|b" * (n // 6) + "|\n"),
    "md: rows": (".md", of("|c|d|\n", "|a|b|\n|-|-|\n")),
    "md: opened brackets": (".md", of("[")),
    "md: links without end": (".md", of("[a](")),
    "md: footnotes": (".md", numbered("[^@]\n\n[^@]: x\n\n")),
    "md: addresses of links": (".md", numbered("[a@]: /b\n")),
    "md: backslashes": (".md", of("\\")),
    "md: backticks": (".md", of("`a")),
    "md: fences": (".md", of("```\n")),
    "md: emphasis": (".md", of("**a*b _c")),
    "md: quotes in quotes": (".md", of("> ")),
    "md: lists in lists": (".md", of("- ")),
    "md: definitions": (".md", of("a\n: b\n\n")),
    "md: front matter of aliases": (".md", numbered("b@: [*a,*a]\n", "---\na: &a [x]\n", "---\nx")),
    "md: front matter of brackets": (".md", of("[", "---\na: ", "\n---\nx")),
    "txt: combining marks": (".txt", of("\u0301", "a")),
    "txt: flags": (".txt", of("\U0001f1e9\U0001f1ea")),
    "txt: one line": (".txt", of("The cat sat. ")),
    "txt: one word": (".txt", of("a")),
    "txt: digits": (".txt", of("1,")),
    "txt: letters in base 64": (".txt", of("QUJD")),
    "csv: one quotation mark": (".csv", of("a,b\n", '"')),
    "csv: columns": (".csv", lambda n: ("a," * (n // 4) + "x\n") * 2),
    "json: nested": (".json", lambda n: "[" * (n // 2) + "]" * (n // 2)),
    "json: numbers": (".json", of("1,", "[", "1]")),
    "jsonl: other keys in each line": (".jsonl", numbered('{"k@":1}\n')),
    "yaml: aliases": (".yaml", of("b: *a\n", "a: &a x\n")),
    "rtf: groups in groups": (".rtf", lambda n: "{\\rtf1 " + "{" * (n // 2) + "a" + "}" * (n // 2) + "}"),
    "rtf: fonts": (".rtf", of("{\\f0 a;}", "{\\rtf1 {\\fonttbl", "}x}")),
    "rtf: fonts of one character set": (".rtf", of("\\f0 ", "{\\rtf1 {\\fonttbl", "\\fcharset0}x}")),
    "eml: messages in messages": (".eml", of("Content-Type: message/rfc822\n\n", "From: a@b\nSubject: a\n")),
    "eml: parts in parts": (".eml", numbered("--b\n\nx@\n", "Subject: a\nContent-Type: multipart/mixed; boundary=b\n\n")),
    "eml: folded fields": (".eml", of("\n b", "Subject: a", "\n\nx")),
    "eml: html with spaces": (".eml", of(" ", "Subject: a\nContent-Type: text/html\n\n<p>x", "x")),
    "ics: events": (".ics", of("BEGIN:VEVENT\nSUMMARY:a\nEND:VEVENT\n", "BEGIN:VCALENDAR\n", "END:VCALENDAR\n")),
    "srt: marks": (".srt", of("<", "1\n00:00:01,000 --> 00:00:02,000\n")),
    "enex: spaces": (".enex", of(" ", NOTE + "<![CDATA[<en-note>x", "x</en-note>]]></content></note></en-export>")),
}  # fmt: skip


def count(texts: Sequence[str]) -> list[int]:
    """Tokens, in time that is linear itself."""
    return [sum(1 for _ in WORD.finditer(text)) for text in texts]


def seconds(path: Path, text: str) -> float:
    """Processor time from the file to its passages and the words that are searched."""
    path.write_text(text, encoding="utf-8", newline="")
    start = time.process_time()
    try:
        document = read_document(path)
        title = title_of(document, lambda name: count([name])[0] <= 24)
        split(document.text, count, 256, title=title, rules=rules_for(document.source))
        indexed(document.text)
    except InvalidInput:  # nested too deep, or nothing in it: to say so costs no more
        pass
    return time.process_time() - start


@pytest.fixture(autouse=True)
def _apart_from_other_tests() -> Iterator[None]:
    """What they have left in memory is not looked at again and again meanwhile."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def check(path: Path, shape: Shape, enough: float) -> None:
    """Double the text until it takes long enough, or is as long as a text may be. A noisy machine
    may double a time, so lengths are compared that are four times apart or more, and what looks
    too slow is measured again.
    """
    seconds(path, shape(FIRST))  # imports what is needed on the way
    short, size, took = 0, FIRST, seconds(path, shape(FIRST))
    while True:
        if not short and took >= FLOOR:
            short, least = size, took
        if size >= LAST or (took >= enough and short and size >= 4 * short):
            break
        size *= 2
        took = seconds(path, shape(size))
    if not short or size < 4 * short:
        return  # a whole megabyte takes no time that can be measured
    most = (size / short) ** EXPONENT
    if took > most * least:
        again = [(seconds(path, shape(short)), seconds(path, shape(size))) for _ in range(3)]
        least, took = (min(times) for times in zip(*again, strict=True))
    assert took <= most * max(least, FLOOR), (
        f"{short} bytes take {least:.2f} s, {size} take {took:.2f} s"
    )


@pytest.mark.parametrize(("suffix", "shape"), SHAPES.values(), ids=SHAPES.keys())
def test_time_grows_as_the_length(tmp_path: Path, suffix: str, shape: Shape) -> None:
    """Nearer to linear than to quadratic, whatever the text is made of."""
    check(tmp_path / f"a{suffix}", shape, ENOUGH)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "shape"), SHAPES.values(), ids=SHAPES.keys())
def test_it_holds_up_to_a_megabyte(tmp_path: Path, suffix: str, shape: Shape) -> None:
    """The long form."""
    check(tmp_path / f"a{suffix}", shape, 60)
