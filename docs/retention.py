"""Draw docs/retention.png's plot from results/distillation into build/retention.html: `python docs/retention.py`.

The picture is a browser's screenshot of that page, 1000 by 480 pixels.
"""

import csv
import json
import re
from collections import defaultdict
from pathlib import Path

from kdnas.evaluation.compare import PAPER
from kdnas.evaluation.compare_models import Cell, Model
from kdnas.evaluation.compare_page import speed_scatter

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "results" / "distillation"
TEACHER = "teacher"
TEACHER_TIMED_WITH = "E4t"  # the measurement whose teacher is shown, as in the page's table


def rows(name: str) -> list[dict[str, str]]:
    """Rows of a table of the study."""
    with (STUDY / name).open(newline="") as file:
        return list(csv.DictReader(file))


def models() -> list[Model]:
    """The teacher and the timed students, with their scores and speed-ups."""
    speeds: dict[str, dict[str, tuple[float, float, float]]] = defaultdict(dict)
    for row in rows("speed.csv"):
        if row["threads"] == "2" and (row["model"] == "student" or row["student"] == TEACHER_TIMED_WITH):
            name = row["student"] if row["model"] == "student" else TEACHER
            speeds[name][row["form"]] = (float(row["speedup"]), float(row["speedup_low"]), float(row["speedup_high"]))
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    metrics: dict[str, str] = {}
    names: dict[str, str] = {}
    for row in rows("suites.csv"):
        if row["study"] == "students":
            scores[row["model"]][row["task"]].append(100 * float(row["score"]))
            metrics[row["task"]] = row["metric"]
            names[row["model"]] = row["architecture"]
    found = []
    for model, tasks in scores.items():
        cells = {task: Cell(tuple(values), metrics[task], {}, 0.0, ()) for task, values in tasks.items()}
        of_teacher = model.startswith("builtin:")
        if of_teacher or model in speeds:
            label = TEACHER if of_teacher else ",".join(re.findall(r"\d+", names[model]))
            found.append(Model(label, names[model], cells, "", speeds[TEACHER if of_teacher else model]))
    return sorted(found, key=lambda model: model.name != TEACHER)


if __name__ == "__main__":
    page = ROOT / "build" / "retention.html"
    page.parent.mkdir(exist_ok=True)
    figure = speed_scatter(models(), json.loads(PAPER.read_text()))
    figure.update_layout(font_color="#1f2933", paper_bgcolor="white", plot_bgcolor="white")
    figure.write_html(page, default_width="1000px", default_height="480px", config={"displayModeBar": False})
    print(page)
