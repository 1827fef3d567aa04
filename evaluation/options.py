"""Options of `kdnas evaluate`."""

from dataclasses import dataclass
from pathlib import Path

from kdnas.errors import UsageError

SMALL_RATES, LARGE_RATES = (2e-4, 4e-4), (5e-5, 1e-4)


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of the evaluation.

    Args:
        hap: labelled HAP texts: a .jsonl[.gz] file or a folder of them, with columns `tweet` and `class` or `text` and `label`;
            null skips the HAP task.
        minutes: time budget of the whole evaluation in minutes; measured throughput turns it into rows and epochs.
        seed: seed of samples, splits, heads, dropout and row order.
        sentences: number of validation sentences for explained variance and recall@10.
        map_sentences: number of train sentences on which the linear map from student to teacher is fitted.
        retrieval_queries: maximum number of validation sentences that must find the one after them.
        topics: number of topics in the topic task; it uses the most frequent topics of the corpus.
        topic_train: maximum number of train and dev sentences for each topic.
        topic_test: maximum number of test sentences for each topic.
        hap_examples: maximum number of HAP rows over all splits; null uses all.
        epochs: passes over all rows with each learning rate; null derives the number from `minutes`.
        teacher_learning_rates: candidates for the teacher; only the first is used if the time allows one; null uses 2e-4 and
            4e-4 for hidden sizes up to 384, and 5e-5 and 1e-4 above, because small models need larger rates.
        student_learning_rates: candidates for the student; only the first is used if the time allows one.
        batch_tokens: maximum number of padded tokens in a training batch.
    """

    hap: Path | None = None
    minutes: float = 4.0
    seed: int = 0
    sentences: int = 4000
    map_sentences: int = 3000
    retrieval_queries: int = 1000
    topics: int = 12
    topic_train: int = 400
    topic_test: int = 150
    hap_examples: int | None = None
    epochs: int | None = None
    teacher_learning_rates: tuple[float, ...] | None = None
    student_learning_rates: tuple[float, ...] = SMALL_RATES
    batch_tokens: int = 1024

    def __post_init__(self) -> None:
        bounds = {"sentences": 100, "map_sentences": 100, "topics": 2, "topic_train": 20, "topic_test": 5}
        bounds |= {"retrieval_queries": 20, "batch_tokens": 128, "hap_examples": 100, "epochs": 1}
        for name, least in bounds.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}; at least {least} is needed")
        if not self.minutes > 0:
            raise UsageError(f"minutes is {self.minutes}; more than 0 is needed")
        for name in ("teacher_learning_rates", "student_learning_rates"):
            rates = getattr(self, name)
            if rates is None:
                continue
            if not rates or not all(0 < rate < 1 for rate in rates):
                raise UsageError(f"{name} is {list(rates)}; give one or more numbers between 0 and 1")
