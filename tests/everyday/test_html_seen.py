"""What nobody sees of a page, and the menus around its main part, are left out; no more than
that.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from cmt_sdk.converting import read_document
from cmt_sdk.converting.html import from_html
from cmt_sdk.errors import InvalidDocument

FEE = "<p>The fee is 20 euros.</p>"
HIDDEN = {
    "listed: display none": '<p style="display:none">The fee is 30.</p>',
    "listed: hidden": "<p hidden>The fee is 30.</p>",
    "listed: aria-hidden": '<p aria-hidden="true">The fee is 30.</p>',
    "listed: visibility": '<p style="visibility:hidden">The fee is 30.</p>',
    "listed: font of no size": '<p style="font-size:0">The fee is 30.</p>',
    "listed: video": "<video>The fee is 30.</video>",
    "listed: iframe": "<iframe>The fee is 30.</iframe>",
    "listed: object": "<object>The fee is 30.</object>",
    "listed: other options": "<select><option selected><option>The fee is 30.</select>",
    "class": "<style>.x{display:none}</style><p class=x>The fee is 30.</p>",
    "identifier and nesting": (
        "<style>#a > p.b{display:none!important}</style><div id=a><p class=b>30</div>"
    ),
    "media for screens": "<style>@media screen{.x{display:none}}</style><p class=x>30</p>",
    "opacity": '<p style="opacity:0">The fee is 30.</p>',
    "far off the page": '<p style="position:absolute;left:-9999px">The fee is 30.</p>',
    "text far off": '<p style="text-indent:-999em">The fee is 30.</p>',
    "clipped": '<p style="position:absolute;clip:rect(0,0,0,0)">The fee is 30.</p>',
    "clipped by a path": '<p style="clip-path:inset(50%)">The fee is 30.</p>',
    "no height": '<p style="height:0;overflow:hidden">The fee is 30.</p>',
    "colour of the ground": '<p style="color:#fff;background-color:#fff">The fee is 30.</p>',
    "transparent": '<p style="color:transparent">The fee is 30.</p>',
    "tiny": '<p style="font-size:1px">The fee is 30.</p>',
    "e-mail preheader": '<div style="display:none;max-height:0;mso-hide:all">30</div>',
    "template": "<template>The fee is 30.</template>",
    "noscript": "<noscript>The fee is 30.</noscript>",
    "closed dialogue": "<dialog>The fee is 30.</dialog>",
    "popover": "<div popover>The fee is 30.</div>",
    "password": '<input type=password value="30">',
    "hidden field": '<input type=hidden value="30">',
    "proposals": '<datalist><option value="30">30</datalist>',
    "comment": "<!-- The fee is 30. -->",
}


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN.keys())
def test_hidden(hidden: str) -> None:
    """Only the sentence that a reader sees is read."""
    assert from_html(f"{hidden}{FEE}".encode(), Path("page.html")).text == "The fee is 20 euros."


SEEN = {
    "print style": "<style>@media print{p{display:none}}</style>",
    "style for narrow screens": "<style>@media (max-width: 600px){p{display:none}}</style>",
    "later rule": "<style>p{display:none} p{display:block}</style>",
    "stronger rule": "<style>body p{display:block} p{display:none}</style>",
    "another class": "<style>.x p, .x{display:none}</style>",
    "broken style sheet": "<style>p{{{display:none</style>",
    "hover": "<style>p:hover{display:none}</style>",
    "pseudo element": "<style>p::before{display:none}</style>",
    "body that scripts show": "<style>body{visibility:hidden}</style>",
    "open dialogue": "<dialog open></dialog>",
    "unknown selector": "<style>p:unheard-of(2){display:none}</style>",
}


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN.keys())
def test_seen(seen: str) -> None:
    """What a wide screen shows is read, whatever the style sheet says to other devices."""
    assert from_html(f"{seen}{FEE}".encode(), Path("page.html")).text == "The fee is 20 euros."


def test_a_page_behind_a_dialogue() -> None:
    """While a dialogue is open, the rest of a page has aria-hidden: it is the page all the same."""
    page = f'<div aria-hidden="true">{FEE * 3}</div><div role="dialog">Accept?</div>'
    assert "The fee is 20 euros." in from_html(page.encode(), Path("page.html")).text


def test_visible_within_hidden() -> None:
    """Visibility and size can be given back to a part."""
    page = '<div style="visibility:hidden">30 <p style="visibility:visible">20</p> 40</div>'
    assert from_html(page.encode(), Path("page.html")).text == "20"


def test_a_filled_form() -> None:
    """What is filled in, written and chosen is read."""
    page = (
        '<form><p>Name: <input value="Ann Abel"></p><p>Room <select><option>A<option selected>B'
        "</select></p><textarea>Two beds</textarea><input type=submit value=Send></form>"
    )
    text = from_html(page.encode(), Path("page.html")).text
    assert text == "Name: Ann Abel\n\nRoom B\n\nTwo beds"


ARTICLE = "".join(
    f"<p>The ferry to Tarn leaves at {n} in the morning, and the fare for it is {n + 20} euros,"
    " which includes a bicycle, a dog, and a seat on the upper deck, weather permitting.</p>"
    for n in range(1, 9)
)
LINKS = "".join(f'<li><a href="/{n}">Section {n} of the site</a>' for n in range(12))
CHROME = {
    "listed: nav": f"<nav><ul>{LINKS}</ul></nav>",
    "listed: footer": '<footer><p>© 2026 Tarn Lines. <a href="/i">Imprint</a></p></footer>',
    "listed: header": f"<header><a href='/'>Tarn Lines</a><nav>{LINKS}</nav></header>",
    "listed: cookie banner": (
        '<div class="cookie-banner"><p>We use cookies.</p><button>OK</button></div>'
    ),
    "side bar": f"<aside><h3>More</h3><ul>{LINKS}</ul></aside>",
    "menu of divisions": f'<div id="main-menu"><ul>{LINKS}</ul></div>',
    "share buttons": '<div class="share-buttons"><a href="#">Tweet</a><a href="#">Mail</a></div>',
    "role": f'<div role="navigation"><ul>{LINKS}</ul></div>',
    "consent": '<div id="consent-dialog" role="dialog"><p>Accept all partners?</p></div>',
}


@pytest.mark.parametrize("chrome", CHROME.values(), ids=CHROME.keys())
def test_around_an_article(chrome: str) -> None:
    """Menus and the like go; every paragraph, heading, table and list of the article stays."""
    article = (
        f"<article><h1>Ferries</h1>{ARTICLE}<h2>Fares</h2><table><tr><th>Who<th>Euros<tr><td>Adult"
        "<td>28</table><ul><li>Dogs ride free.</ul></article>"
    )
    page = f"<body>{chrome}<main>{article}</main></body>"
    whole = from_html(f"<body>{article}</body>".encode(), Path("page.html")).text
    assert from_html(page.encode(), Path("page.html")).text == whole
    assert "| Adult | 28 |" in whole


NO_ARTICLES = {
    "table": "<h1>Fees</h1><table><tr><th>Berth<th>Fee<tr><td>A<td>20<tr><td>B<td>30</table>",
    "form": (
        "<h1>Order</h1><form><p>Name <input value='Ann'></p><p>Tea <input value='3'></p></form>"
    ),
    "receipt": (
        "<table><tr><td class='header'>Tarn"
        " Lines</td></tr><tr><td><table><tr><td>Ticket<td>28.00<tr><td>Bicycle<td>5.00</table></td></tr><tr><td"
        " class='footer'>Total 33.00, paid</td></tr></table>"
    ),
    "recipe": (
        "<h1>Apple cake</h1><ul><li>350 g flour<li>3 eggs</ul><ol><li>Stir.<li>Bake 45"
        " minutes.</ol>"
    ),
    "short note": "<div>Gate code 4711</div><div><br></div><div>Ask Ann</div>",
    "e-mail": (
        "<div>Hi Bob,<br>the key is under the stone.</div><blockquote>Where is it?</blockquote>"
    ),
    "Evernote": (
        "<en-note><h1>Boat</h1><div>Moored at pier seven</div><ul><li>fuel<li>rope</ul></en-note>"
    ),
    "Notion": (
        '<article class="page sans"><header><h1 class="page-title">Boat</h1><table'
        ' class="properties"><tbody><tr><th>Owner</th><td>Ann</td></tr></tbody></table></header><div'
        " class='page-body'><p>Moored at pier seven</p></div></article>"
    ),
}


def _words(text: str) -> list[str]:
    return [word for word in text.replace("|", " ").split() if word.strip("-#*:")]


@pytest.mark.parametrize("page", NO_ARTICLES.values(), ids=NO_ARTICLES.keys())
@pytest.mark.parametrize(
    "around", ["{}", f"<nav><ul>{LINKS}</ul></nav>{{}}"], ids=["alone", "menu"]
)
def test_pages_that_are_no_articles(page: str, around: str) -> None:
    """They lose nothing, alone and with a menu above them."""
    text = from_html(f"<body>{around.format(page)}</body>".encode(), Path("page.html")).text
    expected = from_html(f"<body><section>{page}</section></body>".encode(), Path("page.html")).text
    assert _words(text) == _words(expected)
    assert "Section 3" not in text


def test_a_page_that_shows_nothing(tmp_path: Path) -> None:
    """It is refused, not remembered as empty."""
    (tmp_path / "empty.html").write_text("<p hidden>The fee is 30.</p>")
    with pytest.raises(InvalidDocument, match=r"empty\.html holds no text"):
        read_document(tmp_path / "empty.html")


def test_reading_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What the extractor says to itself is kept from the user."""
    with caplog.at_level(logging.DEBUG):
        from_html(f"<nav>{LINKS}</nav>{ARTICLE}".encode(), Path("page.html"))
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "page",
    [
        f"<nav>{LINKS}</nav>" + ARTICLE * 150,
        f"<nav>{LINKS}</nav>" + "<div><span>12</span><b>a</b></div>" * 5_000,
        "<style>"
        + "".join(f".a{n} b{{display:none}}" for n in range(1000))
        + "</style>"
        + "".join(f"<p class=a{n}>x<b>y</b></p>" for n in range(1000)),
        "<p>" + "4<sup>2</sup> " * 10_000,
    ],
    ids=["article", "divisions", "styles", "superscripts"],
)
def test_a_large_page(page: str) -> None:
    """It is read in seconds."""
    begun = time.monotonic()
    assert from_html(page.encode(), Path("page.html")).text
    assert time.monotonic() - begun < 20


def test_a_tip_within_an_article() -> None:
    """An aside without links is a part of the article that it stands in."""
    tip = "<aside><p>Tip: bring your own rope.</p></aside>"
    page = f"<nav>{LINKS}</nav><main><h1>Ferries</h1>{ARTICLE}{tip}{ARTICLE}</main>"
    assert "Tip: bring your own rope." in from_html(page.encode(), Path("page.html")).text
