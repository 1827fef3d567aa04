"""The front of nDCG against milliseconds, from made-up results and a real static model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.evaluation.embedding_run import KIND, RESULT
from kdnas.evaluation.front import compare_embeddings, front_scatter, scored, table_of, timings
from kdnas.evaluation.front_scores import read_scores
from kdnas.models.folder import model_digest
from kdnas.models.static import StaticModel, bare_tokenizer, write_static
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact, build
from kdnas.store.json_files import write_json

STUDENT, EXPORT, TEACHER = "a" * 64, "b" * 64, "c" * 64
SPEED = {"teacher pytorch-f32": 20.0, "student pytorch-f32": 5.0, "student openvino-int8": 1.0}


def row(engine: str, queries: str, documents: str, value: float, dimensions: int = 384) -> dict[str, Any]:
    scores = {"ndcg_at_10": value, "recall_at_10": 0.0}
    return {"engine": engine, "queries": queries, "documents": documents, "scores": scores, "dimensions": dimensions}


def suite(home: Path, model: str, rows: list[dict[str, Any]], task: str = "xquad", data: str = "d") -> None:
    """A result of `kdnas suites --tasks embeddings`."""

    def work(folder: Path) -> dict[str, Any]:
        result = {"task": f"embeddings/{task}", "metric": "ndcg_at_10", "rows": rows, "model": f"my-{model[0]}"}
        write_json(folder / RESULT, result | {"teacher": "builtin:minilm-l6"})
        return {}

    inputs = {"model": model, "teacher": TEACHER, "data": data}
    build(home, KIND, f"embeddings-{task}", {"task": task, "rows": rows}, inputs, work)


def speed(home: Path, times: dict[str, float] = SPEED, teacher: str = TEACHER) -> Artifact:
    rows = [{"name": name, "mean_ms": ms} for name, ms in times.items()]
    inputs = {"teacher": teacher, "corpus": "x", "student": STUDENT, "exported": EXPORT}
    return build(home, "speed", "made-up", {"times": times}, inputs, lambda _folder: {"rows": rows})


@pytest.fixture
def static(tmp_path: Path, tiny_teacher: Teacher) -> Artifact:
    def work(folder: Path) -> dict[str, Any]:
        table = np.ones((10, 4), dtype=np.float32)
        write_static(
            folder / "student", StaticModel(table, bare_tokenizer(tiny_teacher.path / "tokenizer.json")), "card"
        )
        return {"mean_ms": 0.01}

    return build(tmp_path, "static", "made-up", {}, {"teacher": TEACHER, "corpus": "x"}, work)


def score_all(home: Path, static: Artifact, without: str = "") -> None:
    for task, more in (("xquad", 0.0), ("tydi", 0.1)):
        student = [
            row("pytorch", "model", "model", 0.6 + more),
            row("pytorch", "model", "model", 0.1, 128),  # a shorter width does not count
            row("pytorch", "model", "teacher", 0.65 + more),
            row("pytorch", "teacher", "teacher", 0.7 + more),
        ]
        suite(home, STUDENT, student, task)
        suite(home, EXPORT, [row("openvino-int8", "model", "model", 0.55 + more)], task)
        if without != "static":
            suite(home, model_digest(static.path / "student"), [row("pytorch", "model", "model", 0.3 + more)], task)


def test_points_have_the_means_of_their_scores_and_times(tmp_path: Path, static: Artifact) -> None:
    score_all(tmp_path, static)
    faster = speed(tmp_path, {"teacher pytorch-f32": 22.0, "student pytorch-f32": 5.0})  # of another run
    scores = read_scores(tmp_path)
    points, tasks = scored(timings([speed(tmp_path), faster], static, scores), scores)
    assert tasks == ["embeddings/tydi", "embeddings/xquad"]
    found = {(one.timed.name, one.timed.engine): (one.timed.ms, round(one.ndcg, 6), one.asymmetric) for one in points}
    assert found == {
        ("static student", "none"): (0.01, 0.35, None),
        ("my-a", "openvino-int8"): (1.0, 0.6, None),
        ("my-a", "pytorch"): (5.0, 0.65, pytest.approx(0.7)),
        ("teacher", "pytorch"): (21.0, 0.75, None),
    }
    table = table_of(points, tasks)
    assert table.rows[1] == ["my-a", "openvino-int8", "1", "60.0", "80.0 %", "", "yes"]
    assert table.rows[-1][:5] == ["teacher", "pytorch", "21", "75.0", "100.0 %"]


def test_a_slower_and_worse_model_is_not_on_the_front(tmp_path: Path, static: Artifact) -> None:
    score_all(tmp_path, static)
    scores = read_scores(tmp_path)
    slow = speed(tmp_path, SPEED | {"student openvino-int8": 6.0})  # slower than the better f32 student
    points, tasks = scored(timings([slow], static, scores), scores)
    on_front = {(line[0], line[1]): line[-1] for line in table_of(points, tasks).rows}
    assert on_front[("my-a", "openvino-int8")] == ""
    assert [key for key, value in on_front.items() if value] == [
        ("static student", "none"), ("my-a", "pytorch"), ("teacher", "pytorch"),
    ]  # fmt: skip
    figure = front_scatter(points)
    assert list(figure.data[0].x) == [0.01, 5.0, 20.0]
    assert {trace.name for trace in figure.data[1:]} == {
        "static student", "teacher", "students, pytorch", "students, openvino-int8",
    }  # fmt: skip


def test_the_command_writes_a_table_and_a_page(
    tmp_path: Path, static: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    score_all(tmp_path, static)
    made = speed(tmp_path, SPEED | {"student onnxruntime-f32": 2.0})  # timed, but not scored
    found = compare_embeddings((made.path,), static.path, home=tmp_path)
    assert found.path == tmp_path / "embeddings.md"
    assert "| my-a | openvino-int8 | 1 | 60.0 | 80.0 % |  | yes |" in found.path.read_text()
    assert "left out: my-a in onnxruntime-f32 has no scores of retrieval" in capsys.readouterr().err
    page = (tmp_path / "embeddings.html").read_text()
    assert "Retrieval against milliseconds" in page
    assert json.loads(page.split('data-target="chart-front">')[1].split("</script>")[0])["data"]
    assert "fine-tuned and scored" not in page
    assert "http://" not in page.split("<body>")[1]


def test_what_cannot_be_compared_is_refused(tmp_path: Path, static: Artifact) -> None:
    made = speed(tmp_path)
    score_all(tmp_path, static, without="static")
    with pytest.raises(UsageError, match=r"no scores of retrieval for static student; run `kdnas suites"):
        compare_embeddings((made.path,), static.path, home=tmp_path)
    other = speed(tmp_path, SPEED, teacher="e" * 64)
    with pytest.raises(UsageError, match="of 2 teachers"):
        compare_embeddings((made.path, other.path), static.path, home=tmp_path)
    rows = [row("pytorch", "model", "model", 0.3)]
    suite(tmp_path, model_digest(static.path / "student"), rows, "xquad", data="other texts")
    with pytest.raises(UsageError, match="embeddings/xquad: the models were scored on different texts"):
        compare_embeddings((made.path,), static.path, home=tmp_path)
    manifest = json.loads((static.path / "manifest.json").read_text())
    manifest["host"]["cpu"] = "Another CPU"
    (static.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"several hosts: .*Another CPU"):
        compare_embeddings((made.path,), static.path, home=tmp_path)
