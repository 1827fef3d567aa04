"""Corpora: unique sentences, split into train and validation by group, tokenised once into memory-mapped arrays."""

import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact, build, find
from kdnas.store.digest import digest_of, file_sha256
from kdnas.store.progress import stage
from kdnas.text.passages import passage_rows
from kdnas.text.pydocs import installed_packages
from kdnas.text.readers import BUILTIN, TextOptions, TextRow, read_rows, text_files
from kdnas.text.sample import spread_rows, spread_sentences
from kdnas.text.seen import SeenHashes
from kdnas.text.sentences import Sentences
from kdnas.text.sources import is_local, sources_of, split_source

KIND = "corpus"
CHUNK = 4096  # rows tokenised at once
COPIED = 2**22  # token ids copied at once
UNKNOWN_FRACTION = 0.5  # maximum fraction of unknown tokens; English text has almost none
SPLITS = ("train", "validation")
COLUMNS = ("text", "topic", "group", "language")


@dataclass(frozen=True)
class Corpus:
    """A built corpus: its artifact and its two splits."""

    artifact: Artifact
    pad_id: int

    @property
    def train(self) -> Sentences:
        return Sentences(self.artifact.path, "train")

    @property
    def validation(self) -> Sentences:
        return Sentences(self.artifact.path, "validation")

    @property
    def digest(self) -> str:
        return self.artifact.digest

    @property
    def sampled(self) -> bool:
        """Whether the corpus is only a sample of its source."""
        return "sample" in self.artifact.manifest["config"]

    @property
    def name(self) -> str:
        """Name of the corpus in model cards: its source, without the folders of this host."""
        source = str(self.artifact.manifest["config"]["source"])
        return ", ".join(Path(part).name if Path(part).exists() else part for part in split_source(source))


def build_corpus(home: Path, source: str, text: TextOptions, teacher: Teacher) -> Corpus:
    """Read, de-duplicate, split and tokenise a corpus, or return the finished artifact.

    Args:
        home: root folder of all artifacts.
        source: `builtin:pydocs`, a local .jsonl/.json/.parquet/.txt file (also .gz, .zst), a folder of such files, several
            of both separated by commas, or a hub id (owner/name).
        text: options for reading the corpus.
        teacher: model whose tokenizer makes the ids.

    Raises:
        UsageError: the path is missing, a column is unknown, or the text is empty or not UTF-8.
        KdnasError: a hub id was given and the hub cannot be reached.
    """
    artifact = build(
        home,
        KIND,
        label_of(source),
        {"source": source, "text": text.deciding},
        inputs_of(source, teacher),
        lambda path: _work(path, source, text, teacher, _unique_rows(source, text, teacher)),
    )
    return Corpus(artifact, pad_id_of(teacher))


def sample_corpus(home: Path, source: str, text: TextOptions, teacher: Teacher, sentences: int) -> Corpus:
    """The whole corpus if it is already built for this tokenizer, else a deterministic sample of its sentences.

    A command that needs a few sentences thus tokenises only these. Docstrings come from as many files as needed, in the order
    of a hash. For other local sources all rows are read and those with the smallest hashes are used, so an order by language or
    topic does not bias the sample. For a hub data set the first rows are used.

    Args:
        home: root folder of all artifacts.
        source: as in `build_corpus`.
        text: options for reading the corpus.
        teacher: model whose tokenizer makes the ids.
        sentences: number of unique sentences in both splits together; each language has at least one.

    Raises:
        UsageError, KdnasError: as in `build_corpus`.
    """
    inputs, config = inputs_of(source, teacher), {"source": source, "text": text.deciding}
    whole = find(home, KIND, label_of(source), config, inputs)
    if whole is not None:
        return Corpus(whole, pad_id_of(teacher))
    if text.max_sentences is not None and text.max_sentences <= sentences:
        return build_corpus(home, source, text, teacher)
    artifact = build(
        home,
        KIND,
        label_of(source),
        {**config, "sample": sentences},
        inputs,
        lambda path: _work(path, source, text, teacher, _sampled_rows(source, text, teacher, sentences), sentences),
    )
    return Corpus(artifact, pad_id_of(teacher))


def sentences_needed(train: int, validation: int, validation_fraction: float) -> int:
    """Size of a sample whose splits have at least these numbers of sentences; 25 % are added because group sizes vary."""
    return math.ceil(1.25 * max(train / (1 - validation_fraction), validation / validation_fraction))


def _unique_rows(source: str, text: TextOptions, teacher: Teacher) -> Iterator[TextRow]:
    """The rows of a source, documents as passages, without repeated texts."""
    rows = read_rows(source, text)
    if text.passages:
        tokenizer = _tokenizer(teacher)
        tokenizer.no_truncation()
        rows = passage_rows(rows, tokenizer, text.seq_len, text.group is not None)
    return unique_rows(rows, source, text.max_sentences)


def _tokenizer(teacher: Teacher) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(teacher.path / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer


def _sampled_rows(source: str, text: TextOptions, teacher: Teacher, sentences: int) -> Iterator[TextRow]:
    if source == BUILTIN:
        return unique_rows(spread_sentences(), source, sentences)
    rows = _unique_rows(source, text, teacher)
    return spread_rows(rows, sentences) if is_local(source) else islice(rows, sentences)


def label_of(source: str) -> str:
    """Label at the start of the artifact's name."""
    parts = split_source(source)
    first = parts[0].replace(":", "/").rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    return first if len(parts) == 1 else f"{first}-and-{len(parts) - 1}"


def inputs_of(source: str, teacher: Teacher) -> dict[str, str]:
    """Digests that, with the settings, identify a corpus: its tokenizer and its texts."""
    return {"tokenizer": file_sha256(teacher.path / "tokenizer.json"), "source": source_digest(source)}


def pad_id_of(teacher: Teacher) -> int:
    """Token id of padding."""
    return int(teacher.config.get("pad_token_id") or 0)


def source_digest(source: str) -> str:
    """Identity of a source: a digest of its files, its hub id, or the installed packages for `builtin:pydocs`.

    Raises:
        UsageError: there is no such file or packaged corpus.
    """
    if source == BUILTIN:
        return json.dumps(installed_packages())
    if source.startswith("builtin:"):
        raise UsageError(f"corpus '{source}': the only packaged corpus is '{BUILTIN}'")
    if len(parts := sources_of(source)) > 1:
        return digest_of([source_digest(part) for part in parts])
    path = Path(source)
    if path.is_file():
        return file_sha256(path)
    if path.is_dir():
        return digest_of({file.name: file_sha256(file) for file in text_files(path)})
    if source.startswith((".", "/", "~")) or source.count("/") != 1 or path.suffix:
        raise UsageError(f"corpus '{source}': no such file; give a file, a hub id (owner/name) or '{BUILTIN}'")
    return source


def _work(
    path: Path, source: str, text: TextOptions, teacher: Teacher, rows: Iterator[TextRow], total: int | None = None
) -> dict[str, Any]:
    tokenizer = _tokenizer(teacher)
    tokenizer.enable_truncation(text.seq_len)
    splits = {name: _Split(path, name) for name in SPLITS}
    with stage("corpus: tokenise", total or text.max_sentences) as progress:
        for chunk in iter(lambda: list(islice(rows, CHUNK)), []):
            encodings = tokenizer.encode_batch_fast([row.text for row in chunk])
            indices: dict[str, list[int]] = {name: [] for name in SPLITS}
            for index, row in enumerate(chunk):
                indices[split_of(row, text.validation_fraction)].append(index)
            for name, split in splits.items():
                split.add([chunk[index] for index in indices[name]], [encodings[index].ids for index in indices[name]])
            progress.advance(len(chunk))
    for split in splits.values():
        split.close()
    count = sum(len(split) for split in splits.values())
    if not all(map(len, splits.values())):
        raise UsageError(f"corpus '{source}': {count} unique sentences are too few to split; give at least 100")
    results: dict[str, Any] = {"sentences": count}
    for name, split in splits.items():
        results |= {f"{name}_sentences": len(split), f"{name}_tokens": split.tokens}
    if (languages := Sentences(path, "train").language_counts).keys() != {""}:
        results["train_languages"] = languages
    results["unknown_fraction"] = unknown_fraction(path, tokenizer)
    if results["unknown_fraction"] > UNKNOWN_FRACTION:
        raise UsageError(
            f"corpus '{source}': {100 * results['unknown_fraction']:.0f} % of its tokens are unknown to the tokenizer of "
            f"'{teacher.spec}'; at most {100 * UNKNOWN_FRACTION:.0f} % are allowed; use a tokenizer that covers its script"
        )
    return results


def unknown_fraction(path: Path, tokenizer: Any) -> float:
    """Fraction of unknown tokens among the training tokens, without special tokens."""
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    names = ("[UNK]", "<unk>")
    unknown = {number for name in names if (number := tokenizer.token_to_id(name)) is not None}
    tokens = np.load(path / "train.tokens.npy", mmap_mode="r")
    counts = np.zeros(int(tokens.max(initial=-1)) + 1, dtype=np.int64)
    for start in range(0, len(tokens), COPIED):  # bincount copies its input to 8 bytes per token
        counts += np.bincount(tokens[start : start + COPIED], minlength=len(counts))
    known = sum(int(count) for number, count in enumerate(counts) if number not in special | unknown)
    missed = sum(int(counts[number]) for number in unknown if number < len(counts))
    return round(missed / max(1, known + missed), 4)


class _Split:
    """Files of one split, written in chunks. Memory holds one chunk of texts and 8 bytes per sentence."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._raw = (path / f"{name}.tokens.raw").open("wb")
        self._lengths = array("i")
        self._table: Any = None
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, rows: Sequence[TextRow], ids: Sequence[Sequence[int]]) -> None:
        """Append rows and their token ids."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not rows:
            return
        columns = {column: [getattr(row, column) for row in rows] for column in COLUMNS}
        table = pa.table(columns, schema=pa.schema([(column, pa.string()) for column in COLUMNS]))
        if self._table is None:
            self._table = pq.ParquetWriter(self._path / f"{self._name}.parquet", table.schema, compression="zstd")
        self._table.write_table(table)
        for row in ids:
            array("i", row).tofile(self._raw)
            self._lengths.append(len(row))
            self.tokens += len(row)

    def close(self) -> None:
        """Finish the files; the token ids become one array that can be memory-mapped."""
        self._raw.close()
        raw = self._path / f"{self._name}.tokens.raw"
        if self._table is not None:
            self._table.close()
            final = np.lib.format.open_memmap(
                self._path / f"{self._name}.tokens.npy", "w+", dtype=np.int32, shape=(self.tokens,)
            )
            for start in range(0, self.tokens, COPIED):
                part = np.fromfile(raw, np.int32, min(COPIED, self.tokens - start), offset=4 * start)
                final[start : start + len(part)] = part
            final.flush()
            offsets = np.concatenate([[0], np.cumsum(np.frombuffer(self._lengths, np.int32), dtype=np.int64)])
            np.save(self._path / f"{self._name}.offsets.npy", offsets)
        raw.unlink()


def unique_rows(rows: Iterable[TextRow], source: str, limit: int | None) -> Iterator[TextRow]:
    """The rows without repeated texts, in order. Texts that differ only in case and white space are equal; the first is kept.

    Texts are compared by 8 bytes of their hash, which take 12 to 24 bytes of memory each (`SeenHashes`). With ten million
    texts, the probability of a false repetition is 1 in 400,000.

    Raises:
        UsageError: there is no sentence.
    """
    seen = SeenHashes()
    for row in rows:
        if limit is not None and len(seen) >= limit:
            break
        text = " ".join(row.text.split())
        digest = hashlib.sha256(text.lower().encode("utf-8", "surrogatepass")).digest()
        if text and seen.add(int.from_bytes(digest[:8], "big")):
            yield row._replace(text=text)
    if not len(seen):
        raise UsageError(f"corpus '{source}': it is empty; give one with at least 100 sentences")


def split_of(row: TextRow, validation_fraction: float) -> str:
    """The split, train or validation, of a row by the hash of its group: stable, and no group is in both."""
    index = int.from_bytes(hashlib.sha256(row.group.encode()).digest()[:8], "big") / 2**64
    return "validation" if index < validation_fraction else "train"
