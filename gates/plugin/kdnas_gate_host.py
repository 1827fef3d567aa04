"""A pytest plugin: what pytest-benchmark's JSON says of the host, in the project's own words.

It stands alone, so that a revision without gates, or another project, can be timed with it.
"""

import os
import platform
from importlib import metadata
from typing import Any

PACKAGES = ("torch", "onnxruntime", "openvino", "tokenizers", "numpy", "transformers")


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Add what decides whether two results may be compared."""
    versions = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine_info["kdnas"] = {
        "cpu": machine_info.get("cpu", {}).get("brand_raw", platform.processor()),
        "cores": cores,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "python": platform.python_version(),
        "versions": versions,
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
