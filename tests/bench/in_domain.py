"""Does a student that learns from the texts of a domain find more there than its general teacher?

Run as `python tests/bench/in_domain.py DOCUMENTS GENERAL [STEPS]`, with whole documents in the columns `text`, `title` and
`lang`, and a corpus of general text. A student of the packaged teacher is distilled on the general text for 1.5 times STEPS
(default 200), then on the train documents, with several weights of the contrastive term. A fifth of the documents is held out.
Prints, for the teacher and each student, recall@1 of the start of the body by the title, and of the next passage by the
passage before it, among those of all held-out documents, with the standard error of the difference from the teacher.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.evaluation.embedder import Embedder, open_embedder
from kdnas.evaluation.embedding_metrics import best
from kdnas.models.arch import Arch
from kdnas.models.folder import model_digest
from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.host import host_line
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

ARCH = Arch.parse("3,12,384,384,gelu")
TEXT = TextOptions(languages=("en",), passages=True, title="title", seq_len=64, validation_fraction=0.2)
WEIGHTS = (1.0, 0.0)  # of the contrastive term
COMMON = {"objective": "embedding", "batch_tokens": 2048, "validations": 1, "pair_fraction": 0.0}


def held_out(corpus: Corpus) -> dict[str, tuple[list[str], list[str]]]:
    """Queries and their documents: the first two rows of each group, and the second and third."""
    split = corpus.validation
    groups = split.groups.numbers()
    starts = np.flatnonzero(np.insert(groups[1:] != groups[:-1], 0, True))
    starts = starts[np.diff(np.append(starts, len(groups))) >= 3]
    pairs = {"title": (starts, starts + 1), "passage": (starts + 1, starts + 2)}
    return {name: (split.texts.at(one), split.texts.at(other)) for name, (one, other) in pairs.items()}


def hits(model: Embedder, queries: list[str], documents: list[str]) -> np.ndarray:
    """Whether the best document of each query is its own, (Q,)."""
    scores = model.vectors(queries) @ model.vectors(documents).T
    return np.asarray(best(scores, 1)[:, 0] == np.arange(len(queries)))


def main(documents: str, general: str, steps: int) -> None:
    """Print the table."""
    teacher = resolve_teacher(BUILTIN)
    print(host_line())
    print("| model | title to body | difference | passage to next | difference | minutes |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        domain = build_corpus(home, documents, TEXT, teacher)
        texts = held_out(domain)
        sides = {name: hits(open_embedder(BUILTIN, "pytorch", home), *pair) for name, pair in texts.items()}

        def show(name: str, path: Path, seconds: float) -> None:
            model, cells = open_embedder(str(path), "pytorch", home), []
            for kind, pair in texts.items():
                more = hits(model, *pair).astype(float) - sides[kind]
                error = more.std() / np.sqrt(len(more))
                cells += [
                    f"{100 * (sides[kind].mean() + more.mean()):.1f}",
                    f"{100 * more.mean():+.1f} ± {100 * error:.1f}",
                ]
            print(f"| {name} | {' | '.join(cells)} | {seconds / 60:.1f} |", flush=True)

        show("teacher", teacher.path, 0)
        corpus = build_corpus(home, general, TextOptions(max_sentences=30_000), teacher)
        first = DistillOptions(**COMMON, steps=3 * steps // 2)  # type: ignore[arg-type]
        begun = time.monotonic()
        student = run_distill(home, teacher, corpus, ARCH, first).path / "student"
        show("general student", student, time.monotonic() - begun)
        for weight in WEIGHTS:
            options = DistillOptions(**COMMON, steps=steps, peak_lr=4e-4, contrastive_weight=weight)  # type: ignore[arg-type]
            begun = time.monotonic()
            given = (student, model_digest(student))
            made = run_distill(home, teacher, domain, ARCH, options, given).path / "student"
            show(f"in-domain, contrast {weight:g}", made, time.monotonic() - begun)
        counts = f"{len(domain.train):,} train passages, {len(next(iter(texts.values()))[0]):,} held-out documents"
        print(f"\n{ARCH}, {steps} steps on {counts}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 200)
