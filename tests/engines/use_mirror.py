"""Uses the engine that `test_adding.py` added to a copy of the package; prints the results as JSON.

Run as `python use_mirror.py TEACHER CORPUS SCRATCH`.
"""

import json
import sys
from pathlib import Path

import numpy as np

import kdnas
from kdnas.arguments import command_help
from kdnas.commands import load_command
from kdnas.evaluation.suite_options import ENGINES as SCORED_BY
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.folder import read_settings
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.latency.measure import worker_setup
from kdnas.latency.process import Worker
from kdnas.latency.protocol import LatencyOptions, stratify
from kdnas.latency.speed import SpeedOptions, _sessions
from kdnas.models.teacher import resolve_teacher
from kdnas.text.corpus import build_corpus
from kdnas.text.readers import TextOptions

TEXTS = ["a", "the sum of all elements of an array along the given axis"]


def main(folder: str, corpus: str, scratch: Path) -> None:
    """Export with the engine, run it, time it."""
    teacher = resolve_teacher(folder)
    built = build_corpus(scratch, corpus, TextOptions(seq_len=64, validation_fraction=0.2), teacher)
    options = ExportOptions(8, 8, forms=("mirror-f32", "onnxruntime-f32"))
    exported = run_export(scratch, teacher.path, open_checkpoint(folder).digest, built, options).path
    answers = {form: Session(exported, form, threads=1).predict(TEXTS) for form in options.forms}
    timed = LatencyOptions(engine="mirror-f32", threads=1)
    setup = worker_setup(scratch / "table", teacher, stratify(np.array([4, 9])), timed)
    with Worker(setup) as worker:
        worker.start()
        window = worker.ask({"arch": "3,12,288,384,gelu"})
    seen = {
        "package": str(Path(kdnas.__file__).resolve().parents[1]),
        "help": command_help("latency-table", load_command("latency-table"), 100),
        "suites": list(SCORED_BY),
        "forms": sorted(read_settings(exported)["forms"]),
        "speed": [session.form for session in _sessions(exported, SpeedOptions(threads=1))],
        "same": bool(np.array_equal(answers["mirror-f32"], answers["onnxruntime-f32"])),
        "times_ms": window["times_ms"],
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
