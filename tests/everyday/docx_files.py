"""Builds docx files for tests, part by part, without an office program."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
SPACES = " ".join(
    [
        f'xmlns:w="{W}" xmlns:r="{R}"',
        'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"',
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"',
        'xmlns:w14="http://schemas.microsoft.com/office/word/2010/wordml"',
        'xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing"',
        'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"',
        'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"',
        'xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture"',
        'xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office"',
    ]
)
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
KINDS = {"header": "header", "footer": "footer", "footnotes": "footnotes", "endnotes": "endnotes"}
KINDS |= {"numbering": "numbering", "styles": "styles", "comments": "comments"}


def r(text: str, properties: str = "") -> str:
    """A run."""
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def p(*contents: str, style: str = "", properties: str = "") -> str:
    """A paragraph of runs; plain texts become runs."""
    runs = "".join(c if c.startswith("<") else r(c) for c in contents)
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{named}{properties}</w:pPr>{runs}</w:p>"


def style(identifier: str, name: str, inner: str = "", kind: str = "paragraph") -> str:
    """A style."""
    return (
        f'<w:style w:type="{kind}" w:styleId="{identifier}"><w:name'
        f' w:val="{name}"/>{inner}</w:style>'
    )


def field(instruction: str, result: str) -> str:
    """A complex field with its cached result."""
    mark = '<w:r><w:fldChar w:fldCharType="{}"/></w:r>'
    told = f"<w:r><w:instrText>{instruction}</w:instrText></w:r>"
    return mark.format("begin") + told + mark.format("separate") + r(result) + mark.format("end")


def docx(body: str, parts: Mapping[str, str] | None = None, core: str = "") -> bytes:
    """The bytes of a docx file.

    Args:
        body: the contents of w:body.
        parts: contents of the root of other parts by name, such as "header1" or "styles"; its
            relation has the name of the part as id.
        core: the contents of docProps/core.xml.
    """
    file = io.BytesIO()
    relations = ""
    with zipfile.ZipFile(file, "w") as package:
        for name, contents in (parts or {}).items():
            kind = KINDS[name.rstrip("0123456789")]
            root = {"header": "hdr", "footer": "ftr"}.get(kind, kind)
            package.writestr(f"word/{name}.xml", f"<w:{root} {SPACES}>{contents}</w:{root}>")
            relations += f'<Relationship Id="{name}" Type="{R}/{kind}" Target="{name}.xml"/>'
        root = f'<Relationships xmlns="{PACKAGE}/relationships">'
        main = f'<Relationship Id="d" Type="{R}/officeDocument" Target="word/document.xml"/>'
        package.writestr("_rels/.rels", f"{root}{main}</Relationships>")
        package.writestr("word/_rels/document.xml.rels", f"{root}{relations}</Relationships>")
        document = f"<w:document {SPACES}><w:body>{body}</w:body></w:document>"
        package.writestr("word/document.xml", document)
        if core:
            space = f'xmlns:cp="{PACKAGE}/metadata/core-properties"'
            dublin = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
            root = f"<cp:coreProperties {space} {dublin}>{core}</cp:coreProperties>"
            package.writestr("docProps/core.xml", root)
    return file.getvalue()
