"""Values of an XFA form in a pdf file, whose pages only Adobe's programs draw. Knows no page."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

MAX_PACKET_BYTES = 32_000_000
MAX_VALUES = 20_000


def read_values(pdf: Any) -> list[str]:
    """The values as "name: value" lines, in the order of the form. `pdf` is a PdfDocument."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    values: list[str] = []
    for packet in _packets(pdf, "datasets"):
        root = etree.fromstring(packet, parser)
        if root is not None:
            values += _leaves(root)
    return values[:MAX_VALUES]


def _packets(pdf: Any, wanted: str) -> Iterator[bytes]:
    """The packets of this name."""
    from pypdfium2 import raw

    for index in range(max(0, raw.FPDF_GetXFAPacketCount(pdf.raw))):
        size = raw.FPDF_GetXFAPacketName(pdf.raw, index, None, 0)
        name = ctypes.create_string_buffer(size)
        raw.FPDF_GetXFAPacketName(pdf.raw, index, name, size)
        if name.value.decode("latin-1") != wanted:
            continue
        length = ctypes.c_ulong()
        raw.FPDF_GetXFAPacketContent(pdf.raw, index, None, 0, ctypes.byref(length))
        if not 0 < length.value <= MAX_PACKET_BYTES:
            continue
        packet = ctypes.create_string_buffer(length.value)
        raw.FPDF_GetXFAPacketContent(pdf.raw, index, packet, length.value, ctypes.byref(length))
        yield packet.raw


def _leaves(root: Any) -> Iterator[str]:
    for element in root.iter():
        text = " ".join((element.text or "").split())
        if isinstance(element.tag, str) and not len(element) and text:
            yield f"{element.tag.rsplit('}', 1)[-1]}: {text}"
