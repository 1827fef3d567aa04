"""Vocabulary and engine as further things to choose: encoded, distilled once, rewarded by their own table, replayed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher
from kdnas.search import journal
from kdnas.search.choice import Choice, fields_of, parse_choice
from kdnas.search.controller import Encoding
from kdnas.search.explore import explore, one_by_one
from kdnas.search.goal import LatencyTable, make_goal, read_table, with_choices
from kdnas.search.int8_loss import as_int8, rounded
from kdnas.search.options import STRATEGIES, ProxyOptions, SearchOptions
from kdnas.search.outcome import ProxyResult
from kdnas.search.proxy import Proxy
from kdnas.search.run import run_search, search
from kdnas.search.small_vocabulary import SmallVocabulary
from kdnas.search.strategies import make_strategy
from kdnas.text.corpus import Corpus

from .search_fixture import latency_ms, recorded, table

SPACE = SearchSpace(layers=(3,), heads=(2, 12), hidden=(288,), ffn=(384, 512), activation=("gelu",))
ARCHS = list(SPACE)
WHOLE = 30522


def known(engine: str, factor: float) -> LatencyTable:
    weight = 1 if engine.endswith("int8") else 4
    latencies = {arch: factor * latency_ms(arch) for arch in SearchSpace()}
    megabytes = {arch: weight * (WHOLE * arch.hidden + arch.layer_parameters) / 1e6 for arch in SearchSpace()}
    return LatencyTable(latencies, megabytes, 8.0 * factor, engine, engine, "a CPU, 2 cores", "teacher")


TABLES = [known("openvino-f32", 1.0), known("openvino-int8", 0.4)]


@given(st.sampled_from(ARCHS), st.integers(0, 40000), st.sampled_from(["openvino-int8", "pytorch-f32"]))
def test_a_choice_is_written_and_read(arch: Arch, vocabulary: int, engine: str) -> None:
    choice = Choice(arch.layers, arch.heads, arch.hidden, arch.ffn, arch.activation, vocabulary, engine)
    assert parse_choice(str(choice)) == choice
    assert choice.arch == arch == parse_choice(str(arch))
    assert choice != arch
    assert fields_of([choice])[:5] == fields_of([arch])


@pytest.mark.parametrize("text", ["3,12,288,384,gelu/many/pytorch-f32", "3,12,288,384,gelu/8000", "3,12/0/x"])
def test_what_is_no_choice(text: str) -> None:
    with pytest.raises(UsageError, match="architecture"):
        parse_choice(text)


def test_each_engine_has_its_own_latency_and_each_vocabulary_its_memory() -> None:
    choices, whole = with_choices(ARCHS, TABLES, (0, 8000), WHOLE)
    assert len(choices) == len(set(choices)) == 4 * 2 * 2
    goal = make_goal(choices, whole, SearchOptions())
    arch = ARCHS[0]
    fast, slow = (Choice(3, 2, 288, 384, "gelu", 8000, one.engine) for one in reversed(TABLES))
    assert goal.latencies[slow] == pytest.approx(latency_ms(arch))
    assert goal.latencies[fast] == pytest.approx(0.4 * latency_ms(arch))
    assert goal.teacher_latency_ms == 8.0
    assert goal.reward(fast, 0.3) > goal.reward(slow, 0.3)
    full = TABLES[0].megabytes[arch]
    assert goal.megabytes[slow] == pytest.approx(full - 4 * (WHOLE - 8000) * 288 / 1e6)
    assert goal.megabytes[fast] == pytest.approx(goal.megabytes[slow] / 4)


def test_tables_and_vocabularies_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="one table of each engine"):
        with_choices(ARCHS, [TABLES[0], TABLES[0]], (), WHOLE)
    with pytest.raises(UsageError, match="of different hosts or teachers"):
        with_choices(ARCHS, [TABLES[0], replace(TABLES[1], host="another CPU, 4 cores")], (), WHOLE)
    for wrong in ((40000,), (5,), (8000, 8000)):
        with pytest.raises(UsageError, match="the teacher's 30522 tokens, and 0 for all"):
            with_choices(ARCHS, TABLES, wrong, WHOLE)
    with pytest.raises(UsageError, match=r"engine is pytorch-f32, the latency table is of openvino-f32; run"):
        make_goal(ARCHS, TABLES[0], SearchOptions(engine="pytorch-f32"))


def test_what_losses_on_record_cannot_tell(tmp_path: Path) -> None:
    file = recorded(tmp_path / "losses.csv", ARCHS)
    path = table(tmp_path, list(SearchSpace())).path
    with pytest.raises(UsageError, match="which the proxy alone measures"):
        search(SearchOptions(vocabularies=(8000,)), path, replay=file, home=tmp_path)
    with pytest.raises(UsageError, match="which the proxy alone measures"):
        search(SearchOptions(), path, replay=file, more_tables=(path,), home=tmp_path)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_proposes_all_choices_once(name: str, tmp_path: Path) -> None:
    choices, whole = with_choices(ARCHS[:2], TABLES, (0, 8000), WHOLE)
    options = SearchOptions(strategy=name, episodes=4, candidates_per_episode=3)  # type: ignore[arg-type]
    goal = make_goal(choices, whole, options)

    def evaluate(arch: Arch) -> ProxyResult:
        assert isinstance(arch, Choice)
        return ProxyResult(0.4 + 0.02 * (arch.vocabulary > 0) + 0.01 * arch.engine.endswith("int8"), 100)

    path = tmp_path / journal.FILE
    found = explore(path, make_strategy(goal, options), one_by_one(evaluate), goal, options)
    assert sorted(str(one.arch) for one in found) == sorted(map(str, choices))
    assert journal.read(path) == found


def test_the_encoding_tells_choices_apart() -> None:
    choices, _ = with_choices(ARCHS, TABLES, (0, 8000), WHOLE)
    encoding = Encoding(choices)
    assert encoding.width == 25 + 2 + 2
    assert len({tuple(row) for row in encoding(choices)}) == len(choices)
    assert Encoding(ARCHS).width == Encoding().width == 25


def test_rounding_by_hand() -> None:
    weights = torch.tensor([[1.27, -0.635, 0.004], [0.0, 2.54, 0.03]])
    expected = torch.tensor([[1.27, -0.64, 0.0], [0.0, 2.54, 0.04]])  # 63.5 rounds to even
    torch.testing.assert_close(rounded(weights, dim=1), expected)
    values = torch.tensor([-1.0, 0.0, 1.55])  # steps of 0.01
    torch.testing.assert_close(rounded(values), values)
    assert len(rounded(torch.linspace(0, 1, 5000)).unique()) == 256


def test_int8_is_near_float_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 8))
    inputs = torch.randn(32, 64)
    before = [parameter.clone() for parameter in model.parameters()]
    exact = model(inputs).detach()
    with as_int8(model):
        quantised = model(inputs)
    difference = float((quantised.detach() - exact).abs().max())
    assert 1e-4 < difference < 0.05
    assert all(map(torch.equal, before, model.parameters()))
    assert torch.equal(model(inputs), exact)


def test_a_small_vocabulary_keeps_the_most_frequent(tiny_teacher: Teacher, corpus: Corpus) -> None:
    read = SmallVocabulary(corpus, tiny_teacher.path / "tokenizer.json")
    ids = torch.from_numpy(np.array(corpus.train.tokens[:500], dtype=np.int64))[None]
    assert torch.equal(read(ids, 0), ids)
    small = read(ids, 300)
    kept = small == ids
    assert 0.3 < float(kept.float().mean()) < 1
    assert small[~kept].unique().tolist() == [100]  # [UNK]
    counts = np.bincount(corpus.train.tokens)
    assert counts[ids[kept].numpy()].min() >= counts[ids[~kept].numpy()].max()


def test_choices_are_distilled_once_and_cost_what_they_cost(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    options = ProxyOptions(tokens=600, batch_tokens=256, validation_sentences=20)
    proxy = Proxy(tmp_path / "states", tiny_teacher, corpus, SPACE, options, 0)
    steps: list[int] = []
    train = proxy._train
    proxy._train = lambda *given: (steps.append(1), train(*given))[1]  # type: ignore[method-assign]
    plain = proxy(ARCHS[0])
    choice = Choice(3, 2, 288, 384, "gelu", 0, "openvino-f32")
    assert proxy(choice) == plain
    int8 = proxy(replace(choice, engine="openvino-int8"))
    assert int8.tokens == plain.tokens
    assert 0 < abs(int8.loss - plain.loss) < 0.05
    assert len(steps) == 2  # the plain one and the choice
    small = proxy(replace(choice, vocabulary=300))
    assert small.loss > plain.loss
    assert len(steps) == 3
    proxy.close()


def test_searched_and_resumed(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    first = read_table(table(tmp_path, list(SearchSpace()), engine="openvino-f32"))
    other = read_table(table(tmp_path, list(SearchSpace()), engine="openvino-int8"))
    proxy = ProxyOptions(tokens=600, batch_tokens=256, validation_sentences=20)
    options = SearchOptions(
        strategy="random", vocabularies=(0, 1000), episodes=1, candidates_per_episode=3, proxy=proxy
    )
    given = (tiny_teacher, corpus, SPACE, first, options)
    found = run_search(tmp_path, *given, more_tables=[other])
    assert found.results["space_size"] == 4 * 2 * 2
    winner = parse_choice(found.results["winner"])
    assert isinstance(winner, Choice)
    assert winner.engine in ("openvino-f32", "openvino-int8")
    assert run_search(tmp_path, *given, more_tables=[other]).path == found.path
    assert run_search(tmp_path, *given).path != found.path
