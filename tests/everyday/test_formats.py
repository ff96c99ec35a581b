"""Formats besides html, docx and pdf: read as their reader sees them, or named with what to do."""

import json
import logging
from email.message import EmailMessage

import pytest

from cmt_sdk.converting import read_document
from cmt_sdk.errors import EmptyDocument, InvalidDocument
from tests.everyday.office_files import PIXEL, epub, notebook, odf, slides, workbook, zipped
from tests.everyday.pdf_files import pdf

PLAIN = (
    "From: =?utf-8?Q?Zo=C3=AB?= Abel <zoe@tarn.org>\nTo: Bob <bob@tarn.org>\nDate: Wed, 4 Mar 2026"
    " 09:30:00 +0100\nSubject: =?iso-8859-1?Q?M=FCll?=\nMIME-Version: 1.0\nContent-Type:"
    " text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nDie Geb=C3=BChr ist"
    " zwanzig Euro, zahlbar bis zum f=\n=C3=BCnften Mai.\n"
)
HEAD = (
    "From: Zoë Abel <zoe@tarn.org>\nTo: Bob <bob@tarn.org>\nDate: 2026-03-04 09:30\nSubject: Müll"
)


def mail(*, html="", text="", attached=(), forwarded=None, inline=False):
    """The bytes of a message."""
    message = EmailMessage()
    message["From"] = "Ann <ann@tarn.org>"
    message["Subject"] = "Keys"
    if text:
        message.set_content(text)
    if html and text:
        message.add_alternative(html, subtype="html")
    elif html:
        message.set_content(html, subtype="html")
    for name in attached:
        message.add_attachment(PIXEL, maintype="application", subtype="pdf", filename=name)
    if inline:
        message.add_related(PIXEL, "image", "png", cid="<a>")
    if forwarded is not None:
        message.add_attachment(forwarded)
    return message.as_bytes()


def forwarded():
    """A message that another one holds."""
    inner = EmailMessage()
    inner["From"] = "Eve <eve@tarn.org>"
    inner["Subject"] = "Code"
    inner.set_content("The code is 4711.")
    return inner


MAILS = {
    "quoted-printable (listed)": (
        PLAIN.encode(),
        f"{HEAD}\n\nDie Gebühr ist zwanzig Euro, zahlbar bis zum fünften Mai.",
        "Müll",
    ),
    "base64": (
        (
            b"From: a@b.c\nSubject: Keys\nMIME-Version: 1.0\nContent-Type: text/plain;"
            b" charset=utf-8\nContent-Transfer-Encoding: base64\n\nVGhlIGtleSBpcyBibHVlLg==\n"
        ),
        "From: a@b.c\nSubject: Keys\n\nThe key is blue.",
        "Keys",
    ),
    "html alone": (
        mail(html="<p>The <b>key</b> is blue.</p><script>x()</script>"),
        "From: Ann <ann@tarn.org>\nSubject: Keys\n\nThe key is blue.",
        "Keys",
    ),
    "text and html": (
        mail(text="The key is blue.", html="<p>The key is blue.</p>"),
        "From: Ann <ann@tarn.org>\nSubject: Keys\n\nThe key is blue.",
        "Keys",
    ),
    "a picture within": (
        mail(html="<p>The key is blue.</p><img src='cid:a'>", inline=True),
        "From: Ann <ann@tarn.org>\nSubject: Keys\n\nThe key is blue.",
        "Keys",
    ),
    "forwarded": (
        mail(text="See below.", forwarded=forwarded()),
        (
            "From: Ann <ann@tarn.org>\nSubject: Keys\n\nSee below.\n\nFrom: Eve"
            " <eve@tarn.org>\nSubject: Code\n\nThe code is 4711."
        ),
        "Keys",
    ),
    "flowed lines": (
        (
            b"From: a@b.c\nSubject: Keys\nContent-Type: text/plain; format=flowed\n\nThe key is in"
            b" \nthe blue box.\n\n-- \nAnn\n"
        ),
        "From: a@b.c\nSubject: Keys\n\nThe key is in the blue box.\n\n-- \nAnn",
        "Keys",
    ),
    "a charset that is none": (
        "From: a@b.c\nSubject: Keys\nContent-Type: text/plain; charset=x-none\n\nDie Gebühr für den"
        " Müll.\n".encode("cp1252"),
        "From: a@b.c\nSubject: Keys\n\nDie Gebühr für den Müll.",
        "Keys",
    ),
    "nothing but a head": (b"From: a@b.c\nSubject: Keys\n\n", "From: a@b.c\nSubject: Keys", "Keys"),
}

MHTML = (
    b"From: <Saved by Blink>\nSnapshot-Content-Location: https://tarn.org/\nSubject:"
    b" Ferry\nMIME-Version: 1.0\nContent-Type: multipart/related;"
    b' boundary="b"\n\n--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding:'
    b" quoted-printable\n\n<p>The ferry leaves at caf=C3=A9 hour.</p>\n--b\nContent-Type:"
    b" image/png\nContent-Transfer-Encoding: base64\n\niVBORw0KGgo=\n--b--\n"
)

RTF = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Arial;}}{\info{\title Mietvertrag}{\author Ann}}"
    r"{\*\generator Word;}\pard\b Miete\b0\par Die Geb\'fchr ist 950 \u8364 ? im Monat.\par"
    r"{\pict\pngblip 89504e470d0a1a0a}{\v unseen}\par Ende.}"
)

CARDS = (
    "BEGIN:VCARD\r\nVERSION:3.0\r\nN:Brandt;Ilse;;;\r\nFN:Ilse Brandt\r\nORG:Tarn"
    " Ferries;Harbour\r\nTEL;TYPE=CELL,VOICE:+49 170 555\r\n"
    " 0106\r\nitem1.EMAIL;TYPE=INTERNET:ilse@tarn.org\r\nADR;TYPE=HOME:;;Oak Tree Road 9;Port"
    " Elm;;12345;\r\nBDAY:1987-02-01\r\nNOTE:Feeds\\, at night\\nthe"
    " cat.\r\nPHOTO;ENCODING=b;TYPE=PNG:iVBORw0KGgo=\r\nEND:VCARD\r\nBEGIN:VCARD\r\nVERSION:2.1\r\nN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:M=C3=BCller;J=C3=B6rg;;;\r\nTEL;HOME:555"
    " 0107\r\nEND:VCARD\r\n"
)

CALENDAR = (
    "BEGIN:VCALENDAR\r\nX-WR-CALNAME:Family\r\nBEGIN:VTIMEZONE\r\nTZID:Europe/Berlin\r\nEND:VTIMEZONE\r\nBEGIN:VEVENT\r\nDTSTART;TZID=Europe/Berlin:20260304T093000\r\nDTEND;TZID=Europe/Berlin:20260304T103000\r\nSUMMARY:Dentist\\,"
    " Ann\r\nLOCATION:Main Street"
    " 5\r\nBEGIN:VALARM\r\nDESCRIPTION:Reminder\r\nEND:VALARM\r\nEND:VEVENT\r\nBEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20260501\r\nSUMMARY:Bob's"
    " birthday\r\nRRULE:FREQ=YEARLY\r\nEND:VEVENT\r\nBEGIN:VTODO\r\nDUE:20260610T220000Z\r\nSUMMARY:Pay"
    " the rent\r\nEND:VTODO\r\nEND:VCALENDAR\r\n"
)

SRT = (
    "1\n00:00:01,000 --> 00:00:03,000\n<i>The ferry leaves</i>\n\n2\n00:00:03,100 -->"
    " 00:00:05,000\nat eight.\n\n3\n00:01:20,000 --> 00:01:22,000\nBring the key.\n"
)
VTT = (
    "WEBVTT - talk\n\nNOTE made by hand\n\nintro\n00:01.000 --> 00:03.000 align:start\n<v Ann>The"
    " code &amp; key.</v>\n\n00:03.500 --> 00:05.000\n<v Bob>Thanks.</v>\n"
)

MUELL = "Die Gebühr ist zwanzig Euro, zahlbar bis zum fünften Mai."
ENEX = (
    '<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE en-export SYSTEM'
    ' "http://xml.evernote.com/pub/evernote-export4.dtd">'
    "<en-export><note><title>Rent</title><content><![CDATA[<?xml version='1.0'?><!DOCTYPE en-note"
    " SYSTEM 'x'>"
    "<en-note><div>It is 950 euros.</div><div><en-todo"
    ' checked="true"/>paid</div></en-note>]]></content>'
    "<created>20260304T093000Z</created><tag>flat</tag><tag>money</tag></note></en-export>"
)

CELLS = [
    {
        "cell_type": "markdown",
        "metadata": {},
        "source": ["# Rent\n", "It is due.![p](data:image/png;base64,iVBORw0KGgo=)"],
    },
    {
        "cell_type": "code",
        "metadata": {},
        "source": "print(950)",
        "outputs": [
            {"output_type": "stream", "name": "stdout", "text": ["\x1b[31m950\x1b[0m\n"]},
            {
                "output_type": "display_data",
                "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480>"},
            },
            {
                "output_type": "execute_result",
                "data": {"text/plain": "'euros'", "text/html": "<b>euros</b>"},
            },
            {"output_type": "error", "ename": "KeyError", "evalue": "'rent'", "traceback": []},
        ],
    },
    {"cell_type": "raw", "metadata": {}, "source": ""},
]

ODT = (
    '<text:h text:outline-level="2">Miete</text:h><text:p>Die <text:span>Gebühr</text:span>'
    " ist<text:s/>950<text:tab/>Euro."
    "<text:note><text:note-citation>1</text:note-citation>"
    "<text:note-body><text:p>Im Mai.</text:p></text:note-body></text:note></text:p>"
    "<text:list><text:list-item><text:p>Wasser</text:p></text:list-item><text:list-item><text:p>Strom</text:p></text:list-item></text:list>"
    "<table:table><table:table-row><table:table-cell><text:p>Jahr</text:p></table:table-cell><table:table-cell><text:p>Euro</text:p>"
    "</table:table-cell></table:table-row><table:table-row><table:table-cell><text:p>2026</text:p></table:table-cell><table:table-cell>"
    "<text:p>950</text:p></table:table-cell></table:table-row></table:table>"
)


def sheet(*rows):
    """Rows of an OpenDocument workbook."""
    cells = [
        "".join(f"<table:table-cell><text:p>{v}</text:p></table:table-cell>" for v in row)
        for row in rows
    ]
    return "".join(f"<table:table-row>{c}</table:table-row>" for c in cells)


ODS = (
    f'<table:table table:name="Kasse">{sheet(["Name", "Telefon"], ["Emil", "555"])}'
    '<table:table-row table:number-rows-repeated="1048574">'
    '<table:table-cell table:number-columns-repeated="16384"/></table:table-row></table:table>'
)

BOOK = {
    "Rent": [["Name", "Euros", "Since"], ["Emil Cern", 950.0, None], ["Ann Abel", 1100.5, None]],
    "Secret": [["x", "y"]],
}

READ = {
    "mhtml (listed)": ("page.mhtml", MHTML, "The ferry leaves at café hour.", "Ferry"),
    "mht": ("page.mht", MHTML, "The ferry leaves at café hour.", "Ferry"),
    "xhtml (listed)": (
        "page.xhtml",
        b"<html><body><script>x()</script><p>The key.</p></body></html>",
        "The key.",
        None,
    ),
    "html in txt (listed)": (
        "page.txt",
        b"<!DOCTYPE html><html><body><p>The key.</p></body></html>",
        "The key.",
        None,
    ),
    "html without a suffix": (
        "page",
        b"<html><body><p>The key.</p></body></html>",
        "The key.",
        None,
    ),
    "html behind a comment": (
        "page.md",
        b"<!-- saved -->\n<html><body><p>The key.</p></body></html>",
        "The key.",
        None,
    ),
    "html as xls": ("bank.xls", b"<html><p>Rent</p></html>", "Rent", None),
    "rtf (listed)": (
        "letter.rtf",
        RTF.encode(),
        "Miete\nDie Gebühr ist 950 € im Monat.\n\nEnde.",
        "Mietvertrag",
    ),
    "rtf as doc": (
        "letter.doc",
        RTF.encode(),
        "Miete\nDie Gebühr ist 950 € im Monat.\n\nEnde.",
        "Mietvertrag",
    ),
    "pdf as txt": ("lease.txt", pdf(["The rent."]), "The rent.", None),
    "mail as txt": (
        "mail.txt",
        PLAIN.encode(),
        f"{HEAD}\n\nDie Gebühr ist zwanzig Euro, zahlbar bis zum fünften Mai.",
        "Müll",
    ),
    "mbox": (
        "all.mbox",
        b"From ann@x Wed Mar  4 09:30:00 2026\n"
        + PLAIN.encode()
        + b"\nFrom bob@x Thu Mar  5 09:30:00 2026\nFrom: b@c.d\nSubject: Two\n\nFrom here on.\n",
        (
            f"## Müll\n\n{HEAD}\n\nDie Gebühr ist zwanzig Euro, zahlbar bis zum fünften Mai.\n\n"
            "## Two\n\nFrom: b@c.d\nSubject: Two\n\nFrom here on."
        ),
        None,
    ),
    "ipynb (listed)": (
        "a.ipynb",
        notebook(CELLS),
        (
            "# Rent\nIt is"
            " due.p\n\n```python\nprint(950)\n```\n\n```\n950\n```\n\n```\n'euros'\n```\n\n```\nKeyError:"
            " 'rent'\n```"
        ),
        None,
    ),
    "odt": (
        "letter.odt",
        odf(ODT, title="Mietvertrag"),
        (
            "## Miete\n\nDie Gebühr ist 950 Euro. [Im Mai.]\n\n* Wasser\n* Strom\n\n| Jahr | Euro"
            " |\n| --- | --- |\n| 2026 | 950 |"
        ),
        "Mietvertrag",
    ),
    "ods": ("a.ods", odf(ODS, "spreadsheet"), "## Kasse\n\n- Name: Emil; Telefon: 555", None),
    "odp": (
        "a.odp",
        odf(
            '<draw:page draw:name="Seite 1"><draw:frame><text:p>Die'
            " Fähre.</text:p></draw:frame></draw:page>",
            "presentation",
        ),
        "## Seite 1\n\nDie Fähre.",
        None,
    ),
    "epub": (
        "book.epub",
        epub(
            {"b.xhtml": "<h1>One</h1><p>It began.</p>", "a.xhtml": "<h1>Two</h1><p>It ended.</p>"},
            "Tarn",
        ),
        "# One\n\nIt began.\n\n# Two\n\nIt ended.",
        "Tarn",
    ),
    "pptx": (
        "talk.pptx",
        slides(("Ferry", ["It leaves at eight."], "Say it slowly."), ("Key", ["It is blue."], "")),
        "## Ferry\n\nIt leaves at eight.\n\nSay it slowly.\n\n## Key\n\nIt is blue.",
        None,
    ),
    "xlsx": (
        "rent.xlsx",
        workbook({"Rent": BOOK["Rent"]}),
        "## Rent\n\n- Name: Emil Cern; Euros: 950\n- Name: Ann Abel; Euros: 1100.5",
        None,
    ),
    "xlsx without a suffix": (
        "rent",
        workbook({"Rent": BOOK["Rent"][:2]}),
        "## Rent\n\n- Name: Emil Cern; Euros: 950",
        None,
    ),
    "vcf": (
        "people.vcf",
        CARDS.encode(),
        (
            "## Ilse Brandt\n\norganization: Tarn Ferries, Harbour\nphone (cell): +49 170"
            " 5550106\ne-mail: ilse@tarn.org\naddress (home): Oak Tree Road 9, Port Elm,"
            " 12345\nbirthday: 1987-02-01\nnote: Feeds, at night the cat.\n\n## Jörg"
            " Müller\n\nphone: 555 0107"
        ),
        None,
    ),
    "ics": (
        "family.ics",
        CALENDAR.encode(),
        (
            "2026-03-04 09:30 to 10:30: Dentist, Ann; location: Main Street 5\n2026-05-01: Bob's"
            " birthday; repeats: FREQ=YEARLY\n2026-06-10 22:00 UTC: Pay the rent"
        ),
        "Family",
    ),
    "emlx": (
        "1.emlx",
        b"%d  \n%s<?xml x?>" % (len(PLAIN), PLAIN.encode()),
        f"{HEAD}\n\n{MUELL}",
        "Müll",
    ),
    "enex": (
        "notes.enex",
        ENEX.encode(),
        "## Rent\n\ncreated: 2026-03-04; tags: flat, money\n\nIt is 950 euros.\n\n[x] paid",
        None,
    ),
    "srt": (
        "talk.srt",
        SRT.encode(),
        "[0:00:01] The ferry leaves at eight.\n\n[0:01:20] Bring the key.",
        None,
    ),
    "vtt": (
        "talk.vtt",
        VTT.encode(),
        "[0:00:01] Ann: The code & key.\n\n[0:00:03] Bob: Thanks.",
        None,
    ),
    "yaml that is named": ("conf.yaml", b"# port\nport: 8009\n", "# port\nport: 8009\n", None),
    "code that is named": ("a.py", b"print('<html>')\n", "print('<html>')\n", None),
}

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
FOREIGN = {
    "deck.key": (
        zipped({"Index/Document.iwa": "x"}),
        "Pages, Numbers or Keynote: export it as pdf or docx",
    ),
    "old.doc": (OLE + "WordDocument".encode("utf-16-le"), "an old Word document: save it as docx"),
    "old.ppt": (
        OLE + "PowerPoint Document".encode("utf-16-le"),
        "an old PowerPoint presentation: save it as pptx",
    ),
    "old.xls": (OLE + "Workbook".encode("utf-16-le"), "an old Excel workbook: save it as xlsx"),
    "locked.docx": (
        OLE + "EncryptedPackage".encode("utf-16-le"),
        "encrypted: open it, save it without a password",
    ),
    "mail.msg": (
        OLE + "__properties_version1.0".encode("utf-16-le"),
        "a message of Outlook: save it as eml",
    ),
    "bin.xlsb": (zipped({"xl/workbook.bin": "x"}), "a binary Excel workbook: save it as xlsx"),
    "photo.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "a picture: run OCR over it"),
    "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "a picture: run OCR over it"),
    "photo.txt": (PIXEL, "a picture: run OCR over it"),
    "talk.mp3": (b"ID3\x04\0\0\0\0\0\0", "a recording: add a transcript"),
    "talk.m4a": (b"\0\0\0\x20ftypM4A \0\0\0\0", "a recording: add a transcript"),
    "all.zip": (zipped({"a.md": "x"}), "an archive: unpack it"),
    "all.tar.gz": (b"\x1f\x8b\x08\0\0\0\0\0", "an archive: unpack it"),
    "notes.sqlite": (b"SQLite format 3\0\x10\0", "a database: export its tables as csv"),
    "book.azw3": (bytes(60) + b"BOOKMOBI", "an e-book for Kindle: convert it to epub"),
    "tool.exe": (b"MZ\x90\0\x03\0", "a program or its data"),
    "plan.gdoc": (b'{"url": "https://docs.google.com/x"}', "only a link to a page on the web"),
    "plan.webloc": (b"bplist00\xd1", "only a link to a page on the web"),
    "book.epub": (
        epub(
            {"a.xhtml": "x"},
            "T",
            "<e><EncryptedData><EncryptionMethod"
            ' Algorithm="http://www.w3.org/aes"/></EncryptedData></e>',
        ),
        "a digital lock",
    ),
    "locked.odt": (
        odf("<text:p>x</text:p>", manifest="<m><encryption-data/></m>"),
        "encrypted: open it",
    ),
    "drawing.odg": (
        zipped({"mimetype": "application/vnd.oasis.opendocument.graphics", "content.xml": "<x/>"}),
        "a drawing: export it",
    ),
}


@pytest.fixture
def read(tmp_path):
    """The document in a file of this name and these bytes."""

    def of(name, data):
        (tmp_path / name).write_bytes(data)
        return read_document(tmp_path / name)

    return of


@pytest.mark.parametrize(("data", "text", "title"), MAILS.values(), ids=MAILS)
def test_mail(read, data, text, title):
    """Who, to whom, when and what about stand above the text; the subject is the title."""
    document = read("a.eml", data)
    assert (document.text, document.metadata.get("title")) == (text, title)


def test_attached_files_are_named(read, caplog):
    """They are no part of the text, and not lost without a word."""
    with caplog.at_level(logging.WARNING):
        document = read("a.eml", mail(text="See the lease.", attached=["lease.pdf", "plan.pdf"]))
    assert document.text.endswith("See the lease.")
    assert "attached files are not read (lease.pdf, plan.pdf): save and add them" in caplog.text


@pytest.mark.parametrize(("name", "data", "text", "title"), READ.values(), ids=READ)
def test_formats_that_are_read(read, name, data, text, title):
    """By their contents where these say what they are, else by the suffix; without pictures,
    scripts and control words.
    """
    document = read(name, data)
    assert (document.text.strip(), document.metadata.get("title")) == (text.strip(), title)


@pytest.mark.parametrize(
    ("name", "data", "words"), [(name, *value) for name, value in FOREIGN.items()], ids=FOREIGN
)
def test_formats_that_are_not(read, name, data, words):
    """The message says what the file is and what to do; never to save a deck as UTF-8."""
    with pytest.raises(InvalidDocument, match=words) as caught:
        read(name, data)
    assert "UTF-8" not in str(caught.value)


def test_hidden_sheets_are_named(read, caplog):
    """A reader of the workbook does not see them."""
    with caplog.at_level(logging.WARNING):
        assert "Secret" not in read("a.xlsx", workbook(BOOK, hidden=["Secret"])).text
    assert "hidden sheets are not read (Secret)" in caplog.text


def test_slides_without_text_are_named(read, caplog):
    """They are pictures, as scans are."""
    with caplog.at_level(logging.WARNING):
        read("a.pptx", slides(("One", ["A."], ""), ("", [""], ""), ("Three", ["C."], "")))
    assert "slides without text (pictures, perhaps): 2" in caplog.text


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            [["Budget 2026"], [], ["Item", "Euros"], ["Rent", 950]],
            "Budget 2026\n- Item: Rent; Euros: 950",
        ),
        ([["A", "B"], ["x", 1], [], ["C", "D"], ["y", 2]], "- A: x; B: 1\n- C: y; D: 2"),
        ([["Rent", 950], ["Heat", 50]], "- Rent; 950\n- Heat; 50"),
        ([["Name", "Name"], ["a", "b"]], "- Name; Name\n- a; b"),
        ([["A", "B", "C"], ["x", None, 3]], "- A: x; C: 3"),
    ],
    ids=["a title above", "two tables", "no header", "names twice", "empty cells"],
)
def test_tables_of_a_workbook(read, rows, text):
    """A row says which column each value is of, where the sheet does."""
    assert read("a.xlsx", workbook({"S": rows})).text == f"## S\n\n{text}"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", b""),
        ("a.pdf", b" \n"),
        ("a.xlsx", b""),
        ("a.html", b"<script>1</script>"),
        ("a.xlsx", workbook({"S": []})),
    ],
    ids=["docx", "pdf", "xlsx", "html", "an empty sheet"],
)
def test_nothing_in_it(read, name, data):
    """An empty file is no scan."""
    with pytest.raises(EmptyDocument, match="there is nothing to remember"):
        read(name, data)


def deep_mail(depth):
    """A message within a message, and so on."""
    inner = b"From: a@b.c\nSubject: S\n\nText."
    for n in range(depth):
        head = (
            b"From: a@b.c\nSubject: S\nMIME-Version: 1.0\nContent-Type: multipart/mixed;"
            b' boundary="b%d"\n\n' % n
        )
        inner = head + b"--b%d\nContent-Type: message/rfc822\n\n%s\n--b%d--\n" % (n, inner, n)
    return inner


HOSTILE = {
    "xlsx bomb": (
        "a.xlsx",
        zipped({"xl/workbook.xml": "<x/>", "xl/worksheets/sheet1.xml": " " * 40_000_000}),
    ),
    "picture bomb": (
        "a.pptx",
        zipped({"ppt/presentation.xml": "<x/>", "ppt/media/a.png": b"\0" * 130_000_000}),
    ),
    "odt of entities": (
        "a.odt",
        zipped(
            {
                "mimetype": "application/vnd.oasis.opendocument.text",
                "content.xml": '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
            }
        ),
    ),
    "odt deep": ("a.odt", odf("<text:list>" * 5000 + "</text:list>" * 5000)),
    "ods repeated": (
        "a.ods",
        odf(
            '<table:table table:name="T">'
            + '<table:table-row table:number-rows-repeated="1000000"><table:table-cell'
            ' table:number-columns-repeated="16000">'
            "<text:p>x</text:p></table:table-cell></table:table-row>" * 300 + "</table:table>",
            "spreadsheet",
        ),
    ),
    "epub without a package": ("a.epub", zipped({"META-INF/container.xml": "<c/>"})),
    "pptx of nothing": ("a.pptx", zipped({"ppt/presentation.xml": "<x/>"})),
    "xlsx cut": ("a.xlsx", workbook({"S": [["a", "b"], [1, 2]]})[:-200]),
    "notebook deep": ("a.ipynb", b'{"cells":' + b"[" * 100_000),
    "notebook of numbers": (
        "a.ipynb",
        json.dumps({"cells": [1, {"cell_type": "code", "source": 5}]}).encode(),
    ),
    "mail deep": ("a.eml", deep_mail(60)),
    "rtf of braces": ("a.rtf", b"{\\rtf1 " + b"{" * 100_000),
    "vcf of nothing": ("a.vcf", b"BEGIN:VCARD\n" * 10_000),
}


@pytest.mark.parametrize(("name", "data"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(read, name, data):
    """Our error, or a text, within bounds; nothing else."""
    try:
        text = read(name, data).text
    except InvalidDocument as error:
        text = str(error)[:400] if len(str(error)) < 400 else "x" * 10_000_000
    assert len(text) < 10_000_000
