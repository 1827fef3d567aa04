"""Output of a comparison for people: Markdown for a pull request comment, and an SVG of the ratios."""

from html import escape
from typing import Any

from kdnas.gates.decision import Outcome

MARKS = {
    Outcome.REGRESSION: "slower",
    Outcome.OK: "not slower",
    Outcome.INCONCLUSIVE: "not decided",
    Outcome.UNFIT: "host too noisy",
}
LINES = {
    Outcome.REGRESSION: "The head is slower.",
    Outcome.OK: "The head is not slower.",
    Outcome.INCONCLUSIVE: "No benchmark is shown to be slower; some need more pairs to decide. This does not block.",
    Outcome.UNFIT: "This host is too noisy for some benchmarks. This does not block.",
    Outcome.FAILED: "Some benchmarks could not be judged.",
}
HEAD = "| benchmark | head / base [interval] | 0.85 to 1.25 | slower than this blocks | noise of this host [95 %] | pairs | |"
ENDS, CELLS = (0.85, 1.25), 33  # range of ratios and number of cells in the sketch of an interval
WIDTH, ROW, LEFT, RIGHT = 760, 26, 250, 90
COLOURS = {
    Outcome.REGRESSION: "#d55e00",
    Outcome.OK: "#009e73",
    Outcome.INCONCLUSIVE: "#8a919c",
    Outcome.UNFIT: "#8a919c",
}


def markdown(summary: dict[str, Any]) -> str:
    """The comment: a summary line, a table of the benchmarks, the failures."""
    minutes = summary["seconds"] / 60
    lines = [
        f"### Performance gate: {summary['outcome']}",
        "",
        f"{LINES[summary['outcome']]} `{summary['head']}` against `{summary['base']}`, "
        f"{summary['processes']} alternating processes, {minutes:.1f} minutes.",
    ]
    if summary["benchmarks"]:
        lines += ["", HEAD, "|---|---:|---|---:|---:|---:|---|"]
        for name, row in summary["benchmarks"].items():
            lines.append(
                f"| {name} | {row['ratio'][1]:.3f} {_span(row['ratio'])} | `{sketch(row)}` | {1 + row['threshold']:.3f} | "
                f"{_span(row['noise'])} | {row['pairs']} | {MARKS[row['outcome']]} |"
            )
    if summary["new"]:
        lines += ["", f"New (only the head has them): {', '.join(summary['new'])}."]
    for name, reason in summary["failures"].items():
        first, *rest = reason.splitlines()
        lines += ["", f"**{name}**: {first}", *(["```", *rest, "```"] if rest else [])]
    machine = summary["machine"]
    if machine:
        lines += ["", f"Host: {machine.get('cpu')}, {machine.get('cores')} cores, Python {machine.get('python')}."]
    return "\n".join(lines) + "\n"


def _span(ratio: tuple[float | None, float, float | None]) -> str:
    """Ends of an interval."""
    low, _, high = ratio
    return "[too few pairs]" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def sketch(row: dict[str, Any]) -> str:
    """A ratio with its interval as one line of text. `:` is equal speed, `!` the threshold; values beyond an end lie on it."""
    cells = ["\u00b7"] * CELLS

    def at(value: float) -> int:
        fraction = (value - ENDS[0]) / (ENDS[1] - ENDS[0])
        return round(min(max(fraction, 0.0), 1.0) * (CELLS - 1))

    cells[at(1.0)] = ":"
    low, middle, high = map(at, _bounded(row["ratio"], *ENDS))
    cells[low : high + 1] = "=" * (high + 1 - low)
    cells[at(1 + row["threshold"])] = "!"
    cells[middle] = "O"
    return "".join(cells)


def _bounded(ratio: tuple[float | None, float, float | None], least: float, most: float) -> tuple[float, float, float]:
    """Low end, median and high end to draw: an unbounded end reaches the edge of the drawing."""
    low, middle, high = ratio
    return least if low is None else low, middle, most if high is None else high


def picture(summary: dict[str, Any]) -> str:
    """SVG: each benchmark's ratio with its interval, the threshold as a tick, 1 as a line."""
    rows = list(summary["benchmarks"].items())
    ends = [value for _, row in rows for value in (*row["ratio"], 1 + row["threshold"]) if value is not None] or [1.0]
    low, high = min(0.9, *ends) - 0.02, max(1.1, *ends) + 0.02

    def across(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low), 1)

    height = ROW * (len(rows) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{across(1)}" y="14" text-anchor="middle" fill="#555">equal</text>',
        f'<line x1="{across(1)}" x2="{across(1)}" y1="20" y2="{height - 8}" stroke="#bbb"/>',
    ]
    for index, (name, row) in enumerate(rows):
        y, colour = ROW * (index + 1) + 12, COLOURS[row["outcome"]]
        first, middle, last = map(across, _bounded(row["ratio"], low, high))
        limit = across(1 + row["threshold"])
        parts += [
            f'<text x="8" y="{y + 4}" fill="#222">{escape(name.removeprefix("test_"))}</text>',
            f'<line x1="{first}" x2="{last}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{middle}" cy="{y}" r="5" fill="{colour}"/>',
            f'<line x1="{limit}" x2="{limit}" y1="{y - 8}" y2="{y + 8}" stroke="#222"/>',
            f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4}" fill="{colour}">{row["ratio"][1]:.3f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
