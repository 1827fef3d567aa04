"""Initial layers from the teacher: exact if the shapes agree, otherwise the best approximation of their rank."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.moments import Moments, cut_layers, kept_moments, sample_of, second_moments
from kdnas.distill.starting import start_student
from kdnas.distill.validation import sample_batches
from kdnas.distill.warm_start import TeacherLayers, thin
from kdnas.models.arch import Arch
from kdnas.models.student import principal_basis, student_from_teacher
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.text.corpus import Corpus

Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def encoder(teacher: Teacher) -> PreTrainedModel:
    return load_encoder(teacher.path)


@pytest.fixture(scope="module")
def batches(corpus: Corpus) -> Batches:
    return sample_batches(corpus.train, 300, 2048, corpus.pad_id, "cpu")


@pytest.fixture(scope="module")
def layers(encoder: PreTrainedModel, batches: Batches) -> TeacherLayers:
    return TeacherLayers(encoder, batches)


def started(encoder: PreTrainedModel, arch: Arch, layers: TeacherLayers) -> PreTrainedModel:
    return start_student(arch, encoder, "layers", 0, layers).eval()


def last_states(model: PreTrainedModel, batch: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        states: Tensor = model(input_ids=batch[0], attention_mask=batch[1]).last_hidden_state
    return states[batch[1].bool()]


@pytest.mark.slow
def test_student_with_the_shape_of_the_teacher_equals_the_teacher(
    encoder: PreTrainedModel, batches: Batches, layers: TeacherLayers
) -> None:
    student = started(encoder, Arch(6, 12, 384, 1536), layers)
    torch.testing.assert_close(last_states(student, batches[0]), last_states(encoder, batches[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_wider_heads_and_feed_forwards_compute_the_same(
    encoder: PreTrainedModel, batches: Batches, layers: TeacherLayers
) -> None:
    # Additional neurons and queries add nothing. The hidden size is the same, because wider states change a layer norm.
    student = started(encoder, Arch(6, 12, 384, 2048), layers)
    torch.testing.assert_close(last_states(student, batches[0]), last_states(encoder, batches[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_fewer_neurons_approximate_the_output(
    encoder: PreTrainedModel, batches: Batches, layers: TeacherLayers
) -> None:
    held_out = batches[-1]
    goal = last_states(encoder, held_out)

    def error(model: PreTrainedModel) -> float:
        return float((last_states(model, held_out) - goal).square().mean() / goal.var(0).mean())

    small = Arch(6, 12, 384, 1024)
    assert error(started(encoder, small, layers)) < 0.5 < error(student_from_teacher(small, encoder, seed=0).eval())


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["3,12,288,384,gelu", "4,2,384,576,relu", "3,6,576,2048,silu", "4,3,768,512,gelu"])
def test_students_of_any_shape_get_layers_of_the_teacher(
    encoder: PreTrainedModel, batches: Batches, layers: TeacherLayers, arch: str
) -> None:
    student = started(encoder, Arch.parse(arch), layers)
    plain = student_from_teacher(Arch.parse(arch), encoder, seed=0)
    assert torch.isfinite(last_states(student, batches[0])).all()
    for ours, other in zip(student.encoder.layer, plain.encoder.layer, strict=True):
        assert not torch.equal(ours.attention.self.query.weight, other.attention.self.query.weight)
        assert not torch.equal(ours.output.dense.weight, other.output.dense.weight)


@pytest.mark.slow
def test_attention_stays_random_if_the_head_counts_do_not_divide(
    encoder: PreTrainedModel, layers: TeacherLayers
) -> None:
    student, plain = (student_from_teacher(Arch(3, 8, 384, 384), encoder, seed=0) for _ in range(2))
    layers.start(student)
    ours, other = student.encoder.layer[0], plain.encoder.layer[0]
    assert torch.equal(ours.attention.self.query.weight, other.attention.self.query.weight)
    assert not torch.equal(ours.output.dense.weight, other.output.dense.weight)


def test_joined_heads_give_the_mean_of_their_scores(
    encoder: PreTrainedModel, batches: Batches, layers: TeacherLayers
) -> None:
    student = started(encoder, Arch(6, 6, 384, 1536), layers)
    ours, theirs = student.encoder.layer[0].attention.self, encoder.encoder.layer[0].attention.self
    states = torch.randn(1, 5, 384)

    def scores(attention: torch.nn.Module) -> Tensor:
        heads = attention.num_attention_heads
        query, key = (part(states).view(5, heads, -1).transpose(0, 1) for part in (attention.query, attention.key))
        return query @ key.transpose(1, 2) / (384 / heads) ** 0.5

    torch.testing.assert_close(scores(ours), scores(theirs).view(6, 2, 5, 5).mean(1), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_teacher_is_unchanged(
    teacher: Teacher, encoder: PreTrainedModel, batches: Batches, layers: TeacherLayers
) -> None:
    started(encoder, Arch(3, 12, 288, 384), layers)
    before = load_encoder(teacher.path).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_thin_gives_the_best_approximation_of_its_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(9, 6, generator=generator), torch.randn(6, 7, generator=generator)
    first, second = thin(left, right, 4)
    assert (first.shape, second.shape) == ((9, 4), (4, 7))
    outer, values, inner = torch.linalg.svd(left @ right, full_matrices=False)
    torch.testing.assert_close(first @ second, outer[:, :4] * values[:4] @ inner[:4], rtol=1e-4, atol=1e-4)
    wide = thin(left, right, 8)
    assert (wide[0].shape, wide[1].shape) == ((9, 8), (8, 7))
    assert torch.equal(wide[0][:, :6], left)
    torch.testing.assert_close(wide[0] @ wide[1], left @ right)


@torch.no_grad()
def moments_layer_by_layer(model: PreTrainedModel, sample: Batches, number: int) -> Tensor:
    """Second moments of one layer's neurons from a pass of its own: the definition."""
    seen: list[Tensor] = []
    hook = model.encoder.layer[number - 1].output.dense.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    for ids, mask in sample:
        model(input_ids=ids, attention_mask=mask)
    hook.remove()
    values = torch.cat([states[mask.bool()] for states, (_, mask) in zip(seen, sample, strict=True)])
    values = torch.cat([values, torch.ones(len(values), 1)], dim=1)
    return values.T @ values / len(values)


@torch.no_grad()
def moments_of_states(model: PreTrainedModel, sample: Batches) -> Tensor:
    """Sum over all states of their second moments about zero, each divided by its trace."""
    found = [model(ids, mask, output_hidden_states=True).hidden_states for ids, mask in sample]
    total = torch.zeros(())
    for layer in range(len(found[0])):
        rows = torch.cat([states[layer][mask.bool()].double() for states, (_, mask) in zip(found, sample, strict=True)])
        total = total + rows.T @ rows / rows.square().sum()
    return total.float()


@pytest.mark.slow
def test_narrower_students_start_in_the_principal_directions_of_the_states(
    encoder: PreTrainedModel, batches: Batches
) -> None:
    layers, held_out = TeacherLayers(encoder, batches), batches[-1]
    basis = layers.basis(288)
    torch.testing.assert_close(basis.T @ basis, torch.eye(288), rtol=0, atol=1e-5)
    assert (basis.gather(0, basis.abs().argmax(0, keepdim=True)) > 0).all()
    assert torch.equal(layers.basis(384), torch.eye(384))
    assert torch.equal(layers.basis(576), torch.eye(384))
    words = encoder.embeddings.word_embeddings.weight
    others = principal_basis(words.T @ words, 288)
    for states in encoder(*held_out, output_hidden_states=True).hidden_states:
        rows = states[held_out[1].bool()]
        rows = rows - rows.mean(0)
        kept, before = ((rows @ one).square().sum() / rows.square().sum() for one in (basis, others))
        assert kept > 0.9 > 0.8 > before


@pytest.fixture
def tiny(tiny_teacher: Teacher) -> PreTrainedModel:
    return load_encoder(tiny_teacher.path)


@pytest.mark.parametrize("arch", ["3,12,48,64,gelu", "4,6,96,128,relu"])
def test_one_pass_for_all_layers_gives_the_weights_of_a_pass_for_each(
    tiny: PreTrainedModel, batches: Batches, arch: str
) -> None:
    sample = sample_of(batches)
    neurons = {number: moments_layer_by_layer(tiny, sample, number) for number in (1, 2, 3, 4)}
    each = Moments(moments_of_states(tiny, sample), neurons)
    wanted = start_student(Arch.parse(arch), tiny, "layers", 0, TeacherLayers(tiny, batches, each))
    passes = count_passes(tiny)
    layers = TeacherLayers(tiny, batches, second_moments(tiny, sample, (1, 2, 3, 4)))
    found = start_student(Arch.parse(arch), tiny, "layers", 0, layers)
    assert len(passes) == len(sample)  # one pass
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=1e-5)


def count_passes(model: PreTrainedModel) -> list[None]:
    passes: list[None] = []
    model.register_forward_pre_hook(lambda *_: passes.append(None))
    return passes


def test_the_pass_is_kept_for_other_students_and_searches(
    tiny: PreTrainedModel,
    tiny_teacher: Teacher,
    corpus: Corpus,
    batches: Batches,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    passes, layers = count_passes(tiny), cut_layers([2, 4], 64, tiny)
    assert layers == [1, 2, 3, 4]
    assert cut_layers([2, 4], 192, tiny) == []
    first = kept_moments(tmp_path, tiny_teacher, corpus, tiny, batches, layers)
    assert len(passes) == len(sample_of(batches))
    assert "start: teacher: 100 %" in capsys.readouterr().err
    second = kept_moments(tmp_path, tiny_teacher, corpus, tiny, batches, layers)
    for arch in (Arch(2, 12, 48, 64), Arch(4, 12, 48, 128)):
        start_student(arch, tiny, "layers", 0, TeacherLayers(tiny, batches, second))
    assert len(passes) == len(sample_of(batches))  # not again
    assert torch.equal(first.states, second.states)
    assert all(torch.equal(first.neurons[number], second.neurons[number]) for number in layers)
    assert len(list((tmp_path / "warm-start").iterdir())) == 1
    kept_moments(tmp_path, replace(tiny_teacher, digest="another"), corpus, tiny, batches, layers)
    kept_moments(tmp_path, tiny_teacher, corpus, tiny, batches[:1], layers)
    assert len(list((tmp_path / "warm-start").iterdir())) == 3
