"""The physical limit: hand-computed bounds for synthetic peaks, and peaks measured in the engine's precision."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.latency import roofline
from kdnas.latency.engines import CHAIN
from kdnas.latency.engines.openvino import EXECUTED, compile_chain, executed_precisions, product_chain
from kdnas.latency.protocol import stratify
from kdnas.latency.roofline import (
    DEFAULT_CACHE_BYTES,
    TOKENS,
    WINDOW,
    Peaks,
    best_seconds,
    bound_ms,
    bounds_ms,
    last_cache_bytes,
    measure_peaks,
    peaks_of,
    reached_fractions,
)
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.engine import ENGINES, Precision

ARCH = Arch(4, 12, 576, 768, "gelu")
# 2 * 4 * 32 * (4 * 576^2 + 2 * 576 * 768 + 2 * 32 * 576) operations; 4 * (4 * (576^2 + 576) + 2 * 576 * 768 + 768 + 5 * 576)
OPERATIONS, WEIGHTS = 575_668_224, 8_871_168
ROOMY = Peaks(100.0, {32: 100.0}, bandwidth_gbs=10.0, cache_gbs=40.0, bytes_per_weight=4.0, cache_bytes=2**30)


def test_bound_is_the_maximum_of_computing_and_reading() -> None:
    assert bound_ms(ARCH, 32, ROOMY) == pytest.approx(OPERATIONS / 100e9 * 1000)
    assert bound_ms(ARCH, 32, replace(ROOMY, gflops=1e6)) == pytest.approx(4 * WEIGHTS / 40e9 * 1000)


def test_the_fixed_cost_of_a_call_is_added() -> None:
    assert bound_ms(ARCH, 32, replace(ROOMY, call_ms=0.25)) == pytest.approx(OPERATIONS / 100e9 * 1000 + 0.25)
    assert Peaks.from_record({key: value for key, value in asdict(ROOMY).items() if key != "call_ms"}) == ROOMY


def test_weights_beyond_the_cache_are_read_from_memory() -> None:
    fast = replace(ROOMY, gflops=1e6, cache_bytes=10_000_000)
    rest = 4 * WEIGHTS - 10_000_000
    assert bound_ms(ARCH, 32, fast) == pytest.approx((10_000_000 / 40e9 + rest / 10e9) * 1000)
    # A quarter of the bytes fits entirely.
    assert bound_ms(ARCH, 32, replace(fast, bytes_per_weight=1.0)) == pytest.approx(WEIGHTS / 40e9 * 1000)


def test_mean_over_the_sentences() -> None:
    lengths = stratify(np.array([8] * 3 + [64]), strata=2)
    reading = replace(ROOMY, gflops=1300.0)  # 8 tokens are bound by reading weights, 64 by the products
    one = [bound_ms(ARCH, tokens, reading) for tokens in (8, 64)]
    assert one[0] == pytest.approx(4 * WEIGHTS / 40e9 * 1000)
    assert one[1] == pytest.approx(ARCH.flops(64) / 1300e9 * 1000)
    archs = [ARCH, Arch(3, 2, 288, 384, "relu"), Arch(12, 12, 768, 3072, "silu")]
    means = bounds_ms(archs, lengths, reading)
    assert means.shape == (3,)
    assert means[0] == pytest.approx((3 * one[0] + one[1]) / 4)
    for arch, mean in zip(archs, means, strict=True):
        assert mean == pytest.approx((3 * bound_ms(arch, 8, reading) + bound_ms(arch, 64, reading)) / 4)


def test_whole_space_at_once() -> None:
    space = list(SearchSpace())
    bounds = bounds_ms(space, stratify(np.arange(5, 129), strata=7), ROOMY)
    assert bounds.shape == (2400,)
    # Activation and heads cost nothing here: the first of equal rows.
    assert space[bounds.argmin()] == Arch(3, 2, 288, 384, "gelu")
    assert space[bounds.argmax()] == Arch(12, 2, 768, 3072, "gelu")


def test_fractions_are_not_clipped() -> None:
    assert reached_fractions(np.array([1.0, 3.0]), np.array([4.0, 2.0])).tolist() == [0.25, 1.5]


def test_record_round_trip() -> None:
    peaks = Peaks(300.5, {16: 200.0, 32: 300.5}, 15.0, 60.0, 2.0, 2**25, 0.05)
    assert Peaks.from_record(json.loads(json.dumps(asdict(peaks)))) == peaks


@pytest.mark.parametrize(
    "change", [{"gflops": None}, {"cache_gbs": 0}, {"bandwidth_gbs": "fast"}, {"gflops_by_tokens": 1}, {"call_ms": -1}]
)
def test_damaged_records_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="peaks"):
        Peaks.from_record(asdict(ROOMY) | change)
    with pytest.raises(UsageError, match="gflops_by_tokens"):
        Peaks.from_record({"gflops": 1.0})


def test_cache_size_is_that_of_the_last_level(tmp_path: Path) -> None:
    assert last_cache_bytes(tmp_path) == DEFAULT_CACHE_BYTES
    for number, (level, size) in enumerate([(1, "32K"), (1, "32K"), (3, "24M"), (2, "2048K")]):
        folder = tmp_path / "cpu0" / "cache" / f"index{number}"
        folder.mkdir(parents=True)
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    assert last_cache_bytes(tmp_path) == 24 * 2**20
    (tmp_path / "cpu0" / "cache" / "index2" / "size").write_text("unknown\n")
    assert last_cache_bytes(tmp_path) == DEFAULT_CACHE_BYTES


def test_the_best_window_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], [0]
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: clock[0])

    def run() -> None:
        calls[0] += 1
        first = calls[0] <= 2 + WINDOW  # two untimed calls and a window while the host is busy
        clock[0] += 1.0 if first else 0.25 if calls[0] % 3 else 5.0

    assert best_seconds(run, 10.0) == 0.25
    calls[0], clock[0] = 0, 0.0
    assert best_seconds(run, 0) == 1.0
    assert calls[0] == 2 + WINDOW


@pytest.mark.parametrize("engine", ["openvino-int8", "openvino-f32", "openvino-bf16"])
def test_products_run_in_the_engines_precision(engine: str) -> None:
    if not ENGINES[engine].is_native:
        pytest.skip("this CPU does not compute in bf16")
    compiled = compile_chain(ENGINES[engine], 1, 288, 384)
    assert executed_precisions(compiled)
    assert executed_precisions(compiled) <= EXECUTED[ENGINES[engine].precision]
    products = [
        node
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) in ("FullyConnected", "MatMul")
    ]
    assert len(products) == CHAIN  # no product was folded


def test_another_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXECUTED, Precision.F32, {"i8"})
    with pytest.raises(KdnasError, match="computed products in f32"):
        product_chain(ENGINES["openvino-f32"], 1, 288, 384)


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("openvino-f32", marks=pytest.mark.exhaustive),
        "openvino-int8",
        pytest.param("onnxruntime-int8", marks=pytest.mark.exhaustive),
        "pytorch-f32",
    ],
)
def test_measured_peaks_are_positive_numbers(engine: str) -> None:
    peaks = peaks_of(engine, 1, seconds=1.0)
    assert tuple(peaks.gflops_by_tokens) == TOKENS
    assert peaks.gflops == max(peaks.gflops_by_tokens.values())
    for value in (*peaks.gflops_by_tokens.values(), peaks.bandwidth_gbs, peaks.cache_gbs, peaks.call_ms):
        assert math.isfinite(value)
        assert value > 0
    assert peaks.bytes_per_weight == ENGINES[engine].bytes_per_weight
    assert peaks.cache_bytes == last_cache_bytes()


def test_unknown_engines_and_failures_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="allowed are"):
        peaks_of("abacus", 1)
    with pytest.raises(UsageError, match="peaks are measured for"):
        measure_peaks("cuda-f32", 1)
    monkeypatch.setattr(roofline.sys, "executable", "/bin/false")
    with pytest.raises(KdnasError, match=r"peaks of pytorch-f32 could not be measured: exit code 1"):
        peaks_of("pytorch-f32", 1)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'RuntimeError: no memory left' >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(roofline.sys, "executable", str(script))
    with pytest.raises(KdnasError, match="no memory left"):
        peaks_of("pytorch-f32", 1)
