"""The downstream suites. Each task is one row, with its hub id, columns, splits, metric and the paper's hyperparameters."""

from kdnas.errors import UsageError
from kdnas.evaluation.spec import Spec
from kdnas.evaluation.suites_english import ENGLISH
from kdnas.evaluation.suites_hap import HAP
from kdnas.evaluation.suites_languages import LANGUAGES

SPECS = (*ENGLISH, *LANGUAGES, *HAP)
SUITES = tuple(dict.fromkeys(spec.suite for spec in SPECS))


def chosen_specs(names: tuple[str, ...]) -> list[Spec]:
    """The tasks with these names or in these suites, in the order of the table.

    Raises:
        UsageError: no name is given, or a name is neither a suite nor a task.
    """
    known = {*SUITES, *(spec.name for spec in SPECS)}
    if not names or (unknown := [name for name in names if name not in known]):
        given = f"there is no suite or task {', '.join(unknown)}" if names else "no suite is given"
        tasks = ", ".join(spec.name for spec in SPECS)
        raise UsageError(f"suites: {given}; suites are {', '.join(SUITES)}, embeddings; their tasks are {tasks}")
    return [spec for spec in SPECS if spec.name in names or spec.suite in names]
