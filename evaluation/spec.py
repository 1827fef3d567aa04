"""What a downstream task is: its rows, columns, splits, languages, metric and hyperparameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdnas.evaluation.hub_revisions import HUB_REVISIONS
from kdnas.evaluation.kinds import TaskKind


@dataclass(frozen=True)
class Source:
    """Source of rows: a data set on the hub, and a folder below `--data_root` with the same columns.

    Args:
        hub: hub id (owner/name); empty if the hub does not have the set with these columns.
        folder: folder below the data root.
        config: configuration of the hub's set; `{language}` is replaced by the language's name in the set.
        file: file name of a split in the folder, without .jsonl.gz; `{split}`, `{code}` and `{language}` are replaced.
        by_id: whether the hub's set mixes all languages, and `id` begins with the language's name.
        hub_splits: name on the hub of each split that has another name there; `{language}` is replaced.
        hub_files: file of each split on the hub, for a set whose files have different columns; empty lets `datasets` find them.
        names: name of a language in the set by its code, for those whose name is not the code.
        pair_id: column of the number that a row and its translations have in common; empty if rows are not translations.
    """

    hub: str
    folder: str
    config: str | None = None
    file: str = "{split}"
    by_id: bool = False
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    hub_files: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    pair_id: str = ""

    @property
    def revision(self) -> str | None:
        """Commit or branch of the hub's set; None reads the newest rows."""
        return HUB_REVISIONS.get(self.hub)

    def name_of(self, code: str) -> str:
        """The language's name in the set."""
        return self.names.get(code, code)


@dataclass(frozen=True)
class StandIn:
    """Replacement for a split that is missing or has no labels locally. Reports state it in a note.

    Args:
        source: source of the rows.
        split: name of the split there.
        note: the note.
        languages: codes of the languages that it has; empty for those of the task.
    """

    source: Source
    split: str
    note: str
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """The rows of one language of a task that are read as another task reads them.

    Args:
        language: code of the language.
        task: the other task, with its source, columns and classes.
        splits: names of its splits for train, dev and test; None reads the split from the task's own source.
    """

    language: str
    task: "Spec"
    splits: tuple[str | None, str | None, str | None]


@dataclass(frozen=True)
class Spec:
    """One task of a suite.

    Args:
        name: name as `suite/task`.
        source: source of the rows.
        columns: columns of the input: one text, two texts, the words, or question and context.
        target: column of the label; of several columns the values are joined by spaces.
        kind: kind of the task.
        labels: class names, in the order of their numbers.
        metric: the main metric, one of the scores of its kind.
        learning_rate: learning rate of the paper's Table 5 for this suite.
        epochs: epochs of the same table.
        seq_len: maximum number of tokens in an input.
        splits: names of the train, dev and test splits; if the second is None, dev is a tenth of train.
        languages: codes of the languages that are scored; empty for a set with one language.
        taught: codes of the languages of the train and dev rows; empty for all that are scored.
        classes: class number of each label in the data; empty if the labels are class numbers. Of tags, only those that change.
        otherwise: class of labels that are not in `classes`; None refuses them.
        positive: positive class of the binary metrics; None for other tasks.
        stand_ins: replacement for a missing local split, by `train` or `test`.
        group: column by whose values scores are also reported, for example the topic of an insult; empty for none.
        parts: languages whose rows come from other tasks.
    """

    name: str
    source: Source
    columns: tuple[str, ...]
    target: str | tuple[str, ...]
    kind: TaskKind
    labels: tuple[str, ...]
    metric: str
    learning_rate: float
    epochs: int
    seq_len: int = 128
    splits: tuple[str, str | None, str] = ("train", None, "validation")
    languages: tuple[str, ...] = ()
    taught: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    otherwise: int | None = None
    positive: int | None = None
    stand_ins: Mapping[str, StandIn] = field(default_factory=dict)
    group: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def suite(self) -> str:
        return self.name.partition("/")[0]

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of the label."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def taught_languages(self) -> tuple[str, ...]:
        """Languages of the train and dev rows; empty for a set with one language."""
        return self.taught or self.languages

    @property
    def teachable(self) -> tuple[str, ...]:
        """Languages that may be taught: those of the set, and of the parts with train rows."""
        parts = [part.language for part in self.parts if part.splits[0]]
        return tuple(dict.fromkeys([*self.taught, *self.languages, *parts]))

    def part(self, language: str, index: int) -> Part | None:
        """The part that has the rows of a language in split 0 (train), 1 (dev) or 2 (test); None if they are the task's own."""
        return next((part for part in self.parts if part.language == language and part.splits[index]), None)
