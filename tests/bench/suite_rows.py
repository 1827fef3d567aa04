"""Append the finished runs of `kdnas suites` below a home to a table of results, one row per run and engine.

Run as `python tests/bench/suite_rows.py STUDY HOME FILE.csv [NAME=DIGEST ...]`. STUDY is the value of the first column. NAME
replaces the name of the model whose digest starts with DIGEST; a model keeps its own name otherwise. Runs that FILE has already
are left out, so the same command can be repeated while the runs go on.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows_of(folder: Path, study: str, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of one finished run."""
    manifest, result = (json.loads((folder / name).read_text()) for name in ("manifest.json", "result.json"))
    digest = result["model"]["digest"]
    name = next((name for name, start in names.items() if digest.startswith(start)), result["model"]["name"])
    host = manifest["host"]
    for engine, found in result["engines"].items():
        scores = found["scores"]
        yield {
            "study": study, "run": manifest["key"], "model": name, "digest": digest[:10],
            "architecture": result["model"]["architecture"], "task": result["task"], "seed": result["seed"],
            "engine": engine, "metric": result["metric"], "score": scores[result["metric"]],
            "dev_score": result["dev_score"], "learning_rate": result["learning_rate"], "epochs": result["epochs"],
            "best_epoch": result["best_epoch"],
            "learning_rates_tried": " ".join(f"{rate:g}" for rate in manifest["config"]["rates"]),
            "train_examples": result["train_examples"], "dev_examples": result["dev_examples"],
            "test_examples": result["test_examples"], "examples_per_second": found["examples_per_second"],
            "seconds": result["seconds"], "batch_tokens": result["batch_tokens"], "precision": result["precision"],
            "average_precision": scores.get("average_precision", ""),
            "false_positive_rate": scores.get("false_positive_rate", ""), "finished": manifest["finished"],
            "commit": host["commit"],
            "host": f"{host['cpu']}, {host['physical_cores']} of {host['logical_cores']} cores, {host['memory_gib']} GiB",
        }  # fmt: skip


def main(study: str, home: Path, file: Path, names: dict[str, str]) -> None:
    """Append what is new, in order of model, task and seed."""
    with file.open() as opened:
        reader = csv.DictReader(opened)
        known = {row["run"] for row in reader}
        columns = reader.fieldnames or []
    found = [row for one in (home / "suite").glob("*/result.json") for row in rows_of(one.parent, study, names)]
    new = [row for row in found if row["run"] not in known]
    with file.open("a", newline="") as opened:
        writer = csv.DictWriter(opened, columns, lineterminator="\n")
        writer.writerows(sorted(new, key=lambda row: (row["model"], row["task"], row["seed"], row["engine"])))
    print(f"{file}: {len(new)} rows added")


if __name__ == "__main__":
    if len(sys.argv) < 4 or not all("=" in word for word in sys.argv[4:]):
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), dict(word.split("=", 1) for word in sys.argv[4:]))
