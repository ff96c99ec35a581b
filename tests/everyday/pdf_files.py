"""Small pdf files built byte by byte: text at chosen places, form fields, annotations. Knows no
reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Page:
    """Lines as (x, y, size, text); annotations as dictionaries in pdf syntax; `image` draws a
    picture.

    On a page that is turned by 90 degrees, lines stand as a reader sees them, annotations as the
    file does.
    """

    lines: Sequence[tuple[float, float, float, str]] = ()
    annotations: Sequence[str] = ()
    image: bool = False
    rotate: int = 0


@dataclass
class Writer:
    """Collects the objects of one file."""

    objects: list[bytes] = field(default_factory=list)

    def add(self, body: str | bytes) -> int:
        """The number of a new object."""
        self.objects.append(body.encode("latin-1") if isinstance(body, str) else body)
        return len(self.objects)

    def stream(self, head: str, data: bytes) -> int:
        """The number of a new stream."""
        start = f"<< {head} /Length {len(data)} >>\nstream\n".encode()
        return self.add(start + data + b"\nendstream")

    def whole(self, root: int, info: int | None) -> bytes:
        """The bytes of the file."""
        written = bytearray(b"%PDF-1.7\n")
        places = []
        for number, body in enumerate(self.objects, 1):
            places.append(len(written))
            written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
        start = len(written)
        written += b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1)
        for place in places:
            written += b"%010d 00000 n \n" % place
        more = f" /Info {info} 0 R" if info else ""
        tail = f"trailer\n<< /Size {len(places) + 1} /Root {root} 0 R{more} >>\n"
        return bytes(written + f"{tail}startxref\n{start}\n%%EOF\n".encode())


def hex_text(text: str) -> str:
    """A text string in pdf syntax, in UTF-16."""
    data = ("\ufeff" + text).encode("utf-16-be")
    return f"<{data.hex()}>"


def column(*texts: str, top: float = 720, x: float = 72, size: float = 12, step: float = 14):
    """Lines one beneath the other."""
    return [(x, top - step * n, size, text) for n, text in enumerate(texts)]


def pdf(
    *pages: Page | Sequence[str], title: str = "", info: str = "", catalog: str = "", xfa: str = ""
) -> bytes:
    """A file of these pages; a plain list of texts is a column.

    `xfa` is the XML of a form's values.
    Every widget among the annotations belongs to the form. `{page}` in an annotation is its page.
    """
    out = Writer()
    out.add("placeholder")
    out.add("placeholder")
    encoding = "/Encoding /WinAnsiEncoding"
    font = out.add(f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica {encoding} >>")
    image = out.stream(
        "/Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray"
        " /BitsPerComponent 8",
        b"\x80",
    )
    kids: list[int] = []
    widgets: list[int] = []
    for page in pages:
        this = page if isinstance(page, Page) else Page(column(*page))
        drawn = b""
        for x, y, size, text in this.lines:
            shown = (
                text.encode("cp1252")
                .replace(b"\\", b"\\\\")
                .replace(b"(", b"\\(")
                .replace(b")", b"\\)")
            )
            place = (
                b"0 1 -1 0 %g %g" % (600 - y, x) if this.rotate == 90 else b"1 0 0 1 %g %g" % (x, y)
            )
            drawn += b"BT /F %g Tf %s Tm (%s) Tj ET\n" % (size, place, shown)
        if this.image:
            drawn += b"q 500 0 0 700 50 50 cm /I Do Q\n"
        content = out.stream("", drawn)
        number = out.add("placeholder")
        kids.append(number)
        annotations: list[int] = []
        for annotation in this.annotations:
            annotations.append(out.add(annotation.replace("{page}", f"{number} 0 R")))
            if "/Widget" in annotation:
                widgets.append(annotations[-1])
        resources = f"/Resources << /Font << /F {font} 0 R >> /XObject << /I {image} 0 R >> >>"
        body = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Rotate {this.rotate}"
            f" {resources} /Contents {content} 0 R /Annots"
            f" [{' '.join(f'{n} 0 R' for n in annotations)}] >>"
        )
        out.objects[number - 1] = body.encode("latin-1")
    form = ""
    if widgets:
        fields = " ".join(f"{n} 0 R" for n in widgets)
        form = (
            f"/AcroForm << /Fields [{fields}] /DA (/F 12 Tf 0 g) /DR << /Font << /F {font} 0 R >>"
            " >> >>"
        )
    if xfa:
        packet = out.stream("", xfa.encode())
        form = f"/NeedsRendering true /AcroForm << /Fields [] /XFA [(datasets) {packet} 0 R] >>"
    out.objects[0] = f"<< /Type /Catalog /Pages 2 0 R {form} {catalog} >>".encode("latin-1")
    kids_ = " ".join(f"{n} 0 R" for n in kids)
    out.objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{kids_}] >>".encode()
    number_of_info = None
    if title or info:
        number_of_info = out.add(f"<< /Title {hex_text(title)} {info} >>")
    return out.whole(1, number_of_info)


def annotation(
    kind: str, box: tuple[float, float, float, float], contents: str = "", more: str = ""
) -> str:
    """An annotation that is no form field."""
    rect = " ".join(map(str, box))
    return (
        f"<< /Type /Annot /Subtype /{kind} /Rect [{rect}] /Contents {hex_text(contents)} {more} >>"
    )


def text_field(
    name: str, value: str, box: tuple[float, float, float, float], more: str = ""
) -> str:
    """A text field of a form, without an appearance."""
    rect = " ".join(map(str, box))
    return (
        f"<< /Type /Annot /Subtype /Widget /FT /Tx /T {hex_text(name)} /V {hex_text(value)} "
        f"/DA (/F 12 Tf 0 g) /F 4 /P {{page}} /Rect [{rect}] {more} >>"
    )


def check_box(name: str, on: bool, box: tuple[float, float, float, float], more: str = "") -> str:
    """A check box of a form."""
    rect = " ".join(map(str, box))
    state = "Yes" if on else "Off"
    return (
        f"<< /Type /Annot /Subtype /Widget /FT /Btn /T {hex_text(name)} /V /{state} /AS /{state} "
        f"/F 4 /P {{page}} /Rect [{rect}] /AP << /N << /Yes 3 0 R >> >> {more} >>"
    )


def choice(
    name: str, value: str, options: Sequence[str], box: tuple[float, float, float, float]
) -> str:
    """A list to choose from."""
    rect = " ".join(map(str, box))
    return (
        f"<< /Type /Annot /Subtype /Widget /FT /Ch /Ff 131072 /T {hex_text(name)} /V"
        f" {hex_text(value)} /Opt [{' '.join(map(hex_text, options))}] /DA (/F 12 Tf 0 g) /F 4 /P"
        f" {{page}} /Rect [{rect}] >>"
    )
