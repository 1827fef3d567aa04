"""The models of a comparison: their scores on each task, and how much of the teacher's scores they keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev

from kdnas.evaluation.chance import corrected_retention


@dataclass(frozen=True)
class Cell:
    """Scores of one model on one task, in points (0 to 100).

    Args:
        scores: one score per seed; for a task with several languages the unweighted mean over them.
        metric: metric of the task.
        by_language: all metrics of each language, as means over the seeds; empty for a task with one language.
        seconds: mean seconds of fine-tuning.
        notes: notes on missing or left-out data.
        settings: values of each setting that decides what the scores mean; more than one if the seeds differ.
        pooled: all metrics over the rows of all languages, as means over the seeds.
        chance: score of always predicting the most frequent test label; None if it is not in the results.
        error: standard error of one seed's score over test rows; None if unknown.
        chance_by_language: the main metric of that prediction in each language; empty if it is not in the results.
    """

    scores: tuple[float, ...]
    metric: str
    by_language: Mapping[str, Mapping[str, float]]
    seconds: float
    notes: tuple[str, ...]
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pooled: Mapping[str, float] = field(default_factory=dict)
    chance: float | None = None
    error: float | None = None
    chance_by_language: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return mean(self.scores)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; with one seed the standard error over test rows; None if unknown."""
        return stdev(self.scores) if len(self.scores) > 1 else self.error

    @property
    def near_chance(self) -> bool | None:
        """Whether the score is within two standard deviations of chance, or below it; None if that is unknown."""
        if self.chance is None:
            return None
        if self.deviation is None:
            return True if self.mean <= self.chance else None
        return self.mean - self.chance <= 2 * self.deviation

    def __str__(self) -> str:
        spread = f" ± {stdev(self.scores):.1f}" if len(self.scores) > 1 else ""
        return f"{self.mean:.1f}{spread}"


@dataclass(frozen=True)
class Model:
    """A model with its scores and speed-ups.

    Args:
        name: name in the tables.
        architecture: architecture as `L4-H12-D576-F768-gelu`.
        cells: scores by task name.
        digest: digest of the model's files, as in the manifests.
        speed_ups: speed-up over the first model in PyTorch, by engine: median, 5th and 95th percentile; all three are equal if no
            rounds of both models were timed.
    """

    name: str
    architecture: str
    cells: Mapping[str, Cell]
    digest: str = ""
    speed_ups: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


def retention(teacher: Model, model: Model, without: Sequence[str] = ()) -> float | None:
    """Mean ratio of the model's points to the teacher's over their shared tasks, except `without`; None if no task is shared."""
    shared = [task for task in _shared(teacher, model, without) if teacher.cells[task].mean > 0]
    return mean(model.cells[task].mean / teacher.cells[task].mean for task in shared) if shared else None


def above_chance(teacher: Model, model: Model, task: str) -> float | None:
    """Chance-corrected retention on one task; None without the score of chance, or if the teacher is not above it."""
    whole = teacher.cells[task]
    return None if whole.chance is None else corrected_retention(whole.mean, model.cells[task].mean, whole.chance)


def mean_above_chance(teacher: Model, model: Model, without: Sequence[str] = ()) -> float | None:
    """Mean of `above_chance` over the shared tasks that have it, except `without`; None if there are none."""
    found = [above_chance(teacher, model, task) for task in _shared(teacher, model, without)]
    known = [value for value in found if value is not None]
    return mean(known) if known else None


def tasks_near_chance(teacher: Model) -> list[str]:
    """Tasks on which the teacher's score is within two standard deviations of chance, or below it."""
    return [task for task, cell in teacher.cells.items() if cell.near_chance]


def tuning_speed_up(teacher: Model, model: Model) -> float | None:
    """Ratio of the teacher's fine-tuning time to the model's, over their shared tasks; None without shared tasks."""
    shared = _shared(teacher, model)
    ours = sum(model.cells[task].seconds for task in shared)
    return sum(teacher.cells[task].seconds for task in shared) / ours if ours else None


def _shared(teacher: Model, model: Model, without: Sequence[str] = ()) -> list[str]:
    return [task for task in teacher.cells if task in model.cells and task not in without]
