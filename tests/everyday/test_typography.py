"""What typography says is kept: powers, notes, struck-out text, boxes, fractions, formulas,
ruby.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cmt_sdk.converting.docx import from_docx
from cmt_sdk.converting.html import from_html
from tests.everyday.docx_files import docx, p, r, style

SUPERSCRIPT = '<w:vertAlign w:val="superscript"/>'
SUBSCRIPT = '<w:vertAlign w:val="subscript"/>'
STRUCK = "<w:strike/>"

# name: (page, text). Those whose name begins with "listed" stand in the list of faults.
HTML = {
    "listed: power of ten": ("<p>4 × 10<sup>5</sup> km</p>", "4 × 10^5 km"),
    "listed: note after a year": (
        "<p>found in 2019<sup>3</sup> by Ida</p>",
        "found in 2019[3] by Ida",
    ),
    "listed: fraction of sup and sub": (
        "<p>1<sup>1</sup>&frasl;<sub>2</sub> cups</p>",
        "1 1/2 cups",
    ),
    "listed: linked note after a number": (
        '<p>40<sup><a href="#n2">2</a></sup> people</p>',
        "40[2] people",
    ),
    "listed: square metres": ("<p>120 m<sup>2</sup></p>", "120 m²"),
    "listed: water": ("<p>H<sub>2</sub>O</p>", "H2O"),
    "listed: MathML fraction": (
        "<p>x = <math><mfrac><mn>1</mn><mn>2</mn></mfrac></math></p>",
        "x = 1/2",
    ),
    "listed: s": ("<p>It costs <s>900</s> 950 euros.</p>", "It costs 950 euros."),
    "listed: del": ("<p>due on <del>Monday</del> Friday</p>", "due on Friday"),
    "listed: boxes": (
        "<ul><li><input type=checkbox checked> done<li><input type=checkbox> open</ul>",
        "* [x] done\n* [ ] open",
    ),
    "listed: ruby": ("<p><ruby>漢字<rt>かんじ</rt></ruby></p>", "漢字(かんじ)"),
    "note after a word": ("<p>the tower<sup>4</sup> stands</p>", "the tower[4] stands"),
    "note after a full stop": ("<p>It fell.<sup>12</sup> Then</p>", "It fell.[12] Then"),
    "note in brackets": ("<p>in 1987<sup>[3]</sup>.</p>", "in 1987[3]."),
    "note of a letter": ("<p>in 2019<sup>a</sup> by</p>", "in 2019[a] by"),
    "two notes": ("<p>4,100<sup>1,2</sup> beds</p>", "4,100[1,2] beds"),
    "note at the beginning": ("<p><sup>1</sup>Without VAT</p>", "[1] Without VAT"),
    "note of EPUB": ('<p>402<sup epub:type="noteref">7</sup></p>', "402[7]"),
    "negative power": ("<p>1.6 × 10<sup>−19</sup> C</p>", "1.6 × 10^−19 C"),
    "power of a variable": ("<p>E = mc<sup>2</sup></p>", "E = mc^2"),
    "power of brackets": ("<p>(a + b)<sup>2</sup></p>", "(a + b)^2"),
    "cubic metres": ("<p>3 kg/m<sup>3</sup></p>", "3 kg/m³"),
    "French ordinal": ("<p>le 1<sup>er</sup> mai</p>", "le 1er mai"),
    "English ordinal": ("<p>the 3<sup>rd</sup> of May</p>", "the 3rd of May"),
    "Spanish ordinal": ("<p>la 2<sup>a</sup> planta</p>", "la 2a planta"),
    "abbreviation": ("<p>M<sup>me</sup> Blanc</p>", "Mme Blanc"),
    "raised cents": ("<p>$19<sup>99</sup></p>", "$19.99"),
    "raised minutes": ("<p>um 8<sup>30</sup> Uhr</p>", "um 8:30 Uhr"),
    "ion": ("<p>Ca<sup>2+</sup></p>", "Ca²⁺"),
    "isotope": ("<p><sup>14</sup>C dating</p>", "¹⁴C dating"),
    "carbon dioxide": ("<p>CO<sub>2</sub> rises</p>", "CO2 rises"),
    "sugar": (
        "<p>C<sub>6</sub>H<sub>12</sub>O<sub>6</sub></p>",
        "C6H12O6",
    ),
    "logarithm": ("<p>log<sub>2</sub>8 = 3</p>", "log_2 8 = 3"),
    "index": ("<p>T<sub>max</sub> = 40</p>", "T_max = 40"),
    "trade mark": ("<p>Acme<sup>TM</sup></p>", "Acme™"),
    "raised by its style": (
        '<p>4 × 10<span style="vertical-align:super;font-size:8px">5</span> km</p>',
        "4 × 10^5 km",
    ),
    "vulgar fraction": ("<p>1&frac12; l</p>", "1 ½ l"),
    "vulgar fraction in bold": ("<p>Take 1½ cups</p>", "Take 1 ½ cups"),
    "fraction slash": ("<p>3⁄4 mile</p>", "3/4 mile"),
    "root": (
        "<math><msqrt><mi>a</mi><mo>+</mo><mi>b</mi></msqrt></math>",
        "√(a + b)",
    ),
    "mixed number in MathML": (
        "<p><math><mn>2</mn><mfrac><mn>3</mn><mn>4</mn></mfrac></math></p>",
        "2 3/4",
    ),
    "quadratic formula": (
        "<math><mi>x</mi><mo>=</mo><mfrac><mrow><mo>−</mo><mi>b</mi></mrow><mrow><mn>2</mn><mi>a</mi></mrow></mfrac></math>",
        "x = (−b)/(2a)",
    ),
    "matrix": (
        (
            "<math><mo>(</mo><mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>0</mn></mtd></mtr>"
            "<mtr><mtd><mn>0</mn></mtd><mtd><mn>1</mn></mtd></mtr></mtable><mo>)</mo></math>"
        ),
        "[1, 0; 0, 1]",
    ),
    "KaTeX": (
        (
            '<p>so <span class="katex"><span class="katex-mathml"><math><semantics><msup><mi>x</mi>'
            '<mn>2</mn></msup><annotation encoding="application/x-tex">x^2</annotation></semantics>'
            '</math></span><span class="katex-html" aria-hidden="true">x2</span></span> grows</p>'
        ),
        "so x^2 grows",
    ),
    "Wikipedia formula": (
        (
            '<p>area <span class="mwe-math-element"><span style="display: none;"><math'
            ' alttext="r^2"><msup><mi>r</mi><mn>2</mn></msup></math></span><img'
            ' class="mwe-math-fallback-image-inline" alt="{\\displaystyle r^{2}}"></span>.</p>'
        ),
        "area r^2.",
    ),
    "strike": ("<p>room <strike>12</strike> 14</p>", "room 14"),
    "struck by a class of Google Docs": (
        "<style>.c5{text-decoration:line-through}</style><p>room <span class=c5>12</span> 14</p>",
        "room 14",
    ),
    "struck by its style": (
        '<p>at <span style="text-decoration: line-through">9</span> 10 am</p>',
        "at 10 am",
    ),
    "inserted": ("<p>at <del>9</del><ins>10</ins> am</p>", "at 10 am"),
    "a done to-do": ("<ul><li><s>Buy milk</s><li>Buy bread</ul>", "* ~~Buy milk~~\n* Buy bread"),
    "a done box": (
        "<ul><li><input type=checkbox checked> <s>Buy milk</s></ul>",
        "* [x] ~~Buy milk~~",
    ),
    "a struck line among lines": ("<div><s>Milk</s><br>Bread</div>", "~~Milk~~  \nBread"),
    "a struck paragraph": (
        "<p><del>The gate is closed.</del></p><p>Now</p>",
        "~~The gate is closed.~~\n\nNow",
    ),
    "a struck row": (
        "<table><tr><th>Item<th>Price<tr><td><s>Milk</s><td><s>2</s><tr><td>Bread<td>3</table>",
        "| Item | Price |\n| --- | --- |\n| ~~Milk~~ | ~~2~~ |\n| Bread | 3 |",
    ),
    "radio buttons": (
        (
            "<p><label><input type=radio name=a> cash</label><label><input type=radio name=a"
            " checked> card</label></p>"
        ),
        "[ ] cash [x] card",
    ),
    "Google Keep": (
        (
            "<div class=listitem><span class=bullet>&#9745;</span>Milk</div>"
            "<div class=listitem><span class=bullet>&#9744;</span>Bread</div>"
        ),
        "[x] Milk\n\n[ ] Bread",
    ),
    "Notion": (
        (
            '<ul class="to-do-list"><li><div class="checkbox checkbox-on"></div>'
            '<span class="to-do-children-checked">Milk</span></li></ul>'
            '<ul class="to-do-list"><li><div class="checkbox checkbox-off"></div>'
            '<span class="to-do-children-unchecked">Bread</span></li></ul>'
        ),
        "* [x] Milk\n\n* [ ] Bread",
    ),
    "Evernote": (
        "<div><en-todo checked='true'/>Milk</div><div><en-todo/>Bread</div>",
        "[x] Milk\n\n[ ] Bread",
    ),
    "OneNote": (
        '<p data-tag="to-do:completed">Milk</p><p data-tag="to-do">Bread</p>',
        "[x] Milk\n\n[ ] Bread",
    ),
    "box by its role": (
        '<p><span role="checkbox" aria-checked="true"></span>Milk</p>',
        "[x] Milk",
    ),
    "ruby of single letters with brackets": (
        "<p><ruby>東<rp>(</rp><rt>とう</rt><rp>)</rp>京<rp>(</rp><rt>きょう</rt><rp>)</rp></ruby></p>",
        "東(とう)京(きょう)",
    ),
    "number with thin spaces": ("<p>1&#8239;250&#8239;000 km</p>", "1\u202f250\u202f000 km"),
    "number with thin spaces between elements": (
        "<p><span>1</span>&nbsp;<span>250</span> km</p>",
        "1\xa0250 km",
    ),
    "a number in parts": ('<p>1<span style="margin-left:.25em">250</span> km</p>', "1250 km"),
    "two marks of notes": ("<p>in 2019<sup>3</sup><sup>4</sup></p>", "in 2019[3][4]"),
    "index and power": ("<p>x<sub>i</sub><sup>2</sup></p>", "x_i^2"),
    "unit over a unit": ("<p>50 m<sup>3</sup>/h</p>", "50 m³/h"),
    "raised cents behind a comma": ("<p>5,<sup>99</sup> €</p>", "5,99 €"),
    "number sign": ("<p>N<sup>o</sup> 5</p>", "No 5"),
    "raised degree": ("<p>20<sup>o</sup>C</p>", "20°C"),
    "fraction raised whole": ("<p>3<sup>1/2</sup> cups</p>", "3 1/2 cups"),
    "fraction of Wikipedia": (
        "<p>1<span class=frac><span class=num>1</span>&frasl;<span class=den>2</span></span></p>",
        "1 1/2",
    ),
    "mark with a bracket": ("<p>100<sup>1)</sup> €</p>", "100[1] €"),
    "number struck out between numbers": ("<p>1<s>2</s>3</p>", "1 3"),
    "Tiptap": (
        (
            "<ul><li data-checked=true><label><input type=checkbox"
            " checked><span></span></label><div><p>Milk</p></div></li></ul>"
        ),
        "* [x] Milk",
    ),
    "Quill": (
        "<ul><li data-list=checked>Milk<li data-list=unchecked>Bread</ul>",
        "* [x] Milk\n* [ ] Bread",
    ),
    "ruby with bases in parts": (
        "<ruby><rb>漢</rb><rb>字</rb><rt>かん</rt><rt>じ</rt></ruby>",
        "漢字(かんじ)",
    ),
    "soft hyphen": ("<p>Donau&shy;dampf&shy;schiff</p>", "Donaudampfschiff"),
    "control characters": ("<p>a&#x1;b</p>", "ab"),
}


def test_docx_and_html_share_the_rules() -> None:
    """The same sentence gives the same text from both."""
    page = from_html(b"<p>4 &times; 10<sup>5</sup>, <s>old</s> new</p>", Path("a.html"))
    letter = docx(p("4 × 10", r("5", SUPERSCRIPT), ", ", r("old", STRUCK), " new"))
    assert from_docx(letter, Path("a.docx")).text == page.text == "4 × 10^5, new"


@pytest.mark.parametrize(("page", "text"), HTML.values(), ids=HTML.keys())
def test_html(page: str, text: str) -> None:
    """What a page raises, lowers, strikes out, ticks or annotates is written in the line."""
    assert from_html(page.encode(), Path("page.html")).text == text


FUSED = {
    "cells": ("<table><tr><td>12<td>34<tr><td>5<td>6</table>", "| 12 | 34 |"),
    "terms": ("<dl><dt>Fee<dd>20<dt>VAT<dd>4</dl>", "Fee\n:   20\n\nVAT\n:   4"),
    "summary": (
        "<details><summary>What is the fee?</summary>20 euros</details>",
        "What is the fee?\n\n20 euros",
    ),
    "links": ('<div><a href="/1">Fees</a><a href="/2">Home</a></div>', "Fees Home"),
    "buttons": ("<div><button>1</button><button>2</button>3</div>", "1 2 3"),
    "options": ("<p><select multiple><option selected>1<option selected>2</select>3</p>", "1 2 3"),
    "inline blocks": (
        (
            '<p><span style="display:inline-block">12</span><span'
            ' style="display:inline-block">34</span></p>'
        ),
        "12 34",
    ),
    "flex items": (
        '<div style="display:flex"><span>12</span><span>34</span></div>',
        "12 34",
    ),
    "lines": ("<p>12<br>34</p>", "12  \n34"),
    "divisions": ("<div>12<div>34</div>56</div>", "12\n\n34\n\n56"),
    "figures": ("<figure>12<figcaption>34</figcaption></figure>", "12\n\n34"),
    "labels": ("<p><label>Room</label><label>14</label></p>", "Room 14"),
    "classes": ('<p><b class="euro">12</b><b class="cent">50</b></p>', "12 50"),
    "spans": ("<p><span>Qty</span><span>12</span><span>34</span></p>", "Qty 12 34"),
    "small print": ("<p>Price 12<small>50</small></p>", "Price 12 50"),
    "picture": ("<p>12<img src=x>34</p>", "12 34"),
    "custom elements": ("<p><my-price>12</my-price><my-price>34</my-price></p>", "12 34"),
    "grid by a style sheet": (
        "<style>.g{display:grid}</style><div class=g><span>12</span><span>34</span></div>",
        "12 34",
    ),
    "lists in cells": (
        "<table><tr><th>A<th>B<tr><td><ul><li>1<li>2</ul><td>3</table>",
        "| A | B |\n| --- | --- |\n| 1; 2 | 3 |",
    ),
}


@pytest.mark.parametrize(("page", "text"), FUSED.values(), ids=FUSED.keys())
def test_nothing_fuses(page: str, text: str) -> None:
    """Numbers and words of neighbours stay apart."""
    assert text in from_html(page.encode(), Path("page.html")).text


def _maths(inner: str) -> str:
    return f"<m:oMath>{inner}</m:oMath>"


def _m(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


def _box(checked: int) -> str:
    return (
        f'<w:sdt><w:sdtPr><w14:checkbox><w14:checked w14:val="{checked}"/></w14:checkbox></w:sdtPr>'
        f"<w:sdtContent>{r('☒☐'[1 - checked])}</w:sdtContent></w:sdt>"
    )


FRACTION = _maths(f"<m:f><m:num>{_m('1')}</m:num><m:den>{_m('2')}</m:den></m:f>")
DOCX = {
    "listed: power and note": (
        p("4 × 10", r("5", SUPERSCRIPT), " newton, built 2019", r("3", SUPERSCRIPT)),
        "4 × 10^5 newton, built 2019[3]",
    ),
    "listed: struck out": (
        p("The hire costs ", r("900", STRUCK), " 950 euros"),
        "The hire costs 950 euros",
    ),
    "struck out twice": (p("due ", r("Monday", "<w:dstrike/>"), " Friday"), "due Friday"),
    "a done to-do": (p(r("Buy milk", STRUCK)), "~~Buy milk~~"),
    "not struck out after all": (p("a ", r("b", '<w:strike w:val="0"/>')), "a b"),
    "struck out by a style": (
        p("room ", r("12", '<w:rStyle w:val="Gone"/>'), " 14"),
        "room 14",
    ),
    "tracked changes": (
        p(
            "at ",
            '<w:del w:id="1"><w:r><w:delText>9</w:delText></w:r></w:del>',
            f'<w:ins w:id="2">{r("10")}</w:ins>',
            " am",
        ),
        "at 10 am",
    ),
    "moved text": (
        p(
            f'<w:moveFrom w:id="1">{r("9")}</w:moveFrom>',
            f'<w:moveTo w:id="2">{r("10")}</w:moveTo>',
        ),
        "10",
    ),
    "subscript": (p("H", r("2", SUBSCRIPT), "O"), "H2O"),
    "check boxes": (p(_box(1), " Milk") + p(_box(0), " Bread"), "[x] Milk\n\n[ ] Bread"),
    "boxes of a symbol font": (
        p('<w:r><w:sym w:font="Wingdings" w:char="F0FE"/></w:r>', " Milk")
        + p('<w:r><w:sym w:font="Wingdings" w:char="F0A8"/></w:r>', " Bread"),
        "[x] Milk\n\n[ ] Bread",
    ),
    "letters of a symbol font": (
        p(r("\uf0fe", '<w:rFonts w:ascii="Wingdings"/>'), " Milk"),
        "[x] Milk",
    ),
    "Office fraction": (p("x = ", FRACTION, " m"), "x = 1/2 m"),
    "Office power": (
        p(_maths(f"<m:sSup><m:e>{_m('x')}</m:e><m:sup>{_m('2')}</m:sup></m:sSup>{_m('=9')}")),
        "x^2 = 9",
    ),
    "Office root and matrix": (
        p(
            _maths(f"<m:rad><m:deg/><m:e>{_m('a+b')}</m:e></m:rad>"),
            _maths(
                f"<m:d><m:e><m:m><m:mr><m:e>{_m('1')}</m:e><m:e>{_m('0')}</m:e></m:mr>"
                f"<m:mr><m:e>{_m('0')}</m:e><m:e>{_m('1')}</m:e></m:mr></m:m></m:e></m:d>"
            ),
        ),
        "√(a + b) [1, 0; 0, 1]",
    ),
    "Office formula of its own line": (p(f"<m:oMathPara>{FRACTION}</m:oMathPara>"), "1/2"),
    "ruby": (
        p(
            f"<w:r><w:ruby><w:rt>{r('かんじ')}</w:rt><w:rubyBase>{r('漢字')}</w:rubyBase></w:ruby></w:r>"
        ),
        "漢字(かんじ)",
    ),
    "tabs": (p("12", "<w:r><w:tab/></w:r>", "34"), "12\t34"),
    "line break": (p("12", "<w:r><w:br/></w:r>", "34"), "12  \n34"),
    "old line break": (p("12", "<w:r><w:cr/></w:r>", "34"), "12  \n34"),
    "hyphen that does not break": (
        p("user", "<w:r><w:noBreakHyphen/></w:r>", "friendly"),
        "user-friendly",
    ),
}
STYLES = style("Gone", "Gone", "<w:rPr><w:strike/></w:rPr>", kind="character")


@pytest.mark.parametrize(("body", "text"), DOCX.values(), ids=DOCX.keys())
def test_docx(body: str, text: str) -> None:
    """What a letter raises, lowers, strikes out, ticks or annotates is written in the line."""
    assert from_docx(docx(body, {"styles": STYLES}), Path("letter.docx")).text == text


def test_a_note_of_a_letter() -> None:
    """A footnote's mark does not run into the number before it, and the note has the same mark."""
    notes = f'<w:footnote w:id="1">{p("Without the garden.")}</w:footnote>'
    body = p("built 2019", '<w:r><w:footnoteReference w:id="1"/></w:r>', " by Ida")
    text = from_docx(docx(body, {"footnotes": notes}), Path("letter.docx")).text
    assert text == "built 2019[1] by Ida\n\n[1] Without the garden."
