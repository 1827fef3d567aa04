"""A character map in SentencePiece's precompiled form, which `tokenizers.normalizers.Precompiled` reads.

The form: u32 bytes of the trie; the trie of the UTF-8 keys as a double array of u32 units (darts-clone), whose values are offsets
into the rest; the replacements, each ended by NUL.

A unit at position p has in bits 0 to 7 the byte that leads to it, in bit 8 whether a key ends here, and from bit 10 on p XOR b.
The unit of a next byte c is at b XOR c. If a key ends here, the unit at b has its value and bit 31.
"""

import struct
import sys
import unicodedata
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np

END = 0  # the byte after a key in the trie; NUL is in no key
CHUNK = 256  # units; a lookup stays within the chunk of b
MOST_UNITS = 1 << 21  # more need another form of offsets
IS_VALUE = 1 << 31
LOOKED_UP = 6  # bytes; tokenizers looks up a shorter cluster of characters as a whole, and others by character


def with_compositions(characters: Mapping[str, str]) -> dict[str, str]:
    """A map of single characters, and letters with marks by their decomposed form, as XLM-R's map has them (NFKC).

    Args:
        characters: replacement of each character.
    """
    found = dict(characters)
    for letter in map(chr, range(sys.maxunicode)):
        form = unicodedata.normalize("NFD", letter)
        composed = unicodedata.normalize("NFC", form) == letter  # some letters are decomposed for good
        if form != letter and composed and len(form.encode()) < LOOKED_UP:
            found[form] = characters.get(letter, letter)
    return found


def precompiled(replacements: Mapping[str, str]) -> bytes:
    """The precompiled form of a character map.

    Args:
        replacements: text without NUL by the text that it replaces; at least one.
    """
    offsets: dict[str, int] = {}
    texts = bytearray()
    for text in replacements.values():
        if text not in offsets:
            offsets[text] = len(texts)
            texts += text.encode() + b"\0"
    trie = _trie({key.encode(): offsets[text] for key, text in replacements.items()})
    units = double_array(trie).tobytes()
    return struct.pack("<I", len(units)) + units + bytes(texts)


def _trie(values: Mapping[bytes, int]) -> dict[int, Any]:
    root: dict[int, Any] = {}
    for key, value in values.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[END] = value
    return root


def double_array(trie: Mapping[int, Any]) -> np.ndarray:
    """A trie as units (N,), u32.

    Args:
        trie: next node by byte; the value of a key under `END`.
    """
    units = {0: 0}  # by position; 0 is reserved but not known yet
    bases = {0}  # SentencePiece takes a map whose first unit leads to itself for damaged
    starts: defaultdict[int, int] = defaultdict(int)
    waiting = deque([(0, 0, trie)])
    while waiting:
        position, byte, node = waiting.popleft()
        base = _free_base(sorted(node), units, bases, starts)
        bases.add(base)
        units[position] = byte | (END in node) << 8 | (position ^ base) << 10
        for label, below in node.items():
            units[base ^ label] = below | IS_VALUE if label == END else 0
            if label != END:
                waiting.append((base ^ label, label, below))
    count = -(-(max(units) + 1) // CHUNK) * CHUNK
    assert count <= MOST_UNITS  # a map of all of Unicode has fewer
    array = np.zeros(count, "<u4")
    array[list(units)] = list(units.values())
    return array


def _free_base(labels: list[int], units: Mapping[int, int], bases: set[int], starts: dict[int, int]) -> int:
    """A base that no other node has and at which all units of the labels are free.

    Args:
        labels: bytes of the next nodes, ascending.
        units: used positions.
        bases: used bases.
        starts: position from which to search, by the first label; all before it are used for good.
    """
    first = labels[0]
    while starts[first] in units or starts[first] ^ first in bases:
        starts[first] += 1
    position = starts[first]
    while True:
        base = position ^ first
        if base not in bases and not any(base ^ label in units for label in labels):
            return base
        position += 1
