"""What a page or a letter calls itself is its title, and its headings are headings in any
language.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cmt_sdk.converting.docx import from_docx
from cmt_sdk.converting.html import from_html
from tests.everyday.docx_files import docx, p, style

HTML = {
    "listed: title with smaller headings": (
        "<title>Kestrel lease</title><h2>Rent</h2><p>950</p>",
        "Kestrel lease",
    ),
    "og:title": (
        "<meta property='og:title' content='Kestrel lease'><title>Kestrel | Site</title><p>950",
        "Kestrel lease",
    ),
    "the only h1": ("<h1>Kestrel lease</h1><p>950", "Kestrel lease"),
    "entities and lines": ("<title>Rent &amp;\n  deposit</title><p>950", "Rent & deposit"),
    "several h1": ("<h1>Rent</h1><p>950</p><h1>Deposit</h1><p>1200", None),
    "title of a drawing": ("<svg><title>Icon</title></svg><p>950", None),
    "empty title": ("<title> </title><h1>Kestrel lease</h1><p>950", "Kestrel lease"),
    "xhtml": (
        (
            '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>Kestrel'
            " lease</title></head><body><p>950</p></body></html>"
        ),
        "Kestrel lease",
    ),
}


@pytest.mark.parametrize(("page", "title"), HTML.values(), ids=HTML.keys())
def test_title_of_a_page(page: str, title: str | None) -> None:
    """The title is metadata; it does not stand in the text a second time."""
    found = from_html(page.encode(), Path("page.html"))
    assert found.metadata == ({"title": title} if title else {})
    assert not found.text.startswith("Kestrel lease\n")


STYLES = (
    style("Titel", "Title")
    + style("berschrift1", "heading 1")
    + style("Titre2", "heading 2", '<w:basedOn w:val="berschrift1"/>')
    + style("Eigene", "Meine Überschrift", '<w:basedOn w:val="Titre2"/>')
    + style("Nagwek3", "Nagłówek", '<w:pPr><w:outlineLvl w:val="2"/></w:pPr>')
    + style("Kreis", "Kreis", '<w:basedOn w:val="Kreis"/>')
    + style("Text", "Body", '<w:pPr><w:outlineLvl w:val="9"/></w:pPr>')
)
HEADINGS = {
    "German": ("berschrift1", "# Miete"),
    "French": ("Titre2", "## Miete"),
    "based on a heading": ("Eigene", "## Miete"),
    "outline level of a style": ("Nagwek3", "### Miete"),
    "title": ("Titel", "# Miete"),
    "style based on itself": ("Kreis", "Miete"),
    "body text": ("Text", "Miete"),
    "style that is not there": ("Nichts", "Miete"),
}


@pytest.mark.parametrize(("name", "text"), HEADINGS.values(), ids=HEADINGS.keys())
def test_headings_of_a_letter(name: str, text: str) -> None:
    """Styles count by what they are based on, not by their names in English."""
    letter = docx(p("Miete", style=name) + p("950"), {"styles": STYLES})
    assert from_docx(letter, Path("a.docx")).text == f"{text}\n\n950"


def test_outline_level_of_a_paragraph() -> None:
    """A paragraph may be a heading without a style."""
    body = p("Miete", properties='<w:outlineLvl w:val="1"/>') + p("950")
    assert from_docx(docx(body), Path("a.docx")).text == "## Miete\n\n950"


TITLES = {
    "Title style": (p("Kestrel lease", style="Titel"), "<dc:title>Old</dc:title>", "Kestrel lease"),
    "properties": (p("950"), "<dc:title>Kestrel lease</dc:title>", "Kestrel lease"),
    "written by Word": (p("950"), "<dc:title>Microsoft Word - lease.doc</dc:title>", None),
    "a file's name": (p("950"), "<dc:title>template_v2.dotx</dc:title>", None),
    "empty": (p("950"), "<dc:title></dc:title>", None),
    "no properties": (p("950"), "", None),
}


@pytest.mark.parametrize(("body", "core", "title"), TITLES.values(), ids=TITLES.keys())
def test_title_of_a_letter(body: str, core: str, title: str | None) -> None:
    """The paragraph of style Title comes first, then the file's properties, if they say
    something.
    """
    found = from_docx(docx(body, {"styles": STYLES}, core), Path("a.docx"))
    assert found.metadata == ({"title": title} if title else {})
