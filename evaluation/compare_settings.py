"""Settings in which the models of a comparison differ. Scores under different settings say little about the models."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdnas.errors import UsageError
from kdnas.evaluation.compare_models import Model
from kdnas.store.progress import say


@dataclass(frozen=True)
class Difference:
    """A setting in which models differ on some tasks.

    Args:
        setting: name of the setting.
        values: value of each model, empty if the model has no results for these tasks or does not record the setting.
        tasks: the tasks.
    """

    setting: str
    values: tuple[str, ...]
    tasks: tuple[str, ...]


def differences(models: Sequence[Model]) -> list[Difference]:
    """Settings that differ between models, or between the seeds of one, on tasks of at least two models."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for task in dict.fromkeys(task for model in models for task in model.cells):
        cells = [model.cells.get(task) for model in models]
        if sum(cell is not None for cell in cells) < 2:
            continue
        for setting in dict.fromkeys(name for cell in cells if cell for name in cell.settings):
            values = [cell.settings.get(setting, ()) if cell else () for cell in cells]
            if len({one for one in values if one}) > 1 or any(len(one) > 1 for one in values):
                found.setdefault((setting, tuple(" or ".join(one) for one in values)), []).append(task)
    return [Difference(setting, values, tuple(tasks)) for (setting, values), tasks in found.items()]


def check_settings(models: Sequence[Model], allow: bool) -> list[Difference]:
    """Check that the models were trained and scored under the same settings; returns the differences if they are allowed.

    Args:
        models: models to compare.
        allow: whether differences only cause a warning.

    Raises:
        UsageError: settings differ; the message names them.
    """
    found = differences(models)
    if not found:
        return found
    lines = "".join(f"\n  {describe(models, one)}" for one in found)
    if not allow:
        raise UsageError(
            f"the models were trained or scored with different settings:{lines}\nrun `kdnas suites` for all models with the "
            "same options and data, or compare them anyway with --allow-different-settings true"
        )
    say(f"warning: the models were trained or scored with different settings:{lines}")
    return found


def describe(models: Sequence[Model], difference: Difference) -> str:
    """A difference in words, as `epochs: teacher 3, student 1 (glue/sst2)`."""
    pairs = zip(models, difference.values, strict=True)
    values = ", ".join(f"{model.name} {value}" for model, value in pairs if value)
    return f"{difference.setting}: {values} ({', '.join(difference.tasks)})"
