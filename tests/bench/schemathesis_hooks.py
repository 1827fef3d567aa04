"""Hooks of schemathesis: leave out valid values whose limits depend on the model, which no schema states."""

import math
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Remove labels and dimensions that the model may not have, and deadlines that the model may not meet."""
    if isinstance(case.body, dict):
        body = dict(case.body)
        params = body.get("detector_params")
        labels = params.get("labels") if isinstance(params, dict) else None
        if isinstance(body.get("label"), str):
            del body["label"]
        dimensions = body.get("dimensions")
        if type(dimensions) in (int, float) and dimensions >= 1 and dimensions == int(dimensions):
            del body["dimensions"]
        if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
            body["detector_params"] = {name: value for name, value in params.items() if name != "labels"}
        case.body = body
    deadline = (case.headers or {}).get("x-timeout-ms")
    if deadline is not None and _is_milliseconds(deadline):
        case.headers["x-timeout-ms"] = "60000"


def _is_milliseconds(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
