"""Plain and chance-corrected retention of the recorded students (results/distillation/suites.csv).

Run as `python tests/bench/corrected_retention.py DATA_ROOT [STUDY]`, with the folder of the tasks' data, which gives the score of
the majority class, c. STUDY selects rows of the table, by default `students`. Prints for each student the mean over the tasks
that it and the teacher have of s / t and of (s - c) / (t - c), for the scores s of the student and t of the teacher (means
over the seeds, PyTorch), and both without the tasks where the teacher is within two standard deviations of c.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from kdnas.evaluation.chance import chance
from kdnas.evaluation.data import load_task
from kdnas.evaluation.suites import chosen_specs

TABLE = Path(__file__).parents[2] / "results/distillation/suites.csv"
TEACHER = "builtin:minilm-l6"


def recorded(study: str) -> dict[str, dict[str, list[float]]]:
    """Scores of all seeds by model and task."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with TABLE.open() as file:
        for row in csv.DictReader(file):
            if (row["study"], row["engine"]) == (study, "pytorch"):
                found[row["model"]][row["task"]].append(float(row["score"]))
    return found


def main(data_root: Path, study: str = "students") -> None:
    """Print the table."""
    scores = recorded(study)
    every_task = scores.pop(TEACHER)
    teacher = {task: values for task, values in every_task.items() if len(values) > 1}
    print(f"left out, with one seed of the teacher: {', '.join(sorted(every_task.keys() - teacher)) or 'none'}")
    floor = {spec.name: chance(load_task(spec, data_root).task) for spec in chosen_specs(tuple(teacher))}
    near = [task for task, values in teacher.items() if mean(values) - floor[task] <= 2 * stdev(values)]
    print(f"near chance: {', '.join(near) or 'none'}; majority class: {floor}")
    print("| model | plain | chance-corrected | plain, without near chance | chance-corrected, without near chance |")
    for model, every in scores.items():
        tasks = {task: values for task, values in every.items() if task in teacher}
        plain = {task: mean(values) / mean(teacher[task]) for task, values in tasks.items()}
        corrected = {
            task: (mean(values) - floor[task]) / (mean(teacher[task]) - floor[task]) for task, values in tasks.items()
        }
        rest = [task for task in tasks if task not in near]
        means = [mean(found[task] for task in chosen) for chosen in (list(tasks), rest) for found in (plain, corrected)]
        print(f"| {model} ({len(tasks)} tasks) | " + " | ".join(f"{100 * value:.1f} %" for value in means) + " |")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *sys.argv[2:])
