"""One text at a time through our session, Optimum's model classes and sentence-transformers, with the same graph and threads.

Run as `python tests/bench/peers.py [EXPORT_FOLDER [ROUNDS]]`; the default is the export of `make pipeline`. All
alternate in one run. Prints the median times of each for a text of about 20 tokens, from text to vector; for 32 tokens, from ids
to hidden states; and for 24 texts of 6 to 60 tokens one after the other, from ids to hidden states.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openvino
import torch
from export_speed import take_turns

from kdnas.export.folder import FORMS
from kdnas.export.session import Session
from kdnas.export.silence import silence_exporters
from kdnas.store.host import default_threads, host_line

TEXT = "Returns the inverse of a square matrix, or raises an error where the determinant is zero or nearly so."
FORM_PAIRS = {"openvino": "openvino-f32", "onnx": "onnxruntime-f32"}


def text_calls(folder: Path) -> dict[str, Callable[[], Any]]:
    """Calls from text to a mean-pooled vector, in float32."""
    from sentence_transformers import SentenceTransformer

    calls: dict[str, Callable[[], Any]] = {}
    threads = default_threads()
    encoding: Any = {"normalize_embeddings": True, "show_progress_bar": False}
    for backend, form in FORM_PAIRS.items():
        session = Session(folder, form, threads, verify=False)
        calls[f"{form}, ours"] = partial(session.predict, [TEXT])
        if form.startswith("onnx"):
            spinning = Session(folder, form, threads, verify=False, spin=True)
            calls[f"{form}, ours with spin"] = partial(spinning.predict, [TEXT])
        options = openvino_options(threads) if backend == "openvino" else {"session_options": onnx_options(threads)}
        model = SentenceTransformer(str(folder), backend=backend, model_kwargs=options, device="cpu")  # type: ignore[arg-type]
        calls[f"{form}, sentence-transformers"] = partial(model.encode, [TEXT], **encoding)
    model = SentenceTransformer(str(folder), device="cpu")
    calls["pytorch, sentence-transformers"] = partial(model.encode, [TEXT], **encoding)
    return calls


def id_calls(folder: Path, lengths: Sequence[int]) -> dict[str, Callable[[], Any]]:
    """Calls from ids to hidden states, in every form; one call runs texts of these lengths one after the other."""
    from optimum.intel import OVModelForFeatureExtraction
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    threads = default_threads()
    rng = np.random.default_rng(0)
    rows = [rng.integers(1000, 2000, (1, length)) for length in lengths]
    arrays = [{"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids} for ids in rows]
    tensors = [{name: torch.from_numpy(value) for name, value in feeds.items()} for feeds in arrays]
    calls: dict[str, Callable[[], Any]] = {}
    for form, graph in FORMS.items():
        for spin in (False, True) if form.startswith("onnx") else (False,):
            session = Session(folder, form, threads, verify=False, spin=spin)
            padded = [session.pad(ids) for ids in rows]
            calls[f"{form}, ours{' with spin' if spin else ''}"] = partial(_each, session.run, padded)
        where = (folder / graph).parent
        if form.startswith("openvino"):
            peer = OVModelForFeatureExtraction.from_pretrained(where, **openvino_options(threads))
            compiled = openvino.Core().compile_model(str(folder / graph), "CPU", openvino_options(threads)["ov_config"])
            names = [port.get_any_name() for port in compiled.inputs]
            by_hand = [({name: feeds[name] for name in names},) for feeds in arrays]
            calls[f"{form}, by hand"] = partial(_each, compiled, by_hand)
        else:
            peer = ORTModelForFeatureExtraction.from_pretrained(where, session_options=onnx_options(threads))
        calls[f"{form}, Optimum"] = partial(_each_named, peer, tensors)
    return calls


def _each(call: Callable[..., Any], inputs: Sequence[Sequence[Any]]) -> None:
    for item in inputs:
        call(*item)


def _each_named(call: Callable[..., Any], inputs: Sequence[dict[str, Any]]) -> None:
    for item in inputs:
        call(**item)


def openvino_options(threads: int) -> dict[str, Any]:
    """Our settings, for Optimum's classes."""
    return {
        "ov_config": {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "f32",
        }
    }


def onnx_options(threads: int) -> Any:
    """The same number of threads for ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


def compare(title: str, calls: dict[str, Callable[[], Any]], rounds: int) -> None:
    """Time all alternately and print."""
    took = take_turns(calls, rounds)
    print(title)
    for name, values in sorted(took.items()):
        shown = f"  {name:34} {median(values):6.3f} ms"
        if ours := took.get(f"{name.split(',')[0]}, ours"):
            low, middle, high = np.percentile(np.array(values) / np.array(ours), [5, 50, 95])
            shown += f"; {middle:.2f} [{low:.2f}, {high:.2f}] times ours"
        print(shown, flush=True)


def main() -> None:
    """Load, check that all outputs agree, time and print."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "artifacts/latest/encoder")
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    if not folder.is_dir():
        sys.exit(f"{folder}: no export found; run `make pipeline` first, or give the folder of an export")
    print(host_line(), flush=True)
    torch.set_num_threads(default_threads())
    with silence_exporters():
        texts = text_calls(folder)
        one = id_calls(folder, [32])
        mixed = id_calls(folder, np.random.default_rng(1).integers(6, 61, 24).tolist())
    vectors = [np.asarray(call()) for call in texts.values()]
    assert all(np.abs(vector - vectors[0]).max() < 1e-4 for vector in vectors), "outputs of the libraries differ"
    gc.disable()
    with torch.inference_mode():
        compare(f"from text to vector, {len(TEXT.split())} words", texts, rounds)
        compare("from ids to states, 32 tokens", one, rounds)
        compare("from ids to states, 24 texts of 6 to 60 tokens", mixed, rounds)


if __name__ == "__main__":
    main()
