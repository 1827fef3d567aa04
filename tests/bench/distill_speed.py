"""Speed of distillation against a plain loop: real tokens per second, same teacher, student, sentences and threads.

Run as `python tests/bench/distill_speed.py CORPUS [ROUNDS [ARCH]]`; CORPUS is as for `kdnas distill --corpus`. The plain
loop is a simple baseline: float32, a fixed number of sentences per batch in random order, padded to the longest of the batch, a
frozen teacher, `torch.optim.AdamW`, clipped gradients. Ours is the loop of `kdnas distill` with its defaults. The loops
alternate, each in a separate process, so that they do not share memory. The first steps are not timed. Padding is not counted.
Prints the ratios with their spread over the rounds, and a breakdown of our time.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import kdnas.distill.loop as loop
from kdnas.distill.batches import TrainBatches
from kdnas.distill.hidden_state import HiddenStateLoss, HiddenStateObjective, TeacherStates
from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.distill.options import DistillOptions
from kdnas.distill.pairs import Pairs
from kdnas.models.arch import Arch
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import BUILTIN, load_encoder, resolve_teacher
from kdnas.store.host import host_line
from kdnas.text.corpus import build_corpus
from kdnas.text.joining import read_joining
from kdnas.text.readers import TextOptions
from kdnas.text.sentences import Sentences

ARCH = "4,12,576,768,gelu"
SECONDS, WARM_STEPS = 10.0, 6
PLAIN = {"plain loop, 64 sentences": 64, "plain loop, 192 sentences": 192}
OURS = {"kdnas": {}, "kdnas, f32": {"precision": "f32"}, "kdnas, single sentences": {"pair_fraction": 0.0}}
Clock = dict[str, float]


def timed(clock: Clock, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a call so that it adds its seconds to those of this name."""

    def inner(*values: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = call(*values, **options)
        clock[name] = clock.get(name, 0.0) + time.perf_counter() - start
        return result

    return inner


def steady(step: Callable[[], int], clock: Clock) -> tuple[float, Clock]:
    """Real tokens per second after the first steps, and the fraction of the time of each part."""
    for _ in range(WARM_STEPS):
        step()
    clock.clear()
    start, tokens = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        tokens += step()
    spent = time.perf_counter() - start
    return tokens / spent, {name: seconds / spent for name, seconds in clock.items()}


def plain(sentences: Sentences, arch: Arch, count: int) -> Callable[[], int]:
    """Make the step of the plain loop, which returns its number of real tokens."""
    teacher = load_encoder(resolve_teacher(BUILTIN).path)
    student = student_from_teacher(arch, teacher, 0)
    pairs = layer_pairs(arch.layers, teacher.config.num_hidden_layers, Mapping.UNIFORM_LAST)
    maps = torch.nn.ModuleList(torch.nn.Linear(arch.hidden, teacher.config.hidden_size) for _ in pairs)
    parameters = [*student.parameters(), *maps.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=8e-4)
    order = np.random.default_rng(0).permutation(len(sentences))
    indices = iter(np.array_split(order, len(order) // count))

    def step() -> int:
        rows = [sentences[int(index)] for index in next(indices)]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = torch.from_numpy(row.astype(np.int64)), 1
        with torch.no_grad():
            theirs = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        ours = student(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        real = mask.bool()
        loss = sum(
            F.mse_loss(one(ours[layer][real]), theirs[other][real])
            for (layer, other), one in zip(pairs, maps, strict=True)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return int(mask.sum())

    return step


def ours(sentences: Sentences, arch: Arch, settings: dict[str, Any], clock: Clock) -> Callable[[], int]:
    """Make the step of `kdnas distill` with its parts timed, which returns its number of real tokens."""
    options = DistillOptions(**settings)
    accelerator = loop.make_accelerator(options.precision)
    teacher = load_encoder(resolve_teacher(BUILTIN).path)
    student = student_from_teacher(arch, teacher, 0)
    pairs = layer_pairs(arch.layers, teacher.config.num_hidden_layers, Mapping(options.mapping))
    loss = HiddenStateLoss(pairs, arch.hidden, teacher.config.hidden_size, None)
    objective = HiddenStateObjective(student, TeacherStates(teacher, [layer for _, layer in pairs]), loss)
    objective.teacher = timed(clock, "teacher", objective.teacher)
    objective.forward = timed(clock, "teacher, student and loss", objective.forward)
    accelerator.backward = timed(clock, "backward", accelerator.backward)
    optimizer = loop.make_optimizer(objective, options.peak_lr, options.weight_decay)
    joined = Pairs(read_joining(resolve_teacher(BUILTIN).path), 512)
    coming = TrainBatches(sentences, 0, options, joined).after(0, 0)
    made = timed(clock, "batches", lambda: next(coming))
    update = timed(clock, "update", loop.update)

    def step() -> int:
        batch = made()
        loop.backward(objective, accelerator, batch.inputs("cpu"))
        update(optimizer, 8e-4)
        return int(batch.mask.sum())

    return step


def measure(name: str, sentences: Sentences, arch: Arch) -> tuple[float, Clock]:
    """Real tokens per second of one loop, and the fractions of its parts."""
    torch.manual_seed(0)
    loop.use_all_cores()
    clock: Clock = {}
    step = plain(sentences, arch, PLAIN[name]) if name in PLAIN else ours(sentences, arch, OURS[name], clock)
    return steady(step, clock)


def compare(sentences: Sentences, arch: str, rounds: int) -> None:
    """Measure all loops alternately and print."""
    names = [*PLAIN, *OURS]
    found: dict[str, list[tuple[float, Clock]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 else names[::-1]:
            command = [sys.executable, __file__, "one", name, str(sentences.path), arch]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            speed, clock = json.loads(printed.splitlines()[-1])
            found[name].append((speed, clock))
            print(f"  {name}: {speed:,.0f}", file=sys.stderr, flush=True)
    speeds = {name: np.array([speed for speed, _ in values]) for name, values in found.items()}
    for name in names:
        ratios = [np.percentile(speeds[name] / speeds[other], [5, 50, 95]) for other in PLAIN]
        text = "; ".join(f"{middle:.2f} [{low:.2f}, {high:.2f}]" for low, middle, high in ratios)
        print(f"{name:28} {np.median(speeds[name]):7,.0f} real tokens per second; {text} times {', '.join(PLAIN)}")
    parts = {name: np.median([clock[name] for _, clock in found["kdnas"]]) for name in found["kdnas"][0][1]}
    parts["student and loss"] = parts.pop("teacher, student and loss") - parts["teacher"]
    fractions = ", ".join(f"{name} {100 * fraction:.1f} %" for name, fraction in parts.items())
    print(f"time of kdnas by part: {fractions}")


def main(arguments: list[str]) -> None:
    """Run one measurement, or all of them."""
    if arguments[:1] == ["one"]:
        name, path, arch = arguments[1:]
        print(json.dumps(measure(name, Sentences(Path(path), "train"), Arch.parse(arch))))
        return
    with tempfile.TemporaryDirectory() as home:
        corpus = build_corpus(Path(home), arguments[0], TextOptions(), resolve_teacher(BUILTIN))
        print(host_line(), flush=True)
        rounds, arch = (*arguments[1:], *(str(5), ARCH)[len(arguments) - 1 :])
        print(f"{arch} from {BUILTIN}, {arguments[0]}, {rounds} rounds:", flush=True)
        compare(corpus.train, arch, int(rounds))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("skipped: give a corpus, for example text.jsonl.gz or builtin:pydocs")
        sys.exit()
    main(sys.argv[1:])
