"""`builtin:pydocs`: sentences in the docstrings of the installed Python packages, read with `ast` without importing them."""

import ast
import inspect
import os
import platform
import re
import signal
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import metadata
from pathlib import Path

from kdnas.processes import SIGNALS, leave_signals_to_the_parent
from kdnas.store.host import physical_cores

STANDARD_LIBRARY = "python"
FILES_AT_ONCE = 64  # files that a worker reads in one task

# Sections of numpy, Google and Sphinx docstrings, which have names, types and code instead of prose.
SECTION = re.compile(
    r"^\s*(Parameters|Returns?|Yields?|Raises|Attributes|Examples?|References|See Also|Args|Arguments|Keyword Args"
    r"|Shape|Usage|Methods|Other Parameters|Warns|Inputs?|Outputs?)\s*:{0,2}\s*$"
)
NOTES = re.compile(r"^\s*(Notes?|Warnings?|Description)\s*:{0,2}\s*$")
NOT_PROSE = re.compile(r">>>|::|[{}\\|<>=]|\w\(|https?:|\.\.\s|^\s*[:*+\-#@$]|^\s*\d+[.)]")
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|al|Fig|Eq|Dr|Mr|No|[A-Z]))\.$")
BOUNDARY = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
MARKUP = re.compile(r":\w+:`~?([^`<]*)(?:<[^>]*>)?`|`{1,2}([^`]*)`{1,2}_?|\*{1,2}([^*\s][^*]*)\*{1,2}")


@cache
def installed_packages() -> dict[str, str]:
    """Versions of Python and the packages of site-packages by name, as of the first call; they identify this corpus on a host."""
    root = Path(sysconfig.get_paths()["purelib"])
    found = {STANDARD_LIBRARY: platform.python_version()}
    for name, distributions in metadata.packages_distributions().items():
        if name.isidentifier() and not name.startswith("_") and (root / name).is_dir():
            found[name] = metadata.version(distributions[0])
    return dict(sorted(found.items()))


def docstring_sentences(files: Sequence[tuple[Path, str, str]] | None = None) -> Iterator[tuple[str, str, str]]:
    """Yield (sentence, package, module) in a stable order; the sentences are not yet de-duplicated.

    Args:
        files: (file, package, module) of the files to read, in this order; by default all `source_files`. Reading stops when
            the caller takes no more sentences.
    """
    chunk = FILES_AT_ONCE if files is None else 8  # given files: the caller may stop early, so read few in advance
    files = list(source_files()) if files is None else files
    pool = ProcessPoolExecutor(physical_cores(), initializer=leave_signals_to_the_parent)
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the workers start here and inherit this mask
        try:
            results = pool.map(sentences_of_file, *zip(*files, strict=True), chunksize=chunk)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for rows in results:
            yield from rows
    finally:
        pool.shutdown(cancel_futures=True)  # otherwise all files would be read, even if few sentences were taken


def source_files() -> Iterator[tuple[Path, str, str]]:
    """(file, package, module) of every source file, sorted within each package; of the standard library without its tests."""
    site, standard = sysconfig.get_paths()["purelib"], sysconfig.get_paths()["stdlib"]
    for package in installed_packages():
        if package == STANDARD_LIBRARY:
            root, found = standard, _modules_below(standard, skip=("site-packages", "test", "tests"))
        else:
            root, found = site, [(package, *parts) for parts in _modules_below(os.path.join(site, package))]
        for parts in found:
            yield Path(root, *parts), package, ".".join(parts)[: -len(".py")].removesuffix(".__init__")


def _modules_below(root: str, skip: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Path parts below a folder of its .py files, sorted; `os.walk` takes a third of the time of `Path.rglob`."""
    found = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in skip]
        parts = () if folder == root else tuple(os.path.relpath(folder, root).split(os.sep))
        found += [(*parts, name) for name in names if name.endswith(".py") and name[:-3] not in skip]
    return sorted(found)


def sentences_of_file(file: Path, package: str, module: str) -> list[tuple[str, str, str]]:
    """(sentence, package, module) of every docstring in one source file; none if the file does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [(sentence, package, module) for text in docstrings_of(tree) for sentence in sentences_of(text)]


def docstrings_of(node: ast.AST) -> Iterator[str]:
    """Docstrings of a module and of all classes and functions in it; expressions are not searched."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield text
    for block in ("body", "orelse", "handlers", "finalbody"):
        for child in getattr(node, block, ()):
            if not isinstance(child, ast.expr):
                yield from docstrings_of(child)


def sentences_of(docstring: str) -> list[str]:
    """Prose sentences of one docstring, as `is_sentence` defines them."""
    prose: list[str] = []
    skipping = False
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = paragraph.splitlines()
        if lines and NOTES.match(lines[0]):
            skipping, lines = False, [line for line in lines[1:] if set(line.strip()) - set("-=~")]
        section = next((index for index, line in enumerate(lines) if SECTION.match(line)), None)
        if not skipping:
            prose.append(" ".join(lines[:section]))
        skipping = skipping or section is not None
    return [s for text in prose for s in split_sentences(text) if is_sentence(s)]


def split_sentences(text: str) -> list[str]:
    """Split at sentence ends, except after common abbreviations; collapses white space and removes markup."""
    text = MARKUP.sub(lambda match: next(group for group in match.groups() if group is not None), text)
    parts: list[str] = []
    for part in BOUNDARY.split(" ".join(text.split())):
        if parts and ABBREVIATION.search(parts[-1]):
            parts[-1] += " " + part
        else:
            parts.append(part)
    return parts


def is_sentence(text: str) -> bool:
    """Whether a text is an English sentence, not code, a table or a heading: 20 to 400 ASCII characters, at least 4 words."""
    if not 20 <= len(text) <= 400 or not text[0].isupper() or text[-1] not in ".!?" or text.count(" ") < 3:
        return False
    letters = sum(character.isalpha() or character == " " for character in text)
    return text.isascii() and letters >= 0.85 * len(text) and not NOT_PROSE.search(text)
