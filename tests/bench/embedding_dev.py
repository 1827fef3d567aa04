"""Development scores of students that learn embeddings: recipes and architectures are compared here, never on reported rows.

Run as `python tests/bench/embedding_dev.py DATA HOME CORPUS MODEL...` with the corpus of the distillation (several files
separated by commas), the home that has it, and folders of students of the packaged teacher. Texts are read as by
`kdnas distill --text.passages true --text.seq-len 256`.

Prints for each student, against its teacher: mean cosine and recall@10 of neighbours on 2,000 held-out texts of the corpus, and
retention on the train rows of STS-B (Spearman), MRPC (average precision) and TyDi QA in English (nDCG@10 of 1,000 questions and
their paragraphs), symmetric and with the teacher's documents. The validation and test rows of these tasks are reported by
`kdnas suites --tasks embeddings`, and are not read here.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdnas.evaluation.embedder import Embedder, open_embedder
from kdnas.evaluation.embedding_tasks import EmbeddingTask, Texts, chosen_tasks, read_texts
from kdnas.evaluation.metrics import recall_at_k
from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.host import host_line
from kdnas.text.corpus import build_corpus
from kdnas.text.readers import TextOptions

TEXT = TextOptions(passages=True, seq_len=256)
TASKS = ("embeddings/stsb", "embeddings/mrpc", "embeddings/tydi")
HELD_OUT, QUERIES, NEIGHBOURS = 2000, 1000, 10


def dev_tasks(data: Path) -> list[tuple[EmbeddingTask, Texts]]:
    """The train rows of the tasks that have some."""
    tasks = [replace(task, split="train") for task in chosen_tasks(TASKS)]
    return [(task, next(iter(read_texts(task, data, ("en",), QUERIES)[0].values()))) for task in tasks]


def vectors(model: Embedder, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the queries and of the documents."""
    return model.vectors(texts.queries), model.vectors(texts.documents)


def main(data: Path, home: Path, corpus: str, models: list[str]) -> None:
    """Print the table."""
    teacher = resolve_teacher(BUILTIN)
    split = build_corpus(home, corpus, TEXT, teacher).validation
    chosen = np.random.default_rng(0).permutation(len(split))[:HELD_OUT]
    held_out, tasks = split.texts.at(chosen), dev_tasks(data)
    model = open_embedder(BUILTIN, "pytorch", home)
    near, wanted = model.vectors(held_out), [vectors(model, texts) for _, texts in tasks]
    print(host_line())
    names = [name for task, _ in tasks for name in (task.name, *(["its asymmetric"] if not task.paired else []))]
    print("| model | cosine | recall@10 |", " | ".join(names), "|")
    print("|---|---:|---:|", "---:|" * len(names))
    for path in models:
        model = open_embedder(path, "pytorch", home)
        ours = model.vectors(held_out)
        cells = [f"{(ours * near).sum(1).mean():.4f}", f"{recall_at_k(near, ours, NEIGHBOURS).mean():.3f}"]
        for (task, texts), (their_queries, their_documents) in zip(tasks, wanted, strict=True):
            queries, documents = vectors(model, texts)
            whole = task.scores(their_queries, their_documents, texts.truth, None, "float32")[task.metric]
            for other in [documents] if task.paired else [documents, their_documents]:
                score = task.scores(queries, other, texts.truth, None, "float32")[task.metric]
                cells.append(f"{100 * score:.2f} ({100 * score / whole:.1f} %)")
        print(f"| {Path(path).name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
