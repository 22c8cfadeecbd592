"""Reading a matrix out of a struct in a MATLAB 5 file, whatever its bytes are.

The format is public (MathWorks, MAT-File Format, level 5): elements of a type, a length and bytes; an array is an
element that holds flags, shape, name and content as elements. Only what SBD's files need is read; general readers run
compiled code that some damaged files crash.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER = 128
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 12: "i8", 13: "u8"}
STRUCT, INTEGERS = 2, range(8, 16)  # classes of arrays


class Element(NamedTuple):
    kind: int
    body: memoryview


class Array(NamedTuple):
    """An array of the file: its class, its shape, its name, and the elements of its content."""

    kind: int
    shape: tuple[int, ...]
    name: str
    content: list[Element]


def read_field(data: bytes, variable: str, field: str, limit: int) -> NDArray[Any]:
    """Return a matrix of whole numbers, a field of a struct 1 x 1.

    Args:
        limit: bytes that the file's elements may unpack to.

    Raises:
        ValueError: that says why it can't be read.
    """
    if len(data) < HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("no MATLAB 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    for element in _unpacked(_elements(memoryview(data)[HEADER:], order), order, limit):
        if element.kind == MATRIX and (array := _array(element, order)).name == variable:
            return _matrix(_array(_field(array, field, order), order), order)
    raise ValueError(f"there is no variable {variable}")


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("an element is cut off")
        kind, length = struct.unpack_from(f"{order}II", data, place)
        start, end = place + 8, place + 8 + length + (-length % 8 if kind != COMPRESSED else 0)
        if kind >> 16:  # a small element has its length in the upper half, and up to four bytes in the tag itself
            kind, length, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        if start + length > min(end, len(data)):
            raise ValueError("an element is cut off")
        yield Element(kind, data[start : start + length])
        place = end


def _unpacked(elements: Iterator[Element], order: str, limit: int) -> Iterator[Element]:
    for element in elements:
        if element.kind != COMPRESSED:
            yield element
            continue
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(element.body, limit)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        limit -= len(content)
        if not inflater.eof or limit <= 0:
            raise ValueError("an element is cut off, or larger than it may be")
        yield from _elements(memoryview(content), order)


def _array(element: Element, order: str) -> Array:
    parts = list(_elements(element.body, order))
    if [part.kind for part in parts[:3]] != [UINT32, INT32, INT8] or len(parts[0].body) != 8:
        raise ValueError("an array has no flags, shape and name")
    flags, _ = struct.unpack(f"{order}II", parts[0].body)
    shape = tuple(int(side) for side in np.frombuffer(parts[1].body, f"{order}i4"))
    return Array(flags & 0xFF, shape, bytes(parts[2].body).decode("latin-1"), parts[3:])


def _field(array: Array, field: str, order: str) -> Element:
    kinds = [part.kind for part in array.content]
    if array.kind != STRUCT or array.shape != (1, 1) or kinds[:2] != [INT32, INT8] or len(array.content[0].body) != 4:
        raise ValueError(f"{array.name} is no struct")
    (width,) = struct.unpack(f"{order}i", array.content[0].body)
    texts = bytes(array.content[1].body)
    if width < 1 or len(texts) % width or len(texts) // width != len(kinds) - 2:
        raise ValueError(f"{array.name} has not as many fields as names")
    names = [texts[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(texts), width)]
    if field not in names:
        raise ValueError(f"{array.name} has no field {field}")
    return array.content[2 + names.index(field)]


def _matrix(array: Array, order: str) -> NDArray[Any]:
    if array.kind not in INTEGERS or len(array.shape) != 2 or not array.content or array.content[0].kind not in NUMBERS:
        raise ValueError("no matrix of whole numbers")
    values = np.frombuffer(array.content[0].body, f"{order}{NUMBERS[array.content[0].kind]}")
    if min(array.shape) < 1 or array.shape[0] * array.shape[1] != len(values):
        raise ValueError(f"a matrix {array.shape[0]} x {array.shape[1]} of {len(values)} numbers")
    return values.reshape(array.shape, order="F")
