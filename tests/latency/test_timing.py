"""Models from the shared pool are stock models with finite outputs, and timings count the stated calls."""

import gc
import random
import time
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from transformers import RobertaConfig

from kdnas.latency.engines import random_sentence
from kdnas.latency.protocol import WARM_CALLS
from kdnas.latency.timing import REFERENCE_CALLS, REFERENCE_WARM_CALLS, ROUNDS, ModelMaker, reference_window, window
from kdnas.models.arch import Arch
from kdnas.models.student import new_student
from kdnas.models.teacher import Teacher, load_config

ARCH = Arch(3, 4, 288, 512, "silu")


def sentence(length: int, config: Any, seed: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in random_sentence(length, config, seed).items()}


@pytest.fixture(scope="module")
def maker(tiny_teacher: Teacher) -> ModelMaker:
    return ModelMaker(load_config(tiny_teacher.path), seed=0)


def test_same_model_as_a_fresh_one(maker: ModelMaker) -> None:
    made, fresh = maker.student(ARCH), new_student(ARCH, maker.teacher).eval()
    assert type(made) is type(fresh)
    assert made.config._attn_implementation == fresh.config._attn_implementation == "sdpa"
    shapes = {name: (tuple(p.shape), p.dtype) for name, p in fresh.named_parameters()}
    assert {name: (tuple(p.shape), p.dtype) for name, p in made.named_parameters()} == shapes
    for (name, buffer), (_, expected) in zip(made.named_buffers(), fresh.named_buffers(), strict=True):
        assert torch.equal(buffer, expected), name
    # The same weights give the same output: only the weights were replaced.
    fresh.load_state_dict(made.state_dict())
    item = sentence(17, maker.teacher, seed=1)
    with torch.inference_mode():
        assert torch.equal(made(**item).last_hidden_state, fresh(**item).last_hidden_state)


@pytest.mark.parametrize("arch", [Arch(3, 2, 288, 384, "relu"), Arch(12, 12, 768, 3072, "gelu")])
def test_outputs_are_finite_and_no_weight_is_denormal(maker: ModelMaker, arch: Arch) -> None:
    model = maker.student(arch)
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad
        small = (parameter != 0) & (parameter.abs() < 1e-7)
        assert not small.any(), name
    with torch.inference_mode():
        states = model(**sentence(64, maker.teacher, seed=0)).last_hidden_state
    assert states.shape == (1, 64, arch.hidden)
    assert torch.isfinite(states).all()
    assert states.std() > 0.1  # a model with collapsed states would multiply zeros


def test_layer_weights_are_not_shared_but_the_embedding_table_is(maker: ModelMaker) -> None:
    first, second = maker.student(ARCH), maker.student(ARCH)
    indices = [p.data_ptr() for m in (first, second) for p in m.encoder.parameters()]
    assert len(set(indices)) == len(indices)
    assert first.embeddings.word_embeddings.weight.data_ptr() == second.embeddings.word_embeddings.weight.data_ptr()


def test_roberta_family() -> None:
    config = RobertaConfig(
        vocab_size=500,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=1,
    )
    maker = ModelMaker(config, seed=0)
    item = sentence(64, config, seed=0)
    assert (item["input_ids"] != 1).all()
    with torch.inference_mode():
        assert torch.isfinite(maker.model(config)(**item).last_hidden_state).all()


class Sleeper(nn.Module):
    """Sleeps one millisecond per token, and records whether garbage collection was enabled."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.collecting = 0, False

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        self.calls += 1
        self.collecting |= gc.isenabled()
        assert torch.is_inference_mode_enabled()
        time.sleep(input_ids.shape[1] / 1000)


def test_window_has_a_reference_on_both_sides_of_every_sweep(maker: ModelMaker) -> None:
    items = [sentence(length, maker.teacher, 0) for length in (2, 8)]
    model = Sleeper()
    seen: list[int] = []

    def reference() -> float:
        seen.append(model.calls)
        return 5.0

    rounds, references = window(model, items, reference, random.Random(0), window_ms=60)
    assert ROUNDS[0] <= len(rounds) <= ROUNDS[1]
    assert references == [5.0] * (len(rounds) + 1)
    # The first sweep is untimed; before each timed one, some calls load the weights into the caches.
    assert seen == [2 + (WARM_CALLS + 2) * number for number in range(len(rounds) + 1)]
    for short_ms, long_ms in rounds:
        assert short_ms >= 2
        assert long_ms >= 8
    assert not model.collecting
    assert gc.isenabled()


class Remembering:
    """Returns 4 ms for a call with a new shape and 1 ms for one with the same shape."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> float:
        same = bool(self.shapes) and self.shapes[-1] == input_ids.shape
        self.shapes.append(input_ids.shape)
        return 1.0 if same else 4.0


def test_changes_of_shape_are_weighted_by_their_frequency(maker: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the sentences have the first length: the shape is unchanged as often, (4 + 1) / 2 ms; 10 % the second: 3.7 ms.

    With one sweep per length, all lengths would take 4 ms.
    """
    monkeypatch.setattr("kdnas.latency.timing.call_ms", lambda model, item: model(**item))
    items = [sentence(length, maker.teacher, 0) for length in (8, 16, 24)]
    model = Remembering()
    rounds, _ = window(model, items, lambda: 5.0, random.Random(0), [0.5, 0.1, 1.0], window_ms=60)
    assert rounds == [pytest.approx([2.5, 3.7, 1.0])] * ROUNDS[0]
    once, _ = window(Remembering(), items, lambda: 5.0, random.Random(0), window_ms=60)
    assert once == [[4.0, 4.0, 4.0]] * ROUNDS[0]
    # In each round every length runs twice: after another shape, also after the untimed calls, and then after the same shape.
    counted = model.shapes[3:]
    for first in range(0, len(counted), WARM_CALLS + 6):
        shapes = counted[first + WARM_CALLS - 1 : first + WARM_CALLS + 6]
        assert [after == before for before, after in pairwise(shapes)] == [False, True] * 3


def test_reference_window_is_a_median_after_untimed_calls(maker: ModelMaker) -> None:
    item = sentence(8, maker.teacher, 0)
    model = Sleeper()
    assert reference_window(model, item) >= 8
    assert model.calls == REFERENCE_WARM_CALLS + REFERENCE_CALLS


def test_bf16_models_are_bf16_throughout(tiny_teacher: Teacher) -> None:
    maker = ModelMaker(load_config(tiny_teacher.path), 0, torch.bfloat16)
    model = maker.student(ARCH)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        assert model(**sentence(12, maker.teacher, 0)).last_hidden_state.isfinite().all()
