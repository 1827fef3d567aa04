"""The evaluator `family`: the members of one training as candidates, what they cost, and how well they rank."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdnas.autodistil.family import KIND, member_rows, write_rows, write_space
from kdnas.autodistil.sub_space import SubSpace
from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.search import journal
from kdnas.search.family_losses import FamilyLosses
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.run import run_search, search
from kdnas.store.artifact import Artifact, build
from kdnas.text.corpus import Corpus

from .search_fixture import fake_evaluate, known_table, latency_ms, recorded, table

OPTIONS = SearchOptions(evaluator="family", strategy="random", episodes=4, candidates_per_episode=4)
GRID = SubSpace(
    "grid", "bert", (3, 4), (12,), 384, (96, 384, 768)
)  # the members with 96 neurons are outside of the space


def family(home: Path, teacher: Teacher, space: SubSpace = GRID, variance: bool = True, shift: float = 0.0) -> Artifact:
    """A finished family without tensors; its losses are those of `fake_evaluate`, plus `shift`."""

    def work(folder: Path) -> dict[str, Any]:
        write_space(folder, [space], teacher)
        scores: Mapping[Arch, dict[str, Any]] = {
            arch: {
                "loss": (loss := fake_evaluate(arch).loss + shift),
                "explained_variance": 1 - loss if variance else None,
            }
            for arch in space.members
        }
        write_rows(folder, member_rows([space], scores, teacher.student_sizes.rows, {}))
        return {"members": len(scores), "nets": [{"tokens": 700}, {"tokens": 300}]}

    return build(home, KIND, "family", {"space": space.to_dict(), "variance": variance, "shift": shift}, {}, work)


@pytest.fixture(scope="module")
def packaged() -> Teacher:
    return resolve_teacher("builtin:minilm-l6", Path("artifacts"))


def members(space: SubSpace = GRID) -> list[Arch]:
    return [arch for arch in space.members if arch in SearchSpace()]


def test_the_members_in_the_space_are_candidates(
    packaged: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, known = family(tmp_path / "other", packaged), table(tmp_path)
    found = search(OPTIONS, known.path, family=made.path, home=tmp_path)
    candidates = journal.read(found.path / journal.FILE)
    assert {one.arch: one.loss for one in candidates} == {
        arch: pytest.approx(fake_evaluate(arch).loss, abs=1e-6) for arch in members()
    }
    assert found.results["objective"] == "hidden-state"
    figures = found.results["family"]
    assert (figures["members"], figures["in_space"], figures["tokens"]) == (6, 4, 1000)
    assert figures["seconds_per_member"] == pytest.approx(figures["seconds"] / 6, abs=1e-3)
    assert found.results["ranking"] is None
    assert found.manifest["inputs"] == {"family": made.digest, "latency-table": known.digest}
    shown = capsys.readouterr().err
    assert "2 of 6 members are outside of the published search space" in shown
    assert "how well it ranks is not known without --compare" in shown
    within = replace(OPTIONS, max_latency_ms=latency_ms(Arch(3, 12, 384, 768)))
    limited = search(within, known.path, family=made.path, space=SearchSpace(layers=(3,)), home=tmp_path)
    assert limited.results["candidates"] == 2


def test_its_ranks_are_compared_with_a_recording(
    packaged: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, known = family(tmp_path / "other", packaged), table(tmp_path)
    others = [Arch(6, 12, 384, 384)]
    file = recorded(tmp_path / "losses.csv", [*members(), *others])
    found = search(OPTIONS, known.path, family=made.path, compare=file, home=tmp_path)
    ranking = found.results["ranking"]
    assert (ranking["archs"], ranking["tau"]) == (4, 1.0)
    assert -1 <= ranking["tau_of_parameters"] <= 1
    assert "Kendall's tau 1.00 with 4 recorded losses" in capsys.readouterr().err
    assert search(OPTIONS, known.path, family=made.path, home=tmp_path).path != found.path
    few = recorded(tmp_path / "few.csv", members()[:2])
    with pytest.raises(UsageError, match="the recording has 2 of the family's 4 members, at least 3 are needed"):
        search(OPTIONS, known.path, family=made.path, compare=few, home=tmp_path)


def test_tau_by_hand(packaged: Teacher, tmp_path: Path) -> None:
    """Of the 6 pairs of 4 architectures, the recorded order of one differs: (5 - 1) / 6."""
    losses = FamilyLosses.load(family(tmp_path, packaged).path, packaged)
    archs = sorted(members(), key=lambda arch: fake_evaluate(arch).loss)
    swapped = [archs[1], archs[0], archs[2], archs[3]]
    other = replace(
        losses.recording,
        losses={arch: {0: {1: float(place)}} for place, arch in enumerate(swapped)},
    )
    assert losses.ranking(other)["tau"] == pytest.approx(4 / 6, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (OPTIONS, {}, "add --family"),
        (replace(OPTIONS, evaluator="proxy"), {"family": "x"}, "works only with --evaluator family"),
        (replace(OPTIONS, evaluator="proxy"), {"compare": "x"}, "works only with --evaluator family"),
        (OPTIONS, {"family": "x", "replay": "y"}, "use --compare"),
        (OPTIONS, {"family": "x", "ray": "local"}, "leave --ray out"),
        (replace(OPTIONS, proxy=ProxyOptions("embedding")), {"family": "x"}, "leave --proxy.objective out"),
    ],
)
def test_options_that_do_not_fit(options: SearchOptions, given: dict[str, str], message: str, tmp_path: Path) -> None:
    paths: dict[str, Any] = {name: value if name == "ray" else Path(value) for name, value in given.items()}
    with pytest.raises(UsageError, match=message):
        search(options, tmp_path / "table", home=tmp_path, **paths)


def test_families_that_do_not_fit(packaged: Teacher, tiny_teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is of teacher"):
        FamilyLosses.load(family(tmp_path, tiny_teacher).path, packaged)
    with pytest.raises(UsageError, match="are those of self-attention relations"):
        FamilyLosses.load(family(tmp_path, packaged, variance=False).path, packaged)
    thin = SubSpace("thin", "bert", (3,), (12,), 384, (96, 192))
    with pytest.raises(UsageError, match=r"no member .* is in the published search space"):
        FamilyLosses.load(family(tmp_path, packaged, thin).path, packaged)
    made = family(tmp_path, packaged, shift=0.1)
    with (made.path / "family.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(KdnasError):
        FamilyLosses.load(made.path, packaged)


def test_what_distils_needs_no_family(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only `kdnas search --family` has a family"):
        run_search(tmp_path, tiny_teacher, corpus, SearchSpace(), known_table(), OPTIONS)
