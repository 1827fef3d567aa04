"""Ablations of distillation with equal tokens: the default, and the default with one choice changed.

Run as `python tests/bench/distill_ablations.py CORPUS [STEPS [SEEDS [FOLDER]]]`: it distils one student of the shape
`3,12,384,576,gelu` from the packaged teacher for each choice and seed, as `kdnas distill` does. FOLDER is the home of the
artifacts: the same command resumes there, and two may run in parallel. Prints a table: explained variance of the teacher's
hidden states on held-out single sentences, averaged over the layer pairs and for the last layer, with mean and standard
deviation over the seeds, and the number of seeds in which the choice beats the default.
"""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.errors import KdnasError
from kdnas.models.arch import Arch
from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.store.host import host_line
from kdnas.text.corpus import build_corpus
from kdnas.text.readers import TextOptions

ARCH = Arch(3, 12, 384, 576)
CHOICES: dict[str, dict[str, object]] = {
    "the default": {},
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


def main(corpus: str, steps: int, seeds: int, home: Path) -> None:
    """Train missing students, all choices with one seed before the next seed, and print the table."""
    teacher = resolve_teacher(BUILTIN)
    built = build_corpus(home, corpus, TextOptions(), teacher)
    done: dict[tuple[str, int], Artifact] = {}
    wanted = [(choice, seed) for seed in range(seeds) for choice in CHOICES]
    for later in (False, True):  # the second pass collects what another process was training
        for choice, seed in [key for key in wanted if key not in done]:
            try:
                options = options_of(choice, steps, seed)
                done[choice, seed] = run_distill(home, teacher, built, ARCH, options)
            except KdnasError as error:
                if later:
                    raise
                print(f"{choice}, seed {seed}: {error}", file=sys.stderr)
    found = {choice: [done[choice, seed] for seed in range(seeds)] for choice in CHOICES}
    print(host_line(), f"{steps} steps, threads {os.environ.get('OMP_NUM_THREADS', 'all')}")
    print("\n| choice | tokens | all pairs | last layer | better than the default |\n|---|---:|---:|---:|---:|")
    default = [last_layer(artifact) for artifact in found["the default"]]
    for choice, artifacts in found.items():
        pairs = [artifact.results["explained_variance"] for artifact in artifacts]
        last = [last_layer(artifact) for artifact in artifacts]
        wins = sum(one > other for one, other in zip(last, default, strict=True))
        tokens = round(mean(artifact.results["tokens"] for artifact in artifacts))
        beats = "" if choice == "the default" else f"{wins} of {len(last)}"
        print(f"| {choice} | {tokens:,} | {spread(pairs)} | {spread(last)} | {beats} |")


def last_layer(artifact: Artifact) -> float:
    """Explained fraction of the teacher's states that are the targets of the last student layer."""
    layers = artifact.results["explained_variance_layers"]
    return float(layers[max(layers, key=int)])


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    given = sys.argv[1:]
    folder = Path(given[3]) if len(given) > 3 else Path(tempfile.mkdtemp())
    main(given[0], int(given[1]) if len(given) > 1 else 80, int(given[2]) if len(given) > 2 else 3, folder)
