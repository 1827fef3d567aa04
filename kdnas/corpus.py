"""Corpora: unique sentences, split into train and validation by group, tokenised once into memory-mapped arrays."""

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdnas.artifact import Artifact, build, file_sha256
from kdnas.docstrings import docstring_sentences, installed_packages
from kdnas.errors import KdnasError, UsageError
from kdnas.progress import stage
from kdnas.sentences import Sentences
from kdnas.teacher import Teacher

BUILTIN = "builtin:pydocs"
UNKNOWN_SHARE = 0.5  # of the tokens; English text has next to none
SPLITS = ("train", "validation")
COLUMNS = ("text", "topic", "group", "language")


class Row(NamedTuple):
    """One sentence; `group` decides its split, so that what belongs together stays together."""

    text: str
    topic: str
    group: str
    language: str = ""


@dataclass(frozen=True)
class TextOptions:
    """How a corpus is read.

    Args:
        column: column of the text in JSONL, Parquet and hub sets.
        topic: column with a class label of each text, for the topic task; none by default (pydocs: the package).
        group: column whose equal values stay in one split (pydocs: the module); by default each text for itself.
        languages: read only rows whose `language_column` is one of these; null reads all.
        language_column: column with the language of each text, where there is one: int8 is calibrated on all of them.
        hub_config: configuration of a hub data set.
        hub_split: split of a hub data set.
        max_sentences: read no more than this many unique sentences; null reads all.
        seq_len: tokens a sentence, special tokens included; longer ones are cut.
        validation_share: share of the groups that goes to validation.
    """

    column: str = "text"
    topic: str | None = None
    group: str | None = None
    languages: tuple[str, ...] | None = None
    language_column: str = "lang"
    hub_config: str | None = None
    hub_split: str = "train"
    max_sentences: int | None = None
    seq_len: int = 128
    validation_share: float = 0.1

    @property
    def columns(self) -> list[str]:
        """Columns that must be there."""
        language = self.language_column if self.languages else None
        return [name for name in (self.column, self.topic, self.group, language) if name]

    def __post_init__(self) -> None:
        if not 8 <= self.seq_len <= 512:
            raise UsageError(f"text.seq_len is {self.seq_len}; allowed are 8 to 512")
        if not 0 < self.validation_share < 1:
            raise UsageError(f"text.validation_share is {self.validation_share}; allowed is between 0 and 1")
        if self.languages is not None and not self.languages:
            raise UsageError("text.languages is empty; name at least one, or leave it out")
        if self.max_sentences is not None and self.max_sentences < 100:
            raise UsageError(f"text.max_sentences is {self.max_sentences}; at least 100 are needed")


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


def build_corpus(home: Path, source: str, text: TextOptions, teacher: Teacher) -> Corpus:
    """Read, de-duplicate, split and tokenise a corpus, or return the cached one.

    Args:
        home: root of artifacts.
        source: `builtin:pydocs`, a local .jsonl/.json/.parquet/.txt file (also .gz, .zst), or a hub id (owner/name).
        text: how to read it.
        teacher: its tokenizer makes the ids.

    Raises:
        UsageError: missing path, unknown column, empty or not UTF-8.
        KdnasError: a hub id was given and the hub cannot be reached.
    """
    inputs = {"teacher": teacher.digest, "source": _source_digest(source)}
    label = source.replace(":", "/").rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    config = {"source": source, "text": text}
    artifact = build(home, "corpus", label, config, inputs, lambda path: _work(path, source, text, teacher))
    return Corpus(artifact, int(artifact.results["pad_id"]))


def _source_digest(source: str) -> str:
    if source == BUILTIN:
        return json.dumps(installed_packages())
    if source.startswith("builtin:"):
        raise UsageError(f"corpus '{source}': the only packaged corpus is '{BUILTIN}'")
    path = Path(source)
    if path.is_file():
        return file_sha256(path)
    if path.is_dir():
        raise UsageError(f"corpus '{source}': this is a folder; give one .jsonl, .parquet or .txt file")
    if source.startswith((".", "/", "~")) or source.count("/") != 1 or path.suffix:
        raise UsageError(f"corpus '{source}': no such file; give a file, a hub id (owner/name) or '{BUILTIN}'")
    return source


def _work(path: Path, source: str, text: TextOptions, teacher: Teacher) -> dict[str, Any]:
    from tokenizers import Tokenizer

    rows = unique_rows(read_rows(source, text), source, text.max_sentences)
    splits = split_rows(rows, text.validation_share)
    if not all(splits.values()):
        raise UsageError(f"corpus '{source}': {len(rows)} unique sentences are too few to split; give at least 100")
    tokenizer = Tokenizer.from_file(str(teacher.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(text.seq_len)
    results: dict[str, Any] = {"sentences": len(rows), "pad_id": int(teacher.config.get("pad_token_id") or 0)}
    with stage("corpus: tokenise", len(rows)) as progress:
        for name in SPLITS:
            results[f"{name}_sentences"] = len(splits[name])
            results[f"{name}_tokens"] = _write_split(path, name, splits[name], tokenizer, progress.advance)
    results["unknown_share"] = unknown_share(path, tokenizer)
    if results["unknown_share"] > UNKNOWN_SHARE:
        raise UsageError(
            f"corpus '{source}': {100 * results['unknown_share']:.0f} % of its tokens are unknown to the tokenizer of "
            f"'{teacher.spec}', up to {100 * UNKNOWN_SHARE:.0f} % are allowed; take a tokenizer that knows its script"
        )
    return results


def unknown_share(path: Path, tokenizer: Any) -> float:
    """Share of the training tokens, special ones left out, that stand for what the tokenizer does not know."""
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    names = ("[UNK]", "<unk>")
    unknown = {number for name in names if (number := tokenizer.token_to_id(name)) is not None}
    counts = np.bincount(np.load(path / "train.tokens.npy", mmap_mode="r"))
    known = sum(int(count) for number, count in enumerate(counts) if number not in special | unknown)
    missed = sum(int(counts[number]) for number in unknown if number < len(counts))
    return round(missed / max(1, known + missed), 4)


def _write_split(path: Path, name: str, rows: list[Row], tokenizer: Any, advance: Callable[[float], None]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pieces, lengths = [], []
    for start in range(0, len(rows), 4096):
        chunk = rows[start : start + 4096]
        for encoding in tokenizer.encode_batch_fast([row.text for row in chunk]):
            pieces.append(np.asarray(encoding.ids, dtype=np.int32))
            lengths.append(len(encoding.ids))
        advance(len(chunk))
    np.save(path / f"{name}.tokens.npy", np.concatenate(pieces))
    np.save(path / f"{name}.offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    columns = {column: [getattr(row, column) for row in rows] for column in COLUMNS}
    pq.write_table(pa.table(columns), path / f"{name}.parquet", compression="zstd")
    return int(sum(lengths))


def unique_rows(rows: Iterator[Row], source: str, limit: int | None) -> list[Row]:
    """The first of each set of rows whose texts are equal but for case and white space, in order.

    Raises:
        UsageError: not one sentence.
    """
    seen: dict[str, Row] = {}
    for row in rows:
        text = " ".join(row.text.split())
        if text:
            seen.setdefault(text.lower(), row._replace(text=text))
        if limit is not None and len(seen) >= limit:
            break
    if not seen:
        raise UsageError(f"corpus '{source}': it is empty; give one with at least 100 sentences")
    return list(seen.values())


def split_rows(rows: list[Row], validation_share: float) -> dict[str, list[Row]]:
    """Train and validation by the hash of each row's group: stable for ever, no group in both."""
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in rows:
        place = int.from_bytes(hashlib.sha256(row.group.encode()).digest()[:8], "big") / 2**64
        splits["validation" if place < validation_share else "train"].append(row)
    return splits


def read_rows(source: str, text: TextOptions) -> Iterator[Row]:
    """Rows of any supported source, in its order."""
    if text.languages is not None and (source == BUILTIN or ".txt" in Path(source).suffixes):
        raise UsageError(f"corpus '{source}': it does not say its texts' languages; leave out text.languages")
    if source == BUILTIN:
        return (Row(*row) for row in docstring_sentences())
    path = Path(source)
    if not path.is_file():
        return _table_rows(_hub_rows(source, text), source, text)
    suffix = Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix
    if suffix in (".jsonl", ".json"):
        return _table_rows(_json_rows(path), source, text)
    if suffix == ".parquet":
        return _table_rows(_parquet_rows(path, source, text), source, text)
    if suffix == ".txt":
        return (Row(line, "", line.strip().lower()) for line in _lines(path))
    raise UsageError(
        f"corpus '{source}': unknown kind '{suffix}'; give .jsonl, .parquet or .txt, also with .gz or .zst"
    )


def _table_rows(rows: Iterator[dict[str, Any]], source: str, text: TextOptions) -> Iterator[Row]:
    wanted = text.columns
    languages = set(text.languages or ())
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        missing = [name for name in wanted if name not in row]
        if missing:
            raise UsageError(
                f"corpus '{source}': row {number} has no column '{missing[0]}'; it has {', '.join(sorted(row))} "
                "(set --text.column, --text.topic, --text.group or --text.language_column)"
            )
        language = str(row.get(text.language_column) or "")
        if languages:
            seen.add(language)
            if language not in languages:
                continue
        value = row[text.column]
        if not isinstance(value, str):
            raise UsageError(f"corpus '{source}': row {number}, column '{text.column}' is not text but {value!r:.60}")
        topic = str(row[text.topic]) if text.topic else ""
        group = str(row[text.group]) if text.group else " ".join(value.split()).lower()
        yield Row(value, topic, group, language)
    if absent := sorted(languages - seen):
        raise UsageError(
            f"corpus '{source}': no text of language {', '.join(absent)} in column '{text.language_column}'; it has "
            f"{', '.join(sorted(seen)[:40])}"
        )


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"corpus '{path}': line {number} is not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise UsageError(f"corpus '{path}': line {number} is not a JSON object")
        yield row


def _parquet_rows(path: Path, source: str, text: TextOptions) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UsageError(f"corpus '{source}': not a Parquet file ({error})") from error
    there = set(file.schema_arrow.names)
    # Where one is missing all are read, for the message that follows says what there is.
    wanted = sorted({*text.columns, text.language_column} & there) if set(text.columns) <= there else None
    for batch in file.iter_batches(columns=wanted):
        yield from batch.to_pylist()


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, plain, .gz or .zst, without empty ones.

    Raises:
        UsageError: not UTF-8, or a damaged archive.
    """
    import zstandard

    number = 0
    try:
        with path.open("rb") as raw:
            stream: Any = raw
            if path.suffix == ".gz":
                stream = gzip.GzipFile(fileobj=raw)
            elif path.suffix == ".zst":
                stream = zstandard.ZstdDecompressor().stream_reader(raw)
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                number += 1
                if line.strip():
                    yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"corpus '{path}': not UTF-8 near line {number + 1} ({error.reason}); convert it first"
        ) from error
    except (gzip.BadGzipFile, EOFError, zstandard.ZstdError) as error:
        raise UsageError(f"corpus '{path}': damaged archive after line {number} ({error})") from error


def _hub_rows(source: str, text: TextOptions) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        if not constants.HF_HUB_OFFLINE:  # offline, a cached set may still load
            # One quick try: load_dataset would retry, noisily, for half a minute.
            HfApi().dataset_info(source, timeout=20)
        rows = load_dataset(source, text.hub_config, split=text.hub_split, streaming=True)
        yield from rows
    except (DatasetNotFoundError, RepositoryNotFoundError) as error:
        raise UsageError(f"corpus '{source}': no such file here and no such data set on the hub") from error
    except ValueError as error:  # unknown configuration or split; the message lists the valid ones
        raise UsageError(f"corpus '{source}': {error}") from error
    except OSError as error:
        raise KdnasError(
            f"corpus '{source}': no such file here, and the hub cannot be reached; check the network, "
            f"give a local file, or use '{BUILTIN}'"
        ) from error
