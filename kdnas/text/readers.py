"""Iterate over the rows of text of any source: docstrings, local files, data sets on the hub."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kdnas.errors import KdnasError, UsageError
from kdnas.text.lines import MAX_LINE_BYTES, json_rows, text_lines, too_long
from kdnas.text.parquet import open_parquet, parquet_batches
from kdnas.text.pydocs import docstring_sentences
from kdnas.text.sources import sources_of

BUILTIN = "builtin:pydocs"
KINDS = (".jsonl", ".json", ".parquet", ".txt")


class TextRow(NamedTuple):
    """One sentence. All rows of a `group` go to the same split."""

    text: str
    topic: str
    group: str
    language: str = ""


@dataclass(frozen=True)
class TextOptions:
    """Options for reading a corpus.

    Args:
        column: column with the text, in JSONL, Parquet and hub data sets.
        topic: column with a class label of each text, for the topic task; by default there is no label (pydocs: the package).
        group: column that groups rows; all rows of a group go to the same split; by default each text is its own group
            (pydocs: the module).
        languages: languages to read, as values of `language_column`; null reads all rows.
        language_column: column with the language of each text, if there is one; int8 is calibrated on all languages.
        hub_config: configuration of a hub data set.
        hub_split: split of a hub data set.
        max_sentences: maximum number of unique sentences to read; null reads all.
        seq_len: maximum number of tokens in a sentence, with special tokens; longer sentences are truncated.
        passages: whether texts are whole documents, which are cut into passages of at most `seq_len` tokens at the ends of
            sentences; the passages of a document are a group.
        title: column with a title or a question of each text; it becomes a text before it, of the same group.
        validation_fraction: fraction of the groups that goes to validation.
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
    validation_fraction: float = 0.1
    passages: bool = False
    title: str | None = None

    @property
    def columns(self) -> list[str]:
        """Columns that every row must have."""
        language = self.language_column if self.languages else None
        return [name for name in (self.column, self.topic, self.group, self.title, language) if name]

    @property
    def deciding(self) -> dict[str, Any]:
        """The options for the key of a corpus; corpora of earlier versions, without passages and titles, keep their keys."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("passages", "title")}

    def __post_init__(self) -> None:
        if not 8 <= self.seq_len <= 512:
            raise UsageError(f"text.seq_len is {self.seq_len}; allowed are 8 to 512")
        if not 0 < self.validation_fraction < 1:
            raise UsageError(f"text.validation_fraction is {self.validation_fraction}; allowed is between 0 and 1")
        if self.languages is not None and not self.languages:
            raise UsageError("text.languages is empty; name at least one, or leave it out")
        if self.max_sentences is not None and self.max_sentences < 100:
            raise UsageError(f"text.max_sentences is {self.max_sentences}; at least 100 are needed")


def read_rows(source: str, text: TextOptions) -> Iterator[TextRow]:
    """Rows of any supported source, in its order; a folder is read file by file, several sources one after the other."""
    names = [Path(part) for part in sources_of(source)]
    if text.languages is not None and (source == BUILTIN or any(".txt" in name.suffixes for name in names)):
        raise UsageError(f"corpus '{source}': it has no language column; leave out text.languages")
    if source == BUILTIN and (text.passages or text.title):
        raise UsageError(
            f"corpus '{source}': its texts are sentences without titles; leave out text.passages and text.title"
        )
    if source == BUILTIN:
        return (TextRow(*row) for row in docstring_sentences())
    files: list[Path] = []
    for path in names:
        files += text_files(path) if path.is_dir() else [path] if path.is_file() else []
    return _chosen_rows(source, text, [(str(file), _file_rows(file, text)) for file in files])


def text_files(folder: Path) -> list[Path]:
    """The files of a folder that contain rows, sorted by name.

    Raises:
        UsageError: the folder has no such file.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and _kind_of(file) in KINDS)
    if not files:
        raise UsageError(f"corpus '{folder}': no file of this folder ends in {', '.join(KINDS)}, also with .gz or .zst")
    return files


def _kind_of(file: Path) -> str:
    return Path(file.name.removesuffix(".gz").removesuffix(".zst")).suffix


def _file_rows(file: Path, text: TextOptions) -> Iterator[dict[str, Any]]:
    kind = _kind_of(file)
    if kind in (".jsonl", ".json"):
        return (row for _, row in json_rows(file, f"corpus '{file}'"))
    if kind == ".parquet":
        return _parquet_rows(file, str(file), text)
    if kind == ".txt":
        return ({text.column: line} for _, line in text_lines(file, f"corpus '{file}'"))
    raise UsageError(f"corpus '{file}': unknown kind '{kind}'; give {', '.join(KINDS)}, also with .gz or .zst")


def _chosen_rows(
    source: str, text: TextOptions, parts: list[tuple[str, Iterator[dict[str, Any]]]]
) -> Iterator[TextRow]:
    """Rows of the wanted languages, from the files or, without files, from the hub."""
    seen: set[str] = set()
    for name, rows in parts or [(source, _hub_rows(source, text))]:
        yield from _table_rows(rows, name, text, seen)
    if absent := sorted(set(text.languages or ()) - seen):
        raise UsageError(
            f"corpus '{source}': no text of language {', '.join(absent)} in column '{text.language_column}'; it has "
            f"{', '.join(sorted(seen)[:40])}"
        )


def _table_rows(rows: Iterator[dict[str, Any]], source: str, text: TextOptions, seen: set[str]) -> Iterator[TextRow]:
    """Rows of the wanted languages; every language that occurs is added to `seen`."""
    wanted = text.columns
    for number, row in enumerate(rows, 1):
        missing = [name for name in wanted if name not in row]
        if missing:
            raise UsageError(
                f"corpus '{source}': row {number} has no column '{missing[0]}'; it has {', '.join(sorted(row))} "
                "(set --text.column, --text.topic, --text.group, --text.title or --text.language_column)"
            )
        language = str(row.get(text.language_column) or "")
        if text.languages:
            seen.add(language)
            if language not in text.languages:
                continue
        value = row[text.column]
        if not isinstance(value, str):
            raise UsageError(f"corpus '{source}': row {number}, column '{text.column}' is not text but {value!r:.60}")
        if len(value) > MAX_LINE_BYTES:  # from the hub; files are checked when they are read
            raise UsageError(f"corpus '{source}': row {number} is {too_long()}; cut its text into sentences")
        topic = str(row[text.topic]) if text.topic else ""
        group = str(row[text.group]) if text.group else " ".join(value.split()).lower()
        if text.title and isinstance(row[text.title], str):
            yield TextRow(row[text.title], topic, group, language)
        yield TextRow(value, topic, group, language)


def _parquet_rows(path: Path, source: str, text: TextOptions) -> Iterator[dict[str, Any]]:
    file = open_parquet(path, f"corpus '{source}'")
    there = set(file.schema_arrow.names)
    # If a column is missing, read all columns, because the error message lists them.
    wanted = sorted({*text.columns, text.language_column} & there) if set(text.columns) <= there else None
    number = 0
    for batch in parquet_batches(file, wanted):
        for row in batch:
            number += 1
            if row is None:
                raise UsageError(f"corpus '{source}': row {number} is {too_long()}; cut its text into sentences")
            yield row


def _hub_rows(source: str, text: TextOptions) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        if not constants.HF_HUB_OFFLINE:  # offline, a cached set may still load
            # Check once and fast: load_dataset would retry for half a minute and print each failure.
            HfApi().dataset_info(source, timeout=20)
        rows = load_dataset(source, text.hub_config, split=text.hub_split, streaming=True)
        yield from rows
    except (DatasetNotFoundError, RepositoryNotFoundError) as error:
        raise UsageError(f"corpus '{source}': no such local file and no such data set on the hub") from error
    except ValueError as error:  # unknown configuration or split; the message lists the valid ones
        raise UsageError(f"corpus '{source}': {error}") from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise UsageError(
            f"corpus '{source}': this data set is a loading script, which `datasets` no longer runs ({error}); download its "
            "Parquet files (branch refs/convert/parquet on the hub) and give their folder as --corpus"
        ) from error
    except OSError as error:
        raise KdnasError(
            f"corpus '{source}': no such local file, and the hub cannot be reached; check the network, "
            f"give a local file, or use '{BUILTIN}'"
        ) from error
