"""The way to run an exported encoder: ONNX Runtime or OpenVINO, `tokenizers` and numpy; no torch, no transformers.

An export folder holds `kdnas.json` (what a session must know), `tokenizer.json` and one graph for each form.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from kdnas.environment import default_threads, has_bf16
from kdnas.errors import UsageError

SETTINGS = "kdnas.json"
# Fastest first; the graph of each form inside an export folder.
FORMS = {
    "openvino-int8": "openvino/int8/openvino_model.xml",
    "openvino-f32": "openvino/f32/openvino_model.xml",
    "onnxruntime-int8": "onnx-int8/model.onnx",
    "onnxruntime-f32": "onnx/model.onnx",
}
# Forms that are another form's graph in another precision, on hosts that compute in it: taken only when asked for.
RUN_TIME_FORMS = {"openvino-bf16": "openvino-f32"}
TASKS = {"feature-extraction": "last_hidden_state", "text-classification": "logits"}
# Padded lengths are multiples of this: each new shape costs the engines a first, slow run and some memory.
LENGTH_STEP = 8

Engine = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Session:
    """An exported encoder or classifier, ready to run on this CPU; safe for concurrent callers.

    Args:
        path: folder that `kdnas export` wrote.
        form: one of the forms in it; by default the fastest.
        threads: threads that one call may use; by default those of `kdnas.environment.default_threads`.

    Attributes:
        task: `feature-extraction` or `text-classification`.
        labels: class names in the order of the outputs; empty for feature extraction.
        form: the form that runs.
        hidden: width D of the hidden states.
        max_seq_len: longer texts are cut to this many tokens, special tokens included.

    Raises:
        UsageError: not an export folder, an unknown form, or a damaged graph.
    """

    def __init__(self, path: Path, form: str | None = None, threads: int | None = None) -> None:
        settings = read_settings(path)
        self.path = Path(path)
        self.task: str = settings["task"]
        self.labels: list[str] = list(settings["labels"])
        self.hidden = int(settings["hidden"])
        self.max_seq_len = int(settings["max_seq_len"])
        self.pad_id = int(settings["pad_id"])
        self.threads = default_threads() if threads is None else threads
        if self.threads < 1:
            raise UsageError(f"threads is {threads}; at least 1 is needed")
        self.form = choose_form(self.path, settings["forms"], form)
        self._tokenizer = read_tokenizer(self.path / "tokenizer.json", self.max_seq_len)
        graph = FORMS[RUN_TIME_FORMS.get(self.form, self.form)]
        self._run = load_engine(self.path / graph, self.form, TASKS[self.task], self.threads)

    def run(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """One call of the engine, shapes as given.

        Args:
            input_ids: (B, T) int64 token ids, padded with `pad_id`.
            attention_mask: (B, T) int64, 1 at real tokens.

        Returns:
            Logits (B, C) of a classifier, or last hidden states (B, T, D), float32.
        """
        return self._run(input_ids, attention_mask)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut at `max_seq_len`."""
        return token_ids(self._tokenizer, texts)

    def predict(self, texts: list[str], batch_tokens: int = 4096) -> np.ndarray:
        """Probabilities or embeddings of texts, in their order whatever the batches.

        Args:
            texts: N texts.
            batch_tokens: padded tokens that one call may hold (a longer text still goes alone).

        Returns:
            (N, C) softmax probabilities of a classifier, or (N, D) L2-normalised means over the tokens, float32.
        """
        rows = self.encode(texts)
        width = len(self.labels) if self.task == "text-classification" else self.hidden
        result = np.zeros((len(rows), width), dtype=np.float32)
        for batch in token_budget_batches([len(row) for row in rows], batch_tokens):
            ids, mask = pad([rows[index] for index in batch], self.pad_id, self.max_seq_len)
            output = self.run(ids, mask)
            result[batch] = softmax(output) if self.task == "text-classification" else mean_pool(output, mask)
        return result

    def warm(self, lengths: Iterable[int] = (8, 16, 24, 32, 48, 64, 96, 128), batch: int = 1) -> None:
        """Run each of these lengths once, so that no caller pays for the first run of a shape."""
        for length in sorted({min(padded_length(length), self.max_seq_len) for length in lengths}):
            ids = np.full((batch, length), self.pad_id, dtype=np.int64)
            self.run(ids, np.ones_like(ids))


def read_settings(path: Path) -> dict[str, Any]:
    """What `kdnas.json` of an export folder says.

    Raises:
        UsageError: no such file, or not one that this version reads.
    """
    file = Path(path) / SETTINGS
    try:
        settings: dict[str, Any] = json.loads(file.read_text())
        missing = {"task", "labels", "hidden", "max_seq_len", "pad_id", "forms"} - set(settings)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path}: not an exported model ({SETTINGS}: {error}); make one with `kdnas export --model DIR`"
        ) from error
    if missing or settings["task"] not in TASKS:
        what = f"no {', '.join(sorted(missing))}" if missing else f"task '{settings['task']}'"
        raise UsageError(f"{file}: {what}; export the model again with this version")
    return settings


def choose_form(path: Path, present: Iterable[str], form: str | None) -> str:
    """The form asked for, or the fastest of those present.

    Raises:
        UsageError: it is not present; the message lists those that are.
    """
    usable = [name for name in FORMS if name in set(present)]
    if form is None and usable:
        return usable[0]
    usable += [name for name, graph in RUN_TIME_FORMS.items() if graph in usable]
    if form not in usable:
        raise UsageError(f"{path}: no form '{form}' here; it has {', '.join(usable) or 'none'}")
    if form.endswith("-bf16") and not has_bf16():
        raise UsageError(f"form '{form}': this CPU has neither AVX512-BF16 nor AMX; take {RUN_TIME_FORMS[form]}")
    return form


def read_tokenizer(file: Path, max_seq_len: int) -> Any:
    """A `tokenizers.Tokenizer` that cuts at `max_seq_len` and never pads.

    Raises:
        UsageError: the file is missing or damaged.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception for a missing or damaged file
        raise UsageError(f"{file}: cannot be read ({error}); export the model again") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_seq_len)
    return tokenizer


def token_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Ids of each text, special tokens included."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


def load_engine(graph: Path, form: str, output: str, threads: int) -> Engine:
    """A function (input_ids, attention_mask) -> the output named `output`.

    Raises:
        UsageError: the graph is missing or damaged, or has no such output.
    """
    if not graph.is_file():
        raise UsageError(f"{graph}: missing; export the model again")
    try:
        if form.startswith("openvino"):
            return compile_openvino(str(graph), form, output, threads)
        return compile_onnxruntime(str(graph), output, threads)
    except Exception as error:  # both engines raise plain RuntimeError or their own class for a damaged graph
        first = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UsageError(f"{graph}: cannot be loaded ({first}); export the model again") from error


def openvino_settings(form: str, threads: int) -> dict[str, str]:
    """How OpenVINO runs a form: one call at a time, as fast as it goes, in the form's own precision."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "bf16" if form.endswith("-bf16") else "f32",
    }


def compile_openvino(graph: Any, form: str, output: str, threads: int) -> Engine:
    """A function (input_ids, attention_mask) -> the output named `output`.

    Args:
        graph: path of an `openvino_model.xml`, or an `openvino.Model`.
        form: `openvino-bf16` computes in bf16; the others do not, though hosts that can would by themselves.
        output: name of the wanted output.
        threads: threads that one call may use.
    """
    import openvino

    compiled = openvino.Core().compile_model(graph, "CPU", openvino_settings(form, threads))
    names = [port.get_any_name() for port in compiled.inputs]
    place = [output in port.get_names() for port in compiled.outputs].index(True)
    # A request may serve one caller at a time: idle ones wait here, and there are never more than callers at once.
    idle: list[Any] = []

    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        request.infer(_feeds(names, input_ids, attention_mask), share_inputs=True, share_outputs=True)
        result = np.array(request.get_output_tensor(place).data)  # the request's memory is the next caller's
        idle.append(request)
        return result

    return run


def compile_onnxruntime(
    graph: str | bytes, output: str, threads: int, weights: Mapping[str, np.ndarray] | None = None
) -> Engine:
    """A function (input_ids, attention_mask) -> the output named `output`.

    Args:
        graph: path of a `model.onnx`, or its bytes.
        output: name of the wanted output.
        threads: threads that one call may use.
        weights: initialisers that lie outside of the graph, by name; they are read in place, never copied whole, so they
            must not change while the function is in use.

    Raises:
        ValueError: there is no such output.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Spinning threads would steal the cores from whatever runs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in (weights or {}).items()}
    if values:  # the first call tells the optimiser of them, without the others the session would copy them
        options.add_external_initializers(list(values), list(values.values()))
    for name, value in values.items():
        options.add_initializer(name, value)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    if output not in [port.name for port in session.get_outputs()]:
        raise ValueError(f"no output '{output}'")
    alive = (session, values)  # a session holds no reference to what it reads in place

    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        result: np.ndarray = alive[0].run([output], _feeds(names, input_ids, attention_mask))[0]
        return result

    return run


def _feeds(names: list[str], input_ids: np.ndarray, attention_mask: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs by the graph's own names; BERT's token types are all 0 for single texts."""
    feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
    if "token_type_ids" in names:
        feeds["token_type_ids"] = np.zeros_like(input_ids)
    return feeds


def padded_length(length: int) -> int:
    """The next multiple of LENGTH_STEP."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def pad(rows: list[list[int]], pad_id: int, max_seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask (B, T) int64 of some rows, T a multiple of LENGTH_STEP but never beyond the model's positions."""
    width = min(padded_length(max(map(len, rows))), max_seq_len)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask


def token_budget_batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows, longest first, cut so that each padded batch stays within the budget."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    first = 0
    while first < len(order):
        rows = max(1, batch_tokens // padded_length(lengths[order[first]]))
        yield order[first : first + rows]
        first += rows


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, (B, C)."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def mean_pool(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """L2-normalised mean of the states (B, T, D) over real tokens, (B, D)."""
    weights = mask[:, :, None].astype(states.dtype)
    mean = (states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
    return mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
