"""Menus of saved pages go by what they are made of, whatever they are called; lists of links in a
text stay.
"""

from pathlib import Path

import pytest

from cmt_sdk.converting.html import from_html

TEXT = (
    "<p>The ferry to Tarn leaves the old pier at eight and comes back at noon, on all days but"
    " Sunday.</p><p>Tickets are sold on board. Dogs pay half, and bicycles need a ticket of their"
    " own in summer.</p>"
)
NAMES = ["Startseite", "Produkte", "Kontakt", "Impressum", "Hilfe"]
JAPANESE = (
    "<p>渡し船は八時に古い桟橋を出て、昼に戻ります。切符は船の上で買います。日曜日は休みです。"
    "犬は半額です。</p>"
)


def items(names=NAMES, to="/{}", tag="li"):
    """Each name as a link in an element."""
    return "".join(f'<{tag}><a href="{to.format(n)}">{n}</a></{tag}>' for n in names)


def row(mark=" | ", to="/{}"):
    """The names as links on one line."""
    return mark.join(f'<a href="{to.format(n)}">{n}</a>' for n in NAMES)


def text_of(body, head=""):
    """The text of a page."""
    page = (
        f"<html><head><meta charset=utf-8><title>T</title>{head}</head><body>{body}</body></html>"
    )
    return from_html(page.encode(), Path("page.html")).text


MENUS = {
    "div id=menu": f"<div id=menu><ul>{items()}</ul></div><h1>Ferry</h1>{TEXT}",
    "div id=topnav": f"<div id=topnav>{row()}</div><h1>Ferry</h1>{TEXT}",
    "a list without a name": (
        f"<div class=x1><ul>{items()}</ul></div><div><h1>Ferry</h1>{TEXT}</div>"
    ),
    "a list without a div": f"<ul>{items()}</ul><h1>Ferry</h1>{TEXT}",
    "a line": f"<div>{row(' · ')}</div><div><h1>Ferry</h1>{TEXT}</div>",
    "a line without marks": f"<p>{row(' ')}</p><h1>Ferry</h1>{TEXT}",
    "a table": f"<table><tr>{items(tag='td')}</tr></table><h1>Ferry</h1>{TEXT}",
    "a cell of a layout": (
        f"<table><tr><td><ul>{items()}</ul></td><td><h1>Ferry</h1>{TEXT}</td></tr></table>"
    ),
    "a side bar with a heading": (
        f"<div><h3>Bereiche</h3><ul>{items()}</ul></div><div><h1>Ferry</h1>{TEXT}</div>"
    ),
    "deep": (
        f"<div><div><div><div><ul>{items()}</ul></div></div></div></div><div><h1>Ferry</h1>{TEXT}</div>"
    ),
    "in Spanish": f"<div id=menú-lateral><ul>{items()}</ul></div><h1>Ferry</h1>{TEXT}",
    "below the text": f"<h1>Ferry</h1>{TEXT}<div class=unten>{row()}</div>",
    "above and below": f"<div>{row()}</div><h1>Ferry</h1>{TEXT}<div>{row()}</div>",
    "below a linked name of the site": (
        f"<h1><a href=/>Tarn</a></h1><ul>{items()}</ul><h2>Ferry</h2>{TEXT}"
    ),
    "Japanese": f"<div><ul>{items()}</ul></div><h1>船</h1>{JAPANESE}",
    "javascript": f"<div>{row(to='javascript:go({})')}</div><h1>Ferry</h1>{TEXT}",
}
LISTS = {
    "below a heading": f"<h1>Ferry</h1>{TEXT}<h2>Weblinks</h2><ul>{items()}</ul>",
    "below a heading in a div": f"<h1>Ferry</h1>{TEXT}<div><h2>Links</h2></div><ul>{items()}</ul>",
    "a section": f"<h1>Ferry</h1>{TEXT}<div><h2>Links</h2><ul>{items()}</ul></div>",
    "bookmarks": f"<h1>Lesezeichen</h1><ul>{items()}</ul>",
    "bookmarks with a word": (
        f"<div><ul>{items()}</ul></div><p>Saved in the spring of last year.</p>"
    ),
    "within the text": f"<h1>Ferry</h1>{TEXT}<p>It stops in:</p><ul>{items()}</ul>{TEXT}",
    "at the end of the text": f"<h1>Ferry</h1>{TEXT}<p>It stops in:</p><ul>{items()}</ul>",
    "a table with values": (
        f"<table>{''.join(f'<tr><td><a href=/{n}>{n}</a><td>8:0{i} to 9:0{i}' for i, n in enumerate(NAMES))}"
        f"</table>{TEXT}"
    ),
    "contents": f"<ul>{items(to='#{}')}</ul><h1>Ferry</h1>{TEXT}",
    "two links": (
        "<p><a href=/a>Startseite Produkte Kontakt</a> <a href=/b>Impressum"
        f" Hilfe</a></p><h1>Ferry</h1>{TEXT}"
    ),
    "to other sites": f"<h1>Ferry</h1>{TEXT}<div>{row(to='https://other.example/{}')}</div>",
    "whole titles": (
        f"<ul>{items([f'{n}: how the ferry to Tarn was built and who paid for it' for n in NAMES])}</ul>{TEXT}"
    ),
    "no addresses": f"<h1>Ferry</h1>{TEXT}<div>{row(to='http://[')}</div>",
}


@pytest.mark.parametrize("body", MENUS.values(), ids=MENUS)
def test_a_menu_goes(body):
    """And all of the text stays."""
    text = text_of(body)
    assert [name for name in NAMES if name in text] == []
    assert "Tickets are sold on board." in text or "切符" in text


@pytest.mark.parametrize("body", LISTS.values(), ids=LISTS)
def test_a_list_of_links_stays(body):
    """Where it belongs to the text, or is all there is."""
    text = text_of(body)
    assert [name for name in NAMES if name not in text] == []


@pytest.mark.parametrize(
    "head",
    [
        "<link rel=canonical href=https://tarn.example/ferry>",
        "<meta property=og:url content=https://tarn.example/>",
    ],
)
def test_a_saved_page_has_whole_addresses(head):
    """Its own host is that which the page names."""
    body = f"<h1>Ferry</h1>{TEXT}<div>{row(to='https://tarn.example/{}')}</div>"
    assert "Kontakt" not in text_of(body, head)
    assert "Kontakt" in text_of(body)
