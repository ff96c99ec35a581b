"""Epub books to Markdown, chapter by chapter. Knows html as the step between."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cmt_sdk.converting.html import from_html
from cmt_sdk.converting.result import Converted
from cmt_sdk.converting.zips import MAX_TEXT_BYTES, opened, parsed
from cmt_sdk.errors import InvalidDocument

PAGES = ("application/xhtml+xml", "text/html")
# font obfuscation, which locks no page
UNLOCKED = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def from_epub(data: bytes, path: Path) -> Converted:
    """The chapters of a book in the order of its spine, with its title.

    Raises:
        InvalidDocument: The file is damaged, or has a digital lock.
    """
    with opened(data, path) as parts:
        _check_lock(parts, path)
        container = parsed(parts.read("META-INF/container.xml"))
        package_name = container.xpath("string(//*[local-name()='rootfile']/@full-path)")
        package = parsed(parts.read(package_name))
        folder = posixpath.dirname(package_name)
        chapters: list[str] = []
        left_out: list[str] = []
        size = 0
        for name in dict.fromkeys(_spine(package)):
            chapter = posixpath.normpath(posixpath.join(folder, unquote(name)))
            try:
                size += parts.getinfo(chapter).file_size
                if size > MAX_TEXT_BYTES:
                    raise zipfile.BadZipFile(
                        f"its chapters unpack to more than {MAX_TEXT_BYTES:,} bytes"
                    )
                found = from_html(parts.read(chapter), path)
            except InvalidDocument:
                continue  # a page with a picture alone, such as the cover
            except KeyError:
                left_out.append(f"its chapter {chapter} is missing")
                continue
            chapters.append(found.text.strip())
            left_out += found.left_out
        title = " ".join(package.xpath("string(//*[local-name()='title'])").split())
        text = "\n\n".join(chapter for chapter in chapters if chapter)
        return Converted(text, {"title": title} if title else {}, list(dict.fromkeys(left_out)))


def _spine(package: Any) -> Iterator[str]:
    """The addresses of the pages in reading order, without the table of contents."""
    items = {item.get("id"): item for item in package.xpath("//*[local-name()='manifest']/*")}
    for reference in package.xpath("//*[local-name()='spine']/*"):
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type") not in PAGES:
            continue
        if "nav" not in (item.get("properties") or "").split():
            yield item.get("href") or ""


def _check_lock(parts: zipfile.ZipFile, path: Path) -> None:
    """Raise InvalidDocument for a book whose pages are encrypted."""
    if "META-INF/encryption.xml" not in parts.namelist():
        return
    root = parsed(parts.read("META-INF/encryption.xml"))
    methods = root.xpath(
        "//*[local-name()='EncryptedData']/*[local-name()='EncryptionMethod']/@Algorithm"
    )
    if any(method not in UNLOCKED for method in methods):
        raise InvalidDocument(
            f"{path} is a book with a digital lock (DRM): only its own reader opens it"
        )
