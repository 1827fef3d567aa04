"""The kinds of tasks, one file each. A new kind is one more file and one more name here (docs/extend/task.md)."""

from kdnas.evaluation.kinds.base import TaskKind
from kdnas.evaluation.kinds.classes import Classes
from kdnas.evaluation.kinds.multilabel import MultiLabel
from kdnas.evaluation.kinds.score import Score
from kdnas.evaluation.kinds.spans import Spans
from kdnas.evaluation.kinds.words import Words

__all__ = ["CLASSES", "MULTI_LABEL", "SCORE", "SPANS", "WORDS", "MultiLabel", "TaskKind"]
CLASSES, MULTI_LABEL, SCORE, WORDS, SPANS = Classes(), MultiLabel(), Score(), Words(), Spans()
