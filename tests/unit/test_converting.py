"""Files to documents: what a reader sees of each format, a clear error for what cannot be read,
folders.
"""

import io
import logging
import os
import sys
import zipfile

import pytest

from cmt_sdk.converting import read_document, read_documents
from cmt_sdk.errors import InvalidDocument, MissingExtra, NotFound, StorageDenied

PAGE = """<!DOCTYPE html><html><head><title>Trip</title><style>p {color: red}</style><script>var hidden = 1;</script></head><body>
<h1>Museum</h1><p>It <b>moved</b> to <a href="https://example.org">Lisbon</a> in 2019.<!-- not this --></p>
<ul><li>Open <del>daily</del> on Mondays<li>2 * 3 euros</ul><noscript>Switch it on!</noscript><img src="x.png" alt="a picture">
<table><tr><th>Year</th><th>City</th></tr><tr><td>2019</td><td>Lisbon</td></tr></table><h2>Shop</h2><p>It sells my_book.</p>
</body></html>"""

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(body, method=zipfile.ZIP_DEFLATED):
    """The bytes of a docx file with this body and a style for headings."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as parts:
        parts.writestr(
            "word/document.xml", f"<w:document {WORD}><w:body>{body}</w:body></w:document>"
        )
        heading = '<w:style w:type="paragraph" w:styleId="H"><w:name w:val="heading 1"/></w:style>'
        parts.writestr("word/styles.xml", f"<w:styles {WORD}>{heading}</w:styles>")
    return file.getvalue()


def paragraph(text, style=""):
    """A paragraph of a docx file."""
    return f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'


def pdf(*pages):
    """The bytes of a PDF file whose pages hold these lines."""
    bodies = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        (
            f"<< /Type /Pages /Count {len(pages)} /Kids"
            f" [{' '.join(f'{4 + 2 * n} 0 R' for n in range(len(pages)))}] >>"
        ),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for lines in pages:
        resources = f"/Resources << /Font << /F 3 0 R >> >> /Contents {len(bodies) + 2} 0 R"
        bodies.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] {resources} >>")
        drawn = (
            "BT /F 12 Tf 72 720 Td 14 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        )
        bodies.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    written, places = "%PDF-1.4\n", "0000000000 65535 f \n"
    for number, body in enumerate(bodies, 1):
        places += f"{len(written):010} 00000 n \n"
        written += f"{number} 0 obj\n{body}\nendobj\n"
    trailer = (
        f"trailer\n<< /Size {len(bodies) + 1} /Root 1 0 R >>\nstartxref\n{len(written)}\n%%EOF\n"
    )
    return f"{written}xref\n0 {len(bodies) + 1}\n{places}{trailer}".encode()


LETTER = docx(paragraph("It moved to Lisbon."))
REPORT = pdf(["The museum moved to", "Lisbon in 2019."])


@pytest.fixture
def text_of(tmp_path):
    """Writes bytes to a file of this name; the text that is read from it."""

    def read(name, data):
        (tmp_path / name).write_bytes(data)
        return read_document(tmp_path / name).text

    return read


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Café.\nOpen daily.\n".encode(), "Café.\nOpen daily.\n"),
        ("Café.".encode("utf-8-sig"), "Café."),
        ("Café.".encode("utf-16"), "Café."),
        (b"\xfe\xff" + "Café.".encode("utf-16-be"), "Café."),
        (b"One.\r\nTwo.\rThree.", "One.\nTwo.\nThree."),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16 little", "utf-16 big", "line ends"],
)
def test_plain_text(text_of, data, text):
    """Text is taken as it is, its byte-order mark and its line ends aside."""
    assert text_of("notes.txt", data) == text


def test_a_suffix_is_not_asked_for(text_of):
    """A file that is named may be of any kind as long as it is text."""
    assert text_of("Makefile", b"all: test\n") == "all: test\n"


def test_the_source_is_the_absolute_path(tmp_path, monkeypatch):
    """However the file was named."""
    (tmp_path / "trip.md").write_text("Lisbon.")
    monkeypatch.chdir(tmp_path)
    assert read_document("trip.md").source == (tmp_path / "trip.md").resolve().as_posix()


def test_html(text_of):
    """Headings, lists and tables stay; scripts, styles, link targets, emphasis and what is struck
    go.
    """
    assert (
        text_of("page.html", PAGE.encode()) == "# Museum\n\nIt moved to Lisbon in 2019.\n\n"
        "* Open on Mondays\n* 2 * 3 euros\n\n"
        "| Year | City |\n| --- | --- |\n| 2019 | Lisbon |\n\n"
        "## Shop\n\nIt sells my_book."
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("<p>Café</p>".encode(), "Café"),
        ("<p>Café</p>".encode("utf-16"), "Café"),
        ('<meta charset="iso-8859-1"><p>Café</p>'.encode("latin-1"), "Café"),
        ('<meta charset="shift_jis"><p>日本語です。</p>'.encode("shift_jis"), "日本語です。"),
        (b"Caf&eacute; &amp; bar &lt;3", "Café & bar <3"),
        (b"https://example.org", "https://example.org"),
        (
            (
                b'<?xml version="1.0" encoding="UTF-8"?><html'
                b' xmlns="http://www.w3.org/1999/xhtml"><p>Caf\xc3\xa9</p></html>'
            ),
            "Café",
        ),
    ],
    ids=["utf-8", "utf-16", "latin-1", "shift-jis", "no tag", "an address only", "xhtml"],
)
def test_encodings_of_html(text_of, data, text):
    """UTF-8 first, then what the page itself names."""
    assert text_of("page.htm", data) == text


def test_html_with_end_tags_left_out(text_of):
    """HTML lets them be left out: a long page of such paragraphs and rows is no deep one."""
    page = "<p>A paragraph.\n" * 1000 + "<table>" + "<tr><td>A cell.<td>B.\n" * 1000
    text = text_of("page.html", page.encode())
    assert text.count("A paragraph.\n\n") == 1000
    assert text.count("| A cell. | B. |\n") == 999


def test_docx(text_of):
    """Headings and tables of a letter stay as Markdown."""
    row = "<w:tr><w:tc>{}</w:tc><w:tc>{}</w:tc></w:tr>"
    table = row.format(paragraph("Year"), paragraph("City")) + row.format(
        paragraph("2019"), paragraph("Lisbon")
    )
    body = (
        paragraph("Museum", "H")
        + paragraph("It moved &amp; reopened.")
        + f"<w:tbl>{table}</w:tbl>"
        + paragraph("Bye.")
    )
    assert (
        text_of("letter.docx", docx(body))
        == "# Museum\n\nIt moved & reopened.\n\n| Year | City |\n| --- | --- |\n| 2019 | Lisbon"
        " |\n\nBye."
    )


def test_pdf(text_of):
    """Pages stand apart, and a word that was hyphenated at a line's end is whole again."""
    data = pdf(["The museum moved to", "Lisbon in 2019."], ["It is wheel-", "chair friendly."])
    assert (
        text_of("report.PDF", data)
        == "The museum moved to\nLisbon in 2019.\n\nIt is wheelchair friendly."
    )


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("notes.txt", b"", "nothing to remember"),
        ("notes.txt", b" \n\t", "nothing to remember"),
        ("notes.txt", b"\x89PNG\r\n\x1a\n\0\0", "is a picture: run OCR over it"),
        ("notes.txt", b"\x7fELF\x02\0\0", "is a program or its data"),
        (
            "notes.txt",
            b"\x01\xf0\0\0\x02\xff\0",
            r"is not UTF-8 text \(invalid .* at byte 1\).*iconv",
        ),
        (
            "notes.txt",
            b"\x01\x02\0\x03\0\0",
            "holds NUL or control characters: that is binary data",
        ),
        ("notes.txt", b"\xff\xfea", r"is not UTF-16 text \(truncated data"),
        ("page.html", b"", "nothing to remember"),
        ("page.html", b"<script>1</script>", "holds no text"),
        ("page.html", b"\xff\xd8\xff\xe0\0\x10JFIF\0", "is a picture"),
        ("page.html", b"<font>" * 5000 + b"x", "nested more than 2,000 deep.*add its text"),
        (
            "bomb.docx",
            docx(" " * 32_000_001),
            "cannot be read .*unpacks to 32,000,.* the limit is 32,000,000",
        ),
        ("letter.docx", b"", "is empty: there is nothing to remember"),
        ("letter.docx", b"It is text.", "cannot be read .*not a zip file"),
        ("letter.docx", LETTER[: len(LETTER) // 2], "cannot be read"),
        (
            "letter.docx",
            LETTER.replace(b"word/document.xml", b"word/somewhat.xml"),
            "cannot be read",
        ),
        ("letter.docx", docx("<w:p>"), "cannot be read .*tag mismatch"),
        (
            "letter.docx",
            docx(paragraph("Hi."), zipfile.ZIP_LZMA),
            "compressed in a way that this format does not have",
        ),
        ("letter.docx", docx(""), "holds no text"),
        ("report.pdf", b"", "is empty: there is nothing to remember"),
        ("report.pdf", b"It is text.", "cannot be read .*save it again"),
        ("report.pdf", REPORT[: len(REPORT) // 2], "cannot be read"),
        ("scan.pdf", pdf([]), r"holds no text \(a scan, perhaps\): run OCR"),
    ],
)
def test_files_without_readable_text(text_of, name, data, words):
    """Empty, binary, damaged: the file is named, and the remedy where there is one."""
    with pytest.raises(InvalidDocument, match=f"(?s){name}.*{words}"):
        text_of(name, data)


def test_what_is_not_there(tmp_path):
    """A missing file, a path beneath a file and a name that no file can have are named."""
    (tmp_path / "notes.md").write_text("Lisbon.")
    for path in (tmp_path / "nowhere.md", tmp_path / "notes.md" / "more.md", "no\0where.md"):
        with pytest.raises(NotFound, match=r"there is no file .*\.md"):
            read_document(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    """Its size is known before it fills the memory."""
    monkeypatch.setattr("cmt_sdk.converting.files.MAX_FILE_BYTES", 10)
    (tmp_path / "big.txt").write_text("more than ten")
    with pytest.raises(InvalidDocument, match=r"big\.txt has 13 bytes, files are read up to 10"):
        read_document(tmp_path / "big.txt")


def test_a_folder_is_no_document(tmp_path):
    """The message says how folders are added."""
    with pytest.raises(InvalidDocument, match=r"is a folder: .*read_documents or `cmt add"):
        read_document(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "module"),
    [
        (".html", "bs4"),
        (".html", "lxml.html"),
        (".html", "markdownify"),
        (".docx", "mammoth"),
        (".pdf", "pypdfium2"),
        (".rtf", "striprtf.striprtf"),
        (".odt", "lxml.etree"),
        (".epub", "lxml.etree"),
        (".pptx", "pptx"),
        (".xlsx", "openpyxl"),
    ],
)
def test_a_missing_extra_names_the_install_line(text_of, monkeypatch, suffix, module):
    """Without its converter a file is not read as something else."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtra, match=rf"reading {suffix} files .*pip install 'cmt-sdk\[files\]'"
    ):
        text_of(f"file{suffix}", b"<p>Something</p>")


def test_folders(tmp_path):
    """All beneath a folder, sorted; hidden files, hidden folders and unknown kinds are left out."""
    names = [
        "b.txt",
        "a/z.md",
        "a/a.html",
        "a/deep/one.csv",
        ".hidden.md",
        ".git/notes.md",
        "picture.png",
        "program",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"This is {name}.")
    found = [d.text for d in read_documents([tmp_path])]
    assert found == [
        "This is b.txt.",
        "This is a/a.html.",
        "This is a/z.md.",
        "This is a/deep/one.csv.",
    ]


def test_a_hidden_file_that_is_named(tmp_path):
    """It is read: only what is found in folders is chosen from."""
    (tmp_path / ".hidden").write_text("Lisbon.")
    assert [d.text for d in read_documents([tmp_path / ".hidden"])] == ["Lisbon."]


def test_bad_files_in_a_folder(tmp_path, caplog):
    """One that cannot be read is passed over with a warning that names it, and the others are read;
    named, it fails.
    """
    (tmp_path / "a.txt").write_bytes(b"\xff\xff")
    (tmp_path / "b.pdf").write_bytes(b"nonsense")
    (tmp_path / "c.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "d.txt").write_text("Lisbon.")
    with caplog.at_level(logging.WARNING):
        assert [d.text for d in read_documents([tmp_path])] == ["Lisbon."]
    assert [m.split(str(tmp_path))[1][1:6] for m in caplog.messages] == ["a.txt", "b.pdf", "c.txt"]
    assert all(m.startswith("passed over: ") for m in caplog.messages)
    with pytest.raises(InvalidDocument, match=r"a\.txt is not UTF-8 text .*iconv"):
        list(read_documents([tmp_path / "a.txt"]))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_in_a_folder(tmp_path):
    """Nobody may ever write to them: they are not opened."""
    os.mkfifo(tmp_path / "pipe.txt")
    assert list(read_documents([tmp_path])) == []


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder that nobody may look into, the superuser included; a file is in it."""
    folder = tmp_path / "closed"

    def refusing(real):
        def call(path, *arguments, **options):
            if str(folder) in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments, **options)

        return call

    folder.mkdir()
    (folder / "secret.md").write_text("Lisbon.")
    with monkeypatch.context() as patch:
        for module, name in ((os, "scandir"), (io, "open")):
            patch.setattr(module, name, refusing(getattr(module, name)))
        yield folder


def test_a_closed_folder(closed):
    """Named, it is an error; so is a file in it."""
    with pytest.raises(StorageDenied, match="closed cannot be read: Permission denied"):
        list(read_documents([closed]))
    with pytest.raises(StorageDenied, match=r"secret\.md cannot be read: Permission denied"):
        list(read_documents([closed / "secret.md"]))


def test_a_closed_folder_in_a_folder(closed, caplog):
    """It is passed over with a warning, and the rest is read."""
    (closed.parent / "open.md").write_text("It is open.")
    with caplog.at_level(logging.WARNING):
        assert [d.text for d in read_documents([closed.parent])] == ["It is open."]
    assert caplog.messages == [f"passed over: {closed} cannot be read: Permission denied"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="the superuser may look into every folder",
)
@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_a_folder_closed_by_its_mode(tmp_path, mode):
    """The same without a stand-in: what is in it cannot be seen, or seen but not opened."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "secret.md").write_text("Lisbon.")
    folder.chmod(mode)
    try:
        with pytest.raises(StorageDenied, match=r"secret\.md cannot be read"):
            list(read_documents([folder / "secret.md"]))
        assert list(read_documents([tmp_path])) == []
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a name is always Unicode")
@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"caf\xe9/menu.txt"])
def test_a_name_that_is_no_utf_8(tmp_path, name):
    """No database holds it as the document's source: the remedy is another name."""
    file = tmp_path / os.fsdecode(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text("Coffee.")
    with pytest.raises(InvalidDocument, match="is not UTF-8: rename it"):
        read_document(file)
