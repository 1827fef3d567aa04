"""A pytest plugin: adds the host record to pytest-benchmark's JSON and selects the benchmarks to run.

It imports nothing of kdnas, so it can also time a revision without gates, or another project.
"""

import json
import os
import platform
import time
from importlib import metadata
from typing import Any

PACKAGES = ("torch", "onnxruntime", "openvino", "tokenizers", "numpy", "transformers")


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Add host and package versions: results are compared only if these are equal."""
    versions = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine_info["kdnas"] = {
        "cpu": machine_info.get("cpu", {}).get("brand_raw", platform.processor()),
        "cores": cores,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "python": platform.python_version(),
        "versions": versions,
    }
    machine_info["kdnas_peak_gflops"] = peak_gflops()


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Run only the benchmarks named in KDNAS_GATE_ONLY, a JSON list; all run if it is not set."""
    only = json.loads(os.environ.get("KDNAS_GATE_ONLY", "null"))
    if only is not None:
        config.hook.pytest_deselected(items=[item for item in items if item.name not in only])
        items[:] = [item for item in items if item.name in only]


def peak_gflops(size: int = 512, seconds: float = 0.1) -> float | None:
    """Best float32 matrix product rate of this process in GFLOP/s; None without numpy."""
    try:
        import numpy as np
    except ModuleNotFoundError:
        return None
    one = np.ones((size, size), dtype=np.float32)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        one @ one
        best = min(best, time.perf_counter() - start)
    return round(2 * size**3 / best / 1e9, 1)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
