"""The parts of a docx file and how they refer to each other. Knows no text."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from cmt_sdk.converting.zips import text_parts

Element: TypeAlias = Any  # an element of lxml, which has no types

DOCUMENT = "word/document.xml"


class Package:
    """The parts of a docx file except its media, parsed on demand.

    Raises:
        zipfile.BadZipFile: The file is no zip file, or unpacks to more than the limit.
    """

    def __init__(self, data: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            infos = text_parts(parts)
            self._bytes = {info.filename: parts.read(info) for info in infos}
            self.names = parts.namelist()
        self._trees: dict[str, Element] = {}
        main = [t for kind, t in self.related("").values() if kind == "officeDocument"]
        self.document = main[0] if main and main[0] in self._bytes else DOCUMENT

    def part(self, name: str) -> Element | None:
        """The root of a part, whose changes `packed` keeps; None for one that is not there."""
        from lxml.etree import XMLParser, fromstring

        if name not in self._bytes:
            return None
        if name not in self._trees:
            parser = XMLParser(resolve_entities=False, no_network=True, remove_comments=True)
            self._trees[name] = fromstring(self._bytes[name], parser)
        return self._trees[name]

    def related(self, source: str) -> Mapping[str, tuple[str, str]]:
        """The parts that a part refers to: for each id the kind of relation and the name."""
        folder, name = posixpath.split(source)
        relations = self.part(posixpath.join(folder, "_rels", f"{name}.rels"))
        found = {}
        for relation in [] if relations is None else relations:
            target = relation.get("Target", "")
            if relation.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            kind = relation.get("Type", "").rpartition("/")[2]
            found[relation.get("Id", "")] = (kind, target)
        return found

    def kind(self, kind: str) -> Element | None:
        """The root of the document's part of this kind, such as "styles"; None without one."""
        for found, target in self.related(self.document).values():
            if found == kind and target in self._bytes:
                return self.part(target)
        return self.part(f"word/{kind}.xml")

    def packed(self) -> bytes:
        """A docx file of the XML parts with all changes."""
        from lxml.etree import tostring

        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as parts:
            for name, data in self._bytes.items():
                tree = self._trees.get(name)
                parts.writestr(name, data if tree is None else tostring(tree, encoding="utf-8"))
        return file.getvalue()


def local(element: Element) -> str:
    """The name of an element without its namespace."""
    tag = element.tag
    return str(tag).rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element | None, name: str) -> str | None:
    """The value of an attribute, whatever its namespace."""
    if element is None:
        return None
    return next(
        (str(v) for key, v in element.attrib.items() if key.rpartition("}")[2] == name), None
    )


def child(element: Element | None, *names: str) -> Element | None:
    """The first child of this name, or the first one beneath it along the names."""
    for name in names:
        if element is None:
            return None
        element = next((inner for inner in element if local(inner) == name), None)
    return element


def found(root: Element, *names: str) -> Iterator[Element]:
    """Every element beneath that has one of these names."""
    for element in root.iter("{*}" + names[0]) if len(names) == 1 else root.iter():
        if local(element) in names:
            yield element


def is_on(element: Element | None) -> bool:
    """True for a property that is present and not switched off."""
    return element is not None and attribute(element, "val") not in ("0", "false", "off", "none")


def made(like: Element, name: str, **attributes: str) -> Element:
    """A new element in the namespace of another one, and its attributes too."""
    space = str(like.tag).rpartition("}")[0] + "}"
    return like.makeelement(space + name, {space + key: v for key, v in attributes.items()})


def run(like: Element, text: str) -> Element:
    """A new run of text in the namespace of another element."""
    new = made(like, "r")
    inner = made(like, "t")
    inner.text = text
    inner.set("{http://www.w3.org/XML/1998/namespace}space", "preserve")
    new.append(inner)
    return new


def remove(element: Element) -> None:
    """Remove an element."""
    if (parent := element.getparent()) is not None:
        parent.remove(element)


def unwrap(element: Element) -> None:
    """Put the children of an element in its place."""
    for inner in list(element):
        element.addprevious(inner)
    remove(element)
