"""`kdnas peers`: one exported encoder in every library that a user may pick for it, in one run on this host."""

import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError
from kdnas.export.folder import read_settings, read_tokenizer
from kdnas.latency.peers.environment import install
from kdnas.latency.peers.libraries import library_of
from kdnas.latency.peers.measure import (
    CHECK_TEXTS,
    RACE_ROUNDS,
    RACE_TEXTS,
    Live,
    check_answers,
    finish,
    open_all,
    open_process,
    race,
)
from kdnas.latency.peers.options import PeerOptions
from kdnas.latency.peers.page import write_peers_page
from kdnas.latency.peers.results import FILE, records, reference_of, table, write_csv
from kdnas.latency.peers.rounds import Rounds
from kdnas.latency.peers.rows import RIGHT, Row, chosen_libraries, find_rows, libraries_named, prepare
from kdnas.latency.peers.texts import LENGTHS, MIX, id_sets, similarity_pairs, text_sets
from kdnas.latency.process import WorkerError
from kdnas.models.folder import model_label
from kdnas.models.teacher import resolve_teacher
from kdnas.store.artifact import Artifact, build
from kdnas.store.digest import digest_of
from kdnas.store.host import versions
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say, say_table
from kdnas.text.corpus import Corpus, sample_corpus, sentences_needed
from kdnas.text.readers import TextOptions

KIND = "peers"
LOG, PAGE = "rounds.jsonl", "peers.html"
LEAST_SENTENCES, PER_TEXT = 1000, 30  # held-out sentences; a text of 128 tokens takes 5 to 20 of them
QUALITY_BATCH = 32
WIDTH = 190  # columns of the table where there is no terminal

Pairs = tuple[list[str], list[str], list[float]]


def compare_peers(
    exported: Path,
    options: PeerOptions = PeerOptions(),
    peers: tuple[str, ...] = (),
    install_peers: tuple[str, ...] = (),
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    data_root: Path | None = None,
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Time one exported encoder in this project's session and in other libraries, in one run, each in a process of its own.

    Answers are compared with PyTorch's before anything is timed. Libraries that are not installed are named and left out.

    Args:
        exported: folder of `kdnas export`, of an encoder without a head.
        options: timing options.
        peers: libraries to compare; by default all. Eager PyTorch always runs: its answers are the right ones.
        install_peers: libraries to install first, from exact pins into an environment of their own below `home`.
        corpus: `builtin:pydocs`, a file or a hub id; held-out sentences of it are timed.
        text: how to read the corpus.
        data_root: folder with `glue/stsb`; gives each library its score on STS-B (Spearman, without fine-tuning). Null measures
            no quality.
        home: root of artifacts.
        output: folder for a copy of the result as plain files; null keeps it only below `home`.
    """
    require_output(output, KIND)
    read_settings(exported)  # refuse another folder before anything is installed
    libraries = chosen_libraries(peers)
    for name in libraries_named(install_peers):
        install(home, name)
    pairs = similarity_pairs(data_root) if data_root is not None else None
    model = resolve_teacher(str(exported), home)
    wanted = sentences_needed(
        0, max(LEAST_SENTENCES, options.sentences, PER_TEXT * options.each), text.validation_fraction
    )
    built = sample_corpus(home, corpus, text, model, wanted)
    artifact = run_peers(home, exported, built, libraries, options, pairs)
    for name, reason in artifact.results["left_out"].items():
        say(f"peers: left out: {name}: {reason}")
    say_table(table(artifact.results["rows"], artifact.results["reference"]), WIDTH)
    return deliver(artifact, output)


def run_peers(
    home: Path, exported: Path, corpus: Corpus, libraries: list[str], options: PeerOptions, pairs: Pairs | None = None
) -> Artifact:
    """Compare libraries; resumes an interrupted run.

    Args:
        home: root of artifacts.
        exported: folder of `kdnas export`.
        corpus: its validation split gives the sentences.
        libraries: names of the libraries.
        options: timing options.
        pairs: first sentences, second sentences and scores; None without quality.

    Raises:
        UsageError: the folder is not an export of an encoder, or the corpus is too small.
        KdnasError: PyTorch, whose answers are the right ones, cannot run the model.
    """
    export = Artifact.load(exported, "export")
    rows, _ = find_rows(exported, libraries, home, home)
    # A library that is installed later, or in another version, makes another result.
    present = sorted({row.library for row in rows})
    pins = {name: library_of(name).REQUIREMENTS for name in present}
    packages = versions(sorted({package for name in present for package in library_of(name).PACKAGES}))
    config = {"options": options, "libraries": libraries, "pins": pins, "versions": packages}
    inputs = {"exported": export.digest, "corpus": corpus.digest}
    if pairs is not None:
        inputs["pairs"] = digest_of(pairs)

    def work(folder: Path) -> dict[str, Any]:
        return _work(folder, home, exported, corpus, libraries, options, pairs)

    return build(home, KIND, model_label(exported), config, inputs, work)


def _work(
    folder: Path,
    home: Path,
    exported: Path,
    corpus: Corpus,
    libraries: list[str],
    options: PeerOptions,
    pairs: Pairs | None,
) -> dict[str, Any]:
    prepared, log = folder / "prepared", folder / LOG
    rows, reasons = find_rows(exported, libraries, home, prepared)
    sets = _sets(exported, corpus, options, rows[0].job.max_seq_len)
    rows = race(log, prepare(rows, reasons), sets, options, reasons)
    with ExitStack() as stack:
        live = open_all(stack, rows, sets, reasons)
        _check(live, sets[MIX][:CHECK_TEXTS], options, reasons)
        rounds = Rounds(log, live, sets, options, reasons, partial(_again, stack, sets)).run()
        _require_right(live, reasons)
        finish(live, None if pairs is None else pairs[:2], QUALITY_BATCH)
    shutil.rmtree(prepared, ignore_errors=True)  # copies of the model, which the same command makes again
    reference = reference_of(list(live), rows[0].job.forms)
    found = records(live, rounds, reference, options.batches, () if pairs is None else pairs[2])
    write_csv(folder / FILE, found)
    results = {
        "model": model_label(exported),
        "reference": reference,
        "sentences": len(sets[MIX]),
        "rounds": max(len(one) for one in rounds.values()),
        "race_texts": min(RACE_TEXTS, len(sets[MIX])),
        "race_rounds": RACE_ROUNDS,
        "rows": found,
        "left_out": reasons,
    }
    write_peers_page(folder / PAGE, results, [str(length) for length in LENGTHS if str(length) in sets])
    return results


def _sets(exported: Path, corpus: Corpus, options: PeerOptions, max_seq_len: int) -> dict[str, list[Any]]:
    """The timed texts and their token ids."""
    tokenizer = read_tokenizer(exported / "tokenizer.json", max_seq_len)
    tokenizer.no_truncation()
    texts = text_sets(
        list(corpus.validation.texts), tokenizer, max_seq_len, options.sentences, options.each, options.seed
    )
    return {**texts, **id_sets(texts, tokenizer, max_seq_len)}


def _check(live: dict[str, Live], texts: list[str], options: PeerOptions, reasons: dict[str, str]) -> None:
    _require_right(live, reasons)
    try:
        check_answers(live, texts, options.least_cosine, reasons)
    except WorkerError as error:
        raise KdnasError(f"peers: PyTorch cannot embed the texts, so no answer can be checked: {error}") from error


def _require_right(live: dict[str, Live], reasons: dict[str, str]) -> None:
    """Raise KdnasError if PyTorch is left out: without it no answer is known to be right."""
    if RIGHT not in live:
        raise KdnasError(f"peers: {RIGHT} cannot run, so no answer can be checked: {reasons.get(RIGHT)}")


def _again(stack: ExitStack, sets: dict[str, list[Any]], row: Row) -> Live:
    return open_process(stack, row, sets)
