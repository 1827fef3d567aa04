"""Export: one model folder to ONNX and OpenVINO, each in float32 and int8 (OpenVINO in bf16 too), compared with PyTorch."""

import contextlib
import io
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from export.card import write_card
from export.checkpoint import Checkpoint, copy_checkpoint, load_model, open_checkpoint
from export.engines import load_engine
from export.hub import upload
from export.onnx_form import write_onnx, write_onnx_int8
from export.openvino_form import write_int8, write_openvino
from export.parity import compare, require_bound, spread_over_lengths, torch_outputs
from export.pooling import write_modules
from export.session import FORMS, RUN_TIME_FORMS, SETTINGS, TASKS, read_tokenizer, token_ids
from export.vocabulary import REPORT, trim
from kdnas.artifact import Artifact, append_jsonl, build, read_jsonl, write_json
from kdnas.corpus import Corpus, TextOptions, build_corpus
from kdnas.environment import default_threads, has_bf16
from kdnas.errors import UsageError
from kdnas.progress import say, stage
from kdnas.sentences import Sentences
from kdnas.teacher import resolve_teacher

LOG = "forms.jsonl"
ORDER = ("onnxruntime-f32", "openvino-f32", "onnxruntime-int8", "openvino-int8")  # int8 is made from float32
NOT_A_FORM = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json")


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Args:
        calibration_sentences: sentences of the corpus's train split on which the int8 form's ranges are measured.
        parity_sentences: held-out sentences of all lengths on which every form is compared with PyTorch.
        float_bound: largest difference of a float32 form from PyTorch, absolute up to 1 and relative beyond.
        seed: chooses the calibration sentences.
        vocabulary: `corpus` keeps only the tokens that the corpus's train split is made of, and all single characters;
            `text.languages` says which languages those are.
    """

    calibration_sentences: int = 300
    parity_sentences: int = 200
    float_bound: float = 1e-4
    seed: int = 0
    vocabulary: Literal["whole", "corpus"] = "whole"

    def __post_init__(self) -> None:
        for name in ("calibration_sentences", "parity_sentences"):
            if getattr(self, name) < 8:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 8 are needed")
        if not 0 < self.float_bound < 1:
            raise UsageError(f"float_bound is {self.float_bound}; allowed is between 0 and 1")


def export(
    model: str,
    options: ExportOptions = ExportOptions(),
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    push_to_hub: str | None = None,
) -> None:
    """Write ONNX and OpenVINO forms of a model, each checked against PyTorch.

    Args:
        model: Hugging Face folder of an encoder, a classifier of texts or tokens, or a question answerer (BERT, RoBERTa,
            XLM-RoBERTa), the artifact of `kdnas distill` or `kdnas refine`, a hub id, or `builtin:minilm-l6`.
        options: how.
        corpus: sentences for calibration and parity: `builtin:pydocs`, a file or a hub id.
        text: how the corpus is read.
        home: root of artifacts.
        push_to_hub: owner/name on the model hub, where the finished export goes; null keeps it here.
    """
    checkpoint = open_checkpoint(model)
    built = build_corpus(home, corpus, text, resolve_teacher(str(checkpoint.path)))
    exported = run_export(home, checkpoint.path, checkpoint.digest, built, options).path
    if push_to_hub is not None:
        say(f"export: {upload(exported, push_to_hub)}")
    print(exported)


def run_export(home: Path, model: Path, model_digest: str, corpus: Corpus, options: ExportOptions) -> Artifact:
    """Export a model, or return the finished export of it.

    Args:
        home: root of artifacts.
        model: Hugging Face folder, as `open_checkpoint` takes it.
        model_digest: its identity in the manifest.
        corpus: calibration takes sentences of its train split, parity of its validation split.

    Raises:
        UsageError: the model is not of a supported kind or lacks weights.
        BoundError: a float32 form differs from PyTorch beyond the bound.
    """
    checkpoint = open_checkpoint(str(model))
    label = model.parent.name if model.name == "student" else model.name
    inputs = {"model": model_digest, "corpus": corpus.digest}
    # Weights are written up to five times (float32 three times, int8 twice in a quarter, and the quantiser's copy).
    needed = 50_000_000 + 5 * (checkpoint.path / "model.safetensors").stat().st_size
    config = {"options": options, "task": checkpoint.task}

    def work(folder: Path) -> dict[str, Any]:
        return _work(folder, label, checkpoint, corpus, options)

    return build(home, "export", label, config, inputs, work, needed)


def _work(folder: Path, name: str, checkpoint: Checkpoint, corpus: Corpus, options: ExportOptions) -> dict[str, Any]:
    if options.vocabulary == "corpus":
        checkpoint = trim(checkpoint, corpus.train.texts, corpus.validation.texts, folder)
    else:
        copy_checkpoint(checkpoint, folder)
    tokenizer = read_tokenizer(folder / "tokenizer.json", checkpoint.max_seq_len)
    finished = {row["form"]: row for row in read_jsonl(folder / LOG)}
    order = [*ORDER, *(RUN_TIME_FORMS if has_bf16() else ())]
    with stage("export", len(order) + 1, len(finished)) as progress, quiet():
        model = load_model(checkpoint)
        rows = parity_rows(corpus.validation, tokenizer, options.parity_sentences, checkpoint.max_seq_len)
        reference = torch_outputs(model, checkpoint.task, rows)
        progress.advance(note="PyTorch's answers")
        calibration = calibration_rows(corpus.train, tokenizer, options)
        for form in order:
            if form in finished:
                continue
            graph = folder / FORMS[RUN_TIME_FORMS.get(form, form)]
            start = time.monotonic()
            if form in FORMS:
                _write(form, model, checkpoint.task, calibration, folder)
            seconds = round(time.monotonic() - start, 1)
            run = load_engine(graph, form, TASKS[checkpoint.task], default_threads())
            found = compare(run, checkpoint.task, rows, reference, checkpoint.pad_id, checkpoint.max_seq_len)
            if form.endswith("-f32"):
                require_bound(form, found, options.float_bound)
            size_mb = round(sum(file.stat().st_size for file in graph.parent.iterdir() if file.is_file()) / 1e6, 2)
            finished[form] = {"form": form, **found, "size_mb": size_mb, "seconds": seconds}
            append_jsonl(folder / LOG, finished[form])
            progress.advance(note=form)
    return _describe(folder, name, checkpoint, finished, len(rows))


def _write(form: str, model: Any, task: str, calibration: list[list[int]], folder: Path) -> None:
    """Write one form beside its place, then rename: a killed export leaves no half form under a final name."""
    final = (folder / FORMS[form]).parent
    scratch = folder / f"{form}.scratch"
    for left in (final, scratch):
        shutil.rmtree(left, ignore_errors=True)
    if form == "openvino-int8":
        write_int8((folder / FORMS["openvino-f32"]).parent, task, calibration, scratch)
    elif form == "onnxruntime-int8":
        write_onnx_int8((folder / FORMS["onnxruntime-f32"]).parent, scratch)
    else:
        (write_onnx if form.startswith("onnx") else write_openvino)(model, task, scratch)
    for file in scratch.iterdir():  # the tokenizer lies once, above the forms
        if file.name in NOT_A_FORM:
            file.unlink()
    final.parent.mkdir(exist_ok=True)
    os.rename(scratch, final)


def _describe(
    folder: Path, name: str, checkpoint: Checkpoint, finished: dict[str, dict[str, Any]], sentences: int
) -> dict[str, Any]:
    settings = {**checkpoint.settings, "forms": [form for form in FORMS if form in finished]}
    values = max(row["max_abs_value"] for row in finished.values())
    found = {form: {key: value for key, value in row.items() if key != "form"} for form, row in finished.items()}
    results: dict[str, Any] = {
        "task": checkpoint.task,
        "forms": {form: found[form] for form in settings["forms"]},
        "run_time_forms": {form: found[form] for form in RUN_TIME_FORMS if form in found},
        "sentences": sentences,
        "max_abs_value": values,
    }
    if (folder / REPORT).is_file():
        results["vocabulary"] = json.loads((folder / REPORT).read_text())
    write_card(folder, name, settings, results)
    if checkpoint.task == "feature-extraction":
        write_modules(folder, settings["hidden"], settings["max_seq_len"])
    write_json(folder / SETTINGS, settings)
    return results


def calibration_rows(sentences: Sentences, tokenizer: Any, options: ExportOptions) -> list[list[int]]:
    """Token ids of random sentences, sorted by length; the same for the same seed."""
    count = min(options.calibration_sentences, len(sentences))
    chosen = np.random.default_rng(options.seed).choice(len(sentences), count, replace=False)
    texts = sentences.texts
    return sorted(token_ids(tokenizer, [texts[int(index)] for index in chosen]), key=len)


def parity_rows(sentences: Sentences, tokenizer: Any, count: int, max_seq_len: int) -> list[list[int]]:
    """Token ids of held-out sentences of all lengths, and two joined texts that reach half and all of the positions."""
    texts = sentences.texts
    chosen = spread_over_lengths(sentences.lengths, count)
    rows = token_ids(tokenizer, [texts[index] for index in chosen] + [" ".join(texts[:max_seq_len])])
    joined = rows.pop()
    return [*rows, [*joined[: max_seq_len // 2 - 1], joined[-1]], joined]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' warnings, logs and bars off the terminal; what they find wrong, parity finds."""
    import nncf  # noqa: F401  importing sets these loggers' levels: afterwards would be too late
    import optimum.intel  # noqa: F401
    import transformers

    transformers.logging.set_verbosity_error()
    loggers = [logging.getLogger(name) for name in ("transformers", "optimum", "nncf", "openvino", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
