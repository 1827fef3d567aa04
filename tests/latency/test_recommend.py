"""Which architectures fit a budget, and their order; the real command on a table of all 2400."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import UsageError
from kdnas.latency.recommend import explanation, fitting, newest_table, recommend
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import TableRow
from kdnas.store.artifact import MANIFEST, Artifact

from .table_fixture import law_ms, law_rows, row, table_artifact

ARCHS = list(SearchSpace())
# Few distinct values, so that ties are common.
POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=20)


def rows_of(points: list[tuple[int, int]]) -> list[TableRow]:
    """Rows of (layer parameters in millions, latency in ms)."""
    return [
        row(arch, float(latency), layer_parameters_millions=float(size))
        for arch, (size, latency) in zip(ARCHS, points, strict=False)
    ]


def test_order_by_hand() -> None:
    rows = rows_of([(4, 1), (8, 4), (10, 5), (6, 3), (12, 9), (8, 3), (4, 1)])
    front, others = fitting(rows, 5.0)
    # 10 M at 5 ms, 8 M at 3 ms and both rows of 4 M at 1 ms are not dominated; 12 M takes 9 ms.
    assert [row.id for row in front] == [2, 5, 0, 6]
    assert [row.id for row in others] == [1, 3]
    assert fitting(rows, 0.9) == ([], [])
    assert [row.id for row in fitting(rows, 9.0)[0]] == [4, 2, 5, 0, 6]


@given(POINTS, st.integers(0, 7))
def test_front_and_others_contain_everything_that_fits(points: list[tuple[int, int]], budget: int) -> None:
    front, others = fitting(rows_of(points), float(budget))
    fit = {index for index, (_, latency) in enumerate(points) if latency <= budget}
    assert sorted(row.id for row in [*front, *others]) == sorted(fit)
    for one in front + others:
        size, latency = points[one.id]
        beaten = any(
            points[other][0] >= size and points[other][1] <= latency and points[other] != points[one.id]
            for other in fit
        )
        assert beaten == (one in others)
    for part in (front, others):
        assert part == sorted(part, key=lambda row: (-row.layer_parameters_millions, row.latency_ms, row.id))


def test_explanation_counts_rows_that_may_be_slower() -> None:
    sure, unsure = row(ARCHS[0], 2.0), row(ARCHS[1], 2.95)  # intervals end at 2.08 and 3.07
    text = explanation([sure, unsure], front=1, fit=7, budget_ms=3.0)
    assert text.startswith("2 of 7 architectures within 3 ms, most layer parameters (M, millions) first: the 1 on the")
    assert "capacity is a proxy for quality" in text
    assert text.endswith("\n1 of the 2 shown may be slower than 3 ms: their interval ends above it")
    assert "\n" not in explanation([sure], front=1, fit=1, budget_ms=3.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return table_artifact(tmp_path_factory.mktemp("recommend"), law_rows())


def kdnas(*argv: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KDNAS")}
    return subprocess.run(
        [sys.executable, "-m", "kdnas.cli", *map(str, argv)], capture_output=True, text=True, env=environment
    )


def test_the_command(table: Artifact) -> None:
    home = table.path.parent.parent
    done = kdnas("recommend", "--budget_ms", "2", "--top", "5", "--home", home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    shown = [Arch.parse(text) for text in json.loads(lines[0])]
    assert len(shown) == 5
    assert all(law_ms(arch) <= 2 for arch in shown)
    sizes = [arch.layer_parameters for arch in shown]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == max(arch.layer_parameters for arch in ARCHS if law_ms(arch) <= 2)
    for index, arch in enumerate(shown):
        larger = [other for other in ARCHS if other.layer_parameters >= arch.layer_parameters and other != arch]
        assert all(law_ms(other) > law_ms(arch) for other in larger)
        line = next(line for line in done.stderr.splitlines() if f" {arch} " in line)
        assert line.split()[0] == str(index + 1)
        assert f"{round(law_ms(arch), 4):.2f}" in line  # table.csv has four decimals
        assert f"{round(1.4 * law_ms(arch), 4):.2f}" in line
        assert f"{arch.layer_parameters / 1e6:.2f}" in line
        assert f"{100 * law_ms(arch) / 8:.1f} %" in line
        assert line.rstrip().endswith(("measured", "predicted"))
    assert f"table: {table.path}; openvino-f32, 2 threads, batch 1, on " in done.stderr
    assert "capacity is a proxy for quality" in done.stderr
    assert "\x1b" not in done.stderr


def test_the_rest_follows_the_front(table: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    shown = recommend(1.0, table=table.path, top=3000).results["architectures"]
    printed = capsys.readouterr()
    assert len(shown) == len(set(shown)) == sum(law_ms(arch) <= 1.0 for arch in ARCHS)
    before, after = printed.err.split("not on the front:")
    fastest = str(min(ARCHS, key=law_ms))
    assert fastest in before
    assert fastest not in after


def test_an_explicit_table_and_a_config_file(table: Artifact, tmp_path: Path) -> None:
    config = tmp_path / "recommend.yaml"
    config.write_text(f"budget_ms: 1.5\ntop: 1\ntable: {table.path}\n")
    done = kdnas("recommend", "--config", config, "--home", tmp_path / "nothing")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(
        kdnas("recommend", "--budget-ms=1.5", "--top=1", "--table", table.path).stdout
    )


def test_no_torch_is_imported(table: Artifact) -> None:
    code = (
        "import sys; from kdnas import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'torch', 'transformers', 'openvino', 'sklearn', 'scipy', 'datasets'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", code, "recommend", "--budget_ms", "2", "--table", str(table.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_invalid_use_of_the_command_is_refused(table: Artifact, tmp_path: Path) -> None:
    fastest = min(ARCHS, key=law_ms)
    for argv, words in (
        (["--budget_ms", "0.1", "--table", table.path], f"the fastest is {fastest} with {law_ms(fastest):.4f} ms"),
        (["--budget_ms", "0", "--table", table.path], "budget_ms is 0; a number of milliseconds above 0"),
        (["--table", table.path], "--budget-ms"),
        (
            ["--budget_ms", "3", "--home", tmp_path],
            f"{tmp_path / 'latency-table'}: no finished latency table here; run `kdn",
        ),
        (["--budget_ms", "3", "--table", tmp_path], f"{tmp_path}: no finished artifact here"),
    ):
        done = kdnas("recommend", *argv)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("budget_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_budgets_are_refused(budget_ms: float) -> None:
    with pytest.raises(UsageError, match="above 0 is needed"):
        recommend(budget_ms)


def test_top_must_be_at_least_1() -> None:
    with pytest.raises(UsageError, match="top is 0; at least 1"):
        recommend(3.0, top=0)


def test_the_reported_minimum_budget_is_sufficient(table: Artifact) -> None:
    with pytest.raises(UsageError) as caught:
        recommend(0.01, table=table.path)
    found = recommend(float(str(caught.value).rpartition(" ")[2]), table=table.path)
    assert str(min(ARCHS, key=law_ms)) in found.results["architectures"]


def test_the_newest_table_of_several_engines_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = law_rows()
    newest = table_artifact(tmp_path, rows, finished="2026-11-21T12:00:00+00:00")
    table_artifact(tmp_path, rows, finished="2026-11-21T11:00:00+00:00")
    assert newest_table(tmp_path).path == newest.path
    assert capsys.readouterr().err == ""
    other = table_artifact(tmp_path, rows, engine="pytorch-f32", finished="2026-11-21T11:59:59+00:00")
    assert newest_table(tmp_path).path == newest.path
    said = capsys.readouterr().err
    assert "has tables of openvino-f32, pytorch-f32: using the newest, of openvino-f32; " in said
    # A damaged table is reported and skipped; an unfinished one is ignored.
    (newest.path / MANIFEST).write_text("{")
    (tmp_path / "latency-table" / "tiny-x.partial").mkdir()
    assert newest_table(tmp_path).path == other.path
    assert f"skipped: {newest.path}: no finished artifact here" in capsys.readouterr().err


def test_a_truncated_table_is_reported(tmp_path: Path) -> None:
    artifact = table_artifact(tmp_path, law_rows())
    file = artifact.path / "table.csv"
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(UsageError, match=rf"{file}: .*remove {artifact.path} and build it again"):
        recommend(3.0, home=tmp_path)


def test_a_table_of_another_teacher_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = table_artifact(tmp_path, law_rows(), teacher="c" * 64)
    with pytest.raises(UsageError, match=r"digest cccccccccc\).*kdnas latency-table --teacher builtin:minilm-l6"):
        recommend(3.0, home=tmp_path)
    assert recommend(3.0, home=tmp_path, allow_other_teacher=True).results["table"] == str(other.path)
    assert "recommend: the latency table was measured with another teacher" in capsys.readouterr().err
    own = table_artifact(tmp_path, law_rows(), engine="pytorch-f32", finished="2026-11-20T10:00:00+00:00")
    assert recommend(3.0, home=tmp_path).results["table"] == str(own.path)  # older, but of the teacher
