"""The host record: the machine and software on which a result was measured."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from kdnas.errors import UsageError

FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "optimum", "nncf", "tokenizers", "numpy")

SOURCE = Path(__file__).resolve().parents[2]  # the folder that `kdnas` is imported from: the checkout, or site-packages


def cpu_info() -> tuple[str, list[str]]:
    """Model name and those instruction-set flags that are in `FLAGS` (no flags except on Linux)."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine(), []
    model, flags = "", set()
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
            break
    return model, [flag for flag in FLAGS if flag in flags]


def physical_cores() -> int:
    """Number of physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))


def cpus_of_cores(count: int) -> list[int]:
    """One logical CPU of each of `count` physical cores that this process may use; fewer if there are fewer cores.

    Raises:
        UsageError: the operating system is not Linux.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise UsageError("pin: only Linux can pin a process to cores; leave this option out")
    return [cpus[0] for cpus in cpus_of_all_cores()[:count]]


def cpus_of_all_cores() -> list[list[int]]:
    """The logical CPUs of each physical core that this process may use, on Linux."""
    cores: dict[tuple[str, ...], list[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        files = (topology / "physical_package_id", topology / "core_id")
        core = tuple(file.read_text().strip() for file in files) if topology.is_dir() else (str(cpu),)
        cores.setdefault(core, []).append(cpu)
    return list(cores.values())


def default_threads() -> int:
    """Number of threads for inference and timing: min(4, physical cores). The paper uses four cores."""
    return min(4, physical_cores())


def has_bf16() -> bool:
    """Whether the CPU has bfloat16 instructions (AVX512-BF16 or AMX)."""
    return bool({"avx512_bf16", "amx_bf16"} & set(cpu_info()[1]))


def has_vnni() -> bool:
    """Whether the CPU has int8 multiply-add instructions (VNNI or AMX): no overflow, and faster than float32."""
    return bool({"avx_vnni", "avx512_vnni", "amx_int8"} & set(cpu_info()[1]))


def commit() -> str | None:
    """Commit of the source checkout, with `+` if files differ from it; None outside a checkout."""
    root = SOURCE
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "-C", root, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        dirty = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except OSError:
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else None


def child_environment(**variables: str) -> dict[str, str]:
    """Environment of a child process that imports the same `kdnas` as this one, with additional variables."""
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of the installed ones among these packages; by default packages that affect speed or results."""
    from importlib import metadata

    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def host() -> dict[str, Any]:
    """CPU model, cores, memory, flags, operating system, versions and commit, ready for JSON."""
    model, flags = cpu_info()
    return {
        "cpu": model,
        "physical_cores": physical_cores(),
        "logical_cores": os.cpu_count(),
        "flags": flags,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
    }


def host_name(record: Mapping[str, Any]) -> str:
    """CPU and cores of a host record; empty if unknown. Latencies of hosts with different names must not be mixed."""
    return f"{record.get('cpu')}, {record.get('physical_cores')} cores" if record else ""


def host_line() -> str:
    """The host in one line, for reports and notes."""
    record = host()
    return (
        f"{record['cpu']}, {record['physical_cores']} cores, {record['memory_gib']} GiB, "
        f"{' '.join(record['flags'])}, Python {record['python']}, "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    )
