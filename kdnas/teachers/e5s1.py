"""Reads an E5S1 file: a BERT encoder with its Unigram tokenizer in one file, matrices in 4-bit blocks.

The layout, little-endian and without gaps up to the tensors' data:

- `E5S1`, u32 version (1);
- i32 hidden, layers, heads, feed-forward size, vocabulary rows, positions, token types; f32 epsilon; i32 block size (32);
- i32 pieces, bos, eos, pad, unk; u64 bytes of text; u32 offsets (pieces + 1); f32 scores (pieces); the text (UTF-8);
- i32 entries, u32 bytes of the character map; each entry u32 code point, u8 n, n u32 code points of its replacement;
- i32 tensors; each u16 length and name, u8 kind, u32 values, u64 offset from the start of the file, u64 bytes.

Kind 0 is f32. Kind 1 is Q4_0: blocks of 18 bytes for 32 values, an f16 scale d and 16 bytes, whose low nibbles are values 0 to
15 and whose high nibbles are values 16 to 31, each (nibble - 8) d. Matrices are rows of outputs, as in PyTorch.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from kdnas.errors import KdnasError

MAGIC, VERSION, BLOCK = b"E5S1", 1, 32
F32, Q4_0 = 0, 1
BLOCKS = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])


@dataclass(frozen=True)
class Sizes:
    """Sizes of the encoder, in the order of the file."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    rows: int
    positions: int
    types: int


@dataclass(frozen=True)
class Pieces:
    """The Unigram vocabulary.

    Args:
        pieces: text of each piece, by its id.
        scores: log probabilities (pieces,), f32.
        bos: id of the token before a text.
        eos: id of the token after a text.
        pad: id of padding.
        unk: id of unknown characters.
    """

    pieces: list[str]
    scores: np.ndarray
    bos: int
    eos: int
    pad: int
    unk: int


@dataclass(frozen=True)
class _Stored:
    kind: int
    values: int
    start: int
    size: int


class E5S1:
    """An opened file: sizes, vocabulary, character map, and weights on request.

    Args:
        data: content of the file, for example a memory map.
        name: name of the file in error messages.

    Raises:
        KdnasError: the content is not an E5S1 file, is cut off, or contradicts itself.
    """

    def __init__(self, data: Any, name: str) -> None:
        self._data, self._name, self._at = memoryview(data), name, 0
        if self._bytes(4) != MAGIC:
            raise self._damaged("it does not begin with 'E5S1'")
        if (version := self._take("<I")[0]) != VERSION:
            raise self._damaged(f"version {version}, this version of kdnas reads {VERSION}")
        self.sizes = Sizes(*self._take("<7i"))
        # The shortest decimal of the f32: 1e-12, not 9.999999960041972e-13.
        self.epsilon = float(str(np.float32(self._take("<f")[0])))
        if (block := self._take("<i")[0]) != BLOCK:
            raise self._damaged(f"blocks of {block} values; {BLOCK} are supported")
        self.vocabulary = self._pieces()
        self.characters = self._characters()
        self._stored = self._directory()

    def weight(self, name: str, *shape: int) -> np.ndarray:
        """One tensor in f32, dequantised if it is stored in blocks.

        Args:
            name: name in the file, such as `l0.q.w`.
            shape: expected shape.

        Raises:
            KdnasError: there is no such tensor, or it has another number of values.
        """
        stored = self._stored.get(name)
        if stored is None:
            raise self._damaged(f"there is no tensor '{name}'")
        if stored.values != int(np.prod(shape)):
            raise self._damaged(f"tensor '{name}' has {stored.values} values, not {' x '.join(map(str, shape))}")
        data = self._data[stored.start : stored.start + stored.size]
        if stored.kind == F32:
            return np.frombuffer(data, "<f4").reshape(shape)
        return dequantised(np.frombuffer(data, BLOCKS)).reshape(shape)

    def _damaged(self, reason: str) -> KdnasError:
        return KdnasError(f"{self._name}: not a whole E5S1 file ({reason})")

    def _bytes(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise self._damaged(f"it ends after {len(self._data):,} bytes")
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def _take(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))

    def _array(self, kind: str, count: int) -> np.ndarray:
        return np.frombuffer(self._bytes(np.dtype(kind).itemsize * count), kind)

    def _pieces(self) -> Pieces:
        count, bos, eos, pad, unk = self._take("<5i")
        size = self._take("<Q")[0]
        offsets = self._array("<u4", count + 1).tolist()
        scores = self._array("<f4", count)
        text = self._bytes(size)
        if count < 1 or offsets != sorted(offsets) or offsets[0] != 0 or offsets[-1] != size:
            raise self._damaged("the offsets of the pieces do not fit their text")
        if not all(0 <= special < count for special in (bos, eos, pad, unk)):
            raise self._damaged(f"special tokens {bos}, {eos}, {pad}, {unk} of {count} pieces")
        try:
            pieces = [text[start:end].decode() for start, end in pairwise(offsets)]
        except UnicodeDecodeError as error:
            raise self._damaged("a piece is not UTF-8") from error
        return Pieces(pieces, scores, bos, eos, pad, unk)

    def _characters(self) -> dict[str, str]:
        """Replacement of each character that the normaliser changes; it may be empty or several characters long."""
        count, size = self._take("<iI")
        end, found = self._at + size, {}
        for _ in range(count):
            point, length = self._take("<IB")
            try:
                new = "".join(map(chr, self._take(f"<{length}I")))
                (chr(point) + new).encode()  # raises for surrogates
                found[chr(point)] = new
            except (ValueError, OverflowError) as error:
                raise self._damaged(f"code point {point:#x} of the character map is not Unicode") from error
        if self._at != end or len(found) != count:
            raise self._damaged("the character map has another size than it states")
        return found

    def _directory(self) -> dict[str, _Stored]:
        found = {}
        for _ in range(self._take("<i")[0]):
            name = self._bytes(self._take("<H")[0]).decode("utf-8", "replace")
            stored = _Stored(*self._take("<BIQQ"))
            whole = {F32: 4 * stored.values, Q4_0: stored.values // BLOCK * BLOCKS.itemsize}.get(stored.kind)
            if stored.size != whole or (stored.kind == Q4_0 and stored.values % BLOCK):
                raise self._damaged(
                    f"tensor '{name}': {stored.size} bytes for {stored.values} values of kind {stored.kind}"
                )
            if stored.start + stored.size > len(self._data):
                raise self._damaged(f"it ends inside tensor '{name}'")
            found[name] = stored
        return found


def dequantised(blocks: np.ndarray) -> np.ndarray:
    """The f32 values (blocks, 32) of Q4_0 blocks of dtype `BLOCKS`."""
    values = np.empty((len(blocks), BLOCK), np.float32)
    np.subtract(blocks["nibbles"] & 15, np.float32(8), out=values[:, : BLOCK // 2])
    np.subtract(blocks["nibbles"] >> 4, np.float32(8), out=values[:, BLOCK // 2 :])
    values *= blocks["scale"].astype(np.float32)[:, None]
    return values
