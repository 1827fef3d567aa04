"""Draw the plot of results/search/regret.png into build/regret.html: `python docs/regret.py`.

It shows every strategy of results/search/curves.csv that started on its own, on all recorded architectures. The picture is a
browser's screenshot of that page, 1000 by 560 pixels.
"""

import csv
from pathlib import Path

from kdnas.search.figures import strategy_bands

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "results" / "search"
SETTING = "own start"


def chosen_curves(curves: Path, file: Path) -> list[str]:
    """Write the curves of the setting without a limit of latency, in the order of `strategies.csv`; returns their strategies."""
    with (curves.parent / "strategies.csv").open(newline="") as lines:
        names = list(dict.fromkeys(row["strategy"] for row in csv.DictReader(lines)))
    with curves.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if (row["setting"], row["max_latency_fraction"]) == (SETTING, "")]
    rows.sort(key=lambda row: (names.index(row["strategy"]), int(row["evaluations"])))
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as written:
        table = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return list(dict.fromkeys(row["strategy"] for row in rows))


def draw(curves: Path, page: Path) -> list[str]:
    """Draw the regret of all strategies; returns their names."""
    names = chosen_curves(curves, page.with_suffix(".csv"))
    figure = strategy_bands(page.with_suffix(".csv"))["regret"]
    figure.update_layout(font_color="#1f2933", paper_bgcolor="white", plot_bgcolor="white", height=560)
    figure.update_layout(margin={"t": 60})
    figure.write_html(page, default_width="1000px", default_height="560px", config={"displayModeBar": False})
    return names


if __name__ == "__main__":
    target = ROOT / "build" / "regret.html"
    print(target, ", ".join(draw(STUDY / "curves.csv", target)))
