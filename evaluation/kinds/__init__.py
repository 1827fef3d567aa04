"""The kinds of tasks, one file each. A new kind is one more file and one more name here (docs/extend/task.md)."""

from kdnas.evaluation.kinds.base import TaskKind
from kdnas.evaluation.kinds.classes import Classes
from kdnas.evaluation.kinds.score import Score
from kdnas.evaluation.kinds.spans import Spans
from kdnas.evaluation.kinds.words import Words

__all__ = ["CLASSES", "SCORE", "SPANS", "WORDS", "TaskKind"]
CLASSES, SCORE, WORDS, SPANS = Classes(), Score(), Words(), Spans()
