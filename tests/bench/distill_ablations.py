"""Ablations of distillation with equal tokens: the default, and the default with one choice changed.

Run as `python tests/bench/distill_ablations.py --corpus FILES`; `--help` lists the options. For each choice and seed it distils
one student as `kdnas distill` does. Choices that see the same batches train side by side, so that the teacher runs once for all
of them. `--output` keeps the runs: the same command resumes there. Prints a table: explained variance of the teacher's hidden
states on held-out single sentences, averaged over the layer pairs and for the last layer, with mean and standard deviation over
the seeds, and the number of seeds in which the choice beats the default.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from kdnas.distill.building import settled
from kdnas.distill.fit import finished, results_of
from kdnas.distill.loaded_teacher import LoadedTeacher
from kdnas.distill.options import DistillOptions
from kdnas.distill.side_by_side import Together, share_teacher
from kdnas.distill.stages import begin_distillation
from kdnas.models.arch import Arch
from kdnas.models.teacher import BUILTIN, Teacher, resolve_teacher
from kdnas.store.host import host_line
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

DEFAULT = "the default"
CHOICES: dict[str, dict[str, object]] = {
    DEFAULT: {},
    "random layers, the teacher's embeddings": {"start": "embeddings"},
    "single sentences alone": {"pair_fraction": 0.0},
    "half of the batches pairs": {"pair_fraction": 0.5},
    "relations beside the hidden states, weight 0.3": {"relation_weight": 0.3},
    "embeddings learn at a third of the rate": {"embedding_lr_factor": 0.3},
    "embeddings learn at three times the rate": {"embedding_lr_factor": 3.0},
    "half the learning rate": {"peak_lr": 4e-4},
    "twice the learning rate": {"peak_lr": 1.6e-3},
    "cosine": {"schedule": "cosine"},
    "twice the warm-up": {"warmup_fraction": 0.1},
    "four times the batch, a quarter of the steps": {"batch_tokens": 4096},
    "with dropout": {"dropout": True},
    "raw MSE, as the paper's": {"loss_scale": "mean"},
}


def options_of(choice: str, steps: int, seed: int) -> DistillOptions:
    """Options of one run; larger batches get proportionally fewer steps."""
    plain = DistillOptions(steps=steps, validations=1, validation_sentences=1000, seed=seed)
    found = replace(plain, **CHOICES[choice])  # type: ignore[arg-type]
    return replace(found, steps=steps * plain.batch_tokens // found.batch_tokens)


def run(
    output: Path, home: Path, teacher: Teacher, corpus: Corpus, arch: Arch, runs: dict[str, DistillOptions]
) -> dict[str, dict[str, Any]]:
    """The results of one seed's runs on the same batches; those that are missing train side by side."""
    folders = {choice: output / f"{choice.replace(' ', '-')}-{options.seed}" for choice, options in runs.items()}
    found = {choice: done for choice, folder in folders.items() if (done := finished(folder)) is not None}
    missing = [choice for choice in runs if choice not in found]
    if missing:
        loaded = LoadedTeacher(teacher, corpus, runs[missing[0]])
        begun = {}
        for choice in missing:
            folders[choice].mkdir(parents=True, exist_ok=True)
            begun[choice] = begin_distillation(folders[choice], home, loaded, arch, runs[choice])
        share_teacher(loaded, [one.fitting for one in begun.values()], 1)
        errors = Together([one.fitting for one in begun.values()]).train()
        for (choice, one), error in zip(begun.items(), errors, strict=True):
            if error is not None:
                raise error
            found[choice] = one.finish(results_of(one.fitting))
    return found


def main(given: argparse.Namespace, output: Path) -> None:
    """Train missing students, all choices with one seed before the next seed, and print the table."""
    home, choices = Path(given.home), list(CHOICES) if given.choices is None else [DEFAULT, *given.choices.split(";")]
    teacher, arch = resolve_teacher(given.teacher, home), Arch.parse(given.arch)
    corpus = build_corpus(home, given.corpus, TextOptions(), teacher)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for seed in range(given.seeds):
        groups: dict[tuple[int, float], dict[str, DistillOptions]] = defaultdict(dict)
        for choice in choices:
            options = settled(options_of(choice, given.steps, seed), corpus, teacher)
            groups[options.batch_tokens, options.pair_fraction][choice] = options
        for runs in groups.values():
            for choice, results in run(output, home, teacher, corpus, arch, runs).items():
                found[choice].append(results)
    print(host_line(), f"{given.steps} steps, threads {os.environ.get('OMP_NUM_THREADS', 'all')}")
    print("\n| choice | tokens | all pairs | last layer | better than the default |\n|---|---:|---:|---:|---:|")
    default = [last_layer(results) for results in found[DEFAULT]]
    for choice in choices:
        pairs = [results["explained_variance"] for results in found[choice]]
        last = [last_layer(results) for results in found[choice]]
        wins = sum(one > other for one, other in zip(last, default, strict=True))
        tokens = round(mean(results["tokens"] for results in found[choice]))
        beats = "" if choice == DEFAULT else f"{wins} of {len(last)}"
        print(f"| {choice} | {tokens:,} | {spread(pairs)} | {spread(last)} | {beats} |")


def last_layer(results: dict[str, Any]) -> float:
    """Explained fraction of the teacher's states that are the targets of the last student layer."""
    layers = results["explained_variance_layers"]
    return float(layers[max(layers, key=int)])


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="as in `kdnas distill`")
    parser.add_argument("--teacher", default=BUILTIN, help="as in `kdnas distill`")
    parser.add_argument("--arch", default="3,12,384,576,gelu", help="the students' architecture")
    parser.add_argument("--steps", type=int, default=80, help="updates with the default batch size")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--choices", help=f"names separated by semicolons; by default all: {'; '.join(CHOICES)}")
    parser.add_argument("--home", default="artifacts", help="root of the corpus and the fetched teachers")
    parser.add_argument("--output", help="folder of the runs; by default a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    main(given, Path(given.output or tempfile.mkdtemp()))
