"""`Session.run` against direct calls of OpenVINO's compiled model, interleaved. Prints one JSON object.

Run as `python tests/bench/session_overhead.py [EXPORT_FOLDER [ROUNDS]]`; the default is the export of `make pipeline`.
"""

import gc
import json
import sys
import time
from pathlib import Path

import numpy as np
import openvino

from kdnas.export.folder import FORMS
from kdnas.export.session import Session
from kdnas.store.host import host_line

LENGTHS = (8, 16, 32, 64)
CALLS = 50


def by_hand(folder: Path, form: str, threads: int) -> "tuple[openvino.CompiledModel, list[str]]":
    """Direct use of OpenVINO with the same settings: the compiled model and its input names."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(str(folder / FORMS[form]), "CPU", settings)
    return compiled, [port.get_any_name() for port in compiled.inputs]


def milliseconds(call: object, *arguments: object) -> float:
    """Mean time of CALLS calls."""
    start = time.perf_counter_ns()
    for _ in range(CALLS):
        call(*arguments)  # type: ignore[operator]
    return (time.perf_counter_ns() - start) / 1e6 / CALLS


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "artifacts/latest/encoder")
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    if not folder.is_dir():
        sys.exit(f"{folder}: no export found; run `make pipeline` first, or give the folder of an export")
    session = Session(folder, "openvino-int8", threads=1)
    compiled, names = by_hand(folder, session.form, 1)
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    gc.disable()
    for length in LENGTHS:
        ids, mask = np.full((1, length), session.pad_id + 7, dtype=np.int64), np.ones((1, length), dtype=np.int64)
        feeds = {name: {"input_ids": ids, "attention_mask": mask}.get(name, np.zeros_like(ids)) for name in names}
        pairs = []
        for number in range(rounds + 1):
            ours, theirs = (session.run, ids, mask), (compiled, feeds)
            if rng.random() < 0.5:
                pairs.append((milliseconds(*ours), milliseconds(*theirs)))
            else:
                pairs.append((milliseconds(*theirs), milliseconds(*ours))[::-1])
            if number == 0:
                pairs.clear()  # the first run of a shape is slow
        ratios = [ours_ms / hand_ms for ours_ms, hand_ms in pairs]
        low, middle, high = np.percentile(ratios, [5, 50, 95])
        found[str(length)] = {
            "session_ms": round(float(np.median([pair[0] for pair in pairs])), 4),
            "by_hand_ms": round(float(np.median([pair[1] for pair in pairs])), 4),
            "ratio": round(float(middle), 4),
            "ratio_low": round(float(low), 4),
            "ratio_high": round(float(high), 4),
        }
    print(json.dumps({"host": host_line(), "form": session.form, "rounds": rounds, "lengths": found}, indent=1))


if __name__ == "__main__":
    main()
