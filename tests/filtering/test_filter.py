"""The filter as users run it, against the scores of a session."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.export.session import Session
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.run import filter_documents
from kdnas.filtering.scoring import choose_labels
from kdnas.filtering.spans import sentence_spans
from kdnas.store.artifact import Artifact

from .filter_fixture import FORM, contents, lines, outcome, rows, run, write_documents


def expected_scores(model: Path, texts: list[str]) -> np.ndarray:
    """P(hap) of each text: the highest one of its sentences."""
    session = Session(model, FORM, 1)
    split = [[text[start:end] for start, end in sentence_spans(text)] for text in texts]
    return np.array([session.predict(parts)[:, 1].max() for parts in split])


def test_decisions_equal_those_of_the_session(
    classifier: Path, documents: Path, sentences: list[str], tmp_path: Path
) -> None:
    scores = expected_scores(classifier, sentences[:300])
    assert run(classifier, documents, tmp_path / "out", threshold=(0.7,)) == 0
    kept, dropped = rows(tmp_path / "out/kept"), rows(tmp_path / "out/dropped")
    clear = np.abs(scores - 0.7) > 1e-4
    assert {row["id"] for row in kept if clear[row["id"]]} == set(np.flatnonzero((scores < 0.7) & clear).tolist())
    assert {row["id"] for row in dropped if clear[row["id"]]} == set(np.flatnonzero((scores >= 0.7) & clear).tolist())
    assert len(kept) + len(dropped) == 300
    assert min(len(kept), len(dropped)) > 30
    for row in dropped:
        assert row["kdnas"]["label"] == "hap"
        assert row["kdnas"]["score"] == pytest.approx(scores[row["id"]], abs=1e-4)
        assert row["kdnas"]["reason"] == f"P(hap) {row['kdnas']['score']} >= 0.7"
    originals = documents.read_bytes().splitlines()
    assert lines(tmp_path / "out/kept") == [originals[row["id"]] for row in kept]  # the same bytes, in order


def test_the_manifest_has_counts_and_hashes(classifier: Path, documents: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = outcome(classifier, documents, out)
    artifact = Artifact.load(out, "filter")
    artifact.verify()
    results = artifact.results
    assert results["documents"] == 300 == results["kept"] + results["dropped"] == sum(results["scores"]["hap"])
    assert results["drops"] == {"hap": results["dropped"]}
    assert results["tokens"] > results["sentences"] >= 290
    assert result.results["documents"] == 300
    assert not (out / "work").exists()
    assert not (out / "run.json").exists()
    record = json.loads((out / "commits/00000/0000000.json").read_text())
    assert set(record["files"]) == set(contents(out))
    assert sum(row["rows"] for row in record["files"].values()) == 300


def test_a_document_with_many_sentences_is_scored_to_its_end(
    classifier: Path, sentences: list[str], tmp_path: Path
) -> None:
    scores = expected_scores(classifier, sentences[:300])
    low = [sentences[index] for index in np.flatnonzero(scores < 0.2)][:30]
    high = sentences[int(scores.argmax())]
    texts = ["\n".join(low), "\n".join([*low, high]), "\n".join([high, *low])]
    source = write_documents(tmp_path / "docs.jsonl", texts)
    run(classifier, source, tmp_path / "out", threshold=(float(scores.max()) - 0.01,))
    assert [row["id"] for row in rows(tmp_path / "out/kept")] == [0]
    assert [row["id"] for row in rows(tmp_path / "out/dropped")] == [1, 2]
    total = outcome(classifier, source, tmp_path / "all", threshold=(0.0,)).results
    assert total["sentences"] < 31  # equal sentences once, and not those after the first 16 of a dropped document


def test_a_sentence_over_the_limit_has_the_maximum_of_its_windows(
    classifier: Path, sentences: list[str], tmp_path: Path
) -> None:
    text = " ".join(text.rstrip(".!?").replace(". ", " ") for text in sentences[:14])[:1500]
    source = write_documents(tmp_path / "docs.jsonl", [text])
    run(classifier, source, tmp_path / "out", threshold=(0.0,), overlap=16)
    session = Session(classifier, FORM, 1)
    best = 0.0
    for start, end in sentence_spans(text):
        inner, at = session.encoder.ids([text[start:end]])[0], 0
        while True:  # 62 tokens besides [CLS] and [SEP]; the next window shares 16 of them
            window = [*session.encoder.prefix, *inner[at : at + 62], *session.encoder.suffix]
            best = max(best, float(session.predict_ids([window])[0, 1]))
            if at + 62 >= len(inner):
                break
            at += 62 - 16
    assert rows(tmp_path / "out/dropped")[0]["kdnas"]["score"] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("how", ["mean", "fraction"])
def test_the_mean_and_the_fraction_of_sentences_decide(
    classifier: Path, sentences: list[str], tmp_path: Path, how: str
) -> None:
    texts = ["\n".join(sentences[start : start + 6]) for start in range(0, 60, 6)]
    source = write_documents(tmp_path / "docs.jsonl", texts)
    run(classifier, source, tmp_path / "out", document_score=how, threshold=(0.4,))
    session = Session(classifier, FORM, 1)
    for row in [*rows(tmp_path / "out/kept"), *rows(tmp_path / "out/dropped")]:
        parts = [row["text"][start:end] for start, end in sentence_spans(row["text"])]
        scores = session.predict(parts)[:, 1]
        value = scores.mean() if how == "mean" else (scores >= 0.5).mean()
        assert ("kdnas" in row) == (value >= 0.4)
        if "kdnas" in row:
            assert row["kdnas"]["score"] == pytest.approx(value, abs=1e-4)
            assert row["kdnas"]["reason"].startswith(f"{how} of P(hap)")


def test_several_labels_have_their_thresholds(classifier: Path, documents: Path, tmp_path: Path) -> None:
    run(classifier, documents, tmp_path / "out", label=("ok", "hap"), threshold=(0.9, 0.6))
    kept, dropped = rows(tmp_path / "out/kept"), rows(tmp_path / "out/dropped")
    found = {row["kdnas"]["label"] for row in dropped}
    assert found == {"ok", "hap"}
    assert kept
    assert len(kept) + len(dropped) == 300
    with pytest.raises(UsageError, match="threshold has 3 numbers for 2 labels"):
        FilterOptions(label=("ok", "hap"), threshold=(0.1, 0.2, 0.3))


def test_the_verdict_never_overwrites_a_column_of_the_user(classifier: Path, tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_bytes(
        b'{"n": 1e400, "big": 123456789012345678901234567890, "text": "a"} \r\n'
        b'{"text":"b","\\u006bdnas":1,"kdnas_2":[2]}\n{"text": "c", "x": [NaN, -Infinity]}\n'
    )
    run(classifier, source, tmp_path / "out", threshold=(0.0,))
    first, second, third = lines(tmp_path / "out/dropped")
    assert first.startswith(
        b'{"n": 1e400, "big": 123456789012345678901234567890, "text": "a", "kdnas": {"label": "hap"'
    )
    assert list(json.loads(second)) == ["text", "kdnas", "kdnas_2", "kdnas_3"]
    assert json.loads(second)["kdnas"] == 1

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert json.loads(third, parse_constant=refuse)["x"] == ["NaN", "-Infinity"]


def test_a_finished_result_is_reused_or_refused(
    classifier: Path, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(classifier, documents, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert run(classifier, documents, tmp_path / "out") == 0
    assert "an earlier run" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(UsageError, match=r"finished result of a run with threshold: 0.5 there, 0.6 now"):
        run(classifier, documents, tmp_path / "out", threshold=(0.6,))
    assert contents(tmp_path / "out") == before


def test_invalid_arguments_are_refused(classifier: Path, encoder: Path, documents: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("draft")
    for target, message in (
        (tmp_path / "mine", "not empty, and not from `kdnas filter`"),
        (classifier, "'export' artifact"),
        (tmp_path / "mine/thesis.txt", "this is a file"),
        (tmp_path, "it is or contains the input"),
        (documents / "out", "cannot write there"),
    ):
        with pytest.raises(UsageError, match=message):
            run(classifier, documents, target)
    with pytest.raises(UsageError, match="it is inside the input"):
        run(classifier, tmp_path, out)
    with pytest.raises(UsageError, match="encoder without a classification head"):
        run(encoder, documents, out)
    with pytest.raises(UsageError, match="no such label; it has ok, hap"):
        run(classifier, documents, out, label=("toxic",))
    with pytest.raises(UsageError, match=r"no column 'body'; it has id, text"):
        run(classifier, documents, out, column="body")
    assert not out.exists()
    model = Path(shutil.copytree(classifier, tmp_path / "model"))
    (model / "README.md").write_text("changed")
    with pytest.raises(KdnasError, match=r"README\.md: missing or changed since it was written"):
        filter_documents(model, (str(documents),), str(out), FORM, 1)
    assert filter_documents(model, (str(documents),), str(out), FORM, 1, verify=False).exit_code == 0


@pytest.mark.parametrize(
    "options", [{"threshold": (1.5,)}, {"threshold": (float("nan"),)}, {"overlap": -1}, {"unit_mb": 0.0}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        FilterOptions(**options)  # type: ignore[arg-type]


def test_the_label_is_chosen_or_must_be_given() -> None:
    for labels, expected in {
        ("ok", "hap"): ["hap"],
        ("Hate", "none", "fine"): ["Hate"],
        ("0", "1"): ["1"],
        ("LABEL_0", "LABEL_1"): ["LABEL_1"],
    }.items():
        assert choose_labels(list(labels), "m", None) == expected
    for unclear in (["sports", "news"], ["hate", "offensive", "neither"], ["0", "1", "2"]):
        with pytest.raises(UsageError, match=f"one of {', '.join(unclear)}"):
            choose_labels(unclear, "m", None)
    assert choose_labels(["0", "1", "2"], "m", ("2", "1", "2")) == ["2", "1"]


def test_the_filter_imports_neither_torch_nor_transformers(classifier: Path, documents: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kdnas.commands import load_command\n"
        "model, source, out = sys.argv[1:]\n"
        "assert load_command('filter')(Path(model), (source,), out).exit_code == 0\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), *(name for name in sys.modules if name.count('.') == 1))"
    )
    command = [sys.executable, "-c", program, classifier, documents, tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "kdnas.filtering" in loaded
    assert loaded & {"tokenizers", "tokie"}
    heavy = {"torch", "transformers", "optimum", "nncf", "sklearn", "pandas", "pyarrow", "fastapi", "uvicorn"}
    assert not loaded & (heavy | {"kdnas.latency", "kdnas.evaluation", "kdnas.serving"})


def test_the_command_line_filters_the_standard_input(
    classifier: Path, documents: Path, tmp_path: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "kdnas.cli", "filter", "--model", classifier, "--input", "-", "--output", out]
    command += ["--label", "ok,hap", "--threshold", "0.9,0.6", "--form", FORM]
    with documents.open("rb") as stream:
        done = subprocess.run(list(map(str, command)), stdin=stream, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out)
    assert len(rows(out / "kept")) + len(rows(out / "dropped")) == 300
