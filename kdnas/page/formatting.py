"""Number formats of the pages: significant digits, units, and "not measured" for missing values."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Undefined

from kdnas.errors import UsageError
from kdnas.models.arch import Arch

NOT_MEASURED = "not measured"
NARROW = "\u202f"  # narrow no-break space: thousands
NBSP = "\u00a0"


def shown(render: Callable[[float], str], value: Any) -> str:
    """A number as text; "not measured" for null, missing, NaN and infinity; other values as plain text."""
    if value is None or isinstance(value, Undefined) or (isinstance(value, float) and not math.isfinite(value)):
        return NOT_MEASURED
    return render(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def grouped(value: float) -> str:
    """A whole number with narrow spaces between thousands, as in 10 000."""
    return f"{value:,.0f}".replace(",", NARROW)


def num(value: Any, unit: str = "") -> str:
    """Three significant digits and the unit, as in `0.812 ms`."""

    def render(number: float) -> str:
        rounded = float(f"{number:.3g}")
        digits = grouped(number) if abs(rounded) >= 1000 else f"{rounded:#.3g}".rstrip(".") if rounded else "0"
        return digits + (NBSP + unit if unit else "")

    return shown(render, value)


def milliseconds(value: Any) -> str:
    """A latency, as in `0.812 ms`."""
    return num(value, "ms")


def fixed(value: Any, decimals: int = 3, unit: str = "") -> str:
    """A number with fixed decimals, for scores that are compared within a column."""
    return shown(lambda number: f"{number:.{decimals}f}" + (NBSP + unit if unit else ""), value)


def count(value: Any) -> str:
    """A whole number with grouped thousands."""
    return shown(grouped, value)


def threads(value: Any) -> str:
    """A number of threads, as in `1 thread` or `4 threads`."""
    return shown(lambda number: f"{number:.0f} thread{'' if number == 1 else 's'}", value)


def percent(value: Any) -> str:
    """A fraction as a percentage."""
    return shown(lambda number: f"{100 * number:.1f}{NBSP}%", value)


def pct(value: Any) -> str:
    """A value that is already in percent."""
    return shown(lambda number: f"{number:.1f}{NBSP}%", value)


def million(value: Any) -> str:
    """A count in millions."""
    return shown(lambda number: f"{number / 1e6:.2f}{NBSP}M", value)


def ratio(value: Any) -> str:
    """A speed-up, as in `8.3×`."""
    return shown(lambda number: f"{number:.2f}×" if number < 9.995 else f"{number:.1f}×", value)


def sci(value: Any) -> str:
    """A small difference, as in `2.4e-06`."""
    return shown(lambda number: f"{number:.1e}", value)


def minutes(value: Any) -> str:
    """Seconds as minutes; less than a minute as seconds."""
    return shown(lambda number: f"{number / 60:.1f}{NBSP}min" if number >= 60 else f"{number:.1f}{NBSP}s", value)


def plain(value: Any) -> str:
    """Text, or "not measured"; for a list or mapping its length, for example the number of labels."""
    if isinstance(value, list | tuple | Mapping):
        return str(len(value))
    return shown(str, value)


def arch_name(value: Any) -> str:
    """`L4-H12-D576-F768-gelu` for `4,12,576,768,gelu`; other text is unchanged."""
    try:
        return Arch.parse(str(value)).name
    except UsageError:
        return plain(value)


def settings(value: Any) -> str:
    """A stage's configuration as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


FILTERS: dict[str, Callable[..., str]] = {
    "num": num,
    "fixed": fixed,
    "count": count,
    "threads": threads,
    "percent": percent,
    "pct": pct,
    "million": million,
    "ratio": ratio,
    "sci": sci,
    "minutes": minutes,
    "text": plain,
    "arch": arch_name,
    "settings": settings,
    "pyrepr": repr,
}
