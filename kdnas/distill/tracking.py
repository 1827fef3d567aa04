"""Sends the rows of history.jsonl to trackers (TensorBoard, MLflow) through accelerate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from kdnas.distill.options import LoopOptions
from kdnas.extras import require_tracker

FOLDER = "trackers"  # inside the artifact; MLflow writes to MLFLOW_TRACKING_URI if that is set

Track = Callable[[Mapping[str, Any]], None]


def require_trackers(names: Sequence[str]) -> None:
    """Raise UsageError for an unknown tracker, and KdnasError if its package is not installed."""
    for name in names:
        require_tracker(name)


@contextmanager
def tracked(options: LoopOptions, folder: Path, title: str) -> Iterator[Track]:
    """A function that sends a row of the history to the trackers; does nothing without trackers.

    Args:
        options: training options, which name the trackers and are recorded.
        folder: folder of the artifact.
        title: title of the run.
    """
    if not options.trackers:
        yield lambda row: None
        return
    accelerator = Accelerator(log_with=list(options.trackers), project_dir=folder / FOLDER)
    recorded = {name: value for name, value in asdict(options).items() if isinstance(value, (bool, int, float, str))}
    accelerator.init_trackers(title, config=recorded)

    def track(row: Mapping[str, Any]) -> None:
        accelerator.log(dict(_numbers(row, row["kind"])), step=row["step"])

    try:
        yield track
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def _numbers(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Numbers of a row by name, nested ones by path, for example `validation/layers/2`."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}/{name}")
        elif isinstance(value, (int, float)) and name != "step":
            yield f"{prefix}/{name}", float(value)
