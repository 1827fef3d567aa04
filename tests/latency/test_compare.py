"""Test of the difference between two tables: hand-computed, simulated, and with the real command."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import UsageError
from kdnas.latency.compare import Comparison, compare, compare_latency, differences, text
from kdnas.models.arch import SearchSpace
from kdnas.models.table import TableRow
from kdnas.store.artifact import MANIFEST, Artifact

from .table_fixture import law_rows, row, table_artifact

ARCHS = list(SearchSpace())
LATENCIES = st.lists(st.tuples(st.floats(0.1, 50), st.floats(0.1, 50)), min_size=2, max_size=25)


def rows_of(latencies: list[float], relative_sd: float = 0.01, source: str = "measured") -> list[TableRow]:
    return [row(arch, ms, relative_sd, source=source) for arch, ms in zip(ARCHS, latencies, strict=False)]


def test_a_common_factor_by_hand() -> None:
    found = compare(rows_of([1, 2, 4, 8]), rows_of([1.1, 2.2, 4.4, 8.8]))
    assert (found.median_ratio, found.ratio_p5, found.ratio_p95) == (1.1, 1.1, 1.1)
    s = 0.01 * math.sqrt(2)
    # Four measured rows: 2.2414 * 1.2533 * s / 2, and 0.05 + 1.96 * sqrt(0.0475 / 4).
    assert found.level_limit == pytest.approx(1.404574 * s, abs=1e-5) == pytest.approx(0.01986, abs=1e-5)
    assert found.fraction_limit == pytest.approx(0.26359, abs=1e-5)
    assert (found.fraction_beyond, found.fraction_beyond_levelled, found.kendall_tau) == (1.0, 0.0, 1.0)
    assert found.differ
    assert (
        found.conclusion
        == "they differ: the second is 10.0% slower throughout; otherwise they agree within their error"
    )
    assert len(found.largest) == 4
    assert found.largest[0].z == pytest.approx(math.log(1.1) / s, abs=0.01)


def test_a_shared_error_explains_a_common_factor() -> None:
    found = compare(rows_of([1, 2, 4, 8]), rows_of([1.1, 2.2, 4.4, 8.8]), shared_sd=0.05)
    assert found.level_limit == pytest.approx(2.2414 * math.hypot(1.2533 * 0.01 * math.sqrt(2) / 2, 0.05), abs=1e-5)
    assert not found.differ
    assert found.conclusion == "no difference beyond their error"


def test_single_architectures_by_hand() -> None:
    """20 of 100 are 20 % slower, above the limit of 5 % + 4.3 % that errors explain; the median ratio is 1."""
    second = [1.2 if index % 5 == 0 else 1.0 for index in range(100)]
    second[37], second[11] = 1.5, 0.5
    found = compare(rows_of([1.0] * 100), rows_of(second))
    assert found.fraction_limit == pytest.approx(0.05 + 1.96 * math.sqrt(0.0475 / 100), abs=1e-5)
    assert found.median_ratio == 1.0
    assert found.fraction_beyond == found.fraction_beyond_levelled == 0.22
    assert found.conclusion == "they differ: single architectures differ beyond their error; the overall level does not"
    largest = [(one.arch, one.ratio) for one in found.largest]
    assert largest == [
        (str(ARCHS[11]), 0.5),
        (str(ARCHS[37]), 1.5),
        *((str(ARCHS[index]), 1.2) for index in (0, 5, 10)),
    ]
    faster = compare(rows_of([1.0] * 100), rows_of([0.9 * value for value in second]))
    assert faster.conclusion == (
        "they differ: the second is 10.0% faster at the median, and single architectures differ beyond that"
    )


def test_predicted_rows_add_no_evidence() -> None:
    first, second = rows_of([1.0] * 100), rows_of([1.004] * 100)
    assert compare(first, second).differ  # 0.4 %, slightly above the uncertainty of the level with 100 measured rows
    few = [*rows_of([1.004] * 4), *rows_of([1.004] * 100, source="predicted")[4:]]
    assert compare(first, few).level_limit == pytest.approx(5 * compare(first, second).level_limit, abs=1e-4)
    assert not compare(first, few).differ


def test_rows_without_error_are_compared_to_the_last_digit() -> None:
    assert not compare(rows_of([1, 2], 0.0), rows_of([1, 2], 0.0)).differ
    found = compare(rows_of([1, 2], 0.0), rows_of([1.001, 2.002], 0.0))
    assert found.differ
    assert found.largest[0].z == pytest.approx(math.log(1.001) / 1e-5, abs=0.01)


@given(LATENCIES, st.floats(0.001, 0.3), st.floats(0, 0.1))
def test_swapping_the_tables_inverts_only_the_ratio(
    pairs: list[tuple[float, float]], relative_sd: float, shared_sd: float
) -> None:
    ours, theirs = (rows_of(list(column), relative_sd) for column in zip(*pairs, strict=True))
    found, swapped = compare(ours, theirs, shared_sd), compare(theirs, ours, shared_sd)
    assert found.median_ratio * swapped.median_ratio == pytest.approx(1, rel=1e-2)
    assert (found.differ, found.fraction_beyond, found.level_limit) == (
        swapped.differ,
        swapped.fraction_beyond,
        swapped.level_limit,
    )
    assert not compare(ours, ours, shared_sd).differ
    assert compare(ours, ours).median_ratio == 1.0


@pytest.mark.slow
def test_false_alarm_rate_is_as_stated() -> None:
    """300 pairs of tables with 200 measured rows that differ only by their errors: about 5 % are reported as different."""
    alarms = sum(noisy_pair(seed, factor=1.0).differ for seed in range(300))
    assert 3 <= alarms <= 30  # 15 expected, plus or minus four standard deviations


def test_a_slower_host_is_detected() -> None:
    found = [noisy_pair(seed, factor=1.02) for seed in range(50)]
    assert sum(one.differ for one in found) >= 48
    assert sum("slower throughout" in one.conclusion for one in found) >= 40


def noisy_pair(seed: int, factor: float) -> Comparison:
    """Two tables with 2 % of normal error each, the second `factor` times as slow."""
    errors = np.random.default_rng(seed).normal(0, 0.02, (2, 200))
    first, second = (
        rows_of([scale * math.exp(error) for error in part], 0.02)
        for scale, part in zip((1, factor), errors, strict=True)
    )
    return compare(first, second)


def test_text_has_every_value() -> None:
    found = compare(rows_of([1, 2, 4, 8]), rows_of([1.1, 2.2, 4.4, 8.8]))
    lines = text(found).splitlines()
    assert lines[0] == (
        "second over first: median 1.1000 (their error explains 0.9803 to 1.0201), 5th to 95th percentile 1.1000 to 1.1000"
    )
    assert lines[1].startswith("100.0% of architectures differ by more than 1.96 standard deviations")
    assert lines[2] == "Kendall tau between the rankings: 1.0000"
    assert len(lines) == 4 + 4 + 1
    assert lines[-1] == found.conclusion


def compare_command(*argv: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KDNAS")}
    command = [sys.executable, "-m", "kdnas.cli", "compare-latency", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return table_artifact(tmp_path_factory.mktemp("first"), law_rows(seed=1))


@pytest.mark.slow
def test_the_command_on_two_tables_of_one_host(first: Artifact, tmp_path: Path) -> None:
    second = table_artifact(tmp_path, law_rows(seed=2))
    done = compare_command("--first", first.path, "--second", second.path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["differ"]
    assert found["conclusion"] == "no difference beyond their error" == done.stderr.splitlines()[-1]
    assert found["median_ratio"] == pytest.approx(1, abs=0.003)
    assert (found["ratio_p5"], found["ratio_p95"]) == pytest.approx((0.9545, 1.0476), abs=0.01)  # exp(-+1.645 * 0.0283)
    assert found["fraction_beyond"] == pytest.approx(0.05, abs=0.02)
    assert 0.9 < found["kendall_tau"] < 1
    ratios = [abs(math.log(one["ratio"])) for one in found["largest"]]
    assert len(ratios) == 5
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 0.08


@pytest.mark.slow
def test_the_command_detects_a_slower_host(first: Artifact, tmp_path: Path) -> None:
    second = table_artifact(tmp_path, law_rows(seed=2, factor=1.05))
    done = compare_command("--first", first.path, "--second", second.path)
    assert done.returncode == 0, done.stderr
    assert "slower throughout; otherwise they agree within their error" in done.stderr.splitlines()[-1]
    assert json.loads(done.stdout)["differ"] is True


@pytest.mark.slow
def test_different_conditions_are_refused_without_any_host(first: Artifact, tmp_path: Path) -> None:
    second = table_artifact(
        tmp_path, law_rows(seed=2), engine="pytorch-f32", threads=1, versions="2.13.0", mean_length=30
    )
    done = compare_command("--first", first.path, "--second", second.path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert (
        "engine: openvino-f32 and pytorch-f32; threads: 2 and 1; versions: openvino 2026.4.1 and openvino 2.13.0"
        in (done.stderr)
    )
    assert "sentence lengths (lengths.json): " in done.stderr
    assert "--any_host true" in done.stderr
    assert "Traceback" not in done.stderr
    done = compare_command("--first", first.path, "--second", second.path, "--any_host", "true")
    assert done.returncode == 0, done.stderr
    assert "conditions differ: threads: 2 and 1" in done.stderr
    assert json.loads(done.stdout)["differ"] is False


def test_each_condition_is_compared(first: Artifact, tmp_path: Path) -> None:
    def with_config(**config: object) -> Artifact:
        manifest = json.loads((first.path / MANIFEST).read_text())
        return Artifact(first.path, {**manifest, "config": {**manifest["config"], **config}})

    assert differences(first, first) == []
    host = first.manifest["config"]["host"]
    other = with_config(host={**host, "cpu": "Other CPU"})
    assert differences(first, other) == ["host cpu: Test CPU and Other CPU"]
    other = with_config(host={**host, "flags": []})
    assert differences(first, other) == ["host flags: avx2 and none"]
    manifest = {**first.manifest, "inputs": {"teacher": "c" * 64}}
    ours = first.manifest["inputs"]["teacher"][:12]
    assert differences(first, Artifact(first.path, manifest)) == [f"teacher: {ours} and cccccccccccc"]
    same = table_artifact(tmp_path, law_rows(seed=3))
    assert differences(first, same) == []


def test_a_folder_without_a_table_is_reported(first: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished artifact here"):
        compare_latency(first.path, tmp_path)
    damaged = table_artifact(tmp_path, law_rows(seed=2))
    (damaged.path / "table.csv").write_text("id,layers\n0,3\n")
    with pytest.raises(UsageError, match=r"table\.csv: columns are \['id', 'layers'\]"):
        compare_latency(first.path, damaged.path)
