"""Rows and records stay whole, and what their columns are called reaches every passage."""

import re
from pathlib import Path

import pytest

from cmt_sdk.converting import read_document
from cmt_sdk.converting.records import from_csv, from_json, from_json_lines
from cmt_sdk.text.splitting import binary_parts, rules_for, split


def tokens(texts):
    """A token counter: parts of words, marks, line ends."""
    return [len(re.findall(r"\w{1,4}|[^\w\s]|\n", text)) for text in texts]


def cut(text, suffix=".md", budget=40, **more):
    """The passages of a text with the heading each stands under."""
    return [
        (s.heading, text[s.start : s.end])
        for s in split(text, tokens, budget, rules=rules_for(f"x{suffix}"), **more)
    ]


PEOPLE = [
    (f"{name} Berg", f"{n} Oak Tree Road", f"555 01{n:02d}")
    for n, name in enumerate(["Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal"], 1)
]

TABLES = {
    "names-of-columns": (
        "name,street,phone\nBob Berg,9 Oak Tree Road,555 0106\n",
        "- name: Bob Berg; street: 9 Oak Tree Road; phone: 555 0106",
    ),
    "empty-cells": (
        "name,street,phone\nAnn,,555\nBob,1 Elm,\n,,\n",
        "- name: Ann; phone: 555\n- name: Bob; street: 1 Elm",
    ),
    "excel-german": (
        'sep=;\r\n"Name";"Betrag";"Notiz"\r\n"Müller";"1.250,00";"zahlt\r\nspäter; bar"\r\n',
        "- Name: Müller; Betrag: 1.250,00; Notiz: zahlt / später; bar",
    ),
    "bank-export": (
        (
            "Kontonummer:;DE12"
            " 3456\nZeitraum:;01.01.2026\n\nBuchungstag;Betrag;Zweck\n01.01.2026;-12,50;REWE,"
            " Porto\n"
        ),
        (
            "Kontonummer: DE12 3456\nZeitraum: 01.01.2026\n\n- Buchungstag: 01.01.2026; Betrag:"
            " -12,50; Zweck: REWE, Porto"
        ),
    ),
    "lines-above-filled-up": (
        "Konto;;;\nDE12;;;\nTag;Betrag;Zweck;Saldo\n01.01.2026;-12,50;REWE;1\n02.01.2026;5;Lohn;2\n",
        (
            "Konto\nDE12\n\n- Tag: 01.01.2026; Betrag: -12,50; Zweck: REWE; Saldo: 1\n"
            "- Tag: 02.01.2026; Betrag: 5; Zweck: Lohn; Saldo: 2"
        ),
    ),
    "no-header": ("1,Bob,555\n2,Ann,556\n", "- 1; Bob; 555\n- 2; Ann; 556"),
    "years-as-columns": (
        "country,2019,2020\nFrance,67.1,67.4\n",
        "- country: France; 2019: 67.1; 2020: 67.4",
    ),
    "a-name-twice": (
        "name,tel,tel\nBob,1,2\nAnn,3,4\n",
        "- name: Bob; tel: 1; tel: 2\n- name: Ann; tel: 3; tel: 4",
    ),
    "more-cells-than-names": (
        "a,b\n1,2\n3,4,5\n6,7\n",
        "- a: 1; b: 2\n- a: 3; b: 4; column 3: 5\n- a: 6; b: 7",
    ),
    "inch-marks": (
        'name\tsize\nthe 5" pipe\t3\nthe 6" pipe\t4\n',
        '- name: the 5" pipe; size: 3\n- name: the 6" pipe; size: 4',
    ),
    "mark-never-closed": (
        'name,note\nBob,"hi\nAnn,no\n',
        "- name: Bob; note: hi\n- name: Ann; note: no",
    ),
    "pipes": ("a|b\n1|2\n", "- a: 1; b: 2"),
    "no-table": ("This is a note.", "This is a note."),
}


@pytest.mark.parametrize(("text", "wanted"), TABLES.values(), ids=TABLES)
def test_a_row_becomes_a_record_that_names_its_columns(text, wanted):
    """Whatever the marks between cells are, and whatever stands above the header."""
    assert from_csv(text.encode(), Path("x.csv")).text == wanted


def test_a_table_with_a_byte_order_mark():
    """As Excel saves "Unicode text"."""
    assert (
        from_csv("name\tcity\r\nZoë\tPorto\r\n".encode("utf-16"), Path("x.tsv")).text
        == "- name: Zoë; city: Porto"
    )


VALUES = {
    "objects-in-a-list": (
        (
            '{"site": {"name": "Kestrel", "rooms": [{"room": "R112", "seats": 4}, '
            '{"room": "R113", "seats": 6.10}]}, "tags": ["a", "b"]}'
        ),
        (
            "tags: a, b\nsite.name: Kestrel\n\n# site.rooms\n\n- room: R112; seats: 4\n- room:"
            " R113; seats: 6.10"
        ),
    ),
    "objects-by-name": (
        '{"ann": {"phone": "1", "city": "Porto"}, "bob": {"phone": "2"}}',
        "- ann; phone: 1; city: Porto\n- bob; phone: 2",
    ),
    "deep": (
        '[{"a": 1, "b": {"c": [1, 2], "d": [{"x": 1}, {"x": 2}]}}]',
        "- a: 1; b.c: 1, 2; b.d: (x: 1), (x: 2)",
    ),
    "numbers-as-written": (
        '{"n": 1.10, "m": 12345678901234567890, "t": true, "u": null}',
        "n: 1.10\nm: 12345678901234567890\nt: true",
    ),
    "a-name-twice": ('{"a": "x", "a": "y"}', "a: x, y"),
    "no-json": ('{"a": 1, // comment\n}', '{"a": 1, // comment\n}'),
    "nested-too-deep": ("[" * 100_000, "[" * 100_000),
}


@pytest.mark.parametrize(("text", "wanted"), VALUES.values(), ids=VALUES)
def test_json_names_the_path_to_each_value(text, wanted):
    """Tables in it become records, below the path to them."""
    assert from_json(text.encode(), Path("x.json")).text == wanted


def test_json_lines():
    """Each line is a record; what is no json stays."""
    text = '{"room": "R1", "n": 1.10}\nno json\n{"room": "R2"}\n'
    assert (
        from_json_lines(text.encode(), Path("x.jsonl")).text
        == "- room: R1; n: 1.10\nno json\n- room: R2\n"
    )


def test_a_file_of_rows_is_read_as_records(tmp_path):
    """By its suffix."""
    (tmp_path / "x.csv").write_text("name,phone\nBob,555\n")
    (tmp_path / "x.json").write_text('{"name": "Bob"}')
    (tmp_path / "x.jsonl").write_text('{"name": "Bob"}\n')
    texts = [read_document(tmp_path / f"x{suffix}").text for suffix in (".csv", ".json", ".jsonl")]
    assert texts == ["- name: Bob; phone: 555", "name: Bob", "- name: Bob\n"]


def test_records_are_never_torn():
    """Each passage holds whole ones."""
    text = "\n".join(f"- name: {n}; street: {s}; phone: {p}" for n, s, p in PEOPLE)
    found = [body.split("\n") for _, body in cut(text, ".csv", 50)]
    assert [line for lines in found for line in lines] == text.split("\n")
    assert len(found) > 3


def test_a_record_over_the_budget_is_cut_between_its_fields():
    """Its first field stands above the later pieces."""
    text = "- name: Ann Abel; " + "; ".join(f"field {n}: the value {n}" for n in range(8))
    found = cut(text, ".csv", 40)
    assert [heading for heading, _ in found] == ["", *["name: Ann Abel"] * (len(found) - 1)]
    assert all(re.search(r"value \d(;|$)", body) for _, body in found)


def test_rows_given_as_text_stay_whole_below_their_header():
    """`memory.add(text, source="x.csv")`: a row with line breaks in a cell too."""
    text = "name,note\n" + "\n".join(f'{n},"{s}\nroom {p}"' for n, s, p in PEOPLE)
    found = cut(text, ".csv", 40)
    assert [heading for heading, _ in found] == ["", *["name,note"] * (len(found) - 1)]
    assert all(body.endswith('"') for _, body in found)


LINES = {
    "json-lines": (
        ".jsonl",
        [f'{{"room": "R{n}", "name": "Ann {n}", "phone": "555 01{n}"}}' for n in range(10, 20)],
    ),
    "log": (
        ".log",
        [
            f"2026-03-0{n} 10:00 ERROR the pump at station {n}\n  Traceback\n    line {n}"
            for n in range(1, 9)
        ],
    ),
    "java-log": (
        ".log",
        [
            f"10:00:0{n} ERROR failed\njava.lang.E: no {n}\n\tat a.b(C.java:{n})\nCaused by: y"
            for n in range(9)
        ],
    ),
    "syslog": (
        ".log",
        [f"Mar {n:2d} 10:00:00 kestrel sshd[1{n}]: accepted key for ann" for n in range(1, 9)],
    ),
    "chat": (
        ".txt",
        [f"[{n:02d}:15] Ann: the boat number {n} is at the pier {n}. And then?" for n in range(10)],
    ),
    "addresses": (
        ".txt",
        [f"{n} Berg\n{n} Oak Tree Road\nPort Elm\n555 01{n}\n" for n in range(10, 24)],
    ),
    "verses": (
        ".md",
        [f"The sea is wide\nand I have {n} boats\nthe pier is old\n" for n in range(6)],
    ),
    "cues": (
        ".srt",
        [
            f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\nThe boat is red.\nIt is old.\n"
            for n in range(1, 7)
        ],
    ),
    "definitions": (
        ".md",
        [f"Term {n}\n: It means the {n}. of the things. It is old.\n" for n in range(6)],
    ),
    "rst-definitions": (
        ".rst",
        [f"term {n}\n  It means the {n}. of the things. It is old." for n in range(6)],
    ),
    "rows-of-pipes": (".md", [f"| Boat {n} | pier {n} | {n}00 euros |" for n in range(12)]),
}


@pytest.mark.parametrize(("suffix", "records"), LINES.values(), ids=LINES)
def test_lines_that_belong_together_stay_together(suffix, records):
    """A passage ends only between two of them."""
    found = cut("\n".join(records), suffix, 50)
    ends = {record.strip().split("\n")[-1] for record in records}
    assert len(found) > 2
    assert {body.split("\n")[-1] for _, body in found} <= ends


HEADERS = {
    "markdown": (
        ".md",
        "# Fees\n\n| Boat | Fee |\n| --- | --- |\n",
        "| B{n} | {n}00 euros |\n",
        "",
        "Fees\n| Boat | Fee |",
    ),
    "without-outer-bars": (
        ".md",
        "Boat | Fee\n--- | ---\n",
        "B{n} | {n}00 euros\n",
        "",
        "Boat | Fee",
    ),
    "within-a-list": (
        ".md",
        "- Fees\n\n  | Boat | Fee |\n  | --- | --- |\n",
        "  | B{n} | {n}00 euros |\n",
        "",
        "Fees\n| Boat | Fee |",
    ),
    "html": (
        ".md",
        "<table>\n<tr><th>Boat</th><th>Fee</th></tr>\n",
        "<tr><td>B{n}</td><td>{n}00</td></tr>\n",
        "</table>\n",
        "Boat | Fee",
    ),
    "grid": (
        ".rst",
        "Fees\n====\n\n+------+-----+\n| Boat | Fee |\n+======+=====+\n",
        "| B{n} | {n}00 |\n+------+-----+\n",
        "",
        "Fees\n| Boat | Fee |",
    ),
    "columns": (
        ".rst",
        "Fees\n====\n\n====== =====\nBoat   Fee\n====== =====\n",
        "B{n}     {n}00 euros\n",
        "====== =====\n",
        "Fees\nBoat Fee",
    ),
    "org": (
        ".org",
        "* Fees\n| Boat | Fee |\n|------+-----|\n",
        "| B{n} | {n}00 euros |\n",
        "",
        "Fees\n| Boat | Fee |",
    ),
    "asciidoc": (
        ".adoc",
        "== Fees\n\n|===\n|Boat |Fee\n\n",
        "|B{n} |{n}00 euros\n",
        "|===\n",
        "Fees\n|Boat |Fee",
    ),
    "latex": (
        ".tex",
        "\\section{Fees}\nBoat & Fee \\\\\n\\hline\n",
        "B{n} & {n}00 euros \\\\\n",
        "",
        "Fees\nBoat & Fee \\\\",
    ),
}


@pytest.mark.parametrize(
    ("suffix", "above", "row", "below", "heading"), HEADERS.values(), ids=HEADERS
)
def test_every_part_of_a_table_has_its_header(suffix, above, row, below, heading):
    """The header row is the last line of the heading; rows stay whole."""
    rows = [row.replace("{n}", str(n)) for n in range(24)]
    found = cut(above + "".join(rows) + below, suffix, 70)
    assert len(found) > 2
    assert {h for h, _ in found[1:]} == {heading}
    assert sum(r.strip() in body for _, body in found for r in rows) == len(rows)


NESTED = {
    "list": (
        ".md",
        "# Ports\n\n- Server node9\n",
        "  - port 80{n} is open to all\n",
        "Ports > Server node9",
    ),
    "logseq": (".md", "- ## Server node9:\n", "\t- port 80{n} is open to all\n", "Server node9"),
    "tasks": (".md", "- [ ] Server node9\n", "  - [x] port 80{n} is open to all\n", "Server node9"),
    "numbers": (".md", "1. Server node9\n", "   1. port 80{n} is open to all\n", "Server node9"),
    "announced": (".md", "Server node9:\n\n", "- port 80{n} is open to all\n", "Server node9"),
    "plain-text": (".txt", "* Server node9\n", "    * port 80{n} is open to all\n", "Server node9"),
    "stars": (".adoc", "* Server node9\n", "** port 80{n} is open to all\n", "Server node9"),
    "yaml": (".yaml", "node9:\n", "  port 80{n}: is open to all\n", "node9"),
    "code": (".py", "class Node:\n", "    port80{n} = is_open(to_all)\n", "class Node"),
    "callout": (
        ".md",
        "> [!note] Server node9\n> It is old.\n",
        ">\n> Its port 80{n} is open to all.\n",
        "Server node9",
    ),
}


@pytest.mark.parametrize(("suffix", "above", "item", "heading"), NESTED.values(), ids=NESTED)
def test_a_nested_item_has_what_it_lies_under(suffix, above, item, heading):
    """In the heading of each passage that begins below it."""
    found = cut(above + "".join(item.replace("{n}", str(n)) for n in range(10, 22)), suffix, 48)
    assert len(found) > 2
    assert {h for h, _ in found[1:]} == {heading}


def test_code_stays_whole_or_is_cut_at_blank_lines():
    """No line of it is torn."""
    block = (
        "```py\n" + "\n\n".join(f"def boat{n}():\n    return pier({n})" for n in range(8)) + "\n```"
    )
    bodies = [body for _, body in cut("Before.\n\n" + block, budget=60)]
    assert all(body.startswith(("Before", "```py", "def ")) for body in bodies)
    assert ("", "```py\nx = 1\n\ny = 2\n```") in cut(
        "One two three four. " * 3 + "\n\n```py\nx = 1\n\ny = 2\n```", budget=24
    )


PICTURE = "iVBORw0KGgoAAAANSUhEUgAA" * 300

BINARY = {
    "picture": (
        f"Red.\n\n![The boat at sea](data:image/png;base64,{PICTURE})\n\nPier 7.",
        ["Red.\n\n![The boat at sea", "Pier 7."],
    ),
    "picture-without-words": (
        f"Red.\n\n![](data:image/png;base64,{PICTURE})\n\nPier 7.",
        ["Red.", "Pier 7."],
    ),
    "reference": (
        f"See ![boat][i1].\n\n[i1]: <data:image/png;base64,{PICTURE}>\n",
        ["See ![boat][i1]."],
    ),
    "html": (
        f'<img alt="Boat" src="data:image/png;base64,{PICTURE}">\n\nPier 7.',
        ['<img alt="Boat" src="', '">\n\nPier 7.'],
    ),
    "bare-base64": (f"Key:\n{PICTURE}\n\nPier 7.", ["Key:", "Pier 7."]),
    "lines-of-base64": (
        "Key:\n" + "\n".join([PICTURE[:64]] * 9) + "\nabCD12==\nPier 7.",
        ["Key:", "Pier 7."],
    ),
}


@pytest.mark.parametrize(("text", "wanted"), BINARY.values(), ids=BINARY)
def test_binary_data_is_in_no_passage(text, wanted):
    """What describes it stays."""
    assert [body for _, body in cut(text)] == wanted


@pytest.mark.parametrize(
    "text",
    [
        "/home/ann/documents/2026-03-04-notes-about-the-boat-and-the-pier-and-the-lamp/" * 4,
        "x" * 400,
        "0123456789abcdef" * 8,
        "https://example.org/a?data=1",
        "data:text/plain,hello",
    ],
)
def test_long_words_are_no_binary_data(text):
    """Paths, hashes and addresses of the web are text."""
    assert binary_parts(text) == []


def test_a_name_that_is_repeated_a_thousand_times(tmp_path):
    """All its values are kept, side by side."""
    file = tmp_path / "log.json"
    file.write_text("{" + ", ".join(f'"event": "e{n}"' for n in range(2000)) + "}")
    text = read_document(file).text
    assert "e0" in text
    assert "e1999" in text
