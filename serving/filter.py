"""`kdnas filter`: score documents with an exported classifier and split them into kept and dropped. It resumes by shards."""

import errno
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kdnas.errors import KdnasError, UsageError
from kdnas.export.session import BATCH_TOKENS
from kdnas.serving.documents import Document, Source, find_source, quarantined, read_documents
from kdnas.serving.predictor import Predictor, Windower
from kdnas.serving.shards import FilteredDocument, FilterRun, flagged, open_run
from kdnas.store.artifact import MANIFEST, Artifact, digest_of, file_sha256
from kdnas.store.host import default_threads
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say, stage

QUARANTINED_EXIT = 4
# A shard also ends at this many bytes of text, so that memory stays bounded with long documents.
SHARD_BYTES = 32 * 2**20
# Labels of documents that users usually want to drop, in lower case.
DROP_LABELS = (
    "hap", "toxic", "toxicity", "offensive", "offense", "hate", "hateful", "hate_speech", "hate speech", "abusive",
    "abuse", "profanity", "unsafe", "harmful", "spam",
)  # fmt: skip
SECOND_LABELS = ("1", "label_1", "true", "yes", "positive")


@dataclass(frozen=True)
class FilterOptions:
    """The scored column, the label to drop, and the threshold.

    Args:
        column: column with the text in JSONL and Parquet.
        label: documents with this label are dropped; by default the label of the model that names harmful text (hap, toxic,
            hate, ...).
        threshold: documents whose probability of the label is at least this are dropped.
        overlap: tokens shared by neighbouring windows of a long document.
        shard_documents: documents per shard; an interrupted run loses at most one shard.
        batch_tokens: maximum number of padded tokens in one batch.
    """

    column: str = "text"
    label: str | None = None
    threshold: float = 0.5
    overlap: int = 16
    shard_documents: int = 2000
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold is {self.threshold}; allowed are 0 to 1")
        if self.overlap < 0:
            raise UsageError(f"overlap is {self.overlap}; at least 0 tokens are needed")
        for name in ("shard_documents", "batch_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1 is needed")


def filter_documents(
    model: Path,
    input: Path,
    output: Path,
    form: str | None = None,
    threads: int | None = None,
    options: FilterOptions = FilterOptions(),
    verify: bool = True,
) -> Outcome:
    """Score documents with an exported classifier and split them into kept and dropped ones.

    A document that is too long for the model is split into windows, and its score is their maximum. The output folder gets
    `kept/` (unchanged lines), `dropped/` (with score and reason), `quarantine/` (unreadable records with line and reason)
    and `manifest.json`. The same command resumes an interrupted run.

    Args:
        model: folder of a classifier that `kdnas export` wrote.
        input: .jsonl or .txt file (also .gz, .zst), or .parquet file.
        output: folder for the result: a new one, or one from an earlier run of the same command.
        form: form of the model to run, for example `openvino-int8`; by default the fastest.
        threads: number of threads of the model; by default min(4, physical cores).
        options: the scored column, the label to drop, and the threshold.
        verify: check the model's files against the hashes in its manifest first.

    Returns:
        The folder and the counts; exit code 4 if records were quarantined.
    """
    source = find_source(input)
    with output_errors(output):
        check_apart(input, output)
        check_documents(source, options.column)
        # For many texts one batch per core is fastest, unlike for a single text.
        threads = default_threads() if threads is None else threads
        predictor = Predictor(model, form, threads, verify, streams=threads)
        label = choose_label(predictor, model, options.label)
        config = {
            "column": options.column,
            "label": label,
            "threshold": options.threshold,
            "overlap": options.overlap,
            "shard_documents": options.shard_documents,
            "batch_tokens": options.batch_tokens,
            "form": predictor.session.form,
        }
        inputs = {"input": file_sha256(input), "model": export_digest(model)}
        with open_run(output, config, inputs, source.suffix) as run:
            if not run.finished:
                filter_shards(run, source, predictor, options)
                run.finish({"threads": predictor.session.threads, "input": str(input), "model": str(model)})
            return report(run)


def filter_shards(run: FilterRun, source: Source, predictor: Predictor, options: FilterOptions) -> None:
    """Score and write every shard that an earlier run has not finished."""
    label, windower = run.config["label"], predictor.windower(options.overlap)
    documents = read_documents(source, options.column, skip=run.lines)
    with stage("filter", source.path.stat().st_size, run.position) as progress:
        start, first = time.monotonic(), run.totals["documents"]
        for shard in cut_shards(documents, options.shard_documents):
            began = time.monotonic()
            filtered, tokens = score(shard, predictor, windower, label, source, options)
            run.write_shard(shard[-1], filtered, tokens, time.monotonic() - began)
            rate = (run.totals["documents"] - first) / (time.monotonic() - start)
            progress.update(run.position, f"{rate:.0f} docs/s, {run.totals['dropped']} dropped")
        progress.update(source.path.stat().st_size)


def cut_shards(documents: Iterator[Document], shard_documents: int) -> Iterator[list[Document]]:
    """Documents in groups of `shard_documents`, or fewer if they are large."""
    shard: list[Document] = []
    size = 0
    for document in documents:
        shard.append(document)
        size += len(document.raw)
        if len(shard) == shard_documents or size >= SHARD_BYTES:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def score(
    shard: list[Document],
    predictor: Predictor,
    windower: Windower,
    label: str,
    source: Source,
    options: FilterOptions,
) -> tuple[list[FilteredDocument], int]:
    """The decision for each document of a shard, and the number of tokens that the model read.

    The score is the maximum of P(label) over the document's windows.

    Raises:
        KdnasError: the model's output is not a probability.
    """
    readable = [document.text for document in shard if document.text is not None]
    windows = windower.windows(readable)
    flat = [window.tolist() for each in windows for window in each]
    chances = predictor.predict(flat, options.batch_tokens)[:, predictor.session.labels.index(label)]
    filtered: list[FilteredDocument] = []
    index, texts = 0, iter(windows)
    for document in shard:
        if document.text is None:
            filtered.append(FilteredDocument("quarantine", quarantined(document)))
            continue
        count = len(next(texts))
        value = float(chances[index : index + count].max())
        index += count
        if not 0 <= value <= 1:
            raise KdnasError(
                f"line {document.line}: the model's score is {value}; try another --form, and export the model again"
            )
        # Decide on the rounded score that is written, so that the two never contradict.
        value = round(min(value, 1.0), 6)
        if value >= options.threshold:
            reason = f"P({label}) {value} >= {options.threshold}"
            verdict = {"label": label, "score": value, "reason": reason}
            line = flagged(document, verdict, source.kind != "txt")
            filtered.append(FilteredDocument("dropped", line, value, count))
        else:
            filtered.append(FilteredDocument("kept", document.raw, value, count))
    return filtered, sum(map(len, flat))


def choose_label(predictor: Predictor, model: Path, label: str | None) -> str:
    """The label whose documents are dropped.

    Raises:
        UsageError: the model is not a classifier, does not have the label, or its labels do not show which one to drop.
    """
    labels = predictor.session.labels
    if not predictor.classifies:
        raise UsageError(
            f"model '{model}': this is an encoder without a classification head; give an exported classifier: "
            "`kdnas evaluate` fine-tunes one (classifiers/<task>) and `kdnas export --model` exports it"
        )
    if label is not None:
        if label not in labels:
            raise UsageError(f"label '{label}': the model has no such label; it has {', '.join(labels)}")
        return label
    known = [name for name in labels if name.lower() in DROP_LABELS]
    if not known and len(labels) == 2:
        known = [name for name in labels if name.lower() in SECOND_LABELS]
    if len(known) != 1:
        raise UsageError(
            f"model '{model}': its labels do not show which one to drop; give --label, one of {', '.join(labels)}"
        )
    return known[0]


def export_digest(model: Path) -> str:
    """Digest of an exported model: from its manifest, or of its files if it has none."""
    if (model / MANIFEST).is_file():
        return Artifact.load(model).digest
    files = sorted(file for file in model.rglob("*") if file.is_file())
    return digest_of({str(file.relative_to(model)): file_sha256(file) for file in files})


def check_apart(input: Path, output: Path) -> None:
    """Check that the output is not the input or a folder that contains it.

    Raises:
        UsageError: the output is the input or contains it.
    """
    if output.resolve() == input.resolve() or output.resolve() in input.resolve().parents:
        raise UsageError(f"output '{output}': it is or contains the input {input}; give another folder")


def check_documents(source: Source, column: str) -> None:
    """Check the first documents of the input before anything is written.

    Raises:
        UsageError: the input has no documents, or none of the first ones has the column.
    """
    first = list(islice(read_documents(source, column), 100))
    if not first:
        raise UsageError(f"input '{source.path}': it contains no documents; give a file with at least one")
    if all(document.problem.startswith("no column") for document in first):
        keys = ", ".join(json.loads(first[0].raw)) or "none"
        raise UsageError(f"input '{source.path}': no column '{column}'; it has {keys} (set --column)")


def report(run: FilterRun) -> Outcome:
    """Print the counts of a run and return its outcome."""
    totals = run.totals
    seconds = max(totals["seconds"], 1e-9)
    say(
        f"filter: {totals['documents']} documents: {totals['kept']} kept, {totals['dropped']} dropped, "
        f"{totals['quarantine']} quarantined; {totals['documents'] / seconds:.0f} docs/s, "
        f"{totals['tokens'] / seconds:.0f} tokens/s" + ("; finished by an earlier run" if run.finished else "")
    )
    return Outcome(run.path, dict(totals), QUARANTINED_EXIT if totals["quarantine"] else 0)


@contextmanager
def output_errors(output: Path) -> Iterator[None]:
    """Report a full disk or an unwritable folder with a clear message."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise KdnasError(
                f"output '{output}': no disk space left; free some, then run the same command again: it keeps the "
                "finished shards"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EPERM):
            raise UsageError(
                f"output '{output}': cannot write there ({error.strerror}); give another folder"
            ) from error
        raise
