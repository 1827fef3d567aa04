"""Tasks in English: GLUE, SQuAD and CoNLL-2003."""

from collections.abc import Mapping

from kdnas.evaluation.kinds import CLASSES, SCORE, SPANS, WORDS
from kdnas.evaluation.spec import Source, Spec, StandIn

NER = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
MISC = ("B-MISC", "I-MISC")
NLI = ("entailment", "neutral", "contradiction")
PAIR = ("sentence1", "sentence2")


def _glue(
    task: str,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    metric: str,
    test: str = "validation",
    epochs: int = 3,
    stand_ins: Mapping[str, StandIn] | None = None,
) -> Spec:
    """A GLUE task. As usual, the official validation split replaces the hidden test split; dev is cut from train."""
    kind = SCORE if task == "stsb" else CLASSES
    source = Source("nyu-mll/glue", f"glue/{task}", task)
    return Spec(
        f"glue/{task}", source, columns, "label", kind, labels, metric, 2e-5, epochs,
        splits=("train", None, test), stand_ins=stand_ins or {},
        positive=1 if metric == "binary_f1" else None,
    )  # fmt: skip


SQUAD_HALF = StandIn(
    Source("", "squad_v2"),
    "validation_half",
    "trained and scored on parts of half of SQuAD 2.0's validation split, without unanswerable questions; no SQuAD train split",
)
CONLL_2003 = Spec(
    "conll/2003", Source("eriktks/conll2003", "ner/conll2003", "conll2003"), ("tokens",), "ner_tags",
    WORDS, NER + MISC, "entity_f1", 5e-5, 3, splits=("train", "validation", "test"),
)  # fmt: skip

ENGLISH = (
    _glue("mnli", ("premise", "hypothesis"), NLI, "accuracy", "validation_matched"),
    _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), "binary_f1"),
    _glue("qnli", ("question", "sentence"), ("entailment", "not_entailment"), "accuracy"),
    _glue("sst2", ("sentence",), ("negative", "positive"), "accuracy"),
    _glue("cola", ("sentence",), ("unacceptable", "acceptable"), "matthews", epochs=10),
    _glue("stsb", PAIR, ("score",), "pearson_spearman"),
    _glue("mrpc", PAIR, ("not_equivalent", "equivalent"), "binary_f1"),
    _glue("rte", PAIR, ("entailment", "not_entailment"), "accuracy"),
    Spec(
        "squad/v1", Source("rajpurkar/squad", "squad"), ("question", "context"), "answers", SPANS, (), "answer_f1",
        3e-5, 6, 384, stand_ins={"train": SQUAD_HALF, "test": SQUAD_HALF},
    ),
    CONLL_2003,
)  # fmt: skip
