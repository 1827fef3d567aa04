"""The roofline: a lower bound of the latency from the host's best matrix products, its memory bandwidth and an empty call.

A sentence takes at least the longer of two times: its multiply-adds at the highest rate that the engine's own products
reach on this host, and one read of all layers' weights. The part of them that fits the last-level cache is read at the
cache's bandwidth, the rest at the memory's. The fixed cost of a call is added: that of a call of the engine with 16 products,
fewer than any student of the search space has, and too small to take time of their own. Embeddings (only some rows are read),
activations, softmax and layer norms are ignored, so no engine reaches the bound; int8 engines also do some work in f32. A
fraction above 1 means that a peak was measured too low, for example on a busy host: nothing is clipped.

Run as `python -m kdnas.latency.roofline ENGINE THREADS [SECONDS]`; prints one JSON line.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import KdnasError, UsageError
from kdnas.latency.engines import CHAIN, Chain, require_engine, timer_of
from kdnas.latency.protocol import Lengths
from kdnas.models.arch import Arch
from kdnas.models.engine import ENGINES, engine_of
from kdnas.store.host import child_environment

TOKENS = (16, 32, 64, 128)
# Inner and outer widths of the products in the search space's layers: projections and feed-forward, small to large.
SHAPES = ((288, 384), (384, 1536), (576, 2048), (768, 768), (768, 3072))
SMALLEST = (64, 64)  # widths of the products that measure the fixed cost of a call, at one token
DEFAULT_CACHE_BYTES = 32 * 2**20  # if the system does not report it: a typical shared cache of a server
MEMORY_BYTES = 512 * 2**20  # buffer for the memory's bandwidth, or 8 caches if that is more
PASSES = 2  # over all measurements, because a disturbance may last longer than one slot
WINDOW = 7  # calls per median; the best window counts, because other work on the host only slows calls
SECONDS = 6.0


@dataclass(frozen=True)
class Peaks:
    """Peak throughputs of a host in one engine's precision.

    Args:
        gflops: best rate of matrix products in GFLOP/s (int8: GOP/s), a multiply-add counted as two.
        gflops_by_tokens: best rate at each number of tokens.
        bandwidth_gbs: read bandwidth of the memory in GB/s.
        cache_gbs: read bandwidth of the last-level cache in GB/s, assuming that threads do not slow each other.
        bytes_per_weight: 4 in f32, 2 in bf16, 1 in int8.
        cache_bytes: size of the last-level cache.
        call_ms: fixed cost of a call in ms; 0 in records of earlier versions.
    """

    gflops: float
    gflops_by_tokens: dict[int, float]
    bandwidth_gbs: float
    cache_gbs: float
    bytes_per_weight: float
    cache_bytes: int = DEFAULT_CACHE_BYTES
    call_ms: float = 0.0

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Peaks":
        """Peaks from their JSON record.

        Raises:
            UsageError: a value is missing or not above 0; `call_ms` may be 0.
        """
        try:
            peaks = cls(
                gflops_by_tokens={int(key): float(value) for key, value in record["gflops_by_tokens"].items()},
                cache_bytes=int(record.get("cache_bytes", DEFAULT_CACHE_BYTES)),
                call_ms=float(record.get("call_ms", 0.0)),
                **{key: float(record[key]) for key in ("gflops", "bandwidth_gbs", "cache_gbs", "bytes_per_weight")},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"peaks {dict(record)}: not a record of kdnas.latency.roofline ({error!r})") from error
        figures = (peaks.gflops, peaks.bandwidth_gbs, peaks.cache_gbs, peaks.bytes_per_weight)
        if not all(np.isfinite(value) and value > 0 for value in figures) or not 0 <= peaks.call_ms < float("inf"):
            raise UsageError(f"peaks {dict(record)}: every value must be above 0")
        return peaks


def bound_ms(arch: Arch, seq_len: int, peaks: Peaks) -> float:
    """Lower bound of the latency in ms of a sentence of `seq_len` tokens."""
    return float(_bounds([arch], np.array([seq_len]), peaks)[0, 0])


def bounds_ms(archs: Sequence[Arch], lengths: Lengths, peaks: Peaks) -> np.ndarray:
    """Lower bounds (N,) of the mean latency over the sentences in ms, for N architectures."""
    bounds = _bounds(archs, lengths.values, peaks)
    return np.asarray(bounds @ lengths.counts / lengths.counts.sum())


def reached_fractions(bounds: np.ndarray, latencies_ms: np.ndarray) -> np.ndarray:
    """Reached fraction of the limit: bounds (N,) over latencies (N,), both in ms; 1 is the limit."""
    return np.asarray(bounds) / np.asarray(latencies_ms)


def _bounds(archs: Sequence[Arch], tokens: Any, peaks: Peaks) -> np.ndarray:
    """Lower bounds (N, U) in ms for N architectures at U lengths in tokens."""
    tokens = np.asarray(tokens, dtype=np.int64)
    compute = np.stack([arch.flops(tokens) for arch in archs]) / (peaks.gflops * 1e6)
    weights = np.array([arch.layer_parameters for arch in archs]) * peaks.bytes_per_weight
    cached = np.minimum(weights, peaks.cache_bytes)
    read = cached / (peaks.cache_gbs * 1e6) + (weights - cached) / (peaks.bandwidth_gbs * 1e6)
    return np.maximum(compute, read[:, None]) + peaks.call_ms


def peaks_of(engine: str, threads: int, seconds: float = SECONDS) -> Peaks:
    """Peaks of this host, measured for `seconds` in a separate process, so that no thread pool stays in this one.

    Raises:
        UsageError: this host lacks the engine.
        KdnasError: the process failed.
    """
    require_engine(engine)
    done = subprocess.run(
        [sys.executable, "-m", "kdnas.latency.roofline", engine, str(threads), str(seconds)],
        capture_output=True,
        text=True,
        env=child_environment(),
    )
    if done.returncode or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise KdnasError(f"latency-table: the peaks of {engine} could not be measured: {last}")
    return Peaks.from_record(json.loads(done.stdout.strip().splitlines()[-1]))


def measure_peaks(engine: str, threads: int, seconds: float = SECONDS) -> Peaks:
    """Peaks of this host, measured in this process.

    Two thirds of the time go to chains of matrix products of (tokens, K) x (K, N) in the engine, and to a call of the smallest
    ones; one third to reading.
    Each value is the best median of consecutive calls. ONNX Runtime is compared with OpenVINO's products.

    Raises:
        UsageError: the engine has no peaks.
        KdnasError: the engine computed the products in another precision.
    """
    found = engine_of(engine)
    make = timer_of(found).product_chain
    if make is None:
        having = [name for name, other in ENGINES.items() if timer_of(other).product_chain is not None]
        raise UsageError(f"engine '{engine}': peaks are measured for {', '.join(having)}")
    slot = seconds * 2 / 3 / (PASSES * (len(SHAPES) * len(TOKENS) + 1))
    by_tokens = _product_peaks(partial(make, found, threads), slot)
    call = make(found, threads, *SMALLEST)(1)
    cache_bytes = last_cache_bytes()
    reads = seconds / 3 / (2 * PASSES)  # memory and cache
    return Peaks(
        gflops=max(by_tokens.values()),
        gflops_by_tokens=by_tokens,
        bandwidth_gbs=read_gbs(max(MEMORY_BYTES, 8 * cache_bytes), threads, reads),
        # One thread times the number of threads: reads take microseconds, so synchronisation would dominate.
        cache_gbs=round(threads * read_gbs(cache_bytes // 4, 1, reads), 2),
        bytes_per_weight=float(found.bytes_per_weight),
        cache_bytes=cache_bytes,
        call_ms=round(1000 * min(best_seconds(call, slot) for _ in range(PASSES)), 5),
    )


def _product_peaks(make: Callable[[int, int], Chain], slot_seconds: float) -> dict[int, float]:
    """Best GFLOP/s over all shapes at each number of tokens."""
    chains = {shape: make(*shape) for shape in SHAPES}
    best = dict.fromkeys(TOKENS, 0.0)
    for _ in range(PASSES):
        for tokens in TOKENS:
            for (inner, outer), chain in chains.items():
                took = best_seconds(chain(tokens), slot_seconds)
                best[tokens] = max(best[tokens], product_flops(tokens, inner, outer) / took / 1e9)
    return {tokens: round(value, 2) for tokens, value in best.items()}


def product_flops(tokens: int, inner: int, outer: int) -> int:
    """Floating-point operations of one call of a chain, with a multiply-add counted as two."""
    return 2 * tokens * inner * outer * CHAIN


def best_seconds(run: Callable[[], object], seconds: float) -> float:
    """Seconds per call: the best median of WINDOW consecutive calls, over `seconds`, after two untimed calls."""
    run(), run()
    best = float("inf")
    end = time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        taken = []
        for _ in range(WINDOW):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
        best = min(best, statistics.median(taken))
    return best


def read_gbs(size_bytes: int, threads: int, seconds: float) -> float:
    """Bandwidth in GB/s of reading a buffer of this size, by PyTorch's threaded sum of f32."""
    import torch

    torch.set_num_threads(threads)
    buffer = torch.ones(size_bytes // 4)
    took = min(best_seconds(buffer.sum, seconds) for _ in range(PASSES))
    return round(buffer.numel() * 4 / took / 1e9, 2)


def last_cache_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Size of CPU 0's last-level cache according to the system, or DEFAULT_CACHE_BYTES."""
    sizes = {}
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    try:
        for index in (cpus / "cpu0" / "cache").glob("index*"):
            text = (index / "size").read_text().strip()
            sizes[int((index / "level").read_text())] = int(text.rstrip("KMG")) * units.get(text[-1], 1)
    except (OSError, ValueError):
        return DEFAULT_CACHE_BYTES
    return sizes[max(sizes)] if sizes else DEFAULT_CACHE_BYTES


if __name__ == "__main__":
    measured = measure_peaks(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else SECONDS)
    print(json.dumps(asdict(measured)))
