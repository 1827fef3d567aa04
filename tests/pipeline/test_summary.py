from pathlib import Path
from types import SimpleNamespace

from kdnas.models.arch import Arch
from kdnas.pipeline.summary import summarise

from .report_fixture import WINNER, fake_run


def test_table_has_the_results_of_each_stage(tmp_path: Path) -> None:
    artifacts = fake_run(tmp_path, hap=True)
    text = summarise(artifacts)
    rows = dict(line.strip("| ").split(" | ", 1) for line in text.splitlines()[2:])
    assert Arch.parse(str(WINNER)).name in rows["winner"]
    hap = artifacts["evaluation"].results["hap"]
    assert f"student {100 * hap['student']:.1f}: retention {100 * hap['retention']:.1f} %" in rows["HAP, macro-F1"]
    assert rows["explained variance by language"] == "mean 0.715, lowest 0.620 (sw)"
    own = "teacher 0.4321, student 0.4012: retention 92.8 % (812 queries)"
    assert rows["retrieval of the next sentence, nDCG@10"] == own
    mixed = "retrieval of the next sentence, nDCG@10, student's queries in the teacher's documents"
    assert rows[mixed] == "teacher 0.4321, student 0.4107: retention 95.0 % (812 queries)"
    for row in artifacts["speed"].results["rows"]:
        assert f"p50 {row['p50_ms']:.2f} ms" in rows[row["name"]]
    assert f"{artifacts['search'].results['candidates']} candidates" in rows["search"]
    assert all(name in rows["minutes"] for name in artifacts)


def test_missing_stages_leave_no_rows(tmp_path: Path) -> None:
    artifacts = fake_run(tmp_path)
    text = summarise({"search": artifacts["search"]})
    assert "winner" in text
    assert "distil" not in text
    assert "HAP" not in summarise(artifacts)


def test_a_distillation_of_embeddings_has_a_distance(tmp_path: Path) -> None:
    artifacts = fake_run(tmp_path)
    results = artifacts["distill"].results | {"explained_variance": None, "validation_loss": 0.125}
    changed = SimpleNamespace(results=results, path=artifacts["distill"].path, manifest=artifacts["distill"].manifest)
    assert "distance from the teacher's embeddings 0.1250" in summarise({"distill": changed})  # type: ignore[dict-item]
