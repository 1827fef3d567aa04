"""Options of `kdnas suites`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdnas.errors import UsageError
from kdnas.models.engine import session_engines

TRAINED = "pytorch"  # the fine-tuned model itself, without export
ENGINES = (TRAINED, *session_engines())
EmbeddingRows = Literal["used", "frozen", "all"]


@dataclass(frozen=True)
class SuiteOptions:
    """Options of fine-tuning and scoring.

    Args:
        data_root: folder with local copies of the data sets, such as `glue/sst2/train.jsonl.gz`; null downloads from the hub.
        taught: codes of the languages to train on, such as `en`; empty keeps each task's own.
        languages: codes of the languages to score, such as `de,sw`; empty scores all that a task has.
        seeds: seeds of heads, dropout and row order; each seed is a separate run.
        engines: engines that score the model: `pytorch` or forms of `kdnas export`; give several to compare their scores.
        learning_rates: candidates; the first seed tries them all, and every seed uses the one that is best on dev; empty tries
            the paper's rate and five times that rate.
        epochs: passes over the train rows; null uses the number in the paper's Table 5.
        batch_size: approximate number of train rows in a batch, for rows of mean length.
        embedding_rows: rows of the token embedding table that are trained: `used`, those that occur in the train rows; `frozen`,
            none; `all`, also those that never occur, which only weight decay changes: much slower with a large vocabulary.
        max_examples: maximum number of train rows, a random sample spread evenly over languages; null uses all.
        max_test: maximum number of scored test rows for each language, and of the dev rows that choose the threshold of a binary
            task; they are a random sample; null uses all.
        precision: precision on dev that the reported decision threshold of a binary task reaches.
        teacher: teacher of the model, for the tasks of `embeddings` alone: its own scores, those of the model's queries on the
            teacher's documents, and the recall@10 of its neighbours.
        dimensions: shorter widths at which vectors are scored, too, for the tasks of `embeddings` alone.
        quantise_vectors: precisions in which vectors are scored, too, `int8` and `binary`, for the tasks of `embeddings` alone.
        max_minutes: maximum minutes of training and scoring for each task and seed; the time for scoring the test rows is set
            aside, then epochs and rows are reduced to fit, based on the measured throughput of both; the export for other
            engines comes on top; null sets no limit.
    """

    data_root: Path | None = None
    taught: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    engines: tuple[str, ...] = (TRAINED,)
    learning_rates: tuple[float, ...] = ()
    epochs: int | None = None
    batch_size: int = 32
    embedding_rows: EmbeddingRows = "used"
    max_examples: int | None = None
    max_test: int | None = None
    precision: float = 0.9
    max_minutes: float | None = None
    teacher: str | None = None
    dimensions: tuple[int, ...] = ()
    quantise_vectors: tuple[Literal["int8", "binary"], ...] = ()

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds is {list(self.seeds)}; give one or more different numbers of at least 0")
        if unknown := set(self.engines) - set(ENGINES) or not self.engines:
            raise UsageError(f"engines has {unknown or 'none'}; allowed are {', '.join(ENGINES)}")
        if not all(0 < rate < 1 for rate in self.learning_rates):
            raise UsageError(f"learning_rates is {list(self.learning_rates)}; give numbers between 0 and 1, as 2e-5")
        for name, least in {"epochs": 1, "batch_size": 1, "max_examples": 100, "max_test": 10}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}; at least {least} is needed")
        if self.dimensions and min(self.dimensions) < 1:
            raise UsageError(f"dimensions is {list(self.dimensions)}; give numbers of at least 1")
        if strange := [name for name in self.quantise_vectors if name not in ("int8", "binary")]:
            raise UsageError(f"quantise_vectors has {', '.join(strange)}; allowed are int8, binary")
        if not 0 < self.precision <= 1:
            raise UsageError(f"precision is {self.precision}; it must be above 0 and at most 1")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise UsageError(f"max_minutes is {self.max_minutes}; more than 0 is needed")
        if self.data_root is not None and not self.data_root.is_dir():
            raise UsageError(f"data_root '{self.data_root}': no such folder")
