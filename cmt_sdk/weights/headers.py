"""Checks the header of a .gguf file before its conversion: no count exceeds the file.

Knows the format alone (ggml-org/ggml, docs/gguf.md), no library: the libraries that read it trust
its counts.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from cmt_sdk.errors import ModelUnsupported

VERSIONS = (2, 3)
# bytes of a value, by its type
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
WHOLE = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
STRING = 8
ARRAY = 9
MAX_NAME_BYTES = 65_535  # the format's limit
MAX_AXES = 8
MAX_VALUES_PER_BYTE = 8  # of tensors: no quantisation writes less than a bit


def check_gguf(file: Path) -> int:
    """Check that the header of a .gguf file fits the file.

    Returns:
        The number of values in its tensors.

    Raises:
        ModelUnsupported: It does not.
    """
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _Header(data).check()
    except (struct.error, ValueError, OSError) as error:
        # ValueError: an empty file cannot be mapped
        raise ModelUnsupported(
            f"{file} is not a valid .gguf file: {error}; fetch it again from its maker"
        ) from error


@dataclass
class _Header:
    """The bytes of a file and the reading position.

    Raises ValueError for an impossible value, struct.error at the end.
    """

    data: mmap.mmap
    at: int = 0

    def check(self) -> int:
        """The number of values in all tensors."""
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self.at = 4
        version = self._number("<I")
        if version not in VERSIONS:
            raise ValueError(
                f"version {version}, and those that are read are 2 and 3, little-endian"
            )
        tensors = self._count("tensors", 24)
        keys = self._count("keys", 13)
        for _ in range(keys):
            name = self._text(MAX_NAME_BYTES)
            value = self._value(self._number("<I"))
            if name.endswith(b".block_count") and value is not None and not 0 <= value <= tensors:
                raise ValueError(f"{value} layers and {tensors} tensors")
        values = sum(self._tensor() for _ in range(tensors))
        if values > MAX_VALUES_PER_BYTE * len(self.data):
            raise ValueError(f"tensors of {values} values in {len(self.data)} bytes")
        return values

    def _number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return int(value)

    def _count(self, what: str, width: int) -> int:
        """The number of things that have at least `width` bytes each."""
        count = self._number("<Q")
        if count * width > len(self.data) - self.at:
            raise ValueError(f"{count} {what}, and {len(self.data) - self.at} bytes are left of it")
        return count

    def _pass_over(self, what: str, width: int) -> None:
        count = self._count(what, width)
        self.at += count * width

    def _text(self, longest: int) -> bytes:
        count = self._count("bytes of text", 1)
        if count > longest:
            raise ValueError(f"a name of {count} bytes, the limit is {longest}")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def _value(self, kind: int) -> int | None:
        """Skip a value; return an integer."""
        if kind in WHOLE:
            return self._number(WHOLE[kind])
        if kind == STRING:
            self._pass_over("bytes of text", 1)
        elif kind == ARRAY:
            self._array()
        elif kind in WIDTHS:
            self.at += WIDTHS[kind]
        else:
            raise ValueError(f"a value of type {kind}")
        return None

    def _array(self) -> None:
        kind = self._number("<I")
        if kind == STRING:
            for _ in range(self._count("texts", 8)):
                self._pass_over("bytes of text", 1)
        elif kind in WIDTHS:
            self._pass_over("values", WIDTHS[kind])
        else:
            raise ValueError(f"an array of type {kind}")  # arrays of arrays are in no model

    def _tensor(self) -> int:
        """Skip a tensor; return its number of values."""
        self._text(MAX_NAME_BYTES)
        axes = self._number("<I")
        if axes > MAX_AXES:
            raise ValueError(f"a tensor of {axes} axes")
        shape = [self._number("<Q") for _ in range(axes)]
        self._number("<I")
        if (offset := self._number("<Q")) > len(self.data):
            raise ValueError(f"a tensor at byte {offset} of {len(self.data)}")
        return math.prod(shape)
