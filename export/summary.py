"""The forms of an export as a plain-text table, and a session's default form."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdnas.models.engine import engine_of

HEADER = ("form", "ms", "MB", "points lost", "of")


def lines_of(results: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """One line per form, first those within the bound, each group by latency, and the default with its reason.

    Args:
        results: results of the export's manifest.
        wanted: the requested forms.
    """
    forms = results["forms"]
    rows = [HEADER] + [
        (form, f"{row['latency_ms']:.2f}", f"{row['size_mb']:.1f}", f"{row['loss_points']:.2f}", row["loss_of"])
        for form, row in forms.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < column < 4 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [*lines, *_reasons(forms, float(results["max_loss_points"]), wanted)]


def _reasons(forms: Mapping[str, Mapping[str, Any]], bound: float, wanted: Sequence[str]) -> list[str]:
    default, best = next(iter(forms.items()))
    inside = best["loss_points"] <= bound
    why = (
        f"the fastest form that loses at most {bound:g} points"
        if inside
        else f"all forms lose more than {bound:g} points"
    )
    lines = [f"default: {default} ({why})"]
    if engine_of(default).quantised:
        return lines
    for form in (form for form in forms if form in wanted and engine_of(form).quantised):
        row = forms[form]
        reason = (
            f"loses {row['loss_points']:.2f} points of {row['loss_of']}, at most {bound:g} are allowed"
            if row["loss_points"] > bound
            else f"takes {row['latency_ms']:.2f} ms, {default} {best['latency_ms']:.2f} ms"
        )
        lines.append(f"int8 was requested, but float32 is the default: {form} {reason}")
    return lines
