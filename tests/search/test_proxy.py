"""Proxy distillation: cached states equal the teacher's, all candidates see the same batches, the loss falls."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdnas.distill.cut_table import ids_of
from kdnas.distill.hidden_state import HiddenStateLoss, HiddenStateObjective, TeacherStates
from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.distill.options import DistillOptions
from kdnas.distill.starting import start_student
from kdnas.distill.warm_start import TeacherLayers
from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.search import teacher_states
from kdnas.search.candidates import wanted_layers
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.proxy import LiveStates, Proxy, batch_plan, training_subset
from kdnas.search.teacher_states import CachedStates, Subset, cache_bytes
from kdnas.text.corpus import Corpus

ARCH = Arch(3, 12, 288, 384, "gelu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible to PyTorch")
SMALL = SearchSpace(layers=(3, 4), hidden=(288,), ffn=(384,))


@pytest.fixture(scope="module")
def subset(corpus: Corpus) -> Subset:
    return Subset(corpus.train, np.random.default_rng(0).permutation(len(corpus.train))[:60])


@pytest.mark.slow
def test_cached_states_equal_the_live_teachers(teacher: Teacher, subset: Subset, tmp_path: Path) -> None:
    encoder = load_encoder(teacher.path)
    kept = CachedStates(tmp_path, subset, encoder, [2, 6], pad_id=0)
    live = LiveStates(subset, encoder, pad_id=0)
    indices = np.array([5, 59, 0, 17])
    ids, mask = subset.batch(indices, 0)
    found, expected = kept(indices, mask, [2, 6]), TeacherStates(encoder, [2, 6])(ids, mask)
    again = live(indices, mask, [2, 6])
    for layer in (2, 6):
        real = mask.bool()
        torch.testing.assert_close(found[layer][real].float(), expected[layer][real], rtol=1e-3, atol=2e-3)
        assert found[layer][~real].abs().sum() == 0
        assert torch.equal(again[layer], expected[layer])
        # Other sentences have other states: the comparison above can fail.
        assert not torch.allclose(found[layer][0, 1].float(), found[layer][1, 1].float(), atol=2e-3)
    measured, computed = kept.variance([2, 6]), live.variance([2, 6])
    assert measured == {layer: pytest.approx(value, rel=1e-3) for layer, value in computed.items()}
    assert sum(file.stat().st_size for file in tmp_path.glob("*.f16")) == cache_bytes(
        int(subset.lengths.sum()), [2, 6], 384
    )


def test_interrupted_caching_resumes_with_equal_states(
    tiny_teacher: Teacher, subset: Subset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_states, "BATCH_TOKENS", 128)
    monkeypatch.setattr(teacher_states, "SAVED_EVERY", 3)
    encoder = load_encoder(tiny_teacher.path)
    whole = CachedStates(tmp_path / "whole", subset, encoder, [1, 4], pad_id=0)
    calls = []

    def killed(tokens: float) -> None:
        calls.append(tokens)
        if len(calls) == 9:  # the found part, then eight batches: two of them after the last mark
            raise KeyboardInterrupt

    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        CachedStates(folder, subset, encoder, [1, 4], 0, killed)
    with (folder / "layer-4.f16").open("ab") as file:
        file.write(b"torn")
    found: list[float] = []
    resumed = CachedStates(folder, subset, encoder, [1, 4], 0, found.append)
    assert found[0] == sum(calls[:7]) > 0  # six batches were saved
    assert sum(found) == subset.lengths.sum()
    for layer in (1, 4):
        assert torch.equal(whole.rows[layer], resumed.rows[layer])
    spent = resumed.seconds
    assert spent > json.loads((folder / "done.json").read_text())["seconds"] * 0.99 > 0
    assert CachedStates(folder, subset, encoder, [1, 4], 0).seconds == spent  # everything was cached: no time is added


@NEEDS_GPU
def test_gpu_teacher_gives_the_same_states_and_initialisation(
    tiny_teacher: Teacher, subset: Subset, tmp_path: Path
) -> None:
    kept, started = {}, {}
    for device in ("cpu", "cuda"):
        encoder = load_encoder(tiny_teacher.path).to(device)
        kept[device] = CachedStates(tmp_path / device, subset, encoder, [1, 4], pad_id=0)
        student = student_from_teacher(Arch(2, 12, 48, 64), encoder, seed=0)
        TeacherLayers(encoder, [subset.batch(np.arange(20), 0, device)]).start(student)
        started[device] = [layer.output.dense.weight for layer in student.encoder.layer]
    for layer in (1, 4):
        torch.testing.assert_close(kept["cuda"].rows[layer], kept["cpu"].rows[layer], rtol=1e-2, atol=1e-2)
    for ours, theirs in zip(started["cuda"], started["cpu"], strict=True):
        # Singular vectors may differ in their signs.
        torch.testing.assert_close(ours.abs(), theirs.abs(), rtol=1e-2, atol=1e-3)


def test_states_of_a_12_layer_teacher_fit_the_cache() -> None:
    layers = wanted_layers(SearchSpace().layers, 12)
    assert layers == list(range(1, 13))
    needed = cache_bytes(48_000, layers, 768)
    assert needed == 48_000 * 12 * 768 * 2 < 1e9
    assert needed < ProxyOptions().cache_gb * 1e9


def test_wanted_layers_cover_every_depth() -> None:
    assert wanted_layers((3,), 6) == [1, 3, 4, 5, 6]
    assert wanted_layers((3,), 12) == [1, 5, 9, 10, 11, 12]
    assert wanted_layers(SearchSpace().layers, 12) == list(range(1, 13))


def test_embeddings_need_the_last_layer_whatever_the_mapping() -> None:
    assert wanted_layers((3, 4), 6, objective="embedding") == [6]
    assert wanted_layers((3,), 6, Mapping.UNIFORM, "hidden-state+embedding") == [1, 3, 5, 6]
    assert wanted_layers((3,), 6, Mapping.UNIFORM) == [1, 3, 5]


def test_plan_follows_the_budget(corpus: Corpus) -> None:
    options = ProxyOptions(tokens=3000, epochs=2.5, batch_tokens=256)
    chosen = training_subset(corpus, options, seed=1)
    assert 1200 <= chosen.lengths.sum() < 1200 + 64
    assert len(set(chosen.numbers)) == len(chosen.numbers)
    plan = batch_plan(chosen.lengths, options, seed=1)
    tokens = [int(chosen.lengths[indices].sum()) for indices in plan]
    assert sum(tokens) >= 3000 > sum(tokens[:-1])
    counts = np.bincount(np.concatenate(plan), minlength=len(chosen.numbers))
    assert set(counts) == {2, 3}  # two and a half passes
    again = batch_plan(chosen.lengths, options, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(plan, again, strict=True))
    fraction = ProxyOptions(tokens=None, corpus_fraction=0.3, epochs=4, batch_tokens=1024)
    part = training_subset(corpus, fraction, seed=1)
    whole = int(corpus.train.lengths.sum())
    assert part.lengths.sum() == pytest.approx(0.3 * whole, abs=64)
    assert sum(int(part.lengths[p].sum()) for p in batch_plan(part.lengths, fraction, 1)) == 4 * part.lengths.sum()
    everything = training_subset(corpus, ProxyOptions(tokens=10**9), seed=1)
    assert len(everything.numbers) == len(corpus.train)


@pytest.mark.slow
def test_distillation_is_deterministic_with_cached_or_live_states(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    def proxy(tokens: int, cache_gb: float = 1.0) -> Proxy:
        options = ProxyOptions(tokens=tokens, batch_tokens=512, validation_sentences=40, cache_gb=cache_gb)
        return Proxy(tmp_path / f"{tokens}-{cache_gb}", tiny_teacher, corpus, SMALL, options, seed=0)

    first = proxy(2000)
    result = first(ARCH)
    other = first(Arch(4, 12, 288, 384, "relu"))
    assert first(ARCH) == result
    assert result.tokens == other.tokens == first.tokens >= 2000
    assert result.loss != other.loss
    short, live = proxy(300)(ARCH), proxy(2000, cache_gb=0)(ARCH)
    assert result.loss < 0.9 * short.loss
    assert live.loss == pytest.approx(result.loss, rel=0.02)  # the cached states are float16
    assert not (tmp_path / "2000-0").exists()
    first.close()
    assert not (tmp_path / "2000-1.0").exists()


@pytest.mark.slow
def test_a_large_vocabulary_is_cut_to_the_corpus_with_the_same_loss(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ProxyOptions(tokens=3000, batch_tokens=512, validation_sentences=40)
    found, trained = [], []
    real = Proxy._train

    def noting(proxy: Proxy, objective: HiddenStateObjective, *rest: Any) -> Any:
        trained.append(len(objective.student.get_input_embeddings().weight))
        return real(proxy, objective, *rest)

    monkeypatch.setattr(Proxy, "_train", noting)
    for limit in (10**6, 1000):
        monkeypatch.setattr("kdnas.search.proxy.LARGE_VOCABULARY", limit)
        found.append(Proxy(tmp_path / str(limit), tiny_teacher, corpus, SMALL, options, seed=0)(ARCH))
    assert trained == [tiny_teacher.config["vocab_size"], len(ids_of(corpus, tiny_teacher))]
    assert trained[1] < trained[0]
    assert found[1].loss == pytest.approx(found[0].loss, rel=1e-2)


@pytest.mark.parametrize("published", [False, True])
def test_loss_is_eq_1_on_the_held_out_sentences(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, published: bool
) -> None:
    """With no effective training step, the proxy's loss equals that of a plain loop over sentences."""
    options = ProxyOptions(tokens=1, peak_lr=1e-30, validation_sentences=12)
    distill = DistillOptions(projections="random")
    if published:
        distill = replace(distill, start="random", loss_scale="sum", mapping="last")
    proxy = Proxy(tmp_path / "states", tiny_teacher, corpus, SMALL, options, 5, distill)
    found = proxy(ARCH).loss
    encoder = load_encoder(tiny_teacher.path)
    pairs = layer_pairs(3, 4, Mapping(distill.mapping))
    layers = TeacherLayers(encoder, [proxy.train.batch(indices, corpus.pad_id) for indices in proxy.plan])
    student = start_student(ARCH, encoder, distill.start, 5, layers).eval()
    variance = {2: 1.0, 3: 1.0, 4: 1.0} if published else layer_variance(encoder, proxy.train)
    loss = HiddenStateLoss(pairs, 288, 96, None)
    errors, tokens = np.zeros(len(pairs)), 0
    for number in proxy.validation.numbers:
        ids = torch.from_numpy(corpus.validation[int(number)].astype(np.int64))[None]
        with torch.no_grad():
            states = student(input_ids=ids, output_hidden_states=True).hidden_states
            targets = encoder(input_ids=ids, output_hidden_states=True).hidden_states
            for index, (layer, target) in enumerate(pairs):
                error = (loss.projections[index](states[layer]) - targets[target]).square().mean(-1).sum()
                errors[index] += float(error) / variance[target]
        tokens += ids.shape[1]
    expected = (errors / tokens).sum() if published else (errors / tokens).mean()
    assert found == pytest.approx(float(expected), rel=0.01)


def layer_variance(encoder: torch.nn.Module, subset: Subset) -> dict[int, float]:
    rows: dict[int, list[torch.Tensor]] = {}
    for number in subset.numbers:
        ids = torch.from_numpy(subset.sentences[int(number)].astype(np.int64))[None]
        with torch.no_grad():
            for layer, states in enumerate(encoder(input_ids=ids, output_hidden_states=True).hidden_states):
                rows.setdefault(layer, []).append(states[0])
    return {layer: float(torch.cat(values).var(0, unbiased=False).mean()) for layer, values in rows.items()}


@pytest.mark.slow
def test_divergence_is_reported(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    options = ProxyOptions(tokens=4000, batch_tokens=128, peak_lr=1e30, validation_sentences=8)
    proxy = Proxy(tmp_path / "states", tiny_teacher, corpus, SMALL, options, seed=0)
    result = proxy(ARCH)
    assert not np.isfinite(result.loss)
    assert result.tokens < proxy.tokens  # stopped early


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tokens": None}, "give one of them"),
        ({"corpus_fraction": 0.3}, "give one of them"),
        ({"tokens": None, "corpus_fraction": 1.3}, "at most 1"),
        ({"tokens": 0}, "at least 1"),
        ({"epochs": 0}, "above 0"),
        ({"batch_tokens": 4}, "at least 16"),
        ({"cache_gb": -1.0}, "negative"),
    ],
)
def test_invalid_proxy_options_are_rejected(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProxyOptions(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"episodes": 0}, {"alpha": 0.1}, {"beta": 0.0}, {"epsilon_min": -0.1}, {"controller_lr": 0.0}, {"seed": -1}],
)
def test_invalid_search_options_are_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(wrong)))):
        SearchOptions(**wrong)
