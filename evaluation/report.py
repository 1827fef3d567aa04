"""Output of an evaluation: the table on the terminal and the model card of a classifier."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from kdnas.evaluation.tasks import ROLES, Task
from kdnas.models.card import LONGEST, demoted, inherited, read_card, with_metadata
from kdnas.store.progress import say, say_table

BY_LANGUAGE = {"explained_variance": "explained variance", "recall_at_10": "recall@10"}
METADATA = {"library_name": "transformers", "tags": ["kdnas"]}


def card(task: Task, record: dict[str, Any], source: Path) -> str:
    """README.md of a classifier that was fine-tuned from the encoder in folder `source`."""
    rows = [f"| {name.replace('_', ' ')} | {record[name]:.4f} |" for name in task.kind.score_names if name in record]
    scores = "\n".join([f"| on {record['test_examples']} test texts | |", "|---|---|", *rows, ""]) if rows else ""
    classes = f"Classes: {', '.join(f'`{label}`' for label in task.labels)}.\n" if len(task.labels) > 1 else ""
    text = f"""# An encoder, fine-tuned for the {task.name} task

{classes}
{scores}
Trained on {record["train_examples"]} texts (learning rate {record["learning_rate"]:g}, checkpoint of epoch
{record["best_epoch"]} of {record["epochs"]}, chosen by {task.metric}, {record["dev_score"]:.4f}, on
{record["dev_examples"]} dev texts, seed {record["seed"]}, texts cut at {record["seq_len"]} tokens,
{record["precision"]} training).
Splits: {task.notes}.

Load it with `{task.kind.head}.from_pretrained(folder)`.
"""
    _, encoder = read_card(source)
    origin = f"\n## The encoder\n\n{demoted(encoder)}\n" if 0 < len(encoder) <= LONGEST else ""
    return with_metadata(inherited(source) | METADATA | {"pipeline_tag": task.kind.export_task}, text + origin)


def over_languages(results: Mapping[str, Any], name: str) -> tuple[float, float, str] | None:
    """Mean of a result over the languages, the lowest one and its language; None without languages."""
    scores = {language: row[name] for language, row in results.get("languages", {}).items()}
    if not scores:
        return None
    lowest = min(scores, key=scores.__getitem__)
    return mean(scores.values()), scores[lowest], lowest


def show(results: dict[str, Any]) -> None:
    """Print the metrics as a small table."""
    from rich.table import Table

    table = Table("metric", "teacher", "student", "retention")
    table.add_row("explained variance of hidden states", "", f"{results['explained_variance']:.4f}", "")
    table.add_row("recall@10 of nearest neighbours", "", f"{results['recall_at_10']:.4f}", "")
    for name, title in BY_LANGUAGE.items():
        if found := over_languages(results, name):
            mean, lowest, language = found
            table.add_row(f"{title}, mean over languages", "", f"{mean:.4f}", "")
            table.add_row(f"{title}, lowest: {language}", "", f"{lowest:.4f}", "")
    for row in retrieval_rows(results):
        table.add_row(*row)
    for name in ("topic", "hap"):
        task = results[name]
        if task is not None:
            kept = "" if task["retention"] is None else f"{100 * task['retention']:.1f} %"
            table.add_row(f"{name}: {task['metric']}", f"{task['teacher']:.4f}", f"{task['student']:.4f}", kept)
            if task.get("corrected_retention") is not None:
                chance, corrected = f"chance {task['majority']:.4f}", f"{100 * task['corrected_retention']:.1f} %"
                table.add_row(f"{name}: retention above chance", chance, "", corrected)
            for side in ("accuracy", "binary_f1", "average_precision", "false_positive_rate"):
                if side in task:
                    values = (f"{task[side][role]:.4f}" for role in ROLES)
                    table.add_row(f"{name}: {side.replace('_', ' ')}", *values, "")
    say_table(table)
    for name in ("retrieval", "topic", "hap"):
        if results.get(name) is None:
            say(f"{name}: {results.get(f'{name}_note', 'not measured')}")


def retrieval_rows(results: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, teacher, student and retention of the retrieval's scores; empty if it was not measured."""
    found = results.get("retrieval")
    if not found:
        return []
    sides = {"student": "", "asymmetric": ", student's queries in the teacher's documents"}
    return [
        (
            f"retrieval of the next sentence, {found['metric']}{text}",
            f"{found['teacher']:.4f}",
            f"{found[side]:.4f}",
            "" if found[kept] is None else f"{100 * found[kept]:.1f} %",
        )
        for (side, text), kept in zip(sides.items(), ("retention", "asymmetric_retention"), strict=True)
        if found[side] is not None
    ]
