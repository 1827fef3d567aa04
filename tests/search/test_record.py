"""Recorded proxy losses: spread over the space, identical after a kill, and equal to the proxy's own losses."""

import csv
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import kdnas.search.proxy as proxy_module
from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher
from kdnas.search.design import features, spread
from kdnas.search.options import ProxyOptions
from kdnas.search.proxy import Proxy
from kdnas.search.record import RecordOptions, run_record
from kdnas.search.recording import read_recording
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

pytestmark = pytest.mark.slow


SPACE = SearchSpace(layers=(3, 4), hidden=(288,), ffn=(384, 512), activation=("gelu",))
PROXY = ProxyOptions(tokens=900, batch_tokens=256, validation_sentences=20)
OPTIONS = RecordOptions(architectures=4, seeds=(0, 3), repeated=2, checkpoints=3, proxy=PROXY)


@pytest.fixture(scope="module")
def whole(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    return run_record(home / "record", tiny_teacher, corpus, SPACE, OPTIONS)


def losses(artifact: Artifact) -> list[dict[str, str]]:
    with (artifact.path / "recording.csv").open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def test_recording_has_the_proxy_losses(whole: Artifact, tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    recording = read_recording(whole.path)
    assert len(recording.losses) == 4
    assert [sorted(seeds) for seeds in recording.losses.values()].count([0, 3]) == 2
    assert len(losses(whole)) == (4 + 2) * 3 == whole.results["losses"]
    assert whole.results["failed"] == 0
    proxy = Proxy(tmp_path / "states", tiny_teacher, corpus, SPACE, PROXY, 0)
    arch = next(iter(recording.losses))
    found = proxy(arch)
    by_tokens = recording.losses[arch][0]
    assert max(by_tokens) == found.tokens == recording(arch).tokens
    # Intermediate measurements do not change the final loss.
    assert recording(arch).loss == pytest.approx(found.loss, abs=1e-6)
    assert len(by_tokens) == 3
    assert by_tokens[min(by_tokens)] > found.loss


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
    options = RecordOptions(architectures=9, seeds=(0,), repeated=0, checkpoints=1, proxy=PROXY)
    found = run_record(tmp_path, tiny_teacher, corpus, space, options)
    assert found.results["failed"] == 1
    assert found.results["architectures"] == 2
    assert list(read_recording(found.path).losses) == [Arch(3, 2, 288, 384)]
    monkeypatch.setattr(Proxy, "curve", lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(KdnasError, match="all 1 architectures failed, the first with 'RuntimeError: no'"):
        run_record(tmp_path, tiny_teacher, corpus, SearchSpace((3,), (2,), (288,), (576,), ("gelu",)), options)


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
    "wrong", [{"architectures": 0}, {"checkpoints": 0}, {"seeds": (1, 1)}, {"seeds": ()}, {"repeated": 301}]
)
def test_invalid_options_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        RecordOptions(**wrong)  # type: ignore[arg-type]
