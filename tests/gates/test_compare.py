"""Real sides: two revisions of a repository, a wheel's folder, sides that cannot be built, and the commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import kdnas.gates.run as gate
from kdnas.errors import KdnasError, UsageError
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.gates.decision import Rule
from kdnas.gates.process import SideError, SuiteOptions, run_process
from kdnas.gates.sides import make_side
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus

SUITE = """
import time
from kdnas.speed import SECONDS

def test_waiting(benchmark):
    benchmark(time.sleep, SECONDS)
"""
BENCHMARKS = 9  # in the project's own suite
QUICK = SuiteOptions(benchmark_seconds=0.05, rounds=2, timeout_seconds=120)


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(
        ["git", "-C", str(root), *identity, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three revisions: one that waits 1 ms, one that waits 30 ms, and one that cannot be imported."""
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "-q")
    for package in ("kdnas", "export", "latency", "evaluation", "serving", "gates"):
        (root / package).mkdir()
        (root / package / "__init__.py").touch()
    (root / "kdnas" / "cli.py").touch()
    (root / "export" / "session.py").touch()
    for tag, content in (("quick", "SECONDS = 0.001"), ("slow", "SECONDS = 0.03"), ("broken", "")):
        (root / "kdnas" / "speed.py").write_text(content)
        if tag == "broken":
            (root / "kdnas" / "cli.py").write_text("import nothing_like_this")
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", tag)
        git(root, "tag", tag)
    git(root, "checkout", "-q", "slow")
    return root


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    file = tmp_path / "waiting.py"
    file.write_text(SUITE)
    return file


@pytest.mark.slow
def test_a_slow_revision_is_detected(
    repository: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "SOURCE", repository)
    rule = Rule(looks=(8,), most=5.0)
    found = gate.gate_compare("quick", "slow", suite=suite, rule=rule, options=QUICK, home=tmp_path)
    assert found.exit_code == 3
    folder = found.path
    assert folder is not None
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["outcome"] == "REGRESSION"
    assert summary["benchmarks"]["test_waiting"]["ratio"][1] > 10
    assert summary["processes"] == 16
    assert summary["machine"]["cores"] >= 1
    assert "test_waiting" in (folder / "summary.md").read_text()
    assert (folder / "ratios.svg").read_text().startswith("<svg")
    monkeypatch.setattr(gate, "run_process", lambda *_: pytest.fail("ran again"))
    assert gate.gate_compare("quick", "slow", suite=suite, rule=rule, options=QUICK, home=tmp_path).exit_code == 3


@pytest.mark.slow
def test_sides_are_resolved(repository: Path, tmp_path: Path) -> None:
    quick = make_side("quick", None, tmp_path, repository)
    assert quick.tree is not None
    assert (quick.tree / "kdnas" / "speed.py").read_text() == "SECONDS = 0.001"
    assert quick.python == Path(sys.executable)  # neither revision has pins
    again = make_side("quick", None, tmp_path, repository)
    assert again == quick
    here = make_side(".", None, tmp_path, repository)
    assert here.tree == repository
    digests = {here.digest}
    for content in ("", "MORE = 1"):
        (repository / "kdnas" / "more.py").write_text(content)
        digests.add(make_side(".", None, tmp_path, repository).digest)
    assert len(digests) == 3
    (repository / "kdnas" / "more.py").unlink()
    other = make_side(sys.executable, None, tmp_path, repository)
    assert other.tree is None
    with pytest.raises(UsageError, match=r"not a revision of .* a wheel or an interpreter"):
        make_side("nothing", None, tmp_path, repository)
    with pytest.raises(KdnasError, match=r"'broken' cannot be built[\s\S]*nothing_like_this"):
        make_side("broken", None, tmp_path, repository)
    with pytest.raises(UsageError, match=r"no manifest.json here"):
        make_side(".", tmp_path, tmp_path, repository)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "seconds", "message"),
    [
        ("def test_wrong(benchmark):\n    assert benchmark(lambda: 1) == 2\n", 120, "pytest ended with 1"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", 120, "pytest ended with -11"),
        ("import time\ntime.sleep(60)\n", 3, "not finished within 3 s"),
        ("def test_nothing():\n    pass\n", 120, "pytest ended with"),
    ],
)
def test_failing_processes_are_reported(
    content: str, seconds: float, message: str, tmp_path: Path, repository: Path
) -> None:
    file = tmp_path / "suite.py"
    file.write_text(content)
    side = make_side("quick", None, tmp_path, repository)
    with pytest.raises(SideError, match=message):
        run_process(side, file, tmp_path / "cache", SuiteOptions(timeout_seconds=seconds))


@pytest.mark.slow
def test_only_named_benchmarks_run(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "suite.py"
    file.write_text("".join(f"def test_{name}(benchmark):\n    benchmark(lambda: 1)\n" for name in "abc"))
    side = make_side("quick", None, tmp_path, repository)
    found = run_process(side, file, tmp_path / "cache", QUICK, ("test_a", "test_c"))
    assert list(found.seconds) == ["test_a", "test_c"]
    (tmp_path / "twice").mkdir()
    for name in "ab":
        (tmp_path / "twice" / f"test_{name}.py").write_text(file.read_text())
    with pytest.raises(SideError, match="test_a, test_b, test_c: more than one benchmark"):
        run_process(side, tmp_path / "twice", tmp_path / "cache", QUICK)


@pytest.mark.slow
def test_the_projects_own_benchmarks_run(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    result = gate.gate_run(output=output, options=QUICK, home=tmp_path)
    report = json.loads(output.read_text())
    assert len(report["benchmarks"]) == BENCHMARKS
    assert report["machine_info"]["kdnas"]["versions"]["torch"]
    assert result.path == output


def export_of(kind: str, home: Path, teacher: Teacher, corpus: Corpus) -> Path:
    """Export of a tiny random model of a transformers class."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=teacher.config["vocab_size"],
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=32,
        intermediate_size=48,
    )
    folder = home / kind
    getattr(transformers, kind)(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((teacher.path / name).read_bytes())
    options = ExportOptions(calibration_sentences=8, parity_sentences=8, forms=("onnxruntime-f32",))
    return run_export(home, folder, open_checkpoint(str(folder)).digest, corpus, options).path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        ("BertModel", {"test_filter"}),
        pytest.param(
            "BertForTokenClassification",
            {"test_filter", "test_serving_round_trip", "test_session_128_texts"},
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_benchmarks_of_other_tasks_are_skipped(
    kind: str, left_out: set[str], tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus
) -> None:
    model = export_of(kind, tmp_path, tiny_teacher, corpus)
    output = tmp_path / "found.json"
    gate.gate_run(model=model, output=output, options=QUICK, home=tmp_path)
    ran = {row["name"] for row in json.loads(output.read_text())["benchmarks"]}
    assert not ran & left_out
    assert len(ran | left_out) == BENCHMARKS


def test_a_changed_benchmark_starts_a_new_comparison(suite: Path) -> None:
    digests = {gate.suite_digest(suite), gate.suite_digest(suite.parent)}
    suite.write_text(SUITE + "\n")
    assert len(digests | {gate.suite_digest(suite), gate.suite_digest(suite.parent)}) == 4


def test_invalid_input_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        gate.gate_run(suite=tmp_path / "absent.py", home=tmp_path)
    with pytest.raises(UsageError, match="minutes is 0"):
        gate.gate_compare(".", minutes=0, home=tmp_path)
    with pytest.raises(UsageError, match="must be above 0"):
        SuiteOptions(rounds=0)
