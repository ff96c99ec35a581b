"""Text files in older encodings, and text files with a few bytes that are no text."""

import logging
import random

import pytest

from cmt_sdk.converting import read_document
from cmt_sdk.errors import InvalidDocument

GERMAN = "Die Gebühr für den Müll beträgt zwanzig Euro."
ENCODED = {
    "German, Windows": (GERMAN, "cp1252", "windows-1252"),
    "German, Mac": (GERMAN, "mac_roman", "mac_roman"),
    "German, DOS": (GERMAN, "cp850", "cp850"),
    "one word": ("Café", "latin-1", "windows-1252"),
    "euro sign": ("Die Miete kostet 950 €.", "cp1252", "windows-1252"),
    "bank export": ("Name;Straße;Betrag\nMüller;Hauptstraße 5;20,00 €\n", "cp1252", "windows-1252"),
    "French": ("L'été dernier, le loyer coûtait 950 € à Besançon.", "cp1252", "windows-1252"),
    "Spanish": ("El niño pagó mañana la habitación.", "latin-1", "windows-1252"),
    "Polish, Windows": (
        "Klucz leży pod doniczką. Żółta łódź stoi w Gdańsku.",
        "cp1250",
        "windows-1250",
    ),
    "Polish, ISO": (
        "Klucz leży pod doniczką. Żółta łódź stoi w Gdańsku.",
        "iso8859-2",
        "iso-8859-2",
    ),
    "Czech": ("Příliš žluťoučký kůň úpěl ďábelské ódy.", "cp1250", "windows-1250"),
    "Russian, Windows": ("Ключ лежит под цветочным горшком.", "cp1251", "windows-1251"),
    "Russian, KOI8": ("Ключ лежит под цветочным горшком.", "koi8-r", "koi8-u"),
    "Russian, DOS": ("Ключ лежит под цветочным горшком.", "cp866", "ibm866"),
    "Greek": ("Το κλειδί βρίσκεται κάτω από τη γλάστρα.", "cp1253", "windows-1253"),
    "Turkish": ("Anahtar saksının altında. Kira ücreti 950 avro, şişli.", "cp1254", "windows-1254"),
    "Hebrew": ("המפתח נמצא מתחת לעציץ.", "cp1255", "windows-1255"),
    "Arabic": ("المفتاح تحت أصيص الزهور.", "cp1256", "windows-1256"),
    "Thai": ("กุญแจอยู่ใต้กระถางต้นไม้", "cp874", "cp874"),
    "Japanese, Shift-JIS": ("鍵は植木鉢の下にあります。家賃は九万円です。", "shift_jis", "cp932"),
    "Japanese, EUC": ("鍵は植木鉢の下にあります。家賃は九万円です。", "euc_jp", "euc-jp"),
    "Chinese, GB18030": ("我们的打印机放在三楼的会议室里，密码是蓝色海豚。", "gb18030", "gb18030"),
    "Chinese, Big5": ("我們的印表機放在三樓的會議室裡，密碼是藍色海豚。", "big5", "big5hkscs"),
    "Korean": ("프린터는 삼층 회의실에 있습니다.", "cp949", "cp949"),
}
UNMARKED = {
    "UTF-16 little": "Café au lait, 4 euros.".encode("utf-16-le"),
    "UTF-16 big": "Café au lait, 4 euros.".encode("utf-16-be"),
    "UTF-32 with a mark": "Café au lait, 4 euros.".encode("utf-32"),
}
DAMAGED = {
    "NULs in a log (listed)": (
        b"1 up\n2 up\n" + b"\0" * 4096 + b"3 up\n",
        "1 up\n2 up\n\ufffd3 up\n",
        "NUL characters in 1 place",
    ),
    "a stray byte (listed)": (
        "Zoë's café.\n".encode() * 9 + b"\xff",
        "Zoë's café.\n" * 9 + "\ufffd",
        "in 1 place",
    ),
    "a cut character": (("Müll " * 20).encode() + b"\xc3", "Müll " * 20 + "\ufffd", "in 1 place"),
    "a byte in an English log": (
        b"station 4 up\n" * 9 + b"\xff\n",
        "station 4 up\n" * 9 + "\ufffd\n",
        "in 1 place",
    ),
    "UTF-16 cut short": (
        "Café au lait".encode("utf-16") + b"a",
        "Café au lait\ufffd",
        "in 1 place",
    ),
    "Latin-1 within UTF-8": (
        ("Müll " * 40).encode() + b"M\xfcll",
        "Müll " * 40 + "M\ufffdll",
        "in 1 place",
    ),
}


@pytest.fixture
def read(tmp_path, caplog):
    """The text in a file of these bytes, and the warnings."""

    def of(data, name="a.txt"):
        (tmp_path / name).write_bytes(data)
        with caplog.at_level(logging.WARNING):
            text = read_document(tmp_path / name).text
        return text, " ".join(caplog.messages)

    return of


@pytest.mark.parametrize(("text", "encoding", "named"), ENCODED.values(), ids=ENCODED)
def test_older_encodings(read, text, encoding, named):
    """They are guessed, and the warning says so and how to convert the file."""
    found, warning = read(text.encode(encoding))
    assert found == text
    assert f"read as {named}, which is a guess" in warning
    assert "iconv -f ENCODING -t UTF-8" in warning


@pytest.mark.parametrize("data", UNMARKED.values(), ids=UNMARKED)
def test_unicode_that_shows_itself(read, data):
    """No guess, no warning."""
    assert read(data) == ("Café au lait, 4 euros.", "")


def test_chinese_utf_16_without_a_mark(read):
    """There is no NUL in it that would give it away."""
    text = "我们的打印机放在三楼的会议室里，密码是蓝色海豚。"
    assert read(text.encode("utf-16-le")) == (text, "")


def test_japanese_mail_encoding(read):
    """ISO-2022-JP is ASCII with escapes, and would pass for UTF-8."""
    assert read("鍵は植木鉢の下。".encode("iso2022_jp")) == ("鍵は植木鉢の下。", "")


@pytest.mark.parametrize(("data", "text", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_few_bytes_that_are_no_text(read, data, text, words):
    """They are replaced, and the warning says how many; the rest is read."""
    found, warning = read(data)
    assert found == text
    assert f"{words} replaced by U+FFFD" in warning


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 4,
        b"\x01\x02\0\x03\0\0 text",
        random.Random(1).randbytes(400),
        b"a\0b\0\x01\0c\x02\0" * 9,
    ],
    ids=["all bytes", "controls", "random", "mixed"],
)
def test_binary_data_is_refused(read, data):
    """No guess makes text of it."""
    with pytest.raises(InvalidDocument, match=r"is not UTF-|binary data"):
        read(data)
