"""A process that measures: one JSON line in, one out. It ends when its standard input does, so never outlives its parent.

Run as `python -m latency.worker`. The first line is the setup, `{"engine", "teacher": folder, "graphs", "threads", "seed",
"lengths"}`; the answer holds first windows of the reference. Each further line, `{"arch": "4,12,576,768,gelu"}` or
`{"arch": "teacher"}`, is answered by its times and the reference windows before and after; with `"sentences"` (lengths) and
`"tolerance"`, by one latency a sentence.
"""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, TextIO

FIRST_WINDOWS = 5
TEACHER = "teacher"


def main() -> None:
    """Serve requests until end of file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent closes the pipe
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints stays out of the protocol
    try:
        serve(sys.stdin, answers)
    except BrokenPipeError:
        os._exit(0)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer each line of `requests` on `answers`."""
    first = requests.readline()
    if not first:
        return
    setup = json.loads(first)
    from kdnas.arch import Arch
    from kdnas.teacher import load_config
    from latency.engines import make_models
    from latency.timing import exhaustive, reference_window, window

    config, seed = load_config(Path(setup["teacher"])), setup["seed"]
    models = make_models(setup["engine"], config, seed, setup["threads"], Path(setup["graphs"]))
    inputs = [models.sentence(length, seed) for length in setup["lengths"]]
    middle = inputs[len(inputs) // 2]
    teacher = models.teacher()
    windows = [reference_window(teacher, middle) for _ in range(FIRST_WINDOWS + 1)][1:]
    answer(answers, {"reference_ms": windows})
    before = windows[-1]
    for line in iter(requests.readline, ""):
        start = time.monotonic()
        request = json.loads(line)
        name = request["arch"]
        model = teacher if name == TEACHER else models.student(Arch.parse(name))
        if "sentences" in request:
            items = {length: models.sentence(length, seed) for length in set(request["sentences"])}
            sentences = [items[length] for length in request["sentences"]]
            reference = partial(reference_window, teacher, middle)
            values, again = exhaustive(model, sentences, reference, request["tolerance"])
            answer(answers, {"arch": name, "in_references": [round(value, 5) for value in values], "again": again})
            del model
            continue
        times = window(model, inputs)
        del model
        after = reference_window(teacher, middle)
        answer(
            answers,
            {
                "arch": name,
                "times_ms": [[round(value, 4) for value in row] for row in times],
                "reference_before_ms": round(before, 4),
                "reference_after_ms": round(after, 4),
                "worker_seconds": round(time.monotonic() - start, 3),
            },
        )
        before = after


def answer(out: TextIO, value: dict[str, Any]) -> None:
    """Write one line at once."""
    out.write(json.dumps(value) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
