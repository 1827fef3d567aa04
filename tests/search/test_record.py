"""Recorded proxy losses: drawn from the space, identical after a kill, and equal to the proxy's own losses."""

import csv
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import kdnas.search.proxy as proxy_module
from kdnas.distill.hidden_state import TeacherStates
from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher
from kdnas.search.design import features, spread
from kdnas.search.drawing import drawn, named, origins
from kdnas.search.options import ProxyOptions
from kdnas.search.proxy import Proxy
from kdnas.search.record import RecordOptions, run_record
from kdnas.search.recording import read_recording, require_recorded_with
from kdnas.store.artifact import Artifact
from kdnas.store.host import host, host_name
from kdnas.text.corpus import Corpus

pytestmark = pytest.mark.slow


SPACE = SearchSpace(layers=(3, 4), hidden=(288,), ffn=(384, 512), activation=("gelu",))
PROXY = ProxyOptions(tokens=900, batch_tokens=256, validation_sentences=20)
OPTIONS = RecordOptions(architectures=4, seed=3, second_seed_for=2, checkpoints=3, proxy=PROXY)


@pytest.fixture(scope="module")
def whole(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    return run_record(home / "record", tiny_teacher, corpus, SPACE, OPTIONS)


def losses(artifact: Artifact) -> list[dict[str, str]]:
    with (artifact.path / "recording.csv").open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def test_recording_has_the_proxy_losses(whole: Artifact, tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    recording = read_recording(whole.path)
    assert len(recording.losses) == 4
    assert [sorted(seeds) for seeds in recording.losses.values()].count([3, 4]) == 2
    assert len(losses(whole)) == (4 + 2) * 3 == whole.results["losses"]
    assert whole.results["failed"] == 0
    proxy = Proxy(tmp_path / "states", tiny_teacher, corpus, SPACE, PROXY, 3)
    arch = next(iter(recording.losses))
    found = proxy(arch)
    by_tokens = recording.losses[arch][3]
    assert max(by_tokens) == found.tokens == recording(arch).tokens
    # Intermediate measurements do not change the final loss.
    assert recording(arch).loss == pytest.approx(found.loss, abs=1e-6)
    assert len(by_tokens) == 3
    assert by_tokens[min(by_tokens)] > found.loss


def test_a_recording_says_where_it_comes_from(whole: Artifact, tiny_teacher: Teacher) -> None:
    recording, rows = read_recording(whole.path), losses(whole)
    assert recording.source.digest == tiny_teacher.digest
    assert recording.source.teacher == tiny_teacher.label
    assert recording.source.shape == tiny_teacher.shape == Arch(4, 12, 96, 192)
    assert recording.source.hosts == (host_name(host()),)
    assert recording.source.commits == tuple(filter(None, [host()["commit"]]))
    assert recording.drawn_at_random == set(recording.losses)
    assert {row["origin"] for row in rows} == {"random"}
    require_recorded_with(recording, tiny_teacher, "search")
    with pytest.raises(UsageError, match=r"^search: the recording is of teacher .* not of 'other' \(digest d\); give"):
        require_recorded_with(recording, replace(tiny_teacher, spec="other", digest="d"), "search")


def test_the_teacher_runs_once_for_all_architectures_of_a_seed(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, counts = TeacherStates.__call__, []

    def counted(self: TeacherStates, ids: Tensor, *given: Tensor) -> object:
        counts.append(len(ids))
        return real(self, ids, *given)

    monkeypatch.setattr(TeacherStates, "__call__", counted)
    sentences = []
    for number in (1, 3):
        counts.clear()
        options = RecordOptions(architectures=number, second_seed_for=0, checkpoints=1, proxy=PROXY)
        run_record(tmp_path / str(number), tiny_teacher, corpus, SPACE, options)
        sentences.append(sum(counts))
    assert sentences[0] == sentences[1] > 0


def test_recording_killed_after_each_architecture_is_identical(
    whole: Artifact, tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, distilled = Proxy.curve, []

    def once(self: Proxy, arch: Arch, marks: list[float]) -> object:
        if distilled and distilled[-1] is None:
            distilled[-1] = arch
            return real(self, arch, marks)
        raise KeyboardInterrupt

    monkeypatch.setattr(proxy_module.Proxy, "curve", once)
    for _ in range(6):
        distilled.append(None)
        with suppress(KeyboardInterrupt):
            run_record(tmp_path, tiny_teacher, corpus, SPACE, OPTIONS)
        journal = next(tmp_path.glob("recording/*/journal.jsonl"))
        with journal.open("a") as file:
            if journal.parent.name.endswith(".partial"):
                file.write('{"seed": 0, "arc')  # truncated by the kill
    again = run_record(tmp_path, tiny_teacher, corpus, SPACE, OPTIONS)
    assert losses(again) == losses(whole)
    assert len(distilled) == 6


def test_recording_killed_after_the_last_architecture_leaves_no_states(
    whole: Artifact, tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Proxy) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Proxy, "close", killed)
        with pytest.raises(KeyboardInterrupt):
            run_record(tmp_path, tiny_teacher, corpus, SPACE, OPTIONS)
    again = run_record(tmp_path, tiny_teacher, corpus, SPACE, OPTIONS)
    assert losses(again) == losses(whole)
    assert sorted(again.manifest["files"]) == ["journal.jsonl", "recording.csv"]


def test_failures_are_recorded(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Proxy.curve

    def sometimes(self: Proxy, arch: Arch, marks: list[float]) -> object:
        if arch.ffn == 512:
            raise RuntimeError("not enough memory")
        return real(self, arch, marks)

    monkeypatch.setattr(Proxy, "curve", sometimes)
    space = SearchSpace(layers=(3,), heads=(2,), hidden=(288,), ffn=(384, 512), activation=("gelu",))
    options = RecordOptions(architectures=9, second_seed_for=0, checkpoints=1, proxy=PROXY)
    found = run_record(tmp_path, tiny_teacher, corpus, space, options)
    assert found.results["failed"] == 1
    assert found.results["architectures"] == 2
    assert list(read_recording(found.path).losses) == [Arch(3, 2, 288, 384)]
    monkeypatch.setattr(Proxy, "curve", lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(KdnasError, match="all 1 architectures failed, the first with 'RuntimeError: no'"):
        run_record(tmp_path, tiny_teacher, corpus, SearchSpace((3,), (2,), (288,), (576,), ("gelu",)), options)


def test_random_architectures_are_drawn_with_equal_chances() -> None:
    space = SearchSpace().teachable(12)
    chosen = drawn(space, 150, "random", 0)
    assert len(set(chosen)) == 150
    assert drawn(space, 40, "random", 0) == chosen[:40]
    assert drawn(space, 150, "random", 1) != chosen
    assert set(drawn(space, 10_000, "random", 2)) == set(space)
    # 2400 architectures in 80 draws of 600: each depth, head count and width is expected equally often.
    many = [arch for seed in range(80) for arch in drawn(space, 600, "random", seed)]
    for name in ("layers", "heads", "hidden"):
        counts = Counter(getattr(arch, name) for arch in many)
        assert set(counts) == set(getattr(space, name))
        assert max(counts.values()) < 1.05 * min(counts.values())


def test_named_architectures_are_added_and_marked() -> None:
    teacher = Arch(12, 12, 768, 3072)
    found = named(SearchSpace(), teacher)
    assert found == {
        Arch(6, 12, 384, 1536): "6L-384H",
        Arch(6, 12, 768, 3072): "6L-768H",
        Arch(3, 12, 384, 1024): "KDNASArch1",
        Arch(4, 4, 288, 768): "KDNASArch2",
        Arch(4, 12, 576, 768): "KDNASArch3",
        teacher: "teacher's shape",
    }
    assert teacher not in named(SearchSpace().teachable(6), teacher)
    assert named(SearchSpace(), Arch(6, 12, 384, 1536)) == named(SearchSpace(), None)
    both = [Arch(3, 2, 288, 384), Arch(4, 4, 288, 768)]
    marked = origins(both, found, "random")
    assert list(marked)[:2] == both
    assert marked[both[1]] == "random"  # it was drawn, so it counts as drawn
    assert len(marked) == 2 + 5


def test_spread_architectures_are_far_from_each_other() -> None:
    states = list(SearchSpace().teachable(6))
    chosen = spread(states, 100, seed=0)
    assert len(set(chosen)) == 100
    assert spread(states, 40, seed=0) == chosen[:40]
    points = features(states)
    index = {arch: number for number, arch in enumerate(states)}

    def nearest(archs: list[Arch]) -> float:
        at = points[[index[arch] for arch in archs]]
        distance = ((at[:, None] - at[None]) ** 2).sum(-1)
        return float(distance[~np.eye(len(at), dtype=bool)].min())

    order = np.random.default_rng(0).permutation(len(states))[:100]
    assert nearest(chosen) > nearest([states[number] for number in order])
    assert sorted(spread(states, 10_000, seed=1)) == sorted(states)


@pytest.mark.parametrize(
    "wrong", [{"architectures": 0}, {"checkpoints": 0}, {"seed": -1}, {"second_seed_for": 151}, {"draw": "luck"}]
)
def test_invalid_options_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        RecordOptions(**wrong)  # type: ignore[arg-type]
