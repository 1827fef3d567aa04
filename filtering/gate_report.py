"""What a run reports about its gate."""

from collections.abc import Mapping
from typing import Any

from kdnas.filtering.audit import NO_COUNTS, added_counts, bounds_of
from kdnas.filtering.gate import read_gate_record
from kdnas.filtering.store import Store


def gate_results(store: Store, config: Mapping[str, Any], totals: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the gate of a run was made, and the bounds of what it missed, overall and by language; None without a gate.

    Args:
        store: the run's output.
        config: settings of the run.
        totals: sum over its units.
    """
    if not config.get("gate.use"):
        return None
    record = read_gate_record(store) or {}
    if record and not record["used"]:
        return record
    counts, confidence = totals["gate"], config["gate.confidence"]
    return (
        {"used": True}
        | record
        | {"miss": config["gate.miss"], "confidence": confidence, "units_again": totals["units_again"]}
        | bounds_of(added_counts(NO_COUNTS, *counts.values()), confidence)
        | {"languages": {name: bounds_of(row, confidence) for name, row in counts.items()}}
    )


def gate_line(gate: Mapping[str, Any]) -> str:
    """One line about the gate of a finished run."""
    if not gate["used"]:
        return f"gate: not used: {gate['reason']}"
    again = f"; {gate['units_again']} units were scored again without the gate" if gate["units_again"] else ""
    return (
        f"gate: {gate['passed']} sentences passed; of {gate['audited']} that were scored all the same, {gate['missed']} are "
        f"positive: at most {100 * gate['missed_at_most']:.2f} % of the positive sentences were missed "
        f"({100 * gate['confidence']:g} % confidence){again}"
    )
