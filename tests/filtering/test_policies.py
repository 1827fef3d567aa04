"""Labels and thresholds that came with the model: by label and language, in the split, the manifest, the log and the page."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.export.session import Session
from kdnas.export.thresholds import THRESHOLDS
from kdnas.filtering.decision import Scored, verdict_of
from kdnas.filtering.options import DecisionOptions, FilterOptions
from kdnas.filtering.policies import choose_policy, policy_config, policy_line, recorded_policy
from kdnas.filtering.recorded import filter_apply
from kdnas.filtering.run import filter_documents
from kdnas.filtering.spans import sentence_spans
from kdnas.store.artifact import Artifact

from ..page_fixture import Page
from .filter_fixture import FORM, contents, rows, write_thresholds

LABELS = ["hate", "abuse", "profanity"]
SOURCE = "thresholds.json (precision 0.9 on dev rows)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with thresholds of hate by language and of abuse; profanity has none."""
    hate = {"threshold": 0.6, "languages": {"de": {"threshold": 0.7}, "fr": {"threshold": None}}}
    return write_thresholds(tmp_path, {"hate": hate, "abuse": {"threshold": 0.4}, "profanity": {"threshold": None}})


def test_the_file_says_which_labels_to_drop_and_from_which_score(folder: Path) -> None:
    policy, source = choose_policy(folder, LABELS, DecisionOptions())
    assert (policy.labels, policy.thresholds, source) == (("hate", "abuse"), (0.6, 0.4), SOURCE)
    assert [policy.limits(code) for code in ("de", "de-AT", "DE_ch", "fr", "en", "")] == [
        *[(0.7, 0.4)] * 3, (math.inf, 0.4), (0.6, 0.4), (0.6, 0.4),
    ]  # fmt: skip
    assert (
        policy_line(policy, source) == f"drops hate from 0.6 (de 0.7, fr never), abuse from 0.4; thresholds: {SOURCE}"
    )
    one, _ = choose_policy(folder, LABELS, DecisionOptions(label=("abuse",)))
    assert (one.labels, one.limits("fr")) == (("abuse",), (0.4,))


def test_a_given_threshold_replaces_those_of_the_file(folder: Path, tmp_path: Path) -> None:
    policy, source = choose_policy(folder, LABELS, DecisionOptions(threshold=(0.3,)))
    assert (policy.labels, policy.limits("de"), source) == (tuple(LABELS), (0.3,) * 3, "option")
    policy, _ = choose_policy(folder, LABELS, DecisionOptions(("profanity", "hate"), (0.3, 0.2)))
    assert (policy.labels, policy.limits("fr")) == (("profanity", "hate"), (0.3, 0.2))
    (folder / THRESHOLDS).unlink()
    policy, source = choose_policy(folder, ["ok", "hap"], DecisionOptions())
    assert (policy.labels, policy.limits("de"), source) == (("hap",), (0.5,), "default")
    with pytest.raises(UsageError, match="its labels do not show which one to drop"):
        choose_policy(folder, LABELS, DecisionOptions())


def test_labels_without_a_threshold_are_refused(folder: Path) -> None:
    for label in ("profanity", "other"):
        with pytest.raises(UsageError, match=rf"label '{label}': .*(give --threshold|has no such label)"):
            choose_policy(folder, [*LABELS], DecisionOptions(label=(label,)))
    with pytest.raises(UsageError, match="is for probabilities; give --threshold"):
        choose_policy(folder, LABELS, DecisionOptions(document_score="fraction"))
    write_thresholds(folder, {"hate": {"threshold": None}})
    with pytest.raises(UsageError, match="no label has a threshold"):
        choose_policy(folder, LABELS, DecisionOptions())


def test_a_language_decides_with_its_thresholds(folder: Path) -> None:
    policy, _ = choose_policy(folder, LABELS, DecisionOptions())

    def fate(language: str, hate: float, abuse: float = 0.1) -> tuple[str, str]:
        verdict = verdict_of(Scored([], np.array([[hate, abuse]])), policy, language)
        return verdict.fate, verdict.reason

    assert fate("en", 0.65) == ("dropped", "P(hate) 0.65 >= 0.6")
    assert fate("", 0.65)[0] == fate("xx", 0.65)[0] == "dropped"
    assert fate("de", 0.65) == ("kept", "")
    assert fate("de", 0.75) == ("dropped", "P(hate) 0.75 >= 0.7")
    assert fate("fr", 1.0) == ("kept", "")
    assert fate("fr", 1.0, 0.4) == ("dropped", "P(abuse) 0.4 >= 0.4")
    # One of the first 16 sentences suffices in English; the German document is decided by all of its sentences.
    many = Scored([], np.array([[0.65, 0.1]] + [[0.1, 0.1]] * 15 + [[0.9, 0.1]]))
    assert [verdict_of(many, policy, code).value for code in ("en", "de")] == [0.65, 0.9]


def test_a_sentence_is_positive_by_the_thresholds_of_its_language(folder: Path) -> None:
    policy, _ = choose_policy(folder, LABELS, DecisionOptions())
    scores = np.array([[0.65, 0.1], [0.65, 0.1], [0.75, np.nan], [1.0, 0.1], [1.0, 0.4], [np.nan, np.nan]])
    found = policy.positive(scores, ["en", "de-AT", "", "fr"], [1, 2, 0, 3])
    assert found.tolist() == [True, False, True, False, True, False]
    assert policy.lowest_levels.tolist() == [0.6, 0.4]
    fraction, _ = choose_policy(folder, LABELS, DecisionOptions(("hate",), (0.9,), "fraction", 0.3))
    assert fraction.positive(scores[:, :1], ["de", "en"], [3, 3]).tolist() == [True] * 5 + [False]
    assert fraction.lowest_levels.tolist() == [0.3]


def test_a_policy_is_the_same_after_a_run_has_recorded_it(folder: Path) -> None:
    policy, source = choose_policy(folder, LABELS, DecisionOptions())
    config = json.loads(json.dumps(policy_config(policy, source), allow_nan=False))
    assert recorded_policy(config, DecisionOptions()) == (policy, source)
    only, _ = recorded_policy(config, DecisionOptions(label=("abuse",)))
    assert (only.labels, only.limits("fr")) == (("abuse",), (0.4,))
    given, origin = recorded_policy(config, DecisionOptions(threshold=(0.2,)))
    assert (given.limits("fr"), origin) == ((0.2, 0.2), "option")
    with pytest.raises(UsageError, match="for probabilities"):
        recorded_policy(config, DecisionOptions(document_score="fraction"))


@pytest.mark.slow
def test_a_run_uses_and_states_the_thresholds_of_the_model(
    independent: Path, sentences: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["\n".join(sentences[at : at + 1 + at % 20]) for at in range(200)]  # some have more than 16 sentences
    languages = ["en", "de-AT", ""]
    source = tmp_path / "docs.jsonl"
    records = [{"id": n, "text": text, "lang": languages[n % 3]} for n, text in enumerate(texts)]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    given = (independent, (str(source),))
    filter_documents(*given, str(tmp_path / "out"), FORM, 1, verify=False)
    assert f"drops hap from 0.5 (de 0.8); thresholds: {SOURCE}" in capsys.readouterr().err
    session = Session(independent, FORM, 1, verify=False)
    dropped = {row["id"]: row["kdnas"] for row in rows(tmp_path / "out/dropped")}
    assert len(dropped) + len(rows(tmp_path / "out/kept")) == 200
    between = 0
    for number, text in enumerate(texts):
        score = session.predict([text[start:end] for start, end in sentence_spans(text)])[:, 1].max()
        limit = 0.8 if languages[number % 3] == "de-AT" else 0.5
        between += limit == 0.8 and 0.5 <= score < 0.8
        if abs(score - limit) > 1e-4:
            assert (number in dropped) == (score >= limit)
        if number in dropped:
            assert dropped[number]["reason"].endswith(f">= {limit}")
    assert between > 3  # German documents that are kept by their own threshold
    config = Artifact.load(tmp_path / "out", "filter").manifest["config"]
    assert (config["threshold"], config["language_thresholds"]) == ([0.5], {"de": [0.8]})
    assert config["threshold_source"] == SOURCE
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert page.text_of["limits"].split()[-2:] == ["others0.5", "de0.8"]
    assert SOURCE in (tmp_path / "out/report.html").read_text(encoding="utf-8")

    filter_documents(*given, str(tmp_path / "scores"), FORM, 1, FilterOptions(mode="annotate"), verify=False)
    filter_apply(str(tmp_path / "scores"), str(tmp_path / "applied"))
    kept = {name: data for name, data in contents(tmp_path / "applied").items() if name.startswith("kept")}
    assert kept == {name: data for name, data in contents(tmp_path / "out").items() if name.startswith("kept")}
    assert Artifact.load(tmp_path / "applied").manifest["config"]["threshold_source"] == SOURCE

    filter_documents(*given, str(tmp_path / "given"), FORM, 1, FilterOptions(("hap",), (0.8,)), verify=False)
    assert "drops hap from 0.8; thresholds: option" in capsys.readouterr().err
    assert len(rows(tmp_path / "given/dropped")) < len(dropped)
