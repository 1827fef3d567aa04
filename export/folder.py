"""The layout of an export folder: its settings, its forms and their graphs, and its tokenizer."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from kdnas.errors import UsageError
from kdnas.models.engine import ENGINES, require_native

SETTINGS = "kdnas.json"
LAYOUT = 2  # version of these files; after a change, the same command makes a new export
EXTERNAL = "_data"  # after the name of a graph: its external data, as Optimum names it
WEIGHTS = "model.safetensors"  # of PyTorch, for further training
MULTI_LABEL = (
    "multi_label_classification"  # `problem_type` of a classifier whose labels are independent, as in transformers
)
# The graph of each form inside an export folder.
FORMS = {name: engine.graph for name, engine in ENGINES.items() if engine.graph and not engine.at_run_time}
# Forms that run another form's graph in another precision, on hosts that compute in it; only on request.
RUN_TIME_FORMS = {name: engine.float_name for name, engine in ENGINES.items() if engine.at_run_time}
# The outputs of each task's graph.
TASKS = {
    "feature-extraction": ("last_hidden_state",),
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
}

EMBEDDING = "sentence_embedding"  # output of an encoder's graph with a linear head, besides its states


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in `kdnas.json` of an export folder.

    Raises:
        UsageError: the file is missing, or this version cannot read it.
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
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has the unknown task '{settings['task']}'"
        raise UsageError(f"{file} {what}; export the model again with this version")
    return settings


def choose_form(path: Path, present: Iterable[str], form: str | None) -> str:
    """The requested form, or the first of those present.

    Raises:
        UsageError: the form is not present, or this CPU does not support its precision natively.
    """
    usable = [name for name in present if name in FORMS]
    if form is None and usable:
        return usable[0]
    usable += [name for name, graph in RUN_TIME_FORMS.items() if graph in usable]
    if form not in usable:
        raise UsageError(f"{path}: this export has no form '{form}'; it has {', '.join(usable) or 'none'}")
    require_native(ENGINES[form])
    return form


def graph_of(form: str) -> str:
    """The graph file of a form, relative to the export folder."""
    return FORMS[RUN_TIME_FORMS.get(form, form)]


def graph_files(graph: Path) -> tuple[Path, ...]:
    """A graph's file and those beside it with its weights: the `.bin` of OpenVINO, the external data of ONNX."""
    beside = graph.with_suffix(".bin"), graph.with_name(f"{graph.name}{EXTERNAL}")
    return (graph, *(file for file in beside if file.is_file()))


def is_read(name: str, form: str) -> bool:
    """Whether a session of a form needs a file of the export folder: not PyTorch's weights and not the graphs of other forms."""
    graphs = {PurePosixPath(graph).parent for graph in FORMS.values()} - {PurePosixPath(graph_of(form)).parent}
    return name != WEIGHTS and PurePosixPath(name).parent not in graphs


def read_tokenizer(file: Path, max_seq_len: int) -> Any:
    """A `tokenizers.Tokenizer` that cuts at `max_seq_len` and never pads.

    Raises:
        UsageError: the file is missing or damaged.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception for a missing or damaged file
        raise UsageError(f"{file}: cannot be read ({error}); export the model again") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_seq_len)
    return tokenizer


def token_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, with special tokens."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
