"""One name, of a file, a folder or a title, as a person reads it.

Its shape shows a name without meaning. The only words listed are names that programs give. Pure:
knows no path and no document.
"""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise
from unicodedata import category, normalize
from urllib.parse import unquote

# Names that programs give to a document without a name, before a number.
UNNAMED = frozenset(
    """untitled|unnamed|no title|unbenannt|ohne titel|sans titre|sans nom|sin título|sem título
    |senza titolo|senza nome|naamloos|bez tytułu|bez nazwy|namnlös|namnlöst|unavngivet|uten navn
    |uten tittel|nimetön|bez názvu|névtelen|fără titlu|adsız|başlıksız|без имени|без названия
    |безымянный|без назви|χωρίς τίτλο|ללא שם|ללא כותרת|بدون عنوان|بدون اسم|无标题|未命名|無標題|無題
    |名称未設定|제목 없음|무제|không có tiêu đề
    |document|dokument|documento|документ|文档|文書|doc|file|datei|page|seite|image|bild|foto|photo
    |new document|neues dokument|nouveau document|nuevo documento|nuovo documento|nowy dokument
    |new text document|neues textdokument|nouveau document texte|nuevo documento de texto
    |nuovo documento di testo|новый текстовый документ|новый документ|新建文本文档|新建文档
    |新しいテキスト ドキュメント|새 텍스트 문서|new note|neue notiz|nouvelle note|nueva nota
    |新建笔记
    |microsoft word|powerpoint presentation|powerpoint-präsentation|presentation|präsentation
    |presentación|présentation|book|mappe|classeur|libro|workbook|sheet|tabelle|download|export
    |output|stdin|img|dsc|dscn|dscf|pxl|mvi|vid|cimg|pict|imgp|gopr|scan|scanned|scanned document
    |numérisation|escaneo|scansione|skan|скан|扫描|スキャン|aud|ptt|unknown|tmp|temp""".replace(
        "\n    ", ""
    ).split("|")
)
# Names of the one file that stands for its folder.
FOR_ITS_FOLDER = frozenset({"index", "_index", "readme", "default", "home"})

HEX_ID = re.compile(r"[0-9a-f]{8,}", re.I)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
TEMPORARY = re.compile(r"tmp[a-z0-9_]{8}|tmp\.\w{6,}")  # names from mkstemp and mktemp
CAMERA = re.compile(r"p\d{7}|_?mg_\d{4}")  # names of some cameras' pictures
MESSENGER = re.compile(r"-wa\d{4}$")  # WhatsApp's counter
RUN = re.compile(r"[^\W\d_]+|\d+")  # letters or digits
ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
HUMPS = re.compile(r"(?:[A-Z]?[a-z]{2,}|[A-Z]+(?=[A-Z][a-z])|\d+)(?:[A-Z][a-z]+|[A-Z]+|\d+)+")
BETWEEN_HUMPS = re.compile(r"(?<=[A-Za-z])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])|(?<=[a-z])(?=\d)")
COMPACT = re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?:[T_-]?\d{4,9})?(?!\d)")
WRITTEN = re.compile(r"(?<!\d)(\d{4})[-_.](\d{1,2})[-_.](\d{1,2})(?!\d)")
DATED = re.compile(r"\d{4}-\d{2}|\d{1,4}([-./])\d{1,2}\1\d{1,4}\.?")  # in any order
COUNTER = re.compile(r"[\s_.(\[-]*\d*[\s_.)\]-]*$")
YEAR = re.compile(r"(?:19|20)\d\d")
LEAST_RUNS = 4  # of letters and of digits, in turn, in an id that is made of both
MIN_ID = 10  # characters
LONG_ID = 16  # characters
MAX_ID_WORD_LETTERS = 6


def readable(name: str) -> str:
    """The words of a name, as a person reads them; empty where it has no meaning.

    Underscores, and the hyphens and dots of a name without blanks, become blanks; dates become
    2026-03-04; ids, counters and the names that programs give are left out.
    """
    name = normalize("NFC", unquote(name) if ESCAPED.search(name) else name)
    name = " ".join("".join(" " if category(c)[0] == "C" else c for c in name).split())
    if is_unnamed(name) or TEMPORARY.fullmatch(name):
        return " ".join(dates_in(name))
    name = UUID.sub(" ", name)
    name = COMPACT.sub(lambda m: iso(*m.groups()) or m[0], name)
    name = WRITTEN.sub(lambda m: iso(*m.groups()) or m[0], name)
    name = _spaced(name)
    words = [w for w in name.split(" ") if w and not _is_id(w)]
    name = " ".join(words).strip(" -–_.,;")
    return name if _says_something(name) else ""


def is_unnamed(name: str) -> bool:
    """True for a name that a program gives, with or without a counter or a time."""
    bare = normalize("NFC", name).casefold()
    if CAMERA.fullmatch(bare):
        return True
    bare = WRITTEN.sub(" ", COMPACT.sub(" ", MESSENGER.sub("", bare)))
    bare = re.sub(r"(?<=\d)[-_.:](?=\d)", "", bare)  # the rest of a time
    return COUNTER.sub("", bare).strip(" _-.") in UNNAMED and not _is_year_of(bare)


def _is_year_of(bare: str) -> bool:
    """True where the number after a program's name is a year: "Scan 2026" has no counter."""
    number = re.search(r"\d+$", bare)
    return bool(number and YEAR.fullmatch(number[0]) and " " in bare)


def stands_for_its_folder(name: str) -> bool:
    """True for the name of a file that stands for its folder."""
    return name.casefold() in FOR_ITS_FOLDER


def is_telling(name: str) -> bool:
    """True for a folder's name with meaning, other than a plain word such as "notes" or "test_x0".

    It has a capital, a letter beyond ASCII, or several words, all of them of letters.
    """
    words = RUN.findall(name)
    if not name.isascii() or re.search(r"[A-Z][A-Za-z]", name):
        return True
    return len(words) > 1 and all(w.isalpha() for w in words)


def dates_in(name: str) -> list[str]:
    """The dates in a name, as 2026-03-04."""
    found = [iso(*m.groups()) for m in (*COMPACT.finditer(name), *WRITTEN.finditer(name))]
    return list(dict.fromkeys(d for d in found if d))


def iso(year: str, month: str, day: str) -> str:
    """A date as 2026-03-04; empty where there is no such day."""
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return ""


def comparable(name: str) -> str:
    """The letters and digits of a name: two names are the same where these are equal."""
    return "".join(_words(name))


def says(known: str, name: str) -> bool:
    """True where `known` has all words of a name."""
    return set(_words(name)) <= set(_words(known))


def _words(name: str) -> list[str]:
    """The words of a name without capitals and signs."""
    folded = normalize("NFKC", name).casefold()
    return "".join(c if category(c)[0] in "LMN" else " " for c in folded).split()


def split_camel(name: str) -> str:
    """A name with blanks where small letters meet capitals: KestrelRouter is Kestrel Router."""
    return BETWEEN_HUMPS.sub(" ", name) if HUMPS.fullmatch(name) else name


def _spaced(name: str) -> str:
    """A name with blanks for the signs that stand for them."""
    name = re.sub(r"_{3,}", " / ", name).replace("_", " ")  # Logseq writes a/b as a___b
    if " " in name.strip():
        return name
    name = re.sub(r"(?<=[^\W\d])[.]+(?=\w)|(?<=\w)[.]+(?=[^\W\d])", " ", name)
    pieces = re.split(r"-+", name)
    spaced = pieces[0]
    for left, right in pairwise(pieces):
        keeps = right[:1].isdigit() and (left[-1:].isdigit() or left.isupper())  # 2026-03, E-1043
        spaced += ("-" if keeps else " ") + right
    return spaced


def _is_id(word: str) -> bool:
    """True for a hash, or for letters and digits in turn as in a random id."""
    runs = RUN.findall(word)
    if HEX_ID.fullmatch(word) and not word.isdigit():
        return len(runs) >= LEAST_RUNS or len(word) >= LONG_ID
    letters = [len(r) for r in runs if not r.isdigit()]
    mixed = len(runs) >= LEAST_RUNS and len(word) >= MIN_ID and word.isascii()
    return mixed and "-" not in word and max(letters, default=0) < MAX_ID_WORD_LETTERS


def _says_something(name: str) -> bool:
    """True for a name of two letters or digits, one of them a letter, or for a year or a date."""
    kinds = [category(c)[0] for c in name]
    if "L" in kinds and (len(name) > 1 or not name.isascii()):
        return True
    return bool(YEAR.fullmatch(name) or DATED.fullmatch(name))
