"""Builds one export: writes every form, compares it with PyTorch, measures its loss and times it."""

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from kdnas.export.ahead import Ahead
from kdnas.export.card import write_card
from kdnas.export.checkpoint import Checkpoint, copy_checkpoint, load_model
from kdnas.export.encoder import TOKENIZER
from kdnas.export.engines import RUNTIMES, Forward, open_graph
from kdnas.export.fast_tokenizer import write_fast_tokenizer
from kdnas.export.first_token import last_layer_of_first_token
from kdnas.export.folder import (
    EMBEDDING,
    FORMS,
    RUN_TIME_FORMS,
    SETTINGS,
    TASKS,
    WEIGHTS,
    graph_of,
    read_tokenizer,
    token_ids,
)
from kdnas.export.head import add_embedding, embedding_parity, embeddings, require_same
from kdnas.export.int8_search import Int8Search, require_inside
from kdnas.export.judge import Candidate, Judge
from kdnas.export.labelled import Labelled
from kdnas.export.onnx_form import map_tables
from kdnas.export.options import ExportOptions
from kdnas.export.parity import compare, require_bound, spread_over_lengths, torch_forward, torch_outputs
from kdnas.export.race import race
from kdnas.export.recipes import FLOAT, RECIPES, without_tokenizer
from kdnas.export.silence import silence_exporters
from kdnas.export.vocabulary import REPORT, cut_of, trim
from kdnas.models.engine import ENGINES, Precision, engine_of
from kdnas.models.head import Head, Prompts
from kdnas.models.pooling import write_modules
from kdnas.store.host import default_threads, has_vnni
from kdnas.store.json_files import append_jsonl, read_jsonl, write_json
from kdnas.store.progress import say, stage
from kdnas.text.corpus import Corpus
from kdnas.text.sentences import Sentences

LOG = "forms.jsonl"
# Sentences and seconds; few are enough, because one thread and all threads differ by more than recipes and forms.
THREADS_RACE = (8, 0.7)
# A second process quantises for one of two runtimes if the weights have at least this size (below it, it takes longer to start
# than it saves), and this many times the size is free.
AHEAD_BYTES, AHEAD_MEMORY = 20e6, 12


@dataclass
class Making:
    """One export, form by form; each finished form is a line of forms.jsonl, so that an interrupted export resumes."""

    name: str
    checkpoint: Checkpoint
    corpus: Corpus
    options: ExportOptions
    labelled: Labelled | None
    rows: list[list[int]] = field(default_factory=list)
    reference: list[np.ndarray] = field(default_factory=list)
    fast: dict[str, Any] | None = None  # as `write_fast_tokenizer`
    head: Head | None = None
    prompts: Prompts = field(default_factory=Prompts)

    def work(self, folder: Path) -> dict[str, Any]:
        """Make the missing forms in the working folder and describe all of them."""
        source = self.checkpoint.path
        tokenizer = self._prepare(folder)
        finished = {row["form"]: row for row in read_jsonl(folder / LOG)}
        order = self.options.to_make()
        order += [form for form, graph in RUN_TIME_FORMS.items() if graph in order and ENGINES[form].is_native]
        if not has_vnni():
            say(
                "export: this CPU reports neither VNNI nor AMX: int8 may be slower than float32, the fastest form is the default"
            )
        self._make_forms(folder, order, finished, tokenizer)
        if self.head is not None:
            for form in order:
                finished[form] |= self._add_head(folder, form, self.head)
        for form in self.options.to_make():
            if ENGINES[form].runtime == "onnxruntime":
                map_tables(folder / graph_of(form))
        for form, found in self._race(folder, order).items():
            finished[form] |= found
        return self._describe(folder, finished, source)

    def _prepare(self, folder: Path) -> Any:
        """Copy the model and its tokenizer, cut to the corpus on request; returns the tokenizer."""
        checkpoint, corpus, options = self.checkpoint, self.corpus, self.options
        self.prompts = checkpoint.prompts
        self.head = checkpoint.head if options.head == "teacher" else None
        if options.vocabulary == "corpus":
            texts, most = (corpus.train.texts, corpus.validation.texts), options.vocabulary_tokens
            checkpoint = self.checkpoint = trim(checkpoint, *texts, folder, most)
            say(f"export: {cut_of(json.loads((folder / REPORT).read_text()))}")
        else:
            copy_checkpoint(checkpoint, folder)
        compared = chain(corpus.validation.texts, corpus.train.texts if corpus.sampled else [])
        self.fast = write_fast_tokenizer(folder, compared)
        tokenizer = read_tokenizer(folder / TOKENIZER, checkpoint.max_seq_len)
        self.rows = parity_rows(corpus.validation, tokenizer, options.parity_sentences, checkpoint.max_seq_len)
        return tokenizer

    def _make_forms(self, folder: Path, order: list[str], finished: dict[str, dict[str, Any]], tokenizer: Any) -> None:
        """Write and measure the forms that are not in `finished`, and add them to it and to the log."""
        checkpoint, options = self.checkpoint, self.options
        calibration = calibration_rows(self.corpus.train, tokenizer, options)
        quantised = [form for form in order if form not in finished and form in RECIPES]
        with (
            stage("export", len(order) + 1, len(finished)) as progress,
            second_process(quantised, checkpoint) as ahead,
            silence_exporters(),
        ):
            int8 = Int8Search(
                folder,
                checkpoint.task,
                calibration,
                lambda run: self._measure(run, judge),
                options.max_loss_points,
                self.rows[:-2],
                checkpoint.max_seq_len,
                options.recipes,
                options.accuracy_control,
                ahead,
                checkpoint.multi_label,
            )
            model = load_model(checkpoint)
            self.reference = torch_outputs(model, checkpoint.task, self.rows)
            judge = self._judge(model, tokenizer)
            progress.advance(note="PyTorch's outputs")
            for form in order:
                if form not in finished:
                    finished[form] = self._make(form, model, int8)
                    append_jsonl(folder / LOG, finished[form])
                    progress.advance(note=form)
                for other in quantised:
                    if form == FLOAT[other]:
                        int8.write_ahead(other, begun_here=other == quantised[0])

    def _judge(self, model: Any, tokenizer: Any) -> Judge:
        """Judges a form by the labelled inputs, if any, else by PyTorch's outputs."""
        checkpoint = self.checkpoint
        if self.labelled is None:
            return Judge(checkpoint.task)
        forward, around = torch_forward(model, checkpoint.task), (checkpoint.pad_id, checkpoint.max_seq_len)
        trained = Candidate(forward, checkpoint.task, tokenizer, *around, multi_label=checkpoint.multi_label)
        return Judge.by_labels(self.labelled, checkpoint.settings["labels"], trained)

    def _make(self, form: str, model: Any, int8: Int8Search) -> dict[str, Any]:
        """Write one form and measure it."""
        start, graph = time.monotonic(), int8.folder / graph_of(form)
        if form in RECIPES:
            found = int8.run(form)
            if self.labelled is not None and not self.options.allow_loss:
                require_inside(form, found, self.options.max_loss_points)
        else:
            if form in FORMS:
                write_float(form, model, self.checkpoint.task, graph.parent)
            size_mb = sum(file.stat().st_size for file in graph.parent.iterdir() if file.is_file()) / 1e6
            run = open_graph(graph, form, TASKS[self.checkpoint.task], default_threads())
            found = {**int8.measure(run), "size_mb": round(size_mb, 2)}
            if engine_of(form).precision is Precision.F32:
                require_bound(form, found, self.options.float_bound)
        return {"form": form, **found, "seconds": round(time.monotonic() - start, 1)}

    def _measure(self, run: Forward, judge: Judge) -> dict[str, Any]:
        checkpoint = self.checkpoint
        around = (checkpoint.pad_id, checkpoint.max_seq_len, checkpoint.pooling, checkpoint.multi_label)
        found = compare(run, checkpoint.task, self.rows, self.reference, *around)
        return {**found, **judge.loss(run, found)}

    def _add_head(self, folder: Path, form: str, head: Head) -> dict[str, float]:
        """Add the embedding to a form's graph and compare it with PyTorch's."""
        checkpoint, graph = self.checkpoint, folder / graph_of(form)
        add_embedding(graph, form, head, checkpoint.pooling)
        run = open_graph(graph, form, (EMBEDDING,), default_threads())
        expected = embeddings(self.reference, head, checkpoint.pooling)
        found = embedding_parity(run, self.rows, expected, checkpoint.pad_id, checkpoint.max_seq_len)
        if engine_of(form).precision is Precision.F32:
            require_same(form, found, self.options.float_bound)
        return found

    def _loss_rows(self) -> dict[str, int]:
        """How many rows choose a recipe (dev) and measure its loss (test); the same sentences without labelled inputs."""
        if self.labelled is None:
            return {"dev": len(self.rows), "test": len(self.rows)}
        dev, test = (len(half) for half in self.labelled.halves())
        return {"dev": dev, "test": test}

    def _race(self, folder: Path, forms: list[str]) -> dict[str, dict[str, Any]]:
        """The fastest number of threads of each form (one or all) and its latency with them, with all forms interleaved."""
        outputs, most = (EMBEDDING,) if self.head is not None else TASKS[self.checkpoint.task], default_threads()
        rows, max_seq_len = self.rows[:-2], self.checkpoint.max_seq_len
        best: dict[str, tuple[str, Forward]] = {}
        threads: dict[str, int] = {}
        for form in forms:
            graph = folder / graph_of(form)
            runs = {count: (form, open_graph(graph, form, outputs, count)) for count in sorted({1, most})}
            took = race(runs, rows, max_seq_len, *THREADS_RACE)
            threads[form] = min(took, key=lambda count: took[count])
            best[form] = runs[threads[form]]
        latencies = race(best, rows, max_seq_len)
        return {form: {"latency_ms": round(latencies[form], 4), "threads": threads[form]} for form in forms}

    def _describe(self, folder: Path, finished: dict[str, dict[str, Any]], source: Path) -> dict[str, Any]:
        checkpoint = self.checkpoint
        # The first form is the default of a session: the fastest within the loss bound.
        inside = {form: row["loss_points"] <= self.options.max_loss_points for form, row in finished.items()}
        forms = sorted(self.options.to_make(), key=lambda form: (not inside[form], finished[form]["latency_ms"]))
        threads = {form: row["threads"] for form, row in finished.items()}
        encoder = self.fast["file"] if self.fast else TOKENIZER
        settings = {**checkpoint.settings, "forms": forms, "threads": threads, "encoder": encoder}
        if self.head is not None:
            settings["dimensions"] = self.head.outputs
        if self.prompts.texts:
            settings |= {"prompts": dict(self.prompts.texts), "default_prompt": self.prompts.default}
        found = {form: {key: value for key, value in row.items() if key != "form"} for form, row in finished.items()}
        results: dict[str, Any] = {
            "task": checkpoint.task,
            "forms": {form: found[form] for form in forms},
            "run_time_forms": {form: found[form] for form in RUN_TIME_FORMS if form in found},
            "sentences": len(self.rows),
            "max_abs_value": max(row["max_abs_value"] for row in finished.values()),
            "max_loss_points": self.options.max_loss_points,
            "labelled_texts": len(self.labelled.inputs) if self.labelled is not None else 0,
            "loss_rows": self._loss_rows(),
        }
        if self.fast:
            results["tokenizer"] = self.fast
        if (folder / REPORT).is_file():
            results["vocabulary"] = json.loads((folder / REPORT).read_text())
        write_card(folder, self.name, settings, results, source)
        if checkpoint.task == "feature-extraction":
            around = (settings["hidden"], settings["max_seq_len"], settings["pooling"])
            write_modules(folder, *around, self.head, self.prompts)
        write_json(folder / SETTINGS, settings)
        return results


def second_process(quantised: list[str], checkpoint: Checkpoint) -> contextlib.AbstractContextManager[Ahead | None]:
    """A second process for the last of the int8 forms to make, if that is faster and the memory suffices."""
    size = (checkpoint.path / WEIGHTS).stat().st_size
    enough = psutil.virtual_memory().available >= AHEAD_MEMORY * size
    return Ahead() if len(quantised) > 1 and enough and size >= AHEAD_BYTES else contextlib.nullcontext()


def write_float(form: str, model: Any, task: str, final: Path) -> None:
    """Write a float32 form to a temporary folder, then rename it: a killed export leaves no partial form."""
    scratch = final.with_name(f"{final.name}.scratch")
    for left in (final, scratch):
        shutil.rmtree(left, ignore_errors=True)
    with last_layer_of_first_token(model, task):
        RUNTIMES[engine_of(form).runtime].write(model, task, scratch)
    without_tokenizer(scratch)
    os.rename(scratch, final)


def calibration_rows(sentences: Sentences, tokenizer: Any, options: ExportOptions) -> list[list[int]]:
    """Token ids of random sentences, equally many and at least one of each language, sorted by length."""
    chosen = balanced_choice(sentences.language_numbers, options.calibration_sentences, options.seed)
    return sorted(token_ids(tokenizer, sentences.texts.at(chosen)), key=len)


def balanced_choice(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices of random rows, (M,), equally many and at least one of each group; takes about 40 bytes per row.

    In a random order of all rows, the first rows of every group come first, then the second ones, and so on.

    Args:
        groups: (N,) number of each row's group, for example its language.
        count: number of rows; if there are more groups, it is their number.
        seed: seed of the order.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = groups[order]
    places = np.argsort(shuffled, kind="stable")  # group by group, each in the random order
    sizes = np.bincount(groups)
    count = max(count, int(np.count_nonzero(sizes)))
    starts = np.cumsum(sizes) - sizes
    taken = [places[start : start + min(count, size)] for start, size in zip(starts, sizes, strict=True)]
    ranks = np.concatenate([np.arange(len(part)) for part in taken])
    found = np.concatenate(taken)
    return order[found[np.lexsort((found, ranks))[:count]]]


def parity_rows(sentences: Sentences, tokenizer: Any, count: int, max_seq_len: int) -> list[list[int]]:
    """Token ids of held-out sentences of all lengths, and of two joined texts that fill half and all of the positions."""
    chosen = sentences.texts.at(np.array(spread_over_lengths(sentences.lengths, count)))
    rows = token_ids(tokenizer, [*chosen, " ".join(sentences.texts[:max_seq_len])])
    joined = rows.pop()
    return [*rows, [*joined[: max_seq_len // 2 - 1], joined[-1]], joined]
