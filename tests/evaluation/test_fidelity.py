"""Fidelity of recorded losses: hand-computed tau, a whole run on a tiny teacher, resuming, and refused options."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.distill.options import DistillOptions
from kdnas.errors import DivergenceError, KdnasError, UsageError
from kdnas.evaluation import fidelity as module
from kdnas.evaluation.fidelity import FILE, FidelityOptions, chosen, fidelity, kept_percent, run_fidelity, taus
from kdnas.evaluation.suite_options import SuiteOptions
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher
from kdnas.search.recording import Recording
from kdnas.text.corpus import Corpus

from ..search.search_fixture import recorded

SPACE = SearchSpace(layers=(3,), heads=(2, 12), hidden=(288,), ffn=(384, 512, 768), activation=("gelu",))
ARCHS = list(SPACE)  # 6
RECORDING = Recording(
    {arch: {1: {50: 0.9 - 0.01 * (index % 2), 100: 0.8 - 0.05 * index}} for index, arch in enumerate(ARCHS)},
    "recording",
)
DISTILL = DistillOptions(steps=3, batch_tokens=256, validations=1, validation_sentences=20, pair_fraction=0)
OPTIONS = FidelityOptions(architectures=5, tasks=("glue/sst2",))


def test_a_good_ranking_has_a_positive_tau_against_losses_and_scores() -> None:
    losses = {arch: 0.5 - 0.05 * index for index, arch in enumerate(ARCHS)}
    scores = {arch: {"glue/sst2": 0.7 + 0.01 * index} for index, arch in enumerate(ARCHS)}
    found = taus(RECORDING, losses, scores, FidelityOptions(architectures=6, target=0.9))
    rows = {(row["tokens"], row["against"]): row["tau"] for row in found["taus"]}
    assert rows[100, "loss"] == rows[100, "glue/sst2"] == pytest.approx(1)
    assert rows[50, "loss"] < 0.9
    assert found["cheapest_tokens"] == 100
    assert taus(RECORDING, dict(reversed(list(losses.items()))), scores, OPTIONS)["cheapest_tokens"] == 100
    worse = taus(RECORDING, {arch: -loss for arch, loss in losses.items()}, scores, OPTIONS)
    assert worse["cheapest_tokens"] is None


def test_the_chosen_architectures_span_the_losses() -> None:
    picked = chosen(RECORDING, ARCHS, 3)
    assert [RECORDING(arch).loss for arch in picked] == pytest.approx([0.55, 0.65, 0.8])
    with pytest.raises(UsageError, match="architectures is 7, but the recording has only 6"):
        chosen(RECORDING, ARCHS, 7)


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    folder = tmp_path / "data/glue/sst2"
    folder.mkdir(parents=True)
    for split, count in {"train": 200, "validation": 20}.items():
        rows = [{"sentence": f"{split} {n} {'red' if n % 2 else 'late'}", "label": n % 2} for n in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "data"


@pytest.mark.slow
@pytest.mark.usefixtures("small_sample")
def test_each_student_is_trained_once_and_the_rankings_are_compared(
    tiny_teacher: Teacher, corpus: Corpus, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites = SuiteOptions(data_root, seeds=(0,), learning_rates=(1e-3,), epochs=1)
    given = (tmp_path, tiny_teacher, corpus, RECORDING, SPACE, OPTIONS, DISTILL, suites)
    real, fine_tuned = module.run_suites, 0

    def killed(*arguments: object) -> object:
        nonlocal fine_tuned
        fine_tuned += 1
        if fine_tuned == 3:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "run_suites", killed)
    with pytest.raises(KeyboardInterrupt):
        run_fidelity(*given)
    monkeypatch.undo()
    begun = {path.name for path in (tmp_path / "tuned").iterdir() if not path.name.endswith(".partial")}
    assert len(begun) == 2
    found = run_fidelity(*given)
    assert begun < {path.name for path in (tmp_path / "tuned").iterdir()}
    assert found.results["architectures"] == 5
    assert found.results["tasks"] == ["glue/sst2"]
    assert found.results["seed_noise"] == {"glue/sst2": "one seed"}
    assert found.results["best_third"] == 2
    assert {row["tokens"] for row in found.results["taus"]} == {50, 100}
    with (found.path / FILE).open() as file:
        rows = list(csv.DictReader(file))
    recorded = sorted(RECORDING(arch).loss for arch in chosen(RECORDING, ARCHS, 5))
    assert [float(row["loss 100"]) for row in rows] == pytest.approx(recorded)
    reference = found.results["teacher_scores"]["glue/sst2"]
    for row in rows:
        assert float(row["kept % glue/sst2"]) == pytest.approx(
            100 * float(row["score glue/sst2"]) / reference, abs=1e-3
        )
        assert 0 < float(row["loss"]) < 2
    elsewhere = shutil.copytree(data_root, tmp_path / "elsewhere")
    assert run_fidelity(*given[:-1], replace(suites, data_root=elsewhere)).path == found.path


@pytest.mark.slow
@pytest.mark.usefixtures("small_sample")
def test_invalid_options_and_failed_trainings_are_refused(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"add --distill\.steps"):
        fidelity(FidelityOptions(), tmp_path, DistillOptions())
    with pytest.raises(UsageError, match="at least 5"):
        FidelityOptions(architectures=4)
    with pytest.raises(UsageError, match="target is 0"):
        FidelityOptions(target=0)

    def diverges(*_: object, **__: object) -> None:
        raise DivergenceError("the loss is nan at step 3")

    monkeypatch.setattr("kdnas.distill.run.run_distill", diverges)
    with pytest.raises(KdnasError, match="0 of 5 architectures could be trained"):
        run_fidelity(
            tmp_path, tiny_teacher, corpus, RECORDING, SPACE, FidelityOptions(architectures=5), DISTILL, SuiteOptions()
        )
    assert Arch(3, 2, 288, 384) in ARCHS


def test_a_recording_of_another_teacher_is_refused(tiny_teacher: Teacher, tmp_path: Path) -> None:
    file = recorded(tmp_path / "losses.csv", ARCHS, teacher="mpnet", teacher_digest="0123456789abc")
    with pytest.raises(
        UsageError, match=r"^fidelity: the recording is of teacher 'mpnet' \(digest 0123456789\), not of"
    ):
        fidelity(
            FidelityOptions(architectures=5),
            file,
            DistillOptions(steps=3),
            teacher=str(tiny_teacher.path),
            home=tmp_path,
        )


def test_a_teacher_that_scores_0_has_no_retention() -> None:
    assert kept_percent(0.3, 0.6) == pytest.approx(50)
    assert math.isnan(kept_percent(0.3, 0.0))
