"""N students from one training of a family, against N students in the same time by other ways.

Run as `python tests/bench/family_study.py FOLDER [options]`; `--help` lists them. All ways train the members for `--minutes`,
from the teacher's layers, and all students are scored alike: linear maps refitted in closed form, the same held-out sentences.

| way | what it does |
|---|---|
| untrained, proxy | members alone before the first update, and after a short distillation: to compare how they rank members |
| separate | each member alone, with an equal part of the time |
| side-by-side | all members with one teacher pass a batch, without shared weights |
| chain | the largest is distilled, the others are cut out of it and distilled on |
| sandwich, one, large-to-small, k-per-pass | a family with this schedule |
| unordered, 3-nets | ablations of k-per-pass: neurons not in order; depths divided over three nets |
| separate-of-N | three members alone, each with 1/N of the time: for the break-even |
| reference | each member alone with `--reference-steps` |

FOLDER gets all artifacts, `family_study.csv` with a row for each member of each finished run, and `family_study.html` with a
plot. The same command resumes there after a kill, and finished runs are not repeated. Prints three tables: losses of all ways
and their ratios to separate distillation, Kendall's tau with the members trained alone, and the break-even.
"""

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from family_scores import held_out_losses
from family_setting import Setting
from family_speeds import update_seconds
from family_tables import break_even_table, ranks_table, ways_table, write_plot
from family_ways import ways_of

from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.host import host_line
from kdnas.store.progress import show_messages
from kdnas.text.corpus import build_corpus
from kdnas.text.readers import BUILTIN as DOCSTRINGS
from kdnas.text.readers import TextOptions

COLUMNS = ("setting", "teacher", "minutes", "way", "seed", "member", "loss", "updates", "tokens", "train_seconds")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Rows of the results; none if there is no file."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replace the results by these rows, so that a kill leaves either all rows of a run or none."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        lines.flush()
        os.fsync(lines.fileno())
    os.replace(temporary, file)


def numbers(text: str) -> tuple[int, ...]:
    """Numbers of a list such as `3,4,5`."""
    return tuple(int(part) for part in text.split(",") if part)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--teacher", default=BUILTIN)
    parser.add_argument("--corpus", default=DOCSTRINGS)
    parser.add_argument("--layers", type=numbers, default=(3, 4, 5))
    parser.add_argument("--ffn", type=numbers, default=(96, 192, 384, 576, 768, 1024))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seeds", type=numbers, default=(0, 1))
    parser.add_argument("--ways", help="names separated by commas; all by default")
    parser.add_argument("--held-out", type=int, default=2000, help="sentences")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--proxy-steps", type=int, default=30)
    parser.add_argument("--reference-steps", type=int, default=0, help="updates of each member alone; 0 for none")
    parser.add_argument("--counts", type=numbers, default=(2, 4, 8), help="numbers of students for the break-even")
    parser.add_argument("--timing-rounds", type=int, default=2)
    parser.add_argument("--chain-first", type=float, default=1 / 3, help="fraction of the time for the largest")
    return parser.parse_args()


def main() -> None:
    """Run the missing ways, all ways of a seed before the next seed, and print the tables."""
    given = arguments()
    show_messages(bars=False)
    given.folder.mkdir(parents=True, exist_ok=True)
    teacher = resolve_teacher(given.teacher, given.folder)
    setting = Setting(
        given.folder,
        teacher,
        build_corpus(given.folder, given.corpus, TextOptions(), teacher),
        given.layers,
        given.ffn,
        given.minutes,
        given.batch_tokens,
        given.proxy_steps,
        given.reference_steps,
        given.counts,
        given.chain_first,
    )
    ways, file = ways_of(setting), given.folder / "family_study.csv"
    chosen = given.ways.split(",") if given.ways else list(ways)
    if unknown := set(chosen) - set(ways):
        raise SystemExit(f"--ways has {', '.join(sorted(unknown))}; allowed are {', '.join(ways)}")
    speeds = update_seconds(setting, given.timing_rounds, chosen)
    key = {"setting": setting.digest, "teacher": given.teacher, "minutes": f"{given.minutes:g}"}
    for seed in given.seeds:
        for way in chosen:
            rows = read_rows(file)
            this = {**key, "way": way, "seed": str(seed)}
            if any(all(row[name] == value for name, value in this.items()) for row in rows):
                continue
            trained = ways[way](setting, speeds, seed)
            losses = held_out_losses(teacher, setting.corpus, trained.students, given.held_out, given.batch_tokens)
            effort = {
                "updates": trained.updates,
                "tokens": trained.tokens,
                "train_seconds": round(trained.seconds, 1),
            }
            new = [{**this, "member": str(arch), "loss": f"{loss:.6f}", **effort} for arch, loss in losses.items()]
            write_rows(file, [*rows, *new])
            print(f"{way}, seed {seed}: mean loss {sum(losses.values()) / len(losses):.4f}", flush=True)
    rows = [row for row in read_rows(file) if row["setting"] == setting.digest]
    write_plot(given.folder / "family_study.html", rows)
    print(f"\n{host_line()}; {given.teacher}, {len(setting.archs)} members, minutes of each way: {given.minutes:g}\n")
    for table in (ways_table(rows), ranks_table(rows), break_even_table(rows)):
        print("\n".join(table), end="\n\n")


if __name__ == "__main__":
    main()
