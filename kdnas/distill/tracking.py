"""The rows of history.jsonl to trackers too, by accelerate's own switch: TensorBoard, MLflow."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from kdnas.distill.options import LoopOptions
from kdnas.extras import require_tracker

FOLDER = "trackers"  # of an artifact; MLflow goes to MLFLOW_TRACKING_URI where that is set

Track = Callable[[Mapping[str, Any]], None]


def require_trackers(names: Sequence[str]) -> None:
    """Raise UsageError where a tracker is not known, and KdnasError where its package is not installed."""
    for name in names:
        require_tracker(name)


@contextmanager
def tracked(options: LoopOptions, folder: Path, title: str) -> Iterator[Track]:
    """What takes each row of the history; does nothing where no tracker is wanted.

    Args:
        options: name the trackers, and are recorded.
        folder: of the artifact.
        title: of the run.
    """
    if not options.trackers:
        yield lambda row: None
        return
    accelerator = Accelerator(log_with=list(options.trackers), project_dir=folder / FOLDER)
    recorded = {name: value for name, value in asdict(options).items() if isinstance(value, (bool, int, float, str))}
    accelerator.init_trackers(title, config=recorded)

    def track(row: Mapping[str, Any]) -> None:
        accelerator.log(dict(_figures(row, row["kind"])), step=row["step"])

    try:
        yield track
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def _figures(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Numbers of a row by name, those of its parts by part, as `validation/layers/2`."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}/{name}")
        elif isinstance(value, (int, float)) and name != "step":
            yield f"{prefix}/{name}", float(value)
