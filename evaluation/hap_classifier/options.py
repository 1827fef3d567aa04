"""Options of `kdnas hap`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdnas.errors import UsageError
from kdnas.evaluation.suite_options import EmbeddingRows


@dataclass(frozen=True)
class Wanted:
    """What a decision threshold reaches on dev rows.

    Args:
        name: `precision` or `false_positive_rate`.
        value: the value to reach, from 0 to 1.
    """

    name: Literal["precision", "false_positive_rate"]
    value: float


@dataclass(frozen=True)
class HapOptions:
    """Options of `kdnas hap`.

    Args:
        data_root: folder with local copies of the sets, such as `hap/germeval18/train.jsonl.gz`; null downloads from the hub.
        sets: names of the labelled sets; empty takes all.
        leave_out: sets (`tweet_eval_hate`) and language codes (`ko`) that are scored and not trained.
        languages: codes of the languages whose rows are read; empty reads all.
        balance: order of the train rows before `max_per_set` cuts them: `labels`, all patterns of labels in turn, so that rare
            labels are kept; `sets`, at random; `off` also ignores `max_per_set` and trains on all rows.
        max_per_set: maximum number of train rows of each set and language.
        swapped_copies: copies of each train text that names a group, in which another group takes its name.
        word_lists: JSON lines with `lang` and `term`; train texts whose profanity is unknown get it from these words.
        teacher: folder of a classifier that `kdnas hap` made; its probabilities label `unlabelled`.
        unlabelled: JSON lines with `text` and optionally `language`, labelled by `teacher` and trained with the sets.
        max_unlabelled: maximum number of unlabelled texts.
        precision: precision on dev rows that each threshold reaches; null if `false_positive_rate` is given.
        false_positive_rate: false-positive rate on dev rows that each threshold keeps, instead of a precision.
        learning_rates: candidates; dev selects one.
        epochs: passes over the train rows; dev selects the best epoch.
        batch_size: approximate number of train rows in a batch, for rows of mean length.
        seq_len: maximum number of tokens in a text.
        embedding_rows: rows of the token embedding table that are trained: `used`, those that occur in the train rows; `frozen`,
            none; `all`.
        max_dev: maximum number of dev rows that select learning rate and epoch, spread evenly over sets and languages; thresholds
            use all dev rows.
        max_test: maximum number of scored test rows of each set and language, and of the dev rows that give calibration and
            thresholds; they are a random sample; null uses all.
        max_minutes: maximum minutes of training and scoring; the time for scoring the rows is set aside, then epochs, learning
            rates and rows are reduced to fit, based on the measured throughput of both; the functional suite comes on top; null
            sets no limit.
        seed: seed of the head, dropout, samples and copies.
    """

    data_root: Path | None = None
    sets: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    balance: Literal["labels", "sets", "off"] = "labels"
    max_per_set: int = 6000
    swapped_copies: int = 0
    word_lists: Path | None = None
    teacher: Path | None = None
    unlabelled: Path | None = None
    max_unlabelled: int = 20_000
    precision: float | None = 0.9
    false_positive_rate: float | None = None
    learning_rates: tuple[float, ...] = (1e-4, 2e-5)
    epochs: int = 3
    batch_size: int = 32
    seq_len: int = 128
    embedding_rows: EmbeddingRows = "used"
    max_dev: int = 2000
    max_test: int | None = None
    max_minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {
            "max_per_set": 20,
            "swapped_copies": 0,
            "max_unlabelled": 1,
            "epochs": 1,
            "batch_size": 1,
            "seq_len": 8,
        }
        for name, value in {**least, "max_dev": 20, "seed": 0}.items():
            if getattr(self, name) < value:
                raise UsageError(f"{name} is {getattr(self, name)}; at least {value} is needed")
        if self.max_test is not None and self.max_test < 10:
            raise UsageError(f"max_test is {self.max_test}; at least 10 is needed")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise UsageError(f"max_minutes is {self.max_minutes}; more than 0 is needed")
        if not self.learning_rates or not all(0 < rate < 1 for rate in self.learning_rates):
            raise UsageError(f"learning_rates is {list(self.learning_rates)}; give one or more numbers between 0 and 1")
        for name in ("precision", "false_positive_rate"):
            given = getattr(self, name)
            if given is not None and not 0 < given <= 1:
                raise UsageError(f"{name} is {given}; it must be above 0 and at most 1")
        if self.precision is None and self.false_positive_rate is None:
            raise UsageError("precision and false_positive_rate are null; give one of them")
        if (self.teacher is None) != (self.unlabelled is None):
            raise UsageError("teacher and unlabelled belong together: give both or neither")
        for name in ("data_root", "teacher"):
            if (folder := getattr(self, name)) is not None and not folder.is_dir():
                raise UsageError(f"{name} '{folder}': no such folder")
        for name in ("word_lists", "unlabelled"):
            if (file := getattr(self, name)) is not None and not file.is_file():
                raise UsageError(f"{name} '{file}': no such file")

    @property
    def wanted(self) -> Wanted:
        """What thresholds reach: the false-positive rate if it is given, else the precision."""
        if self.false_positive_rate is not None:
            return Wanted("false_positive_rate", self.false_positive_rate)
        assert self.precision is not None
        return Wanted("precision", self.precision)
