"""Pdf files: forms, comments, scans, repeated lines, broken words, raised numbers, titles."""

import logging

import pytest

from cmt_sdk.converting import read_document
from cmt_sdk.errors import InvalidDocument
from tests.everyday.pdf_files import Page, annotation, check_box, choice, column, pdf, text_field

HEAD, FOOT = 770, 30


def running(*pages, head="", foot="", size=9):
    """Pages of lines with a head and a foot in which {n} is the number of the page, {r} the Roman
    one.
    """
    roman = ["", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]
    made = []
    for number, lines in enumerate(pages, 1):
        drawn = [(72, HEAD, size, head.format(n=number, r=roman[number]))] if head else []
        drawn += column(*lines)
        drawn += [(280, FOOT, size, foot.format(n=number, r=roman[number]))] if foot else []
        made.append(Page(drawn))
    return made


def quads(left, bottom, right, top):
    """The corners of marked words in pdf syntax."""
    return f"/QuadPoints [{left} {top} {right} {top} {left} {bottom} {right} {bottom}]"


FORMS = {
    "text field (listed)": (
        Page(
            [(72, 720, 12, "Monthly rent:")],
            [text_field("rent", "950 euros", (160, 716, 300, 732))],
        ),
        "Monthly rent: 950 euros",
    ),
    "text field with an appearance (listed)": (
        Page(
            [(72, 720, 12, "Monthly rent:")],
            [text_field("rent", "950 euros", (160, 716, 300, 732), "/AP << /N 3 0 R >>")],
        ),
        "Monthly rent: 950 euros",
    ),
    "boxes before their labels": (
        Page(
            [(90, 720, 12, "Pets allowed"), (90, 700, 12, "Smoking allowed")],
            [check_box("a", True, (72, 718, 84, 730)), check_box("b", False, (72, 698, 84, 710))],
        ),
        "[x] Pets allowed\n[ ] Smoking allowed",
    ),
    "boxes behind their labels": (
        Page(
            [(72, 720, 12, "Pets"), (72, 700, 12, "Smoking")],
            [
                check_box("a", True, (120, 718, 132, 730)),
                check_box("b", False, (120, 698, 132, 710)),
            ],
        ),
        "Pets [x]\nSmoking [ ]",
    ),
    "boxes between words of one line": (
        Page(
            [(72, 720, 12, "Married:"), (150, 720, 12, "yes"), (220, 720, 12, "no")],
            [
                check_box("y", False, (132, 718, 144, 730)),
                check_box("n", True, (200, 718, 212, 730)),
            ],
        ),
        "Married: [ ] yes [x] no",
    ),
    "a choice": (
        Page(
            [(72, 720, 12, "Country:")],
            [choice("c", "Österreich", ["Deutschland", "Österreich"], (140, 716, 260, 732))],
        ),
        "Country: Österreich",
    ),
    "two fields in one printed line": (
        Page(
            [(72, 720, 12, "Name ______________ Date ______________")],
            [
                text_field("n", "Zoë Łuk", (108, 716, 198, 732)),
                text_field("d", "3.5.2026", (230, 716, 330, 732)),
            ],
        ),
        "Name Zoë Łuk Date 3.5.2026",
    ),
    "labels above their fields": (
        Page(
            [
                (72, 720, 12, "Family name"),
                (300, 720, 12, "Date of birth"),
                (72, 600, 12, "Sign here."),
            ],
            [
                text_field("n", "Brandt", (72, 696, 200, 714)),
                text_field("d", "1.2.1987", (300, 696, 400, 714)),
            ],
        ),
        "Family name Date of birth\nFamily name: Brandt\nDate of birth: 1.2.1987\nSign here.",
    ),
    "no label but a name": (
        Page(
            [(72, 720, 12, "Application")], [text_field("IBAN", "DE12 3456", (72, 500, 300, 520))]
        ),
        "Application\nIBAN: DE12 3456",
    ),
    "no label but a tooltip": (
        Page([], [text_field("f1_01[0]", "Ann Abel", (72, 500, 300, 520), "/TU (Your name)")]),
        "Your name: Ann Abel",
    ),
    "several lines in a field": (
        Page(
            [(72, 720, 12, "Address:"), (72, 600, 12, "Thank you.")],
            [text_field("a", "9 Oak Tree Road\nPort Elm", (140, 660, 400, 732), "/Ff 4096")],
        ),
        "Address: 9 Oak Tree Road\nPort Elm\nThank you.",
    ),
    "a table of fields": (
        Page(
            [(72, 720, 12, "Rent"), (72, 700, 12, "Heating"), (72, 680, 12, "Total")],
            [
                text_field(str(n), v, (300, 716 - 20 * n, 360, 732 - 20 * n))
                for n, v in enumerate(("900", "50", "950"))
            ],
        ),
        "Rent 900\nHeating 50\nTotal 950",
    ),
    "empty, hidden and secret fields": (
        Page(
            [(72, 720, 12, "Name:"), (72, 700, 12, "PIN:"), (72, 680, 12, "End.")],
            [
                text_field("n", "", (140, 716, 260, 732)),
                text_field("p", "4711", (140, 696, 260, 712), "/Ff 8192"),
                text_field("h", "unseen", (140, 676, 260, 692)).replace("/F 4", "/F 2"),
            ],
        ),
        "Name:\nPIN:\nEnd.",
    ),
    "typed onto a flat form": (
        Page(
            [(72, 720, 12, "Monthly rent: ____________ euros")],
            [annotation("FreeText", (150, 716, 200, 732), "950")],
        ),
        "Monthly rent: 950 euros",
    ),
    "a form on a page that is turned": (
        Page(
            [(72, 520, 12, "Monthly rent:"), (72, 500, 12, "Bye.")],
            [text_field("rent", "950 euros", (68, 160, 84, 300))],
            rotate=90,
        ),
        "Monthly rent: 950 euros\nBye.",
    ),
}

COMMENTS = {
    "a note beside a line": (
        annotation("Text", (500, 716, 520, 736), "Ask Bob first.", "/T (Ann)"),
        '[page 1, "The fee is 20 euros a year.": Ann: Ask Bob first.]',
    ),
    "a highlight with a comment": (
        annotation("Highlight", (122, 716, 172, 732), "Too much!", quads(122, 716, 172, 732)),
        '[page 1, "20 euros": Too much!]',
    ),
    "a highlight without one": (
        annotation("Highlight", (120, 716, 172, 732), "", quads(120, 716, 172, 732)),
        "",
    ),
    "struck out": (
        annotation("StrikeOut", (122, 716, 172, 732), "25 euros", quads(122, 716, 172, 732)),
        "[page 1, ~~20 euros~~: 25 euros]",
    ),
    "a stamp": (annotation("Stamp", (300, 200, 400, 240), "Bezahlt"), "[page 1: Bezahlt]"),
    "a hidden one": (annotation("Text", (500, 700, 520, 720), "Secret.", "/F 2"), ""),
}

FLOWING = {
    "head, foot and a sentence (listed)": (
        running(
            ["The deposit for the flat is"],
            ["four hundred euros.", "It is paid in June."],
            head="Lease of flat 7",
            foot="Page {n} of 2",
        ),
        (
            "Lease of flat 7\n\nThe deposit for the flat is\nfour hundred euros.\nIt is paid in"
            " June.\n\nPage 1 of 2"
        ),
    ),
    "directly on the text": (
        ["Lease of flat 7", "It is due", "in May; the", "deposit is", "Page 1 of 2"],
        ["Lease of flat 7", "four hundred euros.", "Page 2 of 2"],
        "Lease of flat 7\n\nIt is due\nin May; the\ndeposit is\nfour hundred euros.\n\nPage 1 of 2",
    ),
    "bare numbers": (
        running(["Anna lives in"], ["Porto with"], ["three cats."], foot="- {n} -"),
        "Anna lives in\nPorto with\nthree cats.",
    ),
    "Roman numbers": (
        running(["It is an old"], ["preface of"], ["a long"], ["book."], foot="{r}"),
        "It is an old\npreface of\na long\nbook.",
    ),
    "German": (
        running(
            ["Die Kaution für die"],
            ["Wohnung beträgt 900 Euro."],
            head="Mietvertrag · Seite {n} von 2",
        ),
        "Mietvertrag · Seite 1 von 2\n\nDie Kaution für die\nWohnung beträgt 900 Euro.",
    ),
    "German, whole lines": (
        running(
            [
                "Der Vertrag beginnt im Mai und endet ein Jahr danach.",
                "Die Kaution, die im ersten Monat fällig ist, ist",
            ],
            ["Sache des Mieters."],
            foot="{n}/2",
        ),
        (
            "Der Vertrag beginnt im Mai und endet ein Jahr danach.\n"
            "Die Kaution, die im ersten Monat fällig ist, ist\nSache des Mieters."
        ),
    ),
    "left and right pages": (
        [
            Page(
                [
                    (72 if n % 2 else 480, HEAD, 9, "Tarn" if n % 2 else "History"),
                    *column(f"Text {w} of it."),
                ]
            )
            for n, w in enumerate(("one", "two", "three", "four"))
        ],
        (
            "History\nTarn\n\nText one of it.\n\nText two of it.\n\nText three of it.\n\nText four"
            " of it."
        ),
    ),
    "a number beside the head": (
        running(["The mill was"], ["sold in 1901."], head="Tarn today   {n}"),
        "Tarn today {n}\n\nThe mill was\nsold in 1901.".replace("{n}", "1"),
    ),
    "a number far from the head": (
        [
            Page([*column("Tarn", top=HEAD), (500, HEAD, 12, str(n)), *column(t)])
            for n, t in ((1, "It is"), (2, "old."))
        ],
        "Tarn\n\nIt is\nold.",
    ),
    "headings that count are kept": (
        running(["Name the capital."], ["Name the river."], head="Exercise {n}", size=14),
        "Exercise 1\nName the capital.\n\nExercise 2\nName the river.",
    ),
    "sums that differ are kept": (
        [
            Page([*column("Coffee 3.50"), (72, 60, 12, "Carried forward 103.50")]),
            Page([*column("Tea 2.50"), (72, 60, 12, "Carried forward 106.00")]),
        ],
        "Coffee 3.50\nCarried forward 103.50\nTea 2.50\nCarried forward 106.00",
    ),
    "one page keeps all": (
        running(["It is one page."], head="Head", foot="Page {n}"),
        "Head\nIt is one page.\nPage 1",
    ),
    "the body at one place is kept": (
        [
            Page([(72, 400, 12, "Yes."), *column(*w[:6]), *column(*w[6:], top=200)])
            for w in ("abcdefghijk", "uvwxyzlmnop")
        ],
        "Yes.\na\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nYes.\nu\nv\nw\nx\ny\nz\nl\nm\nn\no\np",
    ),
    "a word over the page": (
        running(["The key is in the refrig-"], ["erator of the kitchen."], foot="{n}"),
        "The key is in the refrigerator of the kitchen.",
    ),
    "an e-mail over the page": (
        running(["Send an e-"], ["mail to Ann."], foot="{n}"),
        "Send an e-mail to Ann.",
    ),
    "a paragraph's end stays": (["One."], ["Two."], "One.\n\nTwo."),
}

HYPHENS = {
    "capital and number (listed)": (
        [
            "A form for COVID-",
            "19 of the mid-",
            "1990s by Jean-",
            "Pierre, e-",
            "mail and X-",
            "ray.",
        ],
        "A form for COVID-19 of the mid-1990s by Jean-Pierre, e-mail and X-ray.",
    ),
    "found elsewhere (listed)": (
        ["A user-", "friendly form. It is user-friendly."],
        "A user-friendly form. It is user-friendly.",
    ),
    "soft": (["It is a wheel-", "chair."], "It is a wheelchair."),
    "joined elsewhere": (["The wheelchair. A Wheel-", "Chair."], "The wheelchair. A WheelChair."),
    "digits on the left": (
        ["The years 2019-", "2020, a 24-", "hour day."],
        "The years 2019-2020, a 24-hour day.",
    ),
    "capitals as a heading": (
        ["THE AGREE-", "MENT OF TARN", "It ends."],
        "THE AGREEMENT OF TARN\nIt ends.",
    ),
    "German compound": (
        ["Die IT-", "Abteilung, die Haus-", "tür."],
        "Die IT-Abteilung, die Haustür.",
    ),
    "German shared ending": (
        ["Vor und nach, Vor-", "und Nachteile, dies und das."],
        "Vor und nach, Vor- und Nachteile, dies und das.",
    ),
    "chain": (["It is state-of-", "the-art."], "It is state-of-the-art."),
    "French": (
        ["Y a-t-", "il un rendez-vous ? Un rendez-", "vous."],
        "Y a-t-il un rendez-vous ? Un rendez-vous.",
    ),
    "number of a model": (
        ["Use the E-", "1042 or the A4-", "Papier."],
        "Use the E-1042 or the A4-Papier.",
    ),
    "a dash is no hyphen": (["It rained -", "all day."], "It rained -\nall day."),
}


@pytest.fixture
def read(tmp_path):
    """The document in a pdf file of these bytes."""

    def of(data):
        (tmp_path / "a.pdf").write_bytes(data)
        return read_document(tmp_path / "a.pdf")

    return of


@pytest.mark.parametrize(("page", "text"), FORMS.values(), ids=FORMS)
def test_forms(read, page, text):
    """What is filled in stands where a reader sees it."""
    assert read(pdf(page)).text == text


@pytest.mark.parametrize(("mark", "comment"), COMMENTS.values(), ids=COMMENTS)
def test_comments(read, mark, comment):
    """They follow the text, with the page and the words that they are about."""
    lines = "The fee is 20 euros a year.\nIt is due in May."
    page = Page(column(*lines.split("\n")), [mark])
    assert read(pdf(page)).text == (f"{lines}\n\n{comment}" if comment else lines)


@pytest.mark.parametrize(
    ("pages", "text"),
    [(list(v[:-1]) if len(v) > 2 else v[0], v[-1]) for v in FLOWING.values()],
    ids=FLOWING,
)
def test_pages_flow(read, pages, text):
    """Repeated lines and page numbers are out of the sentences; each that has words is kept
    once.
    """
    assert read(pdf(*pages)).text == text


@pytest.mark.parametrize(("lines", "text"), HYPHENS.values(), ids=HYPHENS)
def test_hyphens(read, lines, text):
    """A hyphen that only divides a word at a line's end goes; a real one stays."""
    assert read(pdf(lines)).text == text


def test_what_stays_unknown(read):
    """Nothing in the file tells "user-friendly" from "wheel-chair" where neither stands
    elsewhere.
    """
    assert read(pdf(["The user-", "friendly form."])).text == "The userfriendly form."


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (
            [
                (72, 720, 12, "It is 4 x 10"),
                (140, 726, 7, "5"),
                (146, 720, 12, " km."),
                (72, 706, 12, "Far."),
            ],
            "It is 4 x 10^5 km.\nFar.",
        ),
        (
            [(72, 720, 12, "Found in 2019"), (149.5, 726, 7, "3"), (154, 720, 12, " by Ida.")],
            "Found in 2019^3 by Ida.",
        ),
        (
            [(72, 720, 12, "Found in 2019."), (153, 726, 7, "12"), (162, 720, 12, " By Ida.")],
            "Found in 2019.^12 By Ida.",
        ),
        (
            [(72, 720, 12, "H"), (80.7, 717, 7, "2"), (84.6, 720, 12, "O is water.")],
            "H2O is water.",
        ),
        (
            [(72, 720, 12, "The 1"), (102, 726, 7, "st"), (109, 720, 12, " of May.")],
            "The 1st of May.",
        ),
        ([(72, 720, 12, "10"), (85.4, 726, 7, "-3"), (92, 720, 12, " m")], "10^-3 m"),
    ],
    ids=["power", "footnote", "footnote behind a sentence", "lowered", "letters", "negative power"],
)
def test_raised_numbers(read, page, text):
    """A raised number never runs into the one before it, and ends no line."""
    assert read(pdf(Page(page))).text == text


def test_a_line_beyond_the_edge(read, caplog):
    """A line that leaves the page is whole; one that is wholly outside is not seen by a reader, and
    named.
    """
    page = Page([(500, 720, 12, "This line runs past the edge."), (72, 900, 12, "Printer's mark")])
    with caplog.at_level(logging.WARNING):
        assert read(pdf(page)).text == "This line runs past the edge."
    assert caplog.messages[0].endswith("a.pdf: lines beyond the edge of their page: 1")


SCAN = Page(image=True)


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ([["Text."], SCAN, SCAN], "pages 2 and 3 hold no text (scans, perhaps): run OCR over them"),
        ([SCAN, ["Text."]], "page 1 holds no text (a scan, perhaps): run OCR over it"),
        (
            [["A."], *[SCAN] * 5, ["B."], SCAN],
            "pages 2 to 6 and 8 hold no text (scans, perhaps): run OCR over them",
        ),
        ([["Text."], Page()], None),
        ([Page(column("Text."), image=True)], None),
        (
            [Page([(72, 40, 8, "Scanned by Tarn")], image=n > 0) for n in range(3)] + [["Text."]],
            "pages 2 and 3 hold no text (scans, perhaps): run OCR over them",
        ),
    ],
    ids=["listed", "first", "many", "blank", "picture with text", "a stamp on each scan"],
)
def test_pages_without_text(read, caplog, pages, words):
    """They are named, once; a blank page is none."""
    with caplog.at_level(logging.WARNING):
        read(pdf(*pages))
    assert [m.split("a.pdf: ")[1] for m in caplog.messages] == ([words] if words else [])


def test_a_file_of_scans_alone(read):
    """There is nothing to remember: the remedy is OCR."""
    with pytest.raises(InvalidDocument, match=r"holds no text \(a scan, perhaps\): run OCR"):
        read(pdf(SCAN, SCAN))


def test_attached_files_are_named(read, caplog):
    """A pdf can carry other files."""
    embedded = (
        "/Names << /EmbeddedFiles << /Names [(a) << /Type /Filespec /F (invoice.xml) /UF"
        " (invoice.xml) >>] >> >>"
    )
    with caplog.at_level(logging.WARNING):
        read(pdf(["Text."], catalog=embedded))
    assert caplog.messages[0].endswith(
        "attached files are not read (invoice.xml): save and add them"
    )


def test_an_xfa_form(read, caplog):
    """Its pages say only that they should be opened elsewhere; the values are in an XML part."""
    xfa = (
        "<x:datasets xmlns:x='urn:x'><x:data><form><Name>Zoë"
        " Łuk</Name><Rent>950</Rent><Empty/></form></x:data></x:datasets>"
    )
    with caplog.at_level(logging.WARNING):
        assert (
            read(pdf(["Please wait..."], xfa=xfa)).text
            == "Please wait...\n\nName: Zoë Łuk\nRent: 950"
        )
    assert "of its XFA form only names and values are read" in caplog.text


@pytest.mark.parametrize(
    ("title", "info", "kept"),
    [
        ("Kestrel lease", "", True),
        ("Mietvertrag für Wohnung 7", "", True),
        ("  租约  ", "", True),
        ("Report Q3.2026", "", True),
        ("Version 2.0", "", True),
        ("Microsoft Word - lease_v3.doc", "", False),
        ("C:\\Users\\ann\\lease", "", False),
        ("lease.indd", "", False),
        ("tmpx8f2.tmp", "", False),
        ("PowerPoint Presentation", "/Creator (Microsoft PowerPoint 2019)", False),
        ("Présentation PowerPoint", "/Creator (Microsoft PowerPoint 2019)", False),
        ("", "/Creator (LaTeX)", False),
        ("12345", "", False),
    ],
)
def test_the_title(read, title, info, kept):
    """The file's own title is the document's, unless it is the name of a file or of a program."""
    document = read(pdf(["The rent is 950 euros."], title=title, info=info))
    assert document.metadata.get("title") == (title.strip() if kept else None)
