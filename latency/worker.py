"""The measuring process: one JSON line in, one out. It ends at the end of its input, so it does not outlive its parent.

Run as `python -m kdnas.latency.worker`. The first line is the setup, `{"engine", "teacher": folder, "graphs", "threads", "cpus",
"seed", "lengths", "same_length_fractions"}`; the answer signals readiness. Each further line, `{"arch": "4,12,576,768,gelu"}`
or `{"arch": "teacher"}`, is answered by its times and the reference windows around each sweep; with `"sentences"` (lengths) and
`"tolerance"`, by one latency per sentence.
"""

import json
import os
import random
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from kdnas.latency.lines import answer, serve_lines

FIRST_WINDOWS = 5
TEACHER = "teacher"


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer each line of `requests` on `answers`."""
    first = requests.readline()
    if not first:
        return
    setup = json.loads(first)
    if setup["cpus"]:
        os.sched_setaffinity(0, setup["cpus"])  # before a library counts cores or starts threads
    from kdnas.latency.engines import make_models
    from kdnas.latency.timing import exhaustive, reference_window, window
    from kdnas.models.arch import Arch
    from kdnas.models.engine import engine_of
    from kdnas.models.teacher import load_config

    config, seed = load_config(Path(setup["teacher"])), setup["seed"]
    models = make_models(engine_of(setup["engine"]), config, seed, setup["threads"], Path(setup["graphs"]))
    inputs = [models.sentence(length, seed) for length in setup["lengths"]]
    reference = partial(reference_window, models.reference(), inputs[len(inputs) // 2])
    for _ in range(FIRST_WINDOWS):
        reference()
    rng = random.Random(seed)
    answer(answers, {"ready": True})
    for line in iter(requests.readline, ""):
        request = json.loads(line)
        name = request["arch"]
        model = models.teacher() if name == TEACHER else models.student(Arch.parse(name))
        if "sentences" in request:
            items = {length: models.sentence(length, seed) for length in set(request["sentences"])}
            sentences = [items[length] for length in request["sentences"]]
            values, level, again = exhaustive(model, sentences, reference, request["tolerance"])
            row = {"in_references": rounded(values, 5), "reference_ms": round(level, 4), "again": again}
        else:
            times, references = window(model, inputs, reference, rng, setup["same_length_fractions"])
            row = {"times_ms": [rounded(sweep, 4) for sweep in times], "references_ms": rounded(references, 4)}
            row |= {name: rounded(values, 4) for name, values in columns(models, model, inputs).items()}
        answer(answers, {"arch": name, **row})
        del model


def columns(models: Any, model: Any, inputs: list[Any]) -> dict[str, list[float]]:
    """Additional measurements of an engine besides wall time: on a GPU, `graph_ms` and `device_ms`."""
    return dict(models.columns(model, inputs)) if hasattr(models, "columns") else {}


def rounded(values: list[float], digits: int) -> list[float]:
    """Values rounded to the clock's resolution."""
    return [round(value, digits) for value in values]


if __name__ == "__main__":
    serve_lines(serve)
