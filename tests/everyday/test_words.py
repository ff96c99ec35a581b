"""Words that are in a text are found, however the text or the question spells them."""

import sqlite3
import time
import unicodedata
from contextlib import closing

import pytest

from cmt_sdk.storage.schema import MIGRATIONS
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FakeEngine, open_fake
from cmt_sdk.text.words import asked, indexed
from cmt_sdk.text.words.folding import legible
from cmt_sdk.types import Document, Filter, Span

OTHERS = [
    "The museum moved to Lisbon in 2019 and has 12 rooms.",
    "Der Hund schläft in der Küche, und die Uhr geht nach.",
    "我们明天去公园散步，天气很好。",
    "猫は庭で寝ています。",
    "A boat needs a licence; ask at counter 7.",
]

# Cases of shared/design/faults.md, 7: text and question.
LISTED = {
    "chinese": ("我们的打印机放在三楼的会议室里，密码是蓝色海豚。", "打印机"),
    "chinese, two characters": ("我们的打印机放在三楼的会议室里，密码是蓝色海豚。", "密码"),
    "chinese question": ("我们的打印机放在三楼的会议室里，密码是蓝色海豚。", "打印机在哪里"),
    "japanese kana": ("会議室のプリンターは三階にあります。合言葉は青いイルカです。", "プリンター"),
    "japanese question": (
        "会議室のプリンターは三階にあります。合言葉は青いイルカです。",
        "合言葉は何ですか",
    ),
    "korean": ("프린터는 삼층 회의실에 있습니다.", "프린터"),
    "decomposed question": ("Le résumé de Zoë", unicodedata.normalize("NFD", "résumé")),
    "decomposed text": (unicodedata.normalize("NFD", "Le résumé de Zoë"), "résumé"),
    "soft hyphens": ("Donau\u00addampf\u00adschiff\u00adfahrt", "Donaudampfschifffahrt"),
    "soft hyphen as an entity": ("Donau&shy;dampf&shy;schiff", "Donaudampfschiff"),
    "zero-width space": ("The pass\u200bword is on the shelf", "password"),
    "ligatures": ("The o\ufb03ce \ufb02oor", "office floor"),
    "full width": ("Model ＸＹＺ９", "XYZ9"),
    "colours of a terminal": ("\x1b[31mERROR\x1b[0m in the pump", "ERROR"),
    "entity": ("Caf&eacute; on the corner", "café"),
    "emoji": ("The den is marked 🦊", "🦊"),
    "compound": ("Der Mietvertragsentwurf liegt im Schrank", "Vertrag"),
    "identifier without its hyphen": ("Error E-1043 means low oil", "E1043"),
    "umlaut as two letters": ("Der Schlüssel liegt unter dem Stein", "Schluessel"),
    "camel case": ("Call getUserName before login", "get user name"),
    "grouped number": ("The grant is 1,250,000 euros", "1250000"),
}
OWN = {
    "one character": ("绿茶在柜子里。", "茶"),
    "one character within": ("柜子里有绿茶和咖啡。", "茶"),
    "japanese half width": ("ﾌﾟﾘﾝﾀｰは二階です", "プリンター"),
    "japanese decomposed": (unicodedata.normalize("NFD", "ガラスの部屋"), "ガラス"),
    "thai": ("เครื่องพิมพ์อยู่ที่ห้องสมุดชั้นสอง", "ห้องสมุด"),
    "lao": ("ກະແຈຢູ່ໃນຫ້ອງສະໝຸດ", "ຫ້ອງສະໝຸດ"),
    "khmer": ("កូនសោនៅក្នុងបណ្ណាល័យ", "បណ្ណាល័យ"),
    "burmese": ("သော့က စာကြည့်တိုက်မှာရှိတယ်", "စာကြည့်တိုက်"),
    "korean with a particle": ("열쇠는 도서관에서 받으세요", "도서관"),
    "mixed scripts": ("我的iPhone手机在抽屉里", "iPhone"),
    "chinese over a line's end": ("打印\n机在走廊", "打印机"),
    "hebrew points": ("הַמַּפְתֵּחַ מִתַּחַת לָאֶבֶן", "המפתח"),
    "hebrew article": ("המפתח מתחת לאבן", "מפתח"),
    "arabic vowel marks": ("المِفْتَاحُ تَحْتَ الحَجَرِ", "المفتاح"),
    "arabic tatweel": ("المفتــــاح تحت الحجر", "المفتاح"),
    "arabic hamza": ("أحمد في المكتبة", "احمد"),
    "arabic digits": ("الغرفة ٤٧", "47"),
    "persian joiner": ("کتاب‌خانه بسته است", "کتابخانه"),
    "hindi": ("चाबी पुस्तकालय में है", "पुस्तकालय"),
    "polish stroke": ("Klucz jest w Łodzi", "lodzi"),
    "turkish capital": ("Anahtar İSTANBUL'da", "istanbul"),
    "turkish dotless": ("Isparta'da kapı kırmızı", "kirmizi"),
    "danish": ("Nøglen ligger på hylden", "noglen"),
    "sharp s": ("Die Straße ist gesperrt", "STRASSE"),
    "greek capitals": ("Το κλειδί είναι στην ΑΘΗΝΑ", "Αθήνα"),
    "russian yo": ("Ключ под ёлкой", "елкой"),
    "vietnamese": ("Chìa khóa ở thư viện", "thu vien"),
    "bidi marks": ("The \u202apass\u202cword\u200e is tern", "password"),
    "byte order mark": ("\ufeffKeys hang by the door", "keys"),
    "variation selector": ("Marked with ❤️", "❤"),
    "skin tone": ("Approved 👍🏽", "👍"),
    "numeric entity": ("Fran&#231;ois has the key", "Francois"),
    "hex entity": ("Fran&#xE7;ois has the key", "François"),
    "ampersand as an entity": ("Ask AT&amp;T for the bill", "ATT"),
    "typographic apostrophe": ("O’Brien has the key", "O'Brien"),
    "without its apostrophe": ("O’Brien has the key", "obrien"),
    "no-break hyphen": ("The e\u2011mail went out", "email"),
    "hyphen at a line's end": ("All infor-\nmation is in the safe", "information"),
    "bold within a word": ("The pass**word** is tern", "password"),
    "superscript note": ("The ferry runs since 2018³", "2018"),
    "snake case": ("Set max_open_files to 64", "maxOpenFiles"),
    "camel case whole": ("Call parse_http_header first", "parsehttpheader"),
    "letters and digits apart": ("The filter is an HX 220", "HX220"),
    "letters and digits together": ("The filter is an HX220", "hx-220"),
    "address of a network": ("The printer is 192.168.4.10", "192.168.4.10"),
    "cve": ("Patched CVE-2024-1234 in May", "CVE 2024 1234"),
    "c plus plus": ("The driver is in C++", "C++"),
    "c sharp": ("The driver is in C#", "c#"),
    "dot net": ("Needs .NET to run", ".net"),
    "phone without spaces": ("Call 555 0106106 after six", "5550106106"),
    "phone with brackets": ("Call (555) 010-6106", "555-010-6106"),
    "phone from abroad": ("Ruf +49 (0)30 123456 an", "030 123456"),
    "phone dialled at home": ("Ruf +49 30 1234567 an", "0301234567"),
    "iban": ("Konto DE89 3704 0044 0532 0130 00", "DE89370400440532013000"),
    "iban in groups": ("Konto DE89370400440532013000", "DE89 3704 0044 0532 0130 00"),
    "dutch compound": ("De ziekenhuisrekening ligt klaar", "rekening"),
    "swedish compound": ("Bilförsäkringen förnyas i juni", "försäkring"),
    "finnish case ending": ("Avain on kirjastossamme", "kirjasto"),
    "beginning of a compound": ("Der Haustürschlüssel hängt innen", "Haustür"),
    "compound asked for, its parts there": ("Der Schlüssel vom Auto hängt innen", "Autoschlüssel"),
    "bold letters of mathematics": ("𝐏𝐚𝐬𝐬𝐰𝐨𝐫𝐝: tern", "password"),
    "hebrew word of three letters": ("הקפה והחלב במקרר", "חלב"),
    "hebrew question with its article": ("חלב יש במקרר", "החלב"),
    "hebrew acronym": ("המשרד של צה״ל סגור", "צהל"),
    "arabic article": ("البيت مغلق", "بيت"),
    "arabic conjunction and article": ("والبيت مغلق", "بيت"),
    "hiragana for katakana": ("リンゴは台所にあります", "りんご"),
    "keycap": ("Press 7\ufe0f\u20e3 to call", "7"),
    "family of emoji": ("Room 👨\u200d👩\u200d👧 on the left", "👨\u200d👩\u200d👧"),
    "colours whose escape is lost": ("[1;31mERROR[0m in the pump", "error"),
    "colours whose escape is written out": ("\\x1b[31mERROR\\x1b[0m", "error"),
    "catalan middle dot": ("La col·lecció és a dalt", "colleccio"),
    "underscores in a number": ("LIMIT = 1_000_000", "1000000"),
    "invoice without hyphens": ("Pay INV-2026-0042 today", "INV20260042"),
    "roman numeral sign": ("Chapter Ⅳ tells of it", "IV"),
}  # fmt: skip


def put(store: SQLiteStore, text: str, **fields: object) -> Document:
    """Store a text as one passage."""
    return store.add(Document(text, **fields), [Span(0, len(text), 9, "")])[0]


def found(store: SQLiteStore, question: str, **chosen: object) -> list[str]:
    """The texts of the passages that a search by words finds, best first."""
    hits = [hit.passage_id for hit in store.search_text(question, 5, Filter(**chosen))]
    passages = store.passages(hits)
    return [passages[hit][0].text for hit in hits]


@pytest.fixture
def store(tmp_path):
    """A store that holds some other texts."""
    opened = SQLiteStore(tmp_path / "notes")
    for text in OTHERS:
        put(opened, text)
    yield opened
    opened.close()


@pytest.mark.parametrize(("text", "question"), (LISTED | OWN).values(), ids=(LISTED | OWN).keys())
def test_a_word_is_found(store, text, question):
    """The text that has it comes first."""
    put(store, text)
    assert found(store, question)[:1] == [text]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("A mansion on the hill", "man"),
        ("R&notes; and fees", "¬"),
        ("Pay 3.5 percent", "35"),
        ("Room 1920 is locked", "192"),
        ("It was 20 degrees", "2026"),
    ],
)
def test_what_is_another_word_is_not_found(store, text, question):
    """A short word within another, an entity that there is none of, digits within a number."""
    put(store, text)
    assert text not in found(store, question)


def test_a_whole_word_comes_before_one_within_another(store):
    """And where a whole one is, longer words do not count at all."""
    put(store, "Der Mietvertragsentwurf liegt im Schrank")
    put(store, "Ein Vertrag liegt im Safe")
    assert found(store, "Vertrag") == ["Ein Vertrag liegt im Safe"]


def test_a_word_of_another_scope_does_not_count(store):
    """What others have in their notes changes nothing of what is found in one's own."""
    put(store, "Der Mietvertragsentwurf liegt im Schrank", scope="user/ann")
    put(store, "Ein Vertrag liegt im Safe", scope="user/bob")
    assert found(store, "Vertrag", scope="user/ann") == ["Der Mietvertragsentwurf liegt im Schrank"]


def test_english_word_forms_are_found_as_before(store):
    """Stems, and no accents needed."""
    put(store, "Both cafés were repairing their ovens")
    assert found(store, "a cafe repairs an oven")[0] == "Both cafés were repairing their ovens"


def test_a_forgotten_word_leaves_no_trace_in_any_form(store, tmp_path):
    """The folded word, its other spelling and its grams are gone from the tables and from the
    file.
    """
    document = put(store, "Das Überraschungsgeschenk für Wilhelmine heißt QX-77123-Zebra")
    removed = store.delete(Filter(ids=[document.id]), erase=True)
    before = store.find_traces(removed.versions)[1]
    assert store.erase(5)
    assert before > 0
    assert store.find_traces(removed.versions)[1] == 0
    store.close()
    data = b"".join(file.read_bytes() for file in (tmp_path / "notes").iterdir())
    for word in (
        "uberraschungsgeschenk",
        "ueberraschungsgeschenk",
        "wilhelmine",
        "qx77123zebra",
        "uber berr erra",
    ):
        assert word.encode() not in data


def test_a_store_of_before_is_brought_into_the_new_form(tmp_path):
    """Its index of words is made again from the texts when it is first opened."""
    folder = tmp_path / "old"
    folder.mkdir()
    text = "# Büro\nDer Schlüssel liegt unter dem Stein. 打印机在三楼。"
    with closing(sqlite3.connect(folder / "memory.db")) as db, db:
        for step in MIGRATIONS[0]:
            db.execute(step)
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO documents VALUES (1, 'a', 1, 1, ?, 'h', NULL, '', '{}', 1, 1, NULL)",
            [text],
        )
        db.execute("INSERT INTO passages VALUES (1, 1, 0, 7, ?, 9, 'Büro')", [len(text)])
        db.execute("INSERT INTO passage_text (rowid, body) VALUES (1, ?)", [text])
    with closing(SQLiteStore(folder)) as store:
        for question in ("Schluessel", "打印机", "buro"):
            assert found(store, question) == [text[7:]]
        assert store.fts_is_consistent()


def test_taking_words_apart_is_cheap():
    """A passage of 200 words takes milliseconds at the most."""
    text = " ".join(f"word{n} of the passage, and 1,{n:03} more;" for n in range(30))
    indexed(text)
    start = time.process_time()
    for _ in range(20):
        indexed(text)
    assert (time.process_time() - start) / 20 < 0.02


@pytest.mark.parametrize(
    "piece",
    ["1", "1 ", "1-", "1.", "a", "e\u0301", "\u0301", "\u1a75", "+1 (", "3 mar ", "mar 3 ", "王", "ก็", "🦊", "\x1b[", "[0;",
     "&amp", "aB", "a1", "DE89 1234 ", "3月3日", "a-\n", "ה", "12:30", "1 000 ", "\u3164", "\ufffd", "\u202e"],
)  # fmt: skip
def test_no_text_takes_long(piece):
    """Time grows with the length alone, whatever is repeated; no text is an error."""
    start = time.process_time()
    indexed(piece * 5000)
    asked((piece * 5000)[:20_000])
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (unicodedata.normalize("NFD", "Zoë répare le vélo"), "Zoë répare le vélo"),
        (unicodedata.normalize("NFD", "프린터와 ガラス"), "프린터와 ガラス"),
        ("The o\ufb03ce is on the \ufb02oor", "The office is on the floor"),
        ("Ｍｏｄｅｌ　ＸＹＺ９", "Model XYZ9"),
        ("ﾌﾟﾘﾝﾀｰ", "プリンター"),
        ("The pass\u200bword\ufeff is te\u00adrn", "The password is tern"),
        ("\x1b[31mERROR\x1b[0m: pump", "ERROR: pump"),
        ("Caf&eacute; & bar &notes;", "Café & bar &notes;"),
        ("2019³ — “x”, ½ m², …", "2019³ — “x”, ½ m², …"),
        ("می‌خواهم 👨\u200d👩\u200d👧", "می‌خواهم 👨\u200d👩\u200d👧"),
        ("plain", "plain"),
        ("\u200b", "\u200b"),
    ],
)
def test_what_the_model_reads_is_legible(text, expected):
    """Composed and plain letters, nothing invisible; what has a meaning of its own stays."""
    assert legible(text) == expected


def test_passages_and_questions_reach_the_model_legibly(tmp_path):
    """The text itself stays as it was given."""
    given = unicodedata.normalize("NFD", "Zoë répare le vélo.")
    engine = FakeEngine()
    with open_fake(tmp_path / "notes", engine) as memory:
        memory.add(given)
        assert engine.compressor.compressed == ["Zoë répare le vélo."]
        assert memory.search(unicodedata.normalize("NFD", "Zoë répare"), 1)[0].passage.text == given
        assert (
            memory.model.ask(unicodedata.normalize("NFD", "Qui répare le vélo ?")).text
            == "Zoë répare le vélo."
        )
