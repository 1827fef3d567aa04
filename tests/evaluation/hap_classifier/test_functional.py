"""The functional suite: its size and expansion, its scores against loops, and that no training path reads it."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.evaluation.hap_classifier.functional import FILE, case_counts, cases, functional_scores

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "evaluation" / "hap_classifier"
# The modules that may read the suite: those that measure a finished classifier.
MEASURES = {"kdnas.evaluation.hap_classifier.check", "kdnas.evaluation.hap_classifier.run"}


def test_the_suite_has_the_promised_cases() -> None:
    suite = cases()
    counted = case_counts(suite)
    assert counted["en"] >= 300
    assert sum(count >= 100 for code, count in counted.items() if code != "en") >= 3
    assert len({(case.language, case.text) for case in suite}) == len(suite)
    assert all("{" not in case.text and "[" not in case.text for case in suite)
    for code in counted:
        groups = {case.group for case in suite if case.language == code} - {""}
        for group in groups:  # the same number of cases of each label for each group, so that rates are comparable
            assert {
                label: sum(case.group == group and case.hateful == label for case in cases((code,)))
                for label in (True, False)
            } == {
                label: sum(case.group == "women" and case.hateful == label for case in cases((code,)))
                for label in (True, False)
            }
    assert cases() == suite
    assert {case.language for case in cases(("de", "pt"))} == {"de", "pt"}
    with pytest.raises(UsageError, match="languages has xx; the functional suite has en, de, fr, pt"):
        cases(("xx",))


def test_templates_are_expanded_with_capitals() -> None:
    texts = {case.text: case for case in cases(("fr", "en"))}
    assert texts["Les femmes me dégoûtent."].group == "women"
    assert texts["I hate Muslims."].hateful
    assert not texts["I do not hate Muslims."].hateful
    assert texts["Holy shit, we won!"].group == ""


def test_scores_are_those_of_loops() -> None:
    suite = cases(("en",))
    said = np.random.default_rng(0).random(len(suite)) < 0.4
    found = functional_scores(said, suite)
    pairs = list(zip(suite, said.tolist(), strict=True))
    f1 = []
    for wanted in (True, False):
        right = sum(case.hateful == wanted and yes == wanted for case, yes in pairs)
        f1.append(
            2 * right / (sum(case.hateful == wanted for case, _ in pairs) + sum(yes == wanted for _, yes in pairs))
        )
    assert found["macro_f1"] == pytest.approx(sum(f1) / 2)
    rates = {}
    for group in {case.group for case in suite} - {""}:
        calm = [yes for case, yes in pairs if case.group == group and not case.hateful]
        rates[group] = sum(calm) / len(calm)
        assert found["by_group"][group]["false_positive_rate"] == pytest.approx(rates[group])
    assert found["false_positive_gap"] == pytest.approx(max(rates.values()) - min(rates.values()))
    quoted = [case.hateful == yes for case, yes in pairs if case.functionality == "quotation"]
    assert found["by_functionality"]["quotation"] == {
        "hateful": False, "accuracy": pytest.approx(sum(quoted) / len(quoted)), "cases": len(quoted),
    }  # fmt: skip


def test_constant_answers_are_not_good() -> None:
    suite = cases(("en",))
    assert functional_scores([True] * len(suite), suite)["false_positive_rate"] == 1
    nothing = functional_scores([False] * len(suite), suite)
    assert nothing["found"] == nothing["false_positive_gap"] == 0
    assert nothing["macro_f1"] < 0.4
    perfect = functional_scores([case.hateful for case in suite], suite)
    assert (perfect["macro_f1"], perfect["accuracy"], perfect["false_positive_gap"]) == (1, 1, 0)


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_training_path_reads_the_suite() -> None:
    suite = "kdnas.evaluation.hap_classifier.functional"
    readers, namers = set(), set()
    for folder in ("kdnas", "evaluation", "export", "serving", "latency", "gates"):
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if folder == "kdnas" else ("kdnas", *parts))
            if suite in _imports(file):
                readers.add(name)
            if FILE.name in file.read_text():
                namers.add(name)
    assert readers <= MEASURES
    assert namers == {suite}
    # The modules that train import none of the modules that measure.
    for name in ("sets", "union", "balance", "swaps", "words", "scored_texts", "train", "decide"):
        if (PACKAGE / f"{name}.py").is_file():
            assert not {suite, *MEASURES} & _imports(PACKAGE / f"{name}.py"), name
    for name in ("finetune", "encoded", "data", "reading", "tasks"):
        assert not {suite, *MEASURES} & _imports(ROOT / "evaluation" / f"{name}.py"), name


def test_the_file_says_what_it_is_for() -> None:
    assert "must never be used for training" in json.loads(FILE.read_text(encoding="utf-8"))["note"]
