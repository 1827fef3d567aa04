"""The tables and the plot of `family_study.py`, from the rows of its CSV file."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import plotly.graph_objects as go
from scipy.stats import kendalltau

from kdnas.models.arch import Arch
from kdnas.page.style import mark, style

CONTROL = "separate"
FAMILIES = ("k-per-pass", "one", "large-to-small", "sandwich", "unordered", "3-nets")
PART = "separate-of-"  # followed by the number of students that share the time
Rows = Sequence[Mapping[str, Any]]
Losses = dict[str, float]  # by member


def by_seed(rows: Rows) -> dict[str, dict[int, Losses]]:
    """Losses by way, seed and member."""
    found: dict[str, dict[int, Losses]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["way"]][int(row["seed"])][row["member"]] = float(row["loss"])
    return {way: dict(seeds) for way, seeds in found.items()}


def over_seeds(seeds: Mapping[int, Losses]) -> Losses:
    """Mean loss of each member over the seeds."""
    return {member: mean(losses[member] for losses in seeds.values()) for member in next(iter(seeds.values()))}


def ratios(seeds: Mapping[int, Losses], control: Mapping[int, Losses]) -> tuple[list[float], list[float]]:
    """For each seed that both have: mean loss divided by the control's, and the largest ratio of a single member."""
    both = [
        (seeds[seed], control[seed]) for seed in seeds if seed in control and set(seeds[seed]) == set(control[seed])
    ]
    means = [mean(ours.values()) / mean(theirs.values()) for ours, theirs in both]
    return means, [max(ours[member] / theirs[member] for member in ours) for ours, theirs in both]


def break_even(family: float, separate: Mapping[int, float]) -> float | None:
    """Number of separate students in the time of one family from which on the family has the lower loss.

    It is interpolated in the logarithm of the number.

    Args:
        family: mean loss of some members of the family.
        separate: mean loss of the same members alone, by the number of students that share the time.

    Returns:
        The smallest measured number if the family is better there already; None if it is nowhere better.
    """
    counts = sorted(separate)
    if family <= separate[counts[0]]:
        return float(counts[0])
    for low, high in pairwise(counts):
        if separate[low] < family <= separate[high]:
            part = (family - separate[low]) / (separate[high] - separate[low])
            return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
    return None


def ways_table(rows: Rows) -> list[str]:
    """Lines of the table of all ways that trained all members."""
    found, effort = by_seed(rows), {(row["way"], int(row["seed"])): row for row in rows}
    lines = [
        f"| way | seeds | mean loss | worst member | mean / {CONTROL} | worst ratio of a member | updates | "
        "tokens of all members | training s |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for way, seeds in found.items():
        if way.startswith(PART):
            continue
        losses = over_seeds(seeds)
        worst = max(losses, key=losses.__getitem__)
        means, largest = ratios(seeds, found.get(CONTROL, {}))
        spent = [effort[way, seed] for seed in seeds]
        numbers = [mean(float(row[name]) for row in spent) for name in ("updates", "tokens", "train_seconds")]
        lines.append(
            f"| {way} | {len(seeds)} | {mean(losses.values()):.4f} | {losses[worst]:.4f} ({worst}) | {spread(means)} | "
            f"{spread(largest)} | {numbers[0]:,.0f} | {numbers[1]:,.0f} | {numbers[2]:,.0f} |"
        )
    return lines


def ranks_table(rows: Rows) -> list[str]:
    """Lines of the table of Kendall's tau with the losses of students that were trained alone for longest."""
    found = {way: over_seeds(seeds) for way, seeds in by_seed(rows).items()}
    target = "reference" if "reference" in found else CONTROL
    if target not in found:
        return []
    losses = found[target]
    predictors = {way: values for way, values in found.items() if way != target and set(values) == set(losses)}
    predictors["parameters"] = {member: -Arch.parse(member).layer_parameters for member in losses}
    lines = [f"| ranks members by | tau with {target} |", "|---|---:|"]
    for name, values in predictors.items():
        tau = kendalltau([values[member] for member in losses], list(losses.values())).statistic
        lines.append(f"| {name} | {tau:.3f} |")
    return lines


def break_even_table(rows: Rows) -> list[str]:
    """Lines of the table of the break-even of each family, on the members that were trained alone for each time."""
    found = {way: over_seeds(seeds) for way, seeds in by_seed(rows).items()}
    alone = {int(way.removeprefix(PART)): losses for way, losses in found.items() if way.startswith(PART)}
    if not alone:
        return []
    probes = list(next(iter(alone.values())))
    if CONTROL in found:
        alone.setdefault(len(found[CONTROL]), found[CONTROL])
    means = {count: mean(losses[member] for member in probes) for count, losses in alone.items()}
    lines = [
        "| way | mean loss of " + ", ".join(probes) + " | break-even, students |",
        "|---|---:|---:|",
        *(f"| {count} separate students | {means[count]:.4f} | |" for count in sorted(means)),
    ]
    for way in FAMILIES:
        if way in found:
            loss = mean(found[way][member] for member in probes)
            number = break_even(loss, means)
            text = f"above {max(means)}" if number is None else f"{number:.1f}"
            text = f"at most {text}" if number == min(means) else text
            lines.append(f"| {way} | {loss:.4f} | {text} |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Mean, and the range over several seeds; empty without values."""
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else "")


def write_plot(page: Path, rows: Rows) -> None:
    """Draw the loss of every member over the parameters of its layers, one line a way."""
    figure = go.Figure()
    for index, (way, seeds) in enumerate(by_seed(rows).items()):
        losses = over_seeds(seeds)
        points = sorted((Arch.parse(member).layer_parameters / 1e6, loss, member) for member, loss in losses.items())
        drawn = mark(index)
        figure.add_scatter(
            x=[size for size, _, _ in points],
            y=[loss for _, loss, _ in points],
            text=[member for _, _, member in points],
            mode="lines+markers",
            name=way,
            line={"color": drawn.colour, "width": 1, "dash": drawn.dash},
            marker={"size": 8, "color": drawn.colour, "symbol": drawn.symbol},
        )
    figure.update_xaxes(title_text="parameters without embeddings (millions)")
    figure.update_yaxes(title_text="held-out loss")
    style(figure, 560).update_layout(font_color="#1f2933", paper_bgcolor="white", plot_bgcolor="white")
    figure.write_html(page, default_width="1000px", default_height="560px", config={"displayModeBar": False})
